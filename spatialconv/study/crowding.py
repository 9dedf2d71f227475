"""Which sets a short stretch of a run fights for. Over a whole run every set gets its turn, and misses even out."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from ..problem import Conv2dProblem
from .cache import Level
from .nest import Nest

if TYPE_CHECKING:
    import numpy as np

_LOOKED_AT = 200_000
_STRETCHES = 64


def stretch(nest: Nest) -> int:
    """Accesses that one output takes in a direct nest: two for each product, or one for each pixel of a pool's window,
    and the store."""
    problem = nest.problem
    if isinstance(problem, Conv2dProblem):
        return 2 * problem.reduction + 1
    return problem.kh * problem.kw + 1


def crowding(nest: Nest, level: Level) -> np.ndarray:
    """Different lines that each buffer wants in each set, (buffers, sets), during the most crowded of the first
    stretches of ``stretch(nest)`` accesses."""
    import numpy as np

    size = stretch(nest)
    numbers = {buffer.name: number for number, buffer in enumerate(nest.buffers)}
    accesses = nest.addresses()
    most = np.zeros((len(numbers), level.sets), np.int64)
    for _ in range(max(1, min(_STRETCHES, _LOOKED_AT // size))):
        wanted = {(numbers[name], address // level.line) for name, address, _ in islice(accesses, size)}
        counts = np.zeros_like(most)
        for number, line in wanted:
            counts[number, line % level.sets] += 1
        if counts.sum(0).max() > most.sum(0).max():
            most = counts
    return most

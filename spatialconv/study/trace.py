"""Run a nest through simulated caches and count who misses."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from .cache import Level
from .compiled import Window, run
from .lru import SLOTS, Caches, extent
from .nest import Nest
from .tally import tally

if TYPE_CHECKING:
    import numpy as np

KINDS = ("first touch", "capacity", "conflict")
# What is simulated whole, at a hundred million accesses a second or more; and a window's part before and in it.
WHOLE = 1_000_000_000
_PART = 100_000_000


@dataclass(frozen=True, eq=False)
class Trace:
    """Counts of one run.

    accesses: by buffer. misses: by (buffer, level's name); what reaches a level is what missed the one before. kinds:
    by (buffer, level's name, one of ``KINDS``), empty unless asked for; conflicts may be negative. heat: by buffer, in
    its shape, misses of the first level at each element, empty unless asked for. sets: by level's name, misses as
    (buffers, sets). window: None, or the rows that alone were counted: then the run is *sampled*. seconds: of the
    simulation, compilation included.
    """

    nest: Nest
    levels: tuple[Level, ...]
    accesses: dict[str, int]
    misses: dict[tuple[str, str], int]
    kinds: dict[tuple[str, str, str], int]
    heat: dict[str, np.ndarray]
    sets: dict[str, np.ndarray]
    window: Window | None
    seconds: float

    def total(self, level: str) -> int:
        """All buffers' misses of a level."""
        return sum(self.misses[buffer.name, level] for buffer in self.nest.buffers)


def window(nest: Nest, first: int, last: int) -> Window:
    """Rows ``first`` to ``last``, counted after as many before them as hold a hundred million accesses. Raises
    ValueError where the nest has no such rows."""
    whole = tally(nest)
    before = max(1, -(-_PART * whole.rows // max(1, whole.total)))
    return Window(max(0, first - before), first, last, whole.rows)


def sample(nest: Nest) -> Window | None:
    """The window in the middle of the run that stands for a nest of more than ``WHOLE`` accesses; None for others."""
    whole = tally(nest)
    if whole.total <= WHOLE or whole.rows < 2:
        return None
    size = max(1, _PART * whole.rows // whole.total)
    first = min(whole.rows // 2, whole.rows - size)
    return window(nest, first, first + size)


def trace(
    nest: Nest, levels: tuple[Level, ...], kinds: bool = False, heat: bool = False, rows: Window | None = None
) -> Trace:
    """Simulate ``nest`` on ``levels``, each seeing the misses of the one before, empty at the start.

    ``kinds`` splits misses (a few times slower), ``heat`` counts them by element, ``rows`` counts a window. A
    store counts as a load of its line; prefetching and write-backs are not modelled. Raises ValueError for no levels,
    two of one name or elements larger than a line, and for ``kinds`` of a level of one line, or of a window, in which a
    first touch cannot be told; for what takes more than 4 GiB; ImportError without Numba.
    """
    names = [level.name for level in levels]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"study: trace: expected levels of different names, got {names}")
    if kinds and rows:
        raise ValueError("study: trace: expected a whole run for kinds of misses, got a window of rows")
    if kinds and min(level.lines for level in levels) < 2:
        raise ValueError("study: trace: expected levels of at least two lines for kinds of misses")
    if (item := max(buffer.itemsize for buffer in nest.buffers)) > min(level.line for level in levels):
        raise ValueError(f"study: trace: expected lines of at least an element of {item} B")
    caches = Caches(nest, levels, kinds, heat)
    state = caches.state
    started = perf_counter()
    touched = run(nest, caches.action(), state, rows)
    seconds = perf_counter() - started
    sets = {
        level.name: state[first:last].reshape(SLOTS, level.sets)[: len(nest.buffers)].copy()
        for level, first, last in zip(levels, caches.misses, caches.misses[1:], strict=False)
    }
    buffers = list(enumerate(nest.buffers))
    misses = {(buffer.name, name): int(sets[name][number].sum()) for name in names for number, buffer in buffers}
    return Trace(
        nest=nest, levels=levels, accesses={buffer.name: touched[number] for number, buffer in buffers},
        misses=misses, kinds=_kinds(nest, names, state[caches.tally : caches.tags[0]], misses) if kinds else {},
        heat=_heat(nest, state[caches.heats[0] : caches.heats[-1]]) if heat else {}, sets=sets, window=rows,
        seconds=seconds,
    )  # fmt: skip


def _kinds(nest: Nest, names: list[str], counts: np.ndarray, misses: dict[tuple[str, str], int]) -> dict:
    counts = counts.reshape(len(names), 2, SLOTS)
    found = {}
    for level, name in enumerate(names):
        for number, buffer in enumerate(nest.buffers):
            touched, fully = map(int, counts[level, :, number])
            parts = (touched, fully - touched, misses[buffer.name, name] - fully)
            found.update({(buffer.name, name, kind): part for kind, part in zip(KINDS, parts, strict=True)})
    return found


def _heat(nest: Nest, flat: np.ndarray) -> dict[str, np.ndarray]:
    import numpy as np

    found, first = {}, 0
    for buffer in nest.buffers:
        part = flat[first : first + extent(buffer)]
        strides = tuple(stride * part.itemsize for stride in buffer.strides)
        found[buffer.name] = np.lib.stride_tricks.as_strided(part, buffer.shape, strides).copy()
        first += extent(buffer)
    return found

"""Reuse distances: how many other lines a nest touches between two touches of one line, and the misses that follow for
fully associative caches of every size.

A fully associative cache of C lines with the least recently used one evicted holds a line exactly while its distance is
below C, so one histogram tells the misses of all sizes: Mattson, Gecsei, Slutz, Traiger, "Evaluation techniques for
storage hierarchies" (IBM Systems Journal 9(2), 1970). The distance is counted in a tree over the times of last touches:
Bennett & Kruskal, "LRU stack processing" (IBM Journal of Research and Development 19(4), 1975), and Olken, "Efficient
methods for calculating the success function of fixed space replacement policies" (LBL-12370, 1981), here a Fenwick tree
whose times are renumbered when they run out.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from .compiled import Action, Helper, run
from .lru import Lines
from .nest import Nest
from .tally import tally

if TYPE_CHECKING:
    import numpy as np

LIMIT = 500_000_000


@dataclass(frozen=True, eq=False)
class Reuse:
    """``distances``: by buffer, how many touches had each distance, in lines. ``first``: by buffer, touches of a line
    that had not been touched before. ``seconds``: of the run, compilation included."""

    nest: Nest
    line: int
    accesses: dict[str, int]
    distances: dict[str, np.ndarray]
    first: dict[str, int]
    seconds: float

    def misses(self, buffer: str) -> np.ndarray:
        """Misses of one buffer in a fully associative cache of 0, 1, 2 ... lines, up to one that holds everything."""
        import numpy as np

        behind = np.cumsum(self.distances[buffer][::-1])[::-1]
        return np.append(behind, 0) + self.first[buffer]

    def median(self, buffer: str) -> int | None:
        """The distance that half of the touches of lines touched before do not exceed; None where there are none."""
        import numpy as np

        sums = np.cumsum(self.distances[buffer])
        return int(np.searchsorted(sums, (sums[-1] + 1) // 2)) if sums[-1] else None


def reuse(nest: Nest, line: int = 64) -> Reuse:
    """Reuse distances of a nest in lines of ``line`` bytes, a power of two. Raises ValueError beyond ``LIMIT`` accesses
    and on other lines; ImportError without Numba."""
    import numpy as np

    if not 16 <= line <= 4096 or line & (line - 1):
        raise ValueError(f"study: reuse: expected lines of 16 to 4096 B, 2**n, got {line}")
    if (total := tally(nest).total) > LIMIT:
        raise ValueError(f"study: reuse: expected at most {LIMIT:,} accesses, {nest.name} has {total:,}")
    lines = Lines.of(nest.buffers, line)
    count, room = len(nest.buffers), 1 << (2 * lines.count + 2).bit_length()
    # Head: time, lines in the tree, the two newest lines, room, number of lines; then by buffer shifts and firsts.
    state = np.zeros(6 + 2 * count + (count + 1) * lines.count + 2 * (room + 1), np.int64)
    state[:6] = 0, 0, -1, -1, room, lines.count
    state[6 : 6 + count] = lines.shifts
    started = perf_counter()
    touched = run(nest, _action(count, line), state)
    seconds = perf_counter() - started
    names = [buffer.name for buffer in nest.buffers]
    histogram = state[6 + 2 * count :][: count * lines.count].reshape(count, lines.count).copy()
    return Reuse(
        nest=nest, line=line, accesses=dict(zip(names, touched, strict=True)),
        distances=dict(zip(names, histogram, strict=True)),
        first={name: int(state[6 + count + number]) for number, name in enumerate(names)}, seconds=seconds,
    )  # fmt: skip


def _action(count: int, line: int) -> Action:
    shift, histogram = line.bit_length() - 1, 6 + 2 * count

    def touch(number: int) -> tuple[str, ...]:
        return (
            f"i = (p >> {shift}) - state[{6 + number}]",
            f"bin = {histogram} + {number} * state[5]",
            "newest = state[2]",
            "if newest == i:",
            "    state[bin] += 1",
            "elif state[3] == i:",
            "    state[bin + 1] += 1",
            "    state[3] = newest",
            "    state[2] = i",
            "else:",
            f"    far(state, i, bin, {6 + count + number})",
        )

    far = _FAR.format(count=count, histogram=histogram)
    helpers = (Helper("renumber", 4, _RENUMBER), Helper("far", 3, far))
    return Action(helpers, touch, ())


# The two newest lines stand beside the tree. ``last`` + line: its time in the tree, 0 where it is in none; ``tree`` +
# time: Fenwick sums of lines; ``owner`` + time: the line that went into the tree then.
_FAR = """\
def far(state, i, bin, first):
    room, lines = state[4], state[5]
    last = {histogram} + {count} * lines
    tree = last + lines
    owner = tree + room + 1
    then = state[last + i]
    if then > 0:
        newer = state[1]
        at = then
        while at > 0:
            newer -= state[tree + at]
            at &= at - 1
        state[bin + 2 + newer] += 1
        at = then
        while at <= room:
            state[tree + at] -= 1
            at += at & -at
        state[owner + then] = -1
        state[last + i] = 0
        state[1] -= 1
    else:
        state[first] += 1
    third = state[3]
    state[3] = state[2]
    state[2] = i
    if third >= 0:
        if state[0] == room:
            renumber(state, last, tree, owner, room)
        state[0] += 1
        now = state[0]
        state[last + third] = now
        state[owner + now] = third
        state[1] += 1
        at = now
        while at <= room:
            state[tree + at] += 1
            at += at & -at"""

_RENUMBER = """\
def renumber(state, last, tree, owner, room):
    kept = 0
    for time in range(1, room + 1):
        line = state[owner + time]
        if line >= 0:
            kept += 1
            state[owner + kept] = line
            state[last + line] = kept
    for time in range(1, room + 1):
        state[tree + time] = max(0, min(kept, time) - (time - (time & -time)))
        if time > kept:
            state[owner + time] = -1
    state[0] = kept"""

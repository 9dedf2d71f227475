"""Caches with the least recently used line evicted, as text for compiled nests, and the memory they work on.

Each set is a list of lines, the newest in front; a store allocates as a load does, and what is written back costs
nothing. A level sees the misses of the level before it. Geometry is compiled in, sets are found by a mask where their
number is a power of two. What is first in its set is found without a call.

Beside each level, where ``kinds`` are asked for, stands a fully associative one of the same size that sees the same
lines: a list linked by line numbers, so that a touch costs the same at any size, with its two newest lines in front.
Hill & Smith, "Evaluating Associativity in CPU Caches" (IEEE Trans. Computers 38(12), 1989), name the kinds: first touch
(compulsory), what full associativity would not save either (capacity), and the rest (conflict), which is negative where
LRU over all lines evicts worse than sets do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .cache import Level
from .compiled import Action, Helper
from .nest import Buffer, Nest

# Counts have a place for each of so many buffers, so that nests of two to four share what is compiled.
SLOTS = 4
# Elements of eight bytes that one simulation may take: 4 GiB.
STATE_LIMIT = 2**29
_OUT, _NEVER = -1, -2


def check_apart(nest: Nest) -> None:
    """Raises ValueError where a buffer is so long that it runs into the next one."""
    spans = sorted((one.base, one.base + extent(one) * one.itemsize, one.name) for one in nest.buffers)
    for (_, end, name), (base, _, other) in zip(spans, spans[1:], strict=False):
        if end > base:
            raise ValueError(f"study: nest: {name} of {nest.problem} runs into {other}, {end - base:,} B too long")


def extent(buffer: Buffer) -> int:
    """Elements from a buffer's first to one past its last, gaps between strides included."""
    return 1 + sum((size - 1) * stride for size, stride in zip(buffer.shape, buffer.strides, strict=True))


@dataclass(frozen=True)
class Lines:
    """The lines of a nest's buffers, of one size, numbered without gaps: a line's number is its address / ``line`` less
    ``shifts`` of its buffer."""

    shifts: tuple[int, ...]
    count: int

    @classmethod
    def of(cls, buffers: Sequence[Buffer], line: int) -> Lines:
        shifts, count = [], 0
        for buffer in buffers:
            first = buffer.base // line
            last = (buffer.base + extent(buffer) * buffer.itemsize - 1) // line
            shifts.append(first - count)
            count += last - first + 1
        return cls(tuple(shifts), count)


class Caches:
    """The text of levels for one nest, and ``state``, the array of int64 that it works on.

    state: misses by level, buffer and set; tally, by level the first touches and the fully associative one's misses of
    each buffer; tags, lines by level, set and way, -1 where empty; front, by level the two newest lines of the fully
    associative one; info, for each buffer its base, itemsize and place in heat, then by level where its links begin,
    how many lines there are, and each buffer's shift; heat, misses of the first level by element; links, by level for
    each line the next older and the next newer one, and the list's length. All up to info stand where the levels and
    ``SLOTS`` put them, so that text does not depend on sizes.
    """

    def __init__(self, nest: Nest, levels: tuple[Level, ...], kinds: bool, heat: bool) -> None:
        import numpy as np

        check_apart(nest)
        self.buffers, self.levels, self.kinds, self.heat = nest.buffers, levels, kinds, heat
        self.misses = _offsets(level.sets * SLOTS for level in levels)
        self.tally = self.misses[-1]
        self.tags = _offsets((level.lines for level in levels), self.tally + 2 * len(levels) * SLOTS)
        self.front = self.tags[-1]
        self.info = self.front + 2 * len(levels)
        unused = [0] * (SLOTS - len(nest.buffers))
        elements = [extent(buffer) if heat else 0 for buffer in nest.buffers] + unused
        self.heats = _offsets(elements, self.info + 3 * SLOTS + len(levels) * (2 + SLOTS))
        lines = [Lines.of(nest.buffers, level.line) for level in levels]
        links = _offsets((2 * one.count + 3 if kinds else 0 for one in lines), self.heats[-1])
        if links[-1] > STATE_LIMIT:
            raise ValueError(
                f"study: trace: expected counts of at most {8 * STATE_LIMIT:,} B, {nest.name} of {nest.problem} with "
                f"kinds {'on' if kinds else 'off'} and heat {'on' if heat else 'off'} takes {8 * links[-1]:,}"
            )
        self.state = np.zeros(links[-1], np.int64)
        self.state[self.tags[0] : self.info] = -1
        info = [
            value
            for buffer, first in zip(nest.buffers, self.heats, strict=False)
            for value in (buffer.base, buffer.itemsize, first)
        ]
        info += [value for _ in unused for value in (0, 1, self.heats[-1])]
        for one, first in zip(lines, links, strict=False):
            info += [first, one.count, *one.shifts, *unused]
        self.state[self.info : self.info + len(info)] = info
        for one, first, last in zip(lines, links, links[1:], strict=False):
            if kinds:
                self.state[first:last] = _NEVER
                self.state[first + one.count] = self.state[last - 2] = one.count
                self.state[last - 1] = 0

    def action(self) -> Action:
        helpers = [Helper("fully", 6, _FULLY)] if self.kinds else []
        helpers.append(Helper("miss", 2, "\n".join(["def miss(state, p, b):", *self.missing()])))
        reset = [f"state[:{self.tags[0]}] = 0"]
        if self.heat:
            # The last buffer's heat ends where the first level's links begin.
            reset.append(f"state[state[{self.info + 2}] : state[{self.info + 3 * SLOTS}]] = 0")
        return Action(tuple(helpers), self.touch, tuple(reset))

    def touch(self, number: int) -> tuple[str, ...]:
        first = self.levels[0]
        lines = [f"line = p >> {_shift(first)}", *self.beside(0, str(number))]
        lines += [f"at = {self.tags[0]} + ({_set(first)}) * {first.ways}", "newest = state[at]", "if newest != line:"]
        if first.ways == 1:
            return (*lines, f"    miss(state, p, {number})")
        return (
            *lines,
            "    if state[at + 1] == line:",
            "        state[at + 1] = newest",
            "        state[at] = line",
            "    else:",
            f"        miss(state, p, {number})",
        )

    def beside(self, number: int, buffer: str) -> list[str]:
        """What the fully associative level does with ``line``; most touches are of its two newest lines."""
        if not self.kinds:
            return []
        front = self.front + 2 * number
        info = self.info + 3 * SLOTS + number * (2 + SLOTS)
        tally = self.tally + 2 * number * SLOTS
        room = self.levels[number].lines - 2
        return [
            f"i = line - state[{info + 2} + {buffer}]",
            f"second = state[{front}]",
            "if second != i:",
            f"    if state[{front + 1}] == i:",
            f"        state[{front + 1}] = second",
            f"        state[{front}] = i",
            "    else:",
            f"        fully(state, {front}, state[{info}], state[{info + 1}], {room}, i, {tally} + {buffer})",
        ]

    def missing(self) -> list[str]:
        """The body of what runs where the line is not the newest of its set in the first level."""
        lines = []
        for number, level in enumerate(self.levels):
            lines += [f"line = p >> {_shift(level)}"]
            if number:
                lines += self.beside(number, "b")
            lines += [f"s = {_set(level)}", f"at = {self.tags[number]} + s * {level.ways}"]
            lines += _SET_ASSOCIATIVE.format(ways=level.ways).splitlines()
            lines += [f"state[{self.misses[number]} + b * {level.sets} + s] += 1"]
            if number == 0 and self.heat:
                base = f"{self.info} + 3 * b"
                lines += [f"state[state[{base} + 2] + (p - state[{base}]) // state[{base} + 1]] += 1"]
        return [f"    {line}" for line in lines]


_SET_ASSOCIATIVE = """\
way = 0
while way < {ways} and state[at + way] != line:
    way += 1
found = way < {ways}
if not found:
    way = {ways} - 1
while way > 0:
    state[at + way] = state[at + way - 1]
    way -= 1
state[at] = line
if found:
    return"""

# Beyond the two in front, from ``first`` on: older[0..end], newer[0..end], length; the list runs from older[end] to
# newer[end]. The tally of first touches stands at ``tally``, that of misses behind it.
_FULLY = f"""\
def fully(state, front, first, end, room, i, tally):
    newer, length = first + end + 1, first + 2 * end + 2
    older = state[first + i]
    if older >= 0:
        state[first + state[newer + i]] = older
        state[newer + older] = state[newer + i]
        state[length] -= 1
    else:
        state[tally + {SLOTS}] += 1
        if older == {_NEVER}:
            state[tally] += 1
    third = state[front + 1]
    state[front + 1] = state[front]
    state[front] = i
    if third >= 0:
        head = state[first + end]
        state[first + third] = head
        state[newer + third] = end
        state[newer + head] = third
        state[first + end] = third
        state[length] += 1
        if state[length] > room:
            last = state[newer + end]
            before = state[newer + last]
            state[first + before] = end
            state[newer + end] = before
            state[first + last] = {_OUT}
            state[length] -= 1"""


def _shift(level: Level) -> int:
    return level.line.bit_length() - 1


def _set(level: Level) -> str:
    """The number of the set of ``line``."""
    return f"line & {level.sets - 1}" if level.sets & (level.sets - 1) == 0 else f"line % {level.sets}"


def _offsets(sizes: Iterable[int], first: int = 0) -> list[int]:
    """Where each begins when they lie one behind the other from ``first`` on, and where all end."""
    found = [first]
    for size in sizes:
        found.append(found[-1] + size)
    return found

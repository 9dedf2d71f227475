"""The slow judge of the simulator: the same caches in a few lines of plain Python, from a nest's addresses."""

from __future__ import annotations

from collections import Counter, OrderedDict

from .cache import Level
from .nest import Nest
from .trace import KINDS, Trace


class _Set:
    """Lines of one set, the oldest first."""

    def __init__(self, ways: int) -> None:
        self.ways, self.lines = ways, OrderedDict()

    def misses(self, line: int) -> bool:
        if line in self.lines:
            self.lines.move_to_end(line)
            return False
        self.lines[line] = None
        if len(self.lines) > self.ways:
            self.lines.popitem(last=False)
        return True


def judge(nest: Nest, levels: tuple[Level, ...]) -> Trace:
    """What ``trace`` returns with kinds, without heat and sets."""
    sets = [[_Set(level.ways) for _ in range(level.sets)] for level in levels]
    whole = [_Set(level.lines) for level in levels]
    seen: list[set[int]] = [set() for _ in levels]
    accesses, misses, kinds = Counter(), Counter(), Counter()
    for name, address, _ in nest.addresses():
        accesses[name] += 1
        for number, level in enumerate(levels):
            line = address // level.line
            first, fully = line not in seen[number], whole[number].misses(line)
            seen[number].add(line)
            missed = sets[number][line % level.sets].misses(line)
            for kind, count in zip(KINDS, (first, fully - first, missed - fully), strict=True):
                kinds[name, level.name, kind] += count
            if not missed:
                break
            misses[name, level.name] += 1
    pairs = [(buffer.name, level.name) for level in levels for buffer in nest.buffers]
    return Trace(
        nest=nest, levels=levels, accesses={buffer.name: accesses[buffer.name] for buffer in nest.buffers},
        misses={pair: misses[pair] for pair in pairs},
        kinds={(*pair, kind): kinds[(*pair, kind)] for pair in pairs for kind in KINDS},
        heat={}, sets={}, window=None, seconds=0.0,
    )  # fmt: skip

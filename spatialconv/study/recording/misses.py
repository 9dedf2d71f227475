"""A recorded run through simulated caches: hits and misses by tensor and level."""

from __future__ import annotations

from functools import cache

import numpy as np

from ..cache import Level
from ..nest import base_of
from .record import Recording


def addresses(recording: Recording) -> np.ndarray:
    """Each access's first byte where every tensor begins on the page that nests give it."""
    bases = np.array([base_of(name) for name in recording.buffers], np.int64)
    return bases[recording.events["buffer"]] + recording.events["offset"]


def misses(recording: Recording, levels: tuple[Level, ...]) -> dict[tuple[str, str], int]:
    """By (tensor, level's name), in lines; what reaches a level is what missed the one before, LRU, empty at the start.
    An access that lies across two lines is one of each. Raises ImportError without Numba."""
    counts = np.zeros((len(levels), len(recording.buffers)), np.int64)
    geometry = np.array([(level.sets, level.ways, level.line.bit_length() - 1) for level in levels], np.int64)
    tags = np.full((len(levels), max(level.lines for level in levels)), -1, np.int64)
    events = recording.events
    _simulator()(addresses(recording), events["bytes"].astype(np.int64), events["buffer"], geometry, tags, counts)
    return {
        (buffer, level.name): int(counts[number, which])
        for number, level in enumerate(levels)
        for which, buffer in enumerate(recording.buffers)
    }


@cache
def _simulator():
    import numba

    @numba.njit(nogil=True)
    def missed(tags, line, sets, ways):
        first = (line % sets) * ways
        way = 0
        while way < ways and tags[first + way] != line:
            way += 1
        found = way < ways
        for at in range(min(way, ways - 1), 0, -1):
            tags[first + at] = tags[first + at - 1]
        tags[first] = line
        return not found

    @numba.njit(nogil=True)
    def simulate(addresses, sizes, buffers, geometry, tags, counts):
        for event in range(addresses.size):
            shift = geometry[0, 2]
            last = (addresses[event] + sizes[event] - 1) >> shift
            for line in range(addresses[event] >> shift, last + 1):
                for level in range(geometry.shape[0]):
                    here = (line << shift) >> geometry[level, 2]
                    if not missed(tags[level], here, geometry[level, 0], geometry[level, 1]):
                        break
                    counts[level, buffers[event]] += 1

    return simulate

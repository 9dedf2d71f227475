"""Sectors, useful bytes and passes of requests, counted from their addresses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .warp import BANKS, SECTOR, WORD, Pattern


@dataclass(frozen=True)
class Requests:
    """Sums over requests. ``useful``: different bytes asked for; ``passes``: of shared memory if the elements lay there
    the same way, ``free_passes`` where no two words met in a bank; ``worst``: most passes of one request."""

    requests: int
    sectors: int
    useful: int
    passes: int
    free_passes: int
    worst: int

    @property
    def sectors_a_request(self) -> float:
        return self.sectors / self.requests if self.requests else 0.0

    @property
    def useful_share(self) -> float:
        """Of the bytes in the sectors moved, the part that was asked for; 0 to 1."""
        return self.useful / (self.sectors * SECTOR) if self.sectors else 0.0

    @property
    def conflict(self) -> float:
        """How many times more passes shared memory takes than without conflicts."""
        return self.passes / self.free_passes if self.free_passes else 1.0

    def __add__(self, other: Requests) -> Requests:
        sums = (getattr(self, name) + getattr(other, name) for name in ("requests", "sectors", "useful", "passes"))
        return Requests(*sums, self.free_passes + other.free_passes, max(self.worst, other.worst))


NONE = Requests(0, 0, 0, 0, 0, 0)


def distinct(values: np.ndarray, active: np.ndarray) -> np.ndarray:
    """How many different values the active lanes of each row have: [rows, lanes] to [rows]."""
    if not values.size:
        return np.zeros(len(values), np.int64)
    ordered = np.sort(np.where(active, values, np.iinfo(np.int64).max), axis=1)
    changes = (ordered[:, 1:] != ordered[:, :-1]) & (ordered[:, 1:] != np.iinfo(np.int64).max)
    return changes.sum(axis=1) + active.any(axis=1)


def bank_passes(addresses: np.ndarray, active: np.ndarray, itemsize: int) -> tuple[np.ndarray, np.ndarray]:
    """Passes of each request, byte addresses [requests, lanes], and how many it took without conflicts: a part of the
    warp after another where elements are larger than a word."""
    parts = max(itemsize // WORD, 1)
    total, free = np.zeros(len(addresses), np.int64), np.zeros(len(addresses), np.int64)
    for lanes in np.split(np.arange(addresses.shape[1]), parts):
        words = np.stack([addresses[:, lanes] // WORD + part for part in range(parts)], axis=2)
        asked = np.repeat(active[:, lanes], parts, axis=1)
        total += _busiest(words.reshape(len(addresses), -1), asked)
        free += active[:, lanes].any(axis=1)
    return total, free


def _busiest(words: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Of each row, the most different words that one bank has to give."""
    ordered = np.sort(np.where(active, words, -1), axis=1)
    first = np.ones_like(ordered, bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first &= ordered >= 0
    rows = np.broadcast_to(np.arange(len(words))[:, None], words.shape)
    slots = rows[first] * BANKS + ordered[first] % BANKS
    return np.bincount(slots, minlength=len(words) * BANKS).reshape(-1, BANKS).max(axis=1, initial=0)


def of_addresses(addresses: np.ndarray, active: np.ndarray, itemsize: int) -> Requests:
    """The sums over requests of byte addresses [requests, lanes]; rows in which no lane asks are none."""
    asked = active.any(axis=1)
    addresses, active = addresses[asked].astype(np.int64), active[asked]
    if not len(addresses):
        return NONE
    passes, free = bank_passes(addresses, active, itemsize)
    return Requests(
        len(addresses), int(distinct(addresses // SECTOR, active).sum()),
        int(distinct(addresses, active).sum()) * itemsize, int(passes.sum()), int(free.sum()), int(passes.max()),
    )  # fmt: skip


def of_pattern(pattern: Pattern, pitch: int = 0) -> Requests:
    """The sums over all requests of a pattern: bases that lie alike in a sector and a word are counted once, since a
    common offset by whole sectors changes neither sectors nor, as it only renames the banks, passes."""
    itemsize, total = pattern.problem.itemsize, NONE
    for block in pattern.blocks(pitch):
        places = (block.bases * itemsize) % SECTOR
        for place in np.unique(places):
            times = int(block.times[places == place].sum())
            one = of_addresses(block.offsets * itemsize + place, block.active, itemsize)
            scaled = (one.requests, one.sectors, one.useful, one.passes, one.free_passes)
            total += Requests(*(times * value for value in scaled), one.worst)
    return total

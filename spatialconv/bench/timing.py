"""Interleaved timing: every round times a block of calls of each variant, so all of them see the same machine.

A block is long enough for the clock. With one thread the process's CPU time is read, which excludes other processes;
otherwise wall time, and a round in which a thread was pushed off its core is left out where enough others remain. A GPU
has its own way, ``device_timing``.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch

from .operands import Operands, clone, size_in_bytes

BLOCK_SECONDS = 200e-6
CACHE_STATES = ("rotate", "hot", "flush")
CLOCKS = ("auto", "wall", "cpu", "graph")
CONFIDENCE = 0.95
LEAST_CLEAN = 5
# Calls so slow that the budget is spent that many times over get fewer rounds than others, but never fewer than these.
PATIENCE, LEAST_SLOW = 2.5, 3
MAX_ROTATED_BYTES = 512 * 2**20


class Sample(NamedTuple):
    """Seconds a call, and whether no thread of the process was interrupted meanwhile."""

    seconds: float
    clean: bool


class Variant(Protocol):
    """What is timed: runs a block of that many calls."""

    def sample(self, calls: int) -> Sample: ...


@dataclass(frozen=True)
class Measured:
    """Seconds a call: median and quartiles over the samples used; ``clean`` is how many saw no interruption."""

    median: float
    lower: float
    upper: float
    samples: int
    clean: int


@dataclass(frozen=True)
class Ratio:
    """Median of the peer over median of ours, above 1 where we are faster, and its 95 % confidence bounds;
    ``high90``: the upper one of 90 %."""

    value: float
    low: float
    high: float
    high90: float


def cache_size(level: int = 2) -> int:
    """Bytes of this machine's cache of a level, as seen from core 0; the usual size where the system does not say."""
    usual = {1: 32 * 2**10, 2: 2 * 2**20, 3: 32 * 2**20}[level]
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            if (index / "level").read_text().strip() == str(level) and (
                index / "type"
            ).read_text().strip() != "Instruction":
                text = (index / "size").read_text().strip()
                return int(text.rstrip("KM")) * {"K": 2**10, "M": 2**20}.get(text[-1], 1)
        except (OSError, ValueError):
            continue
    return usual


def private_caches(device: str) -> int:
    """Bytes that a working set has to exceed not to stay in the caches that one layer of a network has to itself."""
    if device == "cuda":
        return torch.cuda.get_device_properties().L2_cache_size
    return cache_size(2) * torch.get_num_threads()


@cache
def _flush_buffer(device: str) -> torch.Tensor:
    size = private_caches(device) if device == "cuda" else cache_size(3)
    return torch.zeros(max(2 * size, 64 * 2**20) // 4, device=device)


class Rotation:
    """Copies of the operands, handed out in turn to all variants that share them.

    'rotate': together larger than all private caches, so a call finds its operands as cold as in a network that ran its
    other layers meanwhile; 'hot': one copy; 'flush': one copy, and a buffer larger than every cache is written before
    each block, which is one call.
    """

    def __init__(self, operands: Operands, cache_state: str) -> None:
        self.cache_state = cache_state
        self.device = operands[0].device.type
        self.copies = [operands]
        self.next = 0
        if cache_state == "rotate":
            size = max(size_in_bytes(operands), 1)
            wanted = 2 * private_caches(self.device) + size
            count = min(max(2, -(-wanted // size)), 64, max(2, MAX_ROTATED_BYTES // size))
            self.copies += [clone(operands) for _ in range(count - 1)]

    def take(self, calls: int) -> list[Operands]:
        taken = [self.copies[(self.next + call) % len(self.copies)] for call in range(calls)]
        self.next = (self.next + calls) % len(self.copies)
        if self.cache_state == "flush":
            _flush_buffer(self.device).add_(1.0)
        return taken

    @property
    def working_set(self) -> int:
        """Bytes that pass through before a copy comes round again."""
        flushed = _flush_buffer(self.device).nbytes if self.cache_state == "flush" else 0
        return flushed + sum(map(size_in_bytes, self.copies))


def pick_clock(clock: str, threads: int, device: str = "cpu") -> str:
    """The clock meant by 'auto': CPU time where one thread does all the work, a CUDA graph's time on a GPU."""
    if clock != "auto":
        return clock
    if device == "cuda":
        return "graph"
    return "cpu" if threads == 1 and device == "cpu" else "wall"


class LocalVariant:
    """A callable of this process, fed from a rotation."""

    def __init__(self, call: Callable[..., object], rotation: Rotation, clock: str, device: str = "cpu") -> None:
        self.call = call
        self.rotation = rotation
        self.now = time.process_time if clock == "cpu" else time.perf_counter
        self.filtered = clock == "wall"
        self.wait = torch.cuda.synchronize if device == "cuda" else None

    def sample(self, calls: int) -> Sample:
        call, now = self.call, self.now
        operands = self.rotation.take(calls)
        if self.wait:
            self.wait()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        start = now()
        for arguments in operands:
            call(*arguments)
        if self.wait:
            self.wait()
        seconds = now() - start
        after = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        return Sample(seconds / calls, not self.filtered or after == before)


@contextmanager
def quiet():
    """No garbage collection and no autograd while the clock runs."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with torch.no_grad():
            yield
    finally:
        if collecting:
            gc.enable()


def interleave(
    variants: Sequence[Variant],
    budget: float,
    least: int = 7,
    most: int = 40,
    single: bool = False,
) -> list[list[Sample]]:
    """Samples of every variant, one of each a round, in alternating order, for about ``budget`` seconds.

    Blocks hold as many calls as make them long enough for the clock; ``single`` keeps them at one call. Where too few
    rounds are undisturbed it goes on for ``PATIENCE`` times the budget, which is also all that very slow calls get.
    """
    with quiet():
        calls = []
        for variant in variants:
            seconds = variant.sample(1).seconds
            if seconds < budget / 10 or budget == 0:
                seconds = min(variant.sample(1).seconds for _ in range(2))
            calls.append(1 if single else min(max(1, round(BLOCK_SECONDS / max(seconds, 1e-7) + 0.5)), 512))
        samples: list[list[Sample]] = [[] for _ in variants]
        start, clean = time.perf_counter(), 0
        order = list(range(len(variants)))
        while True:
            for index in order:
                samples[index].append(variants[index].sample(calls[index]))
            order.reverse()
            clean += all(row[-1].clean for row in samples)
            rounds, spent = len(samples[0]), time.perf_counter() - start
            enough = rounds >= most or (rounds >= least and spent > budget)
            impatient = spent > PATIENCE * budget
            if enough and (clean >= LEAST_CLEAN or impatient):
                return samples
            if rounds >= LEAST_SLOW and impatient and budget > 0:
                return samples


@dataclass(frozen=True)
class Used:
    """Which rounds count for each variant; ``paired`` where they are the same, so that what all saw cancels."""

    rounds: list[list[int]]
    paired: bool


def rounds_used(samples: Sequence[Sequence[Sample]]) -> Used:
    """The rounds in which no variant was interrupted; where those are too few, each variant's own; else all."""
    every = range(len(samples[0]))
    clean = [index for index in every if all(row[index].clean for row in samples)]
    if len(clean) >= LEAST_CLEAN:
        return Used([clean] * len(samples), True)
    own = [[index for index in every if row[index].clean] for row in samples]
    if min(map(len, own)) >= LEAST_CLEAN:
        return Used(own, False)
    return Used([list(every)] * len(samples), True)


def summarise(samples: Sequence[Sample], rounds: Sequence[int]) -> Measured:
    """Median and quartiles over the rounds used."""
    seconds = np.array([samples[index].seconds for index in rounds])
    lower, median, upper = np.percentile(seconds, (25, 50, 75))
    clean = sum(samples[index].clean for index in rounds)
    return Measured(float(median), float(lower), float(upper), len(rounds), clean)


def ratio(
    ours: Sequence[Sample], peer: Sequence[Sample], our_rounds: Sequence[int], peer_rounds: Sequence[int], paired: bool
) -> Ratio:
    """Median of the peer over median of ours, with a percentile bootstrap; over rounds where they are paired."""
    mine = np.array([ours[index].seconds for index in our_rounds])
    theirs = np.array([peer[index].seconds for index in peer_rounds])
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(mine), (2000, len(mine)))
    drawn_peer = drawn if paired else generator.integers(0, len(theirs), (2000, len(theirs)))
    ratios = np.median(theirs[drawn_peer], axis=1) / np.median(mine[drawn], axis=1)
    low, high, high90 = np.percentile(ratios, ((1 - CONFIDENCE) * 50, (1 + CONFIDENCE) * 50, 95))
    return Ratio(float(np.median(theirs) / np.median(mine)), float(low), float(high), float(high90))

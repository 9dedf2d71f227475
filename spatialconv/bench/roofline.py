"""What this machine can do at best, measured in the run: the highest arithmetic rate and the bandwidth of copying.

The model is the roofline of Williams, Waterman and Patterson, 2009.

The peak of arithmetic is a loop of bare multiply-adds in the extension, or torch's matrix product of the same element
type where that is faster or all there is. Bandwidth is that of copying, for working sets of several sizes.
"""

from __future__ import annotations

import bisect
import functools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch

from .. import dispatch
from ..backends.base import DTYPES
from ..backends.extension import loader
from ..problem import Conv2dProblem, Problem
from .timing import cache_size, private_caches, quiet

# A measured time is not believed below the limit divided by these: clocks vary, and reading
# alone is faster than copying.
MARGIN, TRAFFIC_MARGIN = 1.5, 3.0
# Multiplications saved by the strongest algorithm that a kernel of this name uses: Winograd F(4x4, 3x3).
WINOGRAD_SAVING = 4.0
# Products and loops short enough that some run uninterrupted on a busy machine.
_SIDE = 512
_ROUNDS = 50_000
_LEAST_BLOCKS, _MOST_CALLS = 3, 1 << 16


@dataclass(frozen=True)
class Roofline:
    """``flops``: operations a second by dtype; ``copy``: (bytes of the working set, bytes moved a second) by size."""

    flops: dict[str, float]
    copy: tuple[tuple[int, float], ...]
    threads: int
    device: str

    def as_dict(self) -> dict:
        return {**asdict(self), "flops_measured_as": "bare multiply-adds, or torch's matrix product where faster"}

    def bandwidth(self, working_set: int) -> float:
        """Bytes a second where so many bytes are passed through in turn: that of the next smaller set measured."""
        sizes = [size for size, _ in self.copy]
        return self.copy[max(bisect.bisect_right(sizes, working_set) - 1, 0)][1]

    def seconds(self, problem: Problem, working_set: int) -> tuple[float, str]:
        """The least time that arithmetic and compulsory traffic allow a direct algorithm, and which of them binds."""
        traffic = problem.compulsory_bytes / self.bandwidth(working_set)
        work = self._work(problem)
        return (work, "arithmetic") if work > traffic else (traffic, "memory")

    def hard_limit(self, problem: Problem, winograd: bool) -> float:
        """A time below this is a broken measurement: from the fastest bandwidth of any working set, with a margin."""
        saving = WINOGRAD_SAVING if winograd else 1.0
        traffic = problem.compulsory_bytes / max(rate for _, rate in self.copy)
        return max(self._work(problem) / saving / MARGIN, traffic / TRAFFIC_MARGIN)

    def raised(self, other: Roofline) -> Roofline:
        """The higher of each peak of two measurements: what interrupts a measurement only ever lowers it."""
        flops = {dtype: max(rate, other.flops.get(dtype, 0.0)) for dtype, rate in self.flops.items()}
        rates = dict(other.copy)
        copy = tuple((size, max(rate, rates.get(size, 0.0))) for size, rate in self.copy)
        return Roofline(flops, copy, self.threads, self.device)

    def _work(self, problem: Problem) -> float:
        if not isinstance(problem, Conv2dProblem):
            return 0.0
        return problem.flops(count_padding=False) / self.flops[problem.dtype]


def may_use_winograd(problem: Problem, kernel_name: str) -> bool:
    """Whether an implementation may save multiplications: by its name, or a vendor's on a filter that allows it."""
    fits = isinstance(problem, Conv2dProblem) and problem.kh == problem.kw == 3 and problem.sh == problem.sw == 1
    return fits and (":" not in kernel_name or "winograd" in kernel_name)


def measure(dtypes: set[str], device: str = "cpu", seconds: float = 0.4) -> Roofline:
    """Measure the peaks of this machine as it is now, with torch's present number of threads."""
    with quiet():
        wanted = sorted(dtypes | {"f32"})
        flops = {
            dtype: max(_matmul(dtype, device, seconds), _multiply_adds(dtype, device, seconds)) for dtype in wanted
        }
        # A 16-bit problem may always be computed in float32.
        flops = {dtype: rate if dtype == "f64" else max(rate, flops["f32"]) for dtype, rate in flops.items()}
        largest = 128 * 2**20 if device == "cpu" else 512 * 2**20
        if device == "cpu":
            sizes = [cache_size(1) // 2, cache_size(2) // 2, 2 * cache_size(2), cache_size(3), largest]
        else:
            sizes = [private_caches(device) // 2, 4 * private_caches(device), largest]
        copy, best = [], 0.0
        for size in sorted(set(sizes), reverse=True):
            # A smaller set is at least as fast; a call's own cost must not hide that.
            best = max(best, _copy(size, device, seconds / 2))
            copy.append((size, best))
    return Roofline(flops, tuple(reversed(copy)), torch.get_num_threads(), device)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _best(call, calls: int, device: str, seconds: float, now=time.perf_counter) -> float:
    """Seconds of a call in the best block of so many calls.

    A guest system takes stolen time off the CPU clock when it learns of it, so a block may look shorter than it was, or
    take no time at all: what is far below the median is no reading.
    """
    call()
    blocks, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until or len(blocks) < _LEAST_BLOCKS:
        _wait(device)
        start = now()
        for _ in range(calls):
            call()
        _wait(device)
        if (elapsed := now() - start) > 0:
            blocks.append(elapsed / calls)
            continue
        calls *= 2
        if calls > _MOST_CALLS:
            now = time.perf_counter
    least = statistics.median(blocks) / 2
    return min(block for block in blocks if block >= least)


def _matmul(dtype: str, device: str, seconds: float) -> float:
    side = _SIDE if device == "cpu" else 8192
    # A generator of its own: torch's cannot be used any more after a capture into a CUDA graph that failed.
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(side, side, device=device, generator=generator).to(DTYPES[dtype]) for _ in range(2))
    out = torch.empty_like(left)

    def product() -> None:
        torch.mm(left, right, out=out)

    with _precision_of_convolution(device):
        return _rate(product, 2.0 * side**3, 1, device, seconds, True)


def _multiply_adds(dtype: str, device: str, seconds: float) -> float:
    """The rate of every thread's core together; 0 where only torch can tell."""
    if device != "cpu" or dtype not in ("f32", "f64") or loader.unavailable():
        return 0.0
    module, level = loader.load(), loader.level()
    operations = module.multiply_adds(level, dtype, _ROUNDS)
    call = functools.partial(module.multiply_adds, level, dtype, _ROUNDS)
    return torch.get_num_threads() * operations / _best(call, 1, device, seconds / 2, time.process_time)


@contextmanager
def _precision_of_convolution(device: str) -> Iterator[None]:
    """On a GPU torch's convolution may use tf32 where its matrix product may not: the peak is to be the same kind's."""
    if device != "cuda":
        yield
        return
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = dispatch.precision(device)
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _rate(call, work: float, calls: int, device: str, seconds: float, private: bool) -> float:
    """Work a second of all threads together, or if it is ``private`` to a core of one times their number, if more.

    On a busy machine threads wait for each other, and a small copy runs in one thread; no peak may look lower for that.
    """
    threads = torch.get_num_threads()
    clock = time.process_time if threads == 1 and device == "cpu" else time.perf_counter
    together = work / _best(call, calls, device, seconds / 2, clock)
    if device != "cpu" or not private:
        return together
    torch.set_num_threads(1)
    try:
        return max(together, threads * work / _best(call, calls, device, seconds / 2, time.process_time))
    finally:
        torch.set_num_threads(threads)


def _copy(working_set: int, device: str, seconds: float) -> float:
    half = max(working_set // 2, 4096)
    source, target = (torch.zeros(half, dtype=torch.uint8, device=device) for _ in range(2))
    # Waiting for a GPU takes tens of microseconds, which many copies have to share.
    calls, private = (
        max(1, 2 ** (20 if device == "cpu" else 30) // half),
        device == "cpu" and working_set <= cache_size(2),
    )
    return _rate(lambda: target.copy_(source), 2.0 * half, calls, device, seconds, private)

"""What a machine can do at best, and what that leaves a layer: the roofline of Williams, Waterman and Patterson, 2009.

No run is faster than its operations at the highest arithmetic rate, nor than its bytes at the bandwidth of the memory
that they come from: attainable = min(peak, bandwidth * intensity), intensity being operations a byte.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from .counting import Way


@dataclass(frozen=True)
class Peaks:
    """``flops``: operations a second; ``bandwidths``: bytes a second with the bytes of the working set from which on
    it holds, as (bytes, rate), by size; ``source``: where the figures are from, in words."""

    flops: float
    bandwidths: tuple[tuple[int, float], ...]
    source: str

    def bandwidth(self, working_set: int) -> float:
        """Bytes a second where so many bytes are passed through: that of the next smaller set known."""
        sizes = [size for size, _ in self.bandwidths]
        return self.bandwidths[max(bisect_right(sizes, working_set) - 1, 0)][1]


@dataclass(frozen=True)
class Bound:
    """``flops``: the attainable rate in operations a second; ``seconds``: the least time; ``by``: what binds."""

    flops: float
    seconds: float
    bandwidth: float
    by: str


def bound(way: Way, peaks: Peaks) -> Bound:
    """What the machine leaves a way to compute a layer, if every byte moves once."""
    bandwidth = peaks.bandwidth(way.bytes)
    arithmetic, memory = way.operations / peaks.flops, way.bytes / bandwidth
    seconds = max(arithmetic, memory)
    rate = way.operations / seconds if seconds else 0.0
    return Bound(rate, seconds, bandwidth, "arithmetic" if arithmetic > memory else "memory")


def given(gflops: float | None, gigabytes: float | None) -> Peaks | None:
    """Peaks of two numbers in 1e9 a second, None where neither is given; ValueError where only one is, or one is not
    positive."""
    if gflops is None and gigabytes is None:
        return None
    if gflops is None or gigabytes is None:
        raise ValueError("study: peaks: expected --peak and --bandwidth together, got one of them")
    if not (gflops > 0 and gigabytes > 0):
        raise ValueError(f"study: peaks: expected positive rates, got --peak {gflops:g} --bandwidth {gigabytes:g}")
    return Peaks(gflops * 1e9, ((0, gigabytes * 1e9),), "as given")


def of_record(record: dict, dtype: str, source: str) -> Peaks:
    """The peaks that a result file of ``spatialconv bench`` holds in its head; ValueError where it has none of the
    element type."""
    flops = (record or {}).get("flops", {})
    if dtype not in flops:
        known = ", ".join(sorted(flops)) or "none"
        raise ValueError(f"study: peaks: expected a measured peak of {dtype} in {source}, it has {known}")
    return Peaks(flops[dtype], tuple((int(size), rate) for size, rate in record["copy"]), source)


def measured(dtype: str, device: str = "cpu") -> Peaks:
    """This machine's, measured now with torch's present number of threads; takes seconds."""
    from ..bench import roofline

    found = roofline.measure({dtype}, device)
    threads = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
    return of_record(found.as_dict(), dtype, f"measured here, {threads}, {device}")

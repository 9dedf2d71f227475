"""Measured layers as dots of a roofline: what ``spatialconv bench`` has stored, as operations a byte and a second."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..bench import results
from ..problem import Conv2dProblem, parse
from .peaks import Peaks, of_record


@dataclass(frozen=True)
class Dot:
    """One measured row. ``intensity``: operations a byte, products with padding left out and every tensor moved once;
    ``flops``: operations a second; ``share``: of what the peaks allow at that intensity; ``lost``: seconds above
    the least that they allow."""

    name: str
    kernel: str
    intensity: float
    flops: float
    share: float
    lost: float


def read(path: Path, dtype: str | None = None) -> tuple[list[Dot], Peaks, str]:
    """The convolutions of a result file, the peaks measured beside them, and their element type: the one asked for or
    the commonest. Raises ValueError for what is no such file or has no such row."""
    try:
        content = results.load(path)
    except OSError as error:
        raise ValueError(f"study: roofline: {error}") from None
    rows = [row for row in content["rows"] if row.get("status") == "ok" and row.get("ours", {}).get("median")]
    found = [(row, problem) for row in rows if isinstance(problem := parse(row["problem"]), Conv2dProblem)]
    known = Counter(problem.dtype for _, problem in found)
    wanted = dtype or (known.most_common(1)[0][0] if known else "f32")
    if wanted not in known:
        raise ValueError(
            f"study: roofline: expected measured convolutions of {wanted} in {path}, it has {dict(known) or 'none'}"
        )
    peaks = of_record(content["head"].get("roofline"), wanted, f"stored in {Path(path).name}")
    return [_dot(row, problem, peaks) for row, problem in found if problem.dtype == wanted], peaks, wanted


def _dot(row: dict, problem: Conv2dProblem, peaks: Peaks) -> Dot:
    operations, moved = problem.flops(count_padding=False), problem.compulsory_bytes
    seconds = max(operations / peaks.flops, moved / peaks.bandwidth(moved))
    taken = row["ours"]["median"]
    return Dot(
        str(problem), row.get("kernel") or "", operations / moved, operations / taken, seconds / taken, taken - seconds
    )

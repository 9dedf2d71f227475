"""Whether a recording of a kernel and the kernel's nest are the same accesses, one by one and in the same order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..nest import Nest
from .record import EVENT, Recording

# By kernel, tiles with and without remainders, padding, strides, groups, several images, several blocks of pixels.
CASES = {
    "direct": ("1x16x9x9 k=6 3x3 p1 nhwc", "2x24x9x8 k=10 3x3 s2 p1 g2 nhwc", "1x13x7x7 k=5 3x3 p1 nhwc f64"),
    "gemm": (
        "1x40x9x10 k=48 1x1 nhwc", "2x13x7x7 k=32 1x1 nhwc", "1x16x40x40 k=16 1x1 nhwc", "1x9x8x8 k=8 1x1 f64 nhwc",
    ),
    "depthwise": (
        "1x32x15x15 k=32 3x3 s2 p1 g32 nhwc", "2x16x12x13 k=16 5x5 s2x1 p2 g16 nhwc",
        "1x320x5x9 k=320 3x3 s2 p1 g320 nhwc",
    ),
    "rows": ("1x80x15x14 max 3x3 s2 p1 nhwc", "2x16x8x8 avg 2x2 s2 nhwc", "1x48x9x9 max 3x3 s2 p1 nhwc f64"),
}  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    """``first``: the number of the first access in which the two differ, None where they are equal."""

    recorded: int
    described: int
    first: int | None
    recorded_there: str
    described_there: str

    @property
    def equal(self) -> bool:
        return self.first is None


def described(nest: Nest, buffers: tuple[str, ...]) -> np.ndarray:
    """A nest's accesses as events; ``packed`` is the beginning of the workspace."""
    numbers = {name: number for number, name in enumerate(buffers)}
    numbers["packed"] = numbers["workspace"]
    rows = [(offset, size, numbers[buffer.name], store, 0) for buffer, offset, size, store in nest.accesses()]
    return np.array(rows, EVENT)


def of_tensors(recording: Recording, nest: Nest) -> np.ndarray:
    """What a recording has of the nest's buffers: of the workspace only what holds packed weights."""
    events, workspace = recording.events, recording.buffers.index("workspace")
    packed = sum(one.elements * one.itemsize for one in nest.buffers if one.name == "packed")
    return events[(events["buffer"] != workspace) | (events["offset"] < packed)]


def compare(recording: Recording, nest: Nest) -> Agreement:
    """The two, access by access."""
    got, want = of_tensors(recording, nest), described(nest, recording.buffers)
    common = min(len(got), len(want))
    differing = np.flatnonzero(got[:common] != want[:common])
    first = int(differing[0]) if len(differing) else None if len(got) == len(want) else common

    def words(events: np.ndarray) -> str:
        if first is None or first >= len(events):
            return ""
        event = events[first]
        verb = "stores" if event["store"] else "loads"
        return f"{verb} {event['bytes']} bytes at {recording.buffers[event['buffer']]}+{event['offset']}"

    return Agreement(len(got), len(want), first, words(got), words(want))

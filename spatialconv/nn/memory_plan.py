"""Where results lie that live for a while only: places in one block of memory, shared by those that never meet.

Greedy by size: the largest first, each at the lowest place that is free while it lives. Y. Pisarchyk and J. Lee,
"Efficient Memory Management for Deep Neural Net Inference", 2020 (arXiv 2001.03288), section 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_LINE = 64


@dataclass(eq=False)
class Buffer:
    """So many bytes, in use from a step to another, both included."""

    size: int
    first: int
    last: int


def offsets(buffers: Sequence[Buffer]) -> tuple[dict[Buffer, int], int]:
    """Where each buffer begins, on whole cache lines, and the size of the block."""
    placed: list[tuple[int, int, Buffer]] = []
    for buffer in sorted(buffers, key=lambda buffer: -buffer.size):
        at = 0
        for begin, end, other in placed:
            if other.first <= buffer.last and buffer.first <= other.last and begin < at + buffer.size:
                at = max(at, end)
        placed.append((at, at + -(-buffer.size // _LINE) * _LINE, buffer))
        placed.sort(key=lambda place: place[0])
    return {buffer: begin for begin, _, buffer in placed}, max((end for _, end, _ in placed), default=0)

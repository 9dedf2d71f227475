"""The requests of a CUDA kernel's warps, recorded thread by thread while its CPU twin runs.

Accesses before which the same instruction stands are one request of a warp when every lane makes them for the same
time: lanes of a warp execute an instruction together. Where lanes leave a loop at different times, or skip a turn at a
border, the hardware joins them anew as the compiler arranged it, which a twin cannot know; there lanes are joined by
their own counts.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import torch

from ...dispatch import kernel as kernel_named
from ...problem import Problem
from ..warp import WARP
from ..warp_counts import NONE, Requests, of_addresses
from . import build
from .record import DTYPES, LIMIT, load, operands, roles, struct_of

EVENT = np.dtype(
    [
        ("offset", "<i8"), ("site", "<i8"), ("bytes", "<i4"), ("block", "<u4"), ("thread", "<u4"), ("buffer", "u1"),
        ("store", "u1"), ("unused", "<u2"),
    ]
)  # fmt: skip
# Of an H100, which decides how many blocks are launched.
MULTIPROCESSORS = 132
# The twin runs a thread after another.
MOST_FLOPS = 40_000_000


def record(
    problem: Problem, name: str, csrc: Path | None = None, limit: int = LIMIT
) -> tuple[np.ndarray, torch.Tensor]:
    """Every access of ``extension:NAME`` to its tensors, as rows of ``EVENT``, and what it computed.

    Raises ValueError where the kernel does not take the problem or it is too large for its twin, RuntimeError where it
    cannot be built.
    """
    table = build.cuda_table_of(problem.op, name)
    if getattr(problem, "indices", False):
        raise ValueError(f"study: recording: expected pooling without indices, got {problem}")
    if reasons := kernel_named(f"extension:{name}").refuse_geometry(problem):
        raise ValueError(f"study: recording: extension:{name} does not take {problem}: {'; '.join(reasons)}")
    if problem.flops() > MOST_FLOPS:
        raise ValueError(f"study: recording: expected at most {MOST_FLOPS:,} operations for a twin, got {problem}")
    library = load(build.cuda_library(table, csrc), device=True)
    struct = struct_of(problem)
    operation = (problem.op.encode(), name.encode(), DTYPES.index(problem.dtype), ctypes.addressof(struct))
    workspace = library.spatialconv_record_workspace(*operation, MULTIPROCESSORS)
    if workspace < 0:
        raise ValueError(f"study: recording: {name} does not compute {problem.op} in {problem.dtype}")
    tensors, result = operands(problem)
    tensors[4] = torch.zeros(workspace, dtype=torch.uint8)
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    sizes = [0 if tensor is None else tensor.numel() * tensor.element_size() for tensor in tensors]
    count = library.spatialconv_record(
        *operation, (ctypes.c_void_p * 5)(*addresses), (ctypes.c_int64 * 5)(*sizes), limit, MULTIPROCESSORS
    )
    if count < 0:
        raise ValueError(f"study: recording: extension:{name} refused to be launched on {problem}")
    if count >= limit:
        raise ValueError(f"study: recording: expected fewer than {limit} accesses, {problem} makes more")
    events = np.empty(count, EVENT)
    library.spatialconv_recorded(events.ctypes.data_as(ctypes.c_void_p))
    return events, tensors[result]


def requests(events: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One row a request: byte offsets [requests, 32], which lanes ask, and the row of ``events`` of its first lane."""
    order = np.lexsort((np.arange(len(events)), events["thread"], events["block"], events["site"]))
    sorted_events = events[order]
    first_of_thread = np.ones(len(events), bool)
    first_of_thread[1:] = np.any(
        [sorted_events[name][1:] != sorted_events[name][:-1] for name in ("site", "block", "thread")], axis=0
    )
    starts = np.maximum.accumulate(np.where(first_of_thread, np.arange(len(events)), 0))
    times = np.arange(len(events)) - starts
    warps = sorted_events["thread"] // WARP
    keys = np.stack([sorted_events["site"], sorted_events["block"].astype(np.int64), warps.astype(np.int64), times], 1)
    _, first, number = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    offsets, active = np.zeros((len(first), WARP), np.int64), np.zeros((len(first), WARP), bool)
    lanes = sorted_events["thread"] % WARP
    offsets[number.ravel(), lanes], active[number.ravel(), lanes] = sorted_events["offset"], True
    return offsets, active, order[first]


def recorded(problem: Problem, name: str, csrc: Path | None = None) -> dict[str, Requests]:
    """The requests for each tensor that the kernel touches in global memory."""
    events, _ = record(problem, name, csrc)
    found: dict[str, Requests] = {}
    for number, role in enumerate(roles(problem)):
        mine = events[events["buffer"] == number]
        for size in np.unique(mine["bytes"]):
            offsets, active, _ = requests(mine[mine["bytes"] == size])
            found[role] = found.get(role, NONE) + of_addresses(offsets, active, int(size))
    return found

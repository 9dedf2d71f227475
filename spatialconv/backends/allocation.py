"""New tensors for results, and memory that a kernel needs while it runs; large ones lie on large pages.

Fresh memory comes from the system when it is first written, page by page, and pages of 4 KB come at a fraction of the
speed of a copy. Linux hands out large ones (2 MB on x86-64) where they are asked for: madvise(2), MADV_HUGEPAGE. They
are asked for inside a tensor only, so that it takes no more memory, and only for tensors so large that glibc gives them
back to the system as they are freed, mallopt(3), so that the advice does not outlive them. A system without such pages,
or whose administrator forbids them, does as before.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ..shapes import dense_strides

# glibc's largest M_MMAP_THRESHOLD.
LEAST_BYTES = 32 << 20
# Up to so many bytes of workspace stay with a thread from call to call.
KEPT_BYTES = 1 << 20
_SIZE_FILE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")


def _empty_on_cpu(shape: tuple[int, ...], steps: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(shape, steps, dtype=dtype)


def _fastest_empty() -> Callable[[tuple[int, ...], tuple[int, ...], torch.dtype], Tensor]:
    """What code compiled by torch allocates with, for it costs half as much a call as what users are offered; that one
    where torch has the other no more."""
    try:
        found = torch._C._dynamo.guards._empty_strided_cpu
        found((2, 3), (3, 1), torch.float32)
    except (AttributeError, TypeError, RuntimeError):
        return _empty_on_cpu
    return found


# empty_strided(shape, steps, dtype): a new tensor on the CPU.
empty_strided = _fastest_empty()


class _Kept(threading.local):
    """A thread's workspace: its size, its address and its memory. What a signal or a finalizer calls between a plan's
    asking for it and the kernel may use it, or put another in its place: the plan holds its memory meanwhile, and a
    kernel expects nothing in it.
    """

    def __init__(self) -> None:
        self.held: tuple[int, int, Tensor | None] = 0, 0, None


_kept = _Kept()


def workspace(size: int) -> tuple[int, Tensor | None]:
    """The address of so many bytes, and the memory that has to be held while they are used."""
    kept, address, memory = _kept.held
    if size <= kept:
        return address, memory
    memory = empty_strided((size,), (1,), torch.uint8)
    address = memory.data_ptr()
    if size <= KEPT_BYTES:
        _kept.held = size, address, memory
    elif large(size):
        on_large_pages(memory)
    return address, memory


@cache
def page_size() -> int:
    """Bytes of a large page, 0 where there are none."""
    try:
        return int(_SIZE_FILE.read_text())
    except (OSError, ValueError):
        return 0


@cache
def _madvise():
    function = ctypes.CDLL(None).madvise
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return function


def large(size: int) -> bool:
    """Whether a tensor of so many bytes should lie on large pages, where the system has them."""
    return size >= LEAST_BYTES and page_size() > 0


def on_large_pages(tensor: Tensor) -> Tensor:
    """The tensor itself, new and dense, after large pages were asked for; whether they come is the system's matter."""
    page, begin = page_size(), tensor.data_ptr()
    first, last = -(-begin // page) * page, (begin + tensor.nbytes) // page * page
    if first < last:
        _madvise()(first, last - first, mmap.MADV_HUGEPAGE)
    return tensor


def allocator(shape: tuple[int, ...], layout: str, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """What makes a result, on the device of the tensor that it is given."""
    steps = dense_strides(shape, layout)

    def allocate(like: Tensor) -> Tensor:
        return like.new_empty_strided(shape, steps, dtype=dtype)

    if not large(math.prod(shape) * dtype.itemsize):
        return allocate
    return lambda like: on_large_pages(allocate(like))

"""The memory of interpreted kernels: every lane's address is checked against the tensor its pointer was derived from.

A pointer carries the number of its tensor in the 16 address bits that user space leaves free, so that arithmetic on
pointers keeps it, and a lane that ends in another tensor of the launch is found as one that ends nowhere.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_TAG_SHIFT = 48
_ADDRESS = np.uint64((1 << _TAG_SHIFT) - 1)


class OutOfBoundsError(IndexError):
    """A lane of a kernel that is not masked reads or writes outside the tensor its pointer was derived from."""


class Access(NamedTuple):
    """One load or store of a block: ``what`` 'load', 'store' or an atomic; ``tensor``: its number among those of the
    launch, from 1; ``offsets``: bytes from its first element, in the block's shape, as ``mask`` is."""

    what: str
    tensor: int
    offsets: np.ndarray
    mask: np.ndarray
    itemsize: int
    program: tuple[int, ...]


class CheckedMemory:
    """The interpreter's loads and stores, after a check of every lane; the rest as upstream has it."""

    def __init__(self, memory: object, program: Callable[[], tuple[int, ...]]) -> None:
        self._memory = memory
        self._program = program
        # Called with every Access, where it is one.
        self.listener: Callable[[Access], None] | None = None
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._memory, name)

    def forget(self) -> None:
        self._starts.clear()
        self._ends.clear()

    def tag(self, tensor) -> int:
        """What to add to the addresses of a tensor, whose extent is remembered for this launch."""
        tag = len(self._starts) + 1 << _TAG_SHIFT
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        start = tag + tensor.data_ptr()
        self._starts.append(start)
        self._ends.append(start + ((last + 1) * tensor.element_size() if tensor.numel() else 0))
        return tag

    def load(self, pointers, mask, other, dtype):
        mask = np.asarray(mask, dtype=bool)
        return self._memory.load(self._checked("load", pointers, mask, dtype.itemsize), mask, other, dtype)

    def store(self, pointers, value, mask):
        mask = np.asarray(mask, dtype=bool)
        return self._memory.store(self._checked("store", pointers, mask, value.itemsize), value, mask)

    def atomic_cas(self, pointers, expected, value, semantic):
        everywhere = np.ones(pointers.shape, bool)
        pointers = self._checked("atomic_cas", pointers, everywhere, value.itemsize)
        return self._memory.atomic_cas(pointers, expected, value, semantic)

    def atomic_rmw(self, operation, pointers, value, mask, semantic):
        pointers = self._checked("atomic_rmw", pointers, mask, value.itemsize)
        return self._memory.atomic_rmw(operation, pointers, value, mask, semantic)

    def _checked(self, what: str, pointers: np.ndarray, mask: np.ndarray, itemsize: int) -> np.ndarray:
        """The pointers without their tags. A tensor is one interval, so the first and last lane stand for all."""
        active = pointers[mask]
        if active.size:
            number = bisect_right(self._starts, int(active.min())) - 1
            if number < 0 or int(active.max()) + itemsize > self._ends[number]:
                self._check_each(what, active, itemsize)
            if self.listener is not None:
                self.listener(self._access(what, pointers, mask, itemsize))
        return pointers & _ADDRESS

    def _access(self, what: str, pointers: np.ndarray, mask: np.ndarray, itemsize: int) -> Access:
        number = int(pointers[mask].min()) >> _TAG_SHIFT
        offsets = np.asarray(pointers).astype(np.int64) - self._starts[number - 1]
        return Access(what, number, offsets, mask.copy(), itemsize, tuple(map(int, self._program())))

    def _check_each(self, what: str, active: np.ndarray, itemsize: int) -> None:
        numbers = [bisect_right(self._starts, address) - 1 for address in active.tolist()]
        outside = sum(
            number < 0 or address + itemsize > self._ends[number]
            for number, address in zip(numbers, active.tolist(), strict=True)
        )
        if outside:
            where = tuple(map(int, self._program()))
            raise OutOfBoundsError(f"{what}: {outside} of {active.size} lanes out of bounds in program {where}")

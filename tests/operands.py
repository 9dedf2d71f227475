"""Operands of a problem: what they hold and how they lie in memory.

Every buffer is larger than its tensor, unaligned and filled with NaN around it, so a kernel that reads beside its
operand shows it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from compare import Truth, max_pool, truth, window_offsets
from torch import Tensor

from spatialconv.backends import allocation
from spatialconv.backends.base import DTYPES
from spatialconv.problem import Conv2dProblem, Problem
from spatialconv.shapes import memory_format

DATA = ("integers", "normal", "special")
MEMORY = ("dense", "sliced", "transposed", "expanded")
_GUARD = 67


def shapes(problem: Problem) -> list[tuple[int, ...]]:
    """Shapes of the operands, in the order in which a plan takes them."""
    if isinstance(problem, Conv2dProblem):
        return {
            "forward": [problem.input_shape, problem.weight_shape, *([problem.bias_shape] if problem.bias else [])],
            "grad_input": [problem.output_shape, problem.weight_shape],
            "grad_weight": [problem.output_shape, problem.input_shape],
        }[problem.pass_name]
    return [problem.output_shape if problem.pass_name == "grad_input" else problem.input_shape]


@lru_cache(maxsize=512)
def values(geometry: Problem, dtype: str, data: str, repeated: bool) -> tuple[tuple[Tensor | None, ...], Truth]:
    """Seeded operands in float64, exact in the dtype, and what is right for them.

    ``data``: small integers; normal; or normal with NaN, Inf and -Inf in it. ``repeated``: all images are the first.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{geometry} {data}".encode()))
    made: list[Tensor | None] = []
    # Padding times an infinite weight is left open, so infinities stand in the image that is walked over only.
    marked = 1 if geometry.pass_name == "grad_weight" else 0
    for position, shape in enumerate(shapes(geometry)):
        if data == "integers":
            tensor = torch.randint(-3, 4, shape, generator=generator).double()
        else:
            tensor = torch.randn(shape, generator=generator, dtype=torch.float64).to(DTYPES[dtype]).double()
        if data == "special" and position == marked:
            draw = torch.rand(shape, generator=generator)
            for share, value in ((0.01, torch.nan), (0.02, torch.inf), (0.03, -torch.inf)):
                tensor[(draw >= share - 0.01) & (draw < share)] = value
        made.append(tensor[:1].expand(shape) if repeated and position == 0 else tensor)
    if geometry.op in ("max_pool2d_scatter", "max_pool2d_gather"):
        source = torch.randn(geometry.input_shape, generator=generator, dtype=torch.float64)
        made.append(max_pool(geometry, source)[1])
    if geometry.op in ("conv2d", "local_conv2d") and not geometry.bias:
        made.append(None)
    with one_thread():
        right = truth(geometry, tuple(made))
    if getattr(geometry, "offsets", False) and len(made) > 1:
        made[1] = window_offsets(geometry, made[1])
    return tuple(made), right


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread, which is the faster way for small tensors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def place(tensor: Tensor, dtype: torch.dtype, layout: str, memory: str, device: str = "cpu") -> Tensor:
    """The values in a tensor of the dtype that lies in a device's memory as asked."""
    poison = torch.nan if dtype.is_floating_point else 0
    if tensor.dim() == 6 and tensor.numel() > 0:
        return _place_untied(tensor, dtype, memory, device)
    if tensor.dim() != 4 or tensor.numel() == 0:
        return tensor.to(device, dtype)
    if memory == "expanded":
        return place(tensor[:1], dtype, layout, "dense", device).expand(tensor.shape)
    if memory == "transposed":
        return tensor.to(device, dtype).transpose(2, 3).contiguous().transpose(2, 3)
    n, c, h, w = tensor.shape
    if memory == "sliced":
        buffer = torch.full((n + 1, c + 2, h + 3, w + 4), poison, dtype=dtype, device=device)
        view = buffer.contiguous(memory_format=memory_format(layout))[1:, 1 : c + 1, 2 : h + 2, 3 : w + 3]
    else:
        buffer = torch.full((tensor.numel() + 2 * _GUARD,), poison, dtype=dtype, device=device)
        strides = (c * h * w, 1, w * c, c) if layout == "nhwc" else (c * h * w, h * w, w, 1)
        view = buffer.as_strided(tensor.shape, strides, _GUARD)
    return view.copy_(tensor)


def _place_untied(weight: Tensor, dtype: torch.dtype, memory: str, device: str) -> Tensor:
    """An untied weight between NaN: contiguous, the middle of something larger, or transposed."""
    if memory == "transposed":
        return weight.to(device, dtype).transpose(0, 5).contiguous().transpose(0, 5)
    if memory == "sliced":
        buffer = torch.full([size + 2 for size in weight.shape], torch.nan, dtype=dtype, device=device)
        return buffer[tuple(slice(1, size + 1) for size in weight.shape)].copy_(weight)
    buffer = torch.full((weight.numel() + 2 * _GUARD,), torch.nan, dtype=dtype, device=device)
    return buffer[_GUARD:-_GUARD].view(weight.shape).copy_(weight)


class GuardedEmpty:
    """Allocations whose memory is poisoned and lies between guards, which ``check`` finds unchanged or not."""

    def __init__(self) -> None:
        self.buffers: list[tuple[Tensor, int]] = []

    def patch(self, monkeypatch) -> None:
        """Stand in for every way in which a plan allocates."""
        ways = (torch, "empty"), (torch, "empty_strided"), (Tensor, "new_empty_strided"), (allocation, "empty_strided")
        for holder, name in ways:
            monkeypatch.setattr(holder, name, self._guarding(getattr(holder, name)))
        # Every workspace is new, for one that was kept may be larger than it has to be.
        monkeypatch.setattr(allocation, "KEPT_BYTES", 0)
        monkeypatch.setattr(allocation, "_kept", allocation._Kept())

    def _guarding(self, allocate):
        empty = torch.full

        def guarded(*args, **options) -> Tensor:
            plain = allocate(*args, **options)
            if plain.numel() == 0:
                return plain
            used, guard = plain.numel() * plain.element_size(), 4096
            buffer = empty((used + 2 * guard,), 255, dtype=torch.uint8, device=plain.device)
            self.buffers.append((buffer, guard))
            return buffer[guard : guard + used].view(plain.dtype).as_strided(plain.shape, plain.stride())

        return guarded

    def check(self) -> None:
        for buffer, guard in self.buffers:
            before, behind = buffer[:guard], buffer[-guard:]
            assert bool((before == 255).all() and (behind == 255).all()), "written outside of the result or workspace"

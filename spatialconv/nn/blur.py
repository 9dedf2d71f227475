"""Down-sampling that blurs first, so that a shift of the input does not change what is kept (Zhang, "Making
convolutional networks shift-invariant again", ICML 2019, arXiv:1904.11486).

A stride keeps every second value and folds whatever is finer than that onto what is coarser: an input moved by one
place gives another output, and not a moved one. A small binomial filter before it removes most of what would be folded.
"""

from __future__ import annotations

from math import comb

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import argument_error
from ..functional import conv2d, max_pool2d
from ..shapes import integer
from .constants import Constants
from .layers import BackendLayer

PADDING_MODES = ("reflect", "circular", "zeros", "replicate")
# From one value to seven: 1, 1 1, 1 2 1, .. Larger ones have weights that 16-bit floats round.
SIZES = range(1, 8)


def binomial(size: int) -> Tensor:
    """The filter [size, size] whose rows and columns are binomial coefficients, float64; its sum is 1 exactly."""
    row = torch.tensor([comb(size - 1, place) for place in range(size)], dtype=torch.float64, device="cpu")
    return torch.outer(row, row) / 4 ** (size - 1)


def widened(input: Tensor, size: int, mode: str, outside: float = 0.0) -> Tensor:
    """The input with size - 1 more rows and columns, as many before as behind or one fewer; ``mode`` 'zeros' puts
    ``outside`` there."""
    before, behind = (size - 1) // 2, size // 2
    if mode == "zeros":
        return F.pad(input, (before, behind, before, behind), value=outside)
    return F.pad(input, (before, behind, before, behind), mode=mode)


class _Blur2d(Constants):
    def _set_up(self, channels, kernel_size, stride, padding_mode, device, dtype) -> None:
        name = type(self).__name__
        self.channels = integer(name, "channels", channels)
        self.blur_size = integer(name, "kernel_size", kernel_size)
        self.stride = integer(name, "stride", stride)
        self.padding_mode = padding_mode
        for argument, value in (("channels", channels), ("stride", stride)):
            if value < 1:
                raise argument_error(name, argument, "a positive integer", value, ValueError)
        if kernel_size not in SIZES:
            raise argument_error(name, "kernel_size", f"{SIZES[0]} to {SIZES[-1]}", kernel_size, ValueError)
        if padding_mode not in PADDING_MODES:
            raise argument_error(name, "padding_mode", " or ".join(PADDING_MODES), repr(padding_mode), ValueError)
        self.register_constants(device, dtype or torch.get_default_dtype())

    def constants(self) -> dict[str, Tensor]:
        return {"filter": binomial(self.blur_size).repeat(self.channels, 1, 1, 1)}

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4) or input.shape[-3] != self.channels:
            expected = f"[n, {self.channels}, h, w] or [{self.channels}, h, w]"
            raise argument_error(type(self).__name__, "input", expected, tuple(input.shape))
        padding = 0
        if self.padding_mode == "zeros" and self.blur_size % 2:
            padding = self.blur_size // 2
        else:
            input = widened(input, self.blur_size, self.padding_mode)
        return conv2d(input, self.filter, None, self.stride, padding, 1, self.channels, backend=self.backend)

    def extra_repr(self) -> str:
        return (
            f"{self.channels}, kernel_size={self.blur_size}, stride={self.stride}, padding_mode={self.padding_mode!r}"
        )


class BlurPool2d(BackendLayer, _Blur2d):
    """Binomial blur, then every ``stride``-th row and column: to be put where a layer's stride was.

    Input [n, channels, h, w] or unbatched, output [n, channels, ceil(h / stride), ceil(w / stride)]. ``kernel_size`` is
    3 for the filter 1 2 1, from 1 (no blur) to 7. Equivalent: ``F.pad`` by ``(kernel_size - 1) // 2`` before and
    ``kernel_size // 2`` behind, then a depthwise ``conv2d`` with a filter that sums to 1. With 'circular' padding and
    sizes that the stride divides, a shift by the stride shifts the output by 1 exactly; 'zeros' darkens the edges.
    Raises ValueError for an unknown argument, RuntimeError for an input of another shape or, padded by reflection, not
    larger than the padding. Example: ``Sequential(Conv2d(8, 16, 3, padding=1), ReLU(), BlurPool2d(16))`` for
    ``Sequential(Conv2d(8, 16, 3, stride=2, padding=1), ReLU())``.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        stride: int = 2,
        padding_mode: str = "reflect",
        device=None,
        dtype=None,
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self._set_up(channels, kernel_size, stride, padding_mode, device, dtype)
        self._set_backend(backend)


class MaxBlurPool2d(BlurPool2d):
    """Max pooling at every place, then ``BlurPool2d``: to be put where ``MaxPool2d(pool_size, stride)`` was.

    As ``BlurPool2d``, with ``pool_size``, the side of the window whose maximum is taken, in addition. What lies outside
    is given by ``padding_mode`` for the maximum too, but that zeros there win over nothing.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        stride: int = 2,
        padding_mode: str = "reflect",
        device=None,
        dtype=None,
        *,
        pool_size: int = 2,
        backend: str | None = None,
    ) -> None:
        super().__init__(channels, kernel_size, stride, padding_mode, device, dtype, backend=backend)
        self.pool_size = integer("MaxBlurPool2d", "pool_size", pool_size)
        if pool_size < 1:
            raise argument_error("MaxBlurPool2d", "pool_size", "a positive integer", pool_size, ValueError)

    def forward(self, input: Tensor) -> Tensor:
        padded = widened(input, self.pool_size, self.padding_mode, float("-inf"))
        # A kernel of convolution binds the blur; the maximum stays with its backend.
        backend = None if self.backend is None else self.backend.partition(":")[0]
        return super().forward(max_pool2d(padded, self.pool_size, 1, backend=backend))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, pool_size={self.pool_size}"

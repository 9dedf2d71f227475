"""A convolution without weight sharing.

Keras had the layer and dropped it, PyTorch never had it (pytorch/pytorch#499); what users of both found is that it is
slow and large. Both follow from one number: a tied weight is used once for every image and output position, an untied
one once for every image. A layer of 64 channels on 28x28 has 784 times the weights of its tied twin, does the same
arithmetic, and moves a weight from memory for every multiplication at a batch of 1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import argument_error
from ..functional import local_conv2d
from ..ops.arguments import conv2d_output_size
from ..shapes import integer, pair
from .layers import BackendLayer, Size

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _LocallyConnected2d(torch.nn.Module):
    def _set_up(self, kernel_size, input_size, stride, padding, dilation, groups, padding_mode) -> None:
        name = type(self).__name__
        self.kernel_size, self.input_size = pair(name, "kernel_size", kernel_size), pair(name, "input_size", input_size)
        self.stride, self.dilation = pair(name, "stride", stride), pair(name, "dilation", dilation)
        self.groups = integer(name, "groups", groups)
        for argument in ("kernel_size", "input_size", "stride", "dilation"):
            if min(getattr(self, argument)) < 1:
                raise argument_error(name, argument, "positive integers", getattr(self, argument), ValueError)
        for argument in ("in_channels", "out_channels"):
            value = integer(name, argument, getattr(self, argument))
            if self.groups < 1 or value < 1 or value % self.groups:
                expected = f"a positive multiple of groups={self.groups}"
                raise argument_error(name, argument, expected, value, ValueError)
        if padding_mode not in PADDING_MODES:
            raise argument_error(name, "padding_mode", " or ".join(PADDING_MODES), repr(padding_mode), ValueError)
        self.padding = padding if isinstance(padding, str) else pair(name, "padding", padding)
        self.padding_mode = padding_mode
        top, left, bottom, right = self._sides(name)
        self._widening = (left, right, top, bottom)
        size = conv2d_output_size(
            name, self.input_size, self.kernel_size, self.stride, (top, left, bottom, right), self.dilation
        )
        self.output_size = tuple(size)

    def _sides(self, name: str) -> tuple[int, int, int, int]:
        """Rows and columns of padding: top, left, bottom, right."""
        if isinstance(self.padding, str):
            if self.padding == "valid":
                return 0, 0, 0, 0
            if self.padding != "same" or self.stride != (1, 1):
                expected = "integers, 'valid', or 'same' with stride 1"
                raise argument_error(name, "padding", expected, repr(self.padding), ValueError)
            reach = [step * (size - 1) for step, size in zip(self.dilation, self.kernel_size, strict=True)]
            before = [total // 2 for total in reach]
            return *before, *(total - first for total, first in zip(reach, before, strict=True))
        if min(self.padding) < 0:
            raise argument_error(name, "padding", "integers of at least 0", self.padding, ValueError)
        return *self.padding, *self.padding

    def reset_parameters(self) -> None:
        """Fills weight and bias as ``torch.nn.Conv2d`` does, at every position anew."""
        bound = 1 / math.sqrt(self.weight[0, 0, 0].numel())
        torch.nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            torch.nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        shape = (self.in_channels, *self.input_size)
        if input.dim() not in (3, 4) or tuple(input.shape[-3:]) != shape:
            expected = f"[n, {', '.join(map(str, shape))}] or [{', '.join(map(str, shape))}]"
            raise argument_error(type(self).__name__, "input", expected, tuple(input.shape))
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._widening, mode=self.padding_mode), 0
        return local_conv2d(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups, backend=self.backend
        )

    def extra_repr(self) -> str:
        shown = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        shown += f", input_size={self.input_size}, stride={self.stride}"
        words = [
            ("padding", self.padding, (0, 0)), ("dilation", self.dilation, (1, 1)), ("groups", self.groups, 1),
            ("bias", self.bias is not None, True), ("padding_mode", self.padding_mode, "zeros"),
        ]  # fmt: skip
        return ", ".join([shown, *(f"{name}={value!r}" for name, value, usual in words if value != usual)])


class LocallyConnected2d(BackendLayer, _LocallyConnected2d):
    """2-D convolution with untied weights: ``Conv2d`` with a filter and a bias of its own at every output position.

    Input [n, in_channels, *input_size] or unbatched, output [n, out_channels, *output_size], where ``output_size`` is
    that of a ``Conv2d`` of these arguments. Learned: ``weight`` [*output_size, out_channels, in_channels / groups, kh,
    kw] and ``bias`` [*output_size, out_channels], at every position what a ``Conv2d`` has, and filled alike.
    Equivalent: ``spatialconv.local_conv2d(input, weight, bias, stride, padding, dilation, groups)``, after ``F.pad``
    where ``padding_mode`` is not 'zeros'. Raises ValueError for arguments that no such layer has, RuntimeError where a
    filter does not fit the padded input and for an input of another size. Example::

        layer = LocallyConnected2d(1, 8, 3, input_size=28, padding=1)
        twin = LocallyConnected2d.of(Conv2d(1, 8, 3, padding=1), input_size=28)  # starts with all filters equal
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        input_size: Size,
        stride: Size = 1,
        padding: str | Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device=None,
        dtype=None,
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self._set_up(kernel_size, input_size, stride, padding, dilation, groups, padding_mode)
        self._set_backend(backend)
        shape = (*self.output_size, out_channels, in_channels // self.groups, *self.kernel_size)
        self.weight = torch.nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.register_parameter(
            "bias", torch.nn.Parameter(torch.empty(shape[:3], device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    @classmethod
    def of(cls, conv: torch.nn.Conv2d, input_size: Size) -> LocallyConnected2d:
        """The untied twin of a convolution on inputs of one size: the same outputs, until training parts them. Of a
        ``backend`` that names a kernel it takes the backend. Raises TypeError for another layer, ValueError for one
        with an activation."""
        if not isinstance(conv, torch.nn.Conv2d):
            raise argument_error(cls.__name__, "conv", "a Conv2d layer", type(conv).__name__, TypeError)
        if activation := getattr(conv, "activation", None):
            raise argument_error(cls.__name__, "conv", "a layer without an activation", repr(activation), ValueError)
        backend = getattr(conv, "backend", None)
        layer = cls(
            conv.in_channels, conv.out_channels, conv.kernel_size, input_size, conv.stride, conv.padding, conv.dilation,
            conv.groups, conv.bias is not None, conv.padding_mode, conv.weight.device, conv.weight.dtype,
            backend=backend and backend.partition(":")[0],
        )  # fmt: skip
        with torch.no_grad():
            layer.weight.copy_(conv.weight)
            if conv.bias is not None:
                layer.bias.copy_(conv.bias)
        return layer

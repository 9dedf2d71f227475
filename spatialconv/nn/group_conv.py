"""Convolutions over quarter turns and mirror images, and pooling over them (Cohen and Welling, "Group equivariant
convolutional networks", ICML 2016, arXiv:1602.07576).

Where an ordinary convolution shares a filter over all places, these share it over all places and orientations: turn the
input, and the output turns and its orientations change places, nothing else. Each layer is one ``spatialconv.conv2d``
with a filter for every orientation, gathered from the one that is learned. What turning does to the features is
``layer.symmetry.acted(features, element)``; see ``symmetry`` for the order of channels.

Exact, up to the order in which sums are rounded, where the grid of outputs is itself symmetric: on square inputs, and
with a stride greater than 1 only where ``(size + 2 * padding - dilation * (kernel_size - 1) - 1) % stride == 0``. A
``BatchNorm2d`` between such layers would treat orientations differently; ``BatchNorm3d`` on
``features.unflatten(1, (-1, order))`` does not, nor do pointwise functions and pooling whose windows tile the map.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import argument_error
from ..functional import conv2d
from ..shapes import integer
from .constants import Constants
from .layers import BackendLayer, Size
from .symmetry import P4, P4M, Symmetry

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def _square(layer: str, argument: str, value, least: int) -> int:
    """One integer, or a pair of equals, for what a quarter turn must not change."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    values = [integer(layer, argument, entry) for entry in values]
    if len(values) not in (1, 2) or len(set(values)) != 1 or values[0] < least:
        expected = f"one integer of at least {least}, or a pair of equals"
        raise argument_error(layer, argument, expected, value, ValueError)
    return values[0]


class _GroupConv2d(Constants):
    """What the layers of both groups share."""

    symmetry: Symmetry

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: str | Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device=None,
        dtype=None,
        *,
        lifting: bool = False,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self._check(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode)
        self.lifting = lifting
        self._set_backend(backend)
        shape = (out_channels, in_channels // self.groups * self.planes, self.kernel_size, self.kernel_size)
        self.weight = torch.nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.register_parameter(
            "bias", torch.nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        )
        self.register_constants(device, torch.int64)
        self.reset_parameters()

    def _check(self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode) -> None:
        name = type(self).__name__
        self.kernel_size = _square(name, "kernel_size", kernel_size, 1)
        self.stride = _square(name, "stride", stride, 1)
        self.dilation = _square(name, "dilation", dilation, 1)
        self.padding = self._padding(name, padding)
        self.groups = integer(name, "groups", groups)
        for argument, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if self.groups < 1 or integer(name, argument, value) < 1 or value % self.groups:
                expected = f"a positive multiple of groups={groups}"
                raise argument_error(name, argument, expected, value, ValueError)
        if padding_mode not in PADDING_MODES:
            raise argument_error(name, "padding_mode", " or ".join(PADDING_MODES), repr(padding_mode), ValueError)
        self.in_channels, self.out_channels, self.padding_mode = in_channels, out_channels, padding_mode

    def _padding(self, name: str, padding) -> int:
        if not isinstance(padding, str):
            return _square(name, "padding", padding, 0)
        reach = self.dilation * (self.kernel_size - 1)
        if padding == "valid":
            return 0
        if padding != "same" or self.stride != 1 or reach % 2:
            expected = "integers, 'valid', or 'same' with stride 1 and a filter that has a middle"
            raise argument_error(name, "padding", expected, repr(padding), ValueError)
        return reach // 2

    @property
    def planes(self) -> int:
        """Planes of the input per field: 1 of an image, one per element of a map over the group."""
        return 1 if self.lifting else self.symmetry.order

    def reset_parameters(self) -> None:
        """Fills the parameters as ``torch.nn.Conv2d`` does."""
        torch.nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            torch.nn.init.uniform_(self.bias, -bound, bound)

    def constants(self) -> dict[str, Tensor]:
        return {"places": self.symmetry.filter_places(self.kernel_size, self.planes)}

    def filters(self) -> Tensor:
        """The filter of every orientation, as ``conv2d`` takes them: [out_channels * order, in_channels / groups *
        planes, kernel_size, kernel_size]."""
        order, fields, size = self.symmetry.order, self.in_channels // self.groups, self.kernel_size
        chosen = self.weight.reshape(self.out_channels, fields, -1).index_select(2, self.places.flatten())
        chosen = chosen.reshape(self.out_channels, fields, order, self.planes * size * size).transpose(1, 2)
        return chosen.reshape(self.out_channels * order, fields * self.planes, size, size)

    def forward(self, input: Tensor) -> Tensor:
        channels = self.in_channels * self.planes
        if input.dim() not in (3, 4) or input.shape[-3] != channels:
            of = "" if self.lifting else f" ({self.in_channels} fields of {self.symmetry.order} orientations)"
            expected = f"[n, {channels}, h, w] or [{channels}, h, w]{of}"
            raise argument_error(type(self).__name__, "input", expected, tuple(input.shape))
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, (padding,) * 4, mode=self.padding_mode), 0
        bias = None if self.bias is None else self.bias.repeat_interleave(self.symmetry.order)
        return conv2d(
            input, self.filters(), bias, self.stride, padding, self.dilation, self.groups, backend=self.backend
        )

    def extra_repr(self) -> str:
        shown = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        words = [
            ("padding", self.padding, 0), ("dilation", self.dilation, 1), ("groups", self.groups, 1),
            ("bias", self.bias is not None, True), ("padding_mode", self.padding_mode, "zeros"),
            ("lifting", self.lifting, False),
        ]  # fmt: skip
        return ", ".join([shown, *(f"{name}={value!r}" for name, value, usual in words if value != usual)])


class P4Conv2d(BackendLayer, _GroupConv2d):
    """Convolution over the plane and its four quarter turns (p4), from an image or from such a map to such a map.

    Input: with ``lifting`` an image [n, in_channels, h, w], else a map over the group [n, in_channels * 4, h, w],
    channel ``field * 4 + turns``; or unbatched. Output [n, out_channels * 4, h_out, w_out] in the same order. Learned:
    ``weight`` [out_channels, in_channels / groups, k, k], without ``lifting`` in_channels / groups * 4, ordered as the
    input's channels, and ``bias`` [out_channels]: four orientations share them. Arguments are those of
    ``torch.nn.Conv2d``, whatever has a direction equal in both. Raises ValueError for an argument that breaks the
    symmetry, RuntimeError for an input of another shape, and as ``spatialconv.conv2d``. Where it is exact: see the
    module. Example::

        model = Sequential(P4Conv2d(1, 8, 3, lifting=True), ReLU(), P4Conv2d(8, 8, 3), ReLU(), P4Pool2d())
        torch.allclose(model(image.rot90(1, (2, 3))), model(image).rot90(1, (2, 3)), atol=1e-5)
    """

    symmetry = P4


class P4MConv2d(BackendLayer, _GroupConv2d):
    """Convolution over the plane, its quarter turns and their mirror images (p4m): ``P4Conv2d`` with 8 orientations.

    Channels are ``field * 8 + mirrored * 4 + turns``, weights [out_channels, in_channels / groups * 8, k, k], with
    ``lifting`` [out_channels, in_channels / groups, k, k].
    """

    symmetry = P4M


class P4Pool2d(torch.nn.Module):
    """Pooling over the orientations of a p4 map: [n, fields * 4, h, w] to [n, fields, h, w], or unbatched.

    ``mode`` 'max' or 'avg'. Equivalent: ``input.unflatten(-3, (-1, 4)).amax(-3)`` or ``.mean(-3)``; equal maxima share
    the gradient, so that it is as symmetric as the output. Raises ValueError for another mode, RuntimeError where the
    channels are no multiple of the group's order.
    """

    symmetry = P4

    def __init__(self, mode: str = "max") -> None:
        super().__init__()
        if mode not in ("max", "avg"):
            raise argument_error(type(self).__name__, "mode", "'max' or 'avg'", repr(mode), ValueError)
        self.mode = mode

    def forward(self, input: Tensor) -> Tensor:
        order = self.symmetry.order
        if input.dim() not in (3, 4) or input.shape[-3] % order:
            expected = f"[n, fields * {order}, h, w] or [fields * {order}, h, w]"
            raise argument_error(type(self).__name__, "input", expected, tuple(input.shape))
        planes = input.unflatten(-3, (-1, order))
        return planes.amax(-3) if self.mode == "max" else planes.mean(-3)

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}"


class P4MPool2d(P4Pool2d):
    """Pooling over the orientations of a p4m map, eight to a field: see ``P4Pool2d``."""

    symmetry = P4M

"""torch.nn's 2-D convolution and pooling layers on spatialconv's functions.

Every class is a subclass of torch's of the same name: the same arguments in the same order, parameters, state_dict,
printed form and errors. What is added is the keyword ``backend``: None for the dispatcher's choice, a backend
(``"extension"``) or one kernel (``"extension:gemm"``); it is checked at once, may be changed later by assignment, and
is shown by ``repr`` where set.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dispatch import check_request
from ..functional import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    conv2d,
    conv_transpose2d,
    max_pool2d,
)
from ..ops.arguments import check_activation

Size = int | tuple[int, int]
OptionalSize = int | None | tuple[int | None, int | None]


class BackendLayer:
    """What the layers share: the request, a class attribute until an instance is given its own."""

    backend: str | None = None

    def _set_backend(self, backend: str | None) -> None:
        if backend is not None:
            self.backend = check_request(backend)
        else:
            self.__dict__.pop("backend", None)

    def extra_repr(self) -> str:
        shown = super().extra_repr()
        return shown if self.backend is None else f"{shown}, backend={self.backend!r}"


class Conv2d(BackendLayer, torch.nn.Conv2d):
    """2-D convolution: ``torch.nn.Conv2d`` plus ``activation`` and ``backend``.

    Input (N, C_in, H, W) or (C_in, H, W), output (N, C_out, H_out, W_out) or unbatched; any dtype that ``F.conv2d``
    takes. Equivalent: ``torch.nn.functional.conv2d(input, weight, bias, stride, padding, dilation, groups)``, after
    ``torch.nn.functional.pad`` where ``padding_mode`` is 'reflect', 'replicate' or 'circular', and followed by the
    function that ``activation`` names, as ``spatialconv.conv2d`` says. Raises as torch's layer does; an unknown
    ``activation`` or ``backend`` is a ValueError.
    """

    # A class attribute until an instance is given its own.
    activation: str | None = None
    # What `prepack` attaches; never in the state_dict, in a pickle or in a copy.
    _packed: Any = None

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
        activation: str | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        if activation is not None:
            check_activation("Conv2d", activation, self.weight)
            self.activation = activation
        self._set_backend(backend)

    def forward(self, input: Tensor) -> Tensor:
        if self._packed is not None:
            output = self._packed.run(self, input)
            if output is not None:
                return output
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = (0, 0)
        return conv2d(
            input, weight, bias, self.stride, padding, self.dilation, self.groups,
            activation=self.activation, backend=self.backend,
        )  # fmt: skip

    def extra_repr(self) -> str:
        shown = super().extra_repr()
        return shown if self.activation is None else f"{shown}, activation={self.activation!r}"

    def train(self, mode: bool = True) -> Conv2d:
        if mode:
            self.__dict__.pop("_packed", None)
        return super().train(mode)

    def _apply(self, fn, recurse=True):
        if self._packed is not None:
            self._packed.clear()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        if self._packed is not None:
            self._packed.clear()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_packed", None)
        return state


class ConvTranspose2d(BackendLayer, torch.nn.ConvTranspose2d):
    """2-D transposed convolution: ``torch.nn.ConvTranspose2d`` plus ``backend``.

    Input (N, C_in, H, W) or (C_in, H, W), output (N, C_out, H_out, W_out) or unbatched; ``forward`` takes
    ``output_size`` as torch's does. Equivalent: ``torch.nn.functional.conv_transpose2d(input, weight, bias, stride,
    padding, output_padding, groups, dilation)``. Raises as torch's layer does; an unknown ``backend`` is a ValueError.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        device=None,
        dtype=None,
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,
            device,
            dtype,
        )
        self._set_backend(backend)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if self.padding_mode != "zeros":
            raise ValueError("Only `zeros` padding mode is supported for ConvTranspose2d")
        output_padding = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation
        )
        return conv_transpose2d(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            output_padding,
            self.groups,
            self.dilation,
            backend=self.backend,
        )


class MaxPool2d(BackendLayer, torch.nn.MaxPool2d):
    """2-D max pooling: ``torch.nn.MaxPool2d`` plus ``backend``.

    Input (N, C, H, W) or (C, H, W); with ``return_indices`` the output is (values, int64 indices into the input
    plane). Equivalent: ``torch.nn.functional.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode,
    return_indices)``. Raises as torch's layer does; an unknown ``backend`` is a ValueError.
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        self._set_backend(backend)

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return max_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
            backend=self.backend,
        )


class AvgPool2d(BackendLayer, torch.nn.AvgPool2d):
    """2-D average pooling: ``torch.nn.AvgPool2d`` plus ``backend``.

    Input (N, C, H, W) or (C, H, W). Equivalent: ``torch.nn.functional.avg_pool2d(input, kernel_size, stride, padding,
    ceil_mode, count_include_pad, divisor_override)``. Raises as torch's layer does; an unknown ``backend`` is a
    ValueError.
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
        self._set_backend(backend)

    def forward(self, input: Tensor) -> Tensor:
        return avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
            backend=self.backend,
        )


class AdaptiveAvgPool2d(BackendLayer, torch.nn.AdaptiveAvgPool2d):
    """2-D adaptive average pooling: ``torch.nn.AdaptiveAvgPool2d`` plus ``backend``.

    Input (N, C, H, W) or (C, H, W), output of ``output_size``, where None keeps the input's size. Equivalent:
    ``torch.nn.functional.adaptive_avg_pool2d(input, output_size)``. Raises as torch's layer does; an unknown
    ``backend`` is a ValueError.
    """

    def __init__(self, output_size: OptionalSize, *, backend: str | None = None) -> None:
        super().__init__(output_size)
        self._set_backend(backend)

    def forward(self, input: Tensor) -> Tensor:
        return adaptive_avg_pool2d(input, self.output_size, backend=self.backend)


class AdaptiveMaxPool2d(BackendLayer, torch.nn.AdaptiveMaxPool2d):
    """2-D adaptive max pooling: ``torch.nn.AdaptiveMaxPool2d`` plus ``backend``.

    Input (N, C, H, W) or (C, H, W), output of ``output_size``, where None keeps the input's size; with
    ``return_indices`` also the int64 indices into the input plane. Equivalent:
    ``torch.nn.functional.adaptive_max_pool2d(input, output_size, return_indices)``. Raises as torch's layer does; an
    unknown ``backend`` is a ValueError.
    """

    def __init__(self, output_size: OptionalSize, return_indices: bool = False, *, backend: str | None = None) -> None:
        super().__init__(output_size, return_indices)
        self._set_backend(backend)

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return adaptive_max_pool2d(input, self.output_size, self.return_indices, backend=self.backend)


LAYERS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    torch.nn.Conv2d: Conv2d,
    torch.nn.ConvTranspose2d: ConvTranspose2d,
    torch.nn.MaxPool2d: MaxPool2d,
    torch.nn.AvgPool2d: AvgPool2d,
    torch.nn.AdaptiveAvgPool2d: AdaptiveAvgPool2d,
    torch.nn.AdaptiveMaxPool2d: AdaptiveMaxPool2d,
}

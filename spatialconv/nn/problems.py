"""The problem that a layer's call was, told from the layer, its input and its output."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends.base import DTYPE_NAMES
from ..ops.arguments import conv2d_problem, pool2d_problem
from ..problem import Conv2dProblem, Problem
from ..shapes import pair
from .layers import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, Conv2d, MaxPool2d


def conv2d_of(layer: Conv2d, input: Tensor, output: Tensor, geometry: tuple) -> Conv2dProblem:
    """``geometry``: stride, padding, dilation and groups as the layer names them, of the input that it is given."""
    stride, padding, dilation, groups = geometry
    stride, dilation = pair("conv2d", "stride", stride), pair("conv2d", "dilation", dilation)
    if padding == "same":
        padding = tuple(step * (size - 1) // 2 for step, size in zip(dilation, layer.kernel_size, strict=True))
    else:
        padding = (0, 0) if padding == "valid" else pair("conv2d", "padding", padding)
    return conv2d_problem(
        "conv2d", input.shape, layer.weight.shape, output.shape, stride, padding, dilation, groups,
        layer.bias is not None, input, layer.weight, activation=layer.activation,
    )  # fmt: skip


def linear_of(layer: torch.nn.Linear, input: Tensor) -> Conv2dProblem:
    """A linear layer on rows, as the 1x1 convolution of images of one pixel that it is."""
    return Conv2dProblem(
        "conv2d", input.shape[0], layer.in_features, 1, 1, layer.out_features, bias=layer.bias is not None,
        dtype=DTYPE_NAMES[input.dtype], layout="nhwc",
    )  # fmt: skip


def pool2d_of(layer: AvgPool2d | MaxPool2d | AdaptiveAvgPool2d | AdaptiveMaxPool2d, input: Tensor, output: Tensor):
    """Of a pooling without indices."""
    is_max = isinstance(layer, (MaxPool2d, AdaptiveMaxPool2d))
    op, options = "max_pool2d" if is_max else "avg_pool2d", {}
    if isinstance(layer, (AdaptiveAvgPool2d, AdaptiveMaxPool2d)):
        windows = ((1, 1), (1, 1), (0, 0), (1, 1), False, tuple(output.shape[2:]))
    else:
        size = pair(op, "kernel_size", layer.kernel_size)
        step = size if layer.stride in (None, (), []) else pair(op, "stride", layer.stride)
        dilation = pair(op, "dilation", layer.dilation) if is_max else (1, 1)
        windows = (size, step, pair(op, "padding", layer.padding), dilation, layer.ceil_mode, ())
        if not is_max:
            options = {"include_pad": layer.count_include_pad, "divisor": layer.divisor_override}
    return pool2d_problem(op, input.shape, output.shape[2:], *windows, input, **options)


def problem_of(layer, input: Tensor, output: Tensor) -> Problem:
    """Of a call on four dimensions, of a convolution padded with zeros or a pooling without indices."""
    if isinstance(layer, Conv2d):
        geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return conv2d_of(layer, input, output, geometry)
    return pool2d_of(layer, input, output)

"""From an op's arguments to its shapes and its problem, checked in one place for the real and the fake kernels.

Messages follow one form (see ``errors.argument_error``) and the exception types are those of torch's own ops.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..backends.base import DTYPE_NAMES
from ..errors import argument_error
from ..problem import ACTIVATIONS, Conv2dProblem, Pool2dProblem
from ..shapes import (
    INT64_MAX,
    check_fits,
    check_not_negative,
    check_positive,
    conv_output_size,
    integer,
    output_layout,
    pair,
    pool_output_size,
    require,
)


def check_tensors(op: str, **tensors: Tensor | None) -> None:
    """Strided tensors on one device; all but ``indices`` of one dtype."""
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise argument_error(op, name, "a tensor", type(tensor).__name__, TypeError)
        if tensor.layout is not torch.strided:
            kind = NotImplementedError if "pool" in op else RuntimeError
            raise argument_error(op, name, "a strided tensor", f"one of layout {tensor.layout}", kind)
        if tensor.is_quantized:
            raise argument_error(op, name, "a tensor that is not quantized", str(tensor.dtype))
        if tensor.device != first.device:
            raise argument_error(op, name, f"a tensor on {first.device}, as {first_name}", f"one on {tensor.device}")
        if name == "indices":
            if tensor.dtype not in (torch.int64, torch.uint8):
                raise argument_error(op, name, "int64, or uint8 window offsets", str(tensor.dtype))
        elif tensor.dtype != first.dtype:
            raise argument_error(op, name, f"{first.dtype}, the dtype of {first_name}", str(tensor.dtype))
    if first.dtype not in DTYPE_NAMES:
        raise argument_error(op, first_name, f"a dtype of torch's {op}", str(first.dtype), NotImplementedError)


def check_rank(op: str, name: str, tensor: Tensor, rank: int = 4) -> None:
    if tensor.dim() != rank:
        raise argument_error(op, name, f"{rank} dimensions", f"{tensor.dim()}: {tuple(tensor.shape)}")


def check_length(op: str, argument: str, values: Sequence[int], *lengths: int) -> None:
    if len(values) not in lengths:
        raise argument_error(op, argument, f"{' or '.join(map(str, lengths))} integers", list(values))


def four_sides(padding: Sequence[int]) -> tuple[int, int, int, int]:
    """Padding of two entries (vertical, horizontal) or four as (top, left, bottom, right)."""
    return (*padding, *padding) if len(padding) == 2 else tuple(padding)


def check_geometry(op: str, stride, padding, dilation, groups) -> None:
    check_length(op, "stride", stride, 2)
    check_length(op, "padding", padding, 2, 4)
    check_length(op, "dilation", dilation, 2)
    check_positive(op, "stride", stride)
    check_positive(op, "dilation", dilation)
    # What is padded behind may be negative: the adjoint of a transposed convolution leaves its output_padding unread.
    check_not_negative(op, "padding", padding[:2])
    require(groups > 0, lambda: argument_error(op, "groups", "a positive integer", groups))
    for name, values in (("stride", stride), ("padding", padding), ("dilation", dilation)):
        for value in values:
            if isinstance(value, int) and abs(value) > INT64_MAX // 2**20:
                raise argument_error(op, name, f"at most {INT64_MAX // 2**20}", value)


def conv2d_output_size(op: str, input_size, kernel_size, stride, padding, dilation) -> list[int]:
    """Rows and columns of the output; refuses a filter that does not fit the padded input."""
    top, left, bottom, right = four_sides(padding)
    check_positive(op, "kernel_size", kernel_size)
    axes = zip(
        ("rows", "columns"), input_size, kernel_size, stride, (top, left), (bottom, right), dilation, strict=True
    )
    return [_filter_positions(op, *axis) for axis in axes]


def _filter_positions(op: str, axis: str, size, kernel, stride, before, after, dilation):
    padded, reach = size + before + after, dilation * (kernel - 1) + 1
    require(
        padded >= reach,
        lambda: argument_error(
            op, "weight", f"a filter of at most {padded} {axis}, the padded input's", f"{reach} with dilation"
        ),
    )
    return conv_output_size(size, kernel, stride, before, after, dilation)


def check_conv2d(op: str, input: Tensor, weight: Tensor, bias: Tensor | None, stride, padding, dilation, groups):
    """Every check of a forward convolution; returns the output's shape."""
    check_tensors(op, input=input, weight=weight, bias=bias)
    check_rank(op, "input", input)
    check_rank(op, "weight", weight)
    check_geometry(op, stride, padding, dilation, groups)
    _check_bias(op, bias, weight.shape[:1])
    return _output_shape(op, input, weight, stride, padding, dilation, groups)


def _output_shape(op: str, input: Tensor, weight: Tensor, stride, padding, dilation, groups):
    """The output's shape, from a weight whose last dimensions are one filter's."""
    n, channels, ih, iw = input.shape
    oc, group_channels, kh, kw = weight.shape[-4:]
    require(oc > 0, lambda: argument_error(op, "weight", "at least one output channel", tuple(weight.shape)))
    require(
        oc % groups == 0,
        lambda: argument_error(op, "weight", f"output channels divisible by groups={groups}", tuple(weight.shape)),
    )
    require(
        channels == group_channels * groups,
        lambda: argument_error(
            op, "input", f"{group_channels * groups} channels (weight {tuple(weight.shape)}, groups={groups})",
            f"{channels}: {tuple(input.shape)}",
        ),
    )  # fmt: skip
    oh, ow = conv2d_output_size(op, (ih, iw), (kh, kw), stride, padding, dilation)
    for size in (ih, iw):
        require(
            (size > 0) | (n == 0) | (channels == 0),
            lambda: argument_error(op, "input", "no empty rows or columns", tuple(input.shape)),
        )
    check_fits(op, "input", (n, oc, oh, ow))
    return n, oc, oh, ow


def check_local_conv2d(op: str, input: Tensor, weight: Tensor, bias: Tensor | None, stride, padding, dilation, groups):
    """Every check of an untied forward convolution; returns the output's shape."""
    check_tensors(op, input=input, weight=weight, bias=bias)
    check_rank(op, "input", input)
    check_rank(op, "weight", weight, 6)
    check_geometry(op, stride, padding, dilation, groups)
    _check_bias(op, bias, weight.shape[:3])
    shape = _output_shape(op, input, weight, stride, padding, dilation, groups)
    _check_places(op, weight, shape[2:])
    return shape


def _check_places(op: str, weight: Tensor, places: Sequence[int]) -> None:
    for size, wanted in zip(weight.shape[:2], places, strict=True):
        require(
            size == wanted,
            lambda: argument_error(
                op, "weight", f"filters for the {tuple(places)} positions of the output first", tuple(weight.shape)
            ),
        )


def check_activation(op: str, activation: str | None, input: Tensor) -> None:
    """A known word, and an input that torch's activations take."""
    if activation is None:
        return
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise argument_error(op, "activation", f"None or one of {', '.join(ACTIVATIONS)}", repr(activation), ValueError)
    if not input.is_floating_point():
        expected = f"a floating-point tensor with activation={activation!r}"
        raise argument_error(op, "input", expected, str(input.dtype), NotImplementedError)


def conv2d_problem(
    op, shape, weight_shape, output_shape, stride, padding, dilation, groups, bias, *tensors, activation=None
):
    """The problem of one pass; ``tensors`` are the operands that the layout rule looks at, of which a weight with more
    than 4 dimensions has no layout to tell."""
    return Conv2dProblem(
        op, shape[0], shape[1], shape[2], shape[3], output_shape[1], output_shape[2], output_shape[3],
        weight_shape[-2], weight_shape[-1], stride[0], stride[1], padding[0], padding[1], dilation[0], dilation[1],
        groups, bias, activation, DTYPE_NAMES[tensors[0].dtype], output_layout(*tensors), tensors[0].device.type,
    )  # fmt: skip


def conv_transpose2d_geometry(input, weight, bias, stride, padding, output_padding, groups, dilation) -> tuple:
    """Every check of a transposed convolution. Returns the size of its output, then stride, padding, dilation and
    groups of the convolution that it transposes."""
    op = "conv_transpose2d"
    stride, padding = pair(op, "stride", stride), pair(op, "padding", padding)
    dilation, extra = pair(op, "dilation", dilation), pair(op, "output_padding", output_padding)
    groups = integer(op, "groups", groups)
    check_tensors(op, input=input, weight=weight, bias=bias)
    check_rank(op, "input", input)
    check_rank(op, "weight", weight)
    check_geometry(op, stride, padding, dilation, groups)
    check_not_negative(op, "output_padding", extra)
    check_positive(op, "weight's sizes", weight.shape[1:])
    require(
        weight.shape[0] % groups == 0,
        lambda: argument_error(op, "weight", f"input channels divisible by groups={groups}", tuple(weight.shape)),
    )
    require(
        input.shape[1] == weight.shape[0],
        lambda: argument_error(op, "input", f"{weight.shape[0]} channels, as weight has", tuple(input.shape)),
    )
    channels = weight.shape[1] * groups
    _check_bias(op, bias, (channels,))
    axes = zip(input.shape[2:], weight.shape[2:], stride, padding, extra, dilation, strict=True)
    sizes = [_transposed_size(op, input, *axis) for axis in axes]
    check_fits(op, "input", (input.shape[0], channels, *sizes))
    behind = [edge - more for edge, more in zip(padding, extra, strict=True)]
    return sizes, stride, [*padding, *behind], dilation, groups


def _transposed_size(op: str, input: Tensor, size, kernel, stride, padding, extra, dilation):
    require(
        (extra < stride) | (extra < dilation),
        lambda: argument_error(op, "output_padding", f"less than stride {stride} or dilation {dilation}", extra),
    )
    require(
        (size > 0) | (input.shape[0] == 0),
        lambda: argument_error(op, "input", "no empty rows or columns", tuple(input.shape)),
    )
    result = (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1
    require(result > 0, lambda: argument_error(op, "input", "an output of at least 1 row and column", result))
    return result


def _check_bias(op: str, bias: Tensor | None, shape) -> None:
    if bias is None:
        return

    def wrong() -> Exception:
        return argument_error(op, "bias", f"shape {tuple(shape)}", tuple(bias.shape))

    require(bias.dim() == len(shape), wrong)
    for size, wanted in zip(bias.shape, shape, strict=True):
        require(size == wanted, wrong)


def check_conv2d_grad_input(op, grad_output, weight, input_size, stride, padding, dilation, groups):
    """Every check of the gradient by the input; returns that gradient's shape."""
    check_tensors(op, grad_output=grad_output, weight=weight)
    check_rank(op, "grad_output", grad_output)
    check_rank(op, "weight", weight)
    check_geometry(op, stride, padding, dilation, groups)
    return _grad_input_shape(op, grad_output, weight, input_size, stride, padding, dilation, groups)


def check_local_conv2d_grad_input(op, grad_output, weight, input_size, stride, padding, dilation, groups):
    """Every check of the untied gradient by the input; returns that gradient's shape."""
    check_tensors(op, grad_output=grad_output, weight=weight)
    check_rank(op, "grad_output", grad_output)
    check_rank(op, "weight", weight, 6)
    check_geometry(op, stride, padding, dilation, groups)
    shape = _grad_input_shape(op, grad_output, weight, input_size, stride, padding, dilation, groups)
    _check_places(op, weight, grad_output.shape[2:])
    return shape


def _grad_input_shape(op, grad_output, weight, input_size, stride, padding, dilation, groups):
    oc, group_channels, kh, kw = weight.shape[-4:]
    require(
        grad_output.shape[1] == oc,
        lambda: argument_error(op, "grad_output", f"{oc} channels, as weight has", tuple(grad_output.shape)),
    )
    require(oc % groups == 0, lambda: argument_error(op, "groups", f"a divisor of {oc}", groups))
    check_not_negative(op, "input_size", input_size)
    check_length(op, "input_size", input_size, 2)
    expected = conv2d_output_size(op, input_size, (kh, kw), stride, padding, dilation)
    _check_output(op, grad_output, expected)
    shape = (grad_output.shape[0], group_channels * groups, *input_size)
    check_fits(op, "input_size", shape)
    return shape


def check_conv2d_grad_weight(op, grad_output, input, kernel_size, stride, padding, dilation, groups):
    """Every check of the gradient by the weight; returns that gradient's shape."""
    check_tensors(op, grad_output=grad_output, input=input)
    check_rank(op, "grad_output", grad_output)
    check_rank(op, "input", input)
    check_geometry(op, stride, padding, dilation, groups)
    require(
        grad_output.shape[0] == input.shape[0],
        lambda: argument_error(op, "grad_output", f"{input.shape[0]} images, as input has", tuple(grad_output.shape)),
    )
    _check_groups(op, "input", input, groups)
    _check_groups(op, "grad_output", grad_output, groups)
    check_length(op, "kernel_size", kernel_size, 2)
    expected = conv2d_output_size(op, input.shape[2:], kernel_size, stride, padding, dilation)
    _check_output(op, grad_output, expected)
    shape = (grad_output.shape[1], input.shape[1] // groups, *kernel_size)
    check_fits(op, "kernel_size", shape)
    return shape


def check_local_conv2d_grad_weight(op, grad_output, input, kernel_size, stride, padding, dilation, groups):
    """Every check of the untied gradient by the weight; returns that gradient's shape."""
    filter_shape = check_conv2d_grad_weight(op, grad_output, input, kernel_size, stride, padding, dilation, groups)
    shape = (*grad_output.shape[2:], *filter_shape)
    check_fits(op, "kernel_size", shape)
    return shape


def _check_groups(op: str, name: str, tensor: Tensor, groups) -> None:
    require(
        tensor.shape[1] % groups == 0,
        lambda: argument_error(op, name, f"channels divisible by groups={groups}", tuple(tensor.shape)),
    )


def _check_output(op: str, grad_output: Tensor, expected: Sequence[int]) -> None:
    for size, wanted in zip(grad_output.shape[2:], expected, strict=True):
        require(
            size == wanted,
            lambda: argument_error(op, "grad_output", f"rows and columns {tuple(expected)}", tuple(grad_output.shape)),
        )


def check_pool2d(op, input, kernel_size, stride, padding, dilation, ceil_mode, adaptive_size):
    """Every check of a pooling op's input; returns the output's shape."""
    check_tensors(op, input=input)
    check_rank(op, "input", input)
    geometry = (kernel_size, stride, padding, dilation, ceil_mode, adaptive_size)
    shape = (*input.shape[:2], *pool2d_output_size(op, input.shape, *geometry))
    check_fits(op, "output_size", shape)
    return shape


def pool2d_output_size(op, input_shape, kernel_size, stride, padding, dilation, ceil_mode, adaptive_size):
    """Rows and columns of a pooling op's output, from the shape of its input."""
    check_length(op, "adaptive_size", adaptive_size, 0, 2)
    if adaptive_size:
        if op.startswith("max"):
            require(input_shape[1] > 0, lambda: _empty_input(f"adaptive_{op}", input_shape))
        check_not_negative(f"adaptive_{op}", "output_size", adaptive_size)
        for size in input_shape[2:]:
            require(size > 0, lambda: _empty_input(f"adaptive_{op}", input_shape))
        return tuple(adaptive_size)
    check_length(op, "kernel_size", kernel_size, 2)
    check_length(op, "stride", stride, 2)
    check_length(op, "padding", padding, 2)
    check_length(op, "dilation", dilation, 2)
    check_positive(op, "kernel_size", kernel_size)
    check_positive(op, "stride", stride)
    check_positive(op, "dilation", dilation)
    check_not_negative(op, "padding", padding)
    for size in input_shape[1:]:
        require(size > 0, lambda: _empty_input(op, input_shape))
    for edge, kernel in zip(padding, kernel_size, strict=True):
        require(
            2 * edge <= kernel,
            lambda: argument_error(op, "padding", f"at most half of kernel_size {tuple(kernel_size)}", tuple(padding)),
        )
    for name, values in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)):
        for value in values:
            if isinstance(value, int) and value > INT64_MAX // 2**32:
                raise argument_error(op, name, f"at most {INT64_MAX // 2**32}", value)
    axes = zip(input_shape[2:], kernel_size, stride, padding, dilation, strict=True)
    return tuple(_window_positions(op, input_shape, *axis, ceil_mode) for axis in axes)


def _window_positions(op: str, input_shape, size, kernel, stride, padding, dilation, ceil_mode):
    outputs = pool_output_size(size, kernel, stride, padding, dilation, ceil_mode)
    require(
        outputs >= 1,
        lambda: argument_error(op, "kernel_size", f"a window inside the input {tuple(input_shape)}", kernel),
    )
    return outputs


def check_divisor(op: str, divisor: int | None) -> int | None:
    """The divisor itself, which is not 0."""
    if divisor is not None:
        require(divisor != 0, lambda: argument_error(op, "divisor_override", "an integer other than 0", divisor))
    return divisor


def _empty_input(op: str, shape) -> Exception:
    return argument_error(op, "input", "no empty dimension but the batch", tuple(shape))


def check_pool2d_adjoint(op, grad_output, input_size, kernel_size, stride, padding, dilation, ceil_mode, adaptive_size):
    """Every check of a pooling op's adjoint; returns the shape of the gradient by the input."""
    check_rank(op, "grad_output", grad_output)
    check_length(op, "input_size", input_size, 2)
    check_not_negative(op, "input_size", input_size)
    shape = (*grad_output.shape[:2], *input_size)
    expected = pool2d_output_size(op, shape, kernel_size, stride, padding, dilation, ceil_mode, adaptive_size)
    _check_output(op, grad_output, expected)
    check_fits(op, "input_size", shape)
    return shape


def check_offsets(op: str, kernel_size, adaptive_size) -> None:
    """Window offsets are uint8, and windows have to be of one size for them."""
    require(
        not adaptive_size and kernel_size[0] * kernel_size[1] <= 256,
        lambda: argument_error(
            op, "kernel_size", "windows of one size with at most 256 taps", tuple(adaptive_size or kernel_size)
        ),
    )


def check_indices(op: str, name: str, tensor: Tensor, indices: Tensor, kernel_size, adaptive_size) -> bool:
    """Indices have the shape of the pooled tensor they belong to. Returns whether they are window offsets."""
    if indices.dtype == torch.uint8:
        check_offsets(op, kernel_size, adaptive_size)
    check_rank(op, "indices", indices)
    for size, wanted in zip(indices.shape, tensor.shape, strict=True):
        require(
            size == wanted,
            lambda: argument_error(op, "indices", f"shape {tuple(tensor.shape)} of {name}", tuple(indices.shape)),
        )
    return indices.dtype == torch.uint8


def pool2d_problem(
    op, shape, output_size, kernel_size, stride, padding, dilation, ceil_mode, adaptive_size, *tensors,
    include_pad=True, divisor=None, indices=False, offsets=False,
) -> Pool2dProblem:  # fmt: skip
    """The problem of one pass; ``tensors`` are the operands that the layout rule looks at."""
    common = dict(
        op=op, n=shape[0], ic=shape[1], ih=shape[2], iw=shape[3], oh=output_size[0], ow=output_size[1],
        indices=indices, dtype=DTYPE_NAMES[tensors[0].dtype], layout=output_layout(*tensors),
        device=tensors[0].device.type,
    )  # fmt: skip
    if adaptive_size:
        return Pool2dProblem(adaptive=True, **common)
    return Pool2dProblem(
        kh=kernel_size[0], kw=kernel_size[1], sh=stride[0], sw=stride[1], ph=padding[0], pw=padding[1],
        dh=dilation[0], dw=dilation[1], ceil=ceil_mode, include_pad=include_pad, divisor=divisor or 0,
        offsets=offsets, **common,
    )  # fmt: skip

"""What is right, by torch in float64, and how near to it a result has to be.

The tolerance is that of ``spatialconv.bench.tolerance``: by element type, precision tier and length of the sum,
relative per element to the local sum of absolute products.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialconv.activations import FUNCTIONS, SLOPE
from spatialconv.backends.base import DTYPES
from spatialconv.bench import tolerance
from spatialconv.problem import Conv2dProblem, Pool2dProblem, Problem
from spatialconv.shapes import memory_format

aten = torch.ops.aten


@dataclass(frozen=True)
class Truth:
    """The float64 result, the sum of absolute products behind each element, and the indices (or window offsets) of a
    max pooling."""

    values: Tensor
    magnitude: Tensor
    indices: Tensor | None = None


def truth(problem: Problem, operands: tuple[Tensor | None, ...]) -> Truth:
    """What torch computes from float64 operands (and int64 indices) of the problem's shapes."""
    if isinstance(problem, Conv2dProblem):
        sizes = [tensor if tensor is None else tensor.abs().nan_to_num(0, 0, 0) for tensor in operands]
        values, magnitude = convolution(problem, *operands), convolution(problem, *sizes)
        if problem.activation is not None:
            return Truth(FUNCTIONS[problem.activation](values), SLOPE[problem.activation] * magnitude)
        return Truth(values, magnitude)
    sizes = operands[0].abs().nan_to_num(0, 0, 0)
    if problem.op == "max_pool2d":
        values, indices = max_pool(problem, operands[0])
        where = window_offsets(problem, indices) if problem.offsets else indices
        return Truth(values, torch.zeros_like(values), where)
    if problem.op == "max_pool2d_gather":
        taken = operands[0].flatten(2).gather(2, operands[1].flatten(2)).reshape(problem.output_shape)
        taken = taken.masked_fill(empty_windows(problem), 0)
        return Truth(taken, torch.zeros_like(taken))
    if problem.op == "max_pool2d_scatter":
        return Truth(scatter(problem, *operands), scatter(problem, sizes, operands[1]))
    run = average if problem.op == "avg_pool2d" else average_gradient
    return Truth(run(problem, operands[0]), run(problem, sizes).abs())


def convolution(problem: Conv2dProblem, first: Tensor, second: Tensor, bias: Tensor | None = None) -> Tensor:
    top, left, bottom, right = problem.sides
    padding, stride, dilation = [left, right, top, bottom], [problem.sh, problem.sw], [problem.dh, problem.dw]
    if problem.untied:
        return untied(problem, first, second, bias)
    if problem.ic == 0:
        result = first.new_zeros(problem.result_shape)
        return result if bias is None else result + bias[:, None, None]
    if problem.op == "conv2d":
        return F.conv2d(pad(first, padding), second, bias, stride, 0, dilation, problem.g)
    by_input = problem.op == "conv2d_grad_input"
    input = pad(first.new_zeros(problem.input_shape) if by_input else second, padding)
    weight = second if by_input else first.new_zeros(problem.weight_shape)
    geometry = (None, stride, [0, 0], dilation, False, [0, 0], problem.g, [by_input, not by_input, False])
    grad_input, grad_weight, _ = aten.convolution_backward(first, input, weight, *geometry)
    return pad(grad_input, [-side for side in padding]) if by_input else grad_weight


def untied(p: Conv2dProblem, first: Tensor, second: Tensor, bias: Tensor | None = None) -> Tensor:
    """torch has no such op: each output position sees its window through its own filter, and autograd does the rest."""
    (top, left, bottom, right), down, across = p.sides, (p.kh - 1) * p.dh + 1, (p.kw - 1) * p.dw + 1

    def forward(input: Tensor, weight: Tensor) -> Tensor:
        padded = pad(input, [left, right, top, bottom])
        windows = padded.unfold(2, down, p.sh)[..., :: p.dh].unfold(3, across, p.sw)[..., :: p.dw]
        windows = windows.unflatten(1, (p.g, -1))
        filters = weight.unflatten(2, (p.g, -1))
        return torch.einsum("ngcyxhw,yxgochw->ngoyx", windows, filters).flatten(1, 2)

    if 0 in (*p.input_shape, *p.weight_shape, *p.output_shape):
        result = first.new_zeros(p.result_shape)
        return result if bias is None else result + bias.permute(2, 0, 1)
    if p.op == "local_conv2d":
        result = forward(first, second)
        return result if bias is None else result + bias.permute(2, 0, 1)
    if p.op == "local_conv2d_grad_input":
        return torch.func.vjp(lambda input: forward(input, second), first.new_zeros(p.input_shape))[1](first)[0]
    return torch.func.vjp(lambda weight: forward(second, weight), first.new_zeros(p.weight_shape))[1](first)[0]


def pad(tensor: Tensor, sides: list[int]) -> Tensor:
    """Widened by the positive sides, then cut by the negative ones."""
    return F.pad(F.pad(tensor, [max(side, 0) for side in sides]), [min(side, 0) for side in sides])


def windows(problem: Pool2dProblem) -> tuple:
    return (problem.kh, problem.kw), (problem.sh, problem.sw), (problem.ph, problem.pw)


def empty_windows(problem: Pool2dProblem) -> Tensor:
    """Which windows hold no input element, [oh, ow]."""
    rows = torch.tensor([not window for window in problem.rows()], dtype=torch.bool)
    columns = torch.tensor([not window for window in problem.columns()], dtype=torch.bool)
    return rows[:, None] | columns


def max_pool(problem: Pool2dProblem, input: Tensor) -> tuple[Tensor, Tensor]:
    """torch's, but for windows without an input element, for which torch gives an index outside the plane."""
    if 0 in problem.output_shape:
        return input.new_zeros(problem.output_shape), torch.zeros(problem.output_shape, dtype=torch.int64)
    if problem.adaptive:
        return F.adaptive_max_pool2d(input, (problem.oh, problem.ow), return_indices=True)
    values, indices = F.max_pool2d(
        input, *windows(problem), (problem.dh, problem.dw), problem.ceil, return_indices=True
    )
    rows = torch.tensor([min(window.start, problem.ih - 1) for window in problem.rows()])
    columns = torch.tensor([min(window.start, problem.iw - 1) for window in problem.columns()])
    return values, torch.where(empty_windows(problem), rows[:, None] * problem.iw + columns, indices)


def window_offsets(problem: Pool2dProblem, indices: Tensor) -> Tensor:
    """Indices into the plane as uint8 offsets into the windows, found by looking for the tap that stands there."""
    p, offsets = problem, torch.zeros(indices.shape, dtype=torch.uint8)
    first_row, first_column = torch.arange(p.oh)[:, None] * p.sh - p.ph, torch.arange(p.ow) * p.sw - p.pw
    for tap in range(p.kh * p.kw):
        row, column = first_row + tap // p.kw * p.dh, first_column + tap % p.kw * p.dw
        inside = (row >= 0) & (row < p.ih) & (column >= 0) & (column < p.iw)
        offsets[inside & (indices == row * p.iw + column)] = tap
    return offsets


def scatter(problem: Pool2dProblem, grad_output: Tensor, indices: Tensor) -> Tensor:
    kept = grad_output.masked_fill(empty_windows(problem), 0).flatten(2)
    planes = grad_output.new_zeros(problem.n, problem.ic, problem.ih * problem.iw)
    return planes.scatter_add(2, indices.flatten(2), kept).reshape(problem.input_shape)


def average(problem: Pool2dProblem, input: Tensor) -> Tensor:
    if problem.adaptive:
        return F.adaptive_avg_pool2d(input, (problem.oh, problem.ow))
    return F.avg_pool2d(input, *windows(problem), problem.ceil, problem.include_pad, problem.divisor or None)


def average_gradient(problem: Pool2dProblem, grad_output: Tensor) -> Tensor:
    input = grad_output.new_zeros(problem.input_shape)
    if grad_output.numel() == 0:
        return input
    if problem.adaptive:
        return aten._adaptive_avg_pool2d_backward(grad_output, input)
    options = (problem.ceil, problem.include_pad, problem.divisor or None)
    return aten.avg_pool2d_backward(grad_output, input, *windows(problem), *options)


def summands(problem: Problem) -> int:
    """How many terms the longest sum of the problem has."""
    if isinstance(problem, Conv2dProblem):
        return problem.reduction
    if problem.pass_name == "grad_input" and problem.adaptive:
        return 4 + problem.oh * problem.ow // (problem.ih * problem.iw)
    return problem.reduction


def check(problem: Problem, result: Tensor, right: Truth, tier: str = "ieee", exact: bool = False) -> None:
    """Shape, dtype, layout and every value of a result; NaN and Inf have to stand where torch's stand.

    ``exact``: the truth can be computed without an error, so only its rounding to the result's type is right.
    """
    assert tuple(result.shape) == tuple(problem.result_shape)
    assert result.dtype == DTYPES[problem.dtype]
    layout = problem.layout if result.dim() == 4 else "nchw"
    assert result.is_contiguous(memory_format=memory_format(layout)), f"strides {result.stride()}"
    got, expected = result.double(), right.values
    if exact:
        expected = expected.to(result.dtype).double()
    allowed = torch.zeros_like(expected)
    if (problem.device, problem.dtype, getattr(problem, "activation", None)) == ("cuda", "f64", "hardswish"):
        # torch's own on CUDA, which stands behind these kernels, takes a sixth in float32 for float64 too.
        allowed += 2.0**-23 * torch.nan_to_num(expected).abs()
    if not exact:
        allowed += right.magnitude * tolerance.relative(problem.dtype, tier, summands(problem))
        allowed += tolerance.absolute(problem.dtype)
    fine = torch.where(expected.isfinite(), (got - expected).abs() <= allowed, same(got, expected))
    if not fine.all():
        place = tuple(int(index[0]) for index in torch.nonzero(~fine, as_tuple=True))
        raise AssertionError(
            f"{problem}: {int((~fine).sum())} of {fine.numel()} elements are wrong, the first at {place}: "
            f"{float(got[place])!r}, expected {float(expected[place])!r} within {float(allowed[place]):.3g}"
        )


def same(first: Tensor, second: Tensor) -> Tensor:
    """Elementwise equality in which NaN equals NaN."""
    return (first == second) | (first.isnan() & second.isnan())


def bits(tensor: Tensor) -> Tensor:
    """The tensor's bits, so that NaN and the sign of zero take part in a comparison."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.contiguous().view(whole)

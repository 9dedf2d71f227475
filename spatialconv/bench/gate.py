"""The correctness gate: torch in float64 says what is right; without it no speed is reported."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..activations import FUNCTIONS, SLOPE
from ..backends.base import DTYPES
from ..backends.reference.pool import as_indices, as_offsets
from ..problem import Conv2dProblem, Pool2dProblem, Problem
from ..shapes import output_layout
from . import tolerance
from .operands import Operands, average_arguments, window
from .untied import untied_call

aten = torch.ops.aten


@dataclass(frozen=True)
class Verdict:
    """``error`` is the worst error as a multiple of the allowed one; ``reason`` says what is wrong, or is None."""

    error: float
    reason: str | None = None

    @property
    def passed(self) -> bool:
        return self.reason is None


@dataclass(frozen=True)
class Truth:
    """The float64 result and, per element, the sum of absolute products; the latter None where the result is exact."""

    values: torch.Tensor
    magnitude: torch.Tensor | None
    indices: torch.Tensor | None = None


def truth(problem: Problem, operands: Operands) -> Truth:
    """What torch computes in float64 from these operands."""
    wide = [_widen(tensor) for tensor in operands]
    offsets = getattr(problem, "offsets", False)
    if offsets and len(wide) > 1:
        wide[1] = as_indices(problem, wide[1])
    if isinstance(problem, Conv2dProblem):
        sizes = [None if tensor is None else tensor.abs() for tensor in wide]
        values, magnitude = _convolve(problem, wide), _convolve(problem, sizes)
        if problem.activation is not None:
            values, magnitude = FUNCTIONS[problem.activation](values), SLOPE[problem.activation] * magnitude
        return Truth(values, magnitude)
    if problem.op == "max_pool2d":
        values, found = _max_pool(problem, wide[0])
        return Truth(values, None, as_offsets(problem, found) if offsets else found)
    if problem.op == "max_pool2d_scatter":
        return Truth(_scatter(problem, *wide), _scatter(problem, wide[0].abs(), wide[1]))
    if problem.op == "max_pool2d_gather":
        return Truth(wide[0].flatten(2).gather(2, wide[1].flatten(2)).reshape(problem.output_shape), None)
    average = _average if problem.op == "avg_pool2d" else _average_gradient
    return Truth(average(problem, wide[0]), average(problem, wide[0].abs()).abs())


def _widen(tensor: torch.Tensor | None) -> torch.Tensor | None:
    if tensor is None or not tensor.is_floating_point():
        return tensor if tensor is None else tensor.contiguous()
    return tensor.to(torch.float64).contiguous()


def _convolve(problem: Conv2dProblem, operands: list[torch.Tensor | None]) -> torch.Tensor:
    if problem.untied:
        return untied_call(problem)(*operands)
    top, left, bottom, right = problem.sides
    padding, stride, dilation = [left, right, top, bottom], (problem.sh, problem.sw), (problem.dh, problem.dw)
    if problem.op == "conv2d":
        input, weight, bias = operands
        return F.conv2d(F.pad(input, padding), weight, bias, stride, 0, dilation, problem.g)
    grad_output, other = operands
    needs_input = problem.op == "conv2d_grad_input"
    if needs_input:
        input, weight = F.pad(other.new_zeros(problem.input_shape), padding), other
    else:
        input, weight = F.pad(other, padding), other.new_zeros(problem.weight_shape)
    geometry = [list(stride), [0, 0], list(dilation), False, [0, 0], problem.g]
    mask = [needs_input, not needs_input, False]
    found = aten.convolution_backward(grad_output, input, weight, None, *geometry, mask)
    return F.pad(found[0], [-side for side in padding]) if needs_input else found[1]


def _max_pool(problem: Pool2dProblem, input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if problem.adaptive:
        return F.adaptive_max_pool2d(input, (problem.oh, problem.ow), return_indices=True)
    return F.max_pool2d(input, *window(problem), problem.ceil, return_indices=True)


def _scatter(problem: Pool2dProblem, grad_output: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    planes = grad_output.new_zeros(problem.n, problem.ic, problem.ih * problem.iw)
    return planes.scatter_add(2, found.flatten(2), grad_output.flatten(2)).reshape(problem.input_shape)


def _average(problem: Pool2dProblem, input: torch.Tensor) -> torch.Tensor:
    if problem.adaptive:
        return F.adaptive_avg_pool2d(input, (problem.oh, problem.ow))
    return F.avg_pool2d(input, *average_arguments(problem))


def _average_gradient(problem: Pool2dProblem, grad_output: torch.Tensor) -> torch.Tensor:
    input = grad_output.new_zeros(problem.input_shape)
    if problem.adaptive:
        return aten._adaptive_avg_pool2d_backward(grad_output, input)
    return aten.avg_pool2d_backward(grad_output, input, *average_arguments(problem))


def _reduction(problem: Problem) -> int:
    """The longest sum: a gradient of overlapping windows adds up at most the elements of one window."""
    if problem.op == "avg_pool2d_grad_input" and problem.adaptive:
        return 4 * (1 + problem.oh * problem.ow // max(problem.ih * problem.iw, 1))
    if problem.op == "max_pool2d_scatter" and problem.adaptive:
        return 4 * max(problem.reduction, 1)
    if problem.op == "max_pool2d_scatter":
        return problem.kh * problem.kw
    return problem.reduction


def judge(problem: Problem, result: object, right: Truth, tier: str = "ieee", check_layout: bool = True) -> Verdict:
    """Whether a result has the right shape, type and layout, and every element is near enough to the truth."""
    values, found = result if isinstance(result, tuple) else (result, None)
    if tuple(values.shape) != tuple(right.values.shape):
        return Verdict(float("inf"), f"shape {tuple(values.shape)}, expected {tuple(right.values.shape)}")
    if values.dtype != DTYPES[problem.dtype]:
        return Verdict(float("inf"), f"dtype {values.dtype}, expected {problem.dtype}")
    if check_layout and not _dense_in(values, problem.layout if values.dim() == 4 else "nchw"):
        return Verdict(float("inf"), f"strides {values.stride()}, expected {problem.layout}")
    if found is not None and right.indices is not None and not torch.equal(found.cpu(), right.indices.cpu()):
        return Verdict(float("inf"), "indices differ from torch's")
    wide = values.to(torch.float64)
    if right.magnitude is None:
        allowed = torch.zeros_like(wide)
    else:
        share = tolerance.relative(problem.dtype, tier, _reduction(problem))
        allowed = right.magnitude * share + tolerance.absolute(problem.dtype)
    equal = wide == right.values
    excess = (
        ((wide - right.values).abs() / allowed)
        .masked_fill(equal, 0.0)
        .nan_to_num(nan=float("inf"), posinf=float("inf"))
    )
    worst = float(excess.max()) if excess.numel() else 0.0
    if worst <= 1.0:
        return Verdict(worst)
    place = tuple(int(index) for index in torch.unravel_index(excess.argmax(), excess.shape))
    where = f"at {list(place)}: {wide[place]:.9g}, expected {right.values[place]:.9g}"
    return Verdict(worst, f"error {worst:.3g} times the allowed one {where}")


def _dense_in(tensor: torch.Tensor, layout: str) -> bool:
    if tensor.is_contiguous(memory_format=torch.channels_last if layout == "nhwc" else torch.contiguous_format):
        return True
    return output_layout(tensor) == layout

"""Seeded operands of a problem, in the order in which a plan takes them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from ..backends.base import DTYPES
from ..backends.reference.pool import as_offsets
from ..problem import Conv2dProblem, Pool2dProblem, Problem
from ..shapes import as_result

Operands = tuple[torch.Tensor | None, ...]


def make(problem: Problem, seed: int = 0) -> Operands:
    """Normal inputs and weights scaled by 1/sqrt(fan-in): the same values for every layout, dense in the problem's."""
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: tuple[int, ...], scale: float = 1.0) -> torch.Tensor:
        values = torch.randn(shape, generator=generator) * scale
        values = values.to(problem.device, DTYPES[problem.dtype])
        return as_result(values, problem.layout) if len(shape) == 4 else values

    if isinstance(problem, Conv2dProblem):
        weight_scale = 1.0 / math.sqrt(max(problem.ic // problem.g * problem.kh * problem.kw, 1))
        if problem.pass_name == "forward":
            input, weight = normal(problem.input_shape), normal(problem.weight_shape, weight_scale)
            return input, weight, normal(problem.bias_shape) if problem.bias else None
        if problem.pass_name == "grad_input":
            return normal(problem.output_shape), normal(problem.weight_shape, weight_scale)
        return normal(problem.output_shape), normal(problem.input_shape)
    if problem.op == "max_pool2d_scatter":
        return normal(problem.output_shape), indices(problem, normal(problem.input_shape))
    if problem.op == "max_pool2d_gather":
        input = normal(problem.input_shape)
        return input, indices(problem, normal(problem.input_shape))
    return (normal(problem.output_shape if problem.op == "avg_pool2d_grad_input" else problem.input_shape),)


def indices(problem: Pool2dProblem, input: torch.Tensor) -> torch.Tensor:
    """The positions of the maxima of an input, as torch returns them, or window offsets where the problem keeps those;
    dense in the problem's layout."""
    if problem.adaptive:
        found = F.adaptive_max_pool2d(input.float(), (problem.oh, problem.ow), return_indices=True)[1]
    else:
        found = F.max_pool2d(input.float(), *window(problem), problem.ceil, return_indices=True)[1]
    found = as_offsets(problem, found) if problem.offsets else found
    return as_result(found, problem.layout)


def window(problem: Pool2dProblem) -> tuple[tuple[int, int], ...]:
    """Kernel size, stride, padding and dilation, in the order of ``F.max_pool2d``."""
    return (problem.kh, problem.kw), (problem.sh, problem.sw), (problem.ph, problem.pw), (problem.dh, problem.dw)


def average_arguments(problem: Pool2dProblem) -> tuple[object, ...]:
    """Everything behind the input, in the order of ``F.avg_pool2d``."""
    return *window(problem)[:3], problem.ceil, problem.include_pad, problem.divisor or None


def clone(operands: Operands) -> Operands:
    """The same values and strides elsewhere in memory."""
    return tuple(None if tensor is None else tensor.clone() for tensor in operands)


def size_in_bytes(operands: Operands) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in operands if tensor is not None)

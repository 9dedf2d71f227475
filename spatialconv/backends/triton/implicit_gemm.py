"""Implicit GEMM convolutions: which problems they take, and plans that launch them.

Images are read and written where they lie, in either layout. The weight is wanted as [oc, kh, kw, ic / g], and one
that is contiguous is copied into that order, which is little beside the images where time matters: read in place, its
channels would lie kh * kw elements apart and every load would move a single one.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from ...problem import CONV_OPS, Conv2dProblem, Problem
from ...shapes import dense
from ..base import Context, Plan
from . import launch
from .configs import PROCESSORS, Config, cheapest, fitting, menu
from .kernel import DTYPES, TritonKernel, new_result
from .launch import Launch
from .tilings import TILINGS

# The interpreter runs programs one by one, and a large tile takes it little longer than a small one.
_INTERPRETED_AT_ONCE = 8


class ImplicitGemm(TritonKernel):
    """``precision`` is how float32 is multiplied, in Triton's words: ieee, tf32 or tf32x3."""

    ops = tuple(CONV_OPS)
    shift_exact = True

    def __init__(self, name: str, precision: str, tier: str, dtypes: tuple[str, ...]) -> None:
        self.name = name
        self.precision = precision
        self.tier = tier
        self.dtypes = dtypes

    def refusals(self, problem: Problem, context: Context) -> list[str]:
        reasons = super().refusals(problem, context)
        if self.precision == "tf32x3" and torch.version.hip:
            reasons.append("multiplies in tf32x3, which Triton has for NVIDIA's GPUs alone")
        return reasons

    def refuse_geometry(self, problem: Conv2dProblem) -> list[str]:
        if not problem.depthwise:
            return []
        return [f"would fill a tile with one channel a group, the problem has ic{problem.ic} g{problem.g}"]

    def configs(self, problem: Conv2dProblem, context: Context) -> tuple[Config, ...]:
        """The configs that the problem can be run with here."""
        shipped = menu(problem.dtype, self.precision, TILINGS[problem.op](problem).load_bytes)
        return fitting(shipped, problem.itemsize, context.isa)

    def plan(self, problem: Conv2dProblem, context: Context, config: Config | None = None) -> Plan:
        """``config`` stands in for the one that would be chosen, so that configs can be measured."""
        tiling = TILINGS[problem.op](problem)
        if config is None:
            processors = _INTERPRETED_AT_ONCE if launch.interpreting() else PROCESSORS
            config = cheapest(self.configs(problem, context), tiling.programs, tiling.depth, processors)
        return _PLANS[problem.op](problem, *tiling.launches(config, self.precision))


def _forward(problem: Conv2dProblem, multiply: Launch) -> Plan:
    def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        output = new_result(input, problem)
        bias = bias if bias is None else bias.contiguous()
        multiply(dense(input, problem.layout), dense(weight, "nhwc"), bias, output)
        return output

    return conv2d


def _grad_input(problem: Conv2dProblem, multiply: Launch) -> Plan:
    def conv2d_grad_input(grad_output: Tensor, weight: Tensor) -> Tensor:
        grad_input = new_result(grad_output, problem)
        multiply(dense(grad_output, problem.layout), dense(weight, "nhwc"), grad_input)
        return grad_input

    return conv2d_grad_input


def _grad_weight(problem: Conv2dProblem, multiply: Launch, add: Launch | None = None) -> Plan:
    size = prod(problem.weight_shape)
    wide = torch.float64 if problem.dtype == "f64" else torch.float32

    def conv2d_grad_weight(grad_output: Tensor, input: Tensor) -> Tensor:
        grad_weight = new_result(input, problem)
        operands = dense(grad_output, problem.layout), dense(input, problem.layout)
        if add is None:
            multiply(*operands, grad_weight)
            return grad_weight
        splits = add.integers[0]
        partial = torch.empty(splits * size, dtype=wide, device=input.device)
        multiply(*operands, partial)
        add(partial, grad_weight)
        return grad_weight

    return conv2d_grad_weight


_PLANS = {"conv2d": _forward, "conv2d_grad_input": _grad_input, "conv2d_grad_weight": _grad_weight}

KERNELS = (
    ImplicitGemm("implicit_gemm_tf32", "tf32", "tf32", ("f32",)),
    ImplicitGemm("implicit_gemm", "ieee", "ieee", DTYPES),
    ImplicitGemm("implicit_gemm_tf32x3", "tf32x3", "tf32", ("f32",)),
)

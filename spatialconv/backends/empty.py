"""Results of problems without work: empty, zero or the bias alone. No kernel is given an empty tensor."""

from __future__ import annotations

import torch

from ..problem import Conv2dProblem, Problem
from ..shapes import memory_format
from .base import Plan, activated


def empty_plan(problem: Problem) -> Plan:
    """A plan for a problem whose operands hold no element."""

    def zeros(like: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        result = torch.empty(
            problem.result_shape,
            dtype=dtype or like.dtype,
            device=like.device,
            memory_format=memory_format(problem.layout),
        )
        return result.zero_()

    if problem.op == "conv2d":

        def conv2d(input, weight, bias):
            output = zeros(input)
            return output if bias is None else output.copy_(bias.reshape(1, -1, 1, 1).expand(output.shape))

        return conv2d if problem.activation is None else activated(conv2d, problem.activation)
    if problem.op == "max_pool2d":
        kept = torch.uint8 if problem.offsets else torch.int64 if problem.indices else None
        return lambda input: (zeros(input), None if kept is None else zeros(input, kept))
    if isinstance(problem, Conv2dProblem):
        return lambda first, second: zeros(first)
    return lambda first, *rest: zeros(first)

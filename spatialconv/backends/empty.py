"""Results of problems without work: empty, zero or the bias alone. No kernel is given an empty tensor."""

from __future__ import annotations

import torch

from ..problem import Conv2dProblem, Problem
from ..shapes import memory_format
from .base import Plan, activated


def empty_plan(problem: Problem) -> Plan:
    """A plan for a problem whose operands hold no element."""

    def zeros(like: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        shape = problem.result_shape
        layout = problem.layout if len(shape) == 4 else "nchw"
        result = torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=memory_format(layout))
        return result.zero_()

    if problem.op in ("conv2d", "local_conv2d"):

        def conv2d(input, weight, bias):
            output = zeros(input)
            if bias is None:
                return output
            bias = bias.movedim(-1, 0) if problem.untied else bias.reshape(-1, 1, 1)
            return output.copy_(bias.expand(output.shape))

        return conv2d if problem.activation is None else activated(conv2d, problem.activation)
    if problem.op == "max_pool2d":
        kept = torch.uint8 if problem.offsets else torch.int64 if problem.indices else None
        return lambda input: (zeros(input), None if kept is None else zeros(input, kept))
    if isinstance(problem, Conv2dProblem):
        return lambda first, second: zeros(first)
    return lambda first, *rest: zeros(first)

"""What the Triton kernels share: the reasons of all, and results that are dense in the problem's layout."""

from __future__ import annotations

import torch
from torch import Tensor

from ...problem import Problem
from ...shapes import dense_strides
from ..base import Context, Kernel, common_refusals
from . import launch

DTYPES = ("f32", "f64", "bf16", "f16")


class TritonKernel(Kernel):
    """``dtypes`` are those it computes in; ``refuse_geometry`` and ``plan`` are left to the kernel."""

    backend = "triton"
    dtypes = DTYPES

    @property
    def devices(self) -> tuple[str, ...]:
        return (launch.device(),)

    def refuse_automatic(self) -> list[str]:
        return ["is interpreted here, slowly: it runs where backend= names it"] if launch.interpreting() else []

    def refusals(self, problem: Problem, context: Context) -> list[str]:
        return common_refusals(problem, self, context, launch.device(), self.dtypes)


def new_result(like: Tensor, problem: Problem, dtype: torch.dtype | None = None) -> Tensor:
    """Memory for the result, on the device of an operand."""
    strides = dense_strides(problem.result_shape, problem.layout)
    return torch.empty_strided(problem.result_shape, strides, dtype=dtype or like.dtype, device=like.device)

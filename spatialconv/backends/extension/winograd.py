"""The Winograd kernels: 3x3 filters in fewer multiplications, and where that pays."""

from __future__ import annotations

from ...problem import Problem
from ..base import Context
from .kernels import ConvKernel


class WinogradKernel(ConvKernel):
    """F(2x2, 3x3): S. Winograd, 1980; A. Lavin and S. Gray, 2015 (arXiv 1509.09308)."""

    shift_exact = False

    def refuse_geometry(self, problem: Problem) -> list[str]:
        p, reasons = problem, []
        if (p.kh, p.kw) != (3, 3):
            reasons.append(f"is for filters of 3x3, the problem has kh{p.kh} kw{p.kw}")
        if (p.sh, p.sw, p.dh, p.dw) != (1, 1, 1, 1):
            reasons.append(f"is for stride and dilation 1, the problem has sh{p.sh} sw{p.sw} dh{p.dh} dw{p.dw}")
        if p.g != 1:
            reasons.append(f"is for one group, the problem has g{p.g}")
        return reasons

    def unprofitable(self, problem: Problem, context: Context) -> str | None:
        return None


class Winograd4Kernel(WinogradKernel):
    """F(4x4, 3x3): fewer multiplications, and larger numbers on the way that cancel."""

    integer_exact = False
    tier = "tf32"
    dtypes = ("f32",)

    def refuse_geometry(self, problem: Problem) -> list[str]:
        reasons = super().refuse_geometry(problem)
        if not reasons and not all(0 <= side <= 2 for side in problem.sides):
            reasons.append(
                f"rounds with its neighbours what reads padding alone and has to be 0, with sides {problem.sides}"
            )
        return reasons

"""The Winograd kernels: 3x3 filters in fewer multiplications, and where that pays."""

from __future__ import annotations

from ...problem import ACTIVATIONS, Problem
from ..base import Context
from .kernels import ConvKernel


def tiles(problem: Problem, tile: int) -> int:
    """How many squares of so many pixels cover the result's planes, of pixels that are a dilation apart."""
    _, _, height, width = problem.result_shape
    rows, columns = -(-height // problem.dh), -(-width // problem.dw)
    views = min(problem.dh, height) * min(problem.dw, width)
    return problem.n * views * -(-rows // tile) * -(-columns // tile)


def past_the_image(problem: Problem) -> int:
    """How many taps a window reaches past the image at most, of the convolution or of the correlation that the
    input's gradient is: that one has 2 of padding where the convolution has none."""
    steps = problem.dh, problem.dw, problem.dh, problem.dw
    if problem.op == "conv2d_grad_input":
        return 2 - min(side // step for side, step in zip(problem.sides, steps, strict=True))
    return max(-(-side // step) for side, step in zip(problem.sides, steps, strict=True))


class WinogradKernel(ConvKernel):
    """F(m x m, 3 x 3), a tile of m x m outputs from (m + 2)² products: S. Winograd, 1980; A. Lavin and S. Gray, 2015
    (arXiv 1509.09308). With dilation it runs on the pixels that are a dilation apart.

    ``least_saved``: how many times fewer products than those of ``instead_of`` there have to be; where filters are
    dilated, ``dilated_margin`` times as many, and ``least_dilated`` channels.
    """

    shift_exact = False
    fuses = ACTIVATIONS
    tile = 2
    instead_of, least_saved = "a direct sum", 1.5
    least_dilated, dilated_margin = 24, 1.2

    def refuse_geometry(self, problem: Problem) -> list[str]:
        p, reasons = problem, []
        if (p.kh, p.kw) != (3, 3):
            reasons.append(f"is for filters of 3x3, the problem has kh{p.kh} kw{p.kw}")
        if (p.sh, p.sw) != (1, 1):
            reasons.append(f"is for stride 1, the problem has sh{p.sh} sw{p.sw}")
        if p.g != 1:
            reasons.append(f"is for one group, the problem has g{p.g}")
        if p.dh * p.dw > 1 and p.layout == "nchw" and p.dtype not in ("f32", "f64"):
            reasons.append(f"is in nchw for f32 and f64 where filters are dilated, the problem has {p.dtype}")
        if not reasons and (reached := past_the_image(p)) > 1:
            reasons.append(
                "rounds an output that reads one row of taps with the other rows: windows may reach 1 past the image, "
                f"here they reach {reached}"
            )
        return reasons

    def unprofitable(self, problem: Problem, context: Context) -> str | None:
        if self.refuse_geometry(problem):
            return None
        by_input = problem.op == "conv2d_grad_input"
        summed, written = (problem.oc, problem.ic) if by_input else (problem.ic, problem.oc)
        if summed < 8 or written < 8 or (summed < 12 and written > 2 * summed):
            return f"with {summed} channels summed into {written}, its transforms cost more than it saves"
        dilated = problem.dh * problem.dw > 1
        if dilated and min(summed, written) < self.least_dilated:
            return f"with {summed} channels summed into {written}, bringing together what is dilated costs too much"
        count = tiles(problem, self.tile)
        if count < 8:
            return "with fewer than 8 tiles, the transform of the weight costs more than it saves"
        saved = self.products_instead(problem) / (count * (self.tile + 2) ** 2)
        if saved < self.least_saved * (self.dilated_margin if dilated else 1):
            return f"on planes of this size {self.instead_of} takes only {saved:.2f} times its products"
        return None

    def products_instead(self, problem: Problem) -> int:
        """Products for one channel summed into one, of what is asked next."""
        _, _, height, width = problem.result_shape
        return 9 * problem.n * height * width


class Winograd4Kernel(WinogradKernel):
    """F(4x4, 3x3): fewer multiplications, and larger numbers on the way that cancel."""

    integer_exact = False
    tier = "tf32"
    dtypes = ("f32",)
    tile = 4
    instead_of, least_saved = "F(2x2, 3x3)", 1.3

    def refuse_geometry(self, problem: Problem) -> list[str]:
        reasons = super().refuse_geometry(problem)
        steps = problem.dh, problem.dw, problem.dh, problem.dw
        if not reasons and not all(0 <= side <= 2 * step for side, step in zip(problem.sides, steps, strict=True)):
            reasons.append(
                f"rounds with its neighbours what reads padding alone and has to be 0, with sides {problem.sides}"
            )
        return reasons

    def products_instead(self, problem: Problem) -> int:
        return tiles(problem, 2) * 16

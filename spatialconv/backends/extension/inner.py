"""The kernel of inner products, for 1x1 filters on few pixels, and where it pays."""

from __future__ import annotations

from ...problem import ACTIVATIONS, Problem
from ..base import Context
from .kernels import ConvKernel


class InnerKernel(ConvKernel):
    """1x1 filters, where a pixel's channels are one run of memory, as a filter is."""

    fuses = ACTIVATIONS
    least_channels = 16

    # Measured on a Zen 3: up to so many channels one pass adds up all of an output, and up to so many bytes filters
    # come so fast that laying them anew for ``gemm`` is what takes time.
    one_pass, near_bytes = 1024, 5 << 18

    def most_pixels(self, problem: Problem, context: Context) -> int:
        """With more pixels filters are laid anew faster than read in another order each time; long ones are added up
        more cheaply than short ones."""
        if context.prepacked:
            return 3
        channels = problem.ic // problem.g
        if 512 <= channels <= self.one_pass and problem.oc * channels * problem.itemsize <= self.near_bytes:
            return 64
        return 25 if channels >= 1024 else 12 if channels >= 512 else 6

    def refuse_geometry(self, problem: Problem) -> list[str]:
        p, reasons = problem, []
        if (p.kh, p.kw) != (1, 1):
            reasons.append(f"is for filters of 1x1, the problem has kh{p.kh} kw{p.kw}")
        if (p.ph, p.pw) != (0, 0):
            reasons.append(f"is for no padding, the problem has ph{p.ph} pw{p.pw}")
        if p.layout == "nchw" and (p.ih, p.iw) != (1, 1):
            reasons.append(f"reads a pixel's channels as one run, in nchw those of ih1 iw1, here ih{p.ih} iw{p.iw}")
        return reasons

    def unprofitable(self, problem: Problem, context: Context) -> str | None:
        if self.refuse_geometry(problem):
            return None
        pixels, channels = problem.n * problem.oh * problem.ow, problem.ic // problem.g
        if pixels > self.most_pixels(problem, context):
            return f"with {pixels} pixels filters laid anew pay"
        if channels < self.least_channels:
            return f"inner products of {channels} channels are mostly the adding up of lanes"
        return None

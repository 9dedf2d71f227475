"""The kernel of bfloat16 pairs, and which of two instruction sets it multiplies them with."""

from __future__ import annotations

from functools import cache

from ... import settings
from ...problem import ACTIVATIONS, Problem
from ..base import Context, common_refusals
from . import loader
from .kernels import OLDER_BUILD, ConvKernel, handles

# In order of preference, named as Linux names them.
SETS = ("amx_bf16", "avx512_bf16")
_UNVERIFIED = f"has not yet run on a processor with {' or '.join(SETS)}: it computes only where it is asked for by name"


@cache
def offered() -> tuple[str, ...]:
    """The instruction sets that processor and system offer; asking has Linux grant the process its tiles."""
    return loader.load().dots()


@cache
def instructions(level: str) -> str | None:
    """Whose instructions are run in a level, a twin's or the processor's own, as the compiled kernels' names end."""
    compiled = {name.removeprefix("dots_") for _, name, _ in handles(level)}
    asked = settings.emulate_dots()
    wanted = [f"{asked}_twin"] if asked else [name for name in SETS if name in offered()]
    return next((name for name in wanted if name in compiled), None)


class DotsKernel(ConvKernel):
    """Tiles of AMX, else vectors of AVX-512, over packed filters and staged blocks of the input."""

    dtypes = ("bf16",)
    fuses = ACTIVATIONS

    def compiled_name(self, context: Context) -> str:
        return f"dots_{instructions(context.isa)}"

    def refusals(self, problem: Problem, context: Context) -> list[str]:
        if problem.device == "cpu" and not any(name.startswith("dots_") for _, name, _ in handles(context.isa)):
            return [*common_refusals(problem, self, context, "cpu", self.dtypes), OLDER_BUILD]
        if problem.device != "cpu" or instructions(context.isa) is not None:
            return super().refusals(problem, context)
        return [*common_refusals(problem, self, context, "cpu", self.dtypes), self.missing(context)]

    def missing(self, context: Context) -> str:
        """Why there is nothing to multiply with."""
        asked = settings.emulate_dots()
        if asked and asked not in SETS:
            return f"SPATIALCONV_EMULATE_DOTS={asked!r} is no instruction set, known: {', '.join(SETS)}"
        if found := offered():
            return f"needs instructions of {found[0]}, which level {context.isa} of this build has not"
        return (
            f"needs {' or '.join(SETS)}, which this processor or this system lacks; "
            f"SPATIALCONV_EMULATE_DOTS={SETS[0]} runs a twin, slowly"
        )

    def refuse_geometry(self, problem: Problem) -> list[str]:
        if problem.g == 1:
            return []
        summed, written = problem.ic // problem.g, problem.oc // problem.g
        if problem.op == "conv2d_grad_input":
            summed, written = written, summed
        depth = summed * problem.kh * problem.kw
        if written >= 8 and depth >= 16:
            return []
        told = f"the problem's groups have {written} and {depth}"
        return [f"fills less than half of its tiles of 16 filters and 32 values of each, {told}"]

    def unprofitable(self, problem: Problem, context: Context) -> str | None:
        return _UNVERIFIED

    def refuse_automatic(self) -> list[str]:
        return [_UNVERIFIED]

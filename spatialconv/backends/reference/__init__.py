"""The judge: every op and pass in plain torch, written to be read as mathematics."""

from __future__ import annotations

from functools import partial

from ...problem import CONV_OPS, LOCAL_OPS, Problem
from ..base import Backend, Context, Kernel, Plan, refuse_op
from . import conv, local, pool


def refuse_torch_dtypes(problem: Problem) -> list[str]:
    """The dtypes that torch's own op lacks are refused here too."""
    op = problem.op.removeprefix("local_")
    known = DTYPES[f"adaptive_{op.split('_')[0]}" if getattr(problem, "adaptive", False) else op]
    small_integers = ("i32", "i16", "i8", "u8")
    if op == "conv2d" and problem.dh == problem.dw == 1:
        known = (*known, *small_integers)
    if problem.op.startswith("avg") and problem.oh == problem.ow == 1 and getattr(problem, "adaptive", False):
        known = (*known, "c64", "c128")
    theirs = problem.printed_op.removeprefix("local_")
    return [] if problem.dtype in known else [f"torch's {theirs} has no {problem.dtype} either"]


_FLOATS = ("f32", "f64", "bf16", "f16")
_CONV = (*_FLOATS, "c32", "c64", "c128", "i64")
DTYPES = {
    "conv2d": _CONV,
    "conv2d_grad_input": _CONV,
    "conv2d_grad_weight": _CONV,
    "max_pool2d": (*_FLOATS, "i64", "i32", "i16", "i8", "u8"),
    "max_pool2d_scatter": (*_FLOATS, "i64", "i32", "i16", "i8", "u8"),
    "max_pool2d_gather": (*_FLOATS, "i64", "i32", "i16", "i8", "u8"),
    "avg_pool2d": (*_FLOATS, "i64"),
    "avg_pool2d_grad_input": (*_FLOATS, "i64"),
    "adaptive_max": _FLOATS,
    "adaptive_avg": _FLOATS,
}


class ReferenceKernel(Kernel):
    """Functions of one module, named as the ops are."""

    backend = "reference"
    devices = ("cpu", "cuda")

    def __init__(self, name: str, functions: dict[str, object]) -> None:
        self.name = name
        self.functions = functions
        self.ops = tuple(functions)

    def refusals(self, problem: Problem, context: Context) -> list[str]:
        return refuse_op(problem, self) or refuse_torch_dtypes(problem)

    def plan(self, problem: Problem, context: Context) -> Plan:
        return partial(self.functions[problem.op], problem)


class Reference(Backend):
    name = "reference"
    kernels = (
        ReferenceKernel(
            "im2col",
            {name: getattr(conv, name) for name in CONV_OPS} | {name: getattr(local, name) for name in LOCAL_OPS},
        ),
        ReferenceKernel(
            "taps",
            {
                "max_pool2d": pool.max_pool2d,
                "max_pool2d_scatter": pool.max_pool2d_scatter,
                "max_pool2d_gather": pool.max_pool2d_gather,
                "avg_pool2d": pool.avg_pool2d,
                "avg_pool2d_grad_input": pool.avg_pool2d_grad_input,
            },
        ),
    )

    def unavailable(self) -> None:
        return None


BACKEND = Reference()

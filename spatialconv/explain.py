"""Why a call runs where it runs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .dispatch import Explanation, explain_problem
from .ops import OPS
from .ops.schemas import PROBLEMS, SCHEMAS
from .problem import Problem
from .shapes import memory_format


class _Found(Exception):
    """The op that a call comes to, thrown before it computes."""

    def __init__(self, name: str, args: tuple) -> None:
        self.name, self.op_args = name, args


class _FirstOp(TorchDispatchMode):
    """Stops a call at the first op of ours."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for name, op in OPS.items():
            if function is op:
                raise _Found(name, args)
        return function(*args, **(kwargs or {}))


def explain(what: str | Problem | Callable, *args, backend: str | None = None, **kwargs) -> Explanation:
    """Which kernel runs a problem or a call, which refuse it and why, and what is copied first. Nothing is computed.

    Args:
        what: a problem, its printed form ("conv2d n8 ic64 ih56 iw56 oc64 kh3 kw3 ph1 pw1 f32 nhwc cpu"), or one of this
            package's functions or layers.
        args, kwargs: the arguments of the call.
        backend: as in the functions; a layer has its own.

    Returns:
        An ``Explanation``; ``print`` it.

    Raises:
        ValueError: ``what`` is no problem, or calls nothing of this package. TypeError, RuntimeError: as the call
            itself would for these arguments.

    Example:
        >>> print(spatialconv.explain(spatialconv.conv2d, torch.rand(1, 3, 9, 9), torch.rand(4, 3, 3, 3)))
    """
    if not callable(what):
        return explain_problem(what, backend)
    if backend is not None:
        kwargs["backend"] = backend
    try:
        with _FirstOp(), torch.no_grad():
            what(*args, **kwargs)
    except _Found as found:
        name, op_args = found.name, found.op_args
    else:
        raise ValueError(f"explain: {getattr(what, '__name__', what)!r} calls none of spatialconv's functions")
    problem, operands = PROBLEMS[name](*op_args)
    request = op_args[_names(name).index("backend")]
    return explain_problem(problem, request, notes=_copies(name, problem, operands))


def _names(name: str) -> list[str]:
    """The names of an op's arguments."""
    return [argument.name for argument in torch._C.parse_schema(name + SCHEMAS[name]).arguments]


def _copies(name: str, problem: Problem, operands: tuple) -> tuple[str, ...]:
    notes = []
    for argument, tensor in zip(_names(name), operands, strict=False):
        if isinstance(tensor, Tensor) and tensor.dim() > 4 and not tensor.is_contiguous():
            notes.append(f"{argument} is copied first: its strides {tensor.stride()} are not contiguous")
        if not isinstance(tensor, Tensor) or tensor.dim() != 4:
            continue
        formats = ("nchw", "nhwc") if argument == "weight" else (problem.layout,)
        if not any(tensor.is_contiguous(memory_format=memory_format(layout)) for layout in formats):
            notes.append(f"{argument} is copied first: its strides {tensor.stride()} are not dense {problem.layout}")
    return tuple(notes)

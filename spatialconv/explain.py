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


class _FirstOp(TorchDispatchMode):
    """Notes the first op of ours and lets nothing compute."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: tuple[str, tuple] | None = None

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for name, op in OPS.items():
            if function is op:
                self.seen = self.seen or (name, args)
                shape_only = [value.to("meta") if isinstance(value, Tensor) else value for value in args]
                return function(*shape_only)
        return function(*args, **(kwargs or {}))


def explain(what: str | Problem | Callable, *args, backend: str | None = None, **kwargs) -> Explanation:
    """Which kernel runs a problem or a call, which refuse it and why, and what is copied first. Nothing is computed.

    Args:
        what: a problem, its printed form ("conv2d n8 ic64 ih56 iw56 oc64 kh3 kw3 ph1 pw1 f32 nhwc cpu"), or one of this
            package's functions.
        args, kwargs: the function's arguments.
        backend: as in the functions.

    Returns:
        An ``Explanation``; ``print`` it.

    Example:
        >>> print(spatialconv.explain(spatialconv.conv2d, torch.rand(1, 3, 9, 9), torch.rand(4, 3, 3, 3)))
    """
    if not callable(what):
        return explain_problem(what, backend)
    with _FirstOp() as recorder, torch.no_grad():
        what(*args, backend=backend, **kwargs)
    if recorder.seen is None:
        raise ValueError(f"explain: {getattr(what, '__name__', what)!r} is none of spatialconv's functions")
    name, op_args = recorder.seen
    problem, operands = PROBLEMS[name](*op_args)
    return explain_problem(problem, op_args[-1], notes=_copies(name, problem, operands))


def _copies(name: str, problem: Problem, operands: tuple) -> tuple[str, ...]:
    names = [argument.name for argument in torch._C.parse_schema(name + SCHEMAS[name]).arguments]
    notes = []
    for argument, tensor in zip(names, operands, strict=False):
        if not isinstance(tensor, Tensor) or tensor.dim() != 4:
            continue
        formats = ("nchw", "nhwc") if argument == "weight" else (problem.layout,)
        if not any(tensor.is_contiguous(memory_format=memory_format(layout)) for layout in formats):
            notes.append(f"{argument} is copied first: its strides {tensor.stride()} are not dense {problem.layout}")
    return tuple(notes)

"""The accesses of one run of a C++ kernel, as offsets in its tensors."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...backends.base import DTYPES as TORCH_DTYPES
from ...backends.base import Context
from ...backends.extension import loader
from ...backends.extension.kernels import conv_structs
from ...backends.extension.pooling import pool_struct
from ...dispatch import reasons_against
from ...problem import Conv2dProblem, Problem
from ...shapes import dense, dense_strides
from . import build

EVENT = np.dtype(
    [("offset", "<i8"), ("bytes", "<i4"), ("buffer", "u1"), ("store", "u1"), ("unused", "<u2")], align=False
)
DTYPES = ("f32", "f64", "bf16", "f16")
LIMIT = 50_000_000


@dataclass(frozen=True)
class Recording:
    """``events`` in the order in which the kernel made them: ``buffer`` counts in ``buffers``, ``offset`` and
    ``bytes`` are bytes. A buffer that the kernel does not have holds no bytes. ``output`` is what it computed."""

    problem: Problem
    kernel: str
    level: str
    buffers: tuple[str, ...]
    sizes: tuple[int, ...]
    events: np.ndarray
    output: Tensor


def roles(problem: Problem) -> tuple[str, ...]:
    """What the kernel's tensors x, w, y and aux are in a pass, and the workspace."""
    forward, last = ("input", "weight", "output"), ("bias", "workspace")
    if not isinstance(problem, Conv2dProblem):
        last = ("indices", "workspace")
    names = {
        "forward": forward,
        "gather": forward,
        "grad_input": ("grad_input", "weight", "grad_output"),
        "grad_weight": ("input", "grad_weight", "grad_output"),
    }[problem.pass_name]
    return (*names, *last)


def record(
    problem: Problem, name: str, level: str | None = None, csrc: Path | None = None, limit: int = LIMIT
) -> Recording:
    """Run ``extension:NAME`` once, on one thread, on random operands and without a bias, and keep every access.

    ``level``: an instruction-set level that this machine runs, the best by default. Max pooling is run without
    indices, its gradients are not run. Raises ValueError where the kernel does not compute the problem or makes more
    than ``limit`` accesses, RuntimeError where it cannot be built here.
    """
    if problem.pass_name == "gather" or problem.op == "max_pool2d_scatter" or getattr(problem, "indices", False):
        raise ValueError(f"study: recording: expected a convolution or pooling without indices, got {problem}")
    if getattr(problem, "bias", False) or getattr(problem, "activation", None):
        problem = problem.replace(bias=False, activation=None)
    level = level or loader.level()
    library = load(build.library(build.table_of(problem.op, name), level, csrc))
    _refuse(problem, name, level)
    struct = struct_of(problem)
    operation = (problem.op.encode(), name.encode(), DTYPES.index(problem.dtype), ctypes.addressof(struct))
    workspace = library.spatialconv_record_workspace(*operation)
    if workspace < 0:
        raise ValueError(f"study: recording: {name} does not compute {problem.op} in {problem.dtype}")
    tensors, result = operands(problem)
    tensors[4] = torch.zeros(workspace + 64, dtype=torch.uint8)
    sizes = [0 if tensor is None else tensor.numel() * tensor.element_size() for tensor in tensors]
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    addresses[4] += -addresses[4] % 64
    sizes[4] = workspace
    count = library.spatialconv_record(
        *operation, (ctypes.c_void_p * 5)(*addresses), (ctypes.c_int64 * 5)(*sizes), limit
    )
    if count >= limit:
        raise ValueError(f"study: recording: expected fewer than {limit} accesses, {problem} makes more")
    events = np.empty(count, EVENT)
    library.spatialconv_recorded(events.ctypes.data_as(ctypes.c_void_p))
    return Recording(problem, f"extension:{name}", level, roles(problem), tuple(sizes), events, tensors[result])


def check_level(level: str) -> None:
    """ValueError where this machine does not run an instruction-set level."""
    usable = loader.load().levels()
    if level not in usable:
        raise ValueError(f"study: level: expected one of {', '.join(usable)}, got {level!r}")


@cache
def load(path: Path, device: bool = False) -> ctypes.CDLL:
    """A recording library; one of CUDA kernels takes, last, the number of multiprocessors as well."""
    library = ctypes.CDLL(str(path))
    operation = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int64, ctypes.c_void_p]
    more = [ctypes.c_int64] if device else []
    library.spatialconv_record_workspace.argtypes = [*operation, *more]
    library.spatialconv_record_workspace.restype = ctypes.c_int64
    library.spatialconv_record.argtypes = [*operation, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, *more]
    library.spatialconv_record.restype = ctypes.c_int64
    library.spatialconv_recorded.argtypes = [ctypes.c_void_p]
    library.spatialconv_recorded.restype = None
    return library


def _refuse(problem: Problem, name: str, level: str) -> None:
    """ValueError with the kernel's own reasons against the problem."""
    reasons = reasons_against(f"extension:{name}", problem, Context(isa=level, precision="tf32"))
    if reasons:
        raise ValueError(f"study: recording: extension:{name} does not take {problem}: {'; '.join(reasons)}")


def struct_of(problem: Problem) -> ctypes.Structure:
    """The problem as compiled kernels read it, weights dense in the problem's layout."""
    if isinstance(problem, Conv2dProblem):
        return conv_structs(problem)[problem.layout == "nhwc"]
    return pool_struct(problem)


def operands(problem: Problem) -> tuple[list[Tensor | None], int]:
    """x, w, y, aux and a place for the workspace, dense in the problem's layout, and which of them is the result."""
    generator = torch.Generator().manual_seed(0)
    dtype = TORCH_DTYPES[problem.dtype]
    shapes: list[tuple[int, ...] | None] = [problem.input_shape, None, problem.output_shape]
    if isinstance(problem, Conv2dProblem):
        shapes[1] = problem.weight_shape
    result = {"forward": 2, "grad_input": 0, "grad_weight": 1}[problem.pass_name]
    tensors: list[Tensor | None] = []
    for number, shape in enumerate(shapes):
        if shape is None:
            tensors.append(None)
        elif number == result:
            steps = dense_strides(shape, problem.layout)
            tensors.append(torch.empty_strided(shape, steps, dtype=dtype).fill_(float("nan")))
        else:
            values = torch.randint(-4, 5, shape, generator=generator).to(dtype)
            tensors.append(dense(values, problem.layout))
    return [*tensors, None, None], result

"""The Numba kernels: which problems each takes, and plans that hand them addresses and integers.

float32 and float64 are computed as they are; 16-bit floats in float32 copies, rounded once at the end.
"""

from __future__ import annotations

import ctypes
from abc import abstractmethod
from types import ModuleType

import torch
from torch import Tensor

from ...problem import CONV_OPS, Conv2dProblem, Pool2dProblem, Problem
from ...shapes import dense, dense_strides
from ..allocation import allocator
from ..base import (
    DTYPES,
    Context,
    Kernel,
    Plan,
    common_refusals,
    refuse_offsets,
)
from . import conv_fields, gemm_plans, pool_fields
from .compiler import compiled

WORK_PER_THREAD = 32768
# Elements of the widest vector.
_WIDEST = 16


class NumbaKernel(Kernel):
    """Bound by subclasses to a kind of problem: ``wide_plan`` runs it in float32 or float64."""

    backend = "numba"
    shift_exact = True
    dtypes = ("f32", "f64", "bf16", "f16")

    def __init__(self, name: str, ops: tuple[str, ...]) -> None:
        self.name = name
        self.ops = ops

    def refusals(self, problem: Problem, context: Context) -> list[str]:
        return common_refusals(problem, self, context, "cpu", self.dtypes) or refuse_offsets(problem)

    def plan(self, problem: Problem, context: Context) -> Plan:
        if problem.dtype in ("f32", "f64"):
            return self.wide_plan(problem, context)
        return _in_float32(self.wide_plan(problem.replace(dtype="f32"), context), DTYPES[problem.dtype])

    @abstractmethod
    def wide_plan(self, problem: Problem, context: Context) -> Plan:
        """The plan of a problem in float32 or float64."""


def _in_float32(plan: Plan, dtype: torch.dtype) -> Plan:
    def run(*operands: Tensor | None) -> object:
        wide = [tensor.float() if tensor is not None and tensor.is_floating_point() else tensor for tensor in operands]
        answer = plan(*wide)
        if isinstance(answer, tuple):
            return answer[0].to(dtype), answer[1]
        return answer.to(dtype)

    return run


def template(module: ModuleType, problem: Problem) -> list[int]:
    """The context of a problem but for the addresses."""
    fields = [0] * module.COUNT
    for name in vars(module):
        if name.isupper() and hasattr(problem, name.lower()):
            fields[getattr(module, name)] = int(getattr(problem, name.lower()))
    fields[module.NHWC] = int(problem.layout == "nhwc")
    fields[module.X_N : module.X_W + 1] = dense_strides(problem.input_shape, problem.layout)
    fields[module.Y_N : module.Y_W + 1] = dense_strides(problem.output_shape, problem.layout)
    return fields


def grain_for(work: int, context: Context) -> int:
    """How many tasks of so many multiply-adds are worth another thread."""
    return max(1, WORK_PER_THREAD // max(work, 1)) if context.threads > 1 else 2**62


def address_of(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def line(elements: int) -> int:
    """Rounded up to whole cache lines."""
    return -(-elements // 16) * 16


class ConvKernel(NumbaKernel):
    """Simple loops over tasks; the weight lies in the images' layout."""

    def module(self, problem: Conv2dProblem) -> str:
        return self.name

    def tasks(self, problem: Conv2dProblem, context: Context, fields: list[int]) -> tuple[int, int, int]:
        """How many tasks there are, how many are worth another thread, and how many elements of memory all need."""
        if problem.op == "conv2d_grad_weight":
            count = problem.oc * problem.kh
        else:
            n, channels, height, _ = problem.result_shape
            count = n * height * (1 if problem.layout == "nhwc" else channels)
        return count, grain_for(problem.flops() // (2 * count), context), 0

    def wide_plan(self, problem: Conv2dProblem, context: Context) -> Plan:
        function = compiled(self.module(problem), problem.op, problem.dtype)
        fields = template(conv_fields, problem)
        weight_steps = dense_strides(problem.weight_shape, problem.layout)
        fields[conv_fields.W_N : conv_fields.W_W + 1] = weight_steps
        layout, element = problem.layout, DTYPES[problem.dtype]
        allocate = allocator(problem.result_shape, layout, element)
        tasks, grain, scratch = self.tasks(problem, context, fields)
        kind = ctypes.c_int64 * conv_fields.COUNT
        first_address = conv_fields.X

        def run(x: Tensor, w: Tensor, y: Tensor, bias: Tensor | None = None) -> None:
            workspace = torch.empty(scratch, dtype=element) if scratch else None
            values = kind(*fields)
            values[first_address : first_address + 5] = [
                x.data_ptr(), w.data_ptr(), y.data_ptr(), address_of(bias), address_of(workspace)
            ]  # fmt: skip
            function.run(tasks, grain, ctypes.addressof(values))

        def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            output = allocate(input)
            bias = bias if bias is None else bias.contiguous()
            run(dense(input, layout), dense(weight, layout), output, bias)
            return output

        def conv2d_grad_input(grad_output: Tensor, weight: Tensor) -> Tensor:
            grad_input = allocate(grad_output)
            run(grad_input, dense(weight, layout), dense(grad_output, layout))
            return grad_input

        def conv2d_grad_weight(grad_output: Tensor, input: Tensor) -> Tensor:
            grad_weight = allocate(input)
            run(dense(input, layout), grad_weight, dense(grad_output, layout))
            return grad_weight

        return {
            "conv2d": conv2d, "conv2d_grad_input": conv2d_grad_input, "conv2d_grad_weight": conv2d_grad_weight,
        }[problem.op]  # fmt: skip


class DepthwiseKernel(ConvKernel):
    """One input channel a group. A task is a slab: a fixed share of the work with memory of its own."""

    def refuse_geometry(self, problem: Problem) -> list[str]:
        if problem.depthwise:
            return []
        return [f"needs one input channel a group and several groups, the problem has ic{problem.ic} g{problem.g}"]

    def module(self, problem: Conv2dProblem) -> str:
        return "depthwise_nhwc" if problem.layout == "nhwc" else "depthwise"

    def tasks(self, problem: Conv2dProblem, context: Context, fields: list[int]) -> tuple[int, int, int]:
        threads = min(context.threads, max(1, problem.flops() // (2 * WORK_PER_THREAD)))
        if problem.layout == "nchw":
            shares = problem.oc if problem.op == "conv2d_grad_weight" else problem.n * problem.result_shape[1]
            height = (problem.oh - 1) * problem.sh + (problem.kh - 1) * problem.dh + 1
            width = (problem.ow - 1) * problem.sw + (problem.kw - 1) * problem.dw + 1
            fields[conv_fields.PITCH] = pitch = -(-width // problem.sw)
            size = line(height * problem.sw * pitch + 5 * _WIDEST + 2 * problem.kh * problem.kw)
        elif problem.op == "conv2d_grad_weight":
            # Blocks of channels are cache lines apart, and hold whole groups.
            multiplier = problem.oc // problem.g
            block = line(-(-problem.oc // threads)) * multiplier
            fields[conv_fields.BLOCK] = block
            shares, size = -(-problem.oc // block), line(problem.kh * problem.kw * block)
            threads = shares
        else:
            shares = problem.n * problem.result_shape[2]
            # Filters and, for each tap, two int64.
            size = line(problem.kh * problem.kw * (problem.oc + 4))
        slabs = min(threads, shares)
        fields[conv_fields.SLABS], fields[conv_fields.SLAB_SIZE] = slabs, size
        return slabs, 1, slabs * size


class GemmKernel(NumbaKernel):
    """Packed matrix products on register tiles: any geometry, all three passes."""

    plans = {
        "conv2d": gemm_plans.forward_plan,
        "conv2d_grad_input": gemm_plans.grad_input_plan,
        "conv2d_grad_weight": gemm_plans.grad_weight_plan,
    }

    def wide_plan(self, problem: Conv2dProblem, context: Context) -> Plan:
        return self.plans[problem.op](problem, context)


class PoolKernel(NumbaKernel):
    """``rows``: a window at a time along output rows; ``planes``: whole planes, moved through by indices."""

    modules = {
        "max_pool2d": "max_pool",
        "max_pool2d_scatter": "max_pool_planes",
        "max_pool2d_gather": "max_pool_planes",
        "avg_pool2d": "avg_pool",
        "avg_pool2d_grad_input": "avg_pool",
    }

    def wide_plan(self, problem: Pool2dProblem, context: Context) -> Plan:
        ringed = _suits_ring(problem)
        name = f"{problem.op}_in_ring" if ringed else problem.op
        function = compiled(self.modules[problem.op], name, problem.dtype)
        fields = template(pool_fields, problem)
        nhwc, layout, shape = problem.layout == "nhwc", problem.layout, problem.result_shape
        chunk = max(1, min(problem.ic, 64)) if nhwc else 1
        planes = problem.n * (-(-problem.ic // chunk))
        by_plane = problem.op in ("max_pool2d_scatter", "max_pool2d_gather", "avg_pool2d_grad_input")
        tasks = planes if by_plane else problem.oh * problem.n * (1 if nhwc else problem.ic)
        work = problem.flops() // tasks
        slabbed = problem.op in ("max_pool2d", "avg_pool2d", "avg_pool2d_grad_input")
        slabs = max(1, min(context.threads, tasks, tasks * work // WORK_PER_THREAD)) if slabbed else 0
        reach = max(problem.iw + problem.pw, (problem.ow - 1) * problem.sw + (problem.kw - 1) * problem.dw + 1)
        # Loads and stores of rows overrun by up to two vectors.
        scratch = line(max(reach + problem.ow, problem.iw, chunk) + 4 * _WIDEST) if slabbed else 0
        if ringed:
            loads, rows = -(-problem.kw // problem.sw) * problem.sw, (problem.kh - 1) * problem.dh + 1
            ring, pitch = 1 << (rows - 1).bit_length(), line(problem.ow)
            fields[pool_fields.LOADS], fields[pool_fields.RING], fields[pool_fields.PITCH] = loads, ring, pitch
            scratch = pitch * (loads + 1 + ring)
        fields[pool_fields.SLABS], fields[pool_fields.TASKS] = slabs, tasks
        fields[pool_fields.SLAB_SIZE], fields[pool_fields.CHUNK] = scratch, chunk
        kind, element = ctypes.c_int64 * pool_fields.COUNT, DTYPES[problem.dtype]
        launched = (slabs, 1) if slabbed else (tasks, grain_for(work, context))
        first_address = pool_fields.X
        allocate, allocate_indices = allocator(shape, layout, element), allocator(shape, layout, torch.int64)

        def run(x: Tensor, y: Tensor, indices: Tensor | None = None) -> None:
            workspace = torch.empty(slabs * scratch, dtype=element) if slabbed else None
            values = kind(*fields)
            values[first_address : first_address + 4] = [
                x.data_ptr(), y.data_ptr(), address_of(indices), address_of(workspace)
            ]  # fmt: skip
            function.run(*launched, ctypes.addressof(values))

        def max_pool2d(input: Tensor) -> tuple[Tensor, Tensor | None]:
            values = allocate(input)
            indices = allocate_indices(input) if problem.indices else None
            run(dense(input, layout), values, indices)
            return values, indices

        def max_pool2d_scatter(grad_output: Tensor, indices: Tensor) -> Tensor:
            grad_input = allocate(grad_output)
            run(grad_input, dense(grad_output, layout), dense(indices, layout))
            return grad_input

        def max_pool2d_gather(input: Tensor, indices: Tensor) -> Tensor:
            output = allocate(input)
            run(dense(input, layout), output, dense(indices, layout))
            return output

        def avg_pool2d(input: Tensor) -> Tensor:
            output = allocate(input)
            run(dense(input, layout), output)
            return output

        def avg_pool2d_grad_input(grad_output: Tensor) -> Tensor:
            grad_input = allocate(grad_output)
            run(grad_input, dense(grad_output, layout))
            return grad_input

        return {
            "max_pool2d": max_pool2d, "max_pool2d_scatter": max_pool2d_scatter,
            "max_pool2d_gather": max_pool2d_gather, "avg_pool2d": avg_pool2d,
            "avg_pool2d_grad_input": avg_pool2d_grad_input,
        }[problem.op]  # fmt: skip


def _suits_ring(problem: Pool2dProblem) -> bool:
    if problem.op not in ("max_pool2d", "avg_pool2d") or problem.indices or problem.layout == "nhwc":
        return False
    return not problem.adaptive and problem.sw <= 2 and problem.dw == 1


KERNELS = (
    DepthwiseKernel("depthwise", tuple(CONV_OPS)),
    GemmKernel("gemm", tuple(GemmKernel.plans)),
    ConvKernel("direct", tuple(CONV_OPS)),
    PoolKernel("rows", ("max_pool2d", "avg_pool2d")),
    PoolKernel("planes", ("max_pool2d_scatter", "max_pool2d_gather", "avg_pool2d_grad_input")),
)

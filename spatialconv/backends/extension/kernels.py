"""The compiled CPU kernels of convolution: which problems each takes, and plans that call them on raw addresses.

Operands that are not dense in the problem's layout are copied into it by name, with ``dense``; a weight is read as it
lies, contiguous or channels_last.
"""

from __future__ import annotations

import ctypes
from functools import cache
from math import prod

import torch
from torch import Tensor

from ... import threads
from ...problem import ACTIVATIONS, Conv2dProblem, Problem
from ...shapes import dense, dense_strides
from .. import allocation
from ..base import (
    DTYPES,
    Context,
    Kernel,
    Launch,
    Plan,
    common_refusals,
    refuse_offsets,
)
from . import loader, structs

_CHANNELS_LAST = torch.channels_last
WORKSPACE_LIMIT = 2**30
OLDER_BUILD = "was added after the compiled module was built: install spatialconv again"


@cache
def handles(level: str) -> dict[tuple[str, str, str], int]:
    """Address of every compiled kernel of a level by (op, kernel, dtype)."""
    return {(op, name, dtype): handle for op, name, dtype, handle in loader.load().kernels(level)}


def conv_structs(problem: Conv2dProblem) -> tuple[structs.Conv2d, structs.Conv2d]:
    """The problem for a contiguous and for a channels_last weight."""
    fields = {name: getattr(problem, name) for name in structs.Conv2d.integers if hasattr(problem, name)}
    fields["accumulate"] = 0
    fields["activation"] = 0 if problem.activation is None else 1 + ACTIVATIONS.index(problem.activation)
    x, y = dense_strides(problem.input_shape, problem.layout), dense_strides(problem.output_shape, problem.layout)
    first, second = (
        structs.conv2d_struct(fields, x, dense_strides(problem.weight_shape, order), y) for order in ("nchw", "nhwc")
    )
    return first, second


def in_layout(tensor: Tensor, layout: str) -> Tensor:
    """The tensor itself where it is dense in the layout, else a copy; cheaper than asking ``contiguous`` first."""
    if tensor.is_contiguous() if layout == "nchw" else tensor.is_contiguous(memory_format=_CHANNELS_LAST):
        return tensor
    return dense(tensor, layout)


def as_it_lies(weight: Tensor, plain: structs.Conv2d, channels_last: structs.Conv2d) -> tuple[Tensor, structs.Conv2d]:
    """The weight and the problem for its layout; a weight that is dense in neither is copied."""
    if weight.is_contiguous():
        return weight, plain
    if weight.is_contiguous(memory_format=_CHANNELS_LAST):
        return weight, channels_last
    return weight.contiguous(), plain


class ExtensionKernel(Kernel):
    """A compiled kernel; subclasses bind it to a kind of problem."""

    backend = "extension"
    shift_exact = True
    dtypes = ("f32", "f64", "bf16", "f16")

    def __init__(self, name: str, ops: tuple[str, ...]) -> None:
        self.name = name
        self.ops = ops

    def refusals(self, problem: Problem, context: Context) -> list[str]:
        reasons = common_refusals(problem, self, context, "cpu", self.dtypes) or refuse_offsets(problem)
        return reasons or self.refuse_older_build(problem, context) or self.refuse_workspace(problem, context)

    def refuse_older_build(self, problem: Problem, context: Context) -> list[str]:
        """An editable install keeps its compiled module when the sources beside it change."""
        if (problem.op, self.compiled_name(context), problem.dtype) in handles(context.isa):
            return []
        return [OLDER_BUILD]

    def refuse_workspace(self, problem: Problem, context: Context) -> list[str]:
        """An absurd stride or dilation can ask for far more than the tensors themselves take."""
        if problem.empty:
            return []
        size, limit = self.workspace_bytes(problem, context), WORKSPACE_LIMIT + 8 * problem.compulsory_bytes
        if 0 <= size <= limit:
            return []
        return [f"would need a workspace of {size} bytes for this geometry, the limit is {limit}"]

    def struct(self, problem: Problem) -> ctypes.Structure:
        """The problem as the compiled kernel reads it."""
        raise NotImplementedError

    def compiled_name(self, context: Context) -> str:
        """What the kernel is called in the compiled part."""
        return self.name

    def handle(self, problem: Problem, context: Context) -> int:
        return handles(context.isa)[problem.op, self.compiled_name(context), problem.dtype]

    def workspace_bytes(self, problem: Problem, context: Context) -> int:
        struct = self.struct(problem)
        return loader.load().workspace_bytes(self.handle(problem, context), ctypes.addressof(struct), context.threads)

    def runner(self, problem: Problem, context: Context):
        """``run(problem address, x, w, y, aux, packed)`` on the thread's own workspace: calls may overlap."""
        call, handle = loader.load().run, self.handle(problem, context)
        workspace_bytes, thread_count = self.workspace_bytes(problem, context), context.threads

        if workspace_bytes == 0:

            def run(address, x, w, y, aux, packed):
                code = call(handle, address, x, w, y, aux, 0, thread_count, packed)
                if code:
                    threads.check(code)

            return run

        def run_with_workspace(address, x, w, y, aux, packed):
            place, _memory = allocation.workspace(workspace_bytes)
            code = call(handle, address, x, w, y, aux, place, thread_count, packed)
            if code:
                threads.check(code)

        return run_with_workspace

    def launch_at(self, address: int, problem: Problem, context: Context, weight: Tensor | None, kept) -> Launch:
        """The launch of a problem whose struct is at an address."""
        before, after = (self.handle(problem, context), address), (context.threads, int(context.prepacked))
        return Launch(loader.load().run, before, after, self.workspace_bytes(problem, context), weight, kept)


class ConvKernel(ExtensionKernel):
    def struct(self, problem: Problem) -> structs.Conv2d:
        return conv_structs(problem)[0]

    def plan(self, problem: Problem, context: Context) -> Plan:
        plain, channels_last = conv_structs(problem)
        run = self.runner(problem, context)
        return getattr(self, f"_{problem.op}")(problem, context, run, plain, channels_last)

    def _conv2d(self, problem, context, run, plain, channels_last) -> Plan:
        shape, layout, nchw = problem.output_shape, problem.layout, problem.layout == "nchw"
        steps = dense_strides(shape, layout)
        plain_address, last_address = ctypes.addressof(plain), ctypes.addressof(channels_last)
        packed = int(context.prepacked)
        call, handle, thread_count = loader.load().run, self.handle(problem, context), context.threads
        workspace_bytes, dtype = self.workspace_bytes(problem, context), DTYPES[problem.dtype]
        large_output = allocation.large(prod(shape) * problem.itemsize)

        # in_layout, as_it_lies and run stand here in full: a small layer's call is mostly these few lines.
        def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None, _keep=(plain, channels_last)) -> Tensor:
            address = plain_address
            if not (input.is_contiguous() if nchw else input.is_contiguous(memory_format=_CHANNELS_LAST)):
                input = dense(input, layout)
            if not packed and not weight.is_contiguous():
                if weight.is_contiguous(memory_format=_CHANNELS_LAST):
                    address = last_address
                else:
                    weight = weight.contiguous()
            if bias is not None and not bias.is_contiguous():
                bias = bias.contiguous()
            output = allocation.empty_strided(shape, steps, dtype)
            place, _memory = allocation.workspace(workspace_bytes) if workspace_bytes else (0, None)
            if large_output:
                allocation.on_large_pages(output)
            code = call(
                handle, address, input.data_ptr(), weight.data_ptr(), output.data_ptr(),
                0 if bias is None else bias.data_ptr(), place, thread_count, packed,
            )  # fmt: skip
            if code:
                threads.check(code)
            return output

        return conv2d

    def _conv2d_grad_input(self, problem, context, run, plain, channels_last) -> Plan:
        shape, layout = problem.input_shape, problem.layout
        allocate = allocation.allocator(shape, layout, DTYPES[problem.dtype])

        def conv2d_grad_input(grad_output: Tensor, weight: Tensor) -> Tensor:
            weight, struct = as_it_lies(weight, plain, channels_last)
            grad_output = in_layout(grad_output, layout)
            grad_input = allocate(grad_output)
            run(ctypes.addressof(struct), grad_input.data_ptr(), weight.data_ptr(), grad_output.data_ptr(), 0, 0)
            return grad_input

        return conv2d_grad_input

    def _conv2d_grad_weight(self, problem, context, run, plain, channels_last) -> Plan:
        shape, layout = problem.weight_shape, problem.layout
        allocate = allocation.allocator(shape, layout, DTYPES[problem.dtype])
        struct = channels_last if problem.layout == "nhwc" else plain
        address = ctypes.addressof(struct)

        def conv2d_grad_weight(grad_output: Tensor, input: Tensor, _keep=struct) -> Tensor:
            grad_output, input = in_layout(grad_output, layout), in_layout(input, layout)
            grad_weight = allocate(input)
            run(address, input.data_ptr(), grad_weight.data_ptr(), grad_output.data_ptr(), 0, 0)
            return grad_weight

        return conv2d_grad_weight

    def launch(
        self, problem: Problem, context: Context, weight: Tensor | None = None, accumulate: bool = False
    ) -> Launch | None:
        if problem.op != "conv2d" or problem.activation not in (None, *self.fuses):
            return None
        if accumulate and not self.accumulates(problem):
            return None
        plain, channels_last = conv_structs(problem)
        struct = plain
        if not context.prepacked:
            weight, struct = as_it_lies(weight, plain, channels_last)
        struct.accumulate = int(accumulate)
        return self.launch_at(ctypes.addressof(struct), problem, context, weight, struct)

    def packed_weight(self, problem: Problem, context: Context, weight: Tensor) -> Tensor | None:
        module, handle = loader.load(), self.handle(problem, context)
        weight, struct = as_it_lies(weight, *conv_structs(problem))
        size = module.packed_bytes(handle, ctypes.addressof(struct))
        if size == 0:
            return None
        packed = torch.empty(size, dtype=torch.uint8)
        threads.check(
            module.pack(handle, ctypes.addressof(struct), weight.data_ptr(), packed.data_ptr(), context.threads)
        )
        return packed


class DirectKernel(ConvKernel):
    fuses = ACTIVATIONS


class GemmKernel(ConvKernel):
    fuses = ACTIVATIONS
    # Packing costs a workspace and about 2 µs a call, in which direct computes about 10,000 operations.
    least_flops = 10_000

    def unprofitable(self, problem: Problem, context: Context) -> str | None:
        if problem.flops() >= self.least_flops:
            return None
        return f"below {self.least_flops} flops its preparation does not pay"

    def accumulates(self, problem: Conv2dProblem) -> bool:
        p = problem
        return (p.kh, p.kw, p.sh, p.sw, p.ph, p.pw, p.g) == (1, 1, 1, 1, 0, 0, 1)


class DepthwiseKernel(ConvKernel):
    fuses = ACTIVATIONS

    def refuse_geometry(self, problem: Problem) -> list[str]:
        if problem.depthwise:
            return []
        return [f"needs one input channel a group and several groups, the problem has ic{problem.ic} g{problem.g}"]

"""The compiled CPU kernels of pooling: plans that call them on raw addresses."""

from __future__ import annotations

import ctypes
from math import prod

import torch
from torch import Tensor

from ... import threads
from ...problem import Pool2dProblem, Problem
from ...shapes import dense, dense_strides
from .. import allocation
from ..base import DTYPES, Context, Launch, Plan
from . import loader, structs
from .kernels import ExtensionKernel, in_layout

_CHANNELS_LAST = torch.channels_last


def pool_struct(problem: Pool2dProblem) -> structs.Pool2d:
    """The problem; adaptive windows of one size and step are written as the ordinary windows that they are."""
    fields = {name: getattr(problem, name) for name in structs.Pool2d.integers if name != "c"}
    fields["c"] = problem.ic
    if problem.adaptive and problem.ih % problem.oh == 0 and problem.iw % problem.ow == 0:
        height, width = problem.ih // problem.oh, problem.iw // problem.ow
        fields.update(adaptive=0, kh=height, kw=width, sh=height, sw=width)
    return structs.pool2d_struct(
        fields, dense_strides(problem.input_shape, problem.layout), dense_strides(problem.output_shape, problem.layout)
    )


class PoolKernel(ExtensionKernel):
    def struct(self, problem: Problem) -> structs.Pool2d:
        return pool_struct(problem)

    def plan(self, problem: Problem, context: Context) -> Plan:
        struct = pool_struct(problem)
        address = ctypes.addressof(struct)
        if problem.op in ("max_pool2d", "avg_pool2d"):
            return self._forward(problem, context, struct, address)
        return getattr(self, f"_{problem.op}")(problem, self.runner(problem, context), struct, address)

    def launch(
        self, problem: Problem, context: Context, weight: Tensor | None = None, accumulate: bool = False
    ) -> Launch | None:
        if problem.op not in ("max_pool2d", "avg_pool2d") or problem.indices or accumulate:
            return None
        struct = pool_struct(problem)
        return self.launch_at(ctypes.addressof(struct), problem, context, None, struct)

    def _forward(self, problem, context, struct, address) -> Plan:
        shape, layout, nchw = problem.output_shape, problem.layout, problem.layout == "nchw"
        steps = dense_strides(shape, layout)
        is_max, with_indices = problem.op == "max_pool2d", problem.indices
        call, handle, thread_count = loader.load().run, self.handle(problem, context), context.threads
        workspace_bytes, dtype = self.workspace_bytes(problem, context), DTYPES[problem.dtype]
        large_output = allocation.large(prod(shape) * problem.itemsize)
        large_indices = with_indices and allocation.large(prod(shape) * torch.int64.itemsize)

        # in_layout, allocate and run stand here in full, as in conv2d.
        def pool2d(input: Tensor, _keep=struct) -> Tensor | tuple[Tensor, Tensor | None]:
            if not (input.is_contiguous() if nchw else input.is_contiguous(memory_format=_CHANNELS_LAST)):
                input = dense(input, layout)
            output = allocation.empty_strided(shape, steps, dtype)
            indices = allocation.empty_strided(shape, steps, torch.int64) if with_indices else None
            place, _memory = allocation.workspace(workspace_bytes) if workspace_bytes else (0, None)
            if large_output:
                allocation.on_large_pages(output)
            if large_indices:
                allocation.on_large_pages(indices)
            code = call(
                handle, address, input.data_ptr(), 0, output.data_ptr(), 0 if indices is None else indices.data_ptr(),
                place, thread_count, 0,
            )  # fmt: skip
            if code:
                threads.check(code)
            return (output, indices) if is_max else output

        return pool2d

    def _max_pool2d_scatter(self, problem, run, struct, address) -> Plan:
        shape, layout = problem.input_shape, problem.layout
        allocate = allocation.allocator(shape, layout, DTYPES[problem.dtype])

        def max_pool2d_scatter(grad_output: Tensor, indices: Tensor, _keep=struct) -> Tensor:
            grad_output, indices = in_layout(grad_output, layout), in_layout(indices, layout)
            grad_input = allocate(grad_output)
            run(address, grad_input.data_ptr(), 0, grad_output.data_ptr(), indices.data_ptr(), 0)
            return grad_input

        return max_pool2d_scatter

    def _max_pool2d_gather(self, problem, run, struct, address) -> Plan:
        shape, layout = problem.output_shape, problem.layout
        allocate = allocation.allocator(shape, layout, DTYPES[problem.dtype])

        def max_pool2d_gather(input: Tensor, indices: Tensor, _keep=struct) -> Tensor:
            input, indices = in_layout(input, layout), in_layout(indices, layout)
            output = allocate(input)
            run(address, input.data_ptr(), 0, output.data_ptr(), indices.data_ptr(), 0)
            return output

        return max_pool2d_gather

    def _avg_pool2d_grad_input(self, problem, run, struct, address) -> Plan:
        shape, layout = problem.input_shape, problem.layout
        allocate = allocation.allocator(shape, layout, DTYPES[problem.dtype])

        def avg_pool2d_grad_input(grad_output: Tensor, _keep=struct) -> Tensor:
            grad_output = in_layout(grad_output, layout)
            grad_input = allocate(grad_output)
            run(address, grad_input.data_ptr(), 0, grad_output.data_ptr(), 0, 0)
            return grad_input

        return avg_pool2d_grad_input

"""The kernel of untied convolution, whose loops are ``local.py``, and its plans."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from ...problem import Conv2dProblem
from ...shapes import dense
from ..allocation import allocator
from ..base import DTYPES, Context, Plan
from . import conv_fields
from .compiler import compiled
from .kernels import WORK_PER_THREAD, NumbaKernel, address_of, line, template


class LocalKernel(NumbaKernel):
    """A filter of its own at every output position; the weight is contiguous."""

    # What a pattern meets depends on where it stands.
    shift_exact = False
    # Elements of windows that share the second-level cache with the filters of a position.
    window_elements = 16 << 10

    def slabs(self, problem: Conv2dProblem, context: Context, fields: list[int]) -> int:
        """How many shares of the work there are; their sizes become fields."""
        p = problem
        threads = max(1, min(context.threads, p.flops() // (2 * WORK_PER_THREAD)))
        pitch = line(p.ic // p.g * p.kh * p.kw)
        held = p.n if p.pass_name == "grad_weight" else min(p.n, max(1, self.window_elements // pitch))
        bands = min(p.ih, -(-threads // p.g))
        slabs = min(threads, p.g * bands if p.pass_name == "grad_input" else p.g * p.oh * p.ow)
        sizes = {"SLABS": slabs, "BLOCK": held, "PITCH": pitch, "SLAB_SIZE": held * pitch, "BANDS": bands}
        for name, size in sizes.items():
            fields[getattr(conv_fields, name)] = size
        return slabs

    def wide_plan(self, problem: Conv2dProblem, context: Context) -> Plan:
        function = compiled("local", problem.op, problem.dtype)
        fields = template(conv_fields, problem)
        slabs = self.slabs(problem, context, fields)
        layout, element, shape = problem.layout, DTYPES[problem.dtype], problem.result_shape
        kind, first_address = ctypes.c_int64 * conv_fields.COUNT, conv_fields.X
        scratch = slabs * fields[conv_fields.SLAB_SIZE]

        def run(x: Tensor, w: Tensor, y: Tensor, bias: Tensor | None = None) -> None:
            workspace = torch.empty(scratch, dtype=element)
            values = kind(*fields)
            values[first_address : first_address + 5] = [
                x.data_ptr(), w.data_ptr(), y.data_ptr(), address_of(bias), workspace.data_ptr()
            ]  # fmt: skip
            function.run(slabs, 1, ctypes.addressof(values))

        if problem.pass_name == "grad_weight":

            def local_conv2d_grad_weight(grad_output: Tensor, input: Tensor) -> Tensor:
                grad_weight = torch.empty(shape, dtype=element)
                run(dense(input, layout), grad_weight, dense(grad_output, layout))
                return grad_weight

            return local_conv2d_grad_weight
        allocate = allocator(shape, layout, element)

        def local_conv2d(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            output = allocate(input)
            bias = bias if bias is None else bias.contiguous()
            run(dense(input, layout), weight.contiguous(), output, bias)
            return output

        def local_conv2d_grad_input(grad_output: Tensor, weight: Tensor) -> Tensor:
            grad_input = allocate(grad_output)
            run(grad_input, weight.contiguous(), dense(grad_output, layout))
            return grad_input

        return local_conv2d if problem.pass_name == "forward" else local_conv2d_grad_input

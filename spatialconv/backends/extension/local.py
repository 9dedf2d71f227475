"""The kernel of untied convolution: a filter of its own at every output position, and the plans of its three passes."""

from __future__ import annotations

import ctypes

from torch import Tensor

from ...problem import LOCAL_OPS, Conv2dProblem, Problem
from ...shapes import dense_strides
from ..allocation import allocator
from ..base import DTYPES, Context, Plan
from . import structs
from .kernels import ExtensionKernel, in_layout


class LocalKernel(ExtensionKernel):
    """Reads or writes the weight, which is contiguous, once from front to back."""

    # What a pattern meets depends on where it stands.
    shift_exact = False

    def __init__(self) -> None:
        super().__init__("local", tuple(LOCAL_OPS))

    def struct(self, problem: Conv2dProblem) -> structs.Conv2d:
        fields = {name: getattr(problem, name) for name in structs.Conv2d.integers if hasattr(problem, name)}
        x, y = dense_strides(problem.input_shape, problem.layout), dense_strides(problem.output_shape, problem.layout)
        filter_steps = dense_strides(problem.weight_shape[2:], "nchw")
        return structs.conv2d_struct(fields | {"activation": 0, "accumulate": 0}, x, filter_steps, y)

    def plan(self, problem: Problem, context: Context) -> Plan:
        struct, run, layout = self.struct(problem), self.runner(problem, context), problem.layout
        address, element = ctypes.addressof(struct), DTYPES[problem.dtype]
        shape = problem.result_shape
        if problem.pass_name == "grad_weight":
            rows = allocator((shape[0] * shape[1], *shape[2:4], shape[4] * shape[5]), "nchw", element)

            def local_conv2d_grad_weight(grad_output: Tensor, input: Tensor, _keep=struct) -> Tensor:
                grad_output, input = in_layout(grad_output, layout), in_layout(input, layout)
                grad_weight = rows(input)
                run(address, input.data_ptr(), grad_weight.data_ptr(), grad_output.data_ptr(), 0, 0)
                return grad_weight.view(shape)

            return local_conv2d_grad_weight
        allocate = allocator(shape, layout, element)

        def local_conv2d(input: Tensor, weight: Tensor, bias: Tensor | None, _keep=struct) -> Tensor:
            input, weight = in_layout(input, layout), weight.contiguous()
            bias = None if bias is None else bias.contiguous()
            output = allocate(input)
            aux = 0 if bias is None else bias.data_ptr()
            run(address, input.data_ptr(), weight.data_ptr(), output.data_ptr(), aux, 0)
            return output

        def local_conv2d_grad_input(grad_output: Tensor, weight: Tensor, _keep=struct) -> Tensor:
            grad_output, weight = in_layout(grad_output, layout), weight.contiguous()
            grad_input = allocate(grad_output)
            run(address, grad_input.data_ptr(), weight.data_ptr(), grad_output.data_ptr(), 0, 0)
            return grad_input

        return local_conv2d if problem.pass_name == "forward" else local_conv2d_grad_input

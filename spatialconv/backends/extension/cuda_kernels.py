"""The compiled CUDA kernels: which problems each takes, and plans that enqueue them on torch's current stream.

As on a CPU, operands that are not dense in the problem's layout are copied into it and a weight is read as it lies.
Memory comes from torch's caching allocator, whose reuse follows the stream, so nothing here waits for the device and a
plan can be captured into a CUDA graph.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from ...problem import CONV_OPS, POOL_OPS, Conv2dProblem, Pool2dProblem, Problem
from ...shapes import dense_strides
from ..base import Context, Kernel, Plan, common_refusals
from . import cuda_loader
from .cuda_reach import refuse_coordinates, refuse_reach
from .kernels import WORKSPACE_LIMIT, as_it_lies, conv_structs, in_layout
from .pooling import pool_struct

# Copies of 16 bytes, which the tensor cores are fed by, need addresses that are a multiple of that.
_VECTOR_BYTES = 16
# A step of a wgmma kernel's sum is so many channels wide, and may not straddle two groups.
_WGMMA_STEP = 64
# It launches once for every four phases of grad_input, each with copies of its own to be described.
_WGMMA_PHASES = 16


@cache
def handles(module: ModuleType) -> dict[tuple[str, str, str], int]:
    """Address of every compiled kernel of a module by (op, kernel, dtype)."""
    return {(op, name, dtype): handle for op, name, dtype, _, handle in module.kernels()}


def capability(isa: str) -> int:
    """The number in an architecture's name, 90 for 'sm_90'; 0 where there is no device."""
    digits = isa.removeprefix("sm_")
    return int(digits) if digits.isdigit() else 0


def on_vectors(tensor: Tensor) -> Tensor:
    """The tensor itself where it begins on a vector of 16 bytes, else a copy, which does."""
    return tensor if tensor.data_ptr() % _VECTOR_BYTES == 0 else tensor.clone()


class CudaKernel(Kernel):
    """A compiled CUDA kernel; subclasses bind it to a kind of problem.

    ``only_hopper``: made of instructions that sm_90 alone has. ``vectors``: operands have to begin on 16 bytes.
    """

    backend = "extension"
    devices = ("cuda",)
    shift_exact = True
    only_hopper = False
    vectors = False

    def __init__(
        self, name: str, ops: tuple[str, ...], dtypes: tuple[str, ...] = ("f32", "f64", "bf16", "f16")
    ) -> None:
        self.name = name
        self.ops = ops
        self.dtypes = dtypes

    def refusals(self, problem: Problem, context: Context) -> list[str]:
        reasons = common_refusals(problem, self, context, "cuda", self.dtypes)
        if problem.device != "cuda":
            return reasons
        if missing := cuda_loader.unavailable():
            return [*reasons, missing]
        reasons += self.refuse_architecture(context)
        return reasons or self.refuse_workspace(problem)

    def refuse_architecture(self, context: Context) -> list[str]:
        found = capability(context.isa)
        if self.only_hopper and found != 90:
            return [f"runs on sm_90 alone, the device is {context.isa or 'unknown'}"]
        if found < 80:
            return [f"runs on sm_80 and later, the device is {context.isa or 'unknown'}"]
        return []

    def refuse_workspace(self, problem: Problem) -> list[str]:
        if problem.empty:
            return []
        index = torch.cuda.current_device() if torch.cuda.is_available() else 0
        size = self.workspace_bytes(problem, cuda_loader.multiprocessors(index))
        limit = WORKSPACE_LIMIT + 8 * problem.compulsory_bytes
        if size < 0:
            return ["cannot address this geometry with its copy instructions"]
        if size <= limit:
            return []
        return [f"would need a workspace of {size} bytes for this geometry, the limit is {limit}"]

    def struct(self, problem: Problem) -> ctypes.Structure:
        """The problem as the compiled kernel reads it."""
        raise NotImplementedError

    def handle(self, problem: Problem) -> int:
        return handles(cuda_loader.load())[problem.op, self.name, problem.dtype]

    def workspace_bytes(self, problem: Problem, multiprocessors: int) -> int:
        struct = self.struct(problem)
        return cuda_loader.load().workspace_bytes(self.handle(problem), ctypes.addressof(struct), multiprocessors)

    def launcher(self, problem: Problem) -> Callable[..., None]:
        """``launch(struct, x, w, y, aux)``: enqueues the kernel where ``y`` is, with a workspace of this call alone."""
        module, handle = cuda_loader.load(), self.handle(problem)
        full_name, stream_of = self.full_name, cuda_loader.stream_of

        @cache
        def sizes(index: int) -> tuple[int, int]:
            multiprocessors = cuda_loader.multiprocessors(index)
            return multiprocessors, self.workspace_bytes(problem, multiprocessors)

        def launch(struct: ctypes.Structure, x: Tensor, w: Tensor | None, y: Tensor, aux: Tensor | None) -> None:
            index, stream = stream_of(y)
            multiprocessors, workspace_bytes = sizes(index)
            workspace = torch.empty(workspace_bytes, dtype=torch.uint8, device=y.device) if workspace_bytes else None
            code = module.run(
                handle, ctypes.addressof(struct), x.data_ptr(), 0 if w is None else w.data_ptr(), y.data_ptr(),
                0 if aux is None else aux.data_ptr(), 0 if workspace is None else workspace.data_ptr(),
                multiprocessors, index, stream,
            )  # fmt: skip
            if code:
                raise RuntimeError(f"spatialconv: {full_name}: CUDA error {code}: {module.error_text(code)}")

        return launch


class CudaConv(CudaKernel):
    def struct(self, problem: Conv2dProblem) -> ctypes.Structure:
        return conv_structs(problem)[0]

    def plan(self, problem: Conv2dProblem, context: Context) -> Plan:
        return getattr(self, f"_{problem.op}")(problem, self.launcher(problem), *conv_structs(problem))

    def operand(self, tensor: Tensor, layout: str) -> Tensor:
        tensor = in_layout(tensor, layout)
        return on_vectors(tensor) if self.vectors else tensor

    def weight(self, weight: Tensor, plain, channels_last) -> tuple[Tensor, ctypes.Structure]:
        weight, struct = as_it_lies(weight, plain, channels_last)
        return on_vectors(weight) if self.vectors else weight, struct

    def _conv2d(self, problem, launch, plain, channels_last) -> Plan:
        shape, layout = problem.output_shape, problem.layout
        steps = dense_strides(shape, layout)

        def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            input, (weight, struct) = self.operand(input, layout), self.weight(weight, plain, channels_last)
            output = input.new_empty_strided(shape, steps)
            launch(struct, input, weight, output, None if bias is None else bias.contiguous())
            return output

        return conv2d

    def _conv2d_grad_input(self, problem, launch, plain, channels_last) -> Plan:
        shape, layout = problem.input_shape, problem.layout
        steps = dense_strides(shape, layout)

        def conv2d_grad_input(grad_output: Tensor, weight: Tensor) -> Tensor:
            grad_output, (weight, struct) = self.operand(grad_output, layout), self.weight(weight, plain, channels_last)
            grad_input = grad_output.new_empty_strided(shape, steps)
            launch(struct, grad_input, weight, grad_output, None)
            return grad_input

        return conv2d_grad_input

    def _conv2d_grad_weight(self, problem, launch, plain, channels_last) -> Plan:
        shape, layout = problem.weight_shape, problem.layout
        steps = dense_strides(shape, layout)
        struct = channels_last if layout == "nhwc" else plain

        def conv2d_grad_weight(grad_output: Tensor, input: Tensor) -> Tensor:
            grad_output, input = self.operand(grad_output, layout), self.operand(input, layout)
            grad_weight = input.new_empty_strided(shape, steps)
            launch(struct, input, grad_weight, grad_output, None)
            return grad_weight

        return conv2d_grad_weight


class CudaDepthwise(CudaConv):
    def refuse_geometry(self, problem: Problem) -> list[str]:
        if problem.depthwise:
            return []
        return [f"needs one input channel a group and several groups, the problem has ic{problem.ic} g{problem.g}"]


class CudaMma(CudaConv):
    """Tensor cores fed by copies of 16 bytes; what does not lie in such vectors is packed into the workspace first."""

    vectors = True

    def __init__(self, name: str, ops: tuple[str, ...], dtypes: tuple[str, ...], tier: str = "ieee") -> None:
        super().__init__(name, ops, dtypes)
        self.tier = tier

    def refuse_geometry(self, problem: Conv2dProblem) -> list[str]:
        reasons = []
        step = _VECTOR_BYTES // problem.itemsize
        inputs, outputs = problem.ic // problem.g, problem.oc // problem.g
        if problem.g > 1 and min(inputs, outputs) < step:
            reasons.append(f"needs at least {step} channels a group, the problem has {inputs} in and {outputs} out")
        return reasons + refuse_coordinates(problem)


class CudaWgmma(CudaMma):
    """Hopper's warpgroup instructions, fed by its copy engine, which reads whole vectors of channels where they lie."""

    only_hopper = True

    def refuse_geometry(self, problem: Conv2dProblem) -> list[str]:
        reasons = []
        if problem.layout != "nhwc":
            reasons.append(f"reads and writes channels_last tensors, the problem is {problem.layout}")
        inputs, outputs = problem.ic // problem.g, problem.oc // problem.g
        step = _VECTOR_BYTES // 2
        if inputs % step:
            reasons.append(f"needs input channels of a group in multiples of {step}, the problem has {inputs}")
        if problem.op != "conv2d" and problem.oc % step:
            reasons.append(f"needs output channels in multiples of {step}, the problem has {problem.oc}")
        summed = {"conv2d": (inputs,), "conv2d_grad_input": (outputs,), "conv2d_grad_weight": (inputs, outputs)}
        if problem.g > 1 and any(channels % _WGMMA_STEP for channels in summed[problem.op]):
            reasons.append(f"needs channels of several groups in multiples of {_WGMMA_STEP}, got {inputs} to {outputs}")
        phases = min(problem.sh, problem.ih) * min(problem.sw, problem.iw)
        if problem.op == "conv2d_grad_input" and phases > _WGMMA_PHASES:
            reasons.append(f"takes at most {_WGMMA_PHASES} phases of a stride, the problem has {phases}")
        return reasons + refuse_reach(problem)


class CudaPool(CudaKernel):
    def struct(self, problem: Pool2dProblem) -> ctypes.Structure:
        return pool_struct(problem)

    def plan(self, problem: Pool2dProblem, context: Context) -> Plan:
        return getattr(self, f"_{problem.op}")(problem, self.launcher(problem), pool_struct(problem))

    def _max_pool2d(self, problem, launch, struct) -> Plan:
        shape, layout = problem.output_shape, problem.layout
        steps = dense_strides(shape, layout)
        kept = torch.uint8 if problem.offsets else torch.int64 if problem.indices else None

        def max_pool2d(input: Tensor) -> tuple[Tensor, Tensor | None]:
            input = in_layout(input, layout)
            values = input.new_empty_strided(shape, steps)
            places = None if kept is None else input.new_empty_strided(shape, steps, dtype=kept)
            launch(struct, input, None, values, places)
            return values, places

        return max_pool2d

    def _max_pool2d_scatter(self, problem, launch, struct) -> Plan:
        shape, layout = problem.input_shape, problem.layout
        steps = dense_strides(shape, layout)

        def max_pool2d_scatter(grad_output: Tensor, indices: Tensor) -> Tensor:
            grad_output, indices = in_layout(grad_output, layout), in_layout(indices, layout)
            grad_input = grad_output.new_empty_strided(shape, steps)
            launch(struct, grad_input, None, grad_output, indices)
            return grad_input

        return max_pool2d_scatter

    def _max_pool2d_gather(self, problem, launch, struct) -> Plan:
        shape, layout = problem.output_shape, problem.layout
        steps = dense_strides(shape, layout)

        def max_pool2d_gather(input: Tensor, indices: Tensor) -> Tensor:
            input, indices = in_layout(input, layout), in_layout(indices, layout)
            output = input.new_empty_strided(shape, steps)
            launch(struct, input, None, output, indices)
            return output

        return max_pool2d_gather

    def _avg_pool2d(self, problem, launch, struct) -> Plan:
        shape, layout = problem.output_shape, problem.layout
        steps = dense_strides(shape, layout)

        def avg_pool2d(input: Tensor) -> Tensor:
            input = in_layout(input, layout)
            output = input.new_empty_strided(shape, steps)
            launch(struct, input, None, output, None)
            return output

        return avg_pool2d

    def _avg_pool2d_grad_input(self, problem, launch, struct) -> Plan:
        shape, layout = problem.input_shape, problem.layout
        steps = dense_strides(shape, layout)

        def avg_pool2d_grad_input(grad_output: Tensor) -> Tensor:
            grad_output = in_layout(grad_output, layout)
            grad_input = grad_output.new_empty_strided(shape, steps)
            launch(struct, grad_input, None, grad_output, None)
            return grad_input

        return avg_pool2d_grad_input


KERNELS = (
    CudaDepthwise("cuda_depthwise", tuple(CONV_OPS)),
    CudaWgmma("cuda_wgmma", tuple(CONV_OPS), ("bf16", "f16")),
    CudaMma("cuda_mma", tuple(CONV_OPS), ("bf16", "f16")),
    CudaMma("cuda_mma_tf32", tuple(CONV_OPS), ("f32",), "tf32"),
    CudaConv("cuda_simt", tuple(CONV_OPS)),
    CudaPool("cuda_windows", tuple(POOL_OPS)),
)

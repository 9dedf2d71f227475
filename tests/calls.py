"""Calls of the public functions and of the ops, with torch's own counterpart: what the integration tests run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

import spatialconv

BACKENDS = ("extension", "reference")


def sample(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64, layout: str = "nchw") -> Tensor:
    """Distinct values about 0, at least 1/size apart, so that no finite difference crosses a maximum."""
    generator = torch.Generator().manual_seed(seed)
    count = max(int(torch.Size(shape).numel()), 1)
    values = (torch.randperm(count, generator=generator).double() - count / 2) * (4 / count) + 0.01
    tensor = values[: torch.Size(shape).numel()].reshape(shape).to(dtype)
    if dtype.is_complex:
        tensor = tensor + 1j * tensor.flip(0)
    return tensor.contiguous(memory_format=torch.channels_last) if layout == "nhwc" and len(shape) == 4 else tensor


@dataclass(frozen=True)
class Call:
    """One call of a public function: the shapes of its tensors and its other arguments by name."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    options: dict = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}-{'-'.join('x'.join(map(str, shape)) for shape in self.shapes)}-{options}".replace(" ", "")

    def tensors(self, dtype=torch.float64, layout="nchw", requires_grad=False) -> list[Tensor]:
        made = [sample(shape, seed, dtype, layout) for seed, shape in enumerate(self.shapes)]
        return [tensor.requires_grad_(requires_grad) for tensor in made]

    def ours(self, *tensors: Tensor, backend: str | None = None):
        return getattr(spatialconv, self.name)(*tensors, **self.options, backend=backend)

    def theirs(self, *tensors: Tensor):
        return (
            untied(*tensors, **self.options)
            if self.name == "local_conv2d"
            else getattr(F, self.name)(*tensors, **self.options)
        )


def untied(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, dilation=1, groups=1):
    """What torch has no op for, as its users write it: windows copied out, and a matrix product at every position."""
    if input.dim() == 3:
        return untied(input[None], weight, bias, stride, padding, dilation, groups)[0]
    n, (oh, ow, oc), (kh, kw) = input.shape[0], weight.shape[:3], weight.shape[4:]
    if padding == "same":
        reach = [step * (size - 1) for step, size in zip((dilation, dilation), (kh, kw), strict=True)]
        input, padding = F.pad(input, [half for r in reversed(reach) for half in (r // 2, r - r // 2)]), 0
    columns = F.unfold(input, (kh, kw), dilation, padding, stride).unflatten(1, (groups, -1))
    filters = weight.reshape(oh * ow, groups, oc // groups, -1)
    output = torch.einsum("ngkp,pgok->ngop", columns, filters).reshape(n, oc, oh, ow)
    return output if bias is None else output + bias.permute(2, 0, 1).to(output.dtype)


CONVOLUTIONS = [
    Call("conv2d", ((2, 4, 6, 5), (6, 4, 3, 2), (6,)), {"padding": (1, 0)}),
    Call("conv2d", ((2, 4, 7, 6), (6, 2, 3, 3), (6,)), {"stride": 2, "padding": (1, 2), "groups": 2}),
    Call("conv2d", ((1, 4, 7, 8), (8, 1, 3, 3)), {"stride": (2, 1), "padding": 2, "dilation": 2, "groups": 4}),
    Call("conv2d", ((3, 2, 5, 5), (3, 2, 1, 1)), {"stride": 2}),
    Call("conv2d", ((2, 3, 5, 6), (2, 3, 2, 4), (2,)), {"padding": "same", "dilation": (1, 2)}),
    Call("conv2d", ((3, 5, 4), (2, 3, 2, 2), (2,)), {"padding": "valid"}),
]
TRANSPOSED = [
    Call("conv_transpose2d", ((2, 4, 3, 4), (4, 3, 3, 2), (3,)), {"stride": 2, "padding": 1, "output_padding": (1, 0)}),
    Call("conv_transpose2d", ((1, 4, 4, 3), (4, 2, 2, 3), (4,)), {"groups": 2, "dilation": (2, 1), "padding": 1}),
    Call("conv_transpose2d", ((2, 3, 4), (2, 2, 4, 1)), {"stride": (3, 1)}),
]
POOLS = [
    Call("max_pool2d", ((2, 3, 7, 6),), {"kernel_size": (3, 2), "stride": 2, "padding": 1}),
    Call("max_pool2d", ((1, 2, 8, 7),), {"kernel_size": 2, "dilation": (2, 1), "stride": 3, "ceil_mode": True}),
    Call("max_pool2d", ((2, 6, 6),), {"kernel_size": 2}),
    Call("avg_pool2d", ((2, 3, 7, 6),), {"kernel_size": (3, 2), "stride": 2, "padding": 1, "count_include_pad": False}),
    Call("avg_pool2d", ((1, 2, 8, 7),), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    Call("avg_pool2d", ((2, 6, 6),), {"kernel_size": 2, "divisor_override": 3}),
    Call("adaptive_max_pool2d", ((2, 3, 7, 6),), {"output_size": (3, 4)}),
    Call("adaptive_avg_pool2d", ((2, 3, 7, 6),), {"output_size": (3, None)}),
    Call("adaptive_avg_pool2d", ((2, 6, 6),), {"output_size": 1}),
]
UNTIED = [
    Call("local_conv2d", ((2, 4, 5, 6), (3, 3, 6, 2, 3, 3), (3, 3, 6)), {"stride": 2, "padding": 1, "groups": 2}),
    Call("local_conv2d", ((1, 2, 5, 4), (4, 3, 3, 2, 2, 2), (4, 3, 3)), {}),
    Call("local_conv2d", ((3, 4, 5), (4, 5, 2, 3, 2, 3)), {"padding": "same", "dilation": 2}),
]
CALLS = [*CONVOLUTIONS, *TRANSPOSED, *POOLS, *UNTIED]
# One call of each kind, for tests that are dear.
FEW = [CONVOLUTIONS[1], TRANSPOSED[0], POOLS[0], POOLS[4], POOLS[6], POOLS[7], UNTIED[0]]


@dataclass(frozen=True)
class OpCall:
    """One call of ``torch.ops.spatialconv``: its tensors, then the other arguments up to ``backend``."""

    name: str
    label: str
    make: Callable[..., list[Tensor]] = field(repr=False)
    rest: tuple

    def __str__(self) -> str:
        return f"{self.name}-{self.label}"

    @property
    def op(self):
        return getattr(torch.ops.spatialconv, self.name).default

    def tensors(self, dtype=torch.float64, layout="nchw", requires_grad=False) -> list[Tensor]:
        return [
            tensor.requires_grad_(requires_grad) if tensor.is_floating_point() or tensor.is_complex() else tensor
            for tensor in self.make(dtype, layout)
        ]

    @property
    def backends(self) -> tuple[str, ...]:
        """Who can run it on a CPU: window offsets are a GPU's way of remembering maxima."""
        return ("reference",) if self.label == "offsets" else BACKENDS

    def run(self, *tensors: Tensor, backend: str = "auto"):
        return self.op(*tensors, *self.rest, backend)


def _tensors(*shapes):
    return lambda dtype, layout: [sample(shape, seed, dtype, layout) for seed, shape in enumerate(shapes)]


def _indexed(first: str, shape, geometry, op="max_pool2d"):
    """Operands of scatter (``first`` is 'output') and gather ('input'), with the indices of a real pooling."""

    def make(dtype, layout):
        image = sample(shape, 0, dtype, layout)
        values, indices = getattr(torch.ops.spatialconv, op)(image, *geometry, "reference")
        return [sample(tuple(values.shape), 1, dtype, layout) if first == "output" else image, indices]

    return make


def conv_op_calls(label, image, filters, output, stride, padding, dilation, groups) -> list[OpCall]:
    geometry = (stride, padding, dilation, groups)
    return [
        OpCall("conv2d", label, _tensors(image, filters, filters[:1]), geometry),
        OpCall("conv2d_grad_input", label, _tensors(output, filters), (image[2:], *geometry)),
        OpCall("conv2d_grad_weight", label, _tensors(output, image), (filters[2:], *geometry)),
    ]


def local_op_calls(label, image, filters, output, stride, padding, dilation, groups) -> list[OpCall]:
    geometry, weight = (stride, padding, dilation, groups), (*output[2:], *filters)
    return [
        OpCall("local_conv2d", label, _tensors(image, weight, weight[:3]), geometry),
        OpCall("local_conv2d_grad_input", label, _tensors(output, weight), (image[2:], *geometry)),
        OpCall("local_conv2d_grad_weight", label, _tensors(output, image), (filters[2:], *geometry)),
    ]


def pool_op_calls(label, image, output, kernel, stride, padding, dilation, ceil, adaptive=()) -> list[OpCall]:
    largest = (kernel, stride, padding, dilation, ceil, list(adaptive))
    mean = (kernel, stride, padding, ceil, False, None, list(adaptive))
    return [
        OpCall("max_pool2d", label, _tensors(image), largest),
        OpCall("max_pool2d_scatter", label, _indexed("output", image, largest), (image[2:], *largest)),
        OpCall("max_pool2d_gather", label, _indexed("input", image, largest), largest),
        OpCall("avg_pool2d", label, _tensors(image), mean),
        OpCall("avg_pool2d_grad_input", label, _tensors(output), (image[2:], *mean)),
    ]


def offset_op_calls(label, image, kernel, stride, padding, dilation, ceil) -> list[OpCall]:
    """Max pooling that keeps uint8 window offsets in place of indices."""
    geometry, op = (kernel, stride, padding, dilation, ceil, []), "max_pool2d_offsets"
    return [
        OpCall(op, label, _tensors(image), geometry),
        OpCall("max_pool2d_scatter", label, _indexed("output", image, geometry, op), (image[2:], *geometry)),
        OpCall("max_pool2d_gather", label, _indexed("input", image, geometry, op), geometry),
    ]


ONE, NONE = (1, 1), (0, 0)
OP_CALLS = [
    *conv_op_calls("strided", (2, 4, 7, 6), (6, 2, 3, 3), (2, 6, 4, 4), (2, 2), (1, 2), ONE, 2),
    *conv_op_calls("four_sides", (1, 3, 5, 4), (2, 3, 2, 3), (1, 2, 6, 3), ONE, (2, 0, 0, 1), ONE, 1),
    *conv_op_calls("less_behind", (1, 2, 6, 6), (4, 1, 2, 2), (1, 4, 2, 3), (2, 2), (0, 1, -1, 0), (2, 1), 2),
    *pool_op_calls("strided", (2, 2, 6, 5), (2, 2, 3, 3), (3, 2), (2, 2), ONE, ONE, False),
    *offset_op_calls("offsets", (2, 2, 6, 5), (3, 2), (2, 2), ONE, (1, 2), True),
    *pool_op_calls("adaptive", (1, 2, 7, 5), (1, 2, 3, 2), ONE, ONE, NONE, ONE, False, (3, 2)),
]
# Dilated windows and a last window that reaches past the input; average pooling has no dilation.
OP_CALLS += pool_op_calls("ceil", (1, 2, 8, 7), (1, 2, 3, 3), (2, 3), (3, 2), (0, 1), (2, 1), True)[:3]
OP_CALLS += pool_op_calls("ceil", (1, 2, 8, 7), (1, 2, 3, 4), (3, 3), (3, 2), (1, 1), ONE, True)[3:]
OP_CALLS += local_op_calls("strided", (2, 4, 5, 6), (6, 2, 3, 3), (2, 6, 3, 4), (2, 2), (1, 2), ONE, 2)
OP_CALLS += local_op_calls("less_behind", (1, 2, 6, 6), (4, 1, 2, 2), (1, 4, 2, 3), (2, 2), (0, 1, -1, 0), (2, 1), 2)


def flat(result) -> tuple[Tensor, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def layout_of(tensor: Tensor) -> tuple[int, ...]:
    """The strides that matter: those of sizes above 1."""
    return tuple(stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1)


def assert_same(ours, theirs, **tolerance) -> None:
    """Values, dtypes and shapes of results, tuples included."""
    for left, right in zip(flat(ours), flat(theirs), strict=True):
        torch.testing.assert_close(left, right, **tolerance)

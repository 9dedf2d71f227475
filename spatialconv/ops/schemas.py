"""The ops: schema, problem and fake kernel of each, once for all backends.

``backend`` is the caller's request ('auto', 'extension', 'extension:gemm'); it is resolved inside the real kernel, and
neither the fake kernel nor the output's layout depends on it. ``padding`` has two entries, or four as (top, left,
bottom, right). ``adaptive_size`` empty means windows of kernel, stride, padding and dilation; with two entries it is
the output size of adaptive pooling and those are ignored. Where a maximum stands is an int64 index into its plane or,
from ``max_pool2d_offsets``, a uint8 offset into its window; scatter and gather tell by the dtype. The weight of a
``local_`` op is [oh, ow, oc, ic / groups, kh, kw], its bias [oh, ow, oc].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .. import dispatch
from ..shapes import memory_format, output_layout
from . import arguments as check

NAMESPACE = "spatialconv"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")

_CONV = "SymInt[2] stride, SymInt[] padding, SymInt[2] dilation, SymInt groups, str backend"
_MAX = (
    "SymInt[2] kernel_size, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, bool ceil_mode, "
    "SymInt[] adaptive_size, str backend"
)
_AVG = (
    "SymInt[2] kernel_size, SymInt[2] stride, SymInt[2] padding, bool ceil_mode, bool count_include_pad, "
    "SymInt? divisor_override, SymInt[] adaptive_size, str backend"
)
SCHEMAS = {
    "conv2d": f"(Tensor input, Tensor weight, Tensor? bias, {_CONV}, str? activation=None) -> Tensor",
    "conv2d_grad_input": f"(Tensor grad_output, Tensor weight, SymInt[2] input_size, {_CONV}) -> Tensor",
    "conv2d_grad_weight": f"(Tensor grad_output, Tensor input, SymInt[2] kernel_size, {_CONV}) -> Tensor",
    "local_conv2d": f"(Tensor input, Tensor weight, Tensor? bias, {_CONV}) -> Tensor",
    "local_conv2d_grad_input": f"(Tensor grad_output, Tensor weight, SymInt[2] input_size, {_CONV}) -> Tensor",
    "local_conv2d_grad_weight": f"(Tensor grad_output, Tensor input, SymInt[2] kernel_size, {_CONV}) -> Tensor",
    "max_pool2d": f"(Tensor input, {_MAX}) -> (Tensor values, Tensor indices)",
    "max_pool2d_offsets": f"(Tensor input, {_MAX}) -> (Tensor values, Tensor offsets)",
    "max_pool2d_scatter": f"(Tensor grad_output, Tensor indices, SymInt[2] input_size, {_MAX}) -> Tensor",
    "max_pool2d_gather": f"(Tensor input, Tensor indices, {_MAX}) -> Tensor",
    "avg_pool2d": f"(Tensor input, {_AVG}) -> Tensor",
    "avg_pool2d_grad_input": f"(Tensor grad_output, SymInt[2] input_size, {_AVG}) -> Tensor",
}
for _name, _schema in SCHEMAS.items():
    LIBRARY.define(_name + _schema, tags=(torch.Tag.pt2_compliant_tag,))

OPS: dict[str, torch._ops.OpOverload] = {name: getattr(getattr(torch.ops, NAMESPACE), name).default for name in SCHEMAS}


def _empty(shape, tensor: Tensor, layout: str, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(shape, dtype=dtype or tensor.dtype, device=tensor.device, memory_format=memory_format(layout))


# By op: from the op's arguments to its problem and the operands of its plan, every argument checked.
PROBLEMS: dict[str, Callable] = {}


def problem(name: str) -> Callable:
    """Register an op's problem, and with it the kernel that computes: the plan of the kernel chosen for the problem."""

    request = [argument.name for argument in OPS[name]._schema.arguments].index("backend")

    def register(function: Callable) -> Callable:
        def real(*args):
            what, operands = function(*args)
            return dispatch.choose(what, args[request], index=operands[0].device.index).plan(*operands)

        PROBLEMS[name] = function
        LIBRARY.impl(name, real, "CompositeExplicitAutograd")
        return function

    return register


def fake(name: str) -> Callable:
    """Register the kernel that only knows shapes."""
    return torch.library.register_fake(f"{NAMESPACE}::{name}", lib=LIBRARY)


@problem("conv2d")
def _(input, weight, bias, stride, padding, dilation, groups, backend, activation=None):
    shape = check.check_conv2d("conv2d", input, weight, bias, stride, padding, dilation, groups)
    check.check_activation("conv2d", activation, input)
    what = check.conv2d_problem(
        "conv2d", input.shape, weight.shape, shape, stride, padding, dilation, groups, bias is not None, input, weight,
        activation=activation,
    )  # fmt: skip
    return what, (input, weight, bias)


@fake("conv2d")
def _(input, weight, bias, stride, padding, dilation, groups, backend, activation=None):
    shape = check.check_conv2d("conv2d", input, weight, bias, stride, padding, dilation, groups)
    check.check_activation("conv2d", activation, input)
    return _empty(shape, input, output_layout(input, weight))


@problem("conv2d_grad_input")
def _(grad_output, weight, input_size, stride, padding, dilation, groups, backend):
    name = "conv2d_grad_input"
    shape = check.check_conv2d_grad_input(name, grad_output, weight, input_size, stride, padding, dilation, groups)
    what = check.conv2d_problem(
        name, shape, weight.shape, grad_output.shape, stride, padding, dilation, groups, False, grad_output, weight
    )
    return what, (grad_output, weight)


@fake("conv2d_grad_input")
def _(grad_output, weight, input_size, stride, padding, dilation, groups, backend):
    name = "conv2d_grad_input"
    shape = check.check_conv2d_grad_input(name, grad_output, weight, input_size, stride, padding, dilation, groups)
    return _empty(shape, grad_output, output_layout(grad_output, weight))


@problem("conv2d_grad_weight")
def _(grad_output, input, kernel_size, stride, padding, dilation, groups, backend):
    name = "conv2d_grad_weight"
    shape = check.check_conv2d_grad_weight(name, grad_output, input, kernel_size, stride, padding, dilation, groups)
    what = check.conv2d_problem(
        name, input.shape, shape, grad_output.shape, stride, padding, dilation, groups, False, grad_output, input
    )
    return what, (grad_output, input)


@fake("conv2d_grad_weight")
def _(grad_output, input, kernel_size, stride, padding, dilation, groups, backend):
    name = "conv2d_grad_weight"
    shape = check.check_conv2d_grad_weight(name, grad_output, input, kernel_size, stride, padding, dilation, groups)
    return _empty(shape, grad_output, output_layout(grad_output, input))


@problem("local_conv2d")
def _(input, weight, bias, stride, padding, dilation, groups, backend):
    name = "local_conv2d"
    shape = check.check_local_conv2d(name, input, weight, bias, stride, padding, dilation, groups)
    what = check.conv2d_problem(
        name, input.shape, weight.shape, shape, stride, padding, dilation, groups, bias is not None, input
    )
    return what, (input, weight, bias)


@fake("local_conv2d")
def _(input, weight, bias, stride, padding, dilation, groups, backend):
    shape = check.check_local_conv2d("local_conv2d", input, weight, bias, stride, padding, dilation, groups)
    return _empty(shape, input, output_layout(input))


@problem("local_conv2d_grad_input")
def _(grad_output, weight, input_size, stride, padding, dilation, groups, backend):
    name, geometry = "local_conv2d_grad_input", (stride, padding, dilation, groups)
    shape = check.check_local_conv2d_grad_input(name, grad_output, weight, input_size, *geometry)
    what = check.conv2d_problem(name, shape, weight.shape, grad_output.shape, *geometry, False, grad_output)
    return what, (grad_output, weight)


@fake("local_conv2d_grad_input")
def _(grad_output, weight, input_size, stride, padding, dilation, groups, backend):
    name, geometry = "local_conv2d_grad_input", (stride, padding, dilation, groups)
    shape = check.check_local_conv2d_grad_input(name, grad_output, weight, input_size, *geometry)
    return _empty(shape, grad_output, output_layout(grad_output))


@problem("local_conv2d_grad_weight")
def _(grad_output, input, kernel_size, stride, padding, dilation, groups, backend):
    name, geometry = "local_conv2d_grad_weight", (stride, padding, dilation, groups)
    shape = check.check_local_conv2d_grad_weight(name, grad_output, input, kernel_size, *geometry)
    what = check.conv2d_problem(name, input.shape, shape, grad_output.shape, *geometry, False, grad_output, input)
    return what, (grad_output, input)


@fake("local_conv2d_grad_weight")
def _(grad_output, input, kernel_size, stride, padding, dilation, groups, backend):
    name, geometry = "local_conv2d_grad_weight", (stride, padding, dilation, groups)
    shape = check.check_local_conv2d_grad_weight(name, grad_output, input, kernel_size, *geometry)
    return _empty(shape, grad_output, "nchw")


@problem("max_pool2d")
def _(input, kernel_size, stride, padding, dilation, ceil_mode, adaptive_size, backend):
    geometry = (kernel_size, stride, padding, dilation, ceil_mode, adaptive_size)
    shape = check.check_pool2d("max_pool2d", input, *geometry)
    what = check.pool2d_problem("max_pool2d", input.shape, shape[2:], *geometry, input, indices=True)
    return what, (input,)


@fake("max_pool2d")
def _(input, kernel_size, stride, padding, dilation, ceil_mode, adaptive_size, backend):
    shape = check.check_pool2d("max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode, adaptive_size)
    layout = output_layout(input)
    return _empty(shape, input, layout), _empty(shape, input, layout, torch.int64)


@problem("max_pool2d_offsets")
def _(input, kernel_size, stride, padding, dilation, ceil_mode, adaptive_size, backend):
    geometry = (kernel_size, stride, padding, dilation, ceil_mode, adaptive_size)
    shape = check.check_pool2d("max_pool2d_offsets", input, *geometry)
    check.check_offsets("max_pool2d_offsets", kernel_size, adaptive_size)
    what = check.pool2d_problem("max_pool2d", input.shape, shape[2:], *geometry, input, offsets=True)
    return what, (input,)


@fake("max_pool2d_offsets")
def _(input, kernel_size, stride, padding, dilation, ceil_mode, adaptive_size, backend):
    geometry = (kernel_size, stride, padding, dilation, ceil_mode, adaptive_size)
    shape = check.check_pool2d("max_pool2d_offsets", input, *geometry)
    check.check_offsets("max_pool2d_offsets", kernel_size, adaptive_size)
    layout = output_layout(input)
    return _empty(shape, input, layout), _empty(shape, input, layout, torch.uint8)


@problem("max_pool2d_scatter")
def _(grad_output, indices, input_size, kernel_size, stride, padding, dilation, ceil_mode, adaptive_size, backend):
    name, geometry = "max_pool2d_scatter", (kernel_size, stride, padding, dilation, ceil_mode, adaptive_size)
    check.check_tensors(name, grad_output=grad_output, indices=indices)
    shape = check.check_pool2d_adjoint(name, grad_output, input_size, *geometry)
    offsets = check.check_indices(name, "grad_output", grad_output, indices, kernel_size, adaptive_size)
    what = check.pool2d_problem(name, shape, grad_output.shape[2:], *geometry, grad_output, offsets=offsets)
    return what, (grad_output, indices)


@fake("max_pool2d_scatter")
def _(grad_output, indices, input_size, kernel_size, stride, padding, dilation, ceil_mode, adaptive_size, backend):
    name, geometry = "max_pool2d_scatter", (kernel_size, stride, padding, dilation, ceil_mode, adaptive_size)
    check.check_tensors(name, grad_output=grad_output, indices=indices)
    shape = check.check_pool2d_adjoint(name, grad_output, input_size, *geometry)
    check.check_indices(name, "grad_output", grad_output, indices, kernel_size, adaptive_size)
    return _empty(shape, grad_output, output_layout(grad_output))


@problem("max_pool2d_gather")
def _(input, indices, kernel_size, stride, padding, dilation, ceil_mode, adaptive_size, backend):
    name, geometry = "max_pool2d_gather", (kernel_size, stride, padding, dilation, ceil_mode, adaptive_size)
    check.check_tensors(name, input=input, indices=indices)
    shape = check.check_pool2d(name, input, *geometry)
    pooled = torch.empty(shape, device="meta")
    offsets = check.check_indices(name, "the pooled input", pooled, indices, kernel_size, adaptive_size)
    what = check.pool2d_problem(name, input.shape, shape[2:], *geometry, input, offsets=offsets)
    return what, (input, indices)


@fake("max_pool2d_gather")
def _(input, indices, kernel_size, stride, padding, dilation, ceil_mode, adaptive_size, backend):
    name, geometry = "max_pool2d_gather", (kernel_size, stride, padding, dilation, ceil_mode, adaptive_size)
    check.check_tensors(name, input=input, indices=indices)
    shape = check.check_pool2d(name, input, *geometry)
    result = _empty(shape, input, output_layout(input))
    check.check_indices(name, "the pooled input", result, indices, kernel_size, adaptive_size)
    return result


@problem("avg_pool2d")
def _(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, adaptive_size, backend):
    geometry = (kernel_size, stride, padding, (1, 1), ceil_mode, adaptive_size)
    shape = check.check_pool2d("avg_pool2d", input, *geometry)
    check.check_divisor("avg_pool2d", divisor_override)
    what = check.pool2d_problem(
        "avg_pool2d", input.shape, shape[2:], *geometry, input, include_pad=count_include_pad, divisor=divisor_override
    )
    return what, (input,)


@fake("avg_pool2d")
def _(input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, adaptive_size, backend):
    geometry = (kernel_size, stride, padding, (1, 1), ceil_mode, adaptive_size)
    shape = check.check_pool2d("avg_pool2d", input, *geometry)
    check.check_divisor("avg_pool2d", divisor_override)
    return _empty(shape, input, output_layout(input))


@problem("avg_pool2d_grad_input")
def _(
    grad_output, input_size, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override,
    adaptive_size, backend,
):  # fmt: skip
    name, geometry = "avg_pool2d_grad_input", (kernel_size, stride, padding, (1, 1), ceil_mode, adaptive_size)
    check.check_tensors(name, grad_output=grad_output)
    shape = check.check_pool2d_adjoint(name, grad_output, input_size, *geometry)
    check.check_divisor(name, divisor_override)
    what = check.pool2d_problem(
        name, shape, grad_output.shape[2:], *geometry, grad_output,
        include_pad=count_include_pad, divisor=divisor_override,
    )  # fmt: skip
    return what, (grad_output,)


@fake("avg_pool2d_grad_input")
def _(
    grad_output, input_size, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override,
    adaptive_size, backend,
):  # fmt: skip
    name, geometry = "avg_pool2d_grad_input", (kernel_size, stride, padding, (1, 1), ceil_mode, adaptive_size)
    check.check_tensors(name, grad_output=grad_output)
    shape = check.check_pool2d_adjoint(name, grad_output, input_size, *geometry)
    check.check_divisor(name, divisor_override)
    return _empty(shape, grad_output, output_layout(grad_output))

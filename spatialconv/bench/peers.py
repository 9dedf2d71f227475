"""What is timed: our call, and the peers that it is measured against, each as a callable of a problem's operands.

Forward passes go through the public functions on both sides, as a user calls them. Backward passes call the kernel that
computes a gradient: our plan, and the aten operator with the mask bit of that one gradient. Torch has no untied
convolution: what is measured there is ``untied``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F

from .. import dispatch
from ..activations import IN_PLACE
from ..backends.base import DTYPES
from ..problem import Conv2dProblem, Pool2dProblem, Problem
from ..shapes import as_result
from .operands import average_arguments, window
from .suites import Cell
from .untied import untied_call

aten = torch.ops.aten
TORCH, TORCH_BEST, COMPILE = "torch", "torch-best-layout", "compile"
EXTERNAL = ("onnxruntime", "openvino")
NAMES = (TORCH, TORCH_BEST, COMPILE, *EXTERNAL)
Call = Callable[..., object]


class PeerUnavailable(RuntimeError):
    """A peer cannot run a cell; the message says why."""


def ours(cell: Cell, request: str, prepacked: bool = False) -> Call:
    """Our side of a cell: the public function forward, with ``prepacked`` the layer of a convolution after nn.prepack;
    the chosen kernel's plan backward."""
    problem = cell.problem
    if prepacked and prepacks(cell):
        return _prepacked(problem, request)
    if cell.pass_name != "forward":
        return dispatch.choose(problem, request).plan
    from .. import functional

    activation = {"activation": problem.activation} if _activation(problem) else {}
    return _forward(cell, functional, backend=request, **activation)


def prepacks(cell: Cell) -> bool:
    """Whether nn.prepack does anything for a cell."""
    return cell.problem.op == "conv2d" and not cell.transposed


def _prepacked(problem: Conv2dProblem, request: str) -> Call:
    """A call that transforms each weight where it first meets it."""
    from .. import nn

    layers: dict[int, nn.Conv2d] = {}

    def call(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        layer = layers.get(id(weight))
        if layer is None:
            stride, padding, dilation = _conv_geometry(problem)
            layer = nn.Conv2d(
                problem.ic, problem.oc, (problem.kh, problem.kw), stride, padding, dilation, problem.g,
                bias is not None, activation=problem.activation, backend=request,
            )  # fmt: skip
            layer.weight = torch.nn.Parameter(weight)
            layer.bias = None if bias is None else torch.nn.Parameter(bias)
            layers[id(weight)] = nn.prepack(layer.eval())
            # The first call transforms the weight.
            layer(input)
        return layer(input)

    return call


def torch_call(cell: Cell) -> Call:
    """Torch's side of a cell."""
    if getattr(cell.problem, "untied", False):
        return untied_call(cell.problem)
    if cell.pass_name == "forward":
        call, activation = _forward(cell, F), _activation(cell.problem)
        return call if activation is None else lambda *operands: IN_PLACE[activation](call(*operands))
    return _torch_backward(cell.problem)


def _activation(problem: Problem) -> str | None:
    return problem.activation if isinstance(problem, Conv2dProblem) else None


def _forward(cell: Cell, functions: object, **extra: object) -> Call:
    """The call of a forward pass: the same arguments to our functions and to torch's."""
    problem = cell.problem
    if isinstance(problem, Conv2dProblem):
        stride, padding, dilation = _conv_geometry(problem)
        groups = problem.g
        if cell.transposed:
            conv_transpose2d, rest = functions.conv_transpose2d, _output_padding(problem)
            return lambda input, weight: conv_transpose2d(
                input, weight, None, stride, padding, rest, groups, dilation, **extra
            )
        conv2d = functions.local_conv2d if problem.untied else functions.conv2d
        return lambda input, weight, bias: conv2d(input, weight, bias, stride, padding, dilation, groups, **extra)
    if problem.op == "max_pool2d":
        if problem.adaptive:
            pool, size = functions.adaptive_max_pool2d, (problem.oh, problem.ow)
            return lambda input: pool(input, size, return_indices=problem.indices, **extra)
        pool, shape = functions.max_pool2d, (*window(problem), problem.ceil, problem.indices)
        return lambda input: pool(input, *shape, **extra)
    if problem.adaptive:
        pool, size = functions.adaptive_avg_pool2d, (problem.oh, problem.ow)
        return lambda input: pool(input, size, **extra)
    pool, shape = functions.avg_pool2d, average_arguments(problem)
    return lambda input: pool(input, *shape, **extra)


def _conv_geometry(problem: Conv2dProblem) -> tuple[tuple[int, int], ...]:
    return (problem.sh, problem.sw), (problem.ph, problem.pw), (problem.dh, problem.dw)


def _output_padding(problem: Conv2dProblem) -> tuple[int, int]:
    """What a transposed convolution adds behind, read off the grad_input problem that it is."""
    down = (problem.oh - 1) * problem.sh - 2 * problem.ph + problem.dh * (problem.kh - 1) + 1
    across = (problem.ow - 1) * problem.sw - 2 * problem.pw + problem.dw * (problem.kw - 1) + 1
    return problem.ih - down, problem.iw - across


def _torch_backward(problem: Problem) -> Call:
    def unread(shape: tuple[int, ...]) -> torch.Tensor:
        """An operand that only tells its shape and layout."""
        made = torch.zeros(shape, dtype=DTYPES[problem.dtype], device=problem.device)
        return as_result(made, problem.layout)

    if isinstance(problem, Conv2dProblem):
        stride, padding, dilation = (list(pair) for pair in _conv_geometry(problem))
        geometry = (stride, padding, dilation, False, [0, 0], problem.g)
        backward = aten.convolution_backward.default
        if problem.op == "conv2d_grad_input":
            input, mask = unread(problem.input_shape), [True, False, False]
            return lambda grad_output, weight: backward(grad_output, input, weight, None, *geometry, mask)[0]
        if problem.op == "conv2d_grad_weight":
            weight, mask = unread(problem.weight_shape), [False, True, False]
            return lambda grad_output, input: backward(grad_output, input, weight, None, *geometry, mask)[1]
        bias = None
        conv2d = F.conv2d
        return lambda input, weight, *_: conv2d(input, weight, bias, stride, padding, dilation, problem.g)
    input = unread(problem.input_shape)
    if problem.op == "max_pool2d_scatter" and problem.adaptive:
        backward = aten.adaptive_max_pool2d_backward.default
        return lambda grad_output, indices: backward(grad_output, input, indices)
    if problem.op == "max_pool2d_scatter":
        shape = (*map(list, window(problem)), problem.ceil)
        backward = aten.max_pool2d_with_indices_backward.default
        return lambda grad_output, indices: backward(grad_output, input, *shape, indices)
    if problem.adaptive:
        backward = aten._adaptive_avg_pool2d_backward.default
        return lambda grad_output: backward(grad_output, input)
    shape = tuple(list(entry) if isinstance(entry, tuple) else entry for entry in average_arguments(problem))
    backward = aten.avg_pool2d_backward.default
    return lambda grad_output: backward(grad_output, input, *shape)


def compiled_call(cell: Cell) -> Call:
    """Torch's side of a cell through torch.compile."""
    torch._dynamo.reset()
    return torch.compile(torch_call(cell), dynamic=False)


@cache
def missing(peer: str) -> str | None:
    """Why a peer cannot run in this environment, or None."""
    if peer not in EXTERNAL:
        return None
    lacking = [module for module in ("onnx", peer) if find_spec(module) is None]
    return f"{' and '.join(lacking)} not installed (extra 'peers')" if lacking else None


def refuse(peer: str, cell: Cell) -> str | None:
    """Why a peer cannot run a cell, or None."""
    if missing(peer):
        return missing(peer)
    if peer not in EXTERNAL:
        return None
    problem = cell.problem
    if cell.pass_name != "forward":
        return f"{peer} computes the forward pass only"
    if problem.device != "cpu" or problem.dtype != "f32":
        return f"{peer} is measured on the CPU in f32"
    if problem.layout != "nchw":
        return f"{peer} takes NCHW tensors"
    if (
        cell.transposed
        or getattr(problem, "untied", False)
        or _activation(problem)
        or (isinstance(problem, Pool2dProblem) and (problem.adaptive or problem.divisor or problem.indices))
    ):
        return f"{peer} has no model of this layer here"
    return None

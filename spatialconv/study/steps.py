"""What one step of a network reads of the maps before it: the same place, a window, or everything."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import fx, nn

from ..nn import BlurPool2d, P4Pool2d
from ..nn.dataflow import traced
from ..shapes import pair

# Layers and functions that see each pixel alone, in eval mode, and whose output never falls where their input rises.
RISING_LAYERS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Identity, nn.Dropout, nn.Dropout2d,
)  # fmt: skip
RISING_FUNCTIONS = {
    F.relu, F.relu6, F.gelu, F.silu, F.leaky_relu, F.hardswish, F.elu, F.dropout, F.dropout2d, F.hardtanh, F.softplus,
    torch.relu, torch.relu_, torch.sigmoid, torch.sigmoid_, torch.tanh,
}  # fmt: skip
RISING_METHODS = {"relu", "relu_", "sigmoid", "tanh"}
_SAME_METHODS = {"contiguous", "clone", "float", "double"}
# Of several maps each pixel is combined with that at the same place, or stands beside it in the channels.
_MEETING = {operator.add, operator.mul, operator.iadd, operator.imul, torch.add, torch.mul}
_JOINING = {torch.cat, torch.concat}


@dataclass(frozen=True)
class Window:
    """Sizes along (rows, columns); output o reads o*stride - padding + r*dilation for r below ``kernel``."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


# The same place of every map that meets in the step; every place of one.
SAME, EVERYTHING_STEP = "same", "everything"
Step = Window | str


def graph_of(model: nn.Module) -> tuple[nn.Module, fx.Graph]:
    """The model as torch.fx executes it, in a Sequential where it is one layer, and its graph; ValueError where it
    cannot be executed so, or has several inputs or outputs."""
    if next(model.children(), None) is None:
        # torch.fx would go into a layer that is the whole model.
        model = nn.Sequential(model)
    try:
        graph = traced(model)
    except Exception as error:  # the user's own model may raise anything on symbolic values
        raise ValueError(f"study: field: torch.fx cannot execute the model: {error}") from error
    for op in ("placeholder", "output"):
        nodes = list(graph.find_nodes(op=op))
        if len(nodes) != 1 or (op == "output" and len(nodes[0].all_input_nodes) != 1):
            raise ValueError(f"study: field: expected a model with one input and one output, got {len(nodes)} {op}s")
    return model, graph


def name_of(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else node.name


def step_of(model: nn.Module, node: fx.Node) -> Step:
    """What a node of the graph reads. Raises ValueError, naming the node, where that is not known."""
    try:
        return _step_of(model, node)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"study: field: {name_of(node)}: {error}") from None


def _step_of(model: nn.Module, node: fx.Node) -> Step:
    if not [one for one in node.all_input_nodes if one.op != "get_attr"]:
        raise ValueError("does not follow from the input")
    if node.op == "output":
        return SAME
    if node.op == "call_module":
        return of_layer(model.get_submodule(node.target))
    if node.target in RISING_FUNCTIONS | RISING_METHODS | _SAME_METHODS | _MEETING:
        return SAME
    if node.target in _JOINING:
        dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        if dim not in (1, -3):
            raise ValueError(f"expected maps to be joined by their channels, got dim={dim}")
        return SAME
    if node.target in (*_MAX_POOLS, F.avg_pool2d):
        return _pool(node)
    if node.target in (torch.flatten, F.linear, "flatten"):
        return EVERYTHING_STEP
    if node.target in ("mean", "sum", torch.mean, torch.sum):
        return _reduced(node)
    raise ValueError("what it sees is not known; the gradient shows it")


def _reduced(node: fx.Node) -> Step:
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    dims = (dims,) if isinstance(dims, int) else dims
    if dims is not None and set(dims) <= {1, -3}:
        return SAME
    if dims is not None and not set(dims) & {2, 3, -1, -2}:
        raise ValueError(f"expected a sum over channels or over the whole picture, got dim={dims}")
    return EVERYTHING_STEP


def of_layer(module: nn.Module) -> Step:
    """What an output of one layer reads. Raises ValueError for a layer that is not known."""
    if isinstance(module, (*RISING_LAYERS, nn.BatchNorm2d, P4Pool2d)):
        return SAME
    if isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
        if pair("field", "output_size", module.output_size) != (1, 1):
            raise ValueError("the windows of adaptive pooling differ; the gradient shows them")
        return EVERYTHING_STEP
    if isinstance(module, (nn.Flatten, nn.Linear)):
        return EVERYTHING_STEP
    if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
        kernel = pair("field", "kernel_size", module.kernel_size)
        stride = kernel if module.stride in (None, (), []) else pair("field", "stride", module.stride)
        dilation = pair("field", "dilation", getattr(module, "dilation", 1))
        return Window(kernel, stride, pair("field", "padding", module.padding), dilation)
    if type(module) is BlurPool2d:
        size = module.blur_size
        return Window((size, size), (module.stride,) * 2, ((size - 1) // 2,) * 2, (1, 1))
    if _is_convolution(module):
        kernel, stride, dilation = (pair("field", name, getattr(module, name)) for name in _WINDOW[:3])
        padding = module.padding
        if padding == "same":
            padding = tuple(width * (taps - 1) // 2 for width, taps in zip(dilation, kernel, strict=True))
        padding = (0, 0) if padding == "valid" else pair("field", "padding", padding)
        return Window(kernel, stride, padding, dilation)
    raise ValueError(f"what a {type(module).__name__} sees is not known; the gradient shows it")


_WINDOW = ("kernel_size", "stride", "dilation", "padding")
_NO_WINDOW = (nn.modules.conv._ConvTransposeNd, nn.Unfold, nn.Fold)


def _is_convolution(module: nn.Module) -> bool:
    """Whether it has a convolution's window: torch's own, and layers that name theirs the same way."""
    return all(hasattr(module, name) for name in _WINDOW) and not isinstance(module, _NO_WINDOW)


def _pool(node: fx.Node) -> Window:
    names = ("input", "kernel_size", "stride", "padding")
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    dilation = given.get("dilation", node.args[4] if node.target in _MAX_POOLS and len(node.args) > 4 else 1)
    kernel = pair("field", "kernel_size", given["kernel_size"])
    stride = given.get("stride")
    stride = kernel if stride in (None, (), []) else pair("field", "stride", stride)
    padding = pair("field", "padding", given.get("padding", 0))
    return Window(kernel, stride, padding, pair("field", "dilation", dilation))


_MAX_POOLS = (F.max_pool2d, torch.max_pool2d)

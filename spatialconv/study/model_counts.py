"""The counts of a whole model, layer by layer, from the shapes that its layers really meet.

A forward pass on zeros is watched by hooks. What is no convolution or pooling of ``torch.nn`` or ``spatialconv.nn`` is
listed and not counted, nor are convolutions that a ``forward`` calls as functions: torch's own counter of operations,
which sees every call but counts multiplications with padding zeros, tells whether there are any.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..bench import suites
from ..nn import LocallyConnected2d
from ..problem import Conv2dProblem, Pool2dProblem
from . import counting, shape

_COUNTED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_CONVOLUTIONS = ("convolution", "conv2d", "local_conv2d")


@dataclass(frozen=True)
class LayerCounts:
    """One call of a layer, or ``times`` calls alike. ``counts`` is None where ``reason`` says why not."""

    name: str
    kind: str
    parameters: int
    counts: counting.Counts | None
    reason: str = ""
    times: int = 1


@dataclass(frozen=True)
class ModelCounts:
    """``seen_flops``: operations of all convolutions that torch's counter saw, padding included, or None where no
    model was run."""

    layers: tuple[LayerCounts, ...]
    seen_flops: int | None = None

    @property
    def counted(self) -> list[LayerCounts]:
        return [layer for layer in self.layers if layer.counts is not None]

    def convolutions(self) -> list[LayerCounts]:
        return [layer for layer in self.counted if isinstance(layer.counts.problem, Conv2dProblem)]

    @property
    def macs(self) -> int:
        return sum(layer.times * layer.counts.macs for layer in self.convolutions())

    @property
    def slots(self) -> int:
        return sum(layer.times * layer.counts.slots for layer in self.convolutions())

    @property
    def missed_slots(self) -> int:
        """Multiplications of convolutions that no counted layer made, padding included."""
        return 0 if self.seen_flops is None else self.seen_flops // 2 - self.slots


def of_suite(name: str) -> ModelCounts:
    """The layers of one of the package's suites, or of a file in the same notation; ValueError where there is none."""
    rows = []
    for number, layer in enumerate(suites.load(name)):
        if layer.transposed:
            row = LayerCounts(str(number), "ConvTranspose2d", 0, None, "no forward convolution", layer.count)
        else:
            problem = layer.problem
            weights = 0
            if isinstance(problem, Conv2dProblem):
                weights = problem.oc * (problem.ic // problem.g * problem.kh * problem.kw + problem.bias)
            row = LayerCounts(str(number), problem.op, weights, counting.count(problem), times=layer.count)
        rows.append(row)
    return ModelCounts(tuple(rows))


def of_model(model: nn.Module, input: Tensor) -> ModelCounts:
    """The counts of a model on an input [n, c, h, w], in eval mode and without gradients. Whatever the model raises on
    such an input becomes a ValueError."""
    layers: list[LayerCounts] = []

    def watch(name: str, module: nn.Module):
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            layers.append(_layer(name, module, inputs, output))

        return module.register_forward_hook(hook)

    leaves = [(name, module) for name, module in model.named_modules() if next(module.children(), None) is None]
    hooks = [watch(name or type(module).__name__, module) for name, module in leaves]
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), evaluating(model), counter:
            model(input)
    except Exception as error:  # the user's own model may raise anything
        shown = "x".join(map(str, input.shape))
        raise ValueError(f"study: model: fails on an input of {shown}: {type(error).__name__}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    operations = counter.get_flop_counts().get("Global", {})
    seen = sum(flops for op, flops in operations.items() if _op_name(op) in _CONVOLUTIONS)
    return ModelCounts(tuple(layers), seen)


def _op_name(op: object) -> str:
    return str(op).rpartition("::")[2].split(".")[-1] if "::" in str(op) else str(op).split(".")[-1]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; every module gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _layer(name: str, module: nn.Module, inputs: tuple, output: object) -> LayerCounts:
    parameters = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    kind = type(module).__name__
    if isinstance(module, LocallyConnected2d):
        return LayerCounts(name, kind, parameters, None, "an untied convolution: study count of its shape has its row")
    if not isinstance(module, _COUNTED):
        return LayerCounts(name, kind, parameters, None, "no convolution or pooling")
    first = inputs[0] if inputs else None
    if not isinstance(first, Tensor) or first.dim() != 4:
        return LayerCounts(name, kind, parameters, None, "its input has not four dimensions")
    try:
        problem = _adaptive(module, first, output) or shape.of_module(module, tuple(first.shape))
    except ValueError as error:
        return LayerCounts(name, kind, parameters, None, str(error).removeprefix("study: "))
    return LayerCounts(name, kind, parameters, counting.count(problem))


def _adaptive(module: nn.Module, input: Tensor, output: object) -> Pool2dProblem | None:
    if not isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
        return None
    result = output[0] if isinstance(output, tuple) else output
    n, ic, ih, iw = input.shape
    op = "avg_pool2d" if isinstance(module, nn.AdaptiveAvgPool2d) else "max_pool2d"
    return Pool2dProblem(op=op, n=n, ic=ic, ih=ih, iw=iw, oh=result.shape[2], ow=result.shape[3], adaptive=True)

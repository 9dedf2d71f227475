"""Batch norms and activations folded into the convolutions before them, where that changes no output."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from .dataflow import Dataflow, hooked
from .layers import Conv2d, ConvTranspose2d

_ACTIVATIONS = {
    torch.nn.ReLU: "relu",
    torch.nn.ReLU6: "relu6",
    torch.nn.Hardswish: "hardswish",
    torch.nn.SiLU: "silu",
    torch.nn.GELU: "gelu",
}


@dataclass
class Fold:
    """What happens to one convolution: the modules folded into it, what it gets for them, and why no more."""

    layer: torch.nn.Module
    gone: list[torch.nn.Module] = field(default_factory=list)
    weight: Tensor | None = None
    bias: Tensor | None = None
    activation: str | None = None
    reason: str = ""


class Folding:
    """The folds of a model whose ``layers`` are, or will be, of the given classes. Planned first; ``apply`` changes the
    model, and nothing in it can fail."""

    def __init__(self, model: torch.nn.Module, layers: dict[torch.nn.Module, type[torch.nn.Module]]) -> None:
        self.model = model
        self.places: dict[torch.nn.Module, list[str]] = defaultdict(list)
        self.owners: dict[int, int] = defaultdict(int)
        for path, module in model.named_modules(remove_duplicate=False):
            self.places[module].append(path)
            if len(self.places[module]) == 1:
                for tensor in (*module._parameters.values(), *module._buffers.values()):
                    self.owners[id(tensor)] += tensor is not None
        layers = {layer: cls for layer, cls in layers.items() if issubclass(cls, (Conv2d, ConvTranspose2d))}
        self.flow = Dataflow(model) if layers else None
        self.folds = {layer: self._plan(layer, cls) for layer, cls in layers.items()}

    def apply(self) -> None:
        for fold in self.folds.values():
            if fold.weight is not None:
                layer = fold.layer
                layer.weight = torch.nn.Parameter(fold.weight, layer.weight.requires_grad)
                learned = layer.weight if layer.bias is None else layer.bias
                layer.bias = torch.nn.Parameter(fold.bias, learned.requires_grad)
            if fold.activation is not None:
                fold.layer.activation = fold.activation
            for module in fold.gone:
                parent, _, name = self.places[module][0].rpartition(".")
                setattr(self.model.get_submodule(parent), name, torch.nn.Identity().train(module.training))

    def names(self, fold: Fold) -> tuple[str, ...]:
        """The folded modules, by class and path."""
        return tuple(f"{type(module).__name__} {self.places[module][0]}" for module in fold.gone)

    def _plan(self, layer: torch.nn.Module, cls: type[torch.nn.Module]) -> Fold:
        fold = Fold(layer)
        if self.flow.calls[layer] == 0:
            fold.reason = self._unknown(layer)
            return fold
        follower = self._next(layer)
        if type(follower) is torch.nn.BatchNorm2d:
            fold.reason = self._against(layer) or _activated(layer) or self._against(follower) or _norm(layer, follower)
            if fold.reason:
                return fold
            fold.weight, fold.bias = folded(layer, follower, issubclass(cls, ConvTranspose2d))
            fold.gone.append(follower)
            follower = self._next(follower)
        word = _ACTIVATIONS.get(type(follower))
        if word is None:
            if self.flow.users[layer] > 1 and not fold.gone:
                fold.reason = f"its output is used {self.flow.users[layer]} times"
            return fold
        fold.reason = self._against(layer) or _activated(layer) or self._against(follower) or _function(follower, cls)
        if not fold.reason:
            fold.activation = word
            fold.gone.append(follower)
        return fold

    def _next(self, module: torch.nn.Module) -> torch.nn.Module | None:
        """The module that alone gets the output, past any Identity."""
        follower = self.flow.after.get(module)
        while type(follower) is torch.nn.Identity and self.flow.calls[follower] == 1:
            follower = self.flow.after.get(follower)
        return follower

    def _unknown(self, layer: torch.nn.Module) -> str:
        """Why nothing is known of how a layer is called."""
        path = self.places[layer][0]
        around = [
            (self.places[module][0], why)
            for module, why in self.flow.failed.items()
            if path.startswith(f"{self.places[module][0]}." if self.places[module][0] else "")
        ]
        if not around:
            return ""
        where, why = max(around, key=lambda pair: len(pair[0]))
        return f"{where or 'the model'} cannot be executed symbolically: {why}"

    def _against(self, module: torch.nn.Module) -> str:
        """Why a module may neither be folded nor be folded into, whatever it computes."""
        name = f"{type(module).__name__} {self.places[module][0]}"
        if module.training:
            return f"{name} is in training mode: call model.eval() first"
        if hooked(module):
            return f"{name} has hooks"
        if parametrize.is_parametrized(module):
            return f"{name} is parametrized"
        if len(self.places[module]) > 1 or self.flow.calls[module] > 1:
            return f"{name} is used in several places"
        tensors = [tensor for tensor in (*module._parameters.values(), *module._buffers.values()) if tensor is not None]
        if any(self.owners[id(tensor)] > 1 or id(tensor) in self.flow.read for tensor in tensors):
            return f"{name} shares a parameter"
        return ""


def activation_word(module: torch.nn.Module) -> str | None:
    """The word for what an activation module computes in eval mode, if a convolution can compute it."""
    word = _ACTIVATIONS.get(type(module))
    return None if module.training or hooked(module) or _function(module, Conv2d) else word


def _activated(layer: torch.nn.Module) -> str:
    activation = getattr(layer, "activation", None)
    return "" if activation is None else f"it has an activation already, {activation}"


def _norm(layer: torch.nn.Module, norm: torch.nn.BatchNorm2d) -> str:
    if norm.running_mean is None or norm.running_var is None:
        return "its batch norm keeps no running statistics"
    if norm.num_features != layer.out_channels:
        return f"its batch norm is of {norm.num_features} channels, it has {layer.out_channels}"
    tensors = [layer.weight, norm.running_mean, *norm.parameters()]
    if len({(tensor.dtype, tensor.device) for tensor in tensors}) > 1 or not layer.weight.is_floating_point():
        return "its batch norm is of another dtype or device"
    return ""


def _function(activation: torch.nn.Module, cls: type[torch.nn.Module]) -> str:
    if not issubclass(cls, Conv2d):
        return "a transposed convolution has no activation="
    if getattr(activation, "approximate", "none") != "none":
        return f"GELU(approximate={activation.approximate!r}) is another function than activation='gelu'"
    return ""


@torch.no_grad()
def folded(layer: torch.nn.Module, norm: torch.nn.BatchNorm2d, transposed: bool) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that computes what the layer and the batch norm behind it compute in eval mode.

    With s = gamma / sqrt(var + eps) for every output channel the weight is s * weight and the bias
    s * (bias - mean) + beta: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", 2018, eq. 14. Computed in float64 and rounded once.
    """
    wide = {name: value.double() for name, value in (*norm.named_parameters(), *norm.named_buffers())}
    scale = wide.get("weight", 1.0) / (wide["running_var"] + norm.eps).sqrt()
    weight = layer.weight.double()
    if transposed:
        # [ic, oc / g, kh, kw], where the output channels of a group belong to its own input channels.
        by_group = weight.reshape(layer.groups, -1, *weight.shape[1:])
        weight = (by_group * scale.reshape(layer.groups, 1, -1, 1, 1)).reshape(weight.shape)
    else:
        weight = weight * scale.reshape(-1, 1, 1, 1)
    bias = 0.0 if layer.bias is None else layer.bias.double()
    bias = scale * (bias - wide["running_mean"]) + wide.get("bias", 0.0)
    return _like(weight, layer.weight), _like(bias, layer.weight)


def _like(value: Tensor, tensor: Tensor) -> Tensor:
    """The value in the tensor's dtype, and in its memory format where it has the same rank."""
    value = value.to(tensor.dtype)
    if value.dim() != 4 or not tensor.is_contiguous(memory_format=torch.channels_last) or tensor.is_contiguous():
        return value.contiguous()
    return value.contiguous(memory_format=torch.channels_last)

"""The receptive field of a network by gradient: which pixels an output sees, and how much it makes of each.

What it can see: weights are made positive and every filter's sum one, maxima averages, activations are left out, so
that no path cancels another or saturates; then a pixel's gradient is zero exactly where no path leads to it. How much
it makes of each, the effective receptive field of Luo, Li, Urtasun and Zemel, "Understanding the effective receptive
field in deep convolutional neural networks", NeurIPS 2016: the model as it is, on random pictures.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..shapes import pair, pool_output_size
from . import steps
from .model_counts import evaluating

_ENERGY = 0.95


def positive(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """A float64 copy of the model, in eval mode, through which gradients are positive wherever a path leads."""
    model = _averaging(copy.deepcopy(model)).double().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for values, number in ((module.running_mean, 0.0), (module.running_var, 1.0), (module.bias, 0.0)):
                    if values is not None:
                        values.fill_(number)
                if module.weight is not None:
                    module.weight.fill_(1.0)
                continue
            for name, values in module.named_parameters(recurse=False):
                if values.dim() < 2:
                    values.fill_(0.0 if "bias" in name else 1.0)
                    continue
                drawn = torch.rand(values.shape, generator=generator, dtype=torch.float64) + 0.1
                values.copy_(drawn / drawn.flatten(1).sum(1).reshape(-1, *[1] * (values.dim() - 1)))
    return model


def _averaging(module: nn.Module) -> nn.Module:
    """The module with the average in place of every maximum, of which random values would show one pixel, and without
    activations, which may be flat."""
    if isinstance(module, steps.RISING_LAYERS):
        return nn.Identity()
    if isinstance(module, nn.AdaptiveMaxPool2d):
        return nn.AdaptiveAvgPool2d(module.output_size)
    if isinstance(module, nn.MaxPool2d):
        return _Average(module)
    for name, child in module.named_children():
        setattr(module, name, _averaging(child))
    return module


class _Average(nn.Module):
    """The mean of every window of a max pooling, whatever lies outside being zero."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.window = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)

    def forward(self, input: Tensor) -> Tensor:
        return _average(input, *self.window)


def _average(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False) -> Tensor:
    kernel = pair("field", "kernel_size", kernel_size)
    stride = kernel if stride in (None, (), []) else pair("field", "stride", stride)
    padding, dilation = pair("field", "padding", padding), pair("field", "dilation", dilation)
    outputs, behind = [], []
    for axis, size in enumerate(input.shape[-2:]):
        window = kernel[axis], stride[axis], padding[axis], dilation[axis]
        outputs.append(pool_output_size(size, *window, ceil_mode))
        reach = (outputs[axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
        behind.append(max(reach - size - padding[axis], 0))
    padded = F.pad(input, (padding[1], behind[1], padding[0], behind[0]))
    channels = input.shape[-3]
    weight = input.new_full((channels, 1, *kernel), 1 / (kernel[0] * kernel[1]))
    return F.conv2d(padded, weight, None, stride, 0, dilation, channels)[..., : outputs[0], : outputs[1]]


class _Averaging(TorchFunctionMode):
    """The same for what a ``forward`` calls as functions."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (F.max_pool2d, torch.max_pool2d):
            return _average(*args, **(kwargs or {}))
        if func in steps.RISING_FUNCTIONS or (
            getattr(func, "__name__", "") in steps.RISING_METHODS and isinstance(args[0], Tensor)
        ):
            return args[0]
        return func(*args, **(kwargs or {}))


def centre_of(output: Tensor) -> tuple[int, int]:
    """The middle place of a map [n, c, h, w]; of anything else the only one, (0, 0)."""
    return (output.shape[2] // 2, output.shape[3] // 2) if output.dim() == 4 else (0, 0)


def gradient(
    model: nn.Module,
    input: Tensor,
    place: tuple[int, int],
    generator: torch.Generator | None = None,
    weights: torch.Generator | None = None,
) -> Tensor:
    """The gradient, of the input's shape, of the sum over channels of one output place of every image; with a
    generator of their sum with random signs, whose square is on average that of every channel's own, added up; with
    ``weights`` of a sum with random weights, all positive."""
    input = input.detach().requires_grad_()
    with torch.enable_grad():
        output = model(input)
        if not isinstance(output, Tensor) or output.dim() < 2:
            raise ValueError(f"study: field: expected an output [n, c, h, w] or [n, c], got {type(output).__name__}")
        if output.dim() == 4 and not (0 <= place[0] < output.shape[2] and 0 <= place[1] < output.shape[3]):
            raise ValueError(f"study: field: expected a place in {tuple(output.shape[2:])}, got {place}")
        chosen = output[..., place[0], place[1]] if output.dim() == 4 else output
        if weights is not None:
            chosen = chosen * (0.5 + torch.rand(chosen.shape, generator=weights, dtype=chosen.dtype))
        if generator is not None:
            chosen = chosen * (torch.randint(0, 2, chosen.shape, generator=generator) * 2 - 1)
        (found,) = torch.autograd.grad(chosen.sum(), input)
    return found


def seen(model: nn.Module, input: Tensor, place: tuple[int, int], generator: torch.Generator) -> np.ndarray:
    """Which pixels [h, w] an output place can see: where the gradient of the positive copy is not zero."""
    changed, picture = positive(model, generator), torch.rand(input.shape, generator=generator).double()
    with _Averaging():
        # Weights, since the channels' plain sum may be a constant, as behind a softmax.
        found = gradient(changed, picture, place, weights=generator)
    return (found != 0).any(dim=0).any(dim=0).numpy()


@dataclass(frozen=True)
class Effective:
    """``energy``: squared gradient of each pixel [h, w], all channels added up, mean over pictures; ``share``: the part
    of the seen area whose strongest pixels hold 95 % of it; ``deviation``: standard deviation of the energy about its
    mean place, in pixels along rows and columns."""

    energy: np.ndarray
    share: float
    deviation: tuple[float, float]


def effective(
    model: nn.Module, input: Tensor, place: tuple[int, int], area: int, generator: torch.Generator, pictures: int = 16
) -> Effective:
    """How much of ``area`` seen pixels the model as it is makes use of, averaged over normal random pictures of the
    input's shape, in float64 and eval mode."""
    model = copy.deepcopy(model).double()
    energy = torch.zeros(input.shape[2:], dtype=torch.float64)
    with evaluating(model):
        for _ in range(pictures):
            drawn = torch.randn(input.shape, generator=generator, dtype=torch.float64)
            energy += gradient(model, drawn, place, generator).square().sum(dim=(0, 1))
    energy = (energy / pictures).numpy()
    return Effective(energy, area_share(energy, area), deviation(energy))


def area_share(energy: np.ndarray, area: int, part: float = _ENERGY) -> float:
    """The fewest pixels that hold that part of the energy, as a share of the area; 0 where there is no energy."""
    ordered = np.sort(energy.ravel())[::-1]
    total = ordered.sum()
    if total == 0 or area == 0:
        return 0.0
    return (int(np.searchsorted(ordered.cumsum(), part * total)) + 1) / area


def deviation(energy: np.ndarray) -> tuple[float, float]:
    """The standard deviation of the energy about its mean place along rows and columns, in pixels."""
    found = []
    for axis in (0, 1):
        profile = energy.sum(axis=1 - axis)
        if profile.sum() == 0:
            found.append(0.0)
            continue
        places = np.arange(len(profile))
        mean = np.average(places, weights=profile)
        found.append(float(np.sqrt(np.average((places - mean) ** 2, weights=profile))))
    return found[0], found[1]

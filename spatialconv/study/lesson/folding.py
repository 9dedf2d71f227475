"""Batch normalisation folded into the convolution, where that may be done and where not."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor
from torch.nn import BatchNorm2d, Flatten, Linear, Module, ReLU, Sequential

from ...nn import AdaptiveMaxPool2d, Conv2d, convert
from . import drawing
from .digits import CLASSES
from .experiment import Experiment, Measurement, above, at_most, equal
from .lab import Lab
from .training import fit

_LEFT = "batch norms left after folding"
_SINGLE = "relative difference of the outputs, float32"
_DOUBLE = "relative difference of the outputs, float64"
_MODE = "relative difference in training mode, one batch"
_BEFORE = "batch norm before a zero-padded layer, folded: relative difference at the border"
_INSIDE = "the same, inside"


def _network() -> Sequential:
    layers: list[Module] = []
    channels = 1
    for width in (8, 12):
        layers += [Conv2d(channels, width, 3, padding=1, bias=False), BatchNorm2d(width), ReLU()]
        channels = width
    return Sequential(*layers, AdaptiveMaxPool2d(1), Flatten(), Linear(channels, CLASSES))


def _relative(first: Tensor, second: Tensor) -> float:
    return ((first - second).norm() / second.norm()).item()


def _folded_forwards(norm: BatchNorm2d, layer: Conv2d) -> Conv2d:
    """The layer with the norm *before* it folded in, as if it met no border."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    made = Conv2d(layer.in_channels, layer.out_channels, 3, padding=1, dtype=layer.weight.dtype)
    made.weight.copy_(layer.weight * scale[:, None, None])
    made.bias.copy_((layer.weight * shift[:, None, None]).sum((1, 2, 3)))
    return made


@torch.no_grad()
def _compare(model: Sequential, images: Tensor) -> Measurement:
    folded = convert(deepcopy(model), fuse=True)
    double = deepcopy(model).double()
    both = convert(deepcopy(double), fuse=True)
    training = deepcopy(model).train()
    norm, layer = double[1], double[3]
    maps = double[0](images.double())
    apart, together = layer(norm(maps)), _folded_forwards(norm, layer)(maps)
    error = ((apart - together).abs().amax((0, 1)) / apart.abs().amax()).tolist()
    inside = (..., slice(1, -1), slice(1, -1))
    return Measurement(
        {
            _LEFT: sum(isinstance(one, BatchNorm2d) for one in folded.modules()),
            _SINGLE: _relative(folded(images), model(images)),
            _DOUBLE: _relative(both(images.double()), double(images.double())),
            _MODE: _relative(folded(images), training(images)),
            _BEFORE: _relative(together, apart),
            _INSIDE: _relative(together[inside], apart[inside]),
        },
        {"error": error},
    )


def _run(lab: Lab) -> Measurement:
    split = lab.pictures
    model = fit(_network, split.train[:650], split.train_labels[:650], lab.seed, epochs=2)
    return _compare(model, split.test[:128])


def _draw(measured: Sequence[Measurement]):
    figure = drawing.figure("A batch norm before a zero-padded layer, folded into it: where that is wrong", 6.4, 4.6)
    axes = figure.subplots()
    shown = drawing.picture(axes, measured[0].series["error"], colours="magma")
    figure.colorbar(shown, ax=axes, label="difference, of the largest output")
    return figure


EXPERIMENT = Experiment(
    name="folding",
    claim="Batch norm costs nothing at inference, for it can be folded into the convolution beside it.",
    done="A small network with batch norms is trained, and `nn.convert(fuse=True)` folds a copy of it; a norm before a "
    "zero-padded layer is folded by the same algebra.",
    expectations=(
        equal(_LEFT, 0), at_most(_SINGLE, 1e-5), at_most(_DOUBLE, 1e-12), above(_MODE, 0.01), above(_BEFORE, 0.003),
        at_most(_INSIDE, 1e-12),
    ),
    verdict="holds only behind the convolution and in evaluation mode",
    telling="There it is the same function to the last digits. In training mode the norm uses the batch it sees, "
    "which no weights can hold; and a norm before a zero-padded layer cannot be folded, for the zeros outside are "
    "not normalised.",
    run=_run,
    draw=_draw,
    reading="Bright is where the folded layer is wrong: along the border, where the filter meets zeros that the norm "
    "would not have changed.",
)  # fmt: skip

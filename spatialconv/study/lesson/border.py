"""Zeros at the border tell a network where it is, though every filter is shared over all places."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import ReLU, Sequential

from ...nn import Conv2d
from . import drawing
from .experiment import Experiment, Measurement, above, equal
from .lab import Lab
from .networks import conv_global
from .training import accuracy, fit, seeded

_SIDE, _DEPTH, _NEAR = 16, 4, 3
_ZEROS = "zeros: share of positions that answer a constant picture unlike its middle"
_CIRCULAR = "circular: the same share"
_TELLS = "zeros: accuracy of telling the left border from the right one"
_GUESSES = "circular: the same accuracy"


def _deep(mode: str) -> Sequential:
    layers: list = []
    for _ in range(_DEPTH):
        layers += [Conv2d(4, 4, 3, padding=1, padding_mode=mode), ReLU()]
    return Sequential(*layers)


@torch.no_grad()
def _differing(mode: str) -> Tensor:
    """Where the answer to a constant picture is not that of the middle, [side, side]. Biases keep filters alive."""
    stack = _deep(mode)
    for layer in stack:
        if isinstance(layer, Conv2d):
            layer.bias.fill_(0.5)
    output = stack(torch.ones(1, 4, _SIDE, _SIDE))
    middle = output[..., _SIDE // 2, _SIDE // 2][..., None, None]
    return (output - middle).abs().amax((0, 1)) > 1e-5


def _marks(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures with one bright pixel, and whether it is near the right border (1) or the left one (0), half each."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    rows = torch.randint(_SIDE, (count // 2,), generator=random).repeat_interleave(2)
    inwards = torch.randint(_NEAR, (count // 2,), generator=random).repeat_interleave(2)
    columns = torch.where(labels == 1, _SIDE - 1 - inwards, inwards)
    images = torch.zeros(count, 1, _SIDE, _SIDE)
    images[torch.arange(count), 0, rows, columns] = 1
    return images, labels


def _run(lab: Lab) -> Measurement:
    with seeded(lab.seed):
        differing = {mode: _differing(mode) for mode in ("zeros", "circular")}
    train, test = _marks(128, lab.seed), _marks(256, lab.seed + 1)
    told = {}
    for mode in differing:
        model = fit(lambda mode=mode: conv_global((8, 8, 8), mode, classes=2), *train, lab.seed, 16, batch=16)
        told[mode] = accuracy(model, *test)
    return Measurement(
        {
            _ZEROS: differing["zeros"].float().mean().item(),
            _CIRCULAR: differing["circular"].float().mean().item(),
            _TELLS: told["zeros"],
            _GUESSES: told["circular"],
        },
        {"differing": {mode: values.int().tolist() for mode, values in differing.items()}},
    )


def _draw(measured: Sequence[Measurement]):
    figure = drawing.figure(f"Answer of {_DEPTH} layers of 3x3 to a constant picture", 7.0, 3.6)
    shown = measured[0].series["differing"]
    for axes, (mode, values) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        share = sum(map(sum, values)) / _SIDE**2
        drawing.picture(axes, values, f"{mode}: {share:.0%} of positions differ from the middle", "Reds", (0, 1.3))
    return figure


EXPERIMENT = Experiment(
    name="border",
    claim="Since its filters are the same everywhere, a convolutional network does not know where in the picture it "
    "is.",
    done=f"A stack of {_DEPTH} layers answers a constant picture; three layers and a global maximum learn to tell a "
    "bright pixel near the left border from one near the right border.",
    # 8 of 16 rows and columns are farther than 4 layers from a border.
    expectations=(equal(_ZEROS, 1 - (8 / 16) ** 2), equal(_CIRCULAR, 0.0), above(_TELLS, 0.5), equal(_GUESSES, 0.5)),
    verdict="wrong as told",
    telling="It holds with circular padding, where the two borders cannot be told apart at all. Zeros around the "
    "picture are a landmark, and their trace spreads inwards by one position with each layer (Kayhan and van Gemert "
    "2020, arXiv:2003.07064; Islam et al. 2020, arXiv:2001.08248).",
    run=_run,
    draw=_draw,
    reading="Red positions know that a border is near: with zeros the frame is as wide as the network is deep.",
)

"""Digits learned at the left, asked about at the right: with one filter for all places, and with one for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Flatten, Linear, ReLU, Sequential

from ...nn import AdaptiveMaxPool2d, Conv2d, LocallyConnected2d
from . import drawing
from .digits import CLASSES, SIDE
from .experiment import Experiment, Measurement, above, at_most, below
from .lab import Lab
from .training import accuracy, fit, parameters

_SIZE = (SIDE, 2 * SIDE)
_WIDTHS = (8, 20)
_SEEN = "untied: accuracy where digits were seen"
_NEW = "untied: accuracy where none was seen"
_TIED = "tied: accuracy lost where none was seen"
_MORE = "parameters of untied, in those of tied"


def _tied() -> Sequential:
    first, second = _WIDTHS
    return Sequential(
        Conv2d(1, first, 3, padding=1, padding_mode="circular"), ReLU(),
        Conv2d(first, second, 3, padding=1, padding_mode="circular"), ReLU(),
        AdaptiveMaxPool2d(1), Flatten(), Linear(second, CLASSES),
    )  # fmt: skip


def _untied() -> Sequential:
    """The same, with a filter of its own at every place."""
    first, second = _WIDTHS
    return Sequential(
        LocallyConnected2d(1, first, 3, _SIZE, padding=1, padding_mode="circular"), ReLU(),
        LocallyConnected2d(first, second, 3, _SIZE, padding=1, padding_mode="circular"), ReLU(),
        AdaptiveMaxPool2d(1), Flatten(), Linear(second, CLASSES),
    )  # fmt: skip


def _placed(images: Tensor, right: bool) -> Tensor:
    dark = torch.zeros_like(images)
    return torch.cat((dark, images) if right else (images, dark), 3)


def _run(lab: Lab) -> Measurement:
    split = lab.pictures
    models = {
        label: fit(build, _placed(split.train, False), split.train_labels, lab.seed, epochs=6)
        for label, build in (("one filter for all places", _tied), ("a filter for each place", _untied))
    }
    told = {
        label: [accuracy(model, _placed(split.test, right), split.test_labels) for right in (False, True)]
        for label, model in models.items()
    }
    tied, untied = told.values()
    sizes = [parameters(model) for model in models.values()]
    return Measurement(
        {_SEEN: untied[0], _NEW: untied[1], _TIED: tied[0] - tied[1], _MORE: sizes[1] / sizes[0]},
        {"accuracy": told, "parameters": sizes},
    )


def _draw(measured: Sequence[Measurement]):
    figure = drawing.figure("Trained on digits at the left, asked about digits at the right")
    axes = figure.subplots()
    lines = drawing.collect(measured, "accuracy")
    sizes = measured[0].series["parameters"]
    named = {f"{label}, {size:,} parameters": lines[label] for label, size in zip(lines, sizes, strict=True)}
    drawing.curves(axes, (0, 1), named)
    drawing.chance(axes, 0.1)
    axes.set_xticks((0, 1), ("left, as in training", "right, never seen"))
    axes.set_xlim(-0.3, 1.3)
    axes.set_ylim(0, 1.2)
    axes.set_ylabel("accuracy on new digits")
    return figure


EXPERIMENT = Experiment(
    name="sharing",
    claim="Because weights are shared, what is learned at one place is known at every place.",
    done="Two networks of one shape, one with convolutions, one with a filter of its own at every place, trained on "
    "digits in the left half and tested with digits in the right half.",
    # Circular padding, so that both halves have the same surroundings; one digit of 497 may change sides by rounding.
    expectations=(above(_SEEN, 0.5), below(_NEW, 0.5), at_most(_TIED, 0.0025), above(_MORE, 1.0)),
    verdict="holds",
    telling="Provided that what follows does not undo it: here a maximum over all places does not, a Flatten would "
    "(see 'shift'). The network without sharing is as good where it was trained, with a hundred times the "
    "parameters.",
    run=_run,
    draw=_draw,
    reading="Both lines begin high; only the one with shared filters stays there.",
)

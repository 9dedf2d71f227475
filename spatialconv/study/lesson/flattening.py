"""Shuffled pixels cost a network that flattens nothing, and a convolutional one much."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn import Flatten, Linear, ReLU, Sequential

from ...nn import AdaptiveMaxPool2d, Conv2d, MaxPool2d
from . import drawing
from .digits import CLASSES, resized, shuffled
from .experiment import Experiment, Measurement, above, below
from .lab import Lab
from .networks import mlp
from .training import accuracy, fit

# Digits of 8x8 pixels are so small that a window sees most of them, and a shuffle then costs nothing.
_SIDE = 24
_TRAINED = 500
_MLP = "accuracy that the network of full connections loses by the shuffle"
_CNN = "accuracy that the convolutional network loses by the shuffle"


def _conv() -> Sequential:
    return Sequential(
        Conv2d(1, 8, 3, padding=1), ReLU(), MaxPool2d(2),
        Conv2d(8, 16, 3, padding=1), ReLU(), MaxPool2d(2),
        Conv2d(16, 32, 3, padding=1), ReLU(), AdaptiveMaxPool2d(1), Flatten(), Linear(32, CLASSES),
    )  # fmt: skip


def _run(lab: Lab) -> Measurement:
    split = lab.pictures
    labels = split.train_labels[:_TRAINED]
    told: dict[str, list[float]] = {"full connections": [], "convolutions": []}
    for change in (lambda images: images, lambda images: shuffled(images, lab.seed)):
        train, test = (change(resized(images, _SIDE)) for images in (split.train[:_TRAINED], split.test))
        for label, build, epochs in (("full connections", lambda: mlp(_SIDE**2), 8), ("convolutions", _conv, 10)):
            model = fit(build, train, labels, lab.seed, epochs)
            told[label].append(accuracy(model, test, split.test_labels))
    return Measurement(
        {_MLP: told["full connections"][0] - told["full connections"][1],
         _CNN: told["convolutions"][0] - told["convolutions"][1]},
        {"accuracy": told},
    )  # fmt: skip


def _draw(measured: Sequence[Measurement]):
    figure = drawing.figure("Trained on pictures, and on the same pictures with shuffled pixels")
    axes = figure.subplots()
    drawing.curves(axes, (0, 1), drawing.collect(measured, "accuracy"))
    axes.set_xticks((0, 1), ("as they are", "shuffled"))
    axes.set_xlim(-0.3, 1.3)
    axes.set_ylabel("accuracy on new digits")
    return figure


EXPERIMENT = Experiment(
    name="flattening",
    claim="Flattening a picture destroys its spatial structure, so a network of full connections cannot use it.",
    done=f"Digits of {_SIDE}x{_SIDE} pixels; both kinds of network trained on them, and on them with all pixels "
    "shuffled in one fixed way.",
    expectations=(below(_MLP, 0.03), above(_CNN, 0.0)),
    verdict="wrong as told",
    telling="Flattening renames pixels and destroys nothing: the network with full connections learns shuffled "
    "pictures as well as whole ones. What it lacks is knowledge of who neighbours whom, and it must learn that from "
    "examples; a convolution assumes it, which is why the shuffle hurts the convolution.",
    run=_run,
    draw=_draw,
    reading="A level line does not care where pixels stand; the falling one had relied on it. Shades span the seeds.",
)

"""Larger and smaller digits than those of the training."""

from __future__ import annotations

from collections.abc import Sequence

from . import drawing
from .digits import on_canvas, resized
from .experiment import Experiment, Measurement, above
from .lab import CANVAS, Lab
from .training import accuracy

_SIDES = (5, 6, 7, 8, 10, 12, 14, 16)
_LARGER = "accuracy lost at 1.5 times the size"
_TWICE = "accuracy lost at twice the size"
_SMALLER = "accuracy lost at 5/8 of the size"


def _run(lab: Lab) -> Measurement:
    split = lab.pictures
    told = [accuracy(lab.plain, on_canvas(resized(split.test, side), CANVAS), split.test_labels) for side in _SIDES]
    lost = {side: told[_SIDES.index(8)] - value for side, value in zip(_SIDES, told, strict=True)}
    return Measurement(
        {_LARGER: lost[12], _TWICE: lost[16], _SMALLER: lost[5]},
        {"accuracy": {"trained at 8 pixels": told}},
    )  # fmt: skip


def _draw(measured: Sequence[Measurement]):
    figure = drawing.figure("Digits of another size than in training")
    axes = figure.subplots()
    drawing.curves(axes, _SIDES, drawing.collect(measured, "accuracy"))
    drawing.chance(axes, 0.1)
    axes.axvline(8, color="gray", linewidth=0.8)
    axes.set_xticks(_SIDES)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("side of the digit, in pixels")
    axes.set_ylabel("accuracy on new digits")
    return figure


EXPERIMENT = Experiment(
    name="scale",
    claim="Convolutional networks recognise a pattern at any size.",
    done="A network trained on digits of 8 pixels, tested with the same digits at 5 to 16 pixels.",
    expectations=(above(_LARGER, 0.03), above(_TWICE, 0.1), above(_SMALLER, 0.03)),
    verdict="wrong as told",
    telling="A filter has a size in pixels, and nothing shares it over sizes: accuracy has its peak at the size of the "
    "training and falls on both sides. Networks that know several sizes were shown them.",
    run=_run,
    draw=_draw,
    reading="The peak is at the size that was trained (grey line); a level line would not mind the size.",
)

"""What is farther than the layers reach does not exist for an output."""

from __future__ import annotations

from collections.abc import Sequence

from . import drawing
from .experiment import Experiment, Measurement, above, at_most, equal
from .lab import Lab
from .marks import ask, convolutions, train
from .training import seeded

_NETWORKS = {"3 layers": (1, 1, 1), "5 layers": (1,) * 5, "3 layers, dilations 1 2 4": (1, 2, 4)}
_DISTANCES = range(1, 10)
_STEPS = 90
_WITHIN = "accuracy within reach, worst of all networks and distances"
_BEYOND = "accuracy beyond reach, the farthest from chance"
_DILATED = "pixels that 3 layers of dilations 1 2 4 reach, in those that 3 plain layers reach"
_SAME = "largest change of an answer by a mark beyond reach"


def _run(lab: Lab) -> Measurement:
    told: dict[str, list[float]] = {}
    within, beyond, changed, reached = [], [], [], {}
    for label, dilations in _NETWORKS.items():
        with seeded(lab.seed):
            model = convolutions(dilations)
            train(model, max(_DISTANCES), lab.seed, _STEPS)
        told[label] = []
        for distance in _DISTANCES:
            accuracy, change = ask(model, distance, 10_000 + lab.seed)
            told[label].append(accuracy)
            if distance <= sum(dilations):
                within.append(accuracy)
            else:
                beyond.append(accuracy)
                changed.append(change)
            if change:
                reached[label] = distance
    return Measurement(
        {
            _WITHIN: min(within),
            _BEYOND: max(beyond, key=lambda value: abs(value - 0.5)),
            _DILATED: reached["3 layers, dilations 1 2 4"] / reached["3 layers"],
            _SAME: max(changed),
        },
        {"accuracy": told},
    )


def _draw(measured: Sequence[Measurement]):
    figure = drawing.figure("Tell the sign of a mark so many pixels away")
    axes = figure.subplots()
    drawing.curves(axes, _DISTANCES, drawing.collect(measured, "accuracy"))
    drawing.chance(axes, 0.5)
    axes.set_xticks(_DISTANCES)
    axes.set_xlabel("distance of the mark, in pixels")
    axes.set_ylabel("accuracy on new rows")
    return figure


EXPERIMENT = Experiment(
    name="reach",
    claim="Convolutional networks struggle with relations over long distances.",
    done="Networks learn to tell the sign of a mark that is 1 to 9 pixels away; 3 layers of 3 reach 3 pixels, 5 layers "
    "reach 5, and 3 layers of dilations 1, 2, 4 reach 7.",
    # A zero is exact: what is beyond reach enters no sum.
    expectations=(above(_WITHIN, 0.75), equal(_BEYOND, 0.5), equal(_DILATED, 7 / 3), at_most(_SAME, 0.0)),
    verdict="wrong as told",
    telling="It is no struggle: within reach it is learned, and one pixel beyond the output does not depend on it "
    "at all, so that it stays at chance whatever the training. Depth adds reach layer by layer, dilation multiplies "
    "it.",
    run=_run,
    draw=_draw,
    reading="Each line is at the top as far as its network reaches and at chance beyond; the step is one pixel wide.",
)

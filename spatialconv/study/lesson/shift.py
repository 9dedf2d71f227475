"""Three networks trained on centred digits, asked about moved ones."""

from __future__ import annotations

from collections.abc import Sequence

from . import drawing
from .experiment import Experiment, Measurement, above, below
from .lab import CANVAS, Lab
from .networks import conv_flatten, mlp
from .training import accuracy, fit, parameters

SHIFTS = range(5)
_TWO = 2
_MLP = "accuracy that the network of full connections loses at a shift of 2"
_FLAT = "accuracy that one convolution, then Flatten, loses at a shift of 2"
_GLOBAL = "accuracy that convolutions, then a global maximum, lose at the worst of shifts 1 to 4"
_ALL = "accuracy at no shift, least of the three networks"
_SIZE = "parameters of convolution and Flatten, in those of the network of full connections"


def _run(lab: Lab) -> Measurement:
    split = lab.canvas
    flat = fit(lambda: conv_flatten(CANVAS), split.train, split.train_labels, lab.seed, epochs=4)
    full = fit(lambda: mlp(CANVAS**2), split.train, split.train_labels, lab.seed, epochs=6)
    models = {"full connections": full, "convolution, Flatten": flat, "convolutions, global maximum": lab.plain}
    told = {
        label: [accuracy(model, lab.moved(right), split.test_labels) for right in SHIFTS]
        for label, model in models.items()
    }
    losses = {label: [row[0] - value for value in row] for label, row in told.items()}
    return Measurement(
        {
            _ALL: min(row[0] for row in told.values()),
            _MLP: losses["full connections"][_TWO],
            _FLAT: losses["convolution, Flatten"][_TWO],
            _GLOBAL: max(losses["convolutions, global maximum"]),
            # The sizes that are shown beside each other in tutorials: 28x28 pixels, 128 hidden units.
            _SIZE: parameters(conv_flatten(28)) / parameters(mlp(28 * 28, 128)),
        },
        {"accuracy": told},
    )


def _draw(measured: Sequence[Measurement]):
    figure = drawing.figure("Trained on digits in the middle, asked about digits beside it")
    axes = figure.subplots()
    drawing.curves(axes, SHIFTS, drawing.collect(measured, "accuracy"))
    drawing.chance(axes, 0.1)
    axes.set_xticks(SHIFTS)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("shift to the right, in pixels")
    axes.set_ylabel("accuracy on new digits")
    return figure


EXPERIMENT = Experiment(
    name="shift",
    claim="Put a convolution before the Flatten, and the network recognises a pattern wherever it stands.",
    done="Networks trained on digits in the middle of 16x16 pixels, tested with digits moved to the right.",
    expectations=(above(_ALL, 0.5), above(_MLP, 0.1), above(_FLAT, 0.1), below(_GLOBAL, 0.05), above(_SIZE, 1.0)),
    verdict="wrong as told",
    telling="The convolution's response moves with the pattern, but weights behind a Flatten are bound to places, "
    "so the usual repair falls as far as what it repairs, and has more parameters, not fewer. What does not mind a "
    "shift is convolutions of stride 1 followed by a maximum over all places.",
    run=_run,
    draw=_draw,
    reading="Only a level line is robust to shifts: the convolution with a Flatten falls with the network that has "
    "none.",
)

"""Neighbouring pixels are alike; a shuffle of pixels undoes that and loses nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from . import drawing
from .digits import shuffled
from .experiment import Experiment, Measurement, above, below
from .lab import Lab
from .training import ridge

_KEPT = "correlation of neighbours, as they are"
_LOST = "correlation of neighbours, shuffled"
_LINEAR = "accuracy that a linear reader of all pixels loses by the shuffle"
_FAR = 5


def correlation(images: Tensor, distance: int) -> float:
    """Of pixels so far apart in a row, over all pictures [n, 1, h, w]."""
    left, right = images[..., : images.shape[-1] - distance], images[..., distance:]
    left, right = left - left.mean(), right - right.mean()
    return ((left * right).mean() / (left.std(correction=0) * right.std(correction=0))).item()


def _run(lab: Lab) -> Measurement:
    split = lab.pictures
    mixed = shuffled(split.train, lab.seed)
    series = {
        "as they are": [correlation(split.train, distance) for distance in range(1, _FAR + 1)],
        "shuffled": [correlation(mixed, distance) for distance in range(1, _FAR + 1)],
    }
    told = []
    for train, test in ((split.train, split.test), (mixed, shuffled(split.test, lab.seed))):
        read = ridge(train.flatten(1), split.train_labels, 10)
        told.append((read(test.flatten(1)) == split.test_labels).float().mean().item())
    return Measurement(
        {_KEPT: series["as they are"][0], _LOST: abs(series["shuffled"][0]), _LINEAR: abs(told[0] - told[1])},
        {"correlation": series},
    )


def _draw(measured: Sequence[Measurement]):
    figure = drawing.figure("Pixels are like their neighbours")
    axes = figure.subplots()
    drawing.curves(axes, range(1, _FAR + 1), drawing.collect(measured, "correlation"))
    drawing.chance(axes, 0, "unrelated")
    axes.set_xticks(range(1, _FAR + 1))
    axes.set_xlabel("distance of two pixels in a row")
    axes.set_ylabel("correlation over all digits")
    return figure


EXPERIMENT = Experiment(
    name="position",
    claim="In a picture the position of a pixel carries meaning: neighbours belong together.",
    done="Correlation of pixels that are neighbours, before and after one fixed shuffle of all pixels.",
    # Unshuffled pixels were without neighbourhood below 0.1; shuffled ones had kept theirs at 0.3.
    expectations=(above(_KEPT, 0.1), below(_LOST, 0.3), below(_LINEAR, 0.02)),
    verdict="holds",
    telling="True of the statistics of pictures. The shuffle loses no information, for a linear reader tells as much "
    "as before; what it takes away is that a small window holds pixels that have to do with each other.",
    run=_run,
    draw=_draw,
    reading="Neighbours are alike (above zero), pixels farther apart are opposites (below it), and a shuffle brings "
    "all of it near zero.",
)

"""What the layers of a trained network respond to, beside those of one that has learned nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Sequential

from ...functional import conv2d
from ...nn import Conv2d
from . import drawing
from .digits import CLASSES
from .experiment import Experiment, Measurement, above
from .lab import Lab
from .networks import conv_global, features
from .training import ridge, seeded

_ANGLES, _PERIOD, _SIDE, _PATCHES = 12, 4.0, 16, 4
_UNTRAINED_NETWORKS = 4
_TUNED = "selectivity for orientation of the first layer, trained"
_UNTRAINED = "selectivity for orientation of the first layer, not trained"
_GAIN = "accuracy read from the last layer, less that from the first, trained"
_WITHOUT = "accuracy read from the last layer, less that from the first, not trained"
_LEARNED = "accuracy read from the last layer, trained less not trained"


def gratings() -> Tensor:
    """Waves of 12 orientations and 4 phases, [12, 4, 16, 16], values 0 to 1."""
    angle = torch.arange(_ANGLES).view(-1, 1, 1, 1) * math.pi / _ANGLES
    phase = torch.arange(4).view(1, -1, 1, 1) * math.pi / 2
    row, column = torch.meshgrid(torch.arange(_SIDE), torch.arange(_SIDE), indexing="ij")
    along = column * torch.cos(angle) + row * torch.sin(angle)
    return 0.5 + 0.5 * torch.cos(2 * math.pi * along / _PERIOD + phase)


def tuning(layer: Conv2d) -> tuple[list[float], list[list[float]]]:
    """For each filter of a first layer its selectivity for orientation, 0 (none) to 1 (one orientation only), and its
    response to each orientation: how far its output swings, over all places and phases. The selectivity is the length
    of the mean of the response as a vector at twice the angle."""
    outputs = conv2d(gratings().flatten(0, 1).unsqueeze(1), layer.weight)
    swings = outputs.unflatten(0, (_ANGLES, 4)).std((1, 3, 4))
    turned = 2 * torch.arange(_ANGLES) * math.pi / _ANGLES
    x, y = (swings * torch.cos(turned)[:, None]).sum(0), (swings * torch.sin(turned)[:, None]).sum(0)
    return (torch.hypot(x, y) / swings.sum(0)).tolist(), swings.T.tolist()


def read_out(lab: Lab, layer: Sequential) -> float:
    """The accuracy of a linear reader of each filter's strongest response."""
    split = lab.canvas
    strongest = [layer(images).amax((2, 3)) for images in (split.train, split.test)]
    read = ridge(strongest[0], split.train_labels, CLASSES)
    return (read(strongest[1]) == split.test_labels).float().mean().item()


def preferred(layer: Sequential, images: Tensor, span: int) -> list[list[list[list[float]]]]:
    """For each of the first filters the patches of ``span`` pixels, of different pictures, that it answers most."""
    answers = layer(images)
    best, places = answers.flatten(2).max(2)
    half = span // 2
    found = []
    for channel in best.sum(0).argsort(descending=True)[:_PATCHES].tolist():
        patches = []
        for number in best[:, channel].topk(_PATCHES).indices.tolist():
            row, column = divmod(places[number, channel].item(), answers.shape[3])
            # The layers are circular, and so is what they see.
            around = images[number, 0].roll((half - row, half - column), (0, 1))
            patches.append(around[:span, :span].tolist())
        found.append(patches)
    return found


@torch.no_grad()
def _run(lab: Lab) -> Measurement:
    with seeded(lab.seed + 1):
        # One untrained network is much like another, but no more than that: a mean of several.
        untrained = [conv_global() for _ in range(_UNTRAINED_NETWORKS)]
    told, selectivity, responses = {}, {}, {}
    for label, models in (("trained", [lab.plain]), ("not trained", untrained)):
        read = [[read_out(lab, layer) for layer in features(model)] for model in models]
        told[label] = [sum(column) / len(column) for column in zip(*read, strict=True)]
        tuned = [tuning(model[0]) for model in models]
        selectivity[label] = sum(sum(values) / len(values) for values, _ in tuned) / len(tuned)
        responses[label] = tuned[0][1]
    layers = features(lab.plain)
    patches = {
        f"layer {number + 1}": preferred(layer, lab.canvas.test, 3 + 2 * number) for number, layer in enumerate(layers)
    }
    return Measurement(
        {
            _TUNED: selectivity["trained"],
            _UNTRAINED: selectivity["not trained"],
            _GAIN: told["trained"][-1] - told["trained"][0],
            _WITHOUT: told["not trained"][-1] - told["not trained"][0],
            _LEARNED: told["trained"][-1] - told["not trained"][-1],
        },
        {"read": told, "responses": responses, "patches": patches},
    )


def _draw(measured: Sequence[Measurement]):
    figure = drawing.figure("What three layers respond to", 10.5, 6.4)
    top, bottom = figure.subfigures(2, 1)
    left, right = top.subplots(1, 2)
    drawing.curves(left, (1, 2, 3), drawing.collect(measured, "read"))
    left.set_xticks((1, 2, 3))
    left.set_xlabel("layer")
    left.set_ylabel("accuracy of a linear reader")
    for answers in measured[0].series["responses"]["trained"]:
        right.plot([180 * step / _ANGLES for step in range(_ANGLES)], [one / max(answers) for one in answers])
    right.set_xlabel("orientation of a wave, degrees")
    right.set_ylabel("response of each filter of layer 1,\nof its greatest")
    right.set_ylim(0, 1.05)
    patches = measured[0].series["patches"]
    for place, (layer, filters) in zip(bottom.subfigures(1, len(patches)), patches.items(), strict=True):
        place.suptitle(f"{layer}: patches it answers most", fontsize=9)
        for row, line in zip(place.subplots(len(filters), _PATCHES), filters, strict=True):
            for axes, patch in zip(row, line, strict=True):
                drawing.picture(axes, patch)
    return figure


EXPERIMENT = Experiment(
    name="hierarchy",
    claim="Training builds a hierarchy: the first layer learns edges, later layers what edges make up.",
    done="Responses to waves of 12 orientations, a linear reader behind every layer, and the patches that filters "
    "answer most; beside them networks that were not trained.",
    expectations=(above(_TUNED, 0.05), above(_UNTRAINED, 0.05), above(_GAIN, 0.0), above(_WITHOUT, 0.0),
                  above(_LEARNED, 0.0)),
    verdict="holds only in part",
    telling="Later layers do tell more, and see more pixels. But a layer of random filters is tuned to orientation as "
    "well, since any 3x3 filter that is not round is; and depth alone helps a reader before anything is learned. What "
    "training adds is the difference between the two, and 'edges first' is no evidence of it.",
    run=_run,
    draw=_draw,
    reading="Above left, what a layer tells, with and without training; right, one line for each filter, with a "
    "peak at the orientation that it prefers; below, a row for each filter, the patches that it answers most.",
)  # fmt: skip

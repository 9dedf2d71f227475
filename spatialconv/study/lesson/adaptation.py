"""One filter of nine weights, trained to do three different things in turn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ...functional import conv2d
from ...nn import Conv2d
from . import drawing
from .experiment import Experiment, Measurement, above, at_most
from .lab import Lab
from .training import seeded

TARGETS = {
    "Sobel, x": [[1.0, 0, -1], [2, 0, -2], [1, 0, -1]],
    "Sobel, y": [[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]],
    "Laplace": [[0.0, 1, 0], [1, -4, 1], [0, 1, 0]],
}
_ERROR = "largest error of a weight, worst of three filters"
_BLANK = "largest error of a weight, learned from pictures of one grey each"


def _learn(layer: Conv2d, images: torch.Tensor, target: torch.Tensor) -> float:
    """Train the layer to answer as the target filter does; the largest error of a weight."""
    wanted = conv2d(images, target)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=40, line_search_fn="strong_wolfe", tolerance_grad=1e-9,
                                  tolerance_change=1e-12)  # fmt: skip

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(layer(images), wanted)
        loss.backward()
        return loss

    optimizer.step(step)
    return (layer.weight.detach() - target).abs().max().item()


def _run(lab: Lab) -> Measurement:
    images = lab.pictures.train[:80].double()
    # A picture of one grey cannot tell filters of equal sum apart.
    grey = images.mean((2, 3), keepdim=True).expand_as(images).contiguous()
    with seeded(lab.seed):
        layer = Conv2d(1, 1, 3, bias=False, dtype=torch.float64)
        errors, learned = [], []
        for target in TARGETS.values():
            errors.append(_learn(layer, images, torch.tensor([[target]], dtype=torch.float64)))
            learned.append(layer.weight.detach()[0, 0].tolist())
        blank = Conv2d(1, 1, 3, bias=False, dtype=torch.float64)
        missed = _learn(blank, grey, torch.tensor([[TARGETS["Sobel, x"]]], dtype=torch.float64))
    return Measurement({_ERROR: max(errors), _BLANK: missed}, {"learned": learned})


def _draw(measured: Sequence[Measurement]):
    figure = drawing.figure("One filter, trained three times", 7.4, 3.0)
    for axes, name, weights in zip(figure.subplots(1, 3), TARGETS, measured[0].series["learned"], strict=True):
        drawing.picture(axes, weights, name, "RdBu", (-6, 6))
        for row, line in enumerate(weights):
            for column, weight in enumerate(line):
                axes.text(column, row, f"{round(weight, 4) + 0.0:.4f}", ha="center", va="center", fontsize=8)
    return figure


EXPERIMENT = Experiment(
    name="adaptation",
    claim="Filters are not fixed by hand: the same filter adapts to whatever edge the task needs.",
    done="One 3x3 layer trained on digits to answer as a Sobel filter, then as the other, then as Laplace's.",
    expectations=(at_most(_ERROR, 1e-3), above(_BLANK, 0.1)),
    verdict="holds",
    telling="True, with a condition that goes unsaid: it becomes what the pictures it is shown can tell apart. From "
    "pictures of one grey each the same training finds a filter of the right sum and wrong weights.",
    run=_run,
    draw=_draw,
    reading="The weights that one filter ended with after each training, red below and blue above zero: they are the "
    "target's to the digits shown.",
)

"""One layer of attention beside convolutions: what it reaches, what it does not know, what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module, ReLU, Sequential
from torch.utils.flop_counter import FlopCounterMode

from ...nn import Conv2d
from . import drawing
from .experiment import Experiment, Measurement, above, at_most, equal
from .lab import Lab
from .marks import LENGTH, ask, convolutions, train
from .training import seeded

_WIDTH, _STEPS, _FARTHEST = 16, 150, 24
_ASKED = (1, 2, 4, 5, 8, 12, 16, 24)
_REACH = 4
_FAR = "attention: accuracy, worst of distances 1 to 24"
_NEAR = "4 convolutions: accuracy beyond distance 4"
_BLIND = "largest change of attention's output when everything else changes places"
_SQUARE = "products of attention's scores and sums when the side of a picture doubles, times"
_LINEAR = "products of a convolution, times"


class Attention(Module):
    """Features of each pixel, then every pixel's weighted mean of all pixels, by scaled dot products of one head
    (Vaswani et al. 2017, arXiv:1706.03762), without a code for positions. [n, 1, h, w] to [n, 1, h, w]."""

    def __init__(self) -> None:
        super().__init__()
        self.pixel = Sequential(Conv2d(1, _WIDTH, 1), ReLU(), Conv2d(_WIDTH, 3 * _WIDTH, 1))
        self.read = Linear(2 * _WIDTH, 1)

    def forward(self, images: Tensor) -> Tensor:
        query, key, value = self.pixel(images).flatten(2).transpose(1, 2).chunk(3, 2)
        mixed = mix(query, key, value)
        told = self.read(torch.cat((mixed, F.relu(mixed)), 2))
        return told.transpose(1, 2).view_as(images)


def mix(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """[n, pixels, width] each; the two products of every pixel with every other are what attention costs."""
    scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[2])
    return scores.softmax(2) @ value


@torch.no_grad()
def _order_blind(model: Module) -> float:
    """The change of the output at the left end when all other pixels change places."""
    rows = torch.zeros(1, 1, 1, LENGTH)
    rows[..., 0], rows[..., 5] = 2, 1
    order = torch.cat((torch.zeros(1, dtype=torch.long), torch.randperm(LENGTH - 1) + 1))
    return (model(rows) - model(rows[..., order]))[..., 0].abs().max().item()


def _products(side: int) -> tuple[int, int]:
    """Floating-point operations of attention's two products and of one 3x3 layer, on a picture of that side."""
    pixels = torch.zeros(1, side * side, _WIDTH)
    # Padded before it is counted: a filter's products with zeros are no work of the picture's.
    padded = torch.zeros(1, _WIDTH, side + 2, side + 2)
    layer = Conv2d(_WIDTH, _WIDTH, 3, bias=False)
    counted = []
    for call in (lambda: mix(pixels, pixels, pixels), lambda: layer(padded)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call()
        counted.append(counter.get_total_flops())
    return counted[0], counted[1]


def _run(lab: Lab) -> Measurement:
    with seeded(lab.seed):
        models = {"one layer of attention": Attention(), "4 convolutions of 3": convolutions((1,) * _REACH)}
        for model in models.values():
            train(model, _FARTHEST, lab.seed, _STEPS)
        blind = _order_blind(models["one layer of attention"])
    told = {
        label: [ask(model, distance, 10_000 + lab.seed)[0] for distance in _ASKED] for label, model in models.items()
    }
    sides = (8, 16, 32, 64)
    cost = [_products(side) for side in sides]
    beyond = [value for distance, value in zip(_ASKED, told["4 convolutions of 3"], strict=True) if distance > _REACH]
    return Measurement(
        {
            _FAR: min(told["one layer of attention"]),
            # One value for all of them, or the one that is farthest from chance.
            _NEAR: max(beyond, key=lambda value: abs(value - 0.5)),
            _BLIND: blind,
            _SQUARE: cost[1][0] / cost[0][0],
            _LINEAR: cost[1][1] / cost[0][1],
        },
        {"accuracy": told, "sides": list(sides), "products": [list(row) for row in cost]},
    )  # fmt: skip


def _draw(measured: Sequence[Measurement]):
    figure = drawing.figure("One layer of attention beside convolutions", 10.0, 4.0)
    left, right = figure.subplots(1, 2)
    drawing.curves(left, _ASKED, drawing.collect(measured, "accuracy"))
    drawing.chance(left, 0.5)
    left.set_xlabel("distance of the mark, in pixels")
    left.set_ylabel("accuracy on new rows")
    sides = measured[0].series["sides"]
    attention, convolution = zip(*measured[0].series["products"], strict=True)
    right.loglog(sides, attention, "o-", label="attention, its two products")
    right.loglog(sides, convolution, "s-", label="one 3x3 convolution")
    across = [products * (side - 1) for side, products in zip(sides, convolution, strict=True)]
    right.loglog(sides, across, "^--", label="as many 3x3 as reach across")
    right.set_xticks(sides, [str(side) for side in sides])
    right.set_xticks([], minor=True)
    right.set_xlabel("side of the picture, in pixels")
    right.set_ylabel("floating-point operations, 16 channels")
    right.grid(alpha=0.3)
    right.legend(fontsize=8)
    return figure


EXPERIMENT = Experiment(
    name="attention",
    claim="Attention sees the whole picture at once, where convolutions see only their neighbourhood.",
    done="The task of 'reach' with distances from 1 to 24 at once; the work of both as the picture grows.",
    expectations=(
        above(_FAR, 0.5), equal(_NEAR, 0.5), at_most(_BLIND, 1e-4), equal(_SQUARE, 16), equal(_LINEAR, 4),
    ),
    verdict="holds only at a price",
    telling="It reaches any distance in one layer. But what it sees has no order: without a code for positions, all "
    "other pixels may change places unnoticed. And its work grows with the fourth power of the picture's side, a "
    "convolution's with the square; a stack of 3x3 layers that reaches across grows with the cube, and costs as much "
    "as attention where the side is four times the number of channels.",
    run=_run,
    draw=_draw,
    reading="Left, attention is level where the convolutions fall to chance; right, on logarithmic axes, its line is "
    "twice as steep as the convolution's.",
)  # fmt: skip

"""A task whose answer lies a known distance away: tell the sign of a mark from the place of another one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module, ReLU, Sequential

from ...nn import Conv2d

LENGTH = 40
_ROWS, _RATE = 96, 1e-2


def rows(count: int, distances: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [count, 1, 1, 40], dark but for a 2 and, so far to its right, a mark of 1 or -1. They come in pairs that
    differ in the mark alone, so whoever cannot see it is right in one of each two. ``distances``: [count / 2]. Also
    returned: whether the mark is 1 [count], and the places of the 2 [count], where that is to be told."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    places = (torch.rand(count // 2, generator=random) * (LENGTH - distances)).long().repeat_interleave(2)
    made = torch.zeros(count, 1, 1, LENGTH)
    everywhere = torch.arange(count)
    made[everywhere, 0, 0, places] = 2
    made[everywhere, 0, 0, places + distances.repeat_interleave(2)] = labels.float() * 2 - 1
    return made, labels, places


def convolutions(dilations: Sequence[int], width: int = 12) -> Sequential:
    """A layer of 1x3 filters for each dilation, and one output for each pixel. It reaches as far as their sum."""
    layers: list[Module] = []
    channels = 1
    for dilation in dilations:
        layer = Conv2d(channels, width, (1, 3), padding=(0, dilation), dilation=(1, dilation))
        # Torch's own start shrinks the signal from layer to layer, and deep stacks then learn late.
        torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        layers += [layer, ReLU()]
        channels = width
    return Sequential(*layers, Conv2d(channels, 1, 1))


def train(model: Module, farthest: int, seed: int, steps: int) -> None:
    """Trained on all distances from 1 to ``farthest`` at once, on new rows in every step."""
    optimizer = torch.optim.Adam(model.parameters(), _RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    distances = torch.arange(_ROWS // 2) % farthest + 1
    for step in range(steps):
        shown, labels, places = rows(_ROWS, distances, seed * steps + step)
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(answers(model, shown, places), labels.float()).backward()
        optimizer.step()
        falling.step()


def answers(model: Module, shown: Tensor, places: Tensor) -> Tensor:
    return model(shown)[torch.arange(len(shown)), 0, 0, places]


@torch.no_grad()
def ask(model: Module, distance: int, seed: int) -> tuple[float, float]:
    """On new rows of one distance: the accuracy, and the largest change of the answer when only the mark changes."""
    shown, labels, places = rows(_ROWS, torch.full((_ROWS // 2,), distance), seed)
    told = answers(model, shown, places)
    right = ((told > 0).long() == labels).float().mean().item()
    return right, (told[0::2] - told[1::2]).abs().max().item()

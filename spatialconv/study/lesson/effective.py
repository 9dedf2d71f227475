"""How much of its window an output really looks at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import ReLU, Sequential

from ...nn import Conv2d
from . import drawing
from .experiment import Experiment, Measurement, above, below
from .lab import Lab
from .training import seeded

_DEPTHS, _DRAWS, _WIDTH = (5, 10, 20), 4, 8
_SIDE = 5 + 2 * max(_DEPTHS)
_SHALLOW = "share of the window that holds 95 % of the gradient's energy, 5 layers"
_DEEP = "the same share, 20 layers"
_GROWTH = "width of the energy at 20 layers, of that at 5"


def _energy(depth: int) -> Tensor:
    """The squared gradient of the middle output by every pixel, mean of several random networks, [side, side]; its sum
    is 1."""
    total = torch.zeros(_SIDE, _SIDE)
    for _ in range(_DRAWS):
        layers: list = []
        for _ in range(depth):
            layers += [Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False), ReLU()]
        image = torch.randn(1, _WIDTH, _SIDE, _SIDE, requires_grad=True)
        Sequential(*layers[:-1])(image)[0, 0, _SIDE // 2, _SIDE // 2].backward()
        squared = image.grad[0].pow(2).sum(0)
        total += squared / squared.sum()
    return total / _DRAWS


def _run(lab: Lab) -> Measurement:
    with seeded(lab.seed):
        energies = {depth: _energy(depth) for depth in _DEPTHS}
    away = torch.arange(_SIDE) - _SIDE // 2
    widths = {depth: math.sqrt((energy.sum(0) * away**2).sum().item()) for depth, energy in energies.items()}
    shares = {}
    for depth, energy in energies.items():
        falling = energy.flatten().sort(descending=True).values.cumsum(0)
        shares[depth] = (int((falling < 0.95).sum()) + 1) / (1 + 2 * depth) ** 2
    return Measurement(
        {_SHALLOW: shares[5], _DEEP: shares[20], _GROWTH: widths[20] / widths[5]},
        {
            "share": {"of the window's area": [shares[depth] for depth in _DEPTHS]},
            "energy": [energies[depth].tolist() for depth in _DEPTHS],
        },
    )


def _draw(measured: Sequence[Measurement]):
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    figure = drawing.figure("The window of one output, and what it looks at in it", 10.5, 3.6)
    shares = measured[0].series["share"]["of the window's area"]
    places = figure.subplots(1, len(_DEPTHS))
    for axes, depth, energy, share in zip(places, _DEPTHS, measured[0].series["energy"], shares, strict=True):
        values = torch.tensor(energy)
        shown = axes.imshow((values / values.max()).numpy(), norm=LogNorm(1e-4, 1, clip=True), cmap="magma")
        edge = _SIDE // 2 - depth - 0.5
        axes.add_patch(Rectangle((edge, edge), 1 + 2 * depth, 1 + 2 * depth, fill=False, color="cyan"))
        axes.set_title(f"{depth} layers: 95 % of the energy in {share:.0%} of the window", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(shown, ax=list(places), label="squared gradient, of its largest")
    return figure


EXPERIMENT = Experiment(
    name="effective",
    claim="An output of a deep network sees its whole receptive field, which grows with every layer.",
    done="The gradient's energy over the window of one output, random networks of 5, 10 and 20 layers of 3x3.",
    # Looked at evenly, 95 % of the energy would fill 95 % of the window, and its width grow as the window's, 3.7 times.
    expectations=(below(_SHALLOW, 0.95), below(_DEEP, 0.3), below(_GROWTH, 3.0), above(_GROWTH, 1.0)),
    verdict="holds only for the box",
    telling="The box grows with the depth, but what is looked at is a blob in the middle of it that grows with the "
    "square root of the depth (Luo et al. 2016, arXiv:1701.04128), so of the window it fills less and less. These "
    "networks are random; training can widen the blob.",
    run=_run,
    draw=_draw,
    reading="The cyan box is the receptive field; colour is how much each pixel counts, and it is dark long before the "
    "box ends.",
)

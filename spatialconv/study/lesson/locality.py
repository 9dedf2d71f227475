"""The gradient of one output reaches the pixels of its window, and no other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import Sequential

from ...nn import Conv2d
from . import drawing
from .experiment import Experiment, Measurement, equal
from .lab import Lab
from .training import seeded

_DEPTH, _SIDE = 5, 31
_SPAN = f"pixels across that move one output, {_DEPTH} layers of 3x3"
_OUTSIDE = "largest gradient outside of them"
_HOLES = "columns of 5 that a 3x3 filter of dilation 2 reads"


def _gradient(layers: Sequence[Conv2d], side: int) -> torch.Tensor:
    """The size of the derivative of the middle output with respect to every pixel, [side, side]."""
    image = torch.zeros(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    output = Sequential(*layers)(image)
    output[0, 0, output.shape[2] // 2, output.shape[3] // 2].backward()
    return image.grad[0, 0].abs()


def _layer(**options: int) -> Conv2d:
    """A filter whose weights are all positive, so that nothing cancels."""
    made = Conv2d(1, 1, 3, bias=False, dtype=torch.float64, **options)
    torch.nn.init.uniform_(made.weight, 0.5, 1.0)
    return made


def _run(lab: Lab) -> Measurement:
    with seeded(lab.seed):
        deep = _gradient([_layer(padding=1) for _ in range(_DEPTH)], _SIDE)
        holes = _gradient([_layer(dilation=2)], 5)
    columns = (deep.sum(0) > 0).nonzero().flatten()
    middle, reach = _SIDE // 2, _DEPTH
    inside = torch.zeros_like(deep, dtype=torch.bool)
    inside[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1] = True
    return Measurement(
        {
            _SPAN: (columns[-1] - columns[0] + 1).item(),
            _OUTSIDE: deep[~inside].max().item(),
            _HOLES: (holes.sum(0) > 0).sum().item(),
        },
        {"gradient": (deep / deep.max()).tolist()},
    )


def _draw(measured: Sequence[Measurement]):
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    figure = drawing.figure(f"What one output sees through {_DEPTH} layers of 3x3", 5.4, 4.6)
    axes = figure.subplots()
    values = torch.tensor(measured[0].series["gradient"])
    shown = axes.imshow(values.where(values > 0, torch.nan).numpy(), norm=LogNorm(), cmap="viridis")
    edge = _SIDE // 2 - _DEPTH - 0.5
    axes.add_patch(Rectangle((edge, edge), 2 * _DEPTH + 1, 2 * _DEPTH + 1, fill=False, color="red"))
    axes.set_xlabel("column")
    axes.set_ylabel("row")
    figure.colorbar(shown, label="gradient, of its largest")
    return figure


EXPERIMENT = Experiment(
    name="locality",
    claim="A sliding filter is local: an output depends on a small window of the picture.",
    done="The gradient of the middle output with respect to every pixel, through filters of positive weights.",
    expectations=(equal(_SPAN, 1 + 2 * _DEPTH), equal(_OUTSIDE, 0.0), equal(_HOLES, 3)),
    verdict="holds",
    telling="Exactly so, and by construction: outside of the window the derivative is 0, not small. The window of a "
    "dilated filter has holes, though: of 5 columns 3 are read.",
    run=_run,
    draw=_draw,
    reading="Colour is how strongly a pixel moves the output; white pixels outside of the red box have a gradient of "
    "exactly zero.",
)

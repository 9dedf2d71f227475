"""How large the output of a valid 3x3 window is, which drawings get wrong."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...nn import Conv2d
from . import drawing
from .experiment import Experiment, Measurement, equal
from .lab import Lab

_DRAWN = {(5, 7): (4, 4), (4, 12): (3, 6)}
_ROWS = {size: f"rows of the output, input of {size[0]}x{size[1]}" for size in _DRAWN}
_COLUMNS = {size: f"columns of the output, input of {size[0]}x{size[1]}" for size in _DRAWN}
_READ = "pixels that one output of a 3x3 window reads"


def _run(lab: Lab) -> Measurement:
    layer = Conv2d(1, 1, 3, bias=False)
    torch.nn.init.ones_(layer.weight)
    figures: dict[str, float] = {}
    reads: dict[str, list[list[float]]] = {}
    for size in _DRAWN:
        image = torch.zeros(1, 1, *size, requires_grad=True)
        output = layer(image)
        figures[_ROWS[size]], figures[_COLUMNS[size]] = output.shape[2:]
        output.sum().backward()
        reads["{}x{}".format(*size)] = image.grad[0, 0].tolist()
    image.grad = None
    layer(image)[0, 0, 0, 0].backward()
    figures[_READ] = (image.grad != 0).sum().item()
    return Measurement(figures, {"reads": reads})


def _draw(measured: Sequence[Measurement]):
    figure = drawing.figure("How many outputs of a valid 3x3 window read each pixel", 9.0, 3.0)
    shown = measured[0].series["reads"]
    for axes, (size, values) in zip(figure.subplots(1, len(shown), width_ratios=(7, 12)), shown.items(), strict=True):
        rows, columns = (int(side) - 2 for side in size.split("x"))
        drawing.picture(axes, values, f"input {size}, output {rows}x{columns}", "Blues", (0, 14))
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8)
    return figure


EXPERIMENT = Experiment(
    name="sizes",
    claim="As drawn in introductions: a 3x3 window sliding over 5x7 pixels gives 4x4 outputs, over 4x12 gives 3x6.",
    done="The layer is run on both, and the gradient says which pixels an output reads.",
    expectations=(
        equal(_ROWS[5, 7], 3), equal(_COLUMNS[5, 7], 5), equal(_ROWS[4, 12], 2), equal(_COLUMNS[4, 12], 10),
        equal(_READ, 9),
    ),
    verdict="wrong as told",
    telling="Without padding a 3x3 window fits into n pixels n - 2 times: 5x7 gives 3x5, and 4x12 gives 2x10. A window "
    "drawn as three pixels in a row is a 3x1 one; a 3x3 window reads nine.",
    run=_run,
    draw=_draw,
    reading="The number in a pixel counts the outputs that read it, nine in the middle and one in a corner.",
)  # fmt: skip

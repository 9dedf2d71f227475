"""Move the input: does the output move with it, and nothing else happen?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import ReLU, Sequential

from ...nn import Conv2d
from . import drawing
from .digits import on_canvas
from .experiment import Experiment, Measurement, above, at_most
from .lab import Lab
from .training import seeded

MODES = ("circular", "zeros", "reflect", "replicate")
_SIDE, _DEPTH = 24, 3
# Rounding of float32, also where a kernel sums in another order at another place.
_ROUNDING = 1e-5
_CIRCULAR = "relative error under a shift of 1, circular padding"
_PADDED = "relative error, least of zeros, reflect and replicate"
_INSIDE = "relative error farther than the depth from the border, worst of all paddings"
_WHOLE = "stride 2, shift of 2: relative error"
_HALF = "stride 2, shift of 1: relative error to the nearest shift of the output"


def _stack(mode: str) -> Sequential:
    layers: list = []
    for channels in (1, 8, 8):
        layers += [Conv2d(channels, 8, 3, padding=1, padding_mode=mode), ReLU()]
    return Sequential(*layers[:-1])


def _relative(error: Tensor, output: Tensor) -> float:
    return (error.norm() / output.norm()).item()


@torch.no_grad()
def _run(lab: Lab) -> Measurement:
    # Noise around the digit, so that there is something at the border too.
    with seeded(lab.seed):
        image = on_canvas(lab.pictures.test[:1], _SIDE) + 0.5 * torch.rand(1, 1, _SIDE, _SIDE)
        stacks = {mode: _stack(mode) for mode in MODES}
        strided = Conv2d(1, 8, 3, stride=2, padding=1, padding_mode="circular")
    whole, inside, maps = {}, {}, {}
    for mode, stack in stacks.items():
        output = stack(image)
        error = stack(image.roll(1, 3)) - output.roll(1, 3)
        whole[mode] = _relative(error, output)
        # The roll itself brings one column across the border, so one more is left out.
        kept = slice(_DEPTH + 1, _SIDE - _DEPTH - 1)
        inside[mode] = _relative(error[..., kept, kept], output[..., kept, kept])
        maps[mode] = (error.abs().amax((0, 1)) / output.abs().max()).tolist()
    output = strided(image)
    moved = strided(image.roll(1, 3))
    half = min(_relative(moved - output.roll(step, 3), output) for step in (0, 1))
    shifts = [_relative(strided(image.roll(by, 3)) - output.roll(by // 2, 3), output) for by in range(7)]
    return Measurement(
        {
            _CIRCULAR: whole["circular"],
            _PADDED: min(whole[mode] for mode in MODES[1:]),
            _INSIDE: max(inside.values()),
            _WHOLE: shifts[2],
            _HALF: half,
        },
        {"maps": maps, "strided": {"stride 2": shifts}},
    )


def _draw(measured: Sequence[Measurement]):
    from matplotlib.colors import LogNorm

    figure = drawing.figure(f"{_DEPTH} layers of 3x3, input moved by one pixel: where the output is not the moved one",
                            11.0, 3.2)  # fmt: skip
    places = figure.subplots(1, len(MODES))
    for axes, (mode, values) in zip(places, measured[0].series["maps"].items(), strict=True):
        shown = axes.imshow(values, norm=LogNorm(1e-8, 1, clip=True), cmap="magma")
        axes.set_title(mode, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(shown, ax=list(places), label="error, of the largest output")
    return figure


EXPERIMENT = Experiment(
    name="equivariance",
    claim="A convolutional network is shift equivariant: move the input and the output moves with it.",
    done="Three untrained layers on a noisy digit, with four kinds of padding; one layer of stride 2.",
    expectations=(
        at_most(_CIRCULAR, _ROUNDING),
        above(_PADDED, 0.001),
        at_most(_INSIDE, _ROUNDING),
        at_most(_WHOLE, _ROUNDING),
        above(_HALF, 0.05),
    ),
    verdict="holds only away from the border, and for shifts by multiples of the stride",
    telling="Every padding but the circular one breaks it near the border, in a frame as wide as the layers are "
    "deep; a stride keeps it for its own multiples alone, and between them gives another map, not a moved one. And "
    "equivariance is not invariance: that takes a sum or a maximum over all places at the end.",
    run=_run,
    draw=_draw,
    reading="Bright places are wrong under the shift: bands at the borders that it crosses, nothing but rounding "
    "inside, and nothing but rounding anywhere with circular padding.",
)

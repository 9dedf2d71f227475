"""Filters as what they let pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...functional import conv2d
from ...nn import BlurPool2d
from . import drawing
from .digits import on_canvas
from .experiment import Experiment, Measurement, above, at_most, equal
from .lab import Lab
from .training import seeded

_SIDE, _KERNEL, _SHOWN = 32, 5, 6
_THEOREM = "circular: largest difference from a product of spectra, float64"
_TURNED = "the same without the conjugate, relative"
_ZEROS = "zero padding: relative difference from the product of spectra"
_FINEST = "what a blur of 1 2 1 leaves of the finest stripes"
_PEAK = "learned filters: strongest response, in that to a constant picture, median"


def spectrum(kernel: Tensor, side: int) -> Tensor:
    """The spectrum of filters [.., kh, kw] with their middles at the origin, [.., side, side]."""
    high, wide = kernel.shape[-2:]
    padded = F.pad(kernel, (0, side - wide, 0, side - high))
    return torch.fft.fft2(padded.roll((-(high // 2), -(wide // 2)), (-2, -1)))


def _run(lab: Lab) -> Measurement:
    half = _KERNEL // 2
    with seeded(lab.seed):
        image = on_canvas(lab.pictures.test[:1].double(), _SIDE) + torch.rand(1, 1, _SIDE, _SIDE, dtype=torch.float64)
        kernel = torch.randn(1, 1, _KERNEL, _KERNEL, dtype=torch.float64)
    circular = conv2d(F.pad(image, (half,) * 4, mode="circular"), kernel)
    zeros = conv2d(image, kernel, padding=half)
    of_image, of_kernel = torch.fft.fft2(image), spectrum(kernel, _SIDE)
    # A layer correlates: it does not turn its filter around, and the conjugate stands for that.
    product = torch.fft.ifft2(of_image * of_kernel.conj()).real
    unturned = torch.fft.ifft2(of_image * of_kernel).real
    row, column = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    stripes = ((row + column) % 2 * 2.0 - 1)[None, None]
    learned = spectrum(lab.plain[0].weight.detach()[:, 0], _SIDE).abs()
    return Measurement(
        {
            _THEOREM: (circular - product).abs().max().item(),
            _TURNED: ((circular - unturned).norm() / circular.norm()).item(),
            _ZEROS: ((zeros - product).norm() / zeros.norm()).item(),
            _FINEST: BlurPool2d(1, 3, stride=1, padding_mode="circular")(stripes).abs().max().item(),
            _PEAK: (learned.amax((1, 2)) / learned[:, 0, 0]).median().item(),
        },
        {"learned": [torch.fft.fftshift(one).tolist() for one in learned[:_SHOWN]]},
    )


def _draw(measured: Sequence[Measurement]):
    figure = drawing.figure("What six learned filters of the first layer let pass", 8.0, 5.2)
    shown = measured[0].series["learned"]
    for axes, values in zip(figure.subplots(2, _SHOWN // 2).flat, shown, strict=True):
        peak = max(map(max, values))
        image = axes.imshow([[value / peak for value in row] for row in values], extent=(-0.5, 0.5, 0.5, -0.5),
                            cmap="viridis", vmin=0, vmax=1)  # fmt: skip
        axes.set_xlabel("cycles per pixel, across", fontsize=7)
        axes.set_ylabel("down", fontsize=7)
        axes.tick_params(labelsize=6)
    figure.colorbar(image, ax=figure.axes, label="response, of the filter's greatest")
    return figure


EXPERIMENT = Experiment(
    name="fourier",
    claim="A convolution is a product of spectra: each filter lets some frequencies pass.",
    done="One layer against the product of Fourier transforms in float64; responses of filters learned on digits.",
    expectations=(
        at_most(_THEOREM, 1e-12), above(_TURNED, 0.1), above(_ZEROS, 0.003), equal(_FINEST, 0.0), above(_PEAK, 1.0),
    ),
    verdict="holds only with circular padding",
    telling="With it, to the last digits, and with a conjugate, for layers correlate and do not turn their filter "
    "around. Zeros at the border make a difference. And learned filters are not all edge filters: most let "
    "something pass of a constant picture, though it is rarely what they let pass best.",
    run=_run,
    draw=_draw,
    reading="The middle of a square is the response to a constant picture, its corners that to the finest "
    "checkerboard; a dark middle with bright sides is an edge filter.",
)  # fmt: skip

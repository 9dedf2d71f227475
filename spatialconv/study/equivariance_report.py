"""Whether a model's maps follow their picture, layer by layer, as tables and a picture of the error."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .equivariance import ROUNDING, Error, Judged, first_worse, judge
from .report import Picture, Report, Table
from .transforms import GROUPS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DTYPES = {"f32": torch.float32, "f64": torch.float64}
# Sides beyond the given one on which a model that fails to follow turns or mirrors is tried again.
_MORE_SIDES = 4
_PANELS = 4


def report(
    model: nn.Module, shape: tuple[int, int, int, int], groups: tuple[str, ...], dtype: str = "f64", seed: int = 0
) -> Report:
    """The report of a copy of the model, converted to the element type, on a normal random picture of a shape
    [n, c, h, w]. ValueError as in ``judge``."""
    if unknown := [group for group in groups if group not in GROUPS]:
        raise ValueError(f"study: equivariance: group: expected {', '.join(GROUPS)}, got {', '.join(unknown)}")
    kind = DTYPES[dtype]
    model, picture = copy.deepcopy(model).to(kind), _random(shape, kind, seed)
    found = Report({"input": list(shape), "dtype": str(kind).removeprefix("torch."), "groups": {}})
    for group in groups:
        layers = judge(model, picture, group)
        final, culprit = layers[-1], first_worse(layers)
        found.data["groups"][group] = {
            "verdict": final.verdict, "border": final.width, "stride": list(final.stride), "bitwise": final.bitwise,
            "first_worse": culprit.name if culprit else None, "layers": [_data(layer) for layer in layers],
        }  # fmt: skip
        found.tables += [_layers_table(group, layers), _elements_table(group, final)]
        found.notes.append(f"{group}: {final.text()}{_blame(layers)}.")
        if final.verdict == "broken" and group != "shift":
            found.notes += _other_sides(model, shape, group, kind, seed)
        found.pictures.append(_picture(group, layers, picture))
    return found


def _random(shape: tuple[int, ...], kind: torch.dtype, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(kind)


def _blame(layers: list[Judged]) -> str:
    culprit = first_worse(layers)
    if culprit is None or len(layers) == 1:
        return ""
    if culprit is layers[-1]:
        return "; every layer is better than that, so it is what the model does between or after them"
    return f"; {culprit.name} ({culprit.kind}) is the first layer of which this is true"


def _data(layer: Judged) -> dict[str, object]:
    return {
        "name": layer.name, "kind": layer.kind, "verdict": layer.verdict, "border": layer.width,
        "stride": list(layer.stride), "bitwise": layer.bitwise,
        "errors": [
            {
                "element": error.element, "relative": error.relative, "largest": error.whole, "aligned": error.aligned,
                "channels": error.channels,
            }
            for error in layer.errors
        ],
    }  # fmt: skip


def _layers_table(group: str, layers: list[Judged]) -> Table:
    rows = []
    for layer in layers:
        aligned = [error for error in layer.errors if error.aligned]
        others = [error.relative for error in layer.errors if not error.aligned]
        channels = sorted({error.channels for error in aligned} - {"planes"})
        largest = max((error.relative for error in aligned), default=None), max(others, default=None)
        stride = f"{layer.stride[0]}, {layer.stride[1]}"
        rows.append((layer.name, layer.kind, stride, layer.text(), *largest, ", ".join(channels)))
    columns = ("layer", "kind", "stride", "verdict", "error", "error between strides", "channels")
    title = f"{group}: |f(g x) - g f(x)| / |f(x)|, the largest over elements; without what a shift brought around"
    return Table(title, columns, tuple(rows))


def _elements_table(group: str, final: Judged) -> Table:
    rows = tuple(
        (error.element, "yes" if error.aligned else "no", error.relative, error.whole) for error in final.errors
    )
    return Table(f"{group}: the output", ("element", "aligned", "error", "largest, of the mean square"), rows)


def _other_sides(model: nn.Module, shape: tuple[int, ...], group: str, kind, seed: int) -> list[str]:
    """Whether the model follows on a slightly larger picture: a stride takes a symmetric grid on some sides only."""
    for more in range(1, _MORE_SIDES + 1):
        n, c, h, w = shape
        try:
            layers = judge(model, _random((n, c, h + more, w + more), kind, seed), group)
        except ValueError:
            return []
        if layers[-1].verdict != "broken":
            return [
                f"On a picture of {h + more} x {w + more} it is {layers[-1].text()}: a stride meets a symmetric grid "
                "of places only where (side + 2*padding - dilation*(kernel - 1) - 1) is a multiple of it."
            ]
    return []


def _picture(group: str, layers: list[Judged], picture: Tensor) -> Picture:
    shown = next((layer for layer in reversed(layers) if layer.errors[0].map.numel() > 1), layers[-1])
    reading = (
        f"Each panel is the map of {shown.name} after one {group}: white places are exactly as they ought to be, the "
        "colour is the error as a multiple of the map's root mean square."
    )
    return Picture(f"equivariance-{group}", lambda: _draw(group, shown, ROUNDING.get(picture.dtype, 1e-2)), reading)


def _chosen(layer: Judged) -> list[Error]:
    """Aligned elements, first the last one, a shift along both axes, and elements between strides."""
    aligned = [error for error in layer.errors if error.aligned]
    aligned = aligned[-1:] + aligned[:-1]
    others = [error for error in layer.errors if not error.aligned]
    kept = others[: _PANELS // 2]
    return (aligned[: _PANELS - len(kept)] + kept)[:_PANELS]


def _draw(group: str, layer: Judged, allowed: float) -> Figure:
    import numpy as np
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    errors = _chosen(layer)
    figure = Figure(figsize=(2.9 * len(errors) + 1, 3.9), layout="constrained")
    axes = figure.subplots(1, len(errors), squeeze=False)[0]
    shown = None
    for axis, error in zip(axes, errors, strict=True):
        values = error.map.numpy()
        shown = axis.imshow(np.where(values > 0, values, np.nan), cmap="viridis", norm=LogNorm(1e-16, 10))
        exact = "aligned" if error.aligned else "between strides"
        worst = "exactly 0 everywhere" if values.max() == 0 else f"largest {values.max():.1e}"
        axis.set_title(f"{error.element}{f', {exact}' if group == 'shift' else ''}\n{worst}", fontsize=8)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axis.tick_params(labelsize=7)
    bar = figure.colorbar(shown, ax=list(axes), label="error / root mean square", shrink=0.85)
    bar.ax.axhline(allowed, color="red", linewidth=1)
    figure.suptitle(f"{layer.name}: {layer.text()}   (red line: what counts as rounding)", fontsize=9)
    return figure

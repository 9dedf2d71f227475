"""The receptive field of a model by formula and by gradient, which must agree, as tables and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from . import field, field_gradient
from .model_counts import evaluating
from .report import Picture, Report, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_FINE = 8


@dataclass(frozen=True)
class Found:
    """``layers``: name and field by formula, empty where ``reason`` says why; ``seen``: by gradient, [h, w];
    ``differing``: pixels on which the two disagree, None where they were not compared."""

    place: tuple[int, int]
    layers: tuple[tuple[str, field.Field], ...]
    reason: str
    seen: np.ndarray
    differing: int | None
    effective: field_gradient.Effective


def find(model: nn.Module, shape: tuple[int, int, int, int], place: tuple[int, int] | None, seed: int = 0) -> Found:
    """Both receptive fields of one output place (None: the middle one) for inputs of a shape [n, c, h, w].

    Raises ValueError where the model cannot take such an input, and for a place outside of its output.
    """
    generator = torch.Generator().manual_seed(seed)
    input = torch.zeros(1, *shape[1:])
    try:
        with torch.no_grad(), evaluating(model):
            output = model(input)
    except Exception as error:  # the user's own model may raise anything
        raise ValueError(f"study: field: the model fails on {tuple(input.shape)}: {error}") from error
    place = field_gradient.centre_of(output) if place is None else place
    seen = field_gradient.seen(model, input, place, generator)
    layers, reason, differing = (), "", None
    try:
        with evaluating(model):
            layers = tuple(field.of_model(model))
            by_formula = field.seen(model, input, place)
        clipped = not _inside(layers[-1][1], place, shape[2:])
        if clipped and _wraps(model):
            reason = "the field leaves the picture, where padding other than with zeros shows pixels again"
        else:
            differing = int((by_formula != seen).sum())
    except ValueError as error:
        reason = str(error).removeprefix("study: field: ")
    effective = field_gradient.effective(model, input, place, int(seen.sum()), generator)
    return Found(place, layers, reason, seen, differing, effective)


def _inside(found: field.Field, place: tuple[int, int], picture: tuple[int, int]) -> bool:
    if found.everything:
        return True
    first = [jump * at + start for jump, at, start in zip(found.jump, place, found.start, strict=True)]
    return all(low >= 0 and low + size <= extent for low, size, extent in zip(first, found.size, picture, strict=True))


def _wraps(model: nn.Module) -> bool:
    return any(getattr(module, "padding_mode", "zeros") != "zeros" for module in model.modules())


def report(model: nn.Module, shape: tuple[int, int, int, int], place: tuple[int, int] | None, seed: int = 0) -> Report:
    """The report of ``find``; it fails where formula and gradient differ."""
    found = find(model, shape, place, seed)
    seen, energy = found.seen, found.effective
    data: dict[str, object] = {
        "input": list(shape), "place": list(found.place), "seen_pixels": int(seen.sum()), "seen_box": _box(seen),
        "differing_pixels": found.differing, "not_by_formula": found.reason,
        "layers": [{"name": name} | _data(one) for name, one in found.layers],
        "effective": {"share_of_seen_for_95_percent": energy.share, "deviation": list(energy.deviation)},
    }  # fmt: skip
    tables = [_layers_table(found)] if found.layers else []
    rows = [
        ("output place", f"{found.place}"),
        ("pixels that it can see, by gradient", int(seen.sum())),
        ("of them in the box", _words(_box(seen))),
        ("pixels on which formula and gradient differ", "not compared" if found.differing is None else found.differing),
        ("share of them that holds 95 % of the gradient's energy", f"{energy.share:.1%}"),
        ("standard deviation of the energy, rows and columns", "{:.2f}, {:.2f} px".format(*energy.deviation)),
    ]
    tables.append(Table(f"one output on a picture of {shape[2]} x {shape[3]}", ("what", "value"), tuple(rows)))
    notes = [f"By formula: {found.reason}."] if found.reason else []
    if found.differing:
        notes.append("Formula and gradient DIFFER: the layers are not what their names say, or see less than a window.")
    if found.layers and not found.layers[-1][1].everything and found.layers[-1][1].holes:
        last = found.layers[-1][1]
        notes.append(f"Dilation or stride leaves {last.holes:,} of {last.mask.size:,} pixels of the box unseen.")
    return Report(data, tables, notes, [_picture(found)], failed=bool(found.differing))


def _data(one: field.Field) -> dict[str, object]:
    if one.everything:
        return {"everything": True}
    return {
        "everything": False, "size": list(one.size), "jump": list(one.jump), "start": list(one.start),
        "centre": list(one.centre()), "holes": one.holes,
    }  # fmt: skip


def _layers_table(found: Found) -> Table:
    rows = []
    for name, one in found.layers:
        if one.everything:
            rows.append((name, "whole picture", "", "", "", ""))
            continue
        cells = (_pair(one.size), _pair(one.jump), _pair(one.start), "{:g}, {:g}".format(*one.centre()))
        rows.append((name, *cells, f"{one.holes:,}"))
    columns = ("map", "field", "jump", "start of output 0", "centre of output 0", "holes")
    return Table("by formula, pixels of the input (rows, columns)", columns, tuple(rows))


def _pair(values: tuple[int, int]) -> str:
    return f"{values[0]}, {values[1]}"


def _box(seen: np.ndarray) -> list[int]:
    """First row, first column, rows and columns of what is seen; zeros where nothing is."""
    rows, columns = np.nonzero(seen)
    if not len(rows):
        return [0, 0, 0, 0]
    top, left = int(rows.min()), int(columns.min())
    return [top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1]


def _words(box: list[int]) -> str:
    return f"{box[2]} x {box[3]} from ({box[0]}, {box[1]}) on"


def _picture(found: Found) -> Picture:
    reading = (
        "The red box holds all that this output can see at all, the colour is how strongly each pixel moves it, and "
        "the white line surrounds the strongest pixels, which hold 95 % of that."
    )
    return Picture("field", lambda: _draw(found), reading)


def _draw(found: Found) -> Figure:
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle

    energy, box = found.effective.energy, _box(found.seen)
    figure = Figure(figsize=(6.6, 5.8), layout="constrained")
    axis = figure.subplots()
    highest = float(energy.max()) or 1.0
    shown = axis.imshow(
        np.where(energy > 0, energy / highest, np.nan), cmap="viridis", norm=LogNorm(1e-6, 1), interpolation="nearest"
    )
    axis.set_facecolor("gainsboro")
    level = _level(energy)
    if 0 < level < highest and min(energy.shape) > 1:
        # Finer than pixels, so that the line runs along their edges.
        fine = np.kron(energy >= level, np.ones((_FINE, _FINE)))
        columns, rows = ((np.arange(size) + 0.5) / _FINE - 0.5 for size in reversed(fine.shape))
        axis.contour(columns, rows, fine, levels=[0.5], colors="white", linewidths=1)
    axis.add_patch(
        Rectangle((box[1] - 0.5, box[0] - 0.5), box[3], box[2], fill=False, edgecolor="tab:red", linewidth=2)
    )
    title = f"output {found.place}: box {box[2]} x {box[3]}, 95 % of the energy in"
    axis.set_title(f"{title} {found.effective.share:.0%} of what is seen", fontsize=9)
    axis.set_xlabel("column of the input")
    axis.set_ylabel("row of the input")
    figure.colorbar(shown, ax=axis, label="mean squared gradient / largest", extend="min")
    figure.legend(
        handles=[
            Line2D([], [], color="tab:red", linewidth=2, label="all that can be seen"),
            Patch(facecolor="none", edgecolor="black", linewidth=0.6, label="inside the white line: 95 %"),
            Patch(facecolor="gainsboro", label="no gradient at all"),
        ],
        fontsize=7, loc="outside lower center", ncols=3,
    )  # fmt: skip
    return figure


def _level(energy: np.ndarray) -> float:
    """The energy of the weakest of the strongest pixels that hold 95 %."""
    ordered = np.sort(energy.ravel())[::-1]
    if ordered.sum() == 0:
        return 0.0
    return float(ordered[int(np.searchsorted(ordered.cumsum(), 0.95 * ordered.sum()))])

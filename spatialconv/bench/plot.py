"""Results as pictures: every layer's ratio to the peer with its bounds, and every class's share of the roofline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .goals import DONE_SHARE, class_of, geometric_mean
from .results import geometric_means
from .suites import PASSES
from .table import short

_MARKERS = "osD^vP*X"
_TICKS = [step * 10.0**power for power in range(-4, 5) for step in (1, 2, 5)]


def draw(rows: Sequence[dict], peer: str, path: Path, title: str) -> Path:
    """Write a PNG; layers from top to bottom, ratio on a logarithmic axis, right of the line is faster than the peer.

    Raises ImportError where matplotlib is missing.
    """
    from matplotlib.figure import Figure

    good = [row for row in rows if row["status"] == "ok" and row["peers"].get(peer, {}).get("ratio")]
    passes = [name for name in PASSES if any(row["pass"] == name for row in good)]
    layers = list(dict.fromkeys((short(row["layer"]), row["class"]) for row in good))
    series = list(dict.fromkeys((row["backend"], row["dtype"], row["layout"]) for row in good))
    figure = Figure(figsize=(4.4 + 3.6 * max(len(passes), 1), 1.8 + 0.27 * max(len(layers), 4)), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(1, max(len(passes), 1), sharey=True, squeeze=False)[0]
    for axis, pass_name in zip(axes, passes, strict=False):
        for number, (backend, dtype, layout) in enumerate(series):
            mine = [
                row for row in good
                if (row["pass"], row["backend"], row["dtype"], row["layout"]) == (pass_name, backend, dtype, layout)
            ]  # fmt: skip
            if not mine:
                continue
            entries = [row["peers"][peer] for row in mine]
            shift = (number - (len(series) - 1) / 2) * 0.7 / max(len(series), 1)
            mean = geometric_means(mine, peer)[backend, layout, pass_name, "all"][0]
            axis.errorbar(
                [entry["ratio"] for entry in entries],
                [layers.index((short(row["layer"]), row["class"])) + shift for row in mine],
                xerr=[
                    [max(entry["ratio"] - entry["low"], 0.0) for entry in entries],
                    [max(entry["high"] - entry["ratio"], 0.0) for entry in entries],
                ],
                fmt=_MARKERS[number % len(_MARKERS)],
                markersize=4,
                linewidth=1,
                label=f"{backend} {dtype} {layout}: {mean:.2f}x",
            )
        axis.axvline(1.0, color="black", linewidth=0.8)
        axis.set_xscale("log")
        first, last = axis.get_xlim()
        ticks = [tick for tick in _TICKS if first <= tick <= last]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=7)
        axis.set_xticks([], minor=True)
        axis.set_title(pass_name, fontsize=10)
        axis.set_xlabel(f"{peer} time / ours   (right: we are faster)", fontsize=8)
        axis.grid(axis="x", which="both", alpha=0.25)
        axis.grid(axis="y", alpha=0.12)
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.06 - 0.6 / max(len(layers), 4)))
    labels = [f"{layer}  [{kind}]" for layer, kind in layers]
    axes[0].set_yticks(range(len(layers)), labels, fontsize=7)
    axes[0].set_ylim(max(len(layers), 1) - 0.5, -0.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    return path


_BOUNDS = {"arithmetic": "tab:red", "memory": "tab:blue"}


def draw_shares(rows: Sequence[dict], path: Path, title: str) -> Path:
    """Write a PNG: of every class the share of the roofline reached, a point a layer and a bar at their mean, coloured
    by what limits the layer.

    Raises ImportError where matplotlib is missing.
    """
    from matplotlib.figure import Figure

    good = [row for row in rows if row["status"] == "ok"]
    panels = [
        (name, layout) for name in PASSES for layout in ("nchw", "nhwc")
        if any((row["pass"], row["layout"]) == (name, layout) for row in good)
    ]  # fmt: skip
    classes = sorted({class_of(row) for row in good})
    columns, height = max(len(panels), 1), max(len(classes), 3)
    figure = Figure(figsize=(2.6 + 2.3 * columns, 1.6 + 0.3 * height), layout="constrained")
    figure.suptitle(f"{title}: share of the roofline", fontsize=11)
    axes = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    for axis, (pass_name, layout) in zip(axes, panels, strict=False):
        mine = [row for row in good if (row["pass"], row["layout"]) == (pass_name, layout)]
        for bound, colour in _BOUNDS.items():
            bounded = [row for row in mine if row["roofline"]["bound"] == bound]
            places = [classes.index(class_of(row)) for row in bounded]
            shares = [100 * row["roofline"]["share"] for row in bounded]
            axis.plot(shares, places, ".", color=colour, alpha=0.5, label=f"limited by {bound}")
        for place, name in enumerate(classes):
            shares = [row["roofline"]["share"] for row in mine if class_of(row) == name]
            if shares:
                axis.barh(place, 100 * geometric_mean(shares), color="lightgrey", height=0.7, zorder=0)
        axis.axvline(100 * DONE_SHARE, color="black", linewidth=0.8, linestyle=":")
        axis.set_title(f"{pass_name} {layout}", fontsize=9)
        axis.set_xlim(0, 120)
        axis.tick_params(labelsize=7)
        axis.grid(axis="x", alpha=0.25)
    axes[0].set_yticks(range(len(classes)), classes, fontsize=7)
    axes[0].set_ylim(height - 0.5, -0.5)
    axes[0].legend(fontsize=6, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    return path

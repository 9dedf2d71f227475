"""The pictures of traces. Each is drawn on demand, with the sentence that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from .crowding import stretch
from .nest import Nest
from .report import Picture
from .shape import short
from .trace import Trace

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

COLOURS = {"input": "tab:blue", "weight": "tab:orange", "output": "tab:green", "columns": "tab:purple"}
_MARKERS = {"input": "o", "weight": "s", "output": "^", "columns": "D"}
_SHOWN = 4096


def _figure(width: float, height: float, title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure


def raster(nest: Nest) -> Picture:
    """The first accesses of a nest: time against address, one lane a buffer."""

    def draw() -> Figure:
        accesses = list(islice(nest.addresses(), _SHOWN))
        figure = _figure(10, 1.2 + 1.7 * len(nest.buffers), f"{nest.name}: the first {len(accesses):,} accesses")
        lanes = figure.subplots(len(nest.buffers), 1, sharex=True, squeeze=False)[:, 0]
        for lane, buffer in zip(lanes, nest.buffers, strict=True):
            offsets = [address - buffer.base for name, address, _ in accesses if name == buffer.name]
            unit, word = (1024, "KiB") if max(offsets, default=0) >= 4096 else (1, "bytes")
            lane.set_ylabel(f"{buffer.name}\n{word} from its start", fontsize=8)
            for store, colour, kind in ((False, COLOURS[buffer.name], "load"), (True, "black", "store")):
                points = [
                    (time, (address - buffer.base) / unit)
                    for time, (name, address, stores) in enumerate(accesses)
                    if name == buffer.name and stores == store
                ]
                if points:
                    lane.scatter(*zip(*points, strict=True), s=2.5, marker="s", linewidths=0, color=colour, label=kind)
            lane.tick_params(labelsize=8)
            lane.set_xlim(-len(accesses) / 100, len(accesses) * 1.01)
            lane.margins(y=0.12)
            if lane.has_data():
                lane.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7, markerscale=3)
            else:
                lane.text(0.5, 0.5, "not touched yet", transform=lane.transAxes, ha="center", fontsize=8)
        lanes[-1].set_xlabel("access number", fontsize=8)
        return figure

    reading = (
        "Time runs to the right and addresses upwards, one lane a tensor: level stripes are memory used again, slopes "
        "are memory streamed through, and what repeats far apart has to survive in a cache until then."
    )
    return Picture(f"raster-{nest.name}", draw, reading)


def who_misses(traces: Sequence[Trace]) -> Picture:
    """Misses by nest, tensor and level, as dots on a logarithmic axis."""

    def draw() -> Figure:
        levels = [level.name for level in traces[0].levels]
        problem = short(traces[0].nest.problem)
        figure = _figure(3.4 + 3.2 * len(levels), 1.9 + 0.45 * len(traces), f"{problem}: misses")
        panels = figure.subplots(1, len(levels), sharex=True, sharey=True, squeeze=False)[0]
        names = list(dict.fromkeys(name for one in traces for name in one.accesses))
        for panel, level in zip(panels, levels, strict=True):
            for number, name in enumerate(names):
                rows = [(row, one.misses[name, level]) for row, one in enumerate(traces) if name in one.accesses]
                shift = (number - (len(names) - 1) / 2) * 0.16
                for drawn, filled in (([r for r in rows if r[1]], True), ([r for r in rows if not r[1]], False)):
                    panel.scatter(
                        [max(count, 0.7) for _, count in drawn], [row + shift for row, _ in drawn], s=26,
                        marker=_MARKERS[name], edgecolors=COLOURS[name], label=name if filled else None,
                        facecolors=COLOURS[name] if filled else "none",
                    )  # fmt: skip
            panel.set_xscale("log")
            panel.margins(x=0.06, y=0.12)
            panel.set_title(level, fontsize=9)
            panel.set_xlabel("misses (an empty mark: none)", fontsize=8)
            panel.grid(axis="x", linewidth=0.4)
            for row in range(1, len(traces)):
                panel.axhline(row - 0.5, color="lightgrey", linewidth=0.6)
            panel.tick_params(labelsize=8)
        panels[0].set_yticks(range(len(traces)), [one.nest.name for one in traces])
        panels[0].invert_yaxis()
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
        return figure

    reading = (
        "One mark a tensor, on an axis that grows tenfold from line to line: how far right a mark stands is how often "
        "that tensor is fetched from the next level, and the rightmost mark of a row is what the nest should mend."
    )
    return Picture("misses", draw, reading)


def crowded_sets(traces: Sequence[Trace], crowds: Sequence[np.ndarray]) -> Picture:
    """Lines wanted in each set of the first level by some accesses in a row, as many as one output of a direct nest
    takes."""
    level = traces[0].levels[0]

    def draw() -> Figure:
        title = f"{level}: lines wanted in each set by {stretch(traces[0].nest):,} accesses in a row"
        figure = _figure(10, 1.2 + 1.5 * len(traces), title)
        lanes = figure.subplots(len(traces), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for lane, one, crowd in zip(lanes, traces, crowds, strict=True):
            below = crowd[0] * 0
            for number, buffer in enumerate(one.nest.buffers):
                lane.bar(range(level.sets), crowd[number], 1.0, below, color=COLOURS[buffer.name], label=buffer.name)
                below = below + crowd[number]
            lane.axhline(level.ways, color="black", linewidth=0.9, linestyle="--", label=f"{level.ways} ways")
            lane.set_ylabel(f"{one.nest.name}\nlines", fontsize=8)
            lane.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7)
            lane.tick_params(labelsize=8)
        lanes[-1].set_xlabel("set", fontsize=8)
        return figure

    reading = (
        "Each bar is a set and its height the lines that so many accesses in a row want in it at most: where a bar "
        "passes the dashed line the set cannot hold them all, and they evict each other while other sets stand empty."
    )
    return Picture("sets", draw, reading)


def heat(one: Trace) -> Picture:
    """Misses of the first level at each place of each buffer, summed over what does not fit on paper."""
    level = one.levels[0].name

    def draw() -> Figure:
        import numpy as np
        from matplotlib.colors import LogNorm, Normalize

        buffers = [buffer for buffer in one.nest.buffers if one.heat[buffer.name].any()]
        figure = _figure(1.0 + 4.0 * len(buffers), 4.2, f"{one.nest.name}: misses of {level} by place")
        panels = figure.subplots(1, len(buffers), squeeze=False)[0]
        for panel, buffer in zip(panels, buffers, strict=True):
            plane, across, down, summed = _plane(one.heat[buffer.name], buffer.axes)
            least, most = plane[plane > 0].min(), plane.max()
            norm = LogNorm(least, most) if most >= 2 * least else Normalize(0, most)
            masked = np.ma.masked_equal(plane, 0)
            shown = panel.imshow(masked, norm=norm, aspect="auto", interpolation="nearest", cmap="viridis")
            panel.set_facecolor("lightgrey")
            over = f", summed over {summed}" if summed else ""
            panel.set_title(f"{buffer.name}{over}", fontsize=9)
            panel.set_xlabel(across, fontsize=8)
            panel.set_ylabel(down, fontsize=8)
            panel.tick_params(labelsize=8)
            figure.colorbar(shown, ax=panel, shrink=0.8)
        return figure

    reading = (
        "A place is coloured by how often touching it missed and grey where it never did: a miss brings a whole line, "
        "so it is counted where that line was touched first, and the line's other places come for nothing."
    )
    return Picture(f"heat-{one.nest.name}", draw, reading)


def _plane(values: np.ndarray, axes: tuple[str, ...]) -> tuple[np.ndarray, str, str, str]:
    """An array as a picture: rows and columns of images, filters against their taps, or what lies nearest to that; the
    names of its axes, across and down, and of those summed."""
    if axes[-2:] in (("ih", "iw"), ("oh", "ow")) and len(axes) == 4:
        return values.sum((0, 1)), axes[-1], axes[-2], " ".join(axes[:2])
    if axes[0] == "oh" and len(axes) == 6:
        return values.sum((2, 3, 4, 5)), "ow", "oh", "oc ic kh kw"
    return values.reshape(values.shape[0], -1), " ".join(axes[1:]), axes[0], ""

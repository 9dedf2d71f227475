"""A machine's roofline, the bounds that it sets to a layer, and measured layers under it, as tables and a picture."""

from __future__ import annotations

from dataclasses import asdict
from math import exp, log
from typing import TYPE_CHECKING

from ..problem import Problem
from . import shape
from .counting import Way, count, ways
from .dots import Dot
from .peaks import Peaks, bound
from .report import Picture, Report, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Rows of measured layers that are shown; all are in the JSON.
_SHOWN = 15
_MARKERS = "so^D"


def report(peaks: Peaks, problem: Problem | None = None, dots: list[Dot] | None = None, dtype: str = "f32") -> Report:
    """The report of a roofline, of a layer's bounds on it and of measured dots, of which there may be none."""
    dots = dots or []
    computed = ways(count(problem)) if problem is not None else []
    data: dict[str, object] = {"peaks": asdict(peaks), "dtype": dtype, "dots": [asdict(dot) for dot in dots]}
    tables, notes = [_peaks_table(peaks, dtype)], []
    if problem is not None:
        data["problem"] = str(problem)
        data["bounds"] = {way.name: {"intensity": way.intensity, **asdict(bound(way, peaks))} for way in computed}
        tables.append(_bounds_table(computed, peaks, problem))
        notes.append(
            "A bound is no prediction: it is the least time if every byte moved once and arithmetic never waited."
        )
    if dots:
        tables.append(_dots_table(dots))
        mean = exp(sum(log(dot.share) for dot in dots) / len(dots))
        over = sum(dot.share > 1 for dot in dots)
        notes.append(f"{len(dots)} measured layers reach {mean:.0%} of their bound in the geometric mean.")
        if over:
            notes.append(
                f"{over} of them stand above the bound of a direct algorithm: Winograd's saves multiplications, and "
                "data may come from a faster cache than its size lets expect."
            )
    return Report(data, tables, notes, [_picture(peaks, computed, dots, dtype)])


def _peaks_table(peaks: Peaks, dtype: str) -> Table:
    rows = [(f"arithmetic, {dtype}", "", f"{peaks.flops / 1e9:,.1f} Gop/s", "")]
    for size, rate in peaks.bandwidths:
        corner = f"{peaks.flops / rate:.2f}"
        rows.append(("copying", f"from {size:,} B on", f"{rate / 1e9:,.1f} GB/s", corner))
    title = f"peaks, {peaks.source}"
    return Table(title, ("peak", "working set", "rate", "op/byte from which arithmetic binds"), tuple(rows))


def _bounds_table(computed: list[Way], peaks: Peaks, problem: Problem) -> Table:
    rows = []
    for way in computed:
        limit = bound(way, peaks)
        rows.append(
            (
                way.name, way.operations, way.bytes, way.intensity, limit.bandwidth / 1e9, limit.flops / 1e9,
                limit.seconds * 1e3, limit.by,
            )
        )  # fmt: skip
    columns = ("way", "operations", "bytes", "op/byte", "GB/s there", "bound Gop/s", "least ms", "bound by")
    return Table(f"bounds: {shape.short(problem)}", columns, tuple(rows))


def _dots_table(dots: list[Dot]) -> Table:
    rows = tuple(
        (dot.name, dot.kernel, dot.intensity, dot.flops / 1e9, f"{dot.share:.0%}", dot.lost * 1e3)
        for dot in sorted(dots, key=lambda dot: -dot.lost)[:_SHOWN]
    )
    title = f"most time above their bound, {len(rows)} of {len(dots)} measured layers"
    return Table(title, ("layer", "kernel", "op/byte", "Gop/s", "of the bound", "ms above it"), rows)


def _picture(peaks: Peaks, computed: list[Way], dots: list[Dot], dtype: str) -> Picture:
    reading = (
        "The flat line is the highest rate of arithmetic, each slope the bandwidth of a working set, above which "
        "nothing can stand that moves its bytes once from there"
        + (", and each marker is where a way to compute the layer is bound" if computed else "")
        + (", each dot a layer as it was measured." if dots else ".")
    )
    return Picture("roofline", lambda: _draw(peaks, computed, dots, dtype), reading)


def _draw(peaks: Peaks, computed: list[Way], dots: list[Dot], dtype: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.4), layout="constrained")
    axis = figure.subplots()
    intensities = [way.intensity for way in computed] + [dot.intensity for dot in dots]
    corners = [peaks.flops / rate for _, rate in peaks.bandwidths]
    low, high = min([0.1, *intensities]) / 1.5, max([*corners, *intensities]) * 4
    for number, (size, rate) in enumerate(peaks.bandwidths):
        corner = peaks.flops / rate
        shade = str(0.7 - 0.7 * number / max(len(peaks.bandwidths) - 1, 1))
        label = f"{rate / 1e9:,.0f} GB/s" + (f" from {_size(size)} on" if size else "")
        axis.plot([low, corner], [low * rate / 1e9, peaks.flops / 1e9], color=shade, linewidth=1.2, label=label)
    axis.plot([min(corners), high], [peaks.flops / 1e9] * 2, color="black", linewidth=1.4)
    label = f"{peaks.flops / 1e9:,.0f} Gop/s, {dtype}"
    axis.annotate(label, (high, peaks.flops / 1e9), fontsize=7, ha="right", va="bottom")
    if dots:
        axis.plot(
            [dot.intensity for dot in dots], [dot.flops / 1e9 for dot in dots], ".", color="tab:blue", alpha=0.5,
            label=f"measured ({len(dots)})",
        )  # fmt: skip
    for way, marker in zip(computed, _MARKERS, strict=False):
        height = bound(way, peaks).flops / 1e9
        axis.plot([way.intensity], [height], marker, color="tab:red", label=f"bound of {way.name}", markersize=8)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(low, high)
    axis.set_xlabel("operations a byte, every tensor moved once")
    axis.set_ylabel("1e9 operations a second")
    axis.set_title(f"roofline, peaks {peaks.source}", fontsize=9)
    axis.grid(which="major", alpha=0.25)
    axis.legend(fontsize=7, loc="lower right")
    return figure


def _size(size: int) -> str:
    for unit, factor in (("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:,.0f} {unit}"
    return f"{size} B"

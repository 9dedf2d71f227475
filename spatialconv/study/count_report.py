"""The counts of a layer, or of a model, as tables and pictures."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from ..problem import Conv2dProblem
from . import counting, peaks, shape
from .counting import Counts, Way
from .model_counts import LayerCounts, ModelCounts
from .report import Picture, Report, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def of_layer(counts: Counts, machine: peaks.Peaks | None = None) -> Report:
    """The report of one layer; with a machine's peaks also what they leave each way to compute it."""
    problem, ways = counts.problem, counting.ways(counts)
    convolution = isinstance(problem, Conv2dProblem)
    unit = "MACs" if convolution else "operations"
    data = {
        "problem": str(problem), "macs": counts.macs, "slots": counts.slots, "padding_share": counts.padding_share,
        "pixel_uses": counts.pixel_map(), "tap_uses": counts.tap_map(),
        "never_read_pixels": len(counts.rows) * len(counts.columns) - counts.read_pixels,
        "dead_taps": len(counts.tap_rows) * len(counts.tap_columns) - counts.live_taps,
        "ways": {way.name: _way_data(way, problem.itemsize, machine) for way in ways},
    }  # fmt: skip
    facts = [
        (f"{unit} with a pixel", counts.macs),
        ("with the padding too (slots)", counts.slots),
        ("padding share", f"{counts.padding_share:.2%}"),
        ("pixels of a channel never read", data["never_read_pixels"]),
        ("taps that never meet a pixel", data["dead_taps"]),
    ]
    if convolution:
        data["im2col"] = {"elements": counts.column_elements, "factor": counts.column_factor}
        facts.append(("im2col's matrix, elements", counts.column_elements))
        facts.append(("im2col's matrix / input", counts.column_factor))
    if machine:
        data["peaks"] = asdict(machine)
    tables = [Table(shape.short(problem), ("count", "value"), tuple(facts))]
    tables += [_use_table(ways)] if convolution else []
    tables.append(_byte_table(ways, problem.itemsize, machine))
    pictures = [_pixel_picture(counts)]
    if counts.tap_rows:
        pictures.append(_tap_picture(counts))
    return Report(data, tables, _notes(counts, ways), pictures)


def _way_data(way: Way, itemsize: int, machine: peaks.Peaks | None) -> dict[str, object]:
    data = {
        **asdict(way), "bytes": way.bytes, "intensity": way.intensity,
        "intensity_of_stored": counting.stored_intensity(way, itemsize),
    }  # fmt: skip
    return data | ({"bound": asdict(peaks.bound(way, machine))} if machine else {})


def _use_table(ways: list[Way]) -> Table:
    columns = ("way", "MACs", "weights stored", "weights read", "uses of a weight", "uses of a pixel")
    rows = [
        (way.name, way.macs, way.weights, way.weights_read, _span(way.weight_uses), _span(way.pixel_uses))
        for way in ways
    ]  # fmt: skip
    return Table("what is multiplied, and how often each number is used", columns, tuple(rows))


def _byte_table(ways: list[Way], itemsize: int, machine: peaks.Peaks | None) -> Table:
    # The last column differs from the one before where untied weights stand that only ever meet padding.
    columns = ["way", "x", "w read", "y", "im2col", "all bytes", "op/byte", "op/byte, w stored"]
    if machine:
        columns += ["bound Gop/s", "least ms", "bound by"]
    rows = []
    for way in ways:
        row = [
            way.name, way.input_bytes, way.weight_bytes, way.output_bytes, way.column_bytes, way.bytes, way.intensity,
            counting.stored_intensity(way, itemsize),
        ]  # fmt: skip
        if machine:
            limit = peaks.bound(way, machine)
            row += [limit.flops / 1e9, limit.seconds * 1e3, limit.by]
        rows.append(tuple(row))
    title = "bytes if everything moves once" + (f"; peaks {machine.source}" if machine else "")
    return Table(title, tuple(columns), tuple(rows))


def _span(extent: tuple[int, int]) -> str:
    low, high = extent
    return f"{low:,}" if low == high else f"{low:,}..{high:,}"


def _notes(counts: Counts, ways: list[Way]) -> list[str]:
    notes = []
    if counts.padding_share > 0:
        factor = counts.slots / max(counts.macs, 1)
        notes.append(f"A counter of operations that ignores borders finds {factor:.2f} times as many.")
    if len(ways) > 1 and ways[0].intensity:
        tied, untied = ways[0], ways[1]
        notes.append(
            f"Tied and untied multiply equally often; sharing divides the weights' bytes by "
            f"{untied.weight_bytes / max(tied.weight_bytes, 1):,.0f}, which multiplies the operations a byte by "
            f"{tied.intensity / max(untied.intensity, 1e-30):,.0f}."
        )
    return notes


def _pixel_picture(counts: Counts) -> Picture:
    never = len(counts.rows) * len(counts.columns) - counts.read_pixels
    reading = "Every cell is a pixel of a channel, its colour how many multiplications read it" + (
        f"; the {never:,} hatched ones are never read." if never else "."
    )
    return Picture(
        "count-pixels",
        lambda: _draw(counts.pixel_map(), f"uses per pixel of a channel, {shape.short(counts.problem)}"),
        reading,
    )


def _tap_picture(counts: Counts) -> Picture:
    dead = len(counts.tap_rows) * len(counts.tap_columns) - counts.live_taps
    reading = "Every cell is a tap of the filter, its colour how many positions use that one weight" + (
        f"; the {dead:,} hatched ones only ever meet padding." if dead else "."
    )
    return Picture(
        "count-taps", lambda: _draw(counts.tap_map(), f"uses per tap, {shape.short(counts.problem)}"), reading
    )


def _draw(values: list[list[int]], title: str) -> Figure:
    import textwrap

    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    rows, columns = len(values), len(values[0])
    figure = Figure(figsize=(6.2, 5.4), layout="constrained")
    axis = figure.subplots()
    highest = max(max(row) for row in values)
    shown = axis.imshow(values, cmap="viridis", vmin=0, vmax=max(highest, 1))
    for row in range(rows):
        for column in range(columns):
            value = values[row][column]
            if value == 0:
                corner = (column - 0.5, row - 0.5)
                axis.add_patch(Rectangle(corner, 1, 1, fill=True, facecolor="white", edgecolor="grey", hatch="//"))
            elif max(rows, columns) <= 16:
                colour = "white" if value < 0.6 * highest else "black"
                size = 9 if max(rows, columns) <= 8 else 6
                axis.text(column, row, f"{value:,}", ha="center", va="center", color=colour, fontsize=size)
    axis.set_title(textwrap.fill(title, 70), fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("column")
    axis.set_ylabel("row")
    figure.colorbar(shown, ax=axis, label="uses (scale from 0)")
    return figure


def of_model(model: ModelCounts, title: str) -> Report:
    """The report of a model: a row for every call of a layer, sums, and what was not counted."""
    rows = [_layer_row(layer) for layer in model.counted]
    parameters = sum(layer.parameters * layer.times for layer in model.counted)
    rows.append(("sum of convolutions", "", "", parameters, model.macs, model.slots, _share(model), "", "", None))
    columns = (
        "layer", "times", "shape", "parameters", "MACs or comparisons", "slots", "padding share", "uses of a weight",
        "uses of a pixel", "op/byte",
    )  # fmt: skip
    tables = [Table(title, columns, tuple(rows))]
    left = [layer for layer in model.layers if layer.counts is None]
    if left:
        tables.append(Table("not counted", ("layers", "calls", "parameters", "why"), tuple(_grouped(left))))
    notes = [
        f"Convolutions: {model.macs:,} multiplications with a pixel, {model.slots:,} with the padding's zeros "
        f"({_share(model)} of them)."
    ]
    if model.missed_slots > 0:
        notes.append(
            f"torch's counter saw convolutions of {model.missed_slots:,} more slots than these layers have: some are "
            "called as functions, or by layers that are not counted."
        )
    return Report(_model_data(model), tables, notes, [_model_picture(model)] if model.convolutions() else [])


def _share(model: ModelCounts) -> str:
    return f"{1 - model.macs / model.slots:.2%}" if model.slots else "none"


def _layer_row(layer: LayerCounts) -> tuple[object, ...]:
    counts = layer.counts
    way = counting.ways(counts)[0]
    weight_uses = _span(way.weight_uses) if way.weights else ""
    return (
        layer.name, layer.times, shape.short(counts.problem), layer.parameters, counts.macs, counts.slots,
        f"{counts.padding_share:.2%}", weight_uses, _span(way.pixel_uses), way.intensity,
    )  # fmt: skip


def _grouped(layers: list[LayerCounts]) -> list[tuple[object, ...]]:
    groups: dict[tuple[str, str], list[LayerCounts]] = {}
    for layer in layers:
        groups.setdefault((layer.kind, layer.reason), []).append(layer)
    return [
        (kind, sum(one.times for one in group), sum(one.parameters * one.times for one in group), reason)
        for (kind, reason), group in groups.items()
    ]


def _model_data(model: ModelCounts) -> dict[str, object]:
    layers = []
    for layer in model.layers:
        data = {"name": layer.name, "kind": layer.kind, "parameters": layer.parameters, "times": layer.times}
        if layer.counts is None:
            data["not_counted"] = layer.reason
        else:
            way = counting.ways(layer.counts)[0]
            data.update(
                problem=str(layer.counts.problem), macs=layer.counts.macs, slots=layer.counts.slots,
                padding_share=layer.counts.padding_share, tied=_way_data(way, layer.counts.problem.itemsize, None),
            )  # fmt: skip
        layers.append(data)
    return {
        "layers": layers, "macs": model.macs, "slots": model.slots, "missed_slots": model.missed_slots,
    }  # fmt: skip


def _model_picture(model: ModelCounts) -> Picture:
    def draw() -> Figure:
        from matplotlib.figure import Figure

        layers = model.convolutions()
        figure = Figure(figsize=(8, 1.4 + 0.17 * max(len(layers), 6)), layout="constrained")
        axis = figure.subplots()
        real = [layer.times * layer.counts.macs for layer in layers]
        padding = [layer.times * layer.counts.slots - macs for layer, macs in zip(layers, real, strict=True)]
        places = range(len(layers))
        axis.barh(places, real, color="tab:blue", label="with a pixel")
        axis.barh(places, padding, left=real, color="tab:orange", label="with a zero of the padding")
        labels = [f"{layer.name}  {shape.short(layer.counts.problem)}" for layer in layers]
        axis.set_yticks(places, labels, fontsize=6)
        axis.set_ylim(len(layers) - 0.4, -0.6)
        axis.set_xlabel("multiplications")
        axis.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
        axis.grid(axis="x", alpha=0.25)
        return figure

    reading = "Every bar is a convolution; its orange end are multiplications by zeros of the padding."
    return Picture("count-model", draw, reading)

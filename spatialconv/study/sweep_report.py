"""A sweep as a report: one row a value, cliffs and their cures in words, and the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cache import spelled
from .report import Picture, Report, Table
from .shape import short
from .sweep import CLIFF, Cliff, Sweep, load

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def report(found: Sweep, source: str) -> Report:
    """``source``: where the levels come from, in words."""
    rows, data = [], []
    cliffs = {cliff.value: cliff for cliff in found.cliffs}
    levels = next(iter(found.traces.values())).levels
    first = levels[0]
    for value, traced in found.traces.items():
        kinds = _kinds(found, value)
        missed = [traced.total(level.name) for level in levels]
        accesses = sum(traced.accesses.values())
        cliff = cliffs.get(value)
        word = f"{cliff.times:.0f}x, {cliff.kind}" if cliff else ""
        rows.append((value, accesses, *missed, 1000 * load(traced), *kinds.values(), word))
        data.append(
            {
                found.axis: value, "accesses": accesses, "kinds": kinds,
                "misses": dict(zip((level.name for level in levels), missed, strict=True)),
                "by tensor": {name: traced.misses[name, first.name] for name in traced.accesses},
            }
        )  # fmt: skip
    one = next(iter(found.traces.values()))
    columns = (found.axis, "accesses", *(f"{level.name} misses" for level in levels), f"{first.name} per 1000")
    title = f"{one.nest.name}, {spelled(levels)} ({source})"
    table = Table(title, (*columns, "first touch", "capacity", "conflict", "cliff"), tuple(rows))
    content = {
        "nest": one.nest.name, "axis": found.axis, "cache": source, "levels": [str(level) for level in levels],
        "values": data, "cliffs": [_cliff_data(cliff) for cliff in found.cliffs],
    }  # fmt: skip
    notes = [_cliff_words(found, cliff) for cliff in found.cliffs]
    notes = notes or [f"No cliff: no value misses {CLIFF:g} times as often as those beside it."]
    return Report(content, [table], notes, [picture(found)])


def _kinds(found: Sweep, value: int) -> dict[str, int]:
    traced = found.traces[value]
    sums: dict[str, int] = {}
    for (_, level, kind), count in traced.kinds.items():
        if level == traced.levels[0].name:
            sums[kind] = sums.get(kind, 0) + count
    return sums


def _cliff_data(cliff: Cliff) -> dict[str, object]:
    padding = cliff.padding
    return {
        "value": cliff.value, "times": cliff.times, "kind": cliff.kind, "conflict share": cliff.conflict,
        "padding": padding and vars(padding),
    }  # fmt: skip


def _cliff_words(found: Sweep, cliff: Cliff) -> str:
    traced = found.traces[cliff.value]
    first = traced.levels[0]
    words = f"{found.axis} {cliff.value}: {cliff.times:.0f}x its neighbours, {cliff.kind}."
    padding = cliff.padding
    if padding is None:
        return f"{words} No padding tried saves a tenth of its {first.name} misses."
    buffer = traced.nest.buffer(padding.buffer)
    stride = buffer.strides[buffer.axes.index(padding.axis)]
    step = f"{padding.buffer}'s {padding.axis} stride from {stride} to {stride + padding.gap} elements"
    result = f"{traced.total(first.name):,} {first.name} misses become {padding.misses:,}"
    verdict = "which removes the cliff" if padding.cures else "which helps, and does not remove it"
    return f"{words} Padding {step} ({padding.extra:,} B more) was simulated: {result}, {verdict}."


def picture(found: Sweep) -> Picture:
    def draw() -> Figure:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        values = list(found.traces)
        some = found.traces[values[0]]
        first = some.levels[0]
        figure = Figure(figsize=(9, 4.6), layout="constrained")
        panel = figure.subplots()
        actual = [1000 * load(traced) for traced in found.traces.values()]
        fully = []
        for value, traced in found.traces.items():
            kinds = _kinds(found, value)
            fully.append(1000 * (kinds["first touch"] + kinds["capacity"]) / sum(traced.accesses.values()))
        panel.plot(values, actual, "o-", markersize=5, linewidth=0.8, color="tab:blue", label=f"{first}")
        panel.plot(
            values, fully, "s--", markersize=4, linewidth=0.8, color="tab:grey",
            label=f"fully associative, {first.size:,} B",
        )  # fmt: skip
        for cliff in found.cliffs:
            text = f"{found.axis} {cliff.value}: {cliff.times:.0f}x, {cliff.kind}"
            height = 1000 * load(found.traces[cliff.value])
            panel.annotate(text, (cliff.value, height), (6, 0), textcoords="offset points", fontsize=8, va="center")
            if cliff.padding:
                total = 1000 * cliff.padding.misses / sum(found.traces[cliff.value].accesses.values())
                label = "with the padding proposed" if cliff is found.cliffs[0] else None
                panel.plot([cliff.value], [total], "D", markersize=7, color="tab:green", fillstyle="none", label=label)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_yscale("log")
        panel.margins(x=0.08, y=0.12)
        panel.set_xlabel(found.axis)
        panel.set_ylabel(f"{first.name} misses per 1000 accesses")
        panel.set_title(f"{some.nest.name}: {short(some.nest.problem)} and on", fontsize=11)
        panel.grid(linewidth=0.4)
        panel.legend(fontsize=8)
        return figure

    reading = (
        "Where the solid line leaves the dashed one, misses come from too many lines in one set and not from too "
        "little memory, so moving the data apart by a line takes them away without a larger cache."
    )
    return Picture("sweep", draw, reading)

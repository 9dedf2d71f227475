"""Reuse distances as a report: how far apart touches of a line lie, and the misses of every cache size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log2
from typing import TYPE_CHECKING

from .cache import Level, spelled
from .report import Picture, Report, Table
from .reuse import Reuse
from .shape import short
from .trace_pictures import COLOURS

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure


def report(found: Sequence[Reuse], levels: tuple[Level, ...], source: str) -> Report:
    """``levels`` are where sizes are marked; ``source`` says where they come from."""
    columns = ("nest", "tensor", "accesses", "first touches", "median distance")
    columns += tuple(f"misses in {level.size // 1024:,} KiB" for level in levels)
    rows = []
    for one in found:
        for name, accesses in one.accesses.items():
            missed = [_at(one.misses(name), level.size // one.line) for level in levels]
            rows.append((one.nest.name, name, accesses, one.first[name], one.median(name), *missed))
    title = f"{short(found[0].nest.problem)}: distances in lines of {found[0].line} B, fully associative caches"
    data = {
        "shape": short(found[0].nest.problem), "line": found[0].line, "cache": source, "levels": spelled(levels),
        "nests": [_data(one) for one in found],
    }  # fmt: skip
    notes = [
        "A cache of C lines with the least recently used one evicted misses what lies C lines or more apart, and what "
        "was never touched before; sets of few ways miss more ('study trace' shows how much)."
    ]
    pictures = [picture for one in found for picture in (histogram(one, levels), curve(one, levels))]
    return Report(data, [Table(title, columns, tuple(rows))], notes, pictures)


def _at(misses: np.ndarray, lines: int) -> int:
    """Misses at a number of lines; beyond what the run touches, those of the largest."""
    return int(misses[min(lines, len(misses) - 1)])


def bins(distances: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Touches by distance 0, 1, 2..3, 4..7 and so on: first distance, last distance, touches."""
    first, last = 0, 0
    while first < len(distances):
        yield first, last, int(distances[first : last + 1].sum())
        first, last = last + 1, max(1, 2 * last + 1)


def _data(one: Reuse) -> dict[str, object]:
    return {
        "nest": one.nest.name, "accesses": one.accesses, "first touches": one.first, "seconds": one.seconds,
        "histogram": {
            name: [{"from": first, "to": last, "touches": count} for first, last, count in bins(distances)]
            for name, distances in one.distances.items()
        },
        "misses": {name: _steps(one.misses(name)) for name in one.distances},
    }  # fmt: skip


def _steps(misses: np.ndarray) -> list[list[int]]:
    """A miss curve as [lines, misses] wherever it falls."""
    return [[size, int(count)] for size, count in enumerate(misses) if size == 0 or count != misses[size - 1]]


def histogram(one: Reuse, levels: tuple[Level, ...]) -> Picture:
    def draw() -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 1.2 + 1.6 * len(one.accesses)), layout="constrained")
        figure.suptitle(f"{one.nest.name}: lines touched between two touches of a line", fontsize=11)
        lanes = figure.subplots(len(one.accesses), 1, sharex=True, squeeze=False)[:, 0]
        longest = max(list(bins(distances))[-1][0] for distances in one.distances.values())
        for lane, (name, distances) in zip(lanes, one.distances.items(), strict=True):
            counts = [count for _, _, count in bins(distances)]
            lane.bar(range(len(counts)), counts, 0.9, color=COLOURS[name], log=True)
            lane.set_ylim(bottom=0.5)
            lane.set_ylabel(f"{name}\ntouches", fontsize=8)
            lane.tick_params(labelsize=8)
            for level in levels:
                lines = level.size // one.line
                if lines <= 2 * max(1, longest):
                    # Bin b > 0 begins at 2 ** (b - 1); distances from this size on miss.
                    where = 0.5 + log2(lines)
                    lane.axvline(where, color="black", linewidth=0.9, linestyle="--")
                    lane.text(where, 0.95, f" {level.name}", transform=lane.get_xaxis_transform(), fontsize=8, va="top")
        spans = [(first, last) for first, last, _ in bins(next(iter(one.distances.values())))]
        labels = [str(first) if first == last else f"{first}.." for first, last in spans]
        lanes[-1].set_xticks(range(len(labels)), labels, fontsize=7)
        lanes[-1].set_xlabel("other lines in between", fontsize=8)
        return figure

    reading = (
        "Bars count touches by how many other lines lie between them and the touch before, on a logarithmic scale: "
        "what stands right of a dashed line misses in a fully associative cache of that level's size."
    )
    return Picture(f"reuse-{one.nest.name}", draw, reading)


def curve(one: Reuse, levels: tuple[Level, ...]) -> Picture:
    def draw() -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4.6), layout="constrained")
        panel = figure.subplots()
        top = 0
        for name in one.distances:
            misses = one.misses(name)
            sizes = [size * one.line / 1024 for size in range(1, len(misses))]
            panel.step(sizes, misses[1:], where="post", color=COLOURS[name], label=name)
            top = max(top, sizes[-1])
        for level in levels:
            if level.size / 1024 <= 2 * top:
                panel.axvline(level.size / 1024, color="black", linewidth=0.9, linestyle="--")
                place = (level.size / 1024, 0.97)
                panel.text(*place, f" {level.name}", transform=panel.get_xaxis_transform(), fontsize=8, va="top")
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xlabel("KiB of a fully associative cache")
        panel.set_ylabel("misses")
        panel.set_title(f"{one.nest.name}: misses of every size", fontsize=11)
        panel.grid(linewidth=0.4)
        panel.legend(fontsize=8)
        return figure

    reading = (
        "Each step down is a working set that begins to fit: memory spent on a flat stretch buys nothing, and a curve "
        "that ends flat has only first touches left."
    )
    return Picture(f"curve-{one.nest.name}", draw, reading)

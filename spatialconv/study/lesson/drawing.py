"""What the pictures of the lesson have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .experiment import Measurement

_MARKERS = "osD^vP*X"


def figure(title: str, width: float = 7.0, height: float = 4.2) -> Figure:
    """An empty figure. Raises ImportError where matplotlib is missing."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    made.suptitle(title, fontsize=11)
    return made


def collect(measured: Sequence[Measurement], name: str) -> dict[str, list[list[float]]]:
    """A series that maps labels to values: for each label the values of every seed."""
    first = measured[0].series[name]
    return {label: [one.series[name][label] for one in measured] for label in first}


def curves(axes: Axes, x: Sequence[float], lines: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """A line for each label through the mean of the seeds, in a band from the least to the greatest."""
    for number, (label, seeds) in enumerate(lines.items()):
        columns = list(zip(*seeds, strict=True))
        mean = [sum(column) / len(column) for column in columns]
        (line,) = axes.plot(x, mean, marker=_MARKERS[number % len(_MARKERS)], markersize=5, label=label)
        if len(seeds) > 1:
            axes.fill_between(x, list(map(min, columns)), list(map(max, columns)), color=line.get_color(), alpha=0.2)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def dots(axes: Axes, rows: Mapping[str, Sequence[float]]) -> None:
    """A row for each label, from top to bottom, with a dot for each seed and its mean in figures."""
    for number, values in enumerate(rows.values()):
        axes.plot(values, [number] * len(values), "o", color=f"C{number}", alpha=0.7)
        mean = sum(values) / len(values)
        text = f"{mean:,.0f}" if mean >= 100 else f"{mean:.3g}"
        axes.annotate(text, (mean, number), (0, 7), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.7)
    axes.grid(axis="x", alpha=0.3)


def chance(axes: Axes, value: float, text: str = "chance") -> None:
    """A dashed line at what guessing gives."""
    axes.axhline(value, color="black", linestyle="--", linewidth=0.8)
    axes.annotate(text, (1, value), (-4, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
                  ha="right", fontsize=8)  # fmt: skip


def picture(
    axes: Axes,
    values: object,
    title: str = "",
    colours: str = "gray",
    span: tuple[float | None, float | None] = (None, None),
) -> object:
    """Pixels as they are; ``span`` are the values of the first and the last colour, by default those of the pixels."""
    shown = axes.imshow(values, cmap=colours, vmin=span[0], vmax=span[1])
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    return shown

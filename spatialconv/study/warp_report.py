"""The requests of warps as tables and a picture."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from ..problem import Conv2dProblem, Problem
from . import shape
from .report import Picture, Report, Table
from .warp import LANES, SECTOR, WARP, WORD, Pattern, patterns
from .warp_counts import Requests, of_pattern

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What the picture shows of all patterns, where lanes of its kind are asked for.
_SHOWN = {
    ("input", "NCHW", "pixel"), ("input", "NHWC", "pixel"), ("input", "NCHW", "c"), ("input", "NHWC", "c"),
    ("weight", "KCRS", "pixel"), ("weight", "PKCRS", "pixel"), ("weight", "KCRS", "k"), ("weight", "RSCK", "k"),
}  # fmt: skip
_WORDS = {"pixel": "output pixels", "c": "input channels", "k": "filters"}


def modelled(problem: Conv2dProblem, lanes: tuple[str, ...] = LANES) -> Report:
    """The report of the model: a row for every operand, arrangement and meaning of a lane."""
    rows, entries = [], []
    for pattern in patterns(problem, lanes):
        found = of_pattern(pattern)
        spaced = None
        if pattern.lane != "pixel":
            spaced = of_pattern(pattern, max(WORD // problem.itemsize, 1)).conflict
        entry = {"operand": pattern.operand, "arrangement": pattern.arrangement, "lane": pattern.lane}
        entries.append(entry | _data(found) | {"conflict_spaced": spaced})
        rows.append((pattern.operand, pattern.arrangement, pattern.lane, *_cells(found), found.conflict, spaced))
    columns = (
        "operand", "in memory", "lanes", "requests", "sectors/request", "useful", "conflict", "with 1 word of space",
    )  # fmt: skip
    notes = [
        "Every lane asks for one element a request. conflict: passes of shared memory, if the elements lay there the "
        "same way, as a multiple of those without conflicts; the last column with one word left free between channels "
        "(lanes c) or filters (lanes k).",
        "KCRS: filter, channel, row, column, the last one fastest; PKCRS and KCRSP: untied, P being the position. A "
        "tied weight with lanes = pixels is one sector for the whole warp: that is sharing as the hardware sees it.",
    ]
    table = Table(f"a warp of {WARP} lanes, sectors of {SECTOR} B: {shape.short(problem)}", columns, tuple(rows))
    return Report({"problem": str(problem), "patterns": entries}, [table], notes, [_picture(problem, lanes)])


INTERPRETED = (
    f"A request is {WARP} neighbours along a block's axis of the shortest step, one element a lane; scalars are "
    "requests of one address. Interpreted, so what the compiler would keep in registers or load wider is not shown."
)
TWIN = (
    "A request is what the lanes of a warp load or store at one instruction, each for the same time, in the kernel's "
    "CPU twin. A GPU's compiler may load wider, and joins lanes that leave a loop at different times in its own way."
)


def recorded(problem: Problem, kernel: str, found: dict[str, Requests], note: str) -> Report:
    """The report of what was recorded from a kernel; ``note``: what a request is."""
    rows = tuple((name, *_cells(requests)) for name, requests in found.items())
    table = Table(
        f"{kernel}, recorded: {problem}", ("operand", "requests", "sectors/request", "useful"), rows
    )  # fmt: skip
    data = {"problem": str(problem), "kernel": kernel, "operands": {name: _data(one) for name, one in found.items()}}
    return Report(data, [table], [note])


def _cells(found: Requests) -> tuple[object, ...]:
    return found.requests, round(found.sectors_a_request, 3), f"{found.useful_share:.0%}"


def _data(found: Requests) -> dict[str, object]:
    return {
        **asdict(found), "sectors_a_request": found.sectors_a_request, "useful_share": found.useful_share,
        "conflict": found.conflict,
    }  # fmt: skip


def typical(pattern: Pattern) -> tuple[np.ndarray, np.ndarray]:
    """The request with the most lanes that stands in the middle of them: byte offsets [32], which lanes ask."""
    blocks = list(pattern.blocks())
    most = max(int(block.active.sum(axis=1).max()) for block in blocks)
    full = [(block, row) for block in blocks for row in np.flatnonzero(block.active.sum(axis=1) == most)]
    block, row = full[len(full) // 2]
    base = block.bases[len(block.bases) // 2]
    return (block.offsets[row] + base) * pattern.problem.itemsize, block.active[row]


def _picture(problem: Conv2dProblem, lanes: tuple[str, ...]) -> Picture:
    chosen = [one for one in patterns(problem, lanes) if (one.operand, one.arrangement, one.lane) in _SHOWN]

    def draw() -> Figure:
        from matplotlib.figure import Figure

        columns = min(len(chosen), 4)
        rows = -(-len(chosen) // columns)
        figure = Figure(figsize=(3.1 * columns, 4.6 * rows + 0.5), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, pattern in zip(axes, chosen, strict=False):
            _draw_request(axis, pattern)
        for axis in axes[len(chosen) :]:
            axis.axis("off")
        figure.suptitle(f"one request of a warp: {shape.short(problem)}", fontsize=10)
        return figure

    reading = (
        "Every line is a sector of 32 bytes that one request moves: blue elements are wanted, with the lane that asks "
        "for them, white bytes are moved for nothing, and grey sectors are not moved."
    )
    return Picture("warp", draw, reading)


def _draw_request(axis: Axes, pattern: Pattern) -> None:
    from matplotlib.patches import Rectangle

    itemsize = pattern.problem.itemsize
    addresses, active = typical(pattern)
    asked = {int(address): lane for lane, address in reversed(list(enumerate(addresses))) if active[lane]}
    sectors = sorted({address // SECTOR for address in asked})
    for line in range(len(sectors)):
        axis.add_patch(Rectangle((0, line), SECTOR, 1, facecolor="white", edgecolor="lightgrey", linewidth=0.6))
    for address, lane in asked.items():
        line, place = sectors.index(address // SECTOR), address % SECTOR
        axis.add_patch(Rectangle((place, line), itemsize, 1, facecolor="tab:blue", edgecolor="white", linewidth=0.6))
        name = str(lane) if len(asked) > 1 or active.sum() == 1 else "all"
        axis.text(place + itemsize / 2, line + 0.5, name, ha="center", va="center", color="white", fontsize=5)
    axis.set_facecolor("gainsboro")
    axis.set_xlim(0, SECTOR)
    # The same scale everywhere, so that a panel's height is the traffic.
    axis.set_ylim(WARP, 0)
    axis.set_xticks(range(0, SECTOR + 1, 8))
    axis.tick_params(labelsize=6)
    axis.set_xlabel("byte of the sector", fontsize=7)
    axis.set_ylabel("sectors, by address", fontsize=7)
    share = len(asked) * itemsize / (len(sectors) * SECTOR)
    count = f"{len(sectors)} sector{'s' if len(sectors) > 1 else ''}"
    title = f"{pattern.operand} {pattern.arrangement}\nlanes: {_WORDS[pattern.lane]}\n{count}, {share:.0%} useful"
    axis.set_title(title, fontsize=8)

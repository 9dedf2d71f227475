"""What sharing saves is memory traffic; what locality saves is arithmetic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ...problem import Conv2dProblem
from ..nests import named
from ..shape import read
from . import drawing
from .experiment import Experiment, Measurement, equal
from .lab import Lab

SHAPE = "1x2x10x10 k=8 3x3"
_LINE = 64
_WAYS = ("nchw", "untied", "dense")
_LABELS = {"nchw": "shared filters", "untied": "a filter for each place", "dense": "full connections"}
_ACCESSES = "loads and stores without sharing, in those with it"
_LINES = "cache lines of weights without sharing, in those with it"
_POSITIONS = "positions of the output"
_LOADS = "loads of weights with full connections, in those of shared filters"


def _touched(problem: Conv2dProblem, way: str) -> tuple[Counter[str], Counter[str]]:
    """Of every buffer: loads and stores, and cache lines that they meet, from the addresses of the nest in order."""
    accesses: Counter[str] = Counter()
    lines: set[tuple[str, int]] = set()
    for buffer, address, _ in named(problem, way).addresses():
        accesses[buffer] += 1
        lines.add((buffer, address // _LINE))
    return accesses, Counter(buffer for buffer, _ in lines)


def _run(lab: Lab) -> Measurement:
    problem = read(SHAPE)
    accesses, lines = {}, {}
    for way in _WAYS:
        accesses[way], lines[way] = _touched(problem, way)
    total = {way: sum(counts.values()) for way, counts in accesses.items()}
    return Measurement(
        {
            _ACCESSES: total["untied"] / total["nchw"],
            _LINES: lines["untied"]["weight"] / lines["nchw"]["weight"],
            _POSITIONS: problem.oh * problem.ow,
            _LOADS: accesses["dense"]["weight"] / accesses["nchw"]["weight"],
        },
        {
            "accesses": {_LABELS[way]: total[way] for way in _WAYS},
            "lines": {_LABELS[way]: sum(lines[way].values()) for way in _WAYS},
        },
    )


def _draw(measured: Sequence[Measurement]):
    figure = drawing.figure(f"Scalar loops of {SHAPE}, three ways", 9.0, 3.2)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, name, label in ((left, "accesses", "loads and stores"), (right, "lines", "cache lines fetched")):
        drawing.dots(axes, {label: [value] for label, value in measured[0].series[name].items()})
        axes.set_xscale("log")
        axes.margins(x=0.2)
        axes.set_xticks([1e2, 1e3, 1e4, 1e5] if name == "lines" else [1e4, 1e5, 1e6])
        axes.set_xticks([], minor=True)
        axes.set_xlabel(label)
    return figure


EXPERIMENT = Experiment(
    name="cost",
    claim="Weight sharing makes convolutions computationally efficient.",
    done=f"The addresses of the same layer ({SHAPE}) computed in scalar loops with shared filters, with a filter for "
    "each place, and with full connections; lines of 64 bytes, each counted once.",
    # 144 weights are 9 lines, and there are 64 positions. A window holds 18 of the 200 pixels of all channels.
    expectations=(equal(_ACCESSES, 1.0), equal(_LINES, 64.0), equal(_POSITIONS, 64), equal(_LOADS, 200 / 18)),
    verdict="wrong as told",
    telling="That is two facts in one. Without sharing the layer makes exactly as many multiplications, loads and "
    "stores; what sharing saves is the weights' memory, by the number of positions. What saves arithmetic is the "
    "small window, against full connections. In fast kernels sharing also lets a weight stay in a register; lines "
    "are not seconds.",
    run=_run,
    draw=_draw,
    reading="Left, sharing changes nothing and locality much; right, each of them saves its share. Axes are "
    "logarithmic.",
)

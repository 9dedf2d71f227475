"""What sharing saves is memory traffic; what locality saves is arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from ..cache import parse
from ..counting import count, ways
from ..nests import named
from ..shape import read
from ..trace import trace
from . import drawing
from .experiment import Experiment, Measurement, equal
from .lab import Lab

SHAPE = "1x16x32x32 k=32 3x3 s1 p1"
# A last level that holds all of it, so that what misses there is what has to come from memory at least once.
CACHE = "48K/12/64,32M/16/64"
_LABELS = {"tied": "shared filters", "untied": "a filter for each place", "dense": "full connections"}
_NESTS = {"tied": "nchw", "untied": "untied"}
_ACCESSES = "loads and stores without sharing, in those with it"
_MISSES = "cache lines from memory without sharing, in those with it"
_SHARED = "operations for each byte, with sharing"
_UNSHARED = "operations for each byte, without sharing"
_LOCAL = "multiplications with full connections, in those of windows"


def _run(lab: Lab) -> Measurement:
    problem = read(SHAPE)
    counted = {way.name: way for way in ways(count(problem)) if way.name in _LABELS}
    traced = {way: trace(named(problem, nest), parse(CACHE)) for way, nest in _NESTS.items()}
    accesses = {way: sum(found.accesses.values()) for way, found in traced.items()}
    misses = {way: found.total("L2") for way, found in traced.items()}
    return Measurement(
        {
            _ACCESSES: accesses["untied"] / accesses["tied"],
            _MISSES: misses["untied"] / misses["tied"],
            _SHARED: counted["tied"].intensity,
            _UNSHARED: counted["untied"].intensity,
            _LOCAL: counted["dense"].macs / counted["tied"].macs,
        },
        {
            "multiplications": {label: counted[way].macs for way, label in _LABELS.items()},
            "bytes": {label: counted[way].bytes for way, label in _LABELS.items()},
            "loads and stores": accesses,
            "lines": misses,
        },
    )


def _draw(measured: Sequence[Measurement]):
    figure = drawing.figure(f"{SHAPE}, three ways", 9.0, 3.2)
    shown = measured[0].series
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, name, ticks, label in (
        (left, "multiplications", (1e6, 1e7, 1e8, 1e9), "multiplications"),
        (right, "bytes", (1e5, 1e6, 1e7, 1e8, 1e9, 1e10), "bytes moved, each once"),
    ):
        drawing.dots(axes, {way: [value] for way, value in shown[name].items()})
        axes.set_xscale("log")
        axes.set_xticks(ticks)
        axes.set_xticks([], minor=True)
        axes.set_xlim(ticks[0], ticks[-1] * 2)
        axes.set_xlabel(label)
    return figure


# Along an axis of 32 with a padding of 1, windows of 3 meet 94 pixels. 16 channels and 32 filters.
_MACS = 16 * 32 * 94**2
_INPUT, _OUTPUT, _FILTERS = 4 * 16 * 32**2, 4 * 32 * 32**2, 4 * 16 * 32 * 9

EXPERIMENT = Experiment(
    name="cost",
    claim="Weight sharing makes convolutions computationally efficient.",
    done=f"One layer ({SHAPE}) in scalar loops with shared filters and with a filter for each place, traced through a "
    f"cache of {CACHE}; counts beside full connections.",
    # All of these follow from the shape. Lines are of 64 bytes; untied weights meet padding too, but on lines that are
    # fetched for their neighbours.
    expectations=(
        equal(_ACCESSES, 1.0),
        equal(_MISSES, (_INPUT + _OUTPUT + 32**2 * _FILTERS) / (_INPUT + _OUTPUT + _FILTERS)),
        equal(_SHARED, 2 * _MACS / (_INPUT + _OUTPUT + _FILTERS)),
        equal(_UNSHARED, 2 * _MACS / (_INPUT + _OUTPUT + 4 * _MACS)),
        equal(_LOCAL, (16 * 32**2) * (32 * 32**2) / _MACS),
    ),
    verdict="wrong as told",
    telling="That is two facts in one. Without sharing the layer makes exactly as many multiplications, loads and "
    "stores; what sharing saves is bytes, which is what makes the layer bound by arithmetic and not by memory. What "
    "saves arithmetic is the small window, against full connections. In fast kernels sharing also lets a weight stay "
    "in a register, and lines are not seconds.",
    run=_run,
    draw=_draw,
    reading="Left, sharing changes nothing and the window much; right, each of them saves its share; axes are "
    "logarithmic.",
)

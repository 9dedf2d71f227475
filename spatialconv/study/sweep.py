"""One size of a layer varied: where its misses leap, why, and which padding takes the leap away.

A layer's *load* is its misses of the first level for each access; a value is a *cliff* where its load is several times
that of the values beside it. For a cliff the strides of buffers are padded by a line or a few, one buffer and axis
after another, and each is simulated; what is proposed has been seen to work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from ..problem import Problem
from .cache import Level
from .nest import Nest
from .padding import padded, wasted
from .tally import tally
from .trace import WHOLE, Trace, trace

AXES = {"side": ("ih", "iw"), **{name: (name,) for name in ("n", "ic", "ih", "iw", "oc")}}
# A value's load over the median of up to two values on each side.
CLIFF = 3.0
# What a padding has to bring the load back to, in medians, to count as a cure.
_CURED = 1.5
_GAPS = (1, 2, 4)


@dataclass(frozen=True)
class Padding:
    """``gap`` elements behind each step along ``axis`` of ``buffer``; ``misses`` of the first level simulated with it,
    for ``extra`` bytes more."""

    buffer: str
    axis: str
    gap: int
    misses: int
    extra: int
    cures: bool


@dataclass(frozen=True)
class Cliff:
    """``times``: the load over its neighbours'; ``conflict``: the share of misses that are conflicts."""

    value: int
    times: float
    conflict: float
    padding: Padding | None

    @property
    def kind(self) -> str:
        return "conflict" if self.conflict > 0.5 else "capacity"


@dataclass(frozen=True, eq=False)
class Sweep:
    axis: str
    traces: dict[int, Trace]
    cliffs: tuple[Cliff, ...]


def parse_vary(text: str) -> tuple[str, range]:
    """An axis and its values from ``side=24..40`` or ``ic=16..128:16``. Raises ValueError on anything else."""
    found = re.fullmatch(r"([a-z]+)=([0-9]+)\.\.([0-9]+)(?::([0-9]+))?", text.strip())
    if not found or found[1] not in AXES:
        raise ValueError(f"study: vary: expected AXIS=FIRST..LAST[:STEP], AXIS out of {', '.join(AXES)}, got {text!r}")
    values = range(int(found[2]), int(found[3]) + 1, int(found[4] or 1) or 1)
    if len(values) < 3 or found[4] == "0" or values[0] < 1:
        raise ValueError(f"study: vary: expected at least three values from 1 on, got {text!r}")
    return found[1], values


def resized(problem: Problem, axis: str, value: int) -> Problem:
    """The problem with one size changed and the output's size as it follows. Raises ValueError where there is none."""
    if not hasattr(problem, AXES[axis][0]):
        raise ValueError(f"study: vary: {problem} has no {axis}")
    changed = problem.replace(**dict.fromkeys(AXES[axis], value), oh=0, ow=0)
    if changed.empty:
        raise ValueError(f"study: vary: {axis}={value} leaves nothing to compute: {changed}")
    return changed


def sweep(
    problem: Problem, make: Callable[[Problem], Nest], levels: tuple[Level, ...], axis: str, values: range
) -> Sweep:
    """Simulate ``make`` of the problem at each value of the axis, find cliffs, and look for paddings."""
    traces = {value: trace(make(resized(problem, axis, value)), levels, kinds=True) for value in values}
    cliffs = tuple(_cliffs(traces))
    return Sweep(axis, traces, cliffs)


def load(traced: Trace) -> float:
    """Misses of the first level for each access."""
    return traced.total(traced.levels[0].name) / max(1, sum(traced.accesses.values()))


def neighbours(values: list[int], at: int) -> list[int]:
    return [*values[max(0, at - 2) : at], *values[at + 1 : at + 3]]


def _cliffs(traces: dict[int, Trace]) -> Iterator[Cliff]:
    values = list(traces)
    for at, value in enumerate(values):
        usual = median(load(traces[other]) for other in neighbours(values, at))
        times = load(traces[value]) / usual if usual else 1.0
        if times < CLIFF:
            continue
        traced = traces[value]
        name = traced.levels[0].name
        conflicts = sum(traced.kinds[buffer.name, name, "conflict"] for buffer in traced.nest.buffers)
        yield Cliff(value, times, conflicts / traced.total(name), cure(traced, usual))


def cure(traced: Trace, usual: float) -> Padding | None:
    """The padding with the least misses of the first level, simulated; None where none saves a tenth of them. ``usual``
    is the load that it should come back to. Among those that do, the one that takes the least memory."""
    first = traced.levels[0]
    found = []
    for buffer in sorted(traced.nest.buffers, key=lambda one: -traced.misses[one.name, first.name]):
        for axis, stride in zip(buffer.axes, buffer.strides, strict=True):
            if stride * buffer.itemsize < first.line:
                continue
            for gap in (lines * first.line // buffer.itemsize for lines in _GAPS):
                nest = padded(traced.nest, buffer.name, axis, gap)
                then = trace(nest, (first,))
                cures = load(then) <= _CURED * usual
                found.append(Padding(buffer.name, axis, gap, then.total(first.name), wasted(nest, traced.nest), cures))
        if any(padding.cures for padding in found):
            break
    best = min(found, key=lambda one: (not one.cures, one.extra if one.cures else one.misses), default=None)
    return best if best and best.misses < 0.9 * traced.total(first.name) else None


def check_size(nest: Nest) -> None:
    """Raises ValueError where a nest is too long to be simulated whole."""
    if (total := tally(nest).total) > WHOLE:
        raise ValueError(f"study: sweep: expected at most {WHOLE:,} accesses a value, {nest.problem} has {total:,}")

"""What an experiment of the lesson is: a claim, what is done about it, what is expected, and the verdict.

The rule of the bands. An expectation names a figure and the value of it at which the *opposite* claim would be no worse
supported: 0 for "shuffling costs the network accuracy", 0.5 for "it is better than chance". Five seeds were run and
recorded (``recorded.json``, ``python -m spatialconv.study.lesson.record``); the limit lies half way from the worst of
them to the opposite value. What follows from arithmetic needs no record: its limit is given and exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .lab import Lab

NOT_REPRODUCED = "not reproduced"


@dataclass(frozen=True)
class Expectation:
    """A figure and where it must lie. ``side``: 'above' or 'below' a limit that the record gives, whose opposite claim
    begins at ``value``; 'at most' or 'equal to' ``value`` itself."""

    figure: str
    side: str
    value: float

    @property
    def is_exact(self) -> bool:
        return self.side in ("at most", "equal to")

    def limit(self, recorded: Sequence[float]) -> float:
        """The limit by the rule of the bands, from the figure's value for each recorded seed. ValueError where the
        record does not support the claim, or has none."""
        if self.is_exact:
            return self.value
        if not recorded:
            raise ValueError(
                f"study lesson: no record of {self.figure!r}; run python -m spatialconv.study.lesson.record"
            )
        worst = min(recorded) if self.side == "above" else max(recorded)
        if worst <= self.value if self.side == "above" else worst >= self.value:
            raise ValueError(f"study lesson: {self.figure!r}: expected {self.side} {self.value}, recorded {worst}")
        return (worst + self.value) / 2

    def holds(self, measured: float, limit: float) -> bool:
        """Whether the figure lies where it must; a NaN never does."""
        if self.side == "equal to":
            return measured == limit
        return measured >= limit if self.side == "above" else measured <= limit

    def text(self, limit: float) -> str:
        sign = {"above": ">=", "below": "<=", "at most": "<=", "equal to": "="}[self.side]
        return f"{sign} {limit:.3g}"


def above(figure: str, opposite: float) -> Expectation:
    return Expectation(figure, "above", opposite)


def below(figure: str, opposite: float) -> Expectation:
    return Expectation(figure, "below", opposite)


def at_most(figure: str, bound: float) -> Expectation:
    return Expectation(figure, "at most", bound)


def equal(figure: str, value: float) -> Expectation:
    return Expectation(figure, "equal to", value)


@dataclass(frozen=True)
class Measurement:
    """What one seed gave: a number for every expectation and what the picture is drawn from, as plain JSON."""

    figures: dict[str, float]
    series: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """``claim`` is told as it commonly is; ``done`` says what is tried. ``verdict`` begins with 'holds', 'holds only'
    or 'wrong as told', and is given where every expectation is met; ``telling`` says what is amiss in the common
    telling. ``draw`` makes the picture of all seeds, which ``reading`` explains in a sentence."""

    name: str
    claim: str
    done: str
    expectations: tuple[Expectation, ...]
    verdict: str
    telling: str
    run: Callable[[Lab], Measurement]
    draw: Callable[[Sequence[Measurement]], Figure]
    reading: str


@dataclass(frozen=True)
class Judged:
    """One expectation beside what was measured, seed by seed."""

    expectation: Expectation
    limit: float
    values: tuple[float, ...]

    @property
    def holds(self) -> bool:
        return all(self.expectation.holds(value, self.limit) for value in self.values)


@dataclass(frozen=True)
class Result:
    """An experiment after its runs, one for each seed."""

    experiment: Experiment
    measurements: tuple[Measurement, ...]
    recorded: Mapping[str, Sequence[float]]
    seconds: float

    @property
    def judged(self) -> tuple[Judged, ...]:
        return tuple(
            Judged(
                one,
                one.limit(self.recorded.get(one.figure, ())),
                tuple(measured.figures[one.figure] for measured in self.measurements),
            )
            for one in self.experiment.expectations
        )

    @property
    def holds(self) -> bool:
        return all(figure.holds for figure in self.judged)

    @property
    def verdict(self) -> str:
        return self.experiment.verdict if self.holds else NOT_REPRODUCED

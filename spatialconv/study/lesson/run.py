"""The lesson run and judged, and its report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path

from ...dispatch import backends, use_backend
from ..report import Picture, Report, Table
from .experiment import NOT_REPRODUCED, Experiment, Judged, Result
from .lab import Lab
from .registry import EXPERIMENTS

RECORD = Path(__file__).with_name("recorded.json")


def named(names: Sequence[str]) -> tuple[Experiment, ...]:
    """The experiments of those names, in the lesson's order; all where none is named. ValueError on an unknown one."""
    known = [one.name for one in EXPERIMENTS]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"study lesson: experiment: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    return tuple(one for one in EXPERIMENTS if not names or one.name in names)


def check_backend(backend: str | None) -> str | None:
    """The backend itself; ValueError where there is none of that name, or it cannot run here, with the reason."""
    listed = backends()
    if backend is None or (backend in listed and listed[backend].available):
        return backend
    if backend in listed:
        raise ValueError(f"study lesson: backend: {backend} cannot run here: {listed[backend].reason}")
    raise ValueError(f"study lesson: backend: expected one of {', '.join(listed)}, got {backend!r}")


@cache
def recorded() -> dict[str, dict[str, list[float]]]:
    """For each experiment its figures, a value for each recorded seed."""
    return json.loads(RECORD.read_text())["figures"]


def run(
    experiments: Iterable[Experiment],
    seeds: Sequence[int],
    backend: str | None = None,
    told: Callable[[str], None] = lambda name: None,
) -> list[Result]:
    """Each experiment run with every seed, and ready to be judged. Where several question one network, the first of
    them trains it, and its seconds count there. ``told`` hears the name of what begins."""
    labs = [Lab(seed) for seed in seeds]
    results = []
    with use_backend(backend) if backend else nullcontext():
        for experiment in experiments:
            told(experiment.name)
            start = time.perf_counter()
            measured = tuple(experiment.run(lab) for lab in labs)
            seconds = time.perf_counter() - start
            results.append(Result(experiment, measured, recorded().get(experiment.name, {}), seconds))
    return results


def report(results: Sequence[Result], seeds: Sequence[int], backend: str | None) -> Report:
    """Claim, expectation, measurement and verdict of every experiment, and what is amiss in the common telling."""
    rows = []
    for result in results:
        for number, judged in enumerate(result.judged):
            first = number == 0
            rows.append(
                (
                    result.experiment.name if first else "",
                    result.experiment.claim if first else "",
                    judged.expectation.figure,
                    judged.expectation.text(judged.limit),
                    _measured(judged) + ("" if judged.holds else "  OUTSIDE"),
                    result.verdict if first else "",
                )
            )
    missed = [result.experiment.name for result in results if not result.holds]
    notes = [f"{one.experiment.name}: {one.experiment.telling}" for one in results if one.experiment.telling]
    notes.append(
        "A limit is exact where arithmetic gives it; else it lies half way from the worst of five recorded seeds to "
        "the value at which the opposite claim begins."
    )
    if missed:
        notes.append(f"{NOT_REPRODUCED}: {', '.join(missed)}")
    return Report(
        data={
            "seeds": list(seeds),
            "backend": backend or "auto",
            "experiments": [_data(result) for result in results],
        },
        tables=[
            Table(
                f"the lesson, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}, backend {backend or 'auto'}",
                ("experiment", "claim, as it is told", "figure", "expected", "measured", "verdict"),
                tuple(rows),
            )
        ],
        notes=notes,
        pictures=[
            Picture(one.experiment.name, _drawer(one), one.experiment.reading) for one in results
        ],
        failed=bool(missed),
    )  # fmt: skip


def contents(experiments: Sequence[Experiment]) -> Report:
    """The experiments, their claims, and what came of them when they were recorded."""
    columns = ("name", "claim", "done", "verdict")
    rows = tuple((one.name, one.claim, one.done, one.verdict) for one in experiments)
    table = Table("the lesson", ("experiment", "claim, as it is told", "what is done", "verdict"), rows)
    return Report({"experiments": [dict(zip(columns, row, strict=True)) for row in rows]}, [table])


def _drawer(result: Result):
    return lambda: result.experiment.draw(result.measurements)


def _measured(judged: Judged) -> str:
    """The mean, and the extremes where seeds differ."""
    values = judged.values
    mean = f"{sum(values) / len(values):.3g}"
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return mean if low == high else f"{mean} ({low} .. {high})"


def _data(result: Result) -> dict[str, object]:
    experiment = result.experiment
    return {
        "name": experiment.name,
        "claim": experiment.claim,
        "done": experiment.done,
        "verdict": result.verdict,
        "reproduced": result.holds,
        "telling": experiment.telling,
        "seconds": round(result.seconds, 2),
        "figures": [
            {
                "figure": one.expectation.figure,
                "side": one.expectation.side,
                "limit": one.limit,
                "opposite": None if one.expectation.is_exact else one.expectation.value,
                "measured": list(one.values),
                "holds": one.holds,
            }
            for one in result.judged
        ],
        "series": [measured.series for measured in result.measurements],
    }

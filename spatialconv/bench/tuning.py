"""Measures the kernels that take a problem against the built-in choice; keeps one that surely wins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from .. import dispatch, tuned
from ..errors import UnsupportedProblemError
from ..problem import Problem
from . import gate, operands, timing

# A choice is changed only where the bound of the gain, not the gain itself, is above this.
LEAST_GAIN = 1.03
# A choice this near to the best kernel's speed is as good as it.
GOOD_CHOICE = 0.95


@dataclass(frozen=True)
class Tuned:
    """One problem measured: the built-in choice, the winner, its gain with bounds, and who failed the gate."""

    problem: Problem
    key: str
    default: str
    winner: str
    gain: timing.Ratio | None
    seconds: dict[str, float]
    wrong: dict[str, str]

    @property
    def changed(self) -> bool:
        return self.winner != self.default

    @property
    def best(self) -> str:
        """The kernel with the shortest time, whether surely so or not."""
        return min(self.seconds, key=self.seconds.__getitem__, default=self.default)

    @property
    def share(self) -> float:
        """The speed of the built-in choice as a share of the best kernel's."""
        return self.seconds[self.best] / self.seconds[self.default] if self.default in self.seconds else 1.0


def candidates(problem: Problem, context, request: str = dispatch.AUTO) -> list[str]:
    """The kernels that take the problem, the built-in choice first; the reference only where nothing else does."""
    names = dispatch.ordered(problem, dispatch.candidates(problem.op, request), context)
    taking = [name for name in names if not dispatch.reasons_against(name, problem, context)]
    fast = [name for name in taking if not name.startswith("reference:")]
    return fast or taking


def tune_problem(
    problem: Problem, budget: float, clock: str, cache: str = "rotate", seed: int = 0, request: str = dispatch.AUTO
) -> Tuned:
    """Time every candidate, interleaved, on the same operands; a kernel that fails the gate cannot win."""
    context = dispatch.current_context(problem.device)
    names = candidates(problem, context, request)
    if not names:
        raise UnsupportedProblemError(str(dispatch.explain_problem(problem, request, context)))
    key = tuned.key(problem, context)
    if len(names) < 2:
        return Tuned(problem, key, names[0], names[0], None, {}, {})
    given = operands.make(problem, seed)
    right = gate.truth(problem, given)
    rotation = timing.Rotation(given, cache)
    variants, wrong = {}, {}
    for name in names:
        choice = dispatch.choose(problem, name, context)
        with torch.no_grad():
            verdict = gate.judge(problem, choice.plan(*given), right, choice.kernel.tier)
        if verdict.passed:
            variants[name] = timing.LocalVariant(choice.plan, rotation, clock, problem.device)
        else:
            wrong[name] = str(verdict.reason)
    if len(variants) < 2:
        winner = next(iter(variants), names[0])
        return Tuned(problem, key, names[0], winner, None, {}, wrong)
    samples = dict(zip(variants, timing.interleave(list(variants.values()), budget, 9), strict=True))
    used = timing.rounds_used(list(samples.values()))
    rounds = dict(zip(samples, used.rounds, strict=True))
    seconds = {name: timing.summarise(entry, rounds[name]).median for name, entry in samples.items()}
    default = next(iter(variants))
    fastest = min(seconds, key=seconds.__getitem__)
    gain = timing.ratio(samples[fastest], samples[default], rounds[fastest], rounds[default], used.paired)
    winner = fastest if gain.low > LEAST_GAIN else default
    return Tuned(problem, key, names[0], winner, gain if winner == fastest else None, seconds, wrong)


def tune(problems: Iterable[Problem], budget: float, clock: str, request: str = dispatch.AUTO) -> Iterator[Tuned]:
    """Tune each problem once, in turn."""
    for problem in dict.fromkeys(problems):
        yield tune_problem(problem, budget, clock, request=request)


def choices(found: Iterable[Tuned]) -> dict[str, str]:
    """What is worth keeping: the problems whose choice changed."""
    return {one.key: one.winner for one in found if one.changed}

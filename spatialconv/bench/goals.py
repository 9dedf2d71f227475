"""What a class of layers is to reach, and how far a run's rows have come: ``goals.txt`` is the list."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..problem import parse
from . import suites
from .peers import TORCH

FILE = Path(__file__).with_name("goals.txt")
# One layer that torch is very slow on must not carry a class.
CAP = 4.0
# A layer this near to the roofline is done whatever its ratio: there is nothing left to win.
DONE_SHARE = 0.85
# Slower than torch: not only in the middle but at the upper end of the 90 % interval.
SLOWER = 0.95
_BATCHES = ("n1", "n8", "any")


@dataclass(frozen=True)
class Goal:
    """The ratio to reach; ``each``: by every layer, not in the mean."""

    ratio: float
    each: bool = False


def parse_goals(text: str) -> dict[tuple[str, str, str, str], Goal]:
    """By (class, pass, batch, layout); ValueError names the line that cannot be read."""
    goals: dict[tuple[str, str, str, str], Goal] = {}
    for line in text.splitlines():
        words = [word.strip() for word in line.partition("#")[0].split(";")]
        if words == [""]:
            continue
        try:
            kind, pass_name, batch, nchw, nhwc, *rest = words
            if pass_name not in suites.PASSES or batch not in _BATCHES or rest not in ([], ["each"]):
                raise ValueError
            for layout, ratio in (("nchw", nchw), ("nhwc", nhwc)):
                goals[kind, pass_name, batch, layout] = Goal(float(ratio), bool(rest))
        except ValueError:
            raise ValueError(
                f"goals: expected 'class; pass; n1, n8 or any; nchw; nhwc[; each]', got {line!r}"
            ) from None
    return goals


@cache
def _goals() -> dict[tuple[str, str, str, str], Goal]:
    return parse_goals(FILE.read_text())


def class_of(row: dict) -> str:
    """The class of a row. Layers of the narrow suite, chosen to be awkward, are a class of their own, and so are
    prepacked layers and those that tf32 has another kernel for."""
    if set(row["suites"]) == {"narrow"}:
        return "narrow"
    kind = suites.kind(parse(row["layer"]), row["transposed"])
    if kind == "3x3 s1" and row.get("precision") == "tf32":
        kind += " tf32"
    if row.get("prepacked"):
        kind += " prepacked"
    return f"{kind} indices" if " indices" in row["problem"] else kind


def batch_of(row: dict) -> str:
    return "n1" if parse(row["problem"]).n <= 1 else "n8"


def goal_of(row: dict) -> Goal | None:
    """What the row's class is to reach; None where the list says nothing of it."""
    if row["dtype"] != "f32" or " cpu" not in row["problem"]:
        return None
    batch = batch_of(row)
    return next(
        (
            goal
            for asked in (batch, "any")
            if (goal := _goals().get((class_of(row), row["pass"], asked, row["layout"]))) is not None
        ),
        None,
    )


def ratio_of(row: dict, peer: str = TORCH) -> float | None:
    """The peer's time over ours, None where there is none to be had."""
    return row.get("peers", {}).get(peer, {}).get("ratio") if row["status"] == "ok" else None


def done(row: dict, peer: str = TORCH) -> bool | None:
    """Whether a layer is at its goal or as near to the roofline as counts; None where neither is known."""
    ratio, goal = ratio_of(row, peer), goal_of(row)
    if ratio is None:
        return None
    if row["roofline"]["share"] >= DONE_SHARE:
        return True
    return None if goal is None else ratio >= goal.ratio


def slower(row: dict, peer: str = TORCH) -> bool:
    """Whether the peer is surely faster, by more than a twentieth."""
    if ratio_of(row, peer) is None:
        return False
    entry = row["peers"][peer]
    return entry.get("high90", entry["high"]) < SLOWER


def slower_in_both(rows: Iterable[dict], others: Iterable[dict], peer: str = TORCH) -> list[dict]:
    """The rows that are slower than the peer in two runs: what one of them found by chance the other does not."""
    elsewhere = {row["key"] for row in others if slower(row, peer)}
    return [row for row in rows if row["key"] in elsewhere and slower(row, peer)]


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


@dataclass(frozen=True)
class ClassSummary:
    """A class in one layout, pass and batch. ``capped``, ``plain``: geometric means of the ratio; ``largest``: of the
    peer's time over the roofline's; ``share``: of the share of the roofline reached."""

    kind: str
    layout: str
    pass_name: str
    batch: str
    layers: int
    capped: float
    plain: float
    least: float
    largest: float
    share: float
    goal: Goal | None
    done: int
    slower: int

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached, or all layers are done; None without a goal."""
        if self.goal is None:
            return None
        measured = self.least if self.goal.each else self.plain if self.goal.ratio > CAP else self.capped
        # Means of capped layers end a rounding error below the cap.
        return measured >= self.goal.ratio * (1 - 1e-9) or self.done == self.layers


def summaries(rows: Iterable[dict], peer: str = TORCH) -> list[ClassSummary]:
    """Every class of the rows of one backend and dtype, in the order of the passes, then by name."""
    groups: dict[tuple[int, str, str, str], list[dict]] = {}
    for row in rows:
        if ratio_of(row, peer):
            key = (suites.PASSES.index(row["pass"]), class_of(row), batch_of(row), row["layout"])
            groups.setdefault(key, []).append(row)
    found = []
    for (position, kind, batch, layout), group in sorted(groups.items()):
        ratios = [ratio_of(row, peer) for row in group]
        share = geometric_mean([row["roofline"]["share"] for row in group])
        found.append(
            ClassSummary(
                kind, layout, suites.PASSES[position], batch, len(group),
                capped=geometric_mean([min(ratio, CAP) for ratio in ratios]),
                plain=geometric_mean(ratios),
                least=min(ratios),
                largest=geometric_mean(ratios) / share,
                share=share,
                goal=goal_of(group[0]),
                done=sum(done(row, peer) is True for row in group),
                slower=sum(slower(row, peer) for row in group),
            )
        )  # fmt: skip
    return found

"""What ``spatialconv tune`` does once its options are understood: measure with a progress bar, show, keep."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .. import dispatch, tuned
from ..bench import goals, tuning
from ..bench.table import ratio_text, seconds
from ..bench.timing import pick_clock
from ..problem import Problem


def run(wanted: Sequence[Problem], budget: float, dry_run: bool) -> bool:
    """Measure, show and keep; whether all was measured and right. Ctrl-C ends it early, with what was measured."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    if not dry_run:
        tuned.save({})  # a folder that cannot be written fails now, not after the measurement
    found, stopped = _measure(console, wanted, budget)
    kept = tuning.choices(found)
    if kept:
        console.print(_table(found))
    for one in found:
        for name, reason in one.wrong.items():
            console.print(f"wrong: {name} on {one.problem}: {reason}", style="red", markup=False)
    if stopped:
        console.print(f"stopped: {len(wanted) - len(found)} of {len(wanted)} problems were not measured")
    console.print(f"{len(found)} problems measured, the built-in choice was beaten surely in {len(kept)}")
    if not dry_run:
        changed = tuned.save(kept, [one.key for one in found])
        dispatch.forget_choices()
        console.print(f"{'written' if changed else 'unchanged'}: {tuned.path()}", soft_wrap=True)
    return not stopped and not any(one.wrong for one in found)


def judge(wanted: Sequence[Problem], budget: float, backend: str) -> bool:
    """Measure and show how near a backend's built-in choice comes to its best kernel; whether all was right."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    found, stopped = _measure(console, wanted, budget, backend)
    console.print(_choices_table(found))
    several = [one.share for one in found if len(one.seconds) > 1]
    if several:
        good = sum(share >= tuning.GOOD_CHOICE for share in several)
        console.print(f"{len(found)} problems, {len(several)} with several kernels; speed of the built-in choice:")
        mean, least = (f"{100 * value:.1f}%" for value in (goals.geometric_mean(several), min(several)))
        console.print(f"{mean} of the best kernel's in the mean, {least} at least;")
        console.print(f"{100 * tuning.GOOD_CHOICE:.0f}% or more of it in {good} of {len(several)}")
    return not stopped and not any(one.wrong for one in found)


def _choices_table(found: Sequence[tuning.Tuned]) -> Table:
    """The problems whose built-in choice falls short of the best kernel, the worst first."""
    title = f"built-in choices below {100 * tuning.GOOD_CHOICE:.0f}% of the best kernel's speed"
    table = Table(title=f"{title}, {torch.get_num_threads()} threads", title_justify="left")
    for name in ("share", "built-in choice", "best", "problem"):
        table.add_column(name, overflow="fold")
    for one in sorted(found, key=lambda one: one.share):
        if one.share < tuning.GOOD_CHOICE:
            times = (f"{seconds(one.seconds[name])} {name}" for name in (one.default, one.best))
            table.add_row(f"{100 * one.share:.0f}%", *times, str(one.problem))
    return table


def _measure(
    console: Console, wanted: Sequence[Problem], budget: float, request: str = dispatch.AUTO
) -> tuple[list[tuning.Tuned], bool]:
    """What was measured, and whether Ctrl-C ended it."""
    clock = pick_clock("auto", torch.get_num_threads())
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    found: list[tuning.Tuned] = []
    # Refreshed between problems only: a thread that draws would disturb what is timed.
    with Progress(*columns, console=console, auto_refresh=False, disable=not console.is_terminal) as progress:
        task = progress.add_task("tuning", total=len(wanted))
        try:
            for one in tuning.tune(wanted, budget, clock, request):
                found.append(one)
                progress.update(task, advance=1)
                progress.refresh()
        except KeyboardInterrupt:
            return found, True
    return found, False


def _table(found: Sequence[tuning.Tuned]) -> Table:
    """The problems whose choice changes, and what that gains."""
    table = Table(title=f"{torch.get_num_threads()} threads", title_justify="left")
    for name in ("problem", "built-in choice", "kept", "gain"):
        table.add_column(name, overflow="fold")
    for one in found:
        if one.changed:
            times = f"{seconds(one.seconds[one.default])} " if one.default in one.seconds else ""
            gain = "the built-in choice is wrong"
            if one.gain:
                gain = ratio_text(one.gain.value, one.gain.low, one.gain.high)
            table.add_row(str(one.problem), f"{times}{one.default}", one.winner, gain)
    return table

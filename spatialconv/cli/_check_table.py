"""The table of ``spatialconv check``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..check import PARTS, Outcome


def show(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Tables by part, then why cells did not run, then every failure, then one line."""
    for part in PARTS:
        found = [one for one in outcomes if one.part == part]
        if found:
            console.print(_table(part, found))
    reasons: dict[tuple[str, str], int] = {}
    for one in outcomes:
        for reason in one.refused:
            reasons[one.kernel, reason] = reasons.get((one.kernel, reason), 0) + 1
    if reasons:
        console.print("not run, or not all cases:", style="dim")
    for (kernel, reason), count in reasons.items():
        console.print(Text(f"  {kernel}: {reason} ({count} cells)", style="dim"))
    for one in outcomes:
        for line in one.failures[:1]:
            more = f" (and {len(one.failures) - 1} more of this cell)" if len(one.failures) > 1 else ""
            console.print(Text(f"FAILED {one.part} {one.kernel} {line}{more}", style="red"), soft_wrap=True)
    passed, failed = sum(one.passed for one in outcomes), sum(len(one.failures) for one in outcomes)
    style = "red" if failed else "green"
    console.print(Text(f"{passed} cases passed, {failed} failed", style=f"bold {style}"))


def _table(part: str, outcomes: Sequence[Outcome]) -> Table:
    table = Table(title=f"{part}: cases passed", title_justify="left")
    table.add_column("backend" if part == "gradients" else "kernel", no_wrap=True)
    table.add_column("op", no_wrap=True)
    columns = list(dict.fromkeys((one.dtype, one.layout) for one in outcomes))
    for dtype, layout in columns:
        table.add_column(f"{dtype}\n{layout}", justify="center")
    lines: dict[tuple[str, str], dict[tuple[str, str], Outcome]] = {}
    for one in outcomes:
        lines.setdefault((one.kernel, one.op), {})[one.dtype, one.layout] = one
    for (kernel, op), cells in lines.items():
        table.add_row(kernel, op, *(_cell(cells.get(column)) for column in columns))
    return table


def _cell(one: Outcome | None) -> Text:
    if one is None or (not one.passed and not one.failures):
        return Text("-", style="dim")
    if one.failures:
        return Text(f"{len(one.failures)} WRONG", style="bold red")
    return Text(str(one.passed), style="green")

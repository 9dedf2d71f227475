"""How far every class of layers has come to its goal, and what is slower than the peer, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from . import goals
from .peers import TORCH


def _goal_text(one: goals.ClassSummary) -> Text:
    if one.goal is None:
        return Text("-", style="dim")
    words = f"{one.goal.ratio:g}{' each' if one.goal.each else ''}"
    return Text(words, style="green" if one.reached else "red")


def classes_table(rows: Sequence[dict], backend: str, dtype: str, peer: str = TORCH) -> Table:
    """One line a class, layout and batch: means of the ratio, the largest ratio that the roofline leaves, the goal."""
    mine = [row for row in rows if (row["backend"], row["dtype"]) == (backend, dtype)]
    title = (
        f"{backend}, {dtype}: classes; {peer} time / ours: each layer at most {goals.CAP:g}, as it is, the least; "
        f"done: at the goal or at {100 * goals.DONE_SHARE:.0f}% of the roofline"
    )
    table = Table(title=title, title_justify="left")
    for name in ("pass", "class", "layout", "batch"):
        table.add_column(name, no_wrap=True)
    for name in ("layers", "capped", "mean", "min", "goal", "largest", "roof", "done", "slower"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in goals.summaries(mine, peer):
        table.add_row(
            one.pass_name, one.kind, one.layout, one.batch, str(one.layers),
            f"{one.capped:.2f}x", f"{one.plain:.2f}x", f"{one.least:.2f}x", _goal_text(one), f"{one.largest:.2f}x",
            f"{100 * one.share:.0f}%", f"{one.done}", Text(f"{one.slower}", style="red" if one.slower else "dim"),
        )  # fmt: skip
    return table


def slower_table(rows: Sequence[dict], title: str, peer: str = TORCH) -> Table | Text:
    """The rows given, the slowest first, with what the roofline would allow."""
    if not rows:
        return Text(f"{title}: none")
    table = Table(title=f"{title} ({len(rows)})", title_justify="left")
    for name in ("ratio", "90% below", "largest", "roof"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("kernel", no_wrap=True)
    table.add_column("problem", overflow="fold")
    for row in sorted(rows, key=lambda row: row["peers"][peer]["ratio"]):
        entry, share = row["peers"][peer], row["roofline"]["share"]
        bounds = f"{entry['ratio']:.2f}x", f"{entry.get('high90', entry['high']):.2f}x"
        table.add_row(*bounds, f"{entry['ratio'] / share:.2f}x", f"{100 * share:.0f}%", row["kernel"], row["problem"])
    return table


def slower_than_peer(rows: Sequence[dict], peer: str = TORCH) -> Table | Text:
    """The rows whose ratio is surely below what counts as even; the reference, written to be read, does not compete."""
    rows = [row for row in rows if row["backend"] != "reference"]
    title = f"slower than {peer}: the 90% interval of the ratio ends below {goals.SLOWER}"
    return slower_table([row for row in rows if goals.slower(row, peer)], title, peer)


def report(rows: Sequence[dict], peer: str = TORCH) -> Group:
    """The classes of every backend and dtype, then what is slower."""
    kinds = dict.fromkeys((row["backend"], row["dtype"]) for row in rows)
    return Group(*(classes_table(rows, *one, peer) for one in kinds), slower_than_peer(rows, peer))

"""Results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .peers import TORCH
from .results import Change, geometric_means, network_ratios
from .suites import PASSES


def seconds(value: float) -> str:
    """A time with three digits and its unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def ratio_text(value: float | None, low: float | None = None, high: float | None = None) -> Text:
    """A ratio, green where surely faster, red where surely slower; bounds as a superscript range."""
    if value is None:
        return Text("-", style="dim")
    style = "green" if (low or value) > 1.0 else "red" if (high or value) < 1.0 else ""
    text = Text(f"{value:.2f}x", style=style)
    if low is not None and high is not None:
        text.append(f" {low:.2f}-{high:.2f}", style="dim")
    return text


def short(problem: str) -> str:
    """A layer without what its table's title already says."""
    return problem.rsplit(" ", 3)[0].removeprefix("conv2d ")


def _cell(row: dict | None, peer: str) -> tuple[Text, Text, Text]:
    """Our time, the ratio to the peer, and share of the roofline of one row."""
    if row is None:
        return Text(""), Text(""), Text("")
    if row["status"] != "ok":
        reason = (row.get("reason") or "").splitlines()[0:1]
        return Text(row["status"], style="bold red"), Text("".join(reason)[:28], style="dim"), Text("")
    entry = row["peers"].get(peer, {})
    ratio = ratio_text(entry.get("ratio"), entry.get("low"), entry.get("high"))
    if entry.get("ratio") is None:
        ratio = Text(entry.get("status", "-"), style="dim")
    noisy = "" if row["clock"] == "cpu" or row["ours"]["clean"] >= row["ours"]["samples"] else "~"
    share = row["roofline"]["share"]
    return Text(noisy + seconds(row["ours"]["median"])), ratio, Text(f"{100 * share:.0f}%")


def layers_table(rows: Sequence[dict], backend: str, dtype: str, layout: str, peer: str = TORCH) -> Table:
    """One line a layer: for each pass our time, the ratio to the peer with bounds, and the share of the roofline."""
    mine = [row for row in rows if (row["backend"], row["dtype"], row["layout"]) == (backend, dtype, layout)]
    passes = [name for name in PASSES if any(row["pass"] == name for row in mine)]
    table = Table(
        title=f"{backend}, {dtype} {layout}: {peer} time / ours (above 1: we are faster)", title_justify="left"
    )
    table.add_column("layer", overflow="fold")
    table.add_column("kernel", style="dim")
    for name in passes:
        table.add_column(name, justify="right", no_wrap=True)
        table.add_column("ratio", justify="left", no_wrap=True)
        table.add_column("roof", justify="right", no_wrap=True, style="dim")
    by_layer: dict[str, dict[str, dict]] = {}
    for row in mine:
        by_layer.setdefault(row["layer"], {})[row["pass"]] = row
    for layer, found in by_layer.items():
        kernels = dict.fromkeys(row.get("kernel", "-").partition(":")[2] for row in found.values())
        cells = [text for name in passes for text in _cell(found.get(name), peer)]
        table.add_row(short(layer), "/".join(kernels), *cells)
    return table


def means_table(rows: Sequence[dict], peers: Iterable[str]) -> Table:
    """Geometric means of the ratio by class, and whole networks, per backend, layout, pass and peer."""
    table = Table(
        title="summary: peer time / ours, geometric mean over layers; networks: times summed", title_justify="left"
    )
    columns: dict[tuple[str, str, str], None] = {}
    lines: dict[tuple[str, str], dict[tuple[str, str, str], str]] = {}
    for peer in peers:
        for (backend, layout, pass_name, kind), (value, count) in geometric_means(rows, peer).items():
            columns[backend, layout, pass_name] = None
            label = "all layers" if kind == "all" else kind
            lines.setdefault((label, peer), {})[backend, layout, pass_name] = f"{value:.2f}x ({count})"
        for (suite, backend, layout, pass_name), total in network_ratios(rows, peer).items():
            if total["ratio"] is None:
                continue
            columns[backend, layout, pass_name] = None
            lacking = f" ({total['missing']} missing)" if total["missing"] else ""
            lines.setdefault((f"network {suite}", peer), {})[backend, layout, pass_name] = (
                f"{total['ratio']:.2f}x{lacking}"
            )
    table.add_column("class (layers)")
    table.add_column("peer", style="dim")
    for backend, layout, pass_name in columns:
        table.add_column(f"{backend}\n{layout}\n{pass_name}", justify="right")
    ordered = sorted(lines, key=lambda line: (line[1], line[0].startswith("network"), line[0] == "all layers"))
    for label, peer in ordered:
        found = lines[label, peer]
        style = "bold" if label == "all layers" or label.startswith("network") else ""
        table.add_row(label, peer, *(found.get(column, "") for column in columns), style=style)
    return table


def problems_text(rows: Sequence[dict]) -> Text:
    """What was not measured or is not believed, and why; and what else a reader must know."""
    text = Text()
    for row in rows:
        if row["status"] != "ok":
            text.append(f"{row['status']}: {row['backend']} {row['problem']}\n", style="red")
            text.append(f"  {row.get('reason')}\n", style="dim")
    reasons: dict[str, int] = {}
    for row in rows:
        for peer, entry in row.get("peers", {}).items():
            if entry.get("reason"):
                reasons[f"{peer}: {entry['reason']}"] = reasons.get(f"{peer}: {entry['reason']}", 0) + 1
        if row.get("note"):
            reasons[f"{row['problem'].split()[0]}: {row['note']}"] = reasons.get(row["note"], 0) + 1
    for reason, count in reasons.items():
        text.append(f"note: {reason} ({count} rows)\n" if count > 1 else f"note: {reason}\n", style="dim")
    noisy = sum(
        row["status"] == "ok" and row["clock"] == "wall" and row["ours"]["clean"] < row["ours"]["samples"]
        for row in rows
    )
    if noisy:
        text.append(f"~ {noisy} rows: other processes interrupted so many rounds that interrupted ones are counted\n")
    return text


def report(rows: Sequence[dict], peers: Sequence[str]) -> Group:
    """Everything that a run shows when it is over."""
    groups = dict.fromkeys((row["backend"], row["dtype"], row["layout"]) for row in rows)
    parts: list[object] = [layers_table(rows, *group, peer=peer) for peer in peers for group in groups]
    parts.append(means_table(rows, peers))
    parts.append(problems_text(rows))
    return Group(*parts)


def changes_table(changes: Sequence[Change]) -> Table:
    """What became slower or faster beyond both runs' bounds, relative to the peer."""
    table = Table(
        title="against the older run (ratio to the peer; only where the bounds do not overlap)", title_justify="left"
    )
    for name in ("verdict", "row", "peer", "before", "now"):
        table.add_column(name, overflow="fold")
    for change in sorted(changes, key=lambda one: one.verdict, reverse=True):
        if change.verdict != "same":
            style = "red" if change.verdict == "slower" else "green"
            before, now = (
                ratio_text(entry["ratio"], entry["low"], entry["high"]) for entry in (change.old, change.new)
            )
            key = " | ".join(change.key.split(" | ")[:2])
            table.add_row(Text(change.verdict, style=style), key, change.peer, before, now)
    same = sum(change.verdict == "same" for change in changes)
    table.caption = f"{len(changes)} rows compared, {same} without a certain change"
    return table

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


def ratio_text(value: float, low: float, high: float, bounds: bool = True) -> Text:
    """A ratio with its bounds: green where surely above 1, red where surely below."""
    text = Text(f"{value:.2f}x", style="green" if low > 1.0 else "red" if high < 1.0 else "")
    return text.append(f" {low:.2f}-{high:.2f}", style="dim") if bounds else text


def short(problem: str) -> str:
    """A layer without what its table's title already says."""
    return problem.rsplit(" ", 3)[0].removeprefix("conv2d ")


def _cell(row: dict | None, peer: str, wide: bool) -> list[Text]:
    """Our time and the ratio to the peer of one row, then if ``wide`` the share of the roofline and the largest ratio
    that it leaves."""
    if row is None:
        return [Text("")] * (3 if wide else 2)
    if row["status"] != "ok":
        return [Text(row["status"], style="bold red"), *[Text("")] * (2 if wide else 1)]
    entry = row["peers"].get(peer, {})
    if entry.get("ratio") is None:
        ratio = Text(entry.get("status", "-"), style="dim")
    else:
        ratio = ratio_text(entry["ratio"], entry["low"], entry["high"], bounds=wide)
    noisy = "" if row["clock"] == "cpu" or row["ours"]["clean"] >= row["ours"]["samples"] else "~"
    cells = [Text(noisy + seconds(row["ours"]["median"])), ratio]
    if not wide:
        return cells
    share = row["roofline"]["share"]
    largest = f" {entry['ratio'] / share:.1f}x" if entry.get("ratio") else ""
    return [*cells, Text(f"{100 * share:.0f}%{largest}")]


def layers_table(
    rows: Sequence[dict], backend: str, dtype: str, layout: str, peer: str = TORCH, wide: bool = True
) -> Table:
    """One line a layer: for each pass our time, the ratio to the peer, and if ``wide`` its bounds, the roofline's share
    and the ratio at the roofline."""
    mine = [row for row in rows if (row["backend"], row["dtype"], row["layout"]) == (backend, dtype, layout)]
    passes = [name for name in PASSES if any(row["pass"] == name for row in mine)]
    title = f"{backend}, {dtype} {layout}: {peer} time / ours (above 1: we are faster)"
    table = Table(title=title, title_justify="left", padding=(0, 1 if wide else 0))
    table.add_column("layer", overflow="fold")
    table.add_column("kernel", style="dim", overflow="fold")
    for name in passes:
        table.add_column(name, justify="right", no_wrap=True)
        table.add_column("ratio", justify="left", no_wrap=True)
        if wide:
            table.add_column("roof", justify="right", no_wrap=True, style="dim")
    by_layer: dict[str, dict[str, dict]] = {}
    for row in mine:
        by_layer.setdefault(row["layer"], {})[row["pass"]] = row
    for layer, found in by_layer.items():
        kernels = dict.fromkeys(row.get("kernel", "-").partition(":")[2] for row in found.values())
        cells = [text for name in passes for text in _cell(found.get(name), peer, wide)]
        table.add_row(short(layer), "/".join(kernels), *cells)
    return table


def means_table(rows: Sequence[dict], backend: str, dtype: str, peers: Iterable[str]) -> Table:
    """Geometric means of a backend's ratio by class, and whole networks, per layout, pass and peer."""
    mine = [row for row in rows if (row["backend"], row["dtype"]) == (backend, dtype)]
    columns = {
        (row["layout"], row["pass"]): None
        for row in sorted(mine, key=lambda row: (row["layout"], PASSES.index(row["pass"])))
    }
    lines: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    counts: dict[tuple[str, str], int] = {}
    for peer in peers:
        for (_, layout, pass_name, kind), (value, count) in geometric_means(mine, peer).items():
            line = ("all layers" if kind == "all" else kind, peer)
            counts[line] = max(counts.get(line, 0), count)
            lines.setdefault(line, {})[layout, pass_name] = f"{value:.2f}x"
        for (suite, _, layout, pass_name), total in network_ratios(mine, peer).items():
            if total["ratio"] is not None:
                line = (f"network {suite}", peer)
                counts[line] = max(counts.get(line, 0), total["layers"])
                lacking = f" -{total['missing']}" if total["missing"] else ""
                lines.setdefault(line, {})[layout, pass_name] = f"{total['ratio']:.2f}x{lacking}"
    title = f"{backend}, {dtype}: peer time / ours; geometric means, networks: times summed (-k: without k layers)"
    table = Table(title=title, title_justify="left")
    table.add_column("class (layers)")
    table.add_column("peer", style="dim")
    for layout, pass_name in columns:
        table.add_column(f"{layout}\n{pass_name}", justify="right")
    for line in sorted(lines, key=lambda line: (line[1], line[0].startswith("network"), line[0] == "all layers")):
        style = "bold" if line[0] == "all layers" or line[0].startswith("network") else ""
        found = (lines[line].get(column, "") for column in columns)
        table.add_row(f"{line[0]} ({counts[line]})", line[1], *found, style=style)
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
            note = f"{row['problem'].split()[0]}: {row['note']}"
            reasons[note] = reasons.get(note, 0) + 1
    for reason, count in reasons.items():
        text.append(f"note: {reason} ({count} rows)\n" if count > 1 else f"note: {reason}\n", style="dim")
    noisy = sum(
        row["status"] == "ok" and row["clock"] == "wall" and row["ours"]["clean"] < row["ours"]["samples"]
        for row in rows
    )
    if noisy:
        text.append(f"~ {noisy} rows: other processes interrupted so many rounds that interrupted ones are counted\n")
    return text


def report(rows: Sequence[dict], peers: Sequence[str], width: int = 180) -> Group:
    """Everything that a run shows when it is over; on a narrow terminal without bounds and roofline."""
    groups = dict.fromkeys((row["backend"], row["dtype"], row["layout"]) for row in rows)
    wide = width >= 150
    parts: list[object] = [layers_table(rows, *group, peer=peer, wide=wide) for peer in peers for group in groups]
    parts += [means_table(rows, *one, peers) for one in dict.fromkeys(group[:2] for group in groups)]
    parts.append(problems_text(rows))
    return Group(*parts)


def worst_first(rows: Sequence[dict], peer: str = TORCH) -> str:
    """One line a row as plain text, the lowest ratio to the peer first, then what was not measured and why."""
    measured = [row for row in rows if row["status"] == "ok" and row["peers"].get(peer, {}).get("ratio") is not None]
    lines = [f"{f'{peer} time / ours':28} {'roof':5} {'largest':8} {'ours':10} {'kernel':25} problem (caches)"]
    for row in sorted(measured, key=lambda row: row["peers"][peer]["ratio"]):
        entry, time = row["peers"][peer], seconds(row["ours"]["median"])
        bounds = f"{entry['ratio']:6.2f} ({entry['low']:.2f}-{entry['high']:.2f})"
        share = f"{100 * row['roofline']['share']:3.0f}%"
        largest = f"{entry['ratio'] / row['roofline']['share']:.2f}"
        lines.append(
            f"{bounds:28} {share:5} {largest:8} {time:10} {row['kernel']:25} {row['problem']} ({row['cache']})"
        )
    lines += [
        f"{row['status']}: {row['backend']} {row['problem']}: {row.get('reason', '')}"
        for row in rows
        if row["status"] != "ok"
    ]
    return "\n".join(lines) + "\n"


def changes_table(changes: Sequence[Change]) -> Group:
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
    counted = Text(f"{len(changes)} rows compared with the older run, {same} without a certain change")
    return Group(table, counted) if same < len(changes) else Group(counted)

"""``spatialconv report``."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

from pathlib import Path

import typer

HELP = """Show what `spatialconv bench` has stored, without measuring.

Per class of layers the mean ratio to the peer, its goal, what the roofline leaves and how many layers are done; per
network the times summed; then the layers that are slower than the peer. With a second file of the same layers also
those that are slower in both, which chance seldom is.

Examples:

    spatialconv report spatialconv-bench/results.json

    spatialconv report first.json second.json --picture roofline.png
"""


def report(
    file: Path = typer.Argument(help="A result file."),
    other: Path | None = typer.Argument(None, help="Another one: layers slower in both are listed."),
    peer: str = typer.Option("torch", help="Whom to compare with."),
    layers: bool = typer.Option(False, help="Every layer, too."),
    picture: Path | None = typer.Option(None, help="Write the share of the roofline by class as a PNG."),
) -> None:
    from rich.console import Console

    from ..bench import class_table, goals, peers, plot, results, table

    if peer not in peers.NAMES:
        raise typer.BadParameter(f"expected one of {', '.join(peers.NAMES)}, got {peer!r}", param_hint="--peer")
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    try:
        rows = results.load(file)["rows"]
        others = results.load(other)["rows"] if other else []
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    if layers:
        console.print(table.report(rows, [peer], console.width))
    else:
        for one in dict.fromkeys((row["backend"], row["dtype"]) for row in rows):
            console.print(table.means_table(rows, *one, [peer]))
    console.print(class_table.report(rows, peer))
    if other:
        both = goals.slower_in_both(rows, others, peer)
        console.print(class_table.slower_table(both, f"slower than {peer} in both files", peer))
    if picture:
        try:
            console.print(f"picture: {plot.draw_shares(rows, picture, file.stem).resolve()}", soft_wrap=True)
        except ImportError as error:
            console.print(f"no picture: {error} (extra 'all')")

"""How every study command takes a shape and shows, writes and ends."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

if TYPE_CHECKING:
    from ...study.report import Report, Table

JSON = typer.Option(None, "--json", help="Write every figure as JSON; '-' for the terminal, alone.")
OUT = typer.Option(None, "--out", help="Folder for the pictures, as PNG; none are drawn without it.")
SEED = typer.Option(0, min=0, help="Seed of everything random.")

Result = TypeVar("Result")


def argument(function: Callable[..., Result], *values: object, hint: str) -> Result:
    """What a function makes of arguments; what it raises against them, or because this machine lacks something that it
    needs, becomes a usage error, with exit code 2."""
    try:
        return function(*values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise typer.BadParameter(str(error), param_hint=hint) from None


def deliver(report: Report, as_json: Path | None, out: Path | None) -> None:
    """Print tables and notes, write JSON and pictures; exit code 1 where the report failed."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    _prepare(as_json, out)
    if str(as_json) == "-":
        typer.echo(json.dumps(report.data, indent=1))
    else:
        for table in report.tables:
            console.print(_rich(table))
        for note in report.notes:
            console.print(note, highlight=False, markup=False)
        if as_json:
            as_json.write_text(json.dumps(report.data, indent=1) + "\n")
    if out:
        _draw(report, out, console if str(as_json) != "-" else Console(stderr=True))
    if report.failed:
        raise typer.Exit(1)


def _prepare(as_json: Path | None, out: Path | None) -> None:
    """Folders made where there are none; a usage error where a path cannot be written."""
    for folder, hint in ((out, "--out"), (as_json and str(as_json) != "-" and as_json.parent, "--json")):
        try:
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise typer.BadParameter(f"cannot be written: {error}", param_hint=hint) from None
    if as_json and str(as_json) != "-" and as_json.is_dir():
        raise typer.BadParameter(f"expected a file, {as_json} is a folder", param_hint="--json")


def _draw(report: Report, out: Path, console) -> None:
    for picture in report.pictures:
        path = out / f"{picture.name}.png"
        try:
            picture.draw().savefig(path, dpi=150)
        except ImportError as error:
            console.print(f"no picture: {error} (extra 'all')")
            return
        console.print(f"{path.resolve()}: {picture.reading}", soft_wrap=True, highlight=False, markup=False)


def _rich(table: Table):
    from rich.table import Table as Rich

    shown = Rich(title=table.title, title_justify="left")
    for number, name in enumerate(table.columns):
        numeric = any(isinstance(row[number], (int, float)) for row in table.rows)
        shown.add_column(name, justify="right" if numeric else "left")
    for row in table.rows:
        shown.add_row(*map(_cell, row))
    return shown


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)

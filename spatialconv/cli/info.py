"""``spatialconv info``."""

from __future__ import annotations

import typer

HELP = """Print versions, build facts, instruction sets, backends and environment variables: for bug reports.

Examples:

    spatialconv info

    spatialconv info --json
"""


def info(as_json: bool = typer.Option(False, "--json", help="As JSON, for programs.")) -> None:
    from ..info import collect

    facts = collect()
    if as_json:
        import json

        typer.echo(json.dumps(facts, indent=1))
        return
    for section, entries in facts.items():
        typer.echo(f"{section}:")
        width = max(map(len, entries), default=0)
        for name, value in entries.items():
            first, *rest = value.splitlines() or [""]
            typer.echo(f"  {name:<{width}}  {first}")
            for line in rest:
                typer.echo(f"  {'':<{width}}  {line}")

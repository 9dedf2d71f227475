"""``spatialconv study check``."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

from pathlib import Path

import typer

from ._deliver import JSON, argument, deliver

HELP = """Hold the study to every oracle on this machine: what ran, what was skipped and why, how far both agree.

Exit code 1 where one disagrees; 3 with --require where one is missing.

Examples:

    spatialconv study check

    spatialconv study check --oracle cachegrind --thorough --require
"""


def check(
    oracle: list[str] = typer.Option([], help="Only this oracle; may be given several times."),
    thorough: bool = typer.Option(False, help="Larger nests as well, some minutes."),
    require: bool = typer.Option(False, help="Fail where an oracle is missing."),
    as_json: Path | None = JSON,
) -> None:
    from ...study import oracles

    argument(oracles.chosen, tuple(oracle), hint="--oracle")
    found = oracles.report(oracles.findings(thorough, tuple(oracle)))
    deliver(found, as_json, None)
    if require and oracles.SKIPPED in found.data["outcomes"]:
        raise typer.Exit(3)

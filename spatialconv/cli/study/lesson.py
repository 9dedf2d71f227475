"""``spatialconv study lesson``."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

from pathlib import Path

import typer

from ._deliver import JSON, OUT, SEED, argument, deliver

FULL_SEEDS = 3

HELP = """Why convolutional networks detect spatial patterns, claim by claim, each tried on real pictures.

Every claim is told as it commonly is, with what was expected before the run, what was measured, and a verdict:
holds, holds only .., or wrong as told. The pictures are scikit-learn's digits, the networks this package's layers.
The exit code is 1 when a figure lies outside of its expectation.

Examples:

    spatialconv study lesson --quick

    spatialconv study lesson shift pooling --out pictures

    spatialconv study lesson equivariance --backend reference --json -

    spatialconv study lesson --list
"""


def lesson(
    name: list[str] = typer.Argument(None, metavar="[NAME]...", help="Experiments; all where none is named."),
    quick: bool = typer.Option(False, "--quick", help="One seed instead of several; nothing else is smaller."),
    seeds: int = typer.Option(
        FULL_SEEDS, min=1, help="How many seeds; every one of them has to meet what is expected."
    ),
    seed: int = SEED,
    backend: str | None = typer.Option(None, help="Backend for every layer; by default the dispatcher's choice."),
    threads: int = typer.Option(1, min=1, help="As with torch.set_num_threads; the networks are too small for many."),
    listed: bool = typer.Option(False, "--list", help="Only name the experiments and their claims."),
    as_json: Path | None = JSON,
    out: Path | None = OUT,
) -> None:
    import torch
    from rich.console import Console

    from ...study.lesson import run

    chosen = argument(run.named, name or (), hint="NAME")
    if listed:
        deliver(run.contents(chosen), as_json, out)
        return
    argument(run.check_backend, backend, hint="--backend")
    torch.set_num_threads(threads)
    numbers = range(seed, seed + (1 if quick else seeds))
    console = Console(stderr=True)
    told = console.print if console.is_terminal else lambda name: None
    try:
        results = run.run(chosen, numbers, backend, told)
    except ImportError as error:
        raise typer.BadParameter(str(error)) from None
    deliver(run.report(results, numbers, backend), as_json, out)

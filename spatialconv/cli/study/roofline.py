"""``spatialconv study roofline``."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

from pathlib import Path

import typer

from ._deliver import JSON, OUT, argument, deliver

HELP = """Draw this machine's roofline: its measured peaks, the bounds that they set to a layer, and measured layers.

Peaks are measured now, which takes seconds, unless they are given or come with a result file of `spatialconv bench`,
whose layers are then the dots.

Examples:

    spatialconv study roofline "1x64x28x28 k=64 3x3 s1 p1" --threads 1

    spatialconv study roofline --bench spatialconv-bench/results.json --out pictures

    spatialconv study roofline "1x64x28x28 k=64 3x3 s1 p1" --peak 90 --bandwidth 11
"""


def roofline(
    problem: str | None = typer.Argument(None, help="A shape like '1x64x28x28 k=64 3x3 s1 p1', or a printed problem."),
    bench: Path | None = typer.Option(None, help="A result file of bench: its peaks, and its convolutions as dots."),
    dtype: str | None = typer.Option(None, help="Element type; that of the shape, or the file's commonest."),
    device: str = typer.Option("cpu", help="What is measured: cpu or cuda."),
    threads: int | None = typer.Option(None, min=1, help="As with torch.set_num_threads."),
    peak: float | None = typer.Option(None, help="Highest rate of arithmetic, 1e9 operations a second."),
    bandwidth: float | None = typer.Option(None, help="Bandwidth of memory, 1e9 bytes a second."),
    as_json: Path | None = JSON,
    out: Path | None = OUT,
) -> None:
    import torch

    from ...backends.base import DTYPES
    from ...study import dots, peaks, roofline_report, shape

    found = argument(shape.read, problem, hint="PROBLEM") if problem is not None else None
    if dtype is not None and dtype not in DTYPES:
        raise typer.BadParameter(f"expected one of {', '.join(DTYPES)}, got {dtype!r}", param_hint="--dtype")
    if found is not None and dtype is not None:
        found = found.replace(dtype=dtype)
    wanted = dtype or (found.dtype if found is not None else None)
    given = argument(peaks.given, peak, bandwidth, hint="--peak")
    measured = None
    if bench is not None:
        if given:
            raise typer.BadParameter("expected --bench or --peak, one of them", param_hint="--bench")
        measured, machine, wanted = argument(dots.read, bench, wanted, hint="--bench")
    elif given:
        machine, wanted = given, wanted or "f32"
    else:
        wanted = wanted or "f32"
        if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
            raise typer.BadParameter(f"expected cpu, or cuda where torch has it, got {device!r}", param_hint="--device")
        if threads:
            torch.set_num_threads(threads)
        machine = argument(peaks.measured, wanted, device, hint="--dtype")
    deliver(argument(roofline_report.report, machine, found, measured, wanted, hint="PROBLEM"), as_json, out)

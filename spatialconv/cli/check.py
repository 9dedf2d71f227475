"""``spatialconv check``."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

import typer

HELP = """Check correctness, gradients and translation equivariance of every kernel on this machine.

Torch in float64 judges. A cell shows how many cases passed; '-' means that the kernel does not take it, and the reasons
stand below. The exit code is 1 when anything failed.

Examples:

    spatialconv check

    spatialconv check --backend extension --dtype f32 --dtype bf16

    spatialconv check --backend extension:direct --op conv2d --part correctness
"""


def check(
    backend: list[str] = typer.Option([], help="Backend or kernel; all by default. May be given several times."),
    op: list[str] = typer.Option([], help="conv2d, conv2d_grad_input, max_pool2d, ...; all by default."),
    dtype: list[str] = typer.Option(["f32", "f64", "bf16", "f16"], help="Element types. May be given several times."),
    layout: str = typer.Option("both", help="nchw, nhwc or both."),
    part: list[str] = typer.Option(
        ["correctness", "gradients", "equivariance"], help="What is checked. May be given several times."
    ),
    device: str = typer.Option("cpu", help="cpu or cuda."),
    threads: int | None = typer.Option(None, min=1, help="As with torch.set_num_threads."),
) -> None:
    import torch
    from rich.console import Console
    from rich.progress import track

    from .. import check as checks
    from ._check_table import show

    if threads:
        torch.set_num_threads(threads)
    if device not in ("cpu", "cuda"):
        raise typer.BadParameter(f"expected cpu or cuda, got {device!r}", param_hint="--device")
    if device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("this torch sees no CUDA device", param_hint="--device")
    layouts = ("nchw", "nhwc") if layout == "both" else (layout,)
    try:
        cells = checks.plan(backend, op, dtype, layouts, part, device)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    outcomes = [cell.run() for cell in track(cells, "checking", console=console, transient=True)]
    show(console, outcomes)
    if not any(outcome.passed for outcome in outcomes) or any(outcome.failures for outcome in outcomes):
        raise typer.Exit(1)

"""``spatialconv tune``."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

import typer

HELP = """Measure this machine and remember which kernel is fastest for each problem.

For every layer of a suite (or every problem given) the kernels that take it run interleaved on the same operands. What
surely beats the built-in choice, and is right, is written to a table in your cache folder, which 'auto' then follows;
what the table said before of the same problems is replaced. Ctrl-C ends it early and keeps what was measured.

Examples:

    spatialconv tune

    spatialconv tune --suite mobilenetv2 --batch 8 --layout nhwc

    spatialconv tune --choice extension --batch 8

    spatialconv tune "conv2d n1 ic64 ih56 iw56 oc64 kh3 kw3 ph1 pw1 f32 nchw cpu" --dry-run
"""


def tune(
    problems: list[str] = typer.Argument(None, help="Problems as logs print them; instead of suites."),
    suite: list[str] = typer.Option([], help="Suite of the package, or a file; resnet50 where neither is given."),
    dtype: list[str] = typer.Option(["f32"], help="f32, f64, bf16, f16. May be given several times."),
    layout: str = typer.Option("both", help="nchw, nhwc or both."),
    batch: int = typer.Option(1, min=0, help="Images a batch; 0 is each suite's own."),
    passes: list[str] = typer.Option(["all"], "--pass", help="forward, grad_input, grad_weight, backward, all."),
    threads: int | None = typer.Option(None, min=1, help="Choices are kept per number of threads; torch's by default."),
    budget: float = typer.Option(0.3, min=0.0, help="Seconds of timing a problem."),
    filter: str = typer.Option("", help="Only problems whose printed form contains this."),
    dry_run: bool = typer.Option(False, help="Show what would be kept, write nothing."),
    choice: str = typer.Option("", help="A backend: compare its built-in choice with its best kernel, write nothing."),
) -> None:
    import torch

    from .. import dispatch
    from ..bench import suites
    from ..problem import parse

    if threads:
        torch.set_num_threads(threads)
    layouts = ("nchw", "nhwc") if layout == "both" else (layout,)
    try:
        wanted = [parse(text) for text in problems or ()]
        for name in suite or ([] if wanted else ["resnet50"]):
            for layer in suites.load(name):
                for one in dtype:
                    for order in layouts:
                        fitted = suites.fit(layer, batch or None, one, order, "cpu")
                        wanted += [cell.problem for cell in suites.cells(fitted, suites.pass_names(passes))]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    wanted = [problem for problem in dict.fromkeys(wanted) if filter in str(problem)]
    if not wanted:
        raise typer.BadParameter("no problem is left", param_hint="--filter")
    for problem in wanted:
        if problem.device != "cpu":
            raise typer.BadParameter(f"expected a problem on the CPU, got {problem}")
    if choice and choice not in dispatch.backends():
        known = ", ".join(dispatch.backends())
        raise typer.BadParameter(f"expected one of {known}, got {choice!r}", param_hint="--choice")
    from ._tune_run import judge, run

    try:
        good = judge(wanted, budget, choice) if choice else run(wanted, budget, dry_run)
    except (OSError, ValueError, NotImplementedError) as error:
        raise typer.BadParameter(str(error)) from None
    if not good:
        raise typer.Exit(1)

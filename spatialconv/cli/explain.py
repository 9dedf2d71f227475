"""``spatialconv explain``."""

from __future__ import annotations

import typer

HELP = """Say which kernel would run a problem, which refuse it, and why. Nothing is computed.

Examples:

    spatialconv explain "conv2d n8 ic64 ih56 iw56 oc64 kh3 kw3 ph1 pw1 f32 nhwc cpu"

    spatialconv explain "conv2d_grad_weight n1 ic32 ih14 iw14 oc32 kh3 kw3 ph1 pw1 g32" --backend extension:gemm
"""


def explain(
    problem: str = typer.Argument(help="A problem as logs, errors and benchmark rows print it."),
    backend: str | None = typer.Option(
        None, help="A backend, or one kernel as 'backend:kernel'; as backend= in a call."
    ),
    threads: int | None = typer.Option(None, min=1, help="As with torch.set_num_threads."),
) -> None:
    import torch

    from .. import dispatch

    if threads:
        torch.set_num_threads(threads)
    try:
        found = dispatch.explain_problem(problem, backend)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    typer.echo(str(found))
    if found.chosen is None:
        raise typer.Exit(1)

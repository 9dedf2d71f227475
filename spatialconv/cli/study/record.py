"""``spatialconv study record``."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

from pathlib import Path

import typer

from ._deliver import JSON, OUT, argument, deliver
from ._nests import CACHE

HELP = """Run a shipped C++ kernel with every load and store written down: what it touches, and what misses.

The kernel's own file is compiled with its accesses instrumented (GCC; a minute or more the first time), so this needs
the source tree. Where the study has a loop nest of the kernel, the two are compared access by access; exit code 1 where
they differ.

Examples:

    spatialconv study record "1x64x28x28 k=64 1x1 nhwc" gemm

    spatialconv study record "1x64x56x56 max 3x3 s2 p1 nhwc" rows --cache zen3

    spatialconv study record "1x32x14x14 k=32 3x3 p1" winograd --level baseline
"""


def record(
    shape: str = typer.Argument(help="A layer, like '1x64x28x28 k=64 1x1 nhwc', or a problem as printed elsewhere."),
    kernel: str = typer.Argument(help="gemm, winograd, winograd4, direct, depthwise, inner, rows, planes."),
    level: str | None = typer.Option(None, help="baseline, avx2 or avx512; the best that this machine runs."),
    cache: str = CACHE,
    source: Path | None = typer.Option(None, help="The folder csrc; that of the package's source tree by default."),
    as_json: Path | None = JSON,
    out: Path | None = OUT,
) -> None:
    from ...study import cache as caches
    from ...study import shape as shapes
    from ...study.recording import build, report
    from ...study.recording import record as recording

    problem = argument(shapes.read, shape, hint="SHAPE")
    levels, where = argument(caches.read, cache, hint="--cache")
    if reason := build.unavailable(source):
        raise typer.BadParameter(reason, param_hint="--source")
    if level:
        argument(recording.check_level, level, hint="--level")
    found = argument(recording.record, problem, kernel.removeprefix("extension:"), level, source, hint="KERNEL")
    deliver(report.report(found, levels, where), as_json, out)

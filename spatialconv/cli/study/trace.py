"""``spatialconv study trace``."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

import re
from pathlib import Path

import typer

from ._deliver import JSON, OUT, argument, deliver
from ._nests import CACHE, ORDER, TILE, several

HELP = """Run loop nests of a layer through simulated caches: who misses, at which level, of which kind.

Examples:

    spatialconv study trace "1x16x32x32 k=32 3x3 p1" --cache sapphire-rapids

    spatialconv study trace "1x64x28x28 k=64 3x3 p1" --nest nchw,tiled --tile oc=8,oh=4 --out pictures --heat

    spatialconv study trace "1x64x56x56 k=64 3x3 p1" --nest nchw --order "n g oh oc ow ic kh kw" --code

    spatialconv study trace "8x256x56x56 k=256 3x3 p1" --nest nhwc --rows 200:210
"""


def rows_of(text: str) -> tuple[int, int]:
    found = re.fullmatch("([0-9]+):([0-9]+)", text)
    if not found:
        raise ValueError(f"study: rows: expected FIRST:LAST like 200:210, got {text!r}")
    return int(found[1]), int(found[2])


def trace(
    shape: str = typer.Argument(help="A layer, like '1x16x32x32 k=32 3x3 p1'."),
    nest: str | None = typer.Option(
        None, help="Nests between commas: nchw, nhwc, tiled, im2col, untied, dense; pool. Without it, those that fit."
    ),
    cache: str = CACHE,
    order: str | None = ORDER,
    tile: str | None = TILE,
    rows: str | None = typer.Option(
        None, help="Count these rows alone, FIRST:LAST, after filling the caches; by itself beyond 1e9 accesses."
    ),
    heat: bool = typer.Option(False, help="Count misses by element; a picture of each nest with --out."),
    code: bool = typer.Option(False, help="Show each nest as pseudo-code."),
    c: Path | None = typer.Option(None, "--c", help="Folder for each nest as a C program that stands alone."),
    as_json: Path | None = JSON,
    out: Path | None = OUT,
) -> None:
    from ...study import cache as caches
    from ...study import shape as shapes
    from ...study import trace as tracing
    from ...study import trace_report
    from ...study.c_source import c_source

    problem = argument(shapes.read, shape, hint="SHAPE")
    levels, source = argument(caches.read, cache, hint="--cache")
    chosen = several(problem, nest, order, tile)
    limits = argument(rows_of, rows, hint="--rows") if rows else None
    if c:
        c.mkdir(parents=True, exist_ok=True)
        for one in chosen:
            (c / f"{one.name}.c").write_text(argument(c_source, one, hint="--c"))
    traces = []
    for one in chosen:
        window = argument(tracing.window, one, *limits, hint="--rows") if limits else tracing.sample(one)
        traces.append(argument(tracing.trace, one, levels, window is None, heat, window, hint="--cache"))
    deliver(trace_report.report(traces, source, code), as_json, out)

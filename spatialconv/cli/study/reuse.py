"""``spatialconv study reuse``."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

from pathlib import Path

import typer

from ._deliver import JSON, OUT, argument, deliver
from ._nests import CACHE, ORDER, TILE, several

HELP = """Tell how many other lines lie between two touches of one line, and with it the misses of every cache size.

Examples:

    spatialconv study reuse "1x16x32x32 k=32 3x3 p1" --nest nchw,untied

    spatialconv study reuse "1x64x28x28 k=64 3x3 p1" --nest nhwc,tiled --out pictures
"""


def reuse(
    shape: str = typer.Argument(help="A layer, like '1x16x32x32 k=32 3x3 p1'."),
    nest: str | None = typer.Option(
        None, help="Nests between commas: nchw, nhwc, tiled, im2col, untied, dense; pool. Without it, those that fit."
    ),
    cache: str = CACHE,
    order: str | None = ORDER,
    tile: str | None = TILE,
    as_json: Path | None = JSON,
    out: Path | None = OUT,
) -> None:
    from ...study import cache as caches
    from ...study import reuse as distances
    from ...study import reuse_report
    from ...study import shape as shapes

    problem = argument(shapes.read, shape, hint="SHAPE")
    levels, source = argument(caches.read, cache, hint="--cache")
    chosen = several(problem, nest, order, tile)
    found = [argument(distances.reuse, one, levels[0].line, hint="SHAPE") for one in chosen]
    deliver(reuse_report.report(found, levels, source), as_json, out)

"""``spatialconv study sweep``."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

from pathlib import Path

import typer

from ._deliver import JSON, OUT, argument, deliver
from ._nests import CACHE, ORDER, TILE, one_nest, tiles

HELP = """Vary one size of a layer and find where its misses leap, why, and which padding takes the leap away.

Examples:

    spatialconv study sweep "1x16x32x32 k=32 3x3 p1" --vary side=24..40 --cache sapphire-rapids

    spatialconv study sweep "1x64x14x14 k=64 3x3 p1 nhwc" --nest nhwc --vary ic=16..128:16 --out pictures
"""


def sweep(
    shape: str = typer.Argument(help="A layer, like '1x16x32x32 k=32 3x3 p1'."),
    vary: str = typer.Option(..., help="AXIS=FIRST..LAST[:STEP]; AXIS is side (ih and iw), n, ic, ih, iw or oc."),
    nest: str | None = typer.Option(None, help="One nest: nchw, nhwc, tiled, im2col, untied, dense or pool."),
    cache: str = CACHE,
    order: str | None = ORDER,
    tile: str | None = TILE,
    as_json: Path | None = JSON,
    out: Path | None = OUT,
) -> None:
    from ...study import cache as caches
    from ...study import shape as shapes
    from ...study import sweep as sweeping
    from ...study import sweep_report

    problem = argument(shapes.read, shape, hint="SHAPE")
    levels, source = argument(caches.read, cache, hint="--cache")
    axis, values = argument(sweeping.parse_vary, vary, hint="--vary")
    sizes = argument(tiles, tile, hint="--tile")
    name = nest or problem.layout
    for value in values:
        changed = argument(sweeping.resized, problem, axis, value, hint="--vary")
        argument(sweeping.check_size, argument(one_nest, changed, name, order, sizes, hint="--nest"), hint="--vary")
    found = argument(
        sweeping.sweep, problem, lambda one: one_nest(one, name, order, sizes), levels, axis, values, hint="--cache"
    )
    deliver(sweep_report.report(found, source), as_json, out)

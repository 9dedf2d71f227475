"""``spatialconv study page``: the single file to click through."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

from pathlib import Path

import typer

from ._deliver import JSON, argument, deliver

HELP = """Write one HTML file, which needs no network, to see, click and play how a convolution walks through memory.

Loop order, layout, sharing, tiles and caches are switches there; counts are made in the browser, and for the examples
they stand beside those of this package's own simulator. Layers given as SHAPE become examples too.

Examples:

    spatialconv study page conv.html

    spatialconv study page conv.html "1x64x14x14 k=64 3x3 p1" --cache 32K/8/64,1M/16/64
"""

_PATH = typer.Argument(..., metavar="OUT.html", help="The file to write.", dir_okay=False)
_SHAPES = typer.Argument(
    None, metavar="[SHAPE]...", help="Layers to show besides the built-in ones, like '1x64x28x28 k=64 3x3 p1'."
)
_CACHE = typer.Option("host", "--cache", help="host, a preset's name, or levels such as 32K/8/64,1M/16/64.")


def page(path: Path = _PATH, shapes: list[str] = _SHAPES, cache: str = _CACHE, as_json: Path = JSON) -> None:
    from ...study.page.report import written
    from ...study.shape import read

    problems = [argument(read, text, hint="SHAPE") for text in shapes or []]
    report = argument(written, path, problems, cache, hint="OUT.html [SHAPE]... --cache")
    deliver(report, as_json, None)

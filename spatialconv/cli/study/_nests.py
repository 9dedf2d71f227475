"""Options that several commands take: which nests, on which caches."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

import re
from typing import TYPE_CHECKING

import typer

from ._deliver import argument

if TYPE_CHECKING:
    from ...problem import Problem
    from ...study.nest import Nest

CACHE = typer.Option(
    "host",
    help="host, a preset (skylake-server, sapphire-rapids, zen3, neoverse-n1, cortex-a72), or SIZE/WAYS/LINE,...",
)
ORDER = typer.Option(
    None, help="Loops of a direct nest from the outermost in: each of 'n g oc oh ow ic kh kw', and 'oc0' for tiles."
)
TILE = typer.Option(None, help="Tiles of a direct nest, as in oc=8,oh=4.")


def tiles(text: str | None) -> dict[str, int] | None:
    """The tiles that a text gives; ValueError where it is none."""
    if text is None:
        return None
    found = {}
    for word in text.split(","):
        match = re.fullmatch(r"\s*([a-z]+)=([0-9]+)\s*", word)
        if not match or match[1] in found:
            raise ValueError(f"study: tile: expected tiles like oc=8,oh=4, got {text!r}")
        found[match[1]] = int(match[2])
    return found


def one_nest(problem: Problem, name: str, order: str | None, tile: dict[str, int] | None) -> Nest:
    """The nest of that name; ValueError where it has no such order or tiles."""
    from ...study import nests

    if (order or tile) and name in ("im2col", "dense"):
        raise ValueError(f"study: nest: {name} has one order and no tiles, got {order or tile}")
    if tile and name == "pool":
        raise ValueError(f"study: nest: pool has no tiles, got {tile}")
    return nests.named(problem, name, order, tile)


def several(problem: Problem, names: str | None, order: str | None, tile: str | None) -> list[Nest]:
    """The nests of names between commas, without them those that fit the problem; a usage error where one does not."""
    if names is None:
        names = "nchw,nhwc" if problem.op != "conv2d" else "nchw,nhwc,tiled,untied"
        names += ",im2col" if problem.op == "conv2d" and not order and not tile else ""
    sizes = argument(tiles, tile, hint="--tile")
    words = [name.strip() for name in names.split(",")]
    return [argument(one_nest, problem, name, order, sizes, hint="--nest") for name in dict.fromkeys(words)]

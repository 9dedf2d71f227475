"""``spatialconv study equivariance``."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

from pathlib import Path

import typer

from ._deliver import JSON, OUT, SEED, argument, deliver

HELP = """Test whether a model's maps follow their picture when it is shifted, turned by quarters or mirrored.

Verdicts: exact; exact inside a border of a width; exact at multiples of the stride; broken. Every layer is judged, and
the one named at which the final verdict begins.

Examples:

    spatialconv study equivariance "nn.Conv2d(3, 8, 3, padding=1)"

    spatialconv study equivariance networks.py:resnet50 --input 1x3x65x65 --group shift --dtype f32

    spatialconv study equivariance "nn.Conv2d(3, 8, 3, padding=1, padding_mode='circular')" --group rot90 --out pictures
"""


def equivariance(
    model: str = typer.Argument(help="FILE.py:function that returns a module, or an expression 'nn....'."),
    group: list[str] | None = typer.Option(None, help="shift, rot90 or flip; may be given several times; all without."),
    input: str = typer.Option("1x3x32x32", help="The picture, N x C x H x W."),
    dtype: str = typer.Option("f64", help="What the model is run in: f64 or f32."),
    require: bool = typer.Option(False, help="Exit with 1 where anything asked for is broken."),
    seed: int = SEED,
    as_json: Path | None = JSON,
    out: Path | None = OUT,
) -> None:
    from ...study import equivariance_report, loading, transforms

    shape = argument(loading.input_shape, input, hint="--input")
    if dtype not in equivariance_report.DTYPES:
        raise typer.BadParameter(f"expected f32 or f64, got {dtype!r}", param_hint="--dtype")
    module = argument(loading.load, model, hint="MODEL")
    groups = tuple(dict.fromkeys(group or transforms.GROUPS))
    found = argument(equivariance_report.report, module, shape, groups, dtype, seed, hint="MODEL")
    found.failed = require and any(one["verdict"] == "broken" for one in found.data["groups"].values())
    deliver(found, as_json, out)

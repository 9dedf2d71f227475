"""``spatialconv study field``."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

from pathlib import Path

import typer

from ._deliver import JSON, OUT, SEED, argument, deliver

HELP = """Find the receptive field of a model: by formula, by gradient, and how much of it is really made use of.

The formula reads the layers, branches included; the gradient of a copy with positive weights must agree with it pixel
by pixel, or the command fails. The effective field is that of the model's own weights.

Examples:

    spatialconv study field "nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, dilation=2))"

    spatialconv study field networks.py:mobilenetv2 --input 1x3x224x224 --out pictures
"""


def field(
    model: str = typer.Argument(help="FILE.py:function that returns a module, or an expression 'nn....'."),
    input: str = typer.Option("1x3x64x64", help="The model's input, N x C x H x W."),
    place: str | None = typer.Option(None, help="Row and column of the output, as 3x4; the middle one without it."),
    seed: int = SEED,
    as_json: Path | None = JSON,
    out: Path | None = OUT,
) -> None:
    from ...study import field_report, loading

    shape = argument(loading.input_shape, input, hint="--input")
    chosen = argument(_place, place, hint="--place") if place is not None else None
    module = argument(loading.load, model, hint="MODEL")
    deliver(argument(field_report.report, module, shape, chosen, seed, hint="MODEL"), as_json, out)


def _place(text: str) -> tuple[int, int]:
    parts = text.split("x")
    if len(parts) != 2 or not all(map(str.isdecimal, parts)):
        raise ValueError(f"study: field: expected a place like 3x4, got {text!r}")
    return int(parts[0]), int(parts[1])

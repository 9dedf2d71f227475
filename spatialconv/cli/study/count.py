"""``spatialconv study count``."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

from pathlib import Path

import typer

from ._deliver import JSON, OUT, argument, deliver

HELP = """Count multiplications, bytes and reuse of a layer or a model, exact at the borders.

Rows for four ways to compute the layer: tied (a convolution), untied (a filter of its own everywhere), dense (flattened
and fully connected) and im2col; how often each weight and pixel is used; with the machine's peaks, what binds.

Examples:

    spatialconv study count "1x64x28x28 k=64 3x3 s1 p1"

    spatialconv study count "1x64x56x56 k=64 1x1 s2" --peak 90 --bandwidth 11 --out pictures

    spatialconv study count --model networks.py:resnet50 --input 1x3x224x224

    spatialconv study count --model mobilenetv2 --json -
"""


def count(
    problem: str | None = typer.Argument(None, help="A shape like '1x64x28x28 k=64 3x3 s1 p1', or a printed problem."),
    model: str | None = typer.Option(
        None, help="A whole model instead: FILE.py:function, 'nn....', or the name of one of bench's suites."
    ),
    input: str = typer.Option("1x3x224x224", help="The model's input, N x C x H x W."),
    peak: float | None = typer.Option(None, help="Highest rate of arithmetic, 1e9 operations a second."),
    bandwidth: float | None = typer.Option(None, help="Bandwidth of memory, 1e9 bytes a second."),
    measure: bool = typer.Option(False, help="Measure both here, which takes seconds."),
    as_json: Path | None = JSON,
    out: Path | None = OUT,
) -> None:
    if (problem is None) == (model is None):
        raise typer.BadParameter("expected a shape or --model, one of them")
    from ...study import count_report, counting, peaks, shape

    if model is not None:
        if measure or peak is not None or bandwidth is not None:
            raise typer.BadParameter("a bound is shown for one layer, given by its shape", param_hint="--model")
        deliver(count_report.of_model(_counts(model, input), model), as_json, out)
        return
    found = argument(shape.read, problem, hint="PROBLEM")
    counts = argument(counting.count, found, hint="PROBLEM")
    machine = argument(peaks.given, peak, bandwidth, hint="--peak")
    if measure and machine is None:
        machine = argument(peaks.measured, found.dtype, hint="PROBLEM")
    deliver(count_report.of_layer(counts, machine), as_json, out)


def _counts(model: str, input: str):
    from ...bench import suites
    from ...study import loading, model_counts

    if model in suites.names() or model.endswith(".txt"):
        return argument(model_counts.of_suite, model, hint="--model")
    import torch

    shape = argument(loading.input_shape, input, hint="--input")
    module = argument(loading.load, model, hint="--model")
    return argument(model_counts.of_model, module, torch.zeros(shape), hint="--model")

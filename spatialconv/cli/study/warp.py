"""``spatialconv study warp``."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

from pathlib import Path

import typer

from ._deliver import JSON, OUT, argument, deliver

HELP = """See what a GPU's memory makes of a layer: sectors of 32 bytes a request of a warp, and how much is useful.

A model of a plain kernel whose 32 lanes are neighbouring output pixels, input channels or filters, in every layout of
input and weights, tied and untied; or, with a backend, the accesses recorded from this library's own kernels: Triton's
interpreted on the CPU, CUDA's while their CPU twin runs (small shapes; a CUDA kernel is compiled first, by GCC and from
the source tree). No GPU is needed.

Examples:

    spatialconv study warp "1x64x56x56 k=64 3x3 s1 p1"

    spatialconv study warp "1x64x56x56 k=64 3x3 s2 p1 bf16" --lane pixel --lane c --out pictures

    spatialconv study warp "1x8x16x16 k=8 3x3 p1 nhwc" --backend triton

    spatialconv study warp "1x32x16x16 max 3x3 s2 p1 nhwc" --backend extension:cuda_windows
"""


def warp(
    problem: str = typer.Argument(help="A shape like '1x64x28x28 k=64 3x3 s1 p1', or a printed problem."),
    lane: list[str] | None = typer.Option(None, help="What a lane is: pixel, c or k; may be given several times."),
    dtype: str | None = typer.Option(None, help="Another element type than the shape's: f32, bf16, f16, f64."),
    backend: str | None = typer.Option(
        None,
        help="Record a kernel instead of the model: triton, triton:implicit_gemm, triton:depthwise, "
        "extension:cuda_simt, extension:cuda_depthwise or extension:cuda_windows.",
    ),
    source: Path | None = typer.Option(None, help="The folder csrc for CUDA kernels; the source tree's by default."),
    as_json: Path | None = JSON,
    out: Path | None = OUT,
) -> None:
    from ...study import recorded_warps, shape, warp_report
    from ...study import warp as model
    from ...study.recording import build, warps

    cuda = backend is not None and backend.startswith("extension:")
    found = argument(shape.read if cuda else shape.forward_conv, problem, hint="PROBLEM")
    if dtype is not None:
        found = argument(lambda: found.replace(dtype=dtype), hint="--dtype")
    if cuda:
        _no_lane(lane)
        if reason := build.unavailable(source):
            raise typer.BadParameter(reason, param_hint="--source")
        requests = argument(warps.recorded, found, backend.partition(":")[2], source, hint="--backend")
        deliver(warp_report.recorded(found, backend, requests, warp_report.TWIN), as_json, out)
        return
    if backend is None:
        lanes = tuple(dict.fromkeys(lane or model.LANES))
        deliver(argument(warp_report.modelled, found, lanes, hint="--lane"), as_json, out)
        return
    _no_lane(lane)
    kernel = _kernel(found, backend, recorded_warps.KERNELS)
    try:
        requests = argument(recorded_warps.recorded, found, kernel, hint="--backend")
    except RuntimeError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    deliver(warp_report.recorded(found, kernel, requests, warp_report.INTERPRETED), as_json, out)


def _no_lane(lane: list[str] | None) -> None:
    if lane:
        raise typer.BadParameter("a recorded kernel has its own lanes", param_hint="--lane")


def _kernel(problem, backend: str, known: tuple[str, ...]) -> str:
    if backend == "triton":
        return "triton:depthwise" if problem.depthwise else "triton:implicit_gemm"
    if backend not in known:
        raise typer.BadParameter(f"expected triton, {' or '.join(known)}, got {backend!r}", param_hint="--backend")
    return backend

"""``spatialconv bench``."""

# ruff: noqa: B008 - typer reads options from argument defaults
from __future__ import annotations

from pathlib import Path

import typer

HELP = """Measure backends against torch and other peers on the layers of real networks.

Alone it runs every convolution and pooling layer of ResNet-50, forward and backward, in both layouts, for every backend
that computes here, and writes a JSON file and a picture. A speed appears only where the result was right. Ctrl-C ends
it early and shows what was measured; the same command with --resume goes on. The exit code is 1 when a result was
wrong, a time not believable or, with --compare, a ratio surely lower than before.

Examples:

    spatialconv bench

    spatialconv bench --suite mobilenetv2 --batch 8 --pass forward --layout nhwc

    spatialconv bench --backend extension:direct --filter "kh3 kw3" --peer torch-best-layout --peer onnxruntime

    spatialconv bench --threads 1 --clock cpu --json new.json --compare old.json
"""

_MANY = " May be given several times."


def bench(
    suite: list[str] = typer.Option(["resnet50"], help="Suite of the package, or a file in the same notation." + _MANY),
    backend: list[str] = typer.Option([], help="Backend or kernel; all that compute here by default." + _MANY),
    dtype: list[str] = typer.Option(["f32"], help="f32, f64, bf16, f16." + _MANY),
    layout: str = typer.Option("both", help="nchw, nhwc or both."),
    batch: int | None = typer.Option(None, min=0, help="Images a batch; 0 is each suite's own. Default: 1 on a CPU."),
    passes: list[str] = typer.Option(
        ["all"], "--pass", help="forward, grad_input, grad_weight, backward (both gradients), all." + _MANY
    ),
    threads: int | None = typer.Option(None, min=1, help="Threads, for us and every peer; torch's number by default."),
    device: str = typer.Option("cpu", help="cpu or cuda."),
    peer: list[str] = typer.Option(
        [], help="torch (always there), torch-best-layout, compile, onnxruntime, openvino." + _MANY
    ),
    json_path: Path = typer.Option(Path("spatialconv-bench/results.json"), "--json", help="Where results are written."),
    plot: Path | None = typer.Option(None, help="Where the picture is written; beside the JSON file by default."),
    budget: float = typer.Option(0.2, min=0.0, help="Seconds of timing a row."),
    cache: str = typer.Option(
        "rotate", help="State of the caches: rotate (operands differ from call to call), hot, flush."
    ),
    clock: str = typer.Option("auto", help="wall, cpu, or auto: CPU time with one thread, else wall time."),
    filter: str = typer.Option("", help="Only problems whose printed form or class contains this."),
    indices: bool = typer.Option(False, help="Max pooling returns indices forward, as training needs them."),
    prepacked: bool = typer.Option(False, help="Our forward convolutions are layers after nn.prepack."),
    precision: str = typer.Option(
        "none", help="Torch's switch for float32 convolutions, which both sides obey: none, ieee, tf32 or bf16."
    ),
    resume: bool = typer.Option(False, help="Keep what the JSON file has; else it is replaced."),
    compare: Path | None = typer.Option(None, help="An older result file; marks what surely became slower or faster."),
) -> None:
    import torch

    from ..bench import peers, runner, suites, timing

    for value, known, option in (
        (layout, (*runner.OTHER_LAYOUT, "both"), "--layout"),
        (cache, timing.CACHE_STATES, "--cache"),
        (clock, timing.CLOCKS, "--clock"),
        (device, ("cpu", "cuda"), "--device"),
        (precision, ("none", "ieee", "tf32", "bf16"), "--precision"),
        *((one, peers.NAMES, "--peer") for one in peer),
        *((one, ("f32", "f64", "bf16", "f16"), "--dtype") for one in dtype),
    ):
        if value not in known:
            raise typer.BadParameter(f"expected one of {', '.join(known)}, got {value!r}", param_hint=option)
    if device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("this torch sees no CUDA device", param_hint="--device")
    if threads:
        torch.set_num_threads(threads)
    if precision != "none":
        library = torch.backends.cudnn if device == "cuda" else torch.backends.mkldnn
        library.conv.fp32_precision = precision
    try:
        settings = runner.Settings(
            suites=tuple(suite),
            backends=tuple(backend),
            dtypes=tuple(dtype),
            layouts=("nchw", "nhwc") if layout == "both" else (layout,),
            batch=(1 if device == "cpu" else None) if batch is None else (batch or None),
            passes=tuple(suites.pass_names(passes)),
            peers=tuple(dict.fromkeys((peers.TORCH, *peer))),
            device=device,
            budget=budget,
            cache=cache,
            clock=timing.pick_clock(clock, torch.get_num_threads(), device),
            indices=indices,
            prepacked=prepacked,
            filter=filter,
        )
        works = runner.plan(settings)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not works:
        raise typer.BadParameter("no problem of the suites is left", param_hint="--filter")
    from ._bench_run import run

    try:
        good = run(settings, works, json_path, plot or json_path.with_suffix(".png"), resume, compare)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from None
    if not good:
        raise typer.Exit(1)

"""Whole networks, as a user runs them: ``python benchmarks/models.py --json FILE``.

ResNet-50 and MobileNetV2 for inference: ours frozen, in both layouts, against torch in both
layouts, torch.compile with frozen weights, and ONNX Runtime where it and ``onnx`` are installed (extra ``peers``).
Every side's output is first compared with the network in float64; then they are timed in turn, by the process's CPU
time with one thread, else by wall time.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated

import networks
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import spatialconv
from spatialconv.bench import peers, results, timing

SIDES = ("ours nchw", "ours nhwc", "torch nchw", "torch nhwc", "compile nchw", "compile nhwc", "onnxruntime")
# Errors are relative to the largest output; more than so many times eager torch's own is no rounding.
FACTOR = 4.0


def ours(model: nn.Module) -> nn.Module:
    """A copy that runs on spatialconv."""
    return spatialconv.nn.freeze(model)


def compiled(model: nn.Module, image: Tensor) -> Callable[[Tensor], Tensor]:
    """torch.compile's code for this shape and number of threads, the weights its constants."""
    torch._dynamo.reset()
    with torch._inductor.config.patch(freezing=True), torch.no_grad():
        function = torch.compile(model, dynamic=False)
        function(image)
    return function


def exported(model: nn.Module, image: Tensor) -> bytes:
    """The network for ONNX Runtime."""
    file = io.BytesIO()
    torch.onnx.export(model, (image,), file, input_names=["x"], output_names=["y"], dynamo=False)
    return file.getvalue()


def error_of(output: Tensor, right: Tensor) -> float:
    """The largest error, as a share of the largest output."""
    return float((output - right).abs().max() / right.abs().max())


class Sides:
    """Every side of one network and batch size: its result on the same image, and what is timed."""

    def __init__(self, model: nn.Module, image: Tensor, names: list[str], clock: str) -> None:
        self.variants: dict[str, timing.Variant] = {}
        self.outputs: dict[str, Tensor] = {}
        self.skipped: dict[str, str] = {}
        rotations = {}
        for layout, order in (("nchw", torch.contiguous_format), ("nhwc", torch.channels_last)):
            rotations[layout] = timing.Rotation((image.contiguous(memory_format=order),), "rotate")
        for name in names:
            kind, _, layout = name.partition(" ")
            if kind in peers.EXTERNAL:
                self._external(name, model, image, clock, len(rotations["nchw"].copies))
                continue
            order = torch.channels_last if layout == "nhwc" else torch.contiguous_format
            net = copy.deepcopy(model).to(memory_format=order)
            (first,) = rotations[layout].copies[0]
            call = ours(net) if kind == "ours" else compiled(net, first) if kind == "compile" else net
            with torch.no_grad():
                self.outputs[name] = call(first)
            self.variants[name] = timing.LocalVariant(call, rotations[layout], clock)

    def _external(self, name: str, model: nn.Module, image: Tensor, clock: str, copies: int) -> None:
        if reason := peers.missing(name):
            self.skipped[name] = reason
            return
        from spatialconv.bench.external import ExternalVariant

        variant = ExternalVariant(name, exported(model, image), image, copies, clock)
        self.variants[name], self.outputs[name] = variant, variant.result

    def errors(self, right: Tensor) -> dict[str, float]:
        return {name: error_of(output, right) for name, output in self.outputs.items()}

    def close(self) -> None:
        for variant in self.variants.values():
            getattr(variant, "close", lambda: None)()


def measure(sides: Sides, right: Tensor, rounding: float, budget: float) -> list[dict]:
    """A row for every side: its error, and where that is no larger than rounding explains, its time and ratio."""
    errors = sides.errors(right)
    limit = FACTOR * max([1e-6, rounding, *(error for name, error in errors.items() if name.startswith("torch "))])
    timed = [name for name in sides.variants if errors[name] <= limit]
    taken = timing.interleave([sides.variants[name] for name in timed], budget, single=True)
    samples = dict(zip(timed, taken, strict=True))
    used = timing.rounds_used(list(samples.values()))
    rounds = dict(zip(timed, used.rounds, strict=True))
    found = {name: timing.summarise(samples[name], rounds[name]) for name in timed}
    rows = []
    for name in sides.variants:
        row = {"side": name, "error": errors[name], "limit": limit, "ms": None, "samples": 0, "against": {}}
        if name in timed:
            row |= {"ms": found[name].median * 1e3, "samples": found[name].samples, "clean": found[name].clean}
            row["against"] = {
                other: asdict(timing.ratio(samples[name], samples[other], rounds[name], rounds[other], used.paired))
                for other in timed
                if name.startswith("ours ") and not other.startswith("ours ")
            }
        rows.append(row)
    return rows + [{"side": name, "reason": reason} for name, reason in sides.skipped.items()]


def main(
    json: Annotated[Path | None, typer.Option(help="where to keep the figures")] = None,
    network: Annotated[list[str], typer.Option(help="which networks")] = list(networks.NETWORKS),  # noqa: B006
    batch: Annotated[list[int], typer.Option(help="batch sizes")] = [1, 8],  # noqa: B006
    threads: Annotated[list[int], typer.Option(help="numbers of threads")] = [1, 2],  # noqa: B006
    side: Annotated[list[str], typer.Option(help="which sides, as 'torch nchw'; all unless given")] = list(SIDES),  # noqa: B006
    size: Annotated[int, typer.Option(help="rows and columns of an image")] = 224,
    budget: Annotated[float, typer.Option(help="seconds for each network, batch size and number of threads")] = 20.0,
) -> None:
    settings = {"networks": network, "batches": batch, "threads": threads, "size": size, "budget": budget}
    table = Table("run", "side", "ms", "error", "/ ours nchw", "/ ours nhwc")
    rows = []
    for name in network:
        model = networks.make(name, size)
        for count in batch:
            image = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))
            with torch.no_grad():
                right = copy.deepcopy(model).double()(image.double())
                rounding = error_of(model(image), right)
            for number in threads:
                torch.set_num_threads(number)
                clock = timing.pick_clock("auto", number)
                sides = Sides(model, image, side, clock)
                found = measure(sides, right, rounding, budget)
                sides.close()
                rows += [{"network": name, "n": count, "threads": number, "clock": clock, **row} for row in found]
                _show(table, f"{name} n{count} threads{number}", found)
    Console().print(table)
    if json is not None:
        json.write_text(dumps({"head": results.head(settings), "rows": rows}, indent=1) + "\n")


def _show(table: Table, run: str, rows: list[dict]) -> None:
    ratios = {row["side"]: row.get("against", {}) for row in rows}
    for row in rows:
        if "reason" in row:
            table.add_row(run, row["side"], "-", row["reason"])
            continue
        time = "wrong" if row["ms"] is None else f"{row['ms']:.2f}"
        against = [ratios.get(mine, {}).get(row["side"]) for mine in SIDES[:2]]
        shown = ["" if ratio is None else f"{ratio['value']:.2f}" for ratio in against]
        table.add_row(run, row["side"], time, f"{row['error']:.1e}", *shown)


if __name__ == "__main__":
    typer.run(main)

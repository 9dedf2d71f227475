"""A few layers of every class under pytest-benchmark: ours per backend, and torch, in the same groups.

The suites, operands, correctness gate and calls are those of ``spatialconv bench``.
"""

from __future__ import annotations

import pytest
import torch

from spatialconv import dispatch
from spatialconv.bench import gate, operands, peers, runner, suites, timing

LAYERS_A_CLASS = 2
SUITES = ("resnet50", "mobilenetv2", "resnext50_32x4d", "pool2d")


def chosen_cells() -> list[suites.Cell]:
    """The first layers of every class of the suites, every pass, both layouts, as one image."""
    found: dict[tuple[str, str], list[suites.Layer]] = {}
    for name in SUITES:
        for layer in suites.load(name):
            for layout in ("nchw", "nhwc"):
                fitted = suites.fit(layer, 1, "f32", layout, "cpu")
                layers = found.setdefault((suites.kind(fitted.problem, fitted.transposed), layout), [])
                if len(layers) < LAYERS_A_CLASS and all(fitted.problem != other.problem for other in layers):
                    layers.append(fitted)
    return [cell for layers in found.values() for layer in layers for cell in suites.cells(layer, suites.PASSES)]


@pytest.mark.parametrize("request_", [*runner.computing_backends(), peers.TORCH], ids=str)
@pytest.mark.parametrize("cell", chosen_cells(), ids=lambda cell: str(cell.problem).replace(" ", "-"))
def test_layer(benchmark, cell: suites.Cell, request_: str) -> None:
    benchmark.group = str(cell.problem)
    given = operands.make(cell.problem)
    rotation = timing.Rotation(given, "rotate")
    if request_ == peers.TORCH:
        call = peers.torch_call(cell)
    else:
        choice = dispatch.choose(cell.problem, request_)
        benchmark.extra_info["kernel"] = choice.kernel.full_name
        call = peers.ours(cell, request_)
        with torch.no_grad():
            verdict = gate.judge(cell.problem, call(*given), gate.truth(cell.problem, given), choice.kernel.tier)
        assert verdict.passed, verdict.reason
    benchmark.extra_info["threads"] = torch.get_num_threads()
    with timing.quiet():
        benchmark.pedantic(call, setup=lambda: (rotation.take(1)[0], {}), rounds=20, warmup_rounds=3)

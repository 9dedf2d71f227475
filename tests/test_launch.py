"""Kernels that add a convolution to what the output's memory holds: exact on small integers, at every level, around the
edges of tiles, with every activation that is exact, and nothing else written."""

from __future__ import annotations

from itertools import product

import cells
import pytest
import torch
import torch.nn.functional as F
from test_kernels import kernels

from spatialconv import dispatch
from spatialconv.backends import load
from spatialconv.backends.base import DTYPES
from spatialconv.problem import parse
from spatialconv.shapes import dense_strides

CHANNELS = (1, 3, 4, 17, 21, 24, 40)
# Rows and columns of the image: single pixels, and around the tiles of 6 or 14 pixels and of 8, 16 or 32.
IMAGES = ((1, 1), (1, 7), (3, 5), (4, 8), (5, 13), (7, 7))
# So deep that the sums of few positions are made in parts.
DEEP = ((1400, 101, 7, 7), (1397, 64, 7, 7), (1400, 99, 6, 8))
ACTIVATIONS = {None: lambda output: output, "relu": F.relu, "relu6": F.relu6}


def adding() -> list[tuple[str, str]]:
    """Kernel and level of every one that can add some convolution."""
    problem = parse("conv2d n1 ic8 ih4 iw4 oc8 oh4 ow4 kh1 kw1 f32 nchw cpu")
    return [
        (name, level)
        for op, name, level in kernels(False)
        if op == "conv2d" and dispatch.kernel(name).accumulates(problem)
    ]


@pytest.mark.parametrize("layout", cells.LAYOUTS)
@pytest.mark.parametrize("dtype", cells.FLOATS)
@pytest.mark.parametrize(("name", "level"), adding())
def test_onto_what_is_there(name: str, level: str, dtype: str, layout: str, monkeypatch, record_property) -> None:
    record_property("kernel", name)
    if missing := load(name.partition(":")[0]).unavailable():
        pytest.skip(missing)
    generator = torch.Generator().manual_seed(5)
    number = 0
    for ic, oc, ih, iw in (*((*pair, *image) for pair in product(CHANNELS, CHANNELS) for image in IMAGES), *DEEP):
        number += 1
        activation = (None, "relu", "relu6")[number % 3]
        biased = " bias" if number % 2 else ""
        text = f"conv2d n{1 + number % 2} ic{ic} ih{ih} iw{iw} oc{oc} oh{ih} ow{iw} kh1 kw1{biased}"
        problem = parse(f"{text} {dtype} {layout} cpu").replace(activation=activation)
        cell = cells.Cell(name, level, problem, "nchw", ("integers",), "dense")
        shapes = (problem.input_shape, problem.weight_shape, (oc,), problem.output_shape)
        wide = [torch.randint(-2, 3, shape, generator=generator).double() for shape in shapes]
        if not biased:
            wide[2] = None
        total = F.conv2d(*wide[:3]) + wide[3]
        expected = ACTIVATIONS[activation](total).to(DTYPES[dtype])
        input, weight, bias, onto = (None if one is None else one.to(DTYPES[dtype]) for one in wide)
        lying = torch.empty_strided(shapes[3], dense_strides(shapes[3], layout), dtype=onto.dtype).copy_(onto)
        input = torch.empty_strided(shapes[0], dense_strides(shapes[0], layout), dtype=onto.dtype).copy_(input)
        plan = cells.launched(cell, accumulate=True)
        answer = cells.run_guarded(monkeypatch, plan, (input, weight, bias, lying))
        assert torch.equal(answer, expected), str(cell)


def test_some_kernel_adds() -> None:
    assert {name for name, _ in adding()} >= {"extension:gemm"}

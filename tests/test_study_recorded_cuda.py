"""What CUDA kernels ask of global memory, recorded while their CPU twins run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from spatialconv.cli import app
from spatialconv.study import shape
from spatialconv.study.recording import build, warps

CSRC = Path(__file__).resolve().parents[1] / "csrc"


def events(rows: list[tuple[int, int, int, int]]) -> np.ndarray:
    """Accesses of 4 bytes by (offset, site, block, thread), in order."""
    return np.array([(offset, site, 4, block, thread, 0, 0, 0) for offset, site, block, thread in rows], warps.EVENT)


def test_lanes_are_joined_by_instruction_and_turn():
    """Three threads of one warp, one of the next, a loop of two turns at one instruction, another instruction."""
    made = [(100 * thread + turn, 7, 0, thread) for thread in (0, 1, 17, 32) for turn in (0, 1)]
    made += [(500, 9, 0, 1), (900, 7, 1, 0)]
    offsets, active, first = warps.requests(events(made))
    found = {(int(row), *map(int, offsets[n][active[n]])) for n, row in enumerate(first)}
    assert found == {(0, 0, 100, 1700), (1, 1, 101, 1701), (6, 3200), (7, 3201), (8, 500), (9, 900)}
    assert active.sum() == len(made)


def test_what_cannot_be_recorded_is_refused_with_a_reason():
    with pytest.raises(ValueError, match="cuda_simt, cuda_depthwise, cuda_windows"):
        warps.record(shape.read("1x8x8x8 k=8 3x3"), "cuda_wgmma", CSRC)
    with pytest.raises(ValueError, match="does not take"):
        warps.record(shape.read("1x8x8x8 k=8 3x3"), "cuda_depthwise", CSRC)
    with pytest.raises(ValueError, match="at most"):
        warps.record(shape.read("8x64x56x56 k=64 3x3 p1"), "cuda_simt", CSRC)


def expected(problem) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-4, 5, problem.input_shape, generator=generator).float()
    stride, padding = (problem.sh, problem.sw), (problem.ph, problem.pw)
    if problem.op == "conv2d":
        w = torch.randint(-4, 5, problem.weight_shape, generator=generator).float()
        return F.conv2d(x, w, None, stride, padding, 1, problem.g)
    return (F.max_pool2d if problem.op == "max_pool2d" else F.avg_pool2d)(x, (problem.kh, problem.kw), stride, padding)


# Each kernel file is compiled once with its accesses instrumented.
CASES = [
    ("cuda_simt", "1x8x16x16 k=16 3x3 p1"),
    ("cuda_depthwise", "1x32x12x12 k=32 3x3 p1 g32 nhwc"),
    ("cuda_windows", "1x32x16x16 avg 2x2 s2"),
    ("cuda_windows", "1x32x16x16 max 3x3 s2 p1 nhwc"),
]


@pytest.mark.full(cost=6)
@pytest.mark.parametrize(("name", "text"), CASES, ids=[f"{name}-{text.replace(' ', '-')}" for name, text in CASES])
def test_the_twin_computes_and_stores_each_output_once(name, text):
    if reason := build.unavailable(CSRC):
        pytest.skip(reason)
    problem = shape.read(text)
    found, output = warps.record(problem, name, CSRC)
    assert torch.equal(output, expected(problem))
    stores = found[found["store"] == 1]
    bytes_stored = np.zeros(output.numel() * 4, int)
    for event in stores:
        bytes_stored[event["offset"] : event["offset"] + event["bytes"]] += 1
    assert (stores["buffer"] == 2).all() and (bytes_stored == 1).all()
    assert not (found["store"][found["buffer"] < 2]).any()


@pytest.mark.full(cost=6)
def test_neighbouring_lanes_ask_for_the_sectors_that_their_steps_reach():
    """An average of 3x4 windows, stride 4x2, nchw: lanes are neighbouring columns, 8 bytes apart, so 32 of them reach
    over 256 bytes, 8 sectors, half of each; outputs lie together, 4 sectors, all of them."""
    if reason := build.unavailable(CSRC):
        pytest.skip(reason)
    found = warps.recorded(shape.read("1x4x64x64 avg 4x2 s4x2"), "cuda_windows", CSRC)
    assert (found["input"].sectors_a_request, found["input"].useful_share) == (8.0, 0.5)
    assert (found["output"].sectors_a_request, found["output"].useful_share) == (4.0, 1.0)


@pytest.mark.full(cost=6)
def test_a_vector_of_channels_is_one_request():
    """Lanes take 16 bytes each, next to each other, so what a warp moves is all of what it asks for."""
    if reason := build.unavailable(CSRC):
        pytest.skip(reason)
    found, _ = warps.record(shape.read("1x64x16x16 max 3x3 s2 p1 nhwc"), "cuda_windows", CSRC)
    assert set(found["bytes"]) == {16}
    assert warps.recorded(shape.read("1x64x16x16 max 3x3 s2 p1 nhwc"), "cuda_windows", CSRC)["input"].useful_share == 1


@pytest.mark.full(cost=6)
def test_the_command_records_a_cuda_kernel():
    if reason := build.unavailable(CSRC):
        pytest.skip(reason)
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
    words = ["study", "warp", "1x4x64x64 avg 4x2 s4x2", "--backend", "extension:cuda_windows", "--source", str(CSRC)]
    found = runner.invoke(app, [*words, "--json", "-"])
    assert found.exit_code == 0 and json.loads(found.output)["operands"]["output"]["sectors_a_request"] == 4.0
    assert runner.invoke(app, [*words, "--lane", "c"]).exit_code == 2
    assert runner.invoke(app, [*words[:4], "extension:cuda_fft", *words[5:]]).exit_code == 2

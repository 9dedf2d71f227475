"""What shipped C++ kernels touch: recordings against torch, and access by access against the kernels' nests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from spatialconv.cli import app
from spatialconv.problem import Conv2dProblem, Pool2dProblem
from spatialconv.study import cache, nests, shape
from spatialconv.study.kernel_nests import VECTOR_BYTES, kernel_nest
from spatialconv.study.lru_judge import judge
from spatialconv.study.recording import build
from spatialconv.study.recording.agreement import CASES, compare, described
from spatialconv.study.recording.misses import misses
from spatialconv.study.recording.record import EVENT, Recording, record

CSRC = Path(__file__).resolve().parents[1] / "csrc"
ALL = [(name, text) for name, texts in CASES.items() for text in texts]


def lanes(problem, level: str) -> int:
    return VECTOR_BYTES[level] // problem.itemsize


@pytest.mark.parametrize("level", VECTOR_BYTES)
@pytest.mark.parametrize(("name", "text"), ALL, ids=lambda value: value.replace(" ", "-"))
def test_a_nest_stores_every_output_once_and_stays_in_its_tensors(name, text, level):
    problem = shape.read(text)
    nest = kernel_nest(problem, name, level)
    stored = np.zeros(nest.buffer("output").elements, int)
    for buffer, offset, size, store in nest.accesses():
        assert 0 <= offset and offset + size <= buffer.elements * buffer.itemsize
        if buffer.name == "output":
            assert store
            first = offset // buffer.itemsize
            stored[first : first + size // buffer.itemsize] += 1
        elif buffer.name in ("input", "weight"):
            assert not store
    assert (stored == 1).all()


def test_a_nest_multiplies_what_the_problem_does():
    """Direct and gemm: a vector of one operand meets so many of the other; the products are the problem's."""
    problem = shape.read("1x16x9x9 k=8 3x3 p1 nhwc")
    reads = [size for buffer, _, size, _ in kernel_nest(problem, "direct", "avx2").accesses() if buffer.name == "input"]
    assert sum(reads) // 4 * 4 == problem.flops(count_padding=False) // 2
    problem = shape.read("1x16x6x6 k=16 1x1 nhwc")
    reads = [size for buffer, _, size, _ in kernel_nest(problem, "gemm", "avx2").accesses() if buffer.name == "input"]
    assert sum(reads) // 4 * 16 == problem.flops() // 2


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("winograd", "1x16x9x9 k=8 3x3 p1 nhwc", "direct, gemm, depthwise, rows"),
        ("direct", "1x16x9x9 k=8 3x3 p1", "channels_last"),
        ("gemm", "1x16x9x9 k=8 3x3 p1 nhwc", "1x1"),
        ("gemm", "1x512x9x9 k=8 1x1 nhwc", "2048"),
        ("depthwise", "1x16x9x9 k=16 3x3 p1 g16 nhwc", "stride"),
        ("rows", "1x16x9x9 max 5x5 p2 s1 nhwc", "overlap"),
        ("direct", "1x16x9x9 k=8 3x3 p1 nhwc bf16", "f32 or f64"),
    ],
)
def test_what_has_no_nest_is_refused_with_a_reason(name, text, words):
    with pytest.raises(ValueError, match=words):
        kernel_nest(shape.read(text), name, "avx2")


def test_what_cannot_be_recorded_is_refused_with_a_reason():
    with pytest.raises(ValueError, match="without indices"):
        record(Pool2dProblem(op="max_pool2d_scatter", n=1, ic=8, ih=8, iw=8, kh=2, kw=2), "planes", csrc=CSRC)
    with pytest.raises(ValueError, match="expected one of gemm"):
        build.table_of("conv2d", "fft")


def torch_result(problem) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    dtype = {"f32": torch.float32, "f64": torch.float64}[problem.dtype]
    x = torch.randint(-4, 5, problem.input_shape, generator=generator).to(dtype)
    stride, padding = (problem.sh, problem.sw), (problem.ph, problem.pw)
    if isinstance(problem, Conv2dProblem):
        w = torch.randint(-4, 5, problem.weight_shape, generator=generator).to(dtype)
        return F.conv2d(x, w, None, stride, padding, (problem.dh, problem.dw), problem.g)
    pool = F.max_pool2d if problem.op == "max_pool2d" else F.avg_pool2d
    return pool(x, (problem.kh, problem.kw), stride, padding)


# Each kernel file is compiled once with its accesses instrumented, which takes half a minute and more: always done is
# the quickest.
@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.full(cost=8)) for name in CASES if name != "rows"), "rows"]
)
def test_the_shipped_kernel_touches_what_its_nest_says(name):
    if reason := build.unavailable(CSRC):
        pytest.skip(reason)
    for text in CASES[name]:
        problem = shape.read(text)
        recording = record(problem, name, csrc=CSRC)
        assert torch.equal(recording.output, torch_result(problem))
        nest = kernel_nest(problem, name, recording.level)
        agreement = compare(recording, nest)
        assert agreement.equal, f"{text}: {agreement}"
        assert agreement.recorded == len(described(nest, recording.buffers)) > 0


@pytest.mark.full(cost=8)
def test_a_gradients_accesses_are_recorded_too():
    if reason := build.unavailable(CSRC):
        pytest.skip(reason)
    problem = shape.read("conv2d_grad_weight n1 ic16 ih9 iw9 oc8 kh3 kw3 ph1 pw1 f32 nhwc cpu")
    recording = record(problem, "direct", csrc=CSRC)
    number = recording.buffers.index("grad_weight")
    events = recording.events[recording.events["buffer"] == number]
    assert events["store"].all() and events["bytes"].sum() == recording.sizes[number]
    with pytest.raises(ValueError, match="fewer than 10 accesses"):
        record(problem, "direct", csrc=CSRC, limit=10)


def levels_of(text: str):
    return cache.parse(text)


def small_recording(events: list[tuple[int, int, int, bool]]) -> Recording:
    """A recording that no kernel made: (buffer, offset, bytes, store)."""
    rows = np.array([(offset, size, buffer, store, 0) for buffer, offset, size, store in events], EVENT)
    problem = shape.read("1x1x1x1 k=1 1x1")
    buffers = ("input", "weight", "output", "bias", "workspace")
    return Recording(problem, "extension:direct", "baseline", buffers, (4096,) * 5, rows, torch.zeros(1))


def test_misses_of_a_recorded_run_are_those_of_a_plain_cache():
    """Against the nest judged line by line: the events are the scalar nest's own."""
    nest = nests.named(shape.read("1x3x9x9 k=4 3x3 p1"), "nchw")
    buffers = ("input", "weight", "output", "bias", "workspace")
    events = described(nest, buffers)
    recording = Recording(nest.problem, "extension:direct", "baseline", buffers, (0,) * 5, events, torch.zeros(1))
    levels = levels_of("512/2/32,2K/4/32")
    expected = judge(nest, levels)
    found = misses(recording, levels)
    assert {pair: found[pair] for pair in expected.misses} == expected.misses
    assert sum(found.values()) == sum(expected.misses.values())


def test_an_access_across_two_lines_is_one_of_each():
    levels = levels_of("1K/2/64")
    assert misses(small_recording([(0, 48, 32, False)]), levels)["input", "L1"] == 2
    assert misses(small_recording([(0, 32, 32, False), (0, 0, 4, True)]), levels)["input", "L1"] == 1


@pytest.mark.full(cost=8)
def test_the_command_shows_what_was_recorded():
    if reason := build.unavailable(CSRC):
        pytest.skip(reason)
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
    words = ["study", "record", CASES["direct"][0], "direct", "--source", str(CSRC), "--json", "-"]
    found = runner.invoke(app, words)
    data = json.loads(found.output)
    assert found.exit_code == 0 and data["equal_to_nest"] is True
    output = next(row for row in data["tensors"] if row["tensor"] == "output")
    assert output["moved"] == output["bytes"] and output["loads"] == 0
    assert runner.invoke(app, [*words[:3], "fft", *words[4:]]).exit_code == 2


def test_the_command_refuses_what_it_cannot_do():
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
    assert runner.invoke(app, ["study", "record", "1x2 k=3", "gemm"]).exit_code == 2

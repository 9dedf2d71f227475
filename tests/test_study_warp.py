"""Sectors and conflicts of warps: counted from the definition, and as an interpreted kernel asks for them."""

from __future__ import annotations

import json
from pathlib import Path

import child
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from spatialconv.backends.triton import launch
from spatialconv.cli import app
from spatialconv.problem import Conv2dProblem
from spatialconv.study import recorded_warps, shape, warp, warp_counts


def found(text: str, operand: str, arrangement: str, lane: str) -> warp_counts.Requests:
    pattern = warp.Pattern(shape.read(text), operand, arrangement, lane)
    return warp_counts.of_pattern(pattern)


# Sectors a request and useful share of the input, float32; known for these layers.
KNOWN = {
    ("1x64x56x56 k=64 3x3 s1 p1", "NCHW", "pixel"): (4.55, 0.86),
    ("1x64x56x56 k=64 3x3 s1 p1", "NHWC", "pixel"): (31.46, 0.125),
    ("1x64x56x56 k=64 3x3 s1 p1", "NCHW", "c"): (32.0, 0.125),
    ("1x64x56x56 k=64 3x3 s1 p1", "NHWC", "c"): (4.0, 1.0),
    ("1x64x56x56 k=64 3x3 s2 p1", "NCHW", "pixel"): (8.03, 0.48),
    ("1x64x56x56 k=64 3x3 s2 p1", "NHWC", "pixel"): (30.62, 0.125),
    ("1x3x224x224 k=64 3x3 s1 p1", "NCHW", "pixel"): (4.57, 0.87),
    ("1x3x224x224 k=64 3x3 s1 p1", "NHWC", "pixel"): (12.57, 0.32),
    ("1x3x224x224 k=64 3x3 s1 p1", "NCHW", "c"): (3.0, 0.125),
    ("1x3x224x224 k=64 3x3 s1 p1", "NHWC", "c"): (1.25, 0.30),
}


@pytest.mark.parametrize(("text", "arrangement", "lane"), KNOWN)
def test_known_layers(text, arrangement, lane):
    sectors, useful = KNOWN[text, arrangement, lane]
    requests = found(text, "input", arrangement, lane)
    assert requests.sectors_a_request == pytest.approx(sectors, abs=0.006)
    assert requests.useful_share == pytest.approx(useful, abs=0.006)


def test_a_filter_per_lane_and_a_filter_per_position():
    text = "1x64x56x56 k=64 3x3 s1 p1"
    assert found(text, "input", "NCHW", "k").sectors_a_request == 1
    assert found(text, "weight", "KCRS", "k").sectors_a_request == 32
    assert found(text, "weight", "RSCK", "k").sectors_a_request == 4
    assert found(text, "weight", "KCRS", "pixel").sectors_a_request == 1
    assert found(text, "weight", "PKCRS", "pixel").sectors_a_request == pytest.approx(31.5, abs=0.5)
    assert found(text, "weight", "KCRSP", "pixel").sectors_a_request == pytest.approx(4.0, abs=0.1)


def test_banks_conflict_by_the_step_between_lanes():
    lanes = np.arange(32)[None]
    active = np.ones_like(lanes, bool)
    for step in range(1, 66):
        passes, free = warp_counts.bank_passes(lanes * step * 4, active, 4)
        assert (passes[0], free[0]) == (np.gcd(step, 32), 1)
    assert warp_counts.bank_passes(lanes * 0, active, 4)[0][0] == 1
    assert warp_counts.bank_passes(lanes * 2, active, 2)[0][0] == 1
    passes, free = warp_counts.bank_passes(lanes * 8, active, 8)
    assert (passes[0], free[0]) == (2, 2)
    assert warp_counts.bank_passes(lanes * 16, active, 8)[0][0] == 4


def test_a_word_of_space_removes_the_conflict_of_a_filter_a_lane():
    pattern = warp.Pattern(shape.read("1x64x8x8 k=64 3x3 p1"), "weight", "KCRS", "k")
    assert warp_counts.of_pattern(pattern).conflict == 32
    assert warp_counts.of_pattern(pattern, pitch=1).conflict == 1


def by_hand(p: Conv2dProblem, arrangement: str, lane: str) -> tuple[int, int, int]:
    """Requests, sectors and useful bytes of the input, from the definition alone."""
    sizes = dict(zip("NCHW", p.input_shape, strict=True))
    requests = sectors = useful = 0

    def address(image: int, channel: int, ih: int, iw: int) -> int:
        place = 0
        for axis in arrangement:
            place = place * sizes[axis] + {"N": image, "C": channel, "H": ih, "W": iw}[axis]
        return place * p.itemsize

    outputs = [(n, y, x) for n in range(p.n) for y in range(p.oh) for x in range(p.ow)]
    inner = p.ic // p.g
    for r in range(p.kh):
        for s in range(p.kw):
            spots = [(n, y * p.sh - p.ph + r * p.dh, x * p.sw - p.pw + s * p.dw) for n, y, x in outputs]
            asked = []
            if lane == "pixel":
                for c in range(p.ic):
                    asked += [[(spot, c) for spot in spots[i : i + 32]] for i in range(0, len(spots), 32)]
            elif lane == "c":
                for group in range(p.g):
                    chunks = [range(i, min(i + 32, inner)) for i in range(0, inner, 32)]
                    asked += [[(spot, group * inner + c) for c in chunk] for spot in spots for chunk in chunks]
            else:
                for c in range(inner):
                    chunks = [range(i, min(i + 32, p.oc)) for i in range(0, p.oc, 32)]
                    groups = [[k // (p.oc // p.g) for k in chunk] for chunk in chunks]
                    asked += [[(spot, group * inner + c) for group in some] for spot in spots for some in groups]
            for request in asked:
                touched = {
                    address(n, c, ih, iw) for (n, ih, iw), c in request if 0 <= ih < p.ih and 0 <= iw < p.iw
                }  # fmt: skip
                requests += bool(touched)
                sectors += len({one // 32 for one in touched})
                useful += len(touched) * p.itemsize
    return requests, sectors, useful


@st.composite
def convolutions(draw) -> Conv2dProblem:
    groups = draw(st.integers(1, 3))
    names = {name: draw(st.integers(1, 3)) for name in ("kh", "kw", "sh", "sw", "dh", "dw")}
    return Conv2dProblem(
        op="conv2d", n=draw(st.integers(1, 2)), ic=groups * draw(st.integers(1, 4)), g=groups,
        oc=groups * draw(st.integers(1, 13)), ih=draw(st.integers(7, 9)), iw=draw(st.integers(7, 12)),
        ph=draw(st.integers(0, 3)),
        pw=draw(st.integers(0, 3)), dtype=draw(st.sampled_from(("f32", "f64", "bf16"))), **names,
    )  # fmt: skip


@given(convolutions(), st.sampled_from(warp.INPUTS), st.sampled_from(warp.LANES))
@settings(max_examples=60, deadline=None)
def test_the_model_counts_what_the_definition_says(problem, arrangement, lane):
    requests = warp_counts.of_pattern(warp.Pattern(problem, "input", arrangement, lane))
    assert (requests.requests, requests.sectors, requests.useful) == by_hand(problem, arrangement, lane)


def needs_triton() -> None:
    if (reason := launch.unavailable()) and "TRITON_INTERPRET" not in reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def plain() -> dict:
    needs_triton()
    return json.loads(child.printed(str(Path(__file__).with_name("plain_kernels.py")), TRITON_INTERPRET="1"))


# 8 channels of 16 x 16 over pixels, of 5 x 5 over channels, whose rows begin anywhere in a sector.
@pytest.mark.parametrize(
    ("arrangement", "lane", "sectors"),
    [("NCHW", "pixel", 3.83), ("NHWC", "pixel", 29.39), ("NCHW", "c", 8.0), ("NHWC", "c", 1.0)],
)
def test_a_plain_kernels_pointers_are_the_models(plain, arrangement, lane, sectors):
    answer = plain[f"{arrangement} {lane}"]
    assert answer["right"]
    side = 16 if lane == "pixel" else 5
    assert answer["stored"] == list(range(0, 4 * side * side, 4))
    pattern = warp.Pattern(shape.read(f"1x8x{side}x{side} k=1 3x3 p1"), "input", arrangement, lane)
    assert sorted(answer["requests"]) == expected_requests(pattern)
    assert warp_counts.of_pattern(pattern).sectors_a_request == pytest.approx(sectors, abs=0.005)


def expected_requests(pattern: warp.Pattern) -> list[list[int]]:
    return sorted(
        sorted(row[asked].tolist()) for offsets, active in pattern.addresses()
        for row, asked in zip(offsets, active, strict=True)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kernel"),
    [
        ("1x32x6x6 k=16 3x3 p1", "triton:implicit_gemm"),
        pytest.param("1x32x8x8 k=32 3x3 p1 g32", "triton:depthwise", marks=pytest.mark.full),
    ],
)
def test_the_librarys_kernels_waste_no_bytes_where_channels_are_last(text, kernel):
    """32 channels of float32 are 4 whole sectors, whichever of them a block holds."""
    needs_triton()
    found = recorded_warps.recorded(shape.read(f"{text} nhwc"), kernel)
    for name in ("input", "output"):
        assert found[name].useful_share == 1 and 2 <= found[name].sectors_a_request <= 4
    assert found["output"].useful == 4 * np.prod(shape.read(text).output_shape)
    assert found["weight"].requests > 0


def test_a_blocks_warps_run_along_its_shortest_step():
    block = np.arange(4)[:, None] * 4096 + np.arange(64)[None] * 4
    for offsets in (block, block.T):
        lanes, active = recorded_warps.warps(offsets, np.ones_like(offsets, bool))
        assert lanes.shape == (8, 32) and active.all() and (np.diff(lanes, axis=1) == 4).all()
        assert sorted(lanes.ravel().tolist()) == sorted(block.ravel().tolist())
    lanes, active = recorded_warps.warps(np.int64(64), np.bool_(True))
    assert lanes.shape == (1, 32) and active.sum() == 1


def invoke(*words: str):
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["study", "warp", *words])


def test_the_command_models(tmp_path):
    answer = invoke("1x16x12x12 k=32 3x3 p1", "--json", str(tmp_path / "w.json"))
    assert answer.exit_code == 0, answer.output
    entries = json.loads((tmp_path / "w.json").read_text())["patterns"]
    assert {entry["lane"] for entry in entries} == {"pixel", "c", "k"} and "RSCK" in answer.output
    narrow = invoke("1x16x12x12 k=32 3x3 p1", "--lane", "c", "--dtype", "bf16", "--json", "-", "--out", str(tmp_path))
    entries = json.loads(narrow.stdout)["patterns"]
    assert {entry["lane"] for entry in entries} == {"c"} and (tmp_path / "warp.png").stat().st_size > 5000
    nhwc = next(entry for entry in entries if entry["arrangement"] == "NHWC")
    assert nhwc["sectors_a_request"] == 1 and nhwc["useful_share"] == 1


def test_the_command_records():
    needs_triton()
    answer = invoke("1x8x5x5 k=8 3x3 nhwc", "--backend", "triton", "--json", "-")
    assert answer.exit_code == 0, answer.output
    data = json.loads(answer.output)
    assert data["kernel"] == "triton:implicit_gemm" and data["operands"]["output"]["useful"] == 4 * 8 * 9


@pytest.mark.parametrize(
    "words",
    [
        ("1x8x9x9 max 3x3",),
        ("1x8x9x9 k=8 3x3", "--lane", "row"),
        ("1x8x9x9 k=8 3x3", "--dtype", "f8"),
        ("1x8x9x9 k=8 3x3", "--backend", "cudnn"),
        ("1x8x9x9 k=8 3x3", "--backend", "triton", "--lane", "c"),
        ("1x64x56x56 k=64 3x3", "--backend", "triton"),
        pytest.param(("1x8x9x9 k=8 3x3", "--backend", "triton:depthwise"), marks=pytest.mark.full),
    ],
)
def test_the_command_refuses(words):
    assert invoke(*words).exit_code == 2


def test_help_has_examples():
    answer = invoke("--help")
    assert answer.exit_code == 0 and "Examples" in answer.output and "spatialconv study warp" in answer.output

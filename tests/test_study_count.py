"""Counts of multiplications, bytes and reuse: on data of ones they are autograd's, whatever the borders."""

from __future__ import annotations

import json
from math import prod

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

import spatialconv
from spatialconv.cli import app
from spatialconv.problem import Conv2dProblem, Pool2dProblem
from spatialconv.study import count_report, counting, loading, model_counts, peaks, shape

sizes = st.integers(1, 3)


@st.composite
def convolutions(draw) -> Conv2dProblem:
    groups = draw(st.integers(1, 3))
    names = {name: draw(st.integers(1, 4)) for name in ("n", "kh", "kw", "sh", "sw", "dh", "dw")}
    problem = Conv2dProblem(
        op="conv2d", ic=groups * draw(sizes), oc=groups * draw(sizes), g=groups, ih=draw(st.integers(1, 13)),
        iw=draw(st.integers(1, 13)), ph=draw(st.integers(0, 5)), pw=draw(st.integers(0, 5)), dtype="f64", **names,
    )  # fmt: skip
    assume(not problem.empty)
    return problem


def ones(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.float64, requires_grad=True)


@given(convolutions())
@settings(max_examples=100, deadline=None)
def test_counts_are_the_gradients_of_a_convolution_of_ones(p):
    counts = counting.count(p)
    x, w = ones(p.input_shape), ones(p.weight_shape)
    y = F.conv2d(x, w, None, (p.sh, p.sw), (p.ph, p.pw), (p.dh, p.dw), p.g)
    y.sum().backward()
    assert counts.macs == int(y.detach().sum()) == p.flops(count_padding=False) // 2
    assert counts.slots == p.flops() // 2
    assert torch.equal(x.grad, torch.tensor(counts.pixel_map()).double().expand(p.input_shape))
    assert torch.equal(w.grad, torch.tensor(counts.tap_map()).double().expand(p.weight_shape))
    tied, untied, dense, im2col = counting.ways(counts)
    assert tied.pixel_uses == (int(x.grad.min()), int(x.grad.max()))
    assert tied.weight_uses == (int(w.grad.min()), int(w.grad.max()))
    assert tied.input_bytes == 8 * int((x.grad > 0).sum()) and tied.weight_bytes == 8 * int((w.grad > 0).sum())
    assert untied.weights == prod(p.weight_shape) * p.oh * p.ow
    assert im2col.macs == counts.slots and im2col.column_bytes == 2 * 8 * counts.column_elements


@given(convolutions())
@settings(max_examples=25, deadline=None)
def test_untied_and_dense_counts_are_those_of_the_maps_written_out(p):
    counts = counting.count(p)
    _, untied, dense, im2col = counting.ways(counts)
    inside = F.unfold(torch.ones(p.input_shape), (p.kh, p.kw), (p.dh, p.dw), (p.ph, p.pw), (p.sh, p.sw))
    columns = inside.reshape(p.n, p.g, -1, p.oh * p.ow).double()
    assert columns.numel() == counts.column_elements and im2col.column_bytes == 16 * columns.numel()
    w = ones((p.g, p.oc // p.g, columns.shape[2], p.oh * p.ow))
    torch.einsum("ngil,goil->", columns, w).backward()
    assert untied.weights == w.numel() and untied.weights_read == int((w.grad > 0).sum())
    assert untied.weight_uses == (int(w.grad.min()), int(w.grad.max())) and untied.macs == int(w.grad.sum())
    flat = ones((p.n, p.ic * p.ih * p.iw))
    full = torch.ones(p.oc * p.oh * p.ow, flat.shape[1], dtype=torch.float64)
    F.linear(flat, full).sum().backward()
    assert dense.macs == int(flat.grad.sum()) and dense.weights == full.numel()
    assert dense.pixel_uses == (int(flat.grad.min()), int(flat.grad.max()))


@st.composite
def poolings(draw) -> Pool2dProblem:
    adaptive = draw(st.booleans())
    common = {"op": "avg_pool2d", "n": draw(sizes), "ic": draw(sizes), "dtype": "f64"}
    common |= {"ih": draw(st.integers(4, 12)), "iw": draw(st.integers(4, 12))}
    if adaptive:
        return Pool2dProblem(adaptive=True, oh=draw(st.integers(1, 6)), ow=draw(st.integers(1, 6)), **common)
    kh, kw = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return Pool2dProblem(
        kh=kh, kw=kw, sh=draw(st.integers(1, 4)), sw=draw(st.integers(1, 4)), ph=draw(st.integers(0, kh // 2)),
        pw=draw(st.integers(0, kw // 2)), ceil=draw(st.booleans()), **common,
    )  # fmt: skip


@given(poolings())
@settings(max_examples=80, deadline=None)
def test_a_poolings_counts_are_the_gradients_of_its_sum(p):
    counts = counting.count(p)
    x = ones(p.input_shape)
    if p.adaptive:
        windows = [[len(row) * len(column) for column in p.columns()] for row in p.rows()]
        y = F.adaptive_avg_pool2d(x, (p.oh, p.ow)) * torch.tensor(windows)
    else:
        y = F.avg_pool2d(x, (p.kh, p.kw), (p.sh, p.sw), (p.ph, p.pw), p.ceil, divisor_override=1)
    y.sum().backward()
    assert torch.allclose(x.grad, torch.tensor(counts.pixel_map()).double().expand(p.input_shape), rtol=1e-12)
    assert counts.macs == round(float(y.detach().sum())) == p.flops(count_padding=False)
    if not p.adaptive:
        assert p.n * p.ic * sum(counts.tap_rows) * sum(counts.tap_columns) == counts.macs


# Figures worked out by hand from the formulas, N = 1, float32: (macs, slots), operations a byte of stored weights.
TABLE = {
    "1x64x28x28 k=64 3x3 s1 p1": (27_541_504, 28_901_376, (100.4, 0.475, 0.500), (729, 784), (256, 576)),
    "1x512x7x7 k=512 3x3 s1 p1": (94_633_984, 115_605_504, (19.6, 0.409, 0.500), (36, 49), (2048, 4608)),
    "1x64x7x7 k=64 3x3 p3 d3": (921_600, 1_806_336, (10.7, 0.254, 0.500), (16, 49), (256, 576)),
    "1x64x56x56 k=64 1x1 s2": (3_211_264, 3_211_264, (15.4, 0.485, 0.500), (784, 784), (0, 64)),
}


@pytest.mark.parametrize("text", TABLE)
def test_known_layers(text):
    macs, slots, intensities, taps, pixels = TABLE[text]
    counts = counting.count(shape.read(text))
    assert (counts.macs, counts.slots) == (macs, slots)
    ways = counting.ways(counts)
    for way, expected in zip(ways, intensities, strict=False):
        assert counting.stored_intensity(way, 4) == pytest.approx(expected, abs=0.05 if expected > 1 else 5e-4)
    assert ways[0].weight_uses == taps and ways[0].pixel_uses == pixels


def test_untied_and_dense_end_at_two_operations_a_weight_and_image():
    for images in (1, 8):
        p = shape.read(f"{images}x256x56x56 k=256 3x3 p1")
        _, untied, dense, _ = counting.ways(counting.count(p))
        assert untied.intensity == pytest.approx(2 * images / 4, rel=0.01)
        assert dense.intensity == pytest.approx(2 * images / 4, rel=0.01)


def test_a_bound_is_the_slower_of_arithmetic_and_memory():
    tied, untied, *_ = counting.ways(counting.count(shape.read("1x64x28x28 k=64 3x3 p1")))
    machine = peaks.Peaks(90e9, ((0, 50e9), (2**20, 10e9)), "test")
    first, second = peaks.bound(tied, machine), peaks.bound(untied, machine)
    assert (first.by, first.bandwidth, first.flops) == ("arithmetic", 50e9, pytest.approx(90e9))
    assert (second.by, second.bandwidth) == ("memory", 10e9)
    assert second.flops == pytest.approx(10e9 * untied.intensity)
    assert second.seconds == pytest.approx(untied.bytes / 10e9)


@pytest.mark.parametrize(("gflops", "gigabytes", "words"), [(9.0, None, "together"), (-1.0, 3.0, "positive")])
def test_half_a_machine_is_refused(gflops, gigabytes, words):
    with pytest.raises(ValueError, match=words):
        peaks.given(gflops, gigabytes)


def test_another_pass_is_refused():
    with pytest.raises(ValueError, match="forward"):
        counting.count(shape.read("conv2d_grad_input n1 ic2 ih4 iw4 oc2 kh3 kw3 f32 nchw cpu"))


class Branches(nn.Module):
    """A layer called twice, a convolution as a function, one that no count is for."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.circular = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
        self.ours = spatialconv.nn.Conv2d(4, 6, 3, stride=2, groups=2)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.weight = nn.Parameter(torch.ones(5, 6, 1, 1))

    def forward(self, x):
        return F.conv2d(self.pool(self.ours(self.circular(self.twice(self.twice(x))))), self.weight)


def test_a_model_is_counted_call_by_call_and_what_is_left_out_is_said():
    model = Branches().train()
    found = model_counts.of_model(model, torch.zeros(2, 4, 9, 9))
    assert model.training and model.twice.training
    by_name = [(layer.name, layer.counts is None) for layer in found.layers]
    names = ["twice", "twice", "circular", "ours", "pool"]
    assert by_name == [(name, name == "circular") for name in names]
    twice, ours = counting.count(shape.read("2x4x9x9 k=4 3x3 p1")), counting.count(shape.read("2x4x9x9 k=6 3x3 s2 g2"))
    assert found.macs == 2 * twice.macs + ours.macs and found.slots == 2 * twice.slots + ours.slots
    circular, function = 2 * 4 * 4 * 9 * 81, 2 * 6 * 5 * 4
    assert found.missed_slots == circular + function
    report = count_report.of_model(found, "test")
    assert "called as functions" in report.notes[1] and report.data["macs"] == found.macs
    assert not any(module._forward_hooks for module in model.modules())


def test_a_suite_is_a_model_too():
    found = model_counts.of_suite("vgg16")
    # Simonyan and Zisserman's network D: 15.3 GMACs of convolutions an image of 224 x 224, padding included.
    images = found.convolutions()[0].counts.problem.n
    assert found.slots / images == pytest.approx(15.35e9, rel=0.01)
    assert found.macs < found.slots


MODULE = """
from torch import nn
from torch.nn import functional as F
def net(): return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
def number(): return 3
def fails(): raise RuntimeError("no weights")
made = nn.Conv2d(3, 2, 1)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MODULE)
    return path


def test_a_model_is_loaded_from_a_file_or_an_expression(file):
    assert isinstance(loading.load(f"{file}:net"), nn.Sequential)
    assert loading.load(f"{file}:made").out_channels == 2
    assert loading.load("nn.Conv2d(3, 8, 5)").kernel_size == (5, 5)
    assert isinstance(loading.load("spatialconv.nn.MaxPool2d(2)"), spatialconv.nn.MaxPool2d)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{file}", "FILE.py:NAME"),
        ("none.py:net", "there is no none.py"),
        ("{file}:nothing", "it has net, number, fails"),
        ("{file}:number", "got int"),
        ("{file}:fails", "no weights .line 6 of mine.py"),
        ("nn.Conv2d(3)", "missing"),
    ],
)
def test_what_cannot_be_loaded_is_said(file, text, words):
    with pytest.raises(ValueError, match=words):
        loading.load(text.format(file=file))


def invoke(*words: str):
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["study", "count", *words])


def test_the_command_counts_a_layer(tmp_path):
    text = "1x64x28x28 k=64 3x3 s1 p1"
    found = invoke(
        text, "--peak", "90", "--bandwidth", "10", "--json", str(tmp_path / "c.json"), "--out", str(tmp_path)
    )
    assert found.exit_code == 0, found.output
    assert "27,541,504" in found.output and "28,901,376" in found.output
    data = json.loads((tmp_path / "c.json").read_text())
    assert data["ways"]["untied"]["bound"]["by"] == "memory"
    assert data["ways"]["tied"]["bound"]["flops"] == pytest.approx(90e9)
    for name in ("count-pixels.png", "count-taps.png"):
        assert (tmp_path / name).stat().st_size > 5000


def test_the_command_counts_a_model(file):
    found = invoke("--model", f"{file}:net", "--input", "1x3x8x8", "--json", "-")
    assert found.exit_code == 0, found.output
    data = json.loads(found.output)
    assert [layer["kind"] for layer in data["layers"]] == ["Conv2d", "ReLU", "MaxPool2d"]
    assert data["macs"] == 3 * 4 * 22 * 22


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("1x64x28x28",),
        ("1x4x8x8 k=4 3x3", "--model", "vgg16"),
        ("1x4x8x8 k=4 3x3", "--peak", "90"),
        ("1x4x8x8 k=4 3x3", "--peak", "-1", "--bandwidth", "3"),
        ("--model", "none.py:net"),
        ("--model", "nn.Conv2d(3, 4, 3)", "--input", "1x4x8x8"),
        ("--model", "nn.Conv2d(3, 4, 3)", "--input", "3x8x8"),
    ],
)
def test_the_command_refuses(words):
    assert invoke(*words).exit_code == 2


def test_help_has_examples():
    found = invoke("--help")
    assert found.exit_code == 0 and "Examples" in found.output and "spatialconv study count" in found.output

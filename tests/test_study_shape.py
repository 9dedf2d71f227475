"""The study's short notation of a layer, and layers of a model as problems."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spatialconv.problem import Conv2dProblem, Pool2dProblem
from spatialconv.study import shape

sizes = st.integers(1, 9)


@st.composite
def convolutions(draw) -> Conv2dProblem:
    groups = draw(st.integers(1, 3))
    names = {name: draw(sizes) for name in ("n", "kh", "kw", "sh", "sw", "dh", "dw")}
    return Conv2dProblem(
        op="conv2d", ic=groups * draw(sizes), oc=groups * draw(sizes), g=groups, ih=draw(st.integers(70, 90)),
        iw=draw(st.integers(70, 90)), ph=draw(st.integers(0, 4)), pw=draw(st.integers(0, 4)),
        dtype=draw(st.sampled_from(("f32", "f64", "bf16"))), layout=draw(st.sampled_from(("nchw", "nhwc"))), **names,
    )  # fmt: skip


@given(convolutions())
@settings(max_examples=60, deadline=None)
def test_the_short_form_is_read_back(problem):
    assert shape.read(shape.short(problem)) == problem
    assert shape.read(str(problem)) == problem


def test_the_examples_mean_what_they_say():
    conv = shape.read("1x64x28x32 k=32 3x5 s2x1 p1x2 d2 g4 bf16 nhwc")
    assert conv == Conv2dProblem(
        op="conv2d", n=1, ic=64, ih=28, iw=32, oc=32, kh=3, kw=5, sh=2, sw=1, ph=1, pw=2, dh=2, dw=2, g=4,
        dtype="bf16", layout="nhwc",
    )  # fmt: skip
    assert shape.read("2x8x9x9 max 3x3 s2 p1") == Pool2dProblem(
        op="max_pool2d", n=2, ic=8, ih=9, iw=9, kh=3, kw=3, sh=2, sw=2, ph=1, pw=1
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("64x28x28 k=64 3x3", "input first"),
        ("1x64x28x28 k=64", "kernel"),
        ("1x64x28x28 3x3", "k=FILTERS"),
        ("1x64x28x28 k=64 3x3 stride2", "stride2"),
        ("1x64x28x28 k=64 3x3 s2 s1", "twice"),
        ("1x64x28x28 max 3x3 g4", "pooling has no g"),
        ("1x64x28x28 k=63 3x3 g4", "divisor"),
        ("conv2d n1 ic3", "lacks"),
    ],
)
def test_other_texts_are_refused_with_a_reason(text, words):
    with pytest.raises(ValueError, match=words):
        shape.read(text)


LAYERS = [
    nn.Conv2d(6, 8, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
    nn.Conv2d(6, 8, 3, padding="same", dilation=2, bias=False),
    nn.Conv2d(6, 8, 2, padding="valid"),
    nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
    nn.AvgPool2d((2, 3)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_layer_of_a_model_becomes_its_problem(layer):
    x = torch.zeros(2, 6, 13, 12)
    problem = shape.of_module(layer, x.shape)
    assert problem.output_shape == tuple(layer(x).shape)
    assert getattr(problem, "bias", False) == (getattr(layer, "bias", None) is not None)


def test_what_has_no_such_problem_is_refused():
    with pytest.raises(TypeError, match="Linear"):
        shape.of_module(nn.Linear(3, 3), (1, 3, 3, 3))
    with pytest.raises(ValueError, match="circular"):
        shape.of_module(nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"), (1, 3, 9, 9))
    with pytest.raises(ValueError, match="even kernel"):
        shape.of_module(nn.Conv2d(3, 3, 2, padding="same"), (1, 3, 9, 9))

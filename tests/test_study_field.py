"""The receptive field by formula and by gradient: two roads to the same pixels, on random stacks and on branches."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

import spatialconv
from spatialconv import dispatch
from spatialconv.cli import app
from spatialconv.study import field, field_gradient, field_report

SIDE = 22


def last(model: nn.Module) -> field.Field:
    return field.of_model(model.eval())[-1][1]


def differing(model: nn.Module, channels: int, place: tuple[int, int] | None = None, side: int = SIDE) -> int:
    found = field_report.find(model, (1, channels, side, side), place)
    assert found.reason == "" and found.differing is not None
    return found.differing


def test_a_dilated_filter_starts_where_its_first_tap_is():
    found = last(nn.Conv2d(1, 1, 3, padding=2, dilation=2))
    assert (found.size, found.jump, found.start, found.holes) == ((5, 5), (1, 1), (-2, -2), 16)
    assert found.centre() == (0, 0) and found.centre((3, 4)) == (3, 4)
    assert found.mask[::2, ::2].all() and found.mask.sum() == 9
    chain = last(nn.Sequential(nn.Conv2d(1, 1, 3), nn.MaxPool2d(2), nn.Conv2d(1, 1, 3, dilation=2)))
    assert (chain.size, chain.jump, chain.start, chain.holes) == ((12, 12), (2, 2), (0, 0), 0)
    assert chain.centre() == (5.5, 5.5)
    strided = last(nn.Sequential(nn.Conv2d(1, 1, 3, 2, padding=1), nn.Conv2d(1, 1, 3, padding=(1, 2))))
    assert (strided.size, strided.jump, strided.start) == ((7, 7), (2, 2), (-3, -5))
    assert last(nn.Conv2d(1, 1, (3, 5), stride=(1, 3), padding=(1, 2), dilation=(1, 2))).start == (-1, -2)


def test_a_published_network():
    """VGG-16's last pooling: field 212, stride 32, padding 90 in the table of Araujo, Norris and Sim, 2019."""
    layers: list[nn.Module] = []
    for convolutions in (2, 2, 3, 3, 3):
        layers += [nn.Conv2d(1, 1, 3, padding=1) for _ in range(convolutions)] + [nn.MaxPool2d(2)]
    found = last(nn.Sequential(*layers))
    assert (found.size, found.jump, found.start) == ((212, 212), (32, 32), (-90, -90))


def test_dilations_of_powers_of_two_leave_no_holes_and_equal_ones_do():
    grown = nn.Sequential(*[nn.Conv2d(1, 1, 3, dilation=d) for d in (1, 2, 4)])
    equal = nn.Sequential(*[nn.Conv2d(1, 1, 3, dilation=2) for _ in range(3)])
    assert (last(grown).size, last(grown).holes) == ((15, 15), 0)
    # Of 13 rows and columns only every second is seen: gridding.
    assert (last(equal).size, last(equal).holes) == ((13, 13), 13 * 13 - 7 * 7)


@st.composite
def stacks(draw) -> nn.Sequential:
    layers: list[nn.Module] = []
    torch.manual_seed(draw(st.integers(0, 99)))
    channels, side = 2, SIDE
    for _ in range(draw(st.integers(1, 4))):
        kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        stride = (draw(st.integers(1, 2)), draw(st.integers(1, 3)))
        dilation = (draw(st.integers(1, 3)), draw(st.integers(1, 2)))
        padding = tuple(draw(st.integers(0, width // 2)) for width in kernel)
        if side < 8:
            break
        kind = draw(st.sampled_from(("conv", "conv", "group", "max", "avg")))
        if kind == "max":
            layers.append(nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=draw(st.booleans())))
        elif kind == "avg":
            layers.append(nn.AvgPool2d(kernel, stride, padding, ceil_mode=draw(st.booleans())))
        else:
            layers.append(nn.Conv2d(channels, 2, kernel, stride, padding, dilation, 2 if kind == "group" else 1))
            layers += draw(st.sampled_from(([], [nn.ReLU()], [nn.BatchNorm2d(2), nn.ReLU6()])))
        side = (side - (max(kernel) - 1) * max(dilation)) // max(stride)
    return nn.Sequential(*layers)


@given(stacks(), st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)))
@settings(max_examples=25, deadline=None)
def test_formula_and_gradient_see_the_same_pixels(model, where):
    with torch.no_grad():
        sizes = model.eval()(torch.zeros(1, 2, SIDE, SIDE)).shape[2:]
    place = tuple(int(part * size) for part, size in zip(where, sizes, strict=True))
    assert differing(model, 2, place) == 0
    found = last(model)
    top, left = (jump * at + start for jump, at, start in zip(found.jump, place, found.start, strict=True))
    if top >= 0 and left >= 0 and top + found.size[0] <= SIDE and left + found.size[1] <= SIDE:
        expected = np.zeros((SIDE, SIDE), bool)
        expected[top : top + found.size[0], left : left + found.size[1]] = found.mask
        assert np.array_equal(field.seen(model, torch.zeros(1, 2, SIDE, SIDE), place), expected)


def test_a_path_through_padding_shows_no_pixel():
    """The second layer's first output reads places -1, padding, and 1, which sees the pixels 1 and 2."""
    model = nn.Sequential(nn.Conv2d(2, 2, (1, 2)), nn.Conv2d(2, 2, (1, 2), padding=(0, 1), dilation=(1, 2))).eval()
    assert np.flatnonzero(field.seen(model, torch.zeros(1, 2, 4, 9), (0, 0))[0]).tolist() == [1, 2]
    assert differing(model, 2, (0, 0)) == 0


class Branches(nn.Module):
    """A residual block, whose shortcut is a dilated convolution, then two branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1))
        self.shortcut = nn.Conv2d(2, 2, 2, padding=2, dilation=4)
        self.tall, self.wide = nn.Conv2d(2, 2, (5, 1), padding=(2, 0)), nn.Conv2d(2, 2, (1, 7), padding=(0, 3))
        self.pool = nn.AvgPool2d(2)

    def forward(self, x):
        x = F.relu(self.body(x) + self.shortcut(x))
        return F.max_pool2d(self.pool(torch.cat([self.tall(x), self.wide(x)], dim=1)), 3, 2)


def test_branches_are_united():
    model = Branches().eval()
    found = dict(field.of_model(model))
    assert found["add"].mask.sum() == 25 and found["add"].start == (-2, -2) and found["add"].size == (5, 5)
    assert found["cat"].size == (5 + 4, 5 + 6) and found["cat"].holes > 0
    assert last(model).jump == (4, 4)
    assert differing(model, 2, (1, 2)) == 0 and differing(model, 2, (0, 0)) == 0


def test_what_no_formula_is_for_is_said_and_the_gradient_still_sees():
    class Uneven(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(2, 2, 1, stride=2), nn.Conv2d(2, 2, 1)

        def forward(self, x):
            return self.one(x) + self.two(x)[..., ::2, ::2]

    class Meeting(Uneven):
        def forward(self, x):
            return self.one(x) + self.two(x)

    for model, words in (
        (Uneven(), "getitem"),
        (Meeting(), "pixels apart"),
        (nn.ConvTranspose2d(2, 2, 3), "ConvTranspose2d"),
        (nn.AdaptiveAvgPool2d(3), "adaptive"),
    ):
        with pytest.raises(ValueError, match=words):
            field.of_model(model.eval())
    found = field_report.find(nn.ConvTranspose2d(2, 2, 3, stride=2), (1, 2, 9, 9), None)
    assert "ConvTranspose2d" in found.reason and found.differing is None and found.seen.sum() in (1, 2, 4)


def test_the_whole_picture_is_seen_through_a_global_pooling():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    for whole in (model, model[:2]):
        assert last(whole).everything and differing(whole, 2) == 0


def test_sums_over_the_picture_are_told_from_sums_over_channels():
    class Mean(nn.Module):
        def __init__(self, dims: tuple[int, ...]) -> None:
            super().__init__()
            self.conv, self.dims = nn.Conv2d(2, 3, 3), dims

        def forward(self, x):
            return self.conv(x).mean(self.dims, keepdim=True)

    assert last(Mean((2, 3))).everything and differing(Mean((2, 3)), 2) == 0
    assert last(Mean((1,))).size == (3, 3) and differing(Mean((1,)), 2) == 0
    with pytest.raises(ValueError, match="dim"):
        last(Mean((0,)))


class Lying(nn.Conv2d):
    """Says 3x3 and reads the middle row only."""

    def forward(self, x):
        return F.conv2d(x, self.weight[:, :, 1:2], None, self.stride, (0, 1))


def test_a_layer_that_sees_less_than_it_says_fails():
    model = nn.Sequential(Lying(2, 2, 3, padding=1))
    assert field_report.find(model, (1, 2, 9, 9), (4, 4)).differing == 6
    assert field_report.report(model, (1, 2, 9, 9), (4, 4)).failed


@pytest.mark.parametrize("mode", ["circular", "reflect"])
def test_padding_that_shows_pixels_again_is_compared_where_it_is_not_met(mode):
    model = nn.Conv2d(2, 2, 5, padding=2, padding_mode=mode)
    assert differing(model, 2, (9, 9)) == 0
    assert "shows pixels again" in field_report.find(model, (1, 2, SIDE, SIDE), (0, 0)).reason


# Numba compiles for float64 and Triton interprets, which takes a minute.
BACKENDS = ["reference", "extension", *[pytest.param(name, marks=pytest.mark.full) for name in ("numba", "triton")]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_this_librarys_layers_see_what_the_formula_says(backend):
    if reason := dispatch.backends()[backend].reason:
        pytest.skip(reason)
    ours = spatialconv.nn
    layers = [
        ours.Conv2d(2, 3, 3, padding=1, dilation=2, backend=backend), nn.ReLU(),
        ours.AvgPool2d(2, backend=backend), ours.Conv2d(3, 3, 2, groups=3, backend=backend),
    ]  # fmt: skip
    assert differing(nn.Sequential(*layers), 2, (1, 1), 11) == 0


OURS = spatialconv.nn
BUILT = [
    nn.Sequential(OURS.P4Conv2d(2, 3, 3, padding=1, lifting=True), nn.ReLU(), OURS.P4Conv2d(3, 2, 3), OURS.P4Pool2d()),
    nn.Sequential(OURS.P4MConv2d(2, 2, 3, stride=2, lifting=True), OURS.P4MPool2d("avg")),
    nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), OURS.BlurPool2d(4, 5, padding_mode="zeros"), nn.Conv2d(4, 1, 3)),
    nn.Sequential(OURS.LocallyConnected2d(2, 3, 3, SIDE, padding=1, dilation=2, bias=False), nn.Conv2d(3, 1, 3)),
]


@pytest.mark.parametrize("model", BUILT, ids=["p4", "p4m", "blur", "untied"])
def test_layers_that_torch_has_not_see_what_the_formula_says(model):
    assert differing(model, 2) == 0


def test_the_share_of_the_area_is_that_of_its_strongest_pixels():
    assert field_gradient.area_share(np.ones((10, 10)), 100) == 0.95
    point = np.zeros((10, 10))
    point[3, 4] = 2.0
    assert field_gradient.area_share(point, 50) == 1 / 50
    assert field_gradient.deviation(point) == (0, 0)
    point[5, 4] = 2.0
    assert field_gradient.deviation(point) == (1, 0)
    assert field_gradient.area_share(np.zeros((3, 3)), 9) == 0


def test_the_effective_field_grows_with_the_root_of_the_depth():
    shares, spreads = [], []
    for depth in (5, 10, 20):
        torch.manual_seed(depth)
        model = nn.Sequential(*[nn.Conv2d(16, 16, 3, padding=1, bias=False) for _ in range(depth)])
        side, generator = 2 * depth + 1, torch.Generator().manual_seed(0)
        found = field_gradient.effective(model, torch.zeros(1, 16, side, side), (depth, depth), side**2, generator, 4)
        shares.append(found.share)
        spreads.append(np.mean(found.deviation) / depth**0.5)
    # A walk of steps -1, 0, 1 spreads by (2/3 * depth) ** 0.5, and 95 % of a normal distribution lie within 2.45 of it.
    assert 0.38 < shares[0] < 0.58 and 0.21 < shares[1] < 0.34 and 0.11 < shares[2] < 0.19
    assert all(0.72 < spread < 0.92 for spread in spreads)


def invoke(*words: str):
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["study", "field", *words])


def test_the_command(tmp_path):
    text = "nn.Sequential(nn.Conv2d(3, 4, 3, dilation=3), nn.ReLU(), nn.Conv2d(4, 2, 3, stride=2))"
    found = invoke(
        text, "--input", "1x3x20x24", "--place", "2x3", "--json", str(tmp_path / "f.json"), "--out", str(tmp_path)
    )
    assert found.exit_code == 0, found.output
    data = json.loads((tmp_path / "f.json").read_text())
    assert data["differing_pixels"] == 0 and data["place"] == [2, 3]
    # Three taps three pixels apart, each widened to three: no hole is left in 9 rows.
    assert data["layers"][-1]["size"] == [9, 9] and data["layers"][0]["holes"] == 40
    assert data["layers"][-1]["holes"] == 0 and data["seen_box"] == [4, 6, 9, 9]
    assert (tmp_path / "field.png").stat().st_size > 10000


def test_the_command_fails_where_formula_and_gradient_differ(tmp_path):
    lines = ["import torch, torch.nn.functional as F", "class Half(torch.nn.Conv2d):"]
    lines += ["    def forward(self, x): return F.conv2d(x, self.weight[..., :1], None)"]
    lines += ["def net(): return torch.nn.Sequential(Half(3, 2, 3))"]
    (tmp_path / "net.py").write_text("\n".join(lines))
    found = invoke(f"{tmp_path / 'net.py'}:net", "--input", "1x3x9x9")
    assert found.exit_code == 1 and "DIFFER" in found.output


@pytest.mark.parametrize(
    "words",
    [
        ("none.py:net",),
        ("nn.Conv2d(3, 2, 3)", "--input", "1x4x9x9"),
        ("nn.Conv2d(3, 2, 3)", "--input", "1x3x9"),
        ("nn.Conv2d(3, 2, 3)", "--input", "1x3x9x9", "--place", "9"),
        ("nn.Conv2d(3, 2, 3)", "--input", "1x3x9x9", "--place", "7x0"),
    ],
)
def test_the_command_refuses(words):
    assert invoke(*words).exit_code == 2


def test_help_has_examples():
    found = invoke("--help")
    assert found.exit_code == 0 and "Examples" in found.output and "spatialconv study field" in found.output


def test_a_softmax_does_not_hide_what_is_seen():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3), nn.Softmax(1)).double()
    generator = torch.Generator().manual_seed(0)
    found = field_gradient.seen(model, torch.rand(1, 3, 9, 9).double(), (3, 3), generator)
    assert found.sum() == 25

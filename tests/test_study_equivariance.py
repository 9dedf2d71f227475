"""Whether maps follow their picture: known layers and nets get the verdicts that mathematics gives them."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from typer.testing import CliRunner

import spatialconv
from spatialconv import dispatch
from spatialconv.cli import app
from spatialconv.study import equivariance_report, transforms
from spatialconv.study.equivariance import Judged, first_worse, judge


def judged(model: nn.Module, group: str, side: int = 16, channels: int = 3) -> list[Judged]:
    generator = torch.Generator().manual_seed(1)
    picture = torch.randn(1, channels, side, side, generator=generator, dtype=torch.float64)
    return judge(model.double(), picture, group)


def conv(mode: str, inputs: int = 3, outputs: int = 4, kernel: int = 3, **options) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode=mode, **options)


def errors(layer: Judged, aligned: bool) -> list[float]:
    return [error.relative for error in layer.errors if error.aligned == aligned]


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate"])
def test_padding_costs_a_border_as_wide_as_it_reaches(mode):
    layers = [conv(mode), nn.ReLU(), conv(mode, 4, 4), conv(mode, 4, 4, 5)]
    found = judged(nn.Sequential(*layers), "shift")
    assert [layer.verdict for layer in found] == ["exact inside"] * 5
    assert [layer.width for layer in found] == [1, 1, 2, 4, 4]
    assert first_worse(found).name == "0" and max(errors(found[-1], True)) > 0.05


def test_circular_padding_costs_nothing():
    (found,) = judged(conv("circular"), "shift")
    assert found.verdict == "exact" and found.width == 0 and max(error.whole for error in found.errors) < 1e-12


def test_without_padding_only_what_came_around_differs():
    (found,) = judged(nn.Conv2d(3, 4, 3), "shift")
    assert (found.verdict, found.width) == ("exact inside", 0) and max(errors(found, True)) < 1e-12
    assert max(error.whole for error in found.errors) > 0.1


@pytest.mark.parametrize("stride", [2, 3])
def test_a_stride_is_followed_at_its_multiples(stride):
    (found,) = judged(conv("circular", stride=stride), "shift", side=12)
    assert found.verdict == "exact at multiples of the stride" and found.stride == (stride, stride)
    assert max(errors(found, True)) < 1e-12
    # Between them a map of noise has nothing in common with itself: the norm of a difference is the root of 2.
    assert all(1.1 < error < 1.7 for error in errors(found, False))


def test_strides_are_those_of_the_layers_where_sizes_mislead():
    found = judged(nn.Sequential(nn.Conv2d(3, 4, 7), nn.Conv2d(4, 4, 5)), "shift", side=16)
    assert found[-1].stride == (1, 1) and found[-1].verdict == "exact inside"


def test_flattening_ends_it_and_global_pooling_keeps_it():
    body = [conv("circular"), nn.ReLU()]
    flat = judged(nn.Sequential(*body, nn.Flatten(), nn.Linear(4 * 256, 5)), "shift")
    assert flat[-1].verdict == "broken" and first_worse(flat).kind == "Flatten"
    pooled = judged(nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)), "shift")
    assert pooled[-1].verdict == "exact" and first_worse(pooled) is None


class Placed(nn.Module):
    """Adds to its map where each place is, which no layer of its own does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv("circular")

    def forward(self, x):
        return self.conv(x) + torch.arange(x.shape[3])


def test_what_no_layer_does_is_laid_to_the_model():
    found = judged(Placed(), "shift")
    assert found[0].verdict == "exact" and first_worse(found).name == "output" and found[-1].verdict == "broken"
    report = equivariance_report.report(Placed(), (1, 3, 9, 9), ("shift",))
    assert "between or after" in report.notes[0]


class Ramp(nn.Module):
    """Adds in place where each place is."""

    def forward(self, x):
        return x.add_(torch.arange(x.shape[3]))


def test_a_layer_is_not_blamed_for_what_a_later_one_writes_into_its_map():
    found = judged(nn.Sequential(conv("circular"), Ramp()), "shift")
    assert found[0].verdict == "exact" and first_worse(found).kind == "Ramp"


def isotropic(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer in float64, with filters that are their own turns and mirror images."""
    layer = layer.double()
    with torch.no_grad():
        turned = [torch.rot90(w, k, (2, 3)) for w in (layer.weight, layer.weight.flip(3)) for k in range(4)]
        layer.weight.copy_(sum(turned) / 8)
    return layer


@pytest.mark.parametrize("group", ["rot90", "flip"])
def test_turns_and_mirrors_need_symmetric_filters(group):
    (plain,) = judged(conv("zeros"), group)
    assert plain.verdict == "broken" and 0.9 < max(errors(plain, True)) < 1.6
    (found,) = judged(isotropic(conv("zeros")), group)
    assert found.verdict == "exact" and max(errors(found, True)) < 1e-12


class Lifted(nn.Module):
    """A filter in all orientations of a group, channel field * order + orientation; then a filter on all of them."""

    def __init__(self, mirrors: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.elements = [transforms.Symmetry(k, m) for m in ((False, True) if mirrors else (False,)) for k in range(4)]
        self.first = nn.Parameter(torch.randn(3, 3, 3, 3))
        self.second = nn.Parameter(torch.randn(2, 3, 1, 3, 3))

    def forward(self, x):
        lifted = torch.stack([one.moved(self.first) for one in self.elements], 1).flatten(0, 1)
        x = F.relu(F.conv2d(x, lifted, padding=1))
        # The mean over orientations is a map of scalars, which is lifted once more.
        x = x.unflatten(1, (3, len(self.elements))).mean(2)
        again = torch.stack([one.moved(self.second[:, :, 0]) for one in self.elements], 1).flatten(0, 1)
        return F.conv2d(x, again, padding=1)


@pytest.mark.parametrize(
    ("mirrors", "group", "channels"),
    [
        (False, "rot90", "4 orientations a field"),
        # Turned alone, the eight are two fields of four.
        (True, "rot90", "4 orientations a field"),
        (True, "flip", "8 symmetries a field"),
    ],
)
def test_orientations_may_change_places(mirrors, group, channels):
    (found,) = judged(Lifted(mirrors), group)
    assert found.verdict == "exact" and all(error.channels == channels for error in found.errors)


def test_turning_needs_a_square_and_a_filter_with_a_middle():
    (even,) = judged(nn.Conv2d(3, 4, 4, stride=2), "rot90", side=16)
    assert even.verdict == "broken"
    with pytest.raises(ValueError, match="square"):
        judge(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 9), "rot90")


def test_a_stride_turns_on_some_sides_only():
    model = isotropic(conv("zeros", stride=2))
    report = equivariance_report.report(model, (1, 3, 16, 16), ("rot90",))
    assert report.data["groups"]["rot90"]["verdict"] == "broken" and "picture of 17 x 17" in report.notes[1]
    assert equivariance_report.report(model, (1, 3, 17, 17), ("rot90",)).data["groups"]["rot90"]["verdict"] == "exact"


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(conv("zeros"), nn.BatchNorm2d(4), nn.ReLU(inplace=True)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    equivariance_report.report(model, (1, 3, 9, 9), ("shift", "flip"))
    judge(model, torch.zeros(1, 3, 9, 9), "flip")
    assert model.training and model[1].training and not any(one._forward_hooks for one in model.modules())
    assert all(torch.equal(value, before[name]) and value.dtype == before[name].dtype for name, value in
               model.state_dict().items())  # fmt: skip


# Numba compiles for a minute where it has not yet, and Triton interprets.
BACKENDS = ["reference", "extension", *[pytest.param(name, marks=pytest.mark.full) for name in ("numba", "triton")]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_this_librarys_layers_follow(backend):
    if reason := dispatch.backends()[backend].reason:
        pytest.skip(reason)
    ours = spatialconv.nn
    torch.manual_seed(0)
    model = nn.Sequential(
        ours.Conv2d(2, 3, 3, padding=1, backend=backend), nn.ReLU(), ours.MaxPool2d(2, backend=backend),
        ours.Conv2d(3, 3, 3, padding=1, groups=3, backend=backend), ours.AvgPool2d(3, 1, 1, backend=backend),
    )  # fmt: skip
    picture = torch.randn(1, 2, 24, 24, generator=torch.Generator().manual_seed(0))
    found = judge(model, picture, "shift")
    assert [layer.verdict for layer in found[:2]] == ["exact inside"] * 2
    assert found[-1].verdict == "exact at multiples of the stride" and [one.width for one in found[2:5]] == [1, 2, 3]
    if backend == "extension":
        # Its kernels for such layers sum in the same order everywhere.
        assert found[-1].bitwise and found[0].bitwise


def invoke(*words: str):
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["study", "equivariance", *words])


def test_the_command(tmp_path):
    model = "nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2))"
    words = (
        model,
        "--input",
        "1x3x12x12",
        "--group",
        "shift",
        "--json",
        str(tmp_path / "e.json"),
        "--out",
        str(tmp_path),
    )
    found = invoke(*words)
    assert found.exit_code == 0, found.output
    shift = json.loads((tmp_path / "e.json").read_text())["groups"]["shift"]
    assert shift["verdict"] == "exact at multiples of the stride" and shift["border"] == 1
    assert shift["first_worse"] == "1" and "MaxPool2d" in found.output
    assert (tmp_path / "equivariance-shift.png").stat().st_size > 10000


def test_the_command_fails_on_request():
    words = ("nn.Conv2d(3, 4, 3, padding=1)", "--input", "1x3x12x12", "--group", "flip", "--json", "-")
    assert invoke(*words).exit_code == 0
    assert invoke(*words, "--require").exit_code == 1


@pytest.mark.parametrize(
    "words",
    [
        ("none.py:net",),
        ("nn.Conv2d(3, 2, 3)", "--group", "scale"),
        ("nn.Conv2d(3, 2, 3)", "--dtype", "bf16"),
        ("nn.Conv2d(3, 2, 3)", "--input", "1x4x9x9"),
        ("nn.Conv2d(3, 2, 3)", "--input", "1x3x9x8", "--group", "rot90"),
    ],
)
def test_the_command_refuses(words):
    assert invoke(*words).exit_code == 2


def test_help_has_examples():
    found = invoke("--help")
    assert found.exit_code == 0 and "Examples" in found.output and "spatialconv study equivariance" in found.output


def test_maps_that_grow_again_are_not_judged_and_small_pictures_say_so():
    grows = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.ConvTranspose2d(4, 3, 2, stride=2))
    with pytest.raises(ValueError, match="do not grow"):
        judge(grows.double(), torch.rand(1, 3, 16, 16).double(), "shift")
    small = judge(nn.AvgPool2d(3).double(), torch.rand(1, 3, 8, 8).double(), "shift")[-1]
    assert small.verdict != "broken" or "too small to tell" in small.text()

"""Convolutions over quarter turns and mirror images: what they compute, and that turning the input turns the output.

The judge of the values is the definition, summed over the elements of the group as 2x2 matrices, which shares nothing
with the layer's own tables; torch.nn.Conv2d shows that the tests of symmetry can fail.
"""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from cells import on_cpu
from torch import Tensor

from spatialconv import nn
from spatialconv.nn.symmetry import P4, P4M, Symmetry

CONV = {"p4": nn.P4Conv2d, "p4m": nn.P4MConv2d}
POOL = {"p4": nn.P4Pool2d, "p4m": nn.P4MPool2d}
GROUPS = [P4, P4M]
BACKENDS = sorted({name.partition(":")[0] for name in on_cpu("conv2d")})


def matrix(element: int) -> Tensor:
    """What an element does to (row, column), rows counted downwards: mirror columns, then turn counterclockwise."""
    turn, mirror = torch.tensor([[0, -1], [1, 0]]), torch.tensor([[1, 0], [0, -1]])
    mirrored, turns = divmod(element, 4)
    result = mirror if mirrored else torch.eye(2, dtype=torch.int64)
    for _ in range(turns):
        result = turn @ result
    return result


def by_definition(layer: torch.nn.Module, input: Tensor) -> Tensor:
    """[f * w](place, s) = sum over x, u of f(x, u) w(s^-1 (x - place), s^-1 u), for one image, stride 1, no padding."""
    order, planes, size = layer.symmetry.order, layer.planes, layer.kernel_size
    matrices = [matrix(element) for element in range(order)]
    weight = layer.weight.detach().reshape(layer.out_channels, layer.in_channels, planes, size, size)
    maps = input.reshape(layer.in_channels, planes, *input.shape[-2:])
    places = [extent - size + 1 for extent in input.shape[-2:]]
    output = torch.zeros(layer.out_channels, order, *places, dtype=input.dtype)
    middle = (size - 1) / 2
    for s, u, row, column in itertools.product(range(order), range(planes), range(size), range(size)):
        undo = torch.linalg.inv(matrices[s].double())
        at = undo @ torch.tensor([row - middle, column - middle], dtype=torch.float64) + middle
        from_row, from_column = (int(value) for value in at.round())
        moved = (undo @ matrices[u].double()).round().to(torch.int64)
        plane = 0 if planes == 1 else next(k for k in range(order) if torch.equal(matrices[k], moved))
        seen = maps[:, u, row : row + places[0], column : column + places[1]]
        output[:, s] += torch.einsum("oi,ihw->ohw", weight[:, :, plane, from_row, from_column], seen)
    return (output + layer.bias.detach().reshape(-1, 1, 1, 1)).flatten(0, 1)


def network(symmetry: Symmetry, mode: str = "max", **options) -> torch.nn.Sequential:
    """Image -> group -> group -> plane."""
    conv, pool = CONV[symmetry.name], POOL[symmetry.name]
    torch.manual_seed(0)
    return torch.nn.Sequential(
        conv(3, 4, 3, lifting=True, **options), torch.nn.Tanh(), conv(4, 2, 3, **options), pool(mode)
    ).double()


def image(size: int = 9, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)


def gap(first: Tensor, second: Tensor) -> float:
    return float(((first - second).abs().max() / second.abs().max()).detach())


@pytest.mark.parametrize("symmetry", GROUPS, ids=lambda one: one.name)
def test_the_group_is_that_of_the_matrices(symmetry):
    elements = range(symmetry.order)
    for first, second in itertools.product(elements, elements):
        assert torch.equal(matrix(symmetry.product(first, second)), matrix(first) @ matrix(second))
    assert all(symmetry.product(symmetry.inverse(one), one) == 0 for one in elements)
    plane = torch.arange(12.0).reshape(3, 4)
    for first, second in itertools.product(elements, elements):
        twice = symmetry.moved(symmetry.moved(plane, second), first)
        assert torch.equal(twice, symmetry.moved(plane, symmetry.product(first, second)))


@pytest.mark.parametrize("lifting", [True, False])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("symmetry", GROUPS, ids=lambda one: one.name)
def test_values_are_those_of_the_definition(symmetry, size, lifting):
    torch.manual_seed(2)
    layer = CONV[symmetry.name](2, 3, size, lifting=lifting).double()
    input = torch.randn(2 * layer.planes, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(input), by_definition(layer, input), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"padding": "same", "padding_mode": "circular"},
        {"padding": 2, "padding_mode": "reflect", "dilation": 2},
        {"stride": 2, "padding": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("symmetry", GROUPS, ids=lambda one: one.name)
def test_a_moved_image_gives_the_moved_output(symmetry, options, mode):
    model = network(symmetry, mode, **options)
    still = model(image())
    for element in range(1, symmetry.order):
        assert gap(model(symmetry.moved(image(), element)), symmetry.moved(still, element)) < 1e-13


@pytest.mark.parametrize("symmetry", GROUPS, ids=lambda one: one.name)
def test_features_over_the_group_move_and_change_places(symmetry):
    lift, conv = network(symmetry, padding=1)[0], network(symmetry, padding=1)[2]
    features = lift(image())
    for element in range(1, symmetry.order):
        moved = lift(symmetry.moved(image(), element))
        assert gap(moved, symmetry.acted(features, element)) < 1e-13
        assert gap(moved, symmetry.moved(features, element)) > 0.1
        assert gap(conv(moved), symmetry.acted(conv(features), element)) < 1e-13


def test_a_plain_convolution_fails_the_same_test():
    torch.manual_seed(0)
    plain = torch.nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), torch.nn.Tanh(), nn.Conv2d(4, 2, 3, padding=1)).double()
    turned = plain(P4.moved(image(), 1))
    assert gap(turned, P4.moved(plain(image()), 1)) > 0.5
    mirrored = network(P4, padding=1)
    assert gap(mirrored(P4M.moved(image(), 4)), P4M.moved(mirrored(image()), 4)) > 0.1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("symmetry", GROUPS, ids=lambda one: one.name)
def test_small_integers_move_bitwise_with_every_backend(symmetry, backend):
    """Sums of small integers are exact in whatever order the taps come, and a turned filter brings them in another."""
    generator = torch.Generator().manual_seed(3)
    lift = CONV[symmetry.name](3, 4, 3, padding=1, lifting=True, backend=backend)
    conv = CONV[symmetry.name](4, 4, 3, padding=1, groups=2, backend=backend)
    with torch.no_grad():
        for parameter in (*lift.parameters(), *conv.parameters()):
            parameter.copy_(torch.randint(-2, 3, parameter.shape, generator=generator))
        input = torch.randint(-3, 4, (2, 3, 9, 9), generator=generator).float()
        still = conv(lift(input).relu())
        assert float(still.abs().max()) > 100
        for element in range(symmetry.order):
            assert torch.equal(conv(lift(symmetry.moved(input, element)).relu()), symmetry.acted(still, element))


def test_an_even_grid_of_outputs_is_not_symmetric():
    """Stride 2 on 10 rows reads rows 0, 2, .. from one side: the limit that the documentation names."""
    model = network(P4, stride=2, padding=1)
    assert gap(model(P4.moved(image(10), 1)), P4.moved(model(image(10)), 1)) > 0.1


@pytest.mark.parametrize("lifting", [True, False])
@pytest.mark.parametrize("symmetry", GROUPS, ids=lambda one: one.name)
def test_derivatives(symmetry, lifting):
    torch.manual_seed(4)
    layer = CONV[symmetry.name](2, 2, 2, padding=1, groups=2, lifting=lifting).double()
    input = torch.randn(1, 2 * layer.planes, 3, 3, dtype=torch.float64, requires_grad=True)
    parameters = {name: value.detach().clone().requires_grad_() for name, value in layer.named_parameters()}

    def call(input, *values):
        return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), (input,))

    leaves = (input, *parameters.values())
    assert torch.autograd.gradcheck(call, leaves, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("symmetry", GROUPS, ids=lambda one: one.name)
def test_compiled_exported_vectorised_and_copied(symmetry):
    model = network(symmetry, padding=1)
    expected = model(image())
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image()), expected)
    gradient = torch.autograd.grad(compiled(image()).square().sum(), list(model.parameters()))
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), list(model.parameters())))
    torch.testing.assert_close(torch.export.export(model, (image(),)).module()(image()), expected)
    torch.testing.assert_close(torch.func.vmap(model)(image()[:, None]).squeeze(1), expected)
    torch.testing.assert_close(copy.deepcopy(model)(image()), expected)
    torch.testing.assert_close(nn.freeze(copy.deepcopy(model).eval())(image()), expected.detach())
    torch.testing.assert_close(model(image()[0]), expected[0])


def test_state_and_conversion():
    model = network(P4)
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [tuple(value.shape) for value in model.state_dict().values()] == [(4, 3, 3, 3), (4,), (2, 16, 3, 3), (2,)]
    other = network(P4)
    with torch.no_grad():
        other[0].weight.zero_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(image()), model(image()))
    assert not nn.conversion_report(model).rows and type(nn.convert(model)[0]) is nn.P4Conv2d
    late = nn.P4Conv2d(3, 4, 3, lifting=True, device="meta").to_empty(device="cpu")
    late.reset_parameters()
    assert late(image(dtype=torch.float32)).isfinite().all()
    for lifting in (False, True):
        layer = nn.P4Conv2d(4, 2, 3, lifting=lifting)
        input = torch.rand(1, 4 if lifting else 16, 6, 6)
        empty = nn.P4Conv2d(4, 2, 3, lifting=lifting, device="meta").to_empty(device="cpu")
        empty.load_state_dict(layer.state_dict())
        assigned = nn.P4Conv2d(4, 2, 3, lifting=lifting, device="meta")
        assigned.load_state_dict(layer.state_dict(), assign=True)
        with torch.device("meta"):
            placed = nn.P4Conv2d(4, 2, 3, lifting=lifting, device="cpu")
        placed.load_state_dict(layer.state_dict())
        for other in (empty, assigned, placed, copy.deepcopy(layer).to(memory_format=torch.channels_last)):
            torch.testing.assert_close(other(input), layer(input))
    assert late.places.sort().values.equal(torch.arange(9).expand(4, 9))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert late(image(dtype=torch.float32)).dtype == torch.bfloat16


def test_equal_maxima_share_the_gradient():
    input = torch.zeros(1, 4, 2, 2, requires_grad=True)
    nn.P4Pool2d()(input).sum().backward()
    assert torch.equal(input.grad, torch.full((1, 4, 2, 2), 0.25))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kernel_size": (3, 2)}, "kernel_size: expected one integer of at least 1, or a pair of equals"),
        ({"stride": (1, 2)}, "stride"),
        ({"padding": -1}, "padding: expected one integer of at least 0"),
        ({"padding": "same", "kernel_size": 2}, "'same' with stride 1 and a filter that has a middle"),
        ({"groups": 2}, "in_channels: expected a positive multiple of groups=2, got 3"),
        ({"padding_mode": "mirror"}, "padding_mode: expected zeros or reflect"),
        ({"backend": "none"}, "expected one of auto"),
    ],
    ids=str,
)
def test_what_breaks_the_symmetry_is_refused(options, words):
    with pytest.raises(ValueError) as raised:
        nn.P4Conv2d(**{"in_channels": 3, "out_channels": 4, "kernel_size": 3, **options})
    assert words in str(raised.value)


def test_inputs_of_another_shape_are_refused():
    with pytest.raises(RuntimeError, match=r"P4Conv2d: input: expected \[n, 8, h, w\] .*2 fields of 4 orientations"):
        nn.P4Conv2d(2, 2, 3)(torch.zeros(1, 2, 5, 5))
    with pytest.raises(RuntimeError, match=r"P4MPool2d: input: expected \[n, fields \* 8, h, w\]"):
        nn.P4MPool2d()(torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match="P4Pool2d: mode: expected 'max' or 'avg', got 'sum'"):
        nn.P4Pool2d("sum")

"""prepack() transforms a weight once, computes bitwise the same, and never outlives what it was made of."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from cells import on_cpu
from torch import nn

import spatialconv
import spatialconv.nn as ours
from spatialconv import dispatch
from spatialconv.backends.base import DTYPES, Kernel
from spatialconv.dispatch import Choice
from spatialconv.nn import convert, packing, prepack

SHAPE = (2, 4, 9, 8)


class FlippingKernel(Kernel):
    """A kernel whose transformed weight is the weight backwards; it counts what it is asked for."""

    backend, name, ops = "test", "flipping", ("conv2d",)

    def __init__(self) -> None:
        self.packings = self.runs = 0

    def refusals(self, problem, context):
        return ["is not for groups"] if problem.g > 1 else []

    def packed_weight(self, problem, context, weight):
        assert context.prepacked and not weight.requires_grad
        self.packings += 1
        return weight.flatten().flip(0)

    def plan(self, problem, context):
        assert context.prepacked

        def run(input, packed, bias):
            self.runs += 1
            weight = packed.flip(0).reshape(problem.weight_shape)
            return dispatch.choose(problem, "reference").plan(input, weight, bias)

        return run


@pytest.fixture
def kernel(monkeypatch) -> FlippingKernel:
    made = FlippingKernel()

    def choose(problem, request, context=None, index=None):
        chosen = dispatch.choose(problem, request)
        if made.refusals(problem, context):
            return chosen
        plan = chosen.plan if context is None else made.plan(problem, context)
        return Choice(problem, context or chosen.context, made, plan, ())

    monkeypatch.setattr(packing, "choose", choose)
    return made


def layer_and_input(**options) -> tuple[ours.Conv2d, torch.Tensor]:
    torch.manual_seed(0)
    options = {"backend": "reference", "padding": 1, **options}
    return ours.Conv2d(4, 6, 3, **options).eval(), torch.randn(SHAPE)


@torch.no_grad()
def test_packed_once_and_used(kernel):
    layer, input = layer_and_input()
    expected = layer(input)
    assert prepack(layer) is layer
    for _ in range(3):
        assert torch.equal(layer(input), expected)
    assert kernel.packings == 1 and kernel.runs == 2
    first = copy.deepcopy(layer)(input[:1])
    assert torch.equal(layer(input[:1]), first) and torch.equal(layer(input[:1]), first)
    assert len(layer._packed._state.forms) == 1, "an equal transformed weight is kept once"
    layer(input.to(memory_format=torch.channels_last))
    assert kernel.packings == 3


@pytest.mark.parametrize("options", [
    {"padding": "same"}, {"padding": "valid"}, {"padding": (2, 0), "stride": (1, 2)}, {"dilation": 2, "bias": False},
    {"padding_mode": "circular"}, {"padding_mode": "reflect", "stride": 2},
], ids=str)  # fmt: skip
@torch.no_grad()
def test_geometries(kernel, options):
    layer, input = layer_and_input(**options)
    expected = layer(input)
    prepack(layer)
    assert torch.equal(layer(input), expected) and torch.equal(layer(input), expected)
    assert kernel.runs == 1


@torch.no_grad()
def test_attributes_may_change_after_prepacking(kernel):
    layer, input = layer_and_input()
    prepack(layer)(input)
    layer(input)
    runs = kernel.runs
    plain = copy.deepcopy(layer)
    for changed in (layer, plain):
        changed.stride, changed.padding = (2, 1), (0, 1)
    assert torch.equal(layer(input), plain(input)) and torch.equal(layer(input), plain(input))
    assert kernel.runs == runs + 1
    layer.stride = plain.stride = [2, 2]
    assert torch.equal(layer(input), plain(input)) and torch.equal(layer(input), plain(input))
    layer.bias = plain.bias = None
    layer.stride = plain.stride = (1, 1)
    assert torch.equal(layer(input), plain(input)) and torch.equal(layer(input), plain(input))


def test_gradients_take_the_ordinary_way(kernel):
    layer, input = layer_and_input()
    prepack(layer)
    with torch.no_grad():
        layer(input), layer(input)
    packings, runs = kernel.packings, kernel.runs
    output = layer(input.requires_grad_())
    assert output.requires_grad
    output.sum().backward()
    assert layer.weight.grad is not None and input.grad is not None
    assert (kernel.packings, kernel.runs) == (packings, runs)


def test_other_calls_take_the_ordinary_way(kernel):
    layer, input = layer_and_input()
    expected = layer(input).detach()
    prepack(layer)
    with torch.inference_mode():
        layer(input)
        assert torch.equal(layer(input), expected) and kernel.runs == 1
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(input).dtype == torch.bfloat16
        torch.testing.assert_close(torch.func.vmap(layer)(input[None])[0], expected)
        assert torch.equal(torch.compile(layer, fullgraph=True, backend="eager")(input), expected)
        assert torch.equal(torch.jit.trace(layer, input, check_trace=False)(input), expected)
        assert torch.equal(layer(input[0]), copy.deepcopy(layer)(input[0]))
        assert kernel.runs == 1
        with pytest.raises(RuntimeError, match="input"):
            layer(input[:, :3])
        with pytest.raises(RuntimeError, match="float"):
            layer(input.double())


@torch.no_grad()
def test_dropped_with_what_it_was_made_of(kernel):
    layer, input = layer_and_input()
    model = prepack(nn.Sequential(layer).eval())
    state = {key: value + 1 for key, value in model.state_dict().items()}

    def check(packings: int) -> None:
        plain = copy.deepcopy(layer)
        assert plain._packed is None
        for _ in range(2):
            assert torch.equal(layer(input.to(layer.weight.dtype)), plain(input.to(layer.weight.dtype)))
        assert kernel.packings == packings

    check(1)
    model.load_state_dict(state)
    check(2)
    model.double()
    check(3)
    layer.weight = nn.Parameter(layer.weight * 2)
    check(4)
    model.load_state_dict(state, assign=True)
    check(5)
    model.eval()
    check(5)
    runs = kernel.runs
    model.train()
    assert layer._packed is None
    model.eval()
    check(5)
    assert kernel.runs == runs


@torch.no_grad()
def test_no_part_of_state_or_copies(kernel):
    layer, input = layer_and_input()
    keys, shown = list(layer.state_dict()), repr(layer)
    prepack(layer)
    layer(input), layer(input)
    assert list(layer.state_dict()) == keys and repr(layer) == shown
    assert len(list(layer.buffers())) == 0 and len(list(layer.parameters())) == 2
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False)):
        assert copied._packed is None and torch.equal(copied(input), layer(input))
    assert "_packed" not in vars(convert(layer, inverse=True))


@torch.no_grad()
def test_many_shapes_stay_bounded(kernel):
    layer, _ = layer_and_input()
    prepack(layer)
    for width in range(3, 3 + 3 * packing._LIMIT):
        layer(torch.randn(1, 4, 5, width))
    assert len(layer._packed._state.runs) <= packing._LIMIT and len(layer._packed._state.forms) == 1


@torch.no_grad()
def test_kernel_without_a_transformed_form(kernel):
    layer, input = layer_and_input(groups=2)
    expected = layer(input)
    prepack(layer)
    assert torch.equal(layer(input), expected) and torch.equal(layer(input), expected)
    assert kernel.packings == kernel.runs == 0


@torch.no_grad()
def test_computed_weights_are_not_kept(kernel):
    layer, input = layer_and_input()
    nn.utils.parametrizations.weight_norm(layer)
    expected = layer(input)
    prepack(layer)
    for factor in (1, 2):
        layer.parametrizations.weight.original0.mul_(factor)
        assert torch.allclose(
            layer(input) - layer.bias[:, None, None], factor * (expected - layer.bias[:, None, None]), atol=1e-5
        )
    assert kernel.packings == 0


def test_training_mode_is_refused():
    layer, _ = layer_and_input()
    model = nn.Sequential(layer, nn.ReLU())
    layer.train()
    with pytest.raises(ValueError, match=r"eval\(\)"):
        prepack(model)
    assert layer._packed is None


GEOMETRIES = [
    (dict(in_channels=16, out_channels=24, kernel_size=3, padding=1), (2, 16, 14, 14)),
    (dict(in_channels=5, out_channels=7, kernel_size=1, bias=False), (1, 5, 9, 11)),
    (dict(in_channels=8, out_channels=12, kernel_size=(3, 2), stride=2, padding=1, groups=4), (3, 8, 10, 9)),
    (dict(in_channels=6, out_channels=12, kernel_size=3, padding="same", groups=6), (2, 6, 12, 7)),
]  # fmt: skip


@pytest.fixture
def precision():
    """Sets what torch's switch for convolution asks for, for one test."""
    switch = torch.backends.mkldnn.conv
    before = switch.fp32_precision
    yield lambda tier: setattr(switch, "fp32_precision", tier)
    switch.fp32_precision = before


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("geometry, shape", GEOMETRIES, ids=str)
@pytest.mark.parametrize("name", [name for name in on_cpu("conv2d") if name.startswith("extension:")])
@torch.no_grad()
def test_extension_computes_bitwise_the_same(name, geometry, shape, layout, precision):
    torch.manual_seed(0)
    kernel = dispatch.kernel(name)
    precision(kernel.tier)
    for dtype in (DTYPES[word] for word in kernel.dtypes):
        computes_bitwise_the_same(name, geometry, shape, layout, dtype)


def computes_bitwise_the_same(name, geometry, shape, layout, dtype):
    layer = ours.Conv2d(**geometry, backend=name, dtype=dtype).to(memory_format=layout).eval()
    input = torch.randn(shape).to(dtype).to(memory_format=layout)
    if reasons := [reason for kernel, reason in spatialconv.explain(layer, input).refused if kernel == name]:
        pytest.skip(f"{name} refuses: {reasons[0][0]}")
    expected = layer(input)
    prepack(layer)
    assert torch.equal(layer(input), expected)
    assert torch.equal(layer(input), expected)
    if name in ("extension:dots", "extension:gemm", "extension:winograd", "extension:winograd4"):
        assert layer._packed._state.forms, "a transformed weight is kept and read"

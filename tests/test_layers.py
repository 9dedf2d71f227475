"""The layers are torch's: arguments, state, printed form, outputs and gradients, also pickled, traced, compiled."""

from __future__ import annotations

import copy
import inspect
import io
import pickle

import pytest
import torch

import spatialconv.nn as ours
from spatialconv.nn import layers

IMAGE = (2, 6, 9, 10)
CASES = [
    ("Conv2d", (6, 8, 3), {}, IMAGE),
    ("Conv2d", (6, 8, (3, 2), (2, 1), (1, 2)), {"bias": False}, IMAGE),
    ("Conv2d", (6, 9, 3, 1, 2, 2, 3), {}, IMAGE),
    ("Conv2d", (6, 12, 3, 1, 1, 1, 6), {}, IMAGE),
    ("Conv2d", (6, 4, 1), {}, IMAGE[1:]),
    ("Conv2d", (6, 4, (4, 3)), {"padding": "same", "dilation": (1, 2)}, IMAGE),
    ("Conv2d", (6, 4, 3), {"padding": "valid", "stride": 2}, IMAGE),
    ("Conv2d", (6, 4, 3), {"padding": (2, 1), "padding_mode": "reflect"}, IMAGE),
    ("Conv2d", (6, 4, 3), {"padding": (2, 1), "padding_mode": "replicate", "stride": 2}, IMAGE),
    ("Conv2d", (6, 4, 3), {"padding": (1, 2), "padding_mode": "circular"}, IMAGE),
    ("Conv2d", (6, 4, (2, 4)), {"padding": "same", "padding_mode": "circular"}, IMAGE),
    ("ConvTranspose2d", (6, 4, 3), {}, IMAGE),
    ("ConvTranspose2d", (6, 4, (3, 2), 2, 1, (1, 0), 2, True, (1, 2)), {}, IMAGE),
    ("ConvTranspose2d", (6, 6, 4), {"stride": 3, "groups": 6, "bias": False}, IMAGE[1:]),
    ("MaxPool2d", (2,), {}, IMAGE),
    ("MaxPool2d", ((3, 2), 2, 1), {"ceil_mode": True}, IMAGE),
    ("MaxPool2d", (3, (2, 1), (1, 0), 2, True), {}, IMAGE),
    ("MaxPool2d", (2, 1), {}, IMAGE[1:]),
    ("AvgPool2d", (2,), {}, IMAGE),
    ("AvgPool2d", ((3, 2), 2, 1, True, False), {}, IMAGE),
    ("AvgPool2d", (3,), {"stride": (1, 2), "padding": 1, "divisor_override": 5}, IMAGE[1:]),
    ("AdaptiveAvgPool2d", (1,), {}, IMAGE),
    ("AdaptiveAvgPool2d", ((4, None),), {}, IMAGE),
    ("AdaptiveMaxPool2d", ((4, 3),), {}, IMAGE),
    ("AdaptiveMaxPool2d", (5,), {"return_indices": True}, IMAGE[1:]),
]


def name_of(case) -> str:
    name, args, options, shape = case
    return "-".join([name, *map(str, args), *map(str, options.values()), f"{len(shape)}d"]).replace(" ", "")


def layer_pair(case, dtype=torch.float64):
    """torch's layer and ours with the same parameters, and an input."""
    name, args, options, shape = case
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*args, **options).to(dtype)
    mine = getattr(ours, name)(*args, **options).to(dtype)
    mine.load_state_dict(theirs.state_dict())
    return theirs, mine, torch.randn(shape, dtype=dtype)


def run(layer, input):
    """The outputs of a layer and the gradients of the input and the parameters, for a fixed grad_output."""
    input = input.detach().requires_grad_()
    output = layer(input)
    outputs = output if isinstance(output, tuple) else (output,)
    generator = torch.Generator().manual_seed(1)
    grad_output = torch.randn(outputs[0].shape, generator=generator, dtype=torch.float64).to(outputs[0])
    gradients = torch.autograd.grad(outputs[0], [input, *layer.parameters()], grad_output)
    return [entry.detach() for entry in outputs], list(gradients)


def steps(tensor):
    """The strides that place an element: those of the dimensions longer than one."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


def assert_same(mine, theirs):
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-11)


IN_LAYOUTS = [(case, "nchw") for case in CASES] + [(case, "nhwc") for case in CASES if len(case[3]) == 4]


@pytest.mark.parametrize(
    "case, layout", IN_LAYOUTS, ids=lambda value: value if isinstance(value, str) else name_of(value)
)
def test_outputs_and_gradients(case, layout):
    theirs, mine, input = layer_pair(case)
    if layout == "nhwc":
        input = input.to(memory_format=torch.channels_last)
    expected, got = run(theirs, input), run(mine, input)
    assert_same(got, expected)
    assert [steps(entry) for entry in got[0]] == [steps(entry) for entry in expected[0]]


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_signature_repr_and_state(case):
    theirs, mine, _ = layer_pair(case)
    name = case[0]
    assert repr(mine) == repr(theirs)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    assert isinstance(mine, getattr(torch.nn, name))
    parameters = inspect.signature(type(mine).__init__).parameters
    added = ["activation", "backend"] if name == "Conv2d" else ["backend"]
    assert list(parameters) == [*inspect.signature(type(theirs).__init__).parameters, *added]
    assert all(parameters[word].kind is inspect.Parameter.KEYWORD_ONLY for word in added)
    for key, value in inspect.signature(type(theirs).__init__).parameters.items():
        assert parameters[key].default == value.default
    mine.backend = "reference"
    assert repr(mine) == repr(theirs)[:-1] + ", backend='reference')"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_backend_is_used(case):
    _, mine, input = layer_pair(case)
    name, args, options, _ = case
    forced = getattr(ours, name)(*args, **options, backend="reference").double()
    forced.load_state_dict(mine.state_dict())
    assert_same(run(forced, input), run(mine, input))


FUNCTIONS = {
    "Conv2d": ("conv2d", (3, 4, 3)),
    "ConvTranspose2d": ("conv_transpose2d", (3, 4, 3)),
    "MaxPool2d": ("max_pool2d", (2,)),
    "AvgPool2d": ("avg_pool2d", (2,)),
    "AdaptiveAvgPool2d": ("adaptive_avg_pool2d", (1,)),
    "AdaptiveMaxPool2d": ("adaptive_max_pool2d", (1,)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_backend_is_checked_and_reaches_the_function(name, monkeypatch):
    function, args = FUNCTIONS[name]
    with pytest.raises(ValueError, match="extension"):
        getattr(ours, name)(*args, backend="no such backend")
    asked = []
    monkeypatch.setattr(layers, function, lambda *values, backend, **others: asked.append(backend))
    layer = getattr(ours, name)(*args, backend="reference")
    layer(torch.zeros(1, 3, 8, 8))
    layer.backend = None
    layer(torch.zeros(1, 3, 8, 8))
    getattr(ours, name)(*args)(torch.zeros(1, 3, 8, 8))
    assert asked == ["reference", None, None]


@pytest.mark.parametrize("copier", ["deepcopy", "pickle", "torch.save"])
@pytest.mark.parametrize("case", CASES[::3], ids=name_of)
def test_copies(case, copier):
    _, mine, input = layer_pair(case)
    mine.backend = "reference"
    if copier == "deepcopy":
        copied = copy.deepcopy(mine)
    elif copier == "pickle":
        copied = pickle.loads(pickle.dumps(mine))
    else:
        file = io.BytesIO()
        torch.save(mine, file)
        file.seek(0)
        copied = torch.load(file, weights_only=False)
    assert type(copied) is type(mine) and copied.backend == "reference" and repr(copied) == repr(mine)
    assert_same(run(copied, input), run(mine, input))


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_trace(case):
    theirs, mine, input = layer_pair(case)
    with torch.no_grad():
        traced = torch.jit.trace(mine, input)
        assert_same(traced(input), theirs(input))
        assert_same(traced(2 * input), theirs(2 * input))


@pytest.mark.parametrize("case", CASES[::2], ids=name_of)
def test_compile(case):
    theirs, mine, input = layer_pair(case)
    torch._dynamo.reset()
    compiled = torch.compile(mine, fullgraph=True, backend="aot_eager")
    assert_same(run(compiled, input), run(theirs, input))


@pytest.mark.parametrize("case", CASES[1::3], ids=name_of)
def test_export(case):
    theirs, mine, input = layer_pair(case)
    program = torch.export.export(mine, (input,))
    assert_same(program.module()(input), theirs(input))


def test_attributes_may_change_after_construction():
    theirs, mine, input = layer_pair(CASES[0])
    mine(input)
    for layer in (theirs, mine):
        layer.stride, layer.padding, layer.dilation = (2, 1), (2, 0), (2, 2)
    assert_same(run(mine, input), run(theirs, input))
    for layer in (theirs, mine):
        layer.weight = torch.nn.Parameter(torch.randn(5, 6, 2, 2, generator=torch.Generator().manual_seed(3)).double())
        layer.bias = None
    assert_same(run(mine, input), run(theirs, input))


def test_transposed_output_size():
    theirs, mine, input = layer_pair(("ConvTranspose2d", (6, 4, 3, 2), {}, IMAGE))
    for size in ([19, 21], [20, 22], [2, 4, 20, 21]):
        assert_same(mine(input, output_size=size), theirs(input, output_size=size))
    with pytest.raises(ValueError, match="output size"):
        mine(input, output_size=[30, 30])


def test_errors_are_torchs():
    for arguments in ({"groups": 4}, {"padding": "some"}, {"padding": "same", "stride": 2}, {"padding_mode": "mirror"}):
        with pytest.raises(ValueError) as expected:
            torch.nn.Conv2d(6, 8, 3, **arguments)
        with pytest.raises(ValueError) as got:
            ours.Conv2d(6, 8, 3, **arguments)
        assert str(got.value) == str(expected.value)
    with pytest.raises(TypeError):
        ours.Conv2d(6, 8, 3, 1, 0, 1, 1, True, "zeros", None, None, "reference")
    with pytest.raises(ValueError, match="padding mode"):
        ours.ConvTranspose2d(6, 8, 3, padding_mode="circular")


def test_old_state_without_padding_mode():
    _, mine, input = layer_pair(CASES[0])
    state = mine.__getstate__()
    for late in ("padding_mode", "_reversed_padding_repeated_twice"):
        state.pop(late)
    old = ours.Conv2d.__new__(ours.Conv2d)
    old.__setstate__(state)
    assert_same(old(input), mine(input))


def test_indices_feed_unpooling():
    theirs, mine, input = layer_pair(("MaxPool2d", (2,), {"return_indices": True}, IMAGE))
    unpool = torch.nn.MaxUnpool2d(2)
    assert_same(unpool(*mine(input), output_size=input.shape), unpool(*theirs(input), output_size=input.shape))

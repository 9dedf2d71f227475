"""freeze() runs linear layers as 1x1 convolutions, and views of what it computed cost nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from test_freeze import integers, needs_extension, steps
from torch import Tensor, nn

import spatialconv
from spatialconv.nn import freeze
from spatialconv.nn.recording import Generic, Native, View

pytestmark = needs_extension


def exact(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """In eval mode, its parameters small integers."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = integers(*parameter.shape, generator=generator)
    return model.to(dtype).eval()


@pytest.mark.parametrize("rows", [1, 2, 7, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_rows(rows, dtype, bias):
    model = exact(nn.Sequential(nn.Linear(37, 50, bias), nn.ReLU(), nn.Linear(50, 3, bias)), dtype)
    input = integers(rows, 37, generator=torch.Generator().manual_seed(rows)).sign().to(dtype)
    # In 16 bits the first layer's sums are exact, the second's are rounded once.
    hidden = model[0](input).relu()
    expected = copy.deepcopy(model[2]).double()(hidden.double()).to(dtype)
    frozen = freeze(model)
    for _ in range(3):
        assert torch.equal(frozen(input), expected)
    assert sum(type(step) is Native for step in steps(frozen)) == 2


@torch.no_grad()
def test_edits_of_a_linear_layer_are_noticed():
    model = exact(nn.Sequential(nn.Linear(40, 30)), torch.float32)
    frozen, input = freeze(model), torch.ones(2, 40)
    before = frozen(input)
    frozen.model[0].weight.mul_(2)
    assert torch.equal(frozen(input), frozen.model(input)) and not torch.equal(frozen(input), before)
    frozen.model[0].bias = nn.Parameter(torch.zeros(30))
    assert torch.equal(frozen(input), frozen.model(input))
    frozen.model[0].weight.data = torch.ones(30, 40)
    assert torch.equal(frozen(input), torch.full((2, 30), 40.0))


@torch.no_grad()
def test_weights_that_lie_otherwise_are_noticed():
    layer = exact(nn.Linear(24, 24, bias=False), torch.float32)
    frozen, input = freeze(nn.Sequential(layer).eval()), torch.arange(24.0)[None]
    frozen(input)
    frozen.model[0].weight.data = frozen.model[0].weight.data.t()
    assert torch.equal(frozen(input), input @ layer.weight)


class Doubled(Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        plain = [arg.as_subclass(Tensor) * 2 if isinstance(arg, Doubled) else arg for arg in args]
        return function(*plain, **(kwargs or {}))


@torch.no_grad()
def test_layers_that_are_not_what_they_seem():
    """A forward of the instance, weights that are buffers, weights that do something of their own."""
    input = torch.ones(2, 20)
    patched = exact(nn.Sequential(nn.Linear(20, 8)), torch.float32)
    expected = patched(input) + 1
    plain_forward = patched[0].forward
    patched[0].forward = lambda input: plain_forward(input) + 1
    frozen = freeze(patched)
    assert all(torch.equal(frozen(input), expected) for _ in range(3))

    buffered = exact(nn.Sequential(nn.Linear(20, 8)), torch.float32)
    weight = buffered[0].weight.data
    del buffered[0].weight
    buffered[0].register_buffer("weight", weight)
    frozen = freeze(buffered)
    frozen(input)
    frozen.model[0].weight.neg_()
    assert torch.equal(frozen(input), nn.functional.linear(input, -weight, buffered[0].bias))

    special = exact(nn.Sequential(nn.Linear(20, 8)), torch.float32)
    del special[0].weight
    special[0].weight = weight.as_subclass(Doubled)
    frozen = freeze(special)
    for _ in range(3):
        assert torch.equal(frozen(input), nn.functional.linear(input, 2 * weight, special[0].bias))


@torch.no_grad()
@pytest.mark.parametrize("request_of", ["extension:winograd", "extension:depthwise", "numba", "reference"])
def test_a_backend_asked_for_leaves_linear_layers_to_torch(request_of):
    model = exact(nn.Sequential(nn.Flatten(), nn.Linear(20, 8)), torch.float32)
    frozen, input = freeze(model), torch.ones(2, 5, 2, 2)
    with spatialconv.use_backend(request_of):
        for _ in range(2):
            assert torch.equal(frozen(input), model(input))
    assert not any(type(step) is Native for step in steps(frozen))


@torch.no_grad()
def test_what_stays_torchs():
    """Inputs of other forms than dense rows, layers with hooks, and every layer where a backend is named."""
    model = exact(nn.Sequential(nn.Linear(20, 8)), torch.float32)
    for input in (torch.ones(20), torch.ones(2, 3, 20), torch.ones(20, 4).t(), torch.ones(0, 20)):
        frozen = freeze(model)
        for _ in range(2):
            assert torch.equal(frozen(input), model(input))
        assert not any(type(step) is Native for step in steps(frozen))
    frozen = freeze(model, "reference")
    assert torch.equal(frozen(torch.ones(4, 20)), model(torch.ones(4, 20)))
    assert [type(step) for step in steps(frozen)] == [Generic]
    model[0].register_forward_hook(lambda *_: None)
    frozen = freeze(model)
    assert torch.equal(frozen(torch.ones(4, 20)), model(torch.ones(4, 20)))
    assert [type(step) for step in steps(frozen)] == [Generic]


class Reshaped(nn.Module):
    def __init__(self, word: str) -> None:
        super().__init__()
        self.word, self.conv, self.linear = word, nn.Conv2d(3, 6, 3), nn.Linear(6 * 3 * 2, 5)

    def forward(self, input: Tensor) -> Tensor:
        output = self.conv(input)
        if self.word == "flatten":
            rows = output.flatten(1)
        elif self.word == "torch.flatten":
            rows = torch.flatten(output, 1)
        elif self.word == "view":
            rows = output.view(output.shape[0], -1)
        elif self.word == "reshape":
            rows = output.reshape(-1, 36)
        else:
            rows = output.view(-1, 36).add_(1)
        return self.linear(rows)


@pytest.mark.parametrize("word", ["flatten", "torch.flatten", "view", "reshape", "edited"])
@torch.no_grad()
def test_reshaped(word):
    """In nchw a reshaping is a view, in channels_last a copy or an error: the values are the model's in both."""
    model = exact(Reshaped(word), torch.float32)
    frozen = freeze(model)
    for seed in range(3):
        input = integers(2, 3, 5, 4, generator=torch.Generator().manual_seed(seed)).float()
        assert torch.equal(frozen(input), model(input))
    assert sum(type(step) is Native for step in steps(frozen)) == 2
    pixels = input.contiguous(memory_format=torch.channels_last)
    single = pixels[:, :, :3, :3].contiguous(memory_format=torch.channels_last)
    head = freeze(nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(6, 2)).eval())
    head(single)
    assert [type(step) for step in steps(head)] == [Native, View, Native]


@torch.no_grad()
@pytest.mark.parametrize(
    "behind",
    [
        lambda hidden, number: hidden.view(torch.int32),
        lambda hidden, number: torch.flatten(input=hidden, start_dim=1),
        lambda hidden, number: hidden.reshape(number.item(), -1),
        lambda hidden, number: hidden.view(hidden.shape[0], -1),
        lambda hidden, number: hidden.view(2, -1).add_(1),
    ],
    ids=["dtype", "keyword", "computed size", "size", "edited"],
)
def test_reshapings_of_other_kinds(behind):
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 6, 1)

        def forward(self, input: Tensor, number: Tensor) -> Tensor:
            return behind(self.conv(input), number) * 1

    model = exact(Model(), torch.float32)
    frozen = freeze(model)
    for last in (False, True):
        for number in (2, 2, 4, 2):
            input = integers(2, 4, 1, 1, generator=torch.Generator().manual_seed(number)).float()
            input = input.contiguous(memory_format=torch.channels_last) if last else input
            assert torch.equal(frozen(input, torch.tensor(number)), model(input, torch.tensor(number)))

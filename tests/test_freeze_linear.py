"""freeze() runs linear layers as 1x1 convolutions, and views of what it computed cost nothing."""

from __future__ import annotations

import pytest
import torch
from test_freeze import integers, needs_extension, steps
from torch import Tensor, nn

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
    # Of 16-bit results the first layer's are exact, the second's are rounded once.
    expected = model[2].double()(model[0](input).relu().double()).to(dtype)
    model[2].to(dtype)
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
    found = steps(frozen)
    assert (sum(type(step) is Native for step in found), sum(type(step) is View for step in found)) in ((2, 1), (2, 0))

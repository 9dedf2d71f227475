"""Whole models, converted: as near to float64 as with torch's layers, outputs and every gradient, also compiled.

Activations are smooth: where a rectifier sits at zero one rounding turns a gradient on or off, in torch as here.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from spatialconv.nn import conversion_report, convert, freeze, prepack


def conv_norm(channels: int, outputs: int, size: int, **options) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, outputs, size, bias=False, **options), nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        middle = outputs // 2
        self.body = nn.Sequential(
            conv_norm(channels, middle, 1), nn.SiLU(),
            conv_norm(middle, middle, 3, stride=stride, padding=1), nn.SiLU(),
            conv_norm(middle, outputs, 1),
        )  # fmt: skip
        self.shortcut = conv_norm(channels, outputs, 1, stride=stride)

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.silu(self.body(input) + self.shortcut(input))


def resnet() -> nn.Module:
    return nn.Sequential(
        conv_norm(3, 8, 7, stride=2, padding=3), nn.SiLU(), nn.MaxPool2d(3, 2, 1),
        Residual(8, 16, 1), Residual(16, 32, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


class InvertedResidual(nn.Module):
    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        wide = 3 * channels
        self.expand = nn.Sequential(conv_norm(channels, wide, 1), nn.SiLU())
        self.depthwise = nn.Sequential(conv_norm(wide, wide, size, padding=size // 2, groups=wide), nn.SiLU())
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, 4, 1), nn.SiLU(), nn.Conv2d(4, wide, 1), nn.Sigmoid()
        )
        self.project = conv_norm(wide, channels, 1)

    def forward(self, input: Tensor) -> Tensor:
        wide = self.depthwise(self.expand(input))
        return input + self.project(wide * self.squeeze(wide))


def mobilenet() -> nn.Module:
    return nn.Sequential(
        conv_norm(3, 8, 3, stride=2, padding=1), nn.SiLU(), InvertedResidual(8, 3), nn.AvgPool2d(2, ceil_mode=True),
        InvertedResidual(8, 5), nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


class ConvNextBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))

    def forward(self, input: Tensor) -> Tensor:
        return input + self.mlp(self.norm(self.depthwise(input).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 4, stride=4), ConvNextBlock(12), nn.Conv2d(12, 24, 2, stride=2), ConvNextBlock(24),
        nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(96, 10),
    )  # fmt: skip


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding="same", padding_mode="reflect"), nn.SiLU())
        self.bottom = nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(8, 16, 3, padding=2, dilation=2, padding_mode="circular"), nn.SiLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.SiLU(), nn.ConvTranspose2d(16, 8, 2, stride=2),
        )  # fmt: skip
        self.up = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.SiLU(), nn.ConvTranspose2d(8, 3, 3, 2, 1, 1))

    def forward(self, input: Tensor) -> Tensor:
        fine = self.down(input)
        return self.up(torch.cat([fine, self.bottom(fine)], 1))


MODELS = {"resnet": resnet, "mobilenet": mobilenet, "convnext": convnext, "unet": UNet}
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def build(name: str, training: bool) -> tuple[nn.Module, Tensor]:
    """A model in float64 with statistics that are not those of a new one, and an input."""
    torch.manual_seed(0)
    model = MODELS[name]().double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
    return model.train(training), torch.randn(2, 3, 26, 22, dtype=torch.float64)


def results(
    model: nn.Module, input: Tensor, dtype: torch.dtype, layout: str, compiled: bool = False
) -> dict[str, Tensor]:
    """The output, the gradient of the input and of every parameter, and the statistics, in float64."""
    model = copy.deepcopy(model).to(dtype=dtype, memory_format=LAYOUTS[layout])
    run = model
    if compiled:
        torch._dynamo.reset()
        run = torch.compile(model, fullgraph=True, backend="aot_eager")
    input = input.to(dtype=dtype, memory_format=LAYOUTS[layout], copy=True).requires_grad_()
    output = run(input)
    grad_output = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    output.backward(grad_output.to(dtype))
    found = {"output": output, "input": input.grad}
    found |= {name: parameter.grad for name, parameter in model.named_parameters()}
    found |= {name: value for name, value in model.named_buffers() if value.is_floating_point()}
    return {name: value.detach().double() for name, value in found.items()}


def errors(got: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    assert got.keys() == exact.keys()
    return {name: float((got[name] - exact[name]).norm() / exact[name].norm()) for name in exact}


def assert_as_exact_as_torch(plain, converted, input: Tensor, exact, layouts=tuple(LAYOUTS), **options) -> None:
    theirs = [errors(results(plain, input, torch.float32, layout), exact) for layout in LAYOUTS]
    allowed = {name: 3 * max(entry[name] for entry in theirs) for name in exact}
    # torch may have a tensor of few elements almost exactly right, by luck: then its usual error counts.
    least = sorted(allowed.values())[len(allowed) // 2]
    for layout in layouts:
        for name, error in errors(results(converted, input, torch.float32, layout, **options), exact).items():
            assert error <= max(allowed[name], least), (layout, name, error, allowed[name])


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", MODELS)
def test_converted_model(name, training):
    plain, input = build(name, training)
    assert not conversion_report(plain).left
    converted = convert(copy.deepcopy(plain))
    exact = results(plain, input, torch.float64, "nchw")
    for layout in LAYOUTS:
        found = errors(results(converted, input, torch.float64, layout), exact)
        assert max(found.values()) <= 1e-9, max(found.items(), key=lambda item: item[1])
    assert_as_exact_as_torch(plain, converted, input, exact)


@pytest.mark.parametrize(
    "name", ["resnet", "unet", *(pytest.param(name, marks=pytest.mark.full) for name in ("mobilenet", "convnext"))]
)
def test_compiled_model(name):
    plain, input = build(name, training=True)
    converted = convert(copy.deepcopy(plain))
    exact = results(plain, input, torch.float64, "nchw")
    found = errors(results(converted, input, torch.float64, "nchw", compiled=True), exact)
    assert max(found.values()) <= 1e-9, max(found.items(), key=lambda item: item[1])
    assert_as_exact_as_torch(plain, converted, input, exact, layouts=("nhwc",), compiled=True)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_prepacked_model(name):
    plain, input = build(name, training=False)
    model = convert(plain.float())
    input = input.float()
    expected = model(input)
    prepack(model)
    for _ in range(2):
        assert torch.equal(model(input), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_frozen_model(name, layout):
    plain, input = build(name, training=False)
    exact = plain(input)
    error = (plain.float()(input.float()) - exact).norm()
    frozen = freeze(plain.to(memory_format=LAYOUTS[layout]))
    input = input.float().contiguous(memory_format=LAYOUTS[layout])
    for _ in range(3):
        assert (frozen(input) - exact).norm() <= 4 * error


def test_training_follows_torch():
    plain, input = build("mobilenet", training=True)
    converted = convert(copy.deepcopy(plain))
    losses = []
    for model in (plain, converted):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(4):
            optimizer.zero_grad()
            loss = model(input).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    torch.testing.assert_close(losses[4:], losses[:4], rtol=1e-9, atol=0)
    assert losses[3] < losses[0]

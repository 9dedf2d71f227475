"""convert(fuse=True): the same output from fewer modules, and nothing folded that is not proven to be foldable."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import spatialconv.nn as ours
from spatialconv.nn import conversion_report, convert
from spatialconv.nn.dataflow import Dataflow


def with_statistics(model: nn.Module, seed: int = 0) -> nn.Module:
    """In float64 and eval mode, every batch norm with numbers of its own."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                if tensor is not None:
                    tensor.data.normal_(generator=generator)
            if module.running_var is not None:
                module.running_var.uniform_(0.5, 2, generator=generator)
    return model.double().eval()


def image(channels: int = 3, size: int = 16) -> torch.Tensor:
    return torch.randn(2, channels, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def convolution(ic: int, oc: int, kernel: int, activation: type[nn.Module] | None, **options) -> nn.Sequential:
    layers = [nn.Conv2d(ic, oc, kernel, padding=kernel // 2, bias=False, **options), nn.BatchNorm2d(oc)]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class Bottleneck(nn.Module):
    """ResNet's, with an activation of its own behind every convolution."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = convolution(channels, width, 1, nn.ReLU)
        self.conv2, self.bn2, self.relu2 = convolution(width, width, 3, nn.ReLU, stride=stride)
        self.conv3, self.bn3 = convolution(width, 4 * width, 1, None)
        self.downsample = convolution(channels, 4 * width, 1, None, stride=stride)
        self.relu3 = nn.ReLU(inplace=True)

    def forward(self, input):
        output = self.relu1(self.bn1(self.conv1(input)))
        output = self.relu2(self.bn2(self.conv2(output)))
        output = self.bn3(self.conv3(output))
        output += self.downsample(input)
        return self.relu3(output)


class Inverted(nn.Module):
    """MobileNetV2's block."""

    def __init__(self, channels: int, wide: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(channels, wide, 1, activation),
            convolution(wide, wide, 3, activation, groups=wide),
            convolution(wide, channels, 1, None),
        )

    def forward(self, input):
        return input + self.body(input)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.act, self.up = nn.Conv2d(channels, 4, 1), nn.SiLU(), nn.Conv2d(4, channels, 1)

    def forward(self, input):
        return input * self.up(self.act(self.down(input.mean((2, 3), keepdim=True)))).sigmoid()


class MBConv(nn.Module):
    """EfficientNet's block."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.expand = convolution(channels, wide, 1, nn.SiLU)
        self.depthwise = convolution(wide, wide, 5, nn.SiLU, groups=wide)
        self.squeeze = SqueezeExcite(wide)
        self.project = convolution(wide, channels, 1, None)

    def forward(self, input):
        return input + self.project(self.squeeze(self.depthwise(self.expand(input))))


class ConvNeXtBlock(nn.Module):
    """Its activation stands behind a linear layer, its norm is none of a batch: nothing can be folded."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm, self.wide = nn.LayerNorm(channels), nn.Linear(channels, 4 * channels)
        self.act, self.narrow = nn.GELU(), nn.Linear(4 * channels, channels)

    def forward(self, input):
        output = self.norm(self.depthwise(input).permute(0, 2, 3, 1))
        return input + self.narrow(self.act(self.wide(output))).permute(0, 3, 1, 2)


MODELS = {
    "resnet": (lambda: nn.Sequential(convolution(3, 8, 7, nn.ReLU), nn.MaxPool2d(2), Bottleneck(8, 4, 2)), 5, 3),
    "mobilenet": (lambda: nn.Sequential(convolution(3, 8, 3, nn.ReLU6), Inverted(8, 16, nn.ReLU6)), 4, 3),
    "mobilenet3": (lambda: nn.Sequential(convolution(3, 8, 3, nn.Hardswish), Inverted(8, 16, nn.Hardswish)), 4, 3),
    "efficientnet": (lambda: nn.Sequential(convolution(3, 8, 3, nn.SiLU), MBConv(8, 16)), 4, 4),
    "convnext": (lambda: nn.Sequential(nn.Conv2d(3, 8, 4, 4), ConvNeXtBlock(8)), 0, 0),
    "gelu": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Identity(), nn.GELU(), nn.Conv2d(8, 4, 1)), 0, 1),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 6, 3, 2, groups=3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1)), 1, 0
    ),
    "plain norm": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU()), 1, 1),
    "padded": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4), nn.ReLU()), 1, 1
    ),
}  # fmt: skip


def folded(model: nn.Module) -> tuple[int, int]:
    """How many batch norms and activations a report says were folded."""
    names = [name for row in conversion_report(model, fuse=True).rows for name in row.fused]
    norms = sum(name.startswith("BatchNorm2d") for name in names)
    return norms, len(names) - norms


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("name", MODELS)
def test_the_output_is_the_same(name, layout):
    make, norms, activations = MODELS[name]
    model = with_statistics(make()).to(memory_format=layout)
    input = image().contiguous(memory_format=layout)
    before = copy.deepcopy(model)
    expected = before(input)
    assert folded(model) == (norms, activations)
    assert convert(model, fuse=True) is model
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == 0
    torch.testing.assert_close(model(input), expected, rtol=1e-12, atol=1e-12)
    ours.prepack(model)
    with torch.inference_mode():
        for _ in range(2):
            torch.testing.assert_close(model(input), expected, rtol=1e-12, atol=1e-12)
    # What is left still learns as the unfused model's layers do.
    loss, same = (net(input).square().sum() for net in (model, before))
    loss.backward(), same.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_compiled_and_again(name):
    torch._dynamo.reset()
    model = with_statistics(MODELS[name][0]())
    expected = model(image())
    convert(convert(model, fuse=True), fuse=True)
    assert folded(model) == (0, 0)
    with torch.no_grad():
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(image()), expected, rtol=1e-12, atol=1e-12)


class Uses(nn.Module):
    """A convolution, a norm and an activation, in a forward that the test gives."""

    def __init__(self, run, conv=None, norm=None, act=None) -> None:
        super().__init__()
        self.conv = conv or nn.Conv2d(3, 3, 3, padding=1)
        self.norm, self.act = norm or nn.BatchNorm2d(3), act or nn.ReLU()
        self.run = run

    def forward(self, input):
        return self.run(self, input)


def straight(model, input):
    return model.act(model.norm(model.conv(input)))


def hooked(model: Uses) -> Uses:
    model.norm.register_forward_hook(lambda *_: None)
    return model


def hooked_activation(model: Uses) -> Uses:
    model.act.register_forward_pre_hook(lambda *_: None)
    return model


def tied(model: Uses) -> Uses:
    model.other = nn.Conv2d(3, 3, 3)
    model.other.weight = model.conv.weight
    return model


def twice(model: Uses) -> Uses:
    model.again = model.norm
    return model


def training(model: Uses) -> Uses:
    model.norm.train()
    return model


def branching(model, input):
    return straight(model, input) if input.sum() > 0 else input


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, input, mask=None):
        output = self.conv(input)
        return self.norm(output) if mask is None else self.norm(output) * output


# What is built, what the report says, and how many norms and activations are folded all the same.
REFUSED = {
    "output used twice": (lambda: Uses(lambda m, x: (y := m.conv(x)) + m.act(m.norm(y))), "is used 2 times", (0, 0)),
    "norm used twice": (lambda: Uses(lambda m, x: (y := m.norm(m.conv(x))) + m.act(y)), "", (1, 0)),
    "layer called twice": (lambda: Uses(lambda m, x: m.norm(m.conv(m.conv(x)))), "several places", (0, 0)),
    "norm called twice": (lambda: Uses(lambda m, x: m.norm(m.norm(m.conv(x)))), "norm is used in several", (0, 0)),
    "activation called twice": (lambda: Uses(lambda m, x: m.act(straight(m, x) + x)), "act is used in several", (1, 0)),
    "norm registered twice": (lambda: twice(Uses(straight)), "BatchNorm2d norm is used in several", (0, 0)),
    "weight read elsewhere": (lambda: Uses(lambda m, x: straight(m, x) * m.conv.weight.sum()), "shares a", (0, 0)),
    "weight shared": (lambda: tied(Uses(straight)), "Conv2d conv shares a parameter", (0, 0)),
    "hooks on the norm": (lambda: hooked(Uses(straight)), "BatchNorm2d norm has hooks", (0, 0)),
    "hooks on the activation": (lambda: hooked_activation(Uses(straight)), "ReLU act has hooks", (1, 0)),
    "parametrized": (
        lambda: Uses(straight, conv=parametrizations.weight_norm(nn.Conv2d(3, 3, 1))), "is parametrized", (0, 0)
    ),
    "no statistics": (
        lambda: Uses(straight, norm=nn.BatchNorm2d(3, track_running_stats=False)), "running statistics", (0, 0)
    ),
    "tanh": (lambda: Uses(straight, act=nn.GELU("tanh")), "approximate='tanh'", (1, 0)),
    "transposed": (lambda: Uses(straight, conv=nn.ConvTranspose2d(3, 3, 1)), "no activation=", (1, 0)),
    "an activation before": (
        lambda: Uses(straight, conv=ours.Conv2d(3, 3, 1, activation="relu")), "an activation already, relu", (0, 0)
    ),
    "a branch on values": (lambda: Uses(branching), "the model cannot be executed symbolically", (0, 0)),
    "an optional argument": (Optional, "the model cannot be executed symbolically: its forward has an opt", (0, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_proven_is_left(name):
    make, reason, counts = REFUSED[name]
    model = with_statistics(make())
    expected = model(image())
    seen = []
    assert folded(model) == counts
    convert(model, fuse=True, report=seen.append)
    reasons = [row.unfused for row in seen[0].rows]
    assert any(reason in found for found in reasons) if reason else not any(reasons)
    assert reason in str(seen[0])
    torch.testing.assert_close(model(image()), expected, rtol=1e-12, atol=1e-12)


def test_training_mode_folds_nothing():
    for model in (with_statistics(Uses(straight)).train(), training(with_statistics(Uses(straight)))):
        (row,) = conversion_report(model, fuse=True).rows
        assert row.swapped and not row.fused and "in training mode: call model.eval() first" in row.unfused
        state = {key: value.clone() for key, value in model.state_dict().items()}
        convert(model, fuse=True)
        assert type(model.norm) is nn.BatchNorm2d and list(state) == list(model.state_dict())


def test_parts_of_what_cannot_be_executed():
    """Blocks inside a model with a branch on values are folded, and so is a Sequential with such a part, by its order."""
    opaque = Uses(branching)
    model = with_statistics(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), opaque, nn.Conv2d(3, 3, 1), nn.ReLU()))
    outer = with_statistics(Uses(branching, conv=nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())))
    for net, counts in ((model, (1, 1)), (outer, (1, 1))):
        expected = net(image())
        assert folded(net) == counts
        convert(net, fuse=True)
        torch.testing.assert_close(net(image()), expected, rtol=1e-12, atol=1e-12)


def test_looking_changes_nothing():
    """A forward that writes to its module leaves no trace, whether it can be executed symbolically or not."""

    def counting(model, input):
        model.calls, model.last = model.calls + 1, input
        model.norm.running_var = model.norm.running_var * 1
        return straight(model, input)

    for run in (counting, lambda model, input: counting(model, input) if input.sum() > 0 else input):
        model = Uses(run)
        model.calls, model.last = 0, None
        before = {name: dict(vars(module)) for name, module in model.named_modules()}
        buffers = {name: id(buffer) for name, buffer in model.named_buffers()}
        Dataflow(model)
        assert {name: dict(vars(module)) for name, module in model.named_modules()} == before
        assert {name: id(buffer) for name, buffer in model.named_buffers()} == buffers


def test_wrong_arguments_and_reports_change_nothing():
    model = with_statistics(MODELS["resnet"][0]())
    classes = [type(module) for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="inverse"):
        convert(model, inverse=True, fuse=True)
    with pytest.raises(ValueError, match="extension"):
        convert(model, "no such backend", fuse=True)
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        convert([model], fuse=True)
    conversion_report(model, fuse=True)
    assert [type(module) for module in model.modules()] == classes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_rounded_once_and_frozen_stays_frozen():
    """In float32 the weight is the float64 one rounded, and requires_grad is the layer's."""
    model = with_statistics(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
    single = copy.deepcopy(model).float()
    single.requires_grad_(False)
    model = copy.deepcopy(single).double()
    convert(model, fuse=True), convert(single, fuse=True)
    assert torch.equal(single[0].weight, model[0].weight.float())
    assert torch.equal(single[0].bias, model[0].bias.float())
    assert not any(parameter.requires_grad for parameter in single.parameters())
    assert type(single[1]) is nn.Identity and not single[1].training


def test_the_report_names_what_was_folded():
    model = with_statistics(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1)))
    report = conversion_report(model, fuse=True)
    assert report.rows[0].fused == ("BatchNorm2d 1", "ReLU 2") and report.rows[1].fused == ()
    assert "0  Conv2d  swapped, with BatchNorm2d 1 and ReLU 2" in str(report)
    assert "fused" not in str(conversion_report(model))

"""ResNet-50 and MobileNetV2 in plain ``torch.nn``, with seeded random weights: what ``models.py`` measures."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def block(ic: int, oc: int, kernel: int, activation: type[nn.Module] | None, stride: int = 1, groups: int = 1):
    """Convolution, batch norm and, where one is given, activation."""
    convolution = nn.Conv2d(ic, oc, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(oc), *([activation()] if activation else []))


class Residual(nn.Module):
    """The sum of two branches, then an activation where one is given."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.activation = body, shortcut, activation

    def forward(self, input: Tensor) -> Tensor:
        return self.activation(self.body(input) + self.shortcut(input))


def bottleneck(channels: int, width: int, stride: int) -> Residual:
    body = nn.Sequential(
        block(channels, width, 1, nn.ReLU), block(width, width, 3, nn.ReLU, stride), block(width, 4 * width, 1, None)
    )
    same = stride == 1 and channels == 4 * width
    return Residual(body, nn.Identity() if same else block(channels, 4 * width, 1, None, stride), nn.ReLU())


def resnet50() -> nn.Sequential:
    """He et al., "Deep Residual Learning for Image Recognition", 2016, with the stride on the 3x3 convolution."""
    layers: list[nn.Module] = [block(3, 64, 7, nn.ReLU, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(depth):
            layers.append(bottleneck(channels, width, stride if index == 0 else 1))
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


def inverted(ic: int, oc: int, stride: int, expansion: int) -> nn.Module:
    wide = ic * expansion
    first = [block(ic, wide, 1, nn.ReLU6)] if expansion > 1 else []
    body = nn.Sequential(*first, block(wide, wide, 3, nn.ReLU6, stride, wide), block(wide, oc, 1, None))
    return Residual(body, nn.Identity(), nn.Identity()) if stride == 1 and ic == oc else body


def mobilenetv2() -> nn.Sequential:
    """Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, table 2."""
    layers: list[nn.Module] = [block(3, 32, 3, nn.ReLU6, 2)]
    channels = 32
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, width, depth, stride in table:
        for index in range(depth):
            layers.append(inverted(channels, width, stride if index == 0 else 1, expansion))
            channels = width
    layers.append(block(channels, 1280, 1, nn.ReLU6))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000))


NETWORKS = {"resnet50": resnet50, "mobilenetv2": mobilenetv2}


def make(name: str, size: int = 224, seed: int = 0) -> nn.Module:
    """The network in eval mode; its batch norms hold the statistics of one batch, so values keep their size."""
    torch.manual_seed(seed)
    model = NETWORKS[name]()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        norm.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(2, 3, size, size))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()

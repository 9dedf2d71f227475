"""The networks of the lesson, of the library's own layers."""

from __future__ import annotations

from torch.nn import Flatten, Linear, Module, ReLU, Sequential

from ...nn import AdaptiveMaxPool2d, Conv2d
from .digits import CLASSES


def mlp(pixels: int, hidden: int = 64) -> Sequential:
    """Every pixel meets every hidden unit."""
    return Sequential(Flatten(), Linear(pixels, hidden), ReLU(), Linear(hidden, CLASSES))


def conv_flatten(side: int) -> Sequential:
    """One layer of filters, then a weight for each of its outputs: what is often shown as the right way."""
    return Sequential(Conv2d(1, 32, 3), ReLU(), Flatten(), Linear(32 * (side - 2) ** 2, CLASSES))


def conv_global(
    widths: tuple[int, ...] = (12, 24, 24),
    padding_mode: str = "circular",
    classes: int = CLASSES,
    after_first: Module | None = None,
) -> Sequential:
    """Layers of 3x3 filters, then the strongest response of each wherever it is. ``after_first`` stands behind the
    first layer: a pooling."""
    layers: list[Module] = []
    channels = 1
    for width in widths:
        layers += [Conv2d(channels, width, 3, padding=1, padding_mode=padding_mode), ReLU()]
        if after_first is not None and channels == 1:
            layers.append(after_first)
        channels = width
    return Sequential(*layers, AdaptiveMaxPool2d(1), Flatten(), Linear(channels, classes))


def features(model: Sequential) -> list[Sequential]:
    """What lies before the global pooling, up to each of its ReLUs."""
    return [model[: number + 1] for number, layer in enumerate(model) if isinstance(layer, ReLU)]

"""A small trainer and what is asked of a trained network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module, Sequential


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers begin at ``seed`` within, and go on as before after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def fit(
    build: Callable[[], Sequential],
    images: Tensor,
    labels: Tensor,
    seed: int,
    epochs: int,
    rate: float = 8e-3,
    batch: int = 32,
    change: Callable[[Tensor], Tensor] | None = None,
) -> Sequential:
    """A new network that ``build`` makes, trained to tell the labels of pictures: Adam on the cross entropy, with a
    rate that rises for a fifth of the steps, lest ReLUs die at once, and then falls to zero. ``change`` is applied to
    every batch."""
    # Some experiments ask for a network where no derivatives are taken.
    with seeded(seed), torch.enable_grad():
        model = build()
        optimizer = torch.optim.Adam(model.parameters(), rate)
        steps = epochs * (-(-len(images) // batch))
        paced = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
        for _ in range(epochs):
            for chosen in torch.randperm(len(images)).split(batch):
                shown = images[chosen] if change is None else change(images[chosen])
                optimizer.zero_grad()
                F.cross_entropy(model(shown), labels[chosen]).backward()
                optimizer.step()
                paced.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: Module, images: Tensor, labels: Tensor) -> float:
    """The share of pictures whose label the network tells."""
    return (model(images).argmax(1) == labels).float().mean().item()


def parameters(model: Module) -> int:
    return sum(one.numel() for one in model.parameters())


def ridge(features: Tensor, labels: Tensor, classes: int, strength: float = 1e-2) -> Callable[[Tensor], Tensor]:
    """A linear classifier on features [n, width]: least squares towards one of ``classes`` with a penalty on weights,
    solved, not trained. The result maps features to labels."""
    middle, spread = features.mean(0), features.std(0) + 1e-6

    def prepared(values: Tensor) -> Tensor:
        scaled = ((values - middle) / spread).double()
        return torch.cat((scaled, scaled.new_ones(len(scaled), 1)), 1)

    known = prepared(features)
    penalty = strength * len(known) * torch.eye(known.shape[1], dtype=known.dtype)
    weights = torch.linalg.solve(known.T @ known + penalty, known.T @ F.one_hot(labels, classes).double())
    return lambda values: (prepared(values) @ weights).argmax(1)

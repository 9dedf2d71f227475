"""Layers learned on five digits, read by someone who has seen a few examples of the other five."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Sequential

from . import drawing
from .experiment import Experiment, Measurement, above
from .lab import Lab
from .networks import conv_global, features
from .training import fit, ridge, seeded

_BUDGETS = (2, 5, 10, 20)
_FEW = 5
_TRIES = 5
_RANDOM_NETWORKS = 3
_DEEP = f"accuracy from {_FEW} examples each, third layer: learned on other digits less random"
_MORE = "what that exceeds the same gain of the first layer by"
_CHANCE = "accuracy from the learned third layer"


def _of(images: Tensor, labels: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Five digits from ``first`` on, their labels counted from 0."""
    chosen = (labels >= first) & (labels < first + 5)
    return images[chosen], labels[chosen] - first


def _accuracy(known: Tensor, labels: Tensor, asked: Tensor, answers: Tensor, budget: int, seed: int) -> float:
    """Of a linear reader that has seen ``budget`` examples of each class, mean over several choices of examples."""
    random = torch.Generator().manual_seed(seed)
    told = []
    for _ in range(_TRIES):
        order = torch.randperm(len(known), generator=random)
        chosen = torch.cat([order[labels[order] == label][:budget] for label in range(5)])
        read = ridge(known[chosen], labels[chosen], 5, strength=0.1)
        told.append((read(asked) == answers).float().mean().item())
    return sum(told) / _TRIES


@torch.no_grad()
def _read(model: Sequential, layer: int, images: Tensor) -> Tensor:
    return features(model)[layer](images).amax((2, 3))


def _run(lab: Lab) -> Measurement:
    split = lab.pictures
    images, labels = _of(split.train, split.train_labels, 0)
    learned = fit(lambda: conv_global(classes=5), images, labels, lab.seed, epochs=6)
    with seeded(lab.seed + 1):
        # One random network is much like another, but no more than that: a mean of several.
        unlearned = [conv_global(classes=5) for _ in range(_RANDOM_NETWORKS)]
    known, known_labels = _of(split.train, split.train_labels, 5)
    asked, answers = _of(split.test, split.test_labels, 5)
    told = {}
    for label, models in (("learned on digits 0 to 4", [learned]), ("random", unlearned)):
        for layer in (0, 2):
            rows = []
            for model in models:
                seen, tested = _read(model, layer, known), _read(model, layer, asked)
                rows.append([_accuracy(seen, known_labels, tested, answers, budget, lab.seed) for budget in _BUDGETS])
            told[f"layer {layer + 1}, {label}"] = [sum(column) / len(column) for column in zip(*rows, strict=True)]
    few = {label: row[_BUDGETS.index(_FEW)] for label, row in told.items()}
    gains = [few[f"layer {layer}, learned on digits 0 to 4"] - few[f"layer {layer}, random"] for layer in (1, 3)]
    return Measurement(
        {
            _DEEP: gains[1],
            _MORE: gains[1] - gains[0],
            _CHANCE: few["layer 3, learned on digits 0 to 4"],
        },
        {"accuracy": told},
    )


def _draw(measured: Sequence[Measurement]):
    figure = drawing.figure("Digits 5 to 9 told from a few examples, by layers that were not trained on them")
    axes = figure.subplots()
    drawing.curves(axes, _BUDGETS, drawing.collect(measured, "accuracy"))
    drawing.chance(axes, 0.2)
    axes.set_xscale("log")
    axes.set_xticks(_BUDGETS, [str(budget) for budget in _BUDGETS])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("examples of each digit")
    axes.set_ylabel("accuracy of a linear reader")
    return figure


EXPERIMENT = Experiment(
    name="transfer",
    claim="The first layers learn general edges, and that is what transfers to another task.",
    done="A network learns the digits 0 to 4; its first and its third layer, and those of a random network, are read "
    f"linearly after {_FEW} examples of each of the digits 5 to 9.",
    expectations=(above(_DEEP, 0.0), above(_MORE, 0.0), above(_CHANCE, 0.2)),
    verdict="holds only for the deeper layer",
    telling="What is learned on five digits does help with the other five, but it is the third layer that carries the "
    "gain; the first is no better than random filters of its size, which are edge filters of a kind too. On larger "
    "pictures and filters the first layer may have more to learn.",
    run=_run,
    draw=_draw,
    reading="The distance between a learned layer and the random one of the same depth is what was transferred.",
)

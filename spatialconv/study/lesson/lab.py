"""What the experiments of one seed share: its pictures, and the network that several of them question."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor
from torch.nn import Sequential

from . import digits, networks
from .training import fit

CANVAS = 16


class Lab:
    """The pictures of one seed and the networks trained on them. A network is trained once and shared by the
    experiments that run in the same lab; they read it and leave it as it is."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @cached_property
    def pictures(self) -> digits.Split:
        return digits.load(self.seed)

    @cached_property
    def canvas(self) -> digits.Split:
        """The digits in the middle of 16x16 pixels."""
        split = self.pictures
        return digits.Split(
            digits.on_canvas(split.train, CANVAS), split.train_labels,
            digits.on_canvas(split.test, CANVAS), split.test_labels,
        )  # fmt: skip

    def moved(self, right: int) -> Tensor:
        """The pictures to test with, moved to the right on the canvas."""
        return digits.on_canvas(self.pictures.test, CANVAS, right=right)

    @cached_property
    def plain(self) -> Sequential:
        """Three circular layers of filters and a global maximum, trained on digits in the middle of the canvas."""
        return fit(networks.conv_global, self.canvas.train, self.canvas.train_labels, self.seed, epochs=6)

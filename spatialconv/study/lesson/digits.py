"""The pictures: 1,797 handwritten digits of 8x8 pixels, which come with scikit-learn.

They are the test set of Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998, doi:10.24432/C50P49.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 8
CLASSES = 10
TRAINED = 1300


@dataclass(frozen=True)
class Split:
    """Pictures [n, 1, 8, 8] of values from 0 to 1 and their labels [n], to train and to test with."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def load(seed: int) -> Split:
    """1,300 pictures to train with and 497 to test with, by chance. Raises ImportError without scikit-learn."""
    images, labels = _all()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    train, test = order[:TRAINED], order[TRAINED:]
    return Split(images[train], labels[train], images[test], labels[test])


@cache
def _all() -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            f"study lesson: its pictures are scikit-learn's digits: {error}; pip install 'spatialconv[all]'"
        ) from None
    found = load_digits()
    images = torch.from_numpy(found.images).float().unsqueeze(1) / 16
    return images, torch.from_numpy(found.target).long()


def on_canvas(images: Tensor, side: int, down: int = 0, right: int = 0) -> Tensor:
    """The pictures amid black ones of ``side`` pixels, moved so far from the middle. ValueError where one would leave
    the canvas."""
    size = images.shape[-1]
    top, left = (side - size) // 2 + down, (side - size) // 2 + right
    if min(top, left) < 0 or max(top, left) + size > side:
        raise ValueError(f"study lesson: canvas: {size} pixels at row {top}, column {left} leave a side of {side}")
    canvas = images.new_zeros(len(images), images.shape[1], side, side)
    canvas[..., top : top + size, left : left + size] = images
    return canvas


def resized(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)


def shuffled(images: Tensor, seed: int) -> Tensor:
    """The same pixels in another order, which is the same in every picture."""
    order = torch.randperm(images[0, 0].numel(), generator=torch.Generator().manual_seed(seed))
    return images.flatten(2)[..., order].view_as(images)

"""The activations that a convolution can be joined with, by their words, as torch computes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

# Of a convolution's output, into new memory: what derivatives are taken of.
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu, "relu6": F.relu6, "hardswish": F.hardswish, "silu": F.silu, "gelu": F.gelu,
}  # fmt: skip
# The same in place, for a result that nobody else has seen.
IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    **{word: partial(FUNCTIONS[word], inplace=True) for word in FUNCTIONS if word != "gelu"},
    "gelu": torch.ops.aten.gelu_.default,
}
# How much an error of the argument can grow: a bound of the derivative.
SLOPE = {"relu": 1.0, "relu6": 1.0, "hardswish": 1.5, "silu": 1.1, "gelu": 1.13}

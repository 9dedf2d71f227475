"""Whether the weights of layers are still those that were transformed: asked at every call, by loops in C."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter, is_

import torch
from torch import Tensor

_edits, _kind = attrgetter("_version"), attrgetter("dtype", "shape")


def edits(tensor: Tensor) -> int:
    """How often it was edited in place; 0 where torch does not count."""
    return 0 if tensor.is_inference() else tensor._version


@dataclass(frozen=True)
class Mark:
    """A layer's weight or bias at some time, or that it had none. ``kept`` is where it lay, so that nothing new can lie
    there."""

    holder: dict[str, Tensor | None]
    name: str
    tensor: Tensor | None
    kept: Tensor | None
    edits: int | None

    @classmethod
    def of(cls, layer: torch.nn.Module, name: str) -> Mark:
        tensor = layer._parameters.get(name)
        if tensor is None:
            return cls(layer._parameters, name, None, None, None)
        counted = None if tensor.is_inference() else tensor._version
        return cls(layer._parameters, name, tensor, tensor.detach(), counted)


def marks(layer: torch.nn.Module) -> tuple[Mark, ...]:
    return Mark.of(layer, "weight"), Mark.of(layer, "bias")


class Watch:
    """Some marks, to be compared with what is now."""

    def __init__(self, marks: Iterable[Mark]) -> None:
        self.marks = tuple(marks)
        lying = [mark for mark in self.marks if mark.tensor is not None]
        counted = [mark for mark in lying if mark.edits is not None]
        self._holders = [mark.holder for mark in self.marks]
        self._names = [mark.name for mark in self.marks]
        self._values = [mark.tensor for mark in self.marks]
        self._lying, kept = [mark.tensor for mark in lying], [mark.kept for mark in lying]
        self._addresses, self._strides = list(map(Tensor.data_ptr, kept)), list(map(Tensor.stride, kept))
        self._kinds = list(map(_kind, kept))
        self._counted, self._edits = [mark.tensor for mark in counted], [mark.edits for mark in counted]

    def unchanged(self) -> bool:
        """Whether every layer has the same tensors, lying as they did and not edited in place."""
        try:
            return (
                all(map(is_, map(dict.get, self._holders, self._names), self._values))
                and list(map(Tensor.data_ptr, self._lying)) == self._addresses
                and list(map(Tensor.stride, self._lying)) == self._strides
                and list(map(_kind, self._lying)) == self._kinds
                and list(map(_edits, self._counted)) == self._edits
            )
        except RuntimeError:  # a tensor whose edits are counted no more
            return False

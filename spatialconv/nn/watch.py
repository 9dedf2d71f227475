"""Whether the weights of layers are still those that were transformed: asked at every call, by loops in C."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter, is_

import torch
from torch import Tensor

_edits = attrgetter("_version")


def edits(tensor: Tensor) -> int:
    """How often it was edited in place; 0 where torch does not count."""
    return 0 if tensor.is_inference() else tensor._version


@dataclass(frozen=True)
class Mark:
    """A layer's weight or bias at some time, or that it had none. What lies at ``address`` is kept, so that nothing new
    can lie there."""

    holder: dict[str, Tensor | None]
    name: str
    tensor: Tensor | None
    kept: Tensor | None
    address: int
    edits: int | None

    @classmethod
    def of(cls, layer: torch.nn.Module, name: str) -> Mark:
        tensor = layer._parameters.get(name)
        if tensor is None:
            return cls(layer._parameters, name, None, None, 0, None)
        counted = None if tensor.is_inference() else tensor._version
        return cls(layer._parameters, name, tensor, tensor.detach(), tensor.data_ptr(), counted)


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
        self._lying, self._addresses = [mark.tensor for mark in lying], [mark.address for mark in lying]
        self._counted, self._edits = [mark.tensor for mark in counted], [mark.edits for mark in counted]

    def unchanged(self) -> bool:
        """Whether every layer has the same tensors, where they were and not edited in place."""
        try:
            return (
                all(map(is_, map(dict.get, self._holders, self._names), self._values))
                and list(map(Tensor.data_ptr, self._lying)) == self._addresses
                and list(map(_edits, self._counted)) == self._edits
            )
        except RuntimeError:  # a tensor whose edits are counted no more
            return False

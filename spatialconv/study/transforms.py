"""What is done to a picture, and what then ought to become of a map made of it: shifts, quarter turns, mirrors.

A shift is cyclic: what leaves on one side comes in on the other. So it is a symmetry of the whole picture, circular
padding can be exact, and with any other padding the error shows where the border is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

GROUPS = ("shift", "rot90", "flip")


@dataclass(frozen=True)
class Shift:
    """Rows and columns, in pixels, that a picture is moved down and to the right."""

    rows: int
    columns: int

    def __str__(self) -> str:
        return f"shift {self.rows},{self.columns}"

    def moved(self, picture: Tensor) -> Tensor:
        return torch.roll(picture, (self.rows, self.columns), (-2, -1))


@dataclass(frozen=True)
class Symmetry:
    """Of the square: mirrored left and right first, if it is, then turned counterclockwise by quarters."""

    turns: int = 0
    mirrored: bool = False

    def __str__(self) -> str:
        words = (["mirror"] if self.mirrored else []) + ([f"turn {90 * self.turns}"] if self.turns else [])
        return " + ".join(words) or "identity"

    def moved(self, picture: Tensor) -> Tensor:
        return torch.rot90(picture.flip(-1) if self.mirrored else picture, self.turns, (-2, -1))


def elements(group: str, stride: int = 1) -> list[Shift | Symmetry]:
    """What is tried of a group: of shifts some by less than the stride, and multiples of it in all directions."""
    if group == "rot90":
        return [Symmetry(turns) for turns in (1, 2, 3)]
    if group == "flip":
        return [Symmetry(mirrored=True), Symmetry(2, mirrored=True)]
    if group != "shift":
        raise ValueError(f"study: equivariance: group: expected one of {', '.join(GROUPS)}, got {group!r}")
    steps = sorted({step for step in (1, 2, 3, stride // 2, stride - 1, stride, 2 * stride) if step > 0})
    tried = [Shift(0, step) for step in steps] + [Shift(1, 0), Shift(stride, 0), Shift(-stride, 0)]
    return list(dict.fromkeys([*tried, Shift(0, -stride), Shift(stride, 2 * stride)]))


def _planes(map: Tensor, element: Symmetry) -> Tensor:
    return element.moved(map)


def _quarters(direction: int) -> Callable[[Tensor, Symmetry], Tensor]:
    """Maps whose channels are 4 orientations a field, channel field * 4 + orientation: turning the picture turns the
    planes and moves them on by as many orientations."""

    def act(map: Tensor, element: Symmetry) -> Tensor:
        fields = element.moved(map).unflatten(1, (-1, 4))
        return fields.roll(direction * element.turns, 2).flatten(1, 2)

    return act


def _eighths(map: Tensor, element: Symmetry) -> Tensor:
    """Maps whose channels are the 8 symmetries of the square a field, channel field * 8 + mirrored * 4 + turns: each
    plane takes the place of the symmetry that it now belongs to, that of the picture's after its own."""
    sources = [0] * 8
    for place in range(8):
        mirrored, turns = divmod(place, 4)
        # A mirror after a turn is the opposite turn after the mirror.
        turned = -turns if element.mirrored else turns
        sources[(mirrored ^ element.mirrored) * 4 + (turned + element.turns) % 4] = place
    return element.moved(map).unflatten(1, (-1, 8))[:, :, sources].flatten(1, 2)


def actions(channels: int, element: Symmetry) -> dict[str, Callable[[Tensor, Symmetry], Tensor]]:
    """The ways in which a map of so many channels may follow a symmetry, by what they say of the channels."""
    found = {"planes": _planes}
    if channels % 4 == 0 and not element.mirrored:
        found |= {"4 orientations a field": _quarters(1), "4 orientations a field, backwards": _quarters(-1)}
    if channels % 8 == 0:
        found["8 symmetries a field"] = _eighths
    return found

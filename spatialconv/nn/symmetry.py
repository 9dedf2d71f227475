"""The two finite groups that map a square grid onto itself: quarter turns (p4), and with mirror images (p4m).

Element ``mirrored * 4 + turns`` is the symmetry that first mirrors left and right, if it does, and then turns
counterclockwise by ``turns`` quarters. A feature map over a group has one plane per field and element, channel
``field * order + element``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Symmetry:
    """A group of symmetries of the square: ``name`` 'p4' or 'p4m', ``order`` its number of elements."""

    name: str
    order: int

    def product(self, first: int, second: int) -> int:
        """The element that acts as ``second`` and then ``first``."""
        mirrored, turns = divmod(first, 4)
        more_mirrored, more_turns = divmod(second, 4)
        turned = turns - more_turns if mirrored else turns + more_turns
        return (mirrored ^ more_mirrored) * 4 + turned % 4

    def inverse(self, element: int) -> int:
        """The element that undoes ``element``; a mirror image undoes itself."""
        mirrored, turns = divmod(element, 4)
        return element if mirrored else -turns % 4

    def moved(self, plane: Tensor, element: int) -> Tensor:
        """A plane, or any stack of planes [..., h, w], as the element moves it."""
        mirrored, turns = divmod(element, 4)
        return torch.rot90(plane.flip(-1) if mirrored else plane, turns, (-2, -1))

    def acted(self, features: Tensor, element: int) -> Tensor:
        """A feature map over the group [..., fields * order, h, w] as the element acts on it: planes move, and each
        takes the place of the element that it now belongs to."""
        back = self.inverse(element)
        sources = [self.product(back, place) for place in range(self.order)]
        planes = features.unflatten(-3, (-1, self.order))[..., sources, :, :]
        return self.moved(planes, element).flatten(-4, -3)

    def filter_places(self, kernel: int, planes: int) -> Tensor:
        """Where the transformed filters find their values: for every element an index [order, planes * kernel²] into
        one filter, [planes, kernel, kernel] flattened. ``planes`` is 1 where the layer reads an image, else the
        group's order. A layer that reads the group has its planes permuted along with what each of them holds.
        """
        places = torch.arange(planes * kernel * kernel, device="cpu").reshape(planes, kernel, kernel)
        rows = []
        for element in range(self.order):
            if planes == 1:
                rows.append(self.moved(places, element).flatten())
            else:
                rows.append(self.acted(places, element).flatten())
        return torch.stack(rows)


P4 = Symmetry("p4", 4)
P4M = Symmetry("p4m", 8)

"""Buffers of a layer that follow from its arguments: in no state_dict, and filled again wherever they may be lost."""

from __future__ import annotations

import torch
from torch import Tensor


class Constants(torch.nn.Module):
    """A layer whose ``constants`` are buffers. They are made anew after ``to_empty``, and after a checkpoint was
    assigned to a layer on meta: both give memory to parameters but cannot know what was in the buffers."""

    def constants(self) -> dict[str, Tensor]:
        """Every buffer's content, on the CPU, by name."""
        raise NotImplementedError

    def register_constants(self, device, dtype: torch.dtype | None) -> None:
        for name, value in self.constants().items():
            self.register_buffer(name, value.to(device=device, dtype=dtype), persistent=False)

    def _refill(self, device: torch.device) -> None:
        for name, value in self.constants().items():
            held = getattr(self, name)
            if device.type != "meta":
                setattr(self, name, value.to(device=device, dtype=held.dtype))

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        for name in self.constants():
            self._refill(getattr(self, name).device)
        return self

    def _load_from_state_dict(self, *arguments, **options) -> None:
        super()._load_from_state_dict(*arguments, **options)
        for parameter in self.parameters(recurse=False):
            if any(getattr(self, name).device != parameter.device for name in self.constants()):
                self._refill(parameter.device)

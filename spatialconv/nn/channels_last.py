"""A model called in nchw, run in channels_last: there its kernels are faster, and to transpose an image is little work.

That a model gives the same values so is not taken for granted: a call may depend on how a tensor lies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .recording import Form, Native, Recording


def planes(input: Tensor) -> bool:
    """Whether it is a batch of images in nchw, and not in channels_last too."""
    return (
        input.dim() == 4
        and input.is_contiguous()
        and not input.is_contiguous(memory_format=torch.channels_last)
        and input.device.type == "cpu"
    )


def pixels(input: Tensor) -> Tensor:
    """The same in channels_last."""
    return input.contiguous(memory_format=torch.channels_last) if planes(input) else input


def may_gain(recording: Recording, inputs: tuple[Tensor, ...]) -> bool:
    """Whether a recording in nchw has convolutions that another one would do in channels_last, unnoticed by others."""
    if recording.others_code:
        return False
    weighted = [step for step in recording.steps if isinstance(step, Native) and len(step.source_form.shape) == 4]
    return any(map(planes, inputs)) and any(step.launch.weight is not None for step in weighted)


def agree(output: object, other: object, inputs: tuple[Tensor, ...]) -> bool:
    """Whether two results are of the same shapes and types and, but for rounding, values, and none of them an input."""
    leaves, others = tree_leaves(output), tree_leaves(other)
    storages = {input.untyped_storage().data_ptr() for input in inputs}
    return len(leaves) == len(others) and all(
        _close(leaf, its_other) and (leaf is None or leaf.untyped_storage().data_ptr() not in storages)
        for leaf, its_other in zip(leaves, others, strict=True)
    )


def _close(leaf: Tensor | None, other: Tensor | None) -> bool:
    if leaf is None or other is None:
        return leaf is other
    if (leaf.shape, leaf.dtype) != (other.shape, other.dtype):
        return False
    if not leaf.dtype.is_floating_point:
        return torch.equal(leaf, other)
    finite = leaf[leaf.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    tolerance = 4 * math.sqrt(torch.finfo(leaf.dtype).eps)
    return torch.allclose(leaf, other, rtol=0, atol=tolerance * largest, equal_nan=True)


def in_form(tensor: Tensor | None, form: Form | None) -> Tensor | None:
    """The tensor with the strides of a form, copied where it has others."""
    if tensor is None or tensor.stride() == form.stride:
        return tensor
    return tensor.new_empty_strided(form.shape, form.stride).copy_(tensor)

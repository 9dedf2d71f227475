"""A model called in nchw, run in channels_last: there its kernels are faster, and to transpose an image is little work.

Torch's functions give the same values whatever the strides, but for a few, which are looked for by name; that a model
gives the same values is seen once, too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from .recording import Form, Native, Recording

# Methods, functions and attributes that tell or take strides or memory.
_TELLING = {
    "as_strided", "as_strided_", "as_strided_copy", "as_strided_scatter", "data_ptr", "empty_strided", "is_contiguous",
    "new_empty_strided", "numpy", "resize_", "resize_as_", "set_", "storage", "storage_offset", "stride",
    "untyped_storage",
}  # fmt: skip


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


def may_gain(recording: Recording, inputs: tuple[Tensor, ...], output: object) -> bool:
    """Whether a recording in nchw has convolutions that another one would do in channels_last, noticed by nobody."""
    native = [step for step in recording.steps if isinstance(step, Native)]
    return (
        any(map(planes, inputs))
        and any(step.launch.weight is not None and len(step.source_form.shape) == 4 for step in native)
        and not recording.others_code
        and not any(map(_tells, recording.graph.nodes))
        and _lie_apart([*inputs, *_tensors(output)])
    )


def agree(output: object, other: object, inputs: tuple[Tensor, ...]) -> bool:
    """Whether two results have the same shapes, types and, but for rounding, values, and nothing shares memory."""
    leaves, others = tree_leaves(output), tree_leaves(other)
    return len(leaves) == len(others) and all(map(_close, leaves, others)) and _lie_apart([*inputs, *_tensors(other)])


def _tells(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    named = [argument for argument in node.args if isinstance(argument, str)] if node.target is getattr else []
    return node.op in ("call_method", "call_function") and not _TELLING.isdisjoint((name.rpartition(".")[2], *named))


def _tensors(output: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if leaf is not None]


def _lie_apart(tensors: list[Tensor]) -> bool:
    """Whether there are some, and no two elements of theirs are in one place."""
    if not tensors or any(tensor.layout is not torch.strided for tensor in tensors):
        return False
    storages = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    spread = any(0 in tensor.stride() and tensor.numel() > 1 for tensor in tensors)
    return len(storages) == len(tensors) and not spread


def _close(leaf: Tensor | None, other: Tensor | None) -> bool:
    if leaf is None or other is None:
        return leaf is other
    if (leaf.shape, leaf.dtype) != (other.shape, other.dtype):
        return False
    if not leaf.dtype.is_floating_point:
        return torch.equal(leaf, other)
    finite = leaf[leaf.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    eps = torch.finfo(leaf.dtype).eps
    share = 16 * eps if leaf.itemsize < 4 else 4 * math.sqrt(eps)
    return torch.allclose(leaf, other, rtol=0, atol=share * largest, equal_nan=True)


def in_form(tensor: Tensor | None, form: Form | None) -> Tensor | None:
    """The tensor with the strides of a form, copied where it has others; as it is where its shape is another."""
    if tensor is None or tensor.shape != form.shape or tensor.stride() == form.stride:
        return tensor
    return tensor.new_empty_strided(form.shape, form.stride).copy_(tensor)

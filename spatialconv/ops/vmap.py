"""``torch.func.vmap`` of the ops, exact for any groups.

A batch dimension of the images folds into the images; one of the weights folds into the groups, outermost, since a
group per batch entry is what a batch of weights means.
"""

from __future__ import annotations

import torch

from ..activations import FUNCTIONS
from .schemas import LIBRARY, NAMESPACE, OPS

CONV, CONV_INPUT, CONV_WEIGHT = OPS["conv2d"], OPS["conv2d_grad_input"], OPS["conv2d_grad_weight"]

LOCAL, LOCAL_INPUT, LOCAL_WEIGHT = (OPS[f"local_conv2d{part}"] for part in ("", "_grad_input", "_grad_weight"))


def rule(name: str):
    return torch.library.register_vmap(f"{NAMESPACE}::{name}", lib=LIBRARY)


def front(tensor, dim):
    """The batch dimension first; a tensor without one stays as it is."""
    return tensor if dim is None else tensor.movedim(dim, 0)


def into_images(tensor, dim, size):
    """[b, n, c, h, w] as [b*n, c, h, w]."""
    moved = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return moved.reshape(-1, *moved.shape[2:])


def out_of_images(tensor, size):
    return tensor.reshape(size, -1, *tensor.shape[1:])


def into_channels(tensor, dim, size):
    """[b, n, c, h, w] as [n, b*c, h, w]: the batch outermost, so that it multiplies the groups."""
    if dim is None:
        return tensor.repeat(1, size, 1, 1)
    return tensor.movedim(dim, 0).movedim(0, 1).flatten(1, 2)


def out_of_channels(tensor, size):
    return tensor.reshape(tensor.shape[0], size, -1, *tensor.shape[2:]).movedim(1, 0)


def into_filters(weight, dim):
    """A batch of untied weights [b, oh, ow, oc, ..] as [oh, ow, b*oc, ..]."""
    return weight.movedim(dim, 2).flatten(2, 3)


@rule("conv2d")
def _(info, dims, input, weight, bias, stride, padding, dilation, groups, backend, activation=None):
    size = info.batch_size
    if dims[1] is None:
        result = out_of_images(
            CONV(into_images(input, dims[0], size), weight, None, stride, padding, dilation, groups, backend), size
        )
    else:
        folded = into_channels(input, dims[0], size)
        weights = front(weight, dims[1]).flatten(0, 1)
        result = out_of_channels(CONV(folded, weights, None, stride, padding, dilation, groups * size, backend), size)
    if bias is not None:
        bias = front(bias, dims[2])
        result = result + bias.reshape(*((size, 1) if dims[2] is not None else (1, 1)), -1, 1, 1)
    return result if activation is None else FUNCTIONS[activation](result), 0


@rule("conv2d_grad_input")
def _(info, dims, grad_output, weight, input_size, stride, padding, dilation, groups, backend):
    size = info.batch_size
    if dims[1] is None:
        folded = into_images(grad_output, dims[0], size)
        result = CONV_INPUT(folded, weight, input_size, stride, padding, dilation, groups, backend)
        return out_of_images(result, size), 0
    folded = into_channels(grad_output, dims[0], size)
    weights = front(weight, dims[1]).flatten(0, 1)
    result = CONV_INPUT(folded, weights, input_size, stride, padding, dilation, groups * size, backend)
    return out_of_channels(result, size), 0


@rule("conv2d_grad_weight")
def _(info, dims, grad_output, input, kernel_size, stride, padding, dilation, groups, backend):
    size = info.batch_size
    grads, inputs = into_channels(grad_output, dims[0], size), into_channels(input, dims[1], size)
    result = CONV_WEIGHT(grads, inputs, kernel_size, stride, padding, dilation, groups * size, backend)
    return result.reshape(size, -1, *result.shape[1:]), 0


@rule("local_conv2d")
def _(info, dims, input, weight, bias, *geometry_and_backend):
    *geometry, groups, backend = geometry_and_backend
    size = info.batch_size
    if dims[1] is None:
        folded = into_images(input, dims[0], size)
        result = out_of_images(LOCAL(folded, weight, None, *geometry, groups, backend), size)
    else:
        folded, weights = into_channels(input, dims[0], size), into_filters(weight, dims[1])
        result = out_of_channels(LOCAL(folded, weights, None, *geometry, groups * size, backend), size)
    if bias is not None:
        placed = front(bias, dims[2]).movedim(-1, -3)
        result = result + (placed if dims[2] is None else placed.unsqueeze(1))
    return result, 0


@rule("local_conv2d_grad_input")
def _(info, dims, grad_output, weight, input_size, *geometry_and_backend):
    *geometry, groups, backend = geometry_and_backend
    size = info.batch_size
    if dims[1] is None:
        folded = into_images(grad_output, dims[0], size)
        return out_of_images(LOCAL_INPUT(folded, weight, input_size, *geometry, groups, backend), size), 0
    folded, weights = into_channels(grad_output, dims[0], size), into_filters(weight, dims[1])
    result = LOCAL_INPUT(folded, weights, input_size, *geometry, groups * size, backend)
    return out_of_channels(result, size), 0


@rule("local_conv2d_grad_weight")
def _(info, dims, grad_output, input, kernel_size, *geometry_and_backend):
    *geometry, groups, backend = geometry_and_backend
    size = info.batch_size
    grads, inputs = into_channels(grad_output, dims[0], size), into_channels(input, dims[1], size)
    result = LOCAL_WEIGHT(grads, inputs, kernel_size, *geometry, groups * size, backend)
    return result.unflatten(2, (size, -1)), 2


def _per_image(name: str, tensors: int) -> None:
    op = OPS[name]

    @rule(name)
    def _(info, dims, *args):
        size = info.batch_size
        folded = [into_images(tensor, dim, size) for tensor, dim in zip(args[:tensors], dims[:tensors], strict=True)]
        result = op(*folded, *args[tensors:])
        if isinstance(result, tuple):
            return tuple(out_of_images(part, size) for part in result), (0,) * len(result)
        return out_of_images(result, size), 0


_per_image("max_pool2d", 1)
_per_image("max_pool2d_offsets", 1)
_per_image("max_pool2d_scatter", 2)
_per_image("max_pool2d_gather", 2)
_per_image("avg_pool2d", 1)
_per_image("avg_pool2d_grad_input", 1)

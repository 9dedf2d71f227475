"""Formulas for ``torch.utils.flop_counter``, counting as torch does: multiplications with padding zeros included."""

from __future__ import annotations

from math import prod

import torch
from torch.utils.flop_counter import register_flop_formula

from .schemas import NAMESPACE

_OPS = getattr(torch.ops, NAMESPACE)


@register_flop_formula(_OPS.conv2d)
def _conv2d(input, weight, *args, out_shape=None, **kwargs) -> int:
    return 2 * prod(out_shape) * prod(weight[1:])


@register_flop_formula(_OPS.conv2d_grad_input)
def _conv2d_grad_input(grad_output, weight, *args, out_shape=None, **kwargs) -> int:
    return 2 * prod(grad_output) * prod(weight[1:])


@register_flop_formula(_OPS.conv2d_grad_weight)
def _conv2d_grad_weight(grad_output, input, *args, out_shape=None, **kwargs) -> int:
    return 2 * prod(grad_output) * prod(out_shape[1:])


@register_flop_formula(_OPS.local_conv2d)
def _local_conv2d(input, weight, *args, out_shape=None, **kwargs) -> int:
    return 2 * prod(out_shape) * prod(weight[3:])


@register_flop_formula(_OPS.local_conv2d_grad_input)
def _local_conv2d_grad_input(grad_output, weight, *args, out_shape=None, **kwargs) -> int:
    return 2 * prod(grad_output) * prod(weight[3:])


@register_flop_formula(_OPS.local_conv2d_grad_weight)
def _local_conv2d_grad_weight(grad_output, input, *args, out_shape=None, **kwargs) -> int:
    return 2 * prod(grad_output) * prod(out_shape[3:])

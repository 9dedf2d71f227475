"""Convolution with a filter of its own at every output position: im2col and, position by position, a matrix product.

With the columns of one position as a matrix [taps, images], group by group and position by position,

    output      = weight · columns(input)
    grad_weight = grad_output · columns(input)ᵀ
    grad_input  = columnsᵀ(weightᵀ · grad_output)

which are the tied formulas with positions and images in each other's place: what a tied filter sums over positions or
shares between them, an untied one has once for each.
"""

from __future__ import annotations

from torch import Tensor

from ...problem import Conv2dProblem
from ...shapes import as_result
from .conv import adjoint_of_columns, columns, wide


def by_position(p: Conv2dProblem, grouped: Tensor) -> Tensor:
    """[n, g, rows, oh * ow] as matrices [oh * ow, g, rows, n]."""
    return grouped.permute(3, 1, 2, 0)


def position_weight(p: Conv2dProblem, weight: Tensor) -> Tensor:
    return wide(weight).reshape(p.oh * p.ow, p.g, p.oc // p.g, p.ic // p.g * p.kh * p.kw)


def position_output(p: Conv2dProblem, output: Tensor) -> Tensor:
    return by_position(p, wide(output).reshape(p.n, p.g, p.oc // p.g, p.oh * p.ow))


def local_conv2d(p: Conv2dProblem, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    products = position_weight(p, weight) @ by_position(p, columns(p, input))
    output = products.permute(3, 1, 2, 0).reshape(p.output_shape)
    if bias is not None:
        output = output + wide(bias).permute(2, 0, 1)
    return as_result(output.to(input.dtype), p.layout)


def local_conv2d_grad_input(p: Conv2dProblem, grad_output: Tensor, weight: Tensor) -> Tensor:
    cols = position_weight(p, weight).mT @ position_output(p, grad_output)
    return as_result(adjoint_of_columns(p, cols.permute(3, 1, 2, 0)).to(grad_output.dtype), p.layout)


def local_conv2d_grad_weight(p: Conv2dProblem, grad_output: Tensor, input: Tensor) -> Tensor:
    products = position_output(p, grad_output) @ by_position(p, columns(p, input)).mT
    return products.reshape(p.weight_shape).to(input.dtype).contiguous()

"""Convolution as im2col and a matrix product (Chellapilla, Puri, Simard 2006), with its two adjoints.

``columns`` lays out, for every output position, the input values its filter sees. Then, group by group,

    output      = weight · columns(input)
    grad_weight = grad_output · columns(input)ᵀ
    grad_input  = columnsᵀ(weightᵀ · grad_output)

16-bit floats are computed in 32 bits and rounded once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...problem import Conv2dProblem
from ...shapes import as_result

_WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.complex32: torch.complex64}


def wide(tensor: Tensor) -> Tensor:
    return tensor.to(_WIDER.get(tensor.dtype, tensor.dtype))


def taps(p: Conv2dProblem, padded: Tensor) -> Tensor:
    """A view [n, ic, kh, kw, oh, ow] of the padded input: what each tap of the filter sees at each output."""
    n, c, h, w = padded.stride()
    return padded.as_strided((p.n, p.ic, p.kh, p.kw, p.oh, p.ow), (n, c, h * p.dh, w * p.dw, h * p.sh, w * p.sw))


def widened_or_cut(tensor: Tensor, *sides: int) -> Tensor:
    """``F.pad`` that first widens and then cuts, so that one side may cut more than the tensor itself holds."""
    tensor = F.pad(tensor, [max(side, 0) for side in sides])
    return F.pad(tensor, [min(side, 0) for side in sides]) if min(sides) < 0 else tensor


def columns(p: Conv2dProblem, input: Tensor) -> Tensor:
    top, left, bottom, right = p.sides
    padded = widened_or_cut(wide(input), left, right, top, bottom).contiguous()
    return taps(p, padded).reshape(p.n, p.g, p.ic // p.g * p.kh * p.kw, p.oh * p.ow)


def adjoint_of_columns(p: Conv2dProblem, cols: Tensor) -> Tensor:
    top, left, bottom, right = p.sides
    padded = cols.new_zeros(p.n, p.ic, top + p.ih + bottom, left + p.iw + right)
    cols = cols.reshape(p.n, p.ic, p.kh, p.kw, p.oh, p.ow)
    for kh in range(p.kh):
        for kw in range(p.kw):
            taps(p, padded)[:, :, kh, kw] += cols[:, :, kh, kw]
    return widened_or_cut(padded, -left, -right, -top, -bottom)


def grouped_weight(p: Conv2dProblem, weight: Tensor) -> Tensor:
    return wide(weight).reshape(p.g, p.oc // p.g, p.ic // p.g * p.kh * p.kw)


def grouped_output(p: Conv2dProblem, output: Tensor) -> Tensor:
    return wide(output).reshape(p.n, p.g, p.oc // p.g, p.oh * p.ow)


def conv2d(p: Conv2dProblem, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    output = (grouped_weight(p, weight) @ columns(p, input)).reshape(p.output_shape)
    if bias is not None:
        output = output + wide(bias).reshape(-1, 1, 1)
    return as_result(output.to(input.dtype), p.layout)


def conv2d_grad_input(p: Conv2dProblem, grad_output: Tensor, weight: Tensor) -> Tensor:
    cols = grouped_weight(p, weight).mT @ grouped_output(p, grad_output)
    return as_result(adjoint_of_columns(p, cols).to(grad_output.dtype), p.layout)


def conv2d_grad_weight(p: Conv2dProblem, grad_output: Tensor, input: Tensor) -> Tensor:
    products = grouped_output(p, grad_output) @ columns(p, input).mT
    return as_result(products.sum(0).reshape(p.weight_shape).to(input.dtype), p.layout)

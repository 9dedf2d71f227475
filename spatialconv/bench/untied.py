"""Untied convolution as users of torch write it, for it has no such op: the windows of all output positions are copied
out, ``F.unfold``, and each meets its filters in a batched matrix product, ``einsum``; the input's gradient folds back.

Both the judge, in float64, and the peer that local kernels are measured against.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..problem import Conv2dProblem


def untied_call(problem: Conv2dProblem) -> Callable[..., torch.Tensor]:
    """A pass of the problem, called with the operands of its plan."""
    p = problem
    top, left, bottom, right = p.sides
    symmetric = (top, left) == (bottom, right)
    padding = (top, left) if symmetric else (0, 0)
    size = (p.ih, p.iw) if symmetric else (p.ih + top + bottom, p.iw + left + right)
    windows = dict(dilation=(p.dh, p.dw), padding=padding, stride=(p.sh, p.sw))
    filters = (p.oh * p.ow, p.g, p.oc // p.g, p.ic // p.g * p.kh * p.kw)
    outputs = (p.n, p.g, p.oc // p.g, p.oh * p.ow)

    def unfolded(input: torch.Tensor) -> torch.Tensor:
        """[n, g, taps, positions]."""
        if not symmetric:
            input = F.pad(input, (left, right, top, bottom))
        return F.unfold(input, (p.kh, p.kw), **windows).reshape(p.n, p.g, -1, p.oh * p.ow)

    def forward(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        output = torch.einsum("ngkp,pgok->ngop", unfolded(input), weight.reshape(filters)).reshape(p.output_shape)
        return output if bias is None else output + bias.permute(2, 0, 1)

    def grad_input(grad_output: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        taps = torch.einsum("ngop,pgok->ngkp", grad_output.reshape(outputs), weight.reshape(filters))
        folded = F.fold(taps.reshape(p.n, -1, p.oh * p.ow), size, (p.kh, p.kw), **windows)
        return folded if symmetric else F.pad(folded, (-left, -right, -top, -bottom))

    def grad_weight(grad_output: torch.Tensor, input: torch.Tensor) -> torch.Tensor:
        return torch.einsum("ngop,ngkp->pgok", grad_output.reshape(outputs), unfolded(input)).reshape(p.weight_shape)

    return {"forward": forward, "grad_input": grad_input, "grad_weight": grad_weight}[p.pass_name]

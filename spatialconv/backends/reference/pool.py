"""Pooling tap by tap: every window is walked in the same order, all windows at once.

``walk`` yields, for each step of that order, the rows and columns that the windows read and which windows are long
enough to have the step; so dilated, clipped and adaptive windows are one case.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...problem import Pool2dProblem
from ...shapes import as_result
from .conv import wide


def _axis(windows: list[range], size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    for step in range(max(map(len, windows), default=0)):
        present = [step < len(window) for window in windows]
        index = [window[step] if there else 0 for window, there in zip(windows, present, strict=True)]
        yield torch.tensor(index, device=device), torch.tensor(present, device=device)


def walk(p: Pool2dProblem, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for row, row_there in _axis(p.rows(), p.ih, device):
        for column, column_there in _axis(p.columns(), p.iw, device):
            yield row, column, row_there[:, None] & column_there


def not_empty(p: Pool2dProblem, device: torch.device) -> Tensor:
    """Which windows hold an input element at all, [oh, ow]."""
    rows = torch.tensor([len(window) > 0 for window in p.rows()], device=device)
    columns = torch.tensor([len(window) > 0 for window in p.columns()], device=device)
    return rows[:, None] & columns


def first_index(p: Pool2dProblem, device: torch.device) -> Tensor:
    """Index of the first element of each window, [oh, ow]; that of an empty window is drawn into the plane."""
    rows = torch.tensor([min(window.start, p.ih - 1) for window in p.rows()], device=device)
    columns = torch.tensor([min(window.start, p.iw - 1) for window in p.columns()], device=device)
    return (rows[:, None] * p.iw + columns).to(torch.int64)


def divisor(p: Pool2dProblem, device: torch.device) -> Tensor:
    """What each window's sum is divided by, [oh, ow]: torch's rule."""
    if p.divisor:
        return torch.full((p.oh, p.ow), p.divisor, dtype=torch.int64, device=device)
    if p.adaptive or not p.include_pad:
        heights, widths = [len(window) for window in p.rows()], [len(window) for window in p.columns()]
    else:
        heights = [min(i * p.sh - p.ph + p.kh, p.ih + p.ph) - (i * p.sh - p.ph) for i in range(p.oh)]
        widths = [min(i * p.sw - p.pw + p.kw, p.iw + p.pw) - (i * p.sw - p.pw) for i in range(p.ow)]
    return torch.tensor(heights, device=device)[:, None] * torch.tensor(widths, device=device)


def max_pool2d(p: Pool2dProblem, input: Tensor) -> tuple[Tensor, Tensor | None]:
    lowest = float("-inf") if input.is_floating_point() else torch.iinfo(input.dtype).min
    values = input.new_full(p.output_shape, lowest)
    indices = first_index(p, input.device).expand(p.output_shape)
    for row, column, there in walk(p, input.device):
        seen = input[:, :, row][:, :, :, column]
        better = there & ((seen > values) | (seen != seen))
        values = torch.where(better, seen, values)
        indices = torch.where(better, row[:, None] * p.iw + column, indices)
    kept = as_offsets(p, indices) if p.offsets else indices
    return as_result(values, p.layout), as_result(kept, p.layout) if p.indices or p.offsets else None


def _first_taps(p: Pool2dProblem, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of each window's first tap, padding or not, [oh, 1] and [ow]."""
    rows = torch.arange(p.oh, device=device)[:, None] * p.sh - p.ph
    return rows, torch.arange(p.ow, device=device) * p.sw - p.pw


def as_offsets(p: Pool2dProblem, indices: Tensor) -> Tensor:
    """Indices into the plane as uint8 offsets into the window; those of an empty window are 0."""
    row, column = _first_taps(p, indices.device)
    tap_row = torch.div(indices // p.iw - row, p.dh, rounding_mode="trunc")
    tap_column = torch.div(indices % p.iw - column, p.dw, rounding_mode="trunc")
    return torch.where(not_empty(p, indices.device), tap_row * p.kw + tap_column, 0).to(torch.uint8)


def as_indices(p: Pool2dProblem, offsets: Tensor) -> Tensor:
    """Offsets into the window as indices into the plane; those of an empty window are drawn into the plane."""
    row, column = _first_taps(p, offsets.device)
    tap = offsets.to(torch.int64)
    height = (row + tap // p.kw * p.dh).clamp(0, p.ih - 1)
    width = (column + tap % p.kw * p.dw).clamp(0, p.iw - 1)
    return height * p.iw + width


def max_pool2d_scatter(p: Pool2dProblem, grad_output: Tensor, indices: Tensor) -> Tensor:
    indices = as_indices(p, indices) if p.offsets else indices
    kept = torch.where(not_empty(p, indices.device), wide(grad_output), 0).flatten(2)
    planes = kept.new_zeros(p.n, p.ic, p.ih * p.iw).scatter_add(2, indices.flatten(2), kept)
    return as_result(planes.reshape(p.input_shape).to(grad_output.dtype), p.layout)


def max_pool2d_gather(p: Pool2dProblem, input: Tensor, indices: Tensor) -> Tensor:
    indices = as_indices(p, indices) if p.offsets else indices
    taken = input.flatten(2).gather(2, indices.flatten(2)).reshape(p.output_shape)
    return as_result(torch.where(not_empty(p, indices.device), taken, 0), p.layout)


def avg_pool2d(p: Pool2dProblem, input: Tensor) -> Tensor:
    source = wide(input)
    total = source.new_zeros(p.output_shape)
    for row, column, there in walk(p, input.device):
        total = total + torch.where(there, source[:, :, row][:, :, :, column], 0)
    return as_result(_divide(total, divisor(p, input.device)).to(input.dtype), p.layout)


def avg_pool2d_grad_input(p: Pool2dProblem, grad_output: Tensor) -> Tensor:
    share = _divide(wide(grad_output), divisor(p, grad_output.device))
    grad_input = share.new_zeros(p.input_shape)
    for row, column, there in walk(p, grad_output.device):
        spread = torch.where(there, share, 0)
        columns = spread.new_zeros(p.n, p.ic, p.oh, p.iw).index_add(3, column, spread)
        grad_input = grad_input.index_add(2, row, columns)
    return as_result(grad_input.to(grad_output.dtype), p.layout)


def _divide(total: Tensor, by: Tensor) -> Tensor:
    """The quotient, 0 where an empty window would divide 0 by 0; integers round towards zero."""
    by = torch.where(by == 0, 1, by)
    if total.is_floating_point() or total.is_complex():
        return total / by
    return torch.div(total, by, rounding_mode="trunc")

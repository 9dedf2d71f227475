"""Adaptive pooling and its gradient, both as sums or maxima over ranges.

Window o of O over I positions is [o I // O, ceil((o + 1) I / O)). Position i of I is in the windows
[i O // I, ceil((i + 1) O / I)): the same formula, so the gradient walks as the forward pass does, with the sizes
exchanged. TOGETHER loads of a row are under way at a time.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .strips import place, strides


@triton.jit
def first_of(index, size, count):
    return index * size // count


@triton.jit
def end_of(index, size, count):
    return ((index + 1) * size + count - 1) // count


@triton.jit
def adaptive_windows(
    source, result, places, images, channel_vectors, source_h, source_w, result_h, result_w, h_taps, w_taps,
    MAXIMUM: tl.constexpr, CHANNELS_LAST: tl.constexpr, VECTOR: tl.constexpr, STRIP: tl.constexpr,
    SLOTS_U: tl.constexpr, SLOTS_V: tl.constexpr, LANES: tl.constexpr, TOGETHER: tl.constexpr, INDEX: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """``h_taps`` and ``w_taps``: sizes of the largest window. ``places``: memory for indices, or None."""
    channels = channel_vectors * VECTOR
    if CHANNELS_LAST:
        image, channel, w, h, _ = place(channels, result_w, result_h, 1, True, STRIP, SLOTS_U, SLOTS_V, LANES)
        step_c, step_w, step_h = strides(channels, source_w, source_h, True)
        to_c, to_w, to_h = strides(channels, result_w, result_h, True)
    else:
        image, channel, h, w, _ = place(channels, result_h, result_w, 1, False, STRIP, SLOTS_U, SLOTS_V, LANES)
        step_c, step_h, step_w = strides(channels, source_h, source_w, False)
        to_c, to_h, to_w = strides(channels, result_h, result_w, False)
    valid = (image < images) & (channel < channels) & (h < result_h) & (w < result_w)
    channel = channel.to(INDEX)
    h_first, w_first = first_of(h, source_h, result_h), first_of(w, source_w, result_w)
    h_end, w_end = end_of(h, source_h, result_h), end_of(w, source_w, result_w)
    plane = source + image * source_h * source_w * channels + channel * step_c
    nothing: tl.constexpr = float("-inf") if MAXIMUM else 0.0
    total = tl.full([LANES, SLOTS_U * SLOTS_V], nothing, SUM)
    where = h_first.to(INDEX) * source_w + w_first + tl.zeros([LANES, SLOTS_U * SLOTS_V], INDEX)
    for h_tap in range(h_taps):
        row = h_first + h_tap
        for w_tap in range(0, w_taps, TOGETHER):
            for ahead in tl.static_range(TOGETHER):
                column = w_first + w_tap + ahead
                inside = valid & (row < h_end) & (column < w_end)
                at = row.to(INDEX) * step_h + column.to(INDEX) * step_w
                element = tl.load(plane + at, mask=inside, other=nothing).to(SUM)
                if MAXIMUM:
                    better = (element > total) | (element != element)
                    total = tl.where(better, element, total)
                    where = tl.where(better, row.to(INDEX) * source_w + column, where)
                else:
                    total += element
    if not MAXIMUM:
        total = total / ((h_end - h_first) * (w_end - w_first)).to(SUM)
    at = image * result_h * result_w * channels + channel * to_c + h.to(INDEX) * to_h + w.to(INDEX) * to_w
    tl.store(result + at, total.to(result.dtype.element_ty), mask=valid)
    if places is not None:
        tl.store(places + at, where.to(tl.int64), mask=valid)


@triton.jit
def adaptive_adjoint(
    grad_output, places, grad_input, found, images, channel_vectors, source_h, source_w, result_h, result_w,
    h_taps, w_taps,
    MAXIMUM: tl.constexpr, CHANNELS_LAST: tl.constexpr, VECTOR: tl.constexpr, STRIP: tl.constexpr,
    SLOTS_U: tl.constexpr, SLOTS_V: tl.constexpr, LANES: tl.constexpr, TOGETHER: tl.constexpr, INDEX: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """The source is grad_output, the result grad_input; ``found`` as in ``max_pool_adjoint``."""
    channels = channel_vectors * VECTOR
    if CHANNELS_LAST:
        image, channel, w, h, _ = place(channels, result_w, result_h, 1, True, STRIP, SLOTS_U, SLOTS_V, LANES)
        step_c, step_w, step_h = strides(channels, source_w, source_h, True)
        to_c, to_w, to_h = strides(channels, result_w, result_h, True)
    else:
        image, channel, h, w, _ = place(channels, result_h, result_w, 1, False, STRIP, SLOTS_U, SLOTS_V, LANES)
        step_c, step_h, step_w = strides(channels, source_h, source_w, False)
        to_c, to_h, to_w = strides(channels, result_h, result_w, False)
    valid = (image < images) & (channel < channels) & (h < result_h) & (w < result_w)
    channel = channel.to(INDEX)
    h_first, w_first = first_of(h, source_h, result_h), first_of(w, source_w, result_w)
    h_end, w_end = end_of(h, source_h, result_h), end_of(w, source_w, result_w)
    plane = image * source_h * source_w * channels + channel * step_c
    total = tl.zeros([LANES, SLOTS_U * SLOTS_V], SUM)
    count = tl.zeros([LANES, SLOTS_U * SLOTS_V], tl.int32)
    position = h.to(tl.int64) * result_w + w
    for h_tap in range(h_taps):
        row = h_first + h_tap
        height = end_of(row, result_h, source_h) - first_of(row, result_h, source_h)
        for w_tap in range(0, w_taps, TOGETHER):
            for ahead in tl.static_range(TOGETHER):
                column = w_first + w_tap + ahead
                inside = valid & (row < h_end) & (column < w_end)
                at = plane + row.to(INDEX) * step_h + column.to(INDEX) * step_w
                share = tl.load(grad_output + at, mask=inside, other=0).to(SUM)
                if MAXIMUM:
                    mine = tl.load(places + at, mask=inside, other=-1) == position
                    total += tl.where(mine, share, 0)
                    count += mine.to(tl.int32)
                else:
                    width = end_of(column, result_w, source_w) - first_of(column, result_w, source_w)
                    total += share / (height * width).to(SUM)
    at = image * result_h * result_w * channels + channel * to_c + h.to(INDEX) * to_h + w.to(INDEX) * to_w
    tl.store(grad_input + at, total.to(grad_input.dtype.element_ty), mask=valid)
    if MAXIMUM:
        tl.store(found + tl.program_id(0), tl.sum(tl.sum(count, axis=1), axis=0))

"""Gradient of depthwise convolution by the weight: sums over all outputs, in two steps of a fixed order.

A program sums its share of strips for one block of channels (channels_last) or one channel, for some rows of taps, in
registers; a strip of grad_output is loaded once and each column of the input once a row of taps. The shares lie in a
workspace [splits, taps, oc] that a second kernel adds up. The shares follow from the problem alone, so results are the
same on every run and every device.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .strips import first_source, is_read, repeated, source_of_tap, strides, tap_of


@triton.jit
def add_strip(
    sums, grad_strip, source, column_step, first, u_size, row_inside, u_valid, PLACE: tl.constexpr,
    U_KERNEL: tl.constexpr, U_STRIDE: tl.constexpr, U_DILATION: tl.constexpr, STRIP: tl.constexpr, TAIL: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """The sums, with the products of a strip of grad_output and a row of the input added to U_KERNEL of them."""
    row_sums = ()
    for tap in tl.static_range(U_KERNEL):
        row_sums = row_sums + (sums[PLACE + tap],)
    for j in tl.static_range((STRIP - 1) * U_STRIDE + (U_KERNEL - 1) * U_DILATION + 1):
        if is_read(j, STRIP, U_KERNEL, U_STRIDE, 0, U_DILATION, False):
            inside = row_inside & (first + j >= 0) & (first + j < u_size)
            column = tl.load(source + j * column_step, mask=inside, other=0).to(SUM)
            for t in tl.static_range(STRIP):
                if tap_of(t, j, U_KERNEL, U_STRIDE, 0, U_DILATION, False) >= 0:
                    product = column * grad_strip[t]
                    if TAIL:
                        # Behind the last output stands a 0 that must not meet an infinity of the input.
                        product = tl.where(u_valid > t, product, 0)
                    added = ()
                    for tap in tl.static_range(U_KERNEL):
                        if tap == tap_of(t, j, U_KERNEL, U_STRIDE, 0, U_DILATION, False):
                            added = added + (row_sums[tap] + product,)
                        else:
                            added = added + (row_sums[tap],)
                    row_sums = added
    return row_sums


@triton.jit
def partial_sums(
    grad_output, source, workspace, images, channel_vectors, source_u, source_v, result_u, result_v, steps,
    MULTIPLIER: tl.constexpr, U_KERNEL: tl.constexpr, U_STRIDE: tl.constexpr, U_PADDING: tl.constexpr,
    U_DILATION: tl.constexpr, V_KERNEL: tl.constexpr, V_STRIDE: tl.constexpr, V_PADDING: tl.constexpr,
    V_DILATION: tl.constexpr, ROWS: tl.constexpr, CHANNELS_LAST: tl.constexpr, VECTOR: tl.constexpr,
    STRIP: tl.constexpr, SLOTS: tl.constexpr, LANES: tl.constexpr, TAIL: tl.constexpr, INDEX: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """One program: ``steps`` times SLOTS strips, ROWS rows of taps, LANES channels or columns."""
    channels = channel_vectors * VECTOR
    source_channels = channels // MULTIPLIER
    strips = tl.cdiv(result_u, STRIP)
    slot = tl.arange(0, SLOTS)[None, :]
    lane = tl.arange(0, LANES)[:, None]
    groups: tl.constexpr = (V_KERNEL + ROWS - 1) // ROWS
    program = tl.program_id(0)
    first_row = program % groups * ROWS
    rest = program // groups
    if CHANNELS_LAST:
        blocks = tl.cdiv(channels, LANES)
        channel = rest % blocks * LANES + lane
        rest = rest // blocks
    else:
        channel = rest % channels + lane * 0
        rest = rest // channels
    split = rest
    step_c, step_u, step_v = strides(channels, result_u, result_v, CHANNELS_LAST)
    source_step_c, source_step_u, source_step_v = strides(source_channels, source_u, source_v, CHANNELS_LAST)
    sums = repeated(tl.zeros([LANES, SLOTS], SUM), ROWS * U_KERNEL)
    for step in range(steps):
        position = (split * steps + step) * SLOTS + slot
        u = position % strips * STRIP
        position = position // strips
        if CHANNELS_LAST:
            v = position % result_v
            image = position // result_v
        else:
            v_tiles = tl.cdiv(result_v, LANES)
            v = position % v_tiles * LANES + lane
            image = position // v_tiles
        valid = (image < images) & (channel < channels) & (v < result_v)
        image = image.to(tl.int64)
        wide_channel = (channel + (u + v) * 0).to(INDEX)
        grad = grad_output + image * result_u * result_v * channels + wide_channel * step_c
        grad += u.to(INDEX) * step_u + v.to(INDEX) * step_v
        grad_strip = ()
        for t in tl.static_range(STRIP):
            inside = valid & (u + t < result_u) if TAIL else valid
            grad_strip = grad_strip + (tl.load(grad + t * step_u, mask=inside, other=0).to(SUM),)
        first = first_source(u, U_STRIDE, U_PADDING, False)
        plane = source + image * source_u * source_v * source_channels + wide_channel // MULTIPLIER * source_step_c
        plane += first.to(INDEX) * source_step_u
        added = ()
        for tap in tl.static_range(ROWS):
            row = source_of_tap(v, first_row + tap, V_STRIDE, V_PADDING, V_DILATION, False)
            added = added + add_strip(
                sums, grad_strip, plane + row.to(INDEX) * source_step_v, source_step_u, first, source_u,
                valid & (row >= 0) & (row < source_v) & (first_row + tap < V_KERNEL), result_u - u, tap * U_KERNEL,
                U_KERNEL, U_STRIDE, U_DILATION, STRIP, TAIL, SUM,
            )  # fmt: skip
        sums = added
    for tap in tl.static_range(ROWS):
        for across in tl.static_range(U_KERNEL):
            total = tl.sum(sums[tap * U_KERNEL + across], axis=1)
            row = first_row + tap
            if CHANNELS_LAST:
                at = (split * V_KERNEL + row) * U_KERNEL + across
                lanes = tl.reshape(channel, [LANES])
                share = workspace + at.to(tl.int64) * channels + lanes
                tl.store(share, total, mask=(lanes < channels) & (row < V_KERNEL))
            else:
                at = (split * U_KERNEL + across) * V_KERNEL + row
                where = workspace + at.to(tl.int64) * channels + (program // groups) % channels
                tl.store(where, tl.sum(total, axis=0), mask=row < V_KERNEL)


@triton.jit
def add_splits(
    workspace, grad_weight, splits, channels,
    TAPS: tl.constexpr, TOGETHER: tl.constexpr, BLOCK: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """grad_weight [oc, taps] = the sum of the workspace [splits, taps, oc] over its splits, TOGETHER at a time."""
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = element < channels * TAPS
    total = tl.zeros([TOGETHER, BLOCK], SUM)
    for first in range(0, splits, TOGETHER):
        split = first + tl.arange(0, TOGETHER)[:, None]
        share = workspace + split.to(tl.int64) * (channels * TAPS) + element[None, :]
        total += tl.load(share, mask=(split < splits) & valid[None, :], other=0)
    summed = tl.sum(total, axis=0).to(grad_weight.dtype.element_ty)
    tl.store(grad_weight + element % channels * TAPS + element // channels, summed, mask=valid)

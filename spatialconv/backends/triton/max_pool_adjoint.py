"""Gradient of max pooling, in gather form: each input position adds up the windows whose maximum it is, so that every
element is written once and sums have one order.

Gathering finds an index only where it lies in its own window, as those of a forward pass do; a caller may hand in any.
So the places found are counted, and a second kernel sums anew, over all outputs, where fewer were found than there are
windows. Window offsets need no count. Indices outside of the plane and those of windows without an element count for
nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .strips import (
    end_column,
    first_column,
    first_source,
    first_tap,
    is_read,
    place,
    repeated,
    source_of_tap,
    strides,
    tap_of,
)


@triton.jit
def gather_maxima(
    grad_output, places, grad_input, found, images, channel_vectors, source_u, source_v, result_u, result_v,
    U_KERNEL: tl.constexpr, U_STRIDE: tl.constexpr, U_PADDING: tl.constexpr, U_DILATION: tl.constexpr,
    V_KERNEL: tl.constexpr, V_STRIDE: tl.constexpr, V_PADDING: tl.constexpr, V_DILATION: tl.constexpr,
    V_PERIOD: tl.constexpr, OFFSETS: tl.constexpr, CHANNELS_LAST: tl.constexpr, VECTOR: tl.constexpr,
    STRIP: tl.constexpr, SLOTS_U: tl.constexpr, SLOTS_V: tl.constexpr, LANES: tl.constexpr, INDEX: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """``found``: how many windows found their maximum in each program's tile."""
    channels = channel_vectors * VECTOR
    image, channel, u, v, phase = place(
        channels, result_u, result_v, V_STRIDE, CHANNELS_LAST, STRIP, SLOTS_U, SLOTS_V, LANES
    )
    valid = (image < images) & (channel < channels) & (v < result_v)
    channel = channel.to(INDEX)
    step_c, step_u, step_v = strides(channels, source_u, source_v, CHANNELS_LAST)
    first = first_source(u, U_STRIDE, U_PADDING, True)
    plane = image * source_u * source_v * channels + channel * step_c + first.to(INDEX) * step_u
    if CHANNELS_LAST:
        position, position_step = v.to(tl.int64) * result_u + u, 1
    else:
        position, position_step = u.to(tl.int64) * result_v + v, result_v
    count = tl.zeros([LANES, SLOTS_U * SLOTS_V], tl.int32)
    sums = repeated(tl.zeros([LANES, SLOTS_U * SLOTS_V], SUM), STRIP)
    for tap_v in range(first_tap(phase, V_KERNEL, V_PERIOD, V_STRIDE, V_PADDING, V_DILATION), V_KERNEL, V_PERIOD):
        row = source_of_tap(v, tap_v, V_STRIDE, V_PADDING, V_DILATION, True)
        row_inside = valid & (row >= 0) & (row < source_v)
        for j in tl.static_range(
            first_column(STRIP, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, True),
            end_column(STRIP, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, True),
        ):
            if is_read(j, STRIP, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, True):
                inside = row_inside & (first + j >= 0) & (first + j < source_u)
                at = plane + j * step_u + row.to(INDEX) * step_v
                gradient = tl.load(grad_output + at, mask=inside, other=0).to(SUM)
                if OFFSETS:
                    place_of = tl.load(places + at, mask=inside, other=0).to(tl.int32)
                else:
                    place_of = tl.load(places + at, mask=inside, other=-1)
                added = ()
                for t in tl.static_range(STRIP):
                    if tap_of(t, j, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, True) >= 0:
                        if OFFSETS:
                            if CHANNELS_LAST:
                                wanted = tap_v * U_KERNEL + tap_of(
                                    t, j, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, True
                                )
                            else:
                                wanted = (
                                    tap_of(t, j, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, True) * V_KERNEL + tap_v
                                )
                            mine = place_of == wanted
                        else:
                            mine = (place_of == position + t * position_step) & (u + t < result_u)
                            count += mine.to(tl.int32)
                        added = added + (sums[t] + tl.where(mine, gradient, 0),)
                    else:
                        added = added + (sums[t],)
                sums = added
    step_c, step_u, step_v = strides(channels, result_u, result_v, CHANNELS_LAST)
    result = grad_input + image * result_u * result_v * channels + channel * step_c
    result += u.to(INDEX) * step_u + v.to(INDEX) * step_v
    for t in tl.static_range(STRIP):
        tl.store(result + t * step_u, sums[t].to(grad_input.dtype.element_ty), mask=valid & (u + t < result_u))
    if not OFFSETS:
        tl.store(found + tl.program_id(0), tl.sum(tl.sum(count, axis=1), axis=0))


@triton.jit
def holds_element(
    index, size, KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr
):
    """Whether a window holds a position of the image, along one axis."""
    first = index * STRIDE - PADDING
    inside = first + (tl.maximum(-first, 0) + DILATION - 1) // DILATION * DILATION
    return inside < tl.minimum(first + (KERNEL - 1) * DILATION + 1, size)


@triton.jit
def sum_anew(
    grad_output, places, grad_input, found, images, channels, source_h, source_w, result_h, result_w, tiles, windows,
    H_KERNEL: tl.constexpr, H_STRIDE: tl.constexpr, H_PADDING: tl.constexpr, H_DILATION: tl.constexpr,
    W_KERNEL: tl.constexpr, W_STRIDE: tl.constexpr, W_PADDING: tl.constexpr, W_DILATION: tl.constexpr,
    ADAPTIVE: tl.constexpr, CHANNELS_LAST: tl.constexpr, PLANES: tl.constexpr, TOGETHER: tl.constexpr,
    BLOCK: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """One program: the PLANES planes whose gradient ``tiles`` programs of ``gather_maxima`` computed. Does nothing if
    all their windows, ``windows`` a plane, found their maxima."""
    program = tl.program_id(0)
    if CHANNELS_LAST:
        blocks = tl.cdiv(channels, PLANES)
        channel = program % blocks * PLANES + tl.arange(0, PLANES)
        image = program // blocks + tl.arange(0, PLANES) * 0
    else:
        blocks = 1
        plane = program * PLANES + tl.arange(0, PLANES)
        channel = plane % channels
        image = plane // channels
    valid = (channel < channels) & (image < images)
    image = image.to(tl.int64)
    step = channels if CHANNELS_LAST else 1
    if CHANNELS_LAST:
        from_plane = image * source_h * source_w * channels + channel
        to_plane = image * result_h * result_w * channels + channel
    else:
        from_plane = (image * channels + channel) * source_h * source_w
        to_plane = (image * channels + channel) * result_h * result_w
    counted = tl.zeros([TOGETHER], tl.int64)
    for first in range(0, tiles, TOGETHER):
        tile = first + tl.arange(0, TOGETHER)
        at = (program // blocks).to(tl.int64) * tiles * blocks + tile * blocks + program % blocks
        counted += tl.load(found + at, mask=tile < tiles, other=0)
    if tl.sum(counted, axis=0) != tl.sum(valid.to(tl.int64), axis=0) * windows:
        for begin in range(0, result_h * result_w, BLOCK):
            position = begin + tl.arange(0, BLOCK)
            total = tl.zeros([PLANES, BLOCK], SUM)
            for output in range(0, source_h * source_w):
                summed = valid
                if not ADAPTIVE:
                    row, column = output // source_w, output % source_w
                    summed = summed & holds_element(row, result_h, H_KERNEL, H_STRIDE, H_PADDING, H_DILATION)
                    summed = summed & holds_element(column, result_w, W_KERNEL, W_STRIDE, W_PADDING, W_DILATION)
                at = from_plane + output * step
                gradient = tl.load(grad_output + at, mask=summed, other=0).to(SUM)
                index = tl.load(places + at, mask=summed, other=-1)
                total += tl.where(index[:, None] == position[None, :], gradient[:, None], 0)
            to = grad_input + to_plane[:, None] + position[None, :].to(tl.int64) * step
            inside = valid[:, None] & (position[None, :] < result_h * result_w)
            tl.store(to, total.to(grad_input.dtype.element_ty), mask=inside)

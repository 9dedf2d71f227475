"""Depthwise convolution and its gradient by the input: a sliding register window per channel.

A strip keeps its sums in registers, and the taps of one filter row with them; a column of the source is loaded once a
filter row. The gradient by the input is the same walk in gather form (see ``strips``): every element is written once,
by the program that sums it.
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
def add_filter_row(
    sums, source, column_step, weight, tap_step, first, u_size, row_inside, lane_inside,
    U_KERNEL: tl.constexpr, U_STRIDE: tl.constexpr, U_PADDING: tl.constexpr, U_DILATION: tl.constexpr,
    ADJOINT: tl.constexpr, STRIP: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """The sums of a strip, a tuple of STRIP tiles, with the products of one row of taps added."""
    taps = ()
    for tap in tl.static_range(U_KERNEL):
        taps = taps + (tl.load(weight + tap * tap_step, mask=lane_inside, other=0).to(SUM),)
    for j in tl.static_range(
        first_column(STRIP, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, ADJOINT),
        end_column(STRIP, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, ADJOINT),
    ):
        if is_read(j, STRIP, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, ADJOINT):
            inside = row_inside & (first + j >= 0) & (first + j < u_size)
            column = tl.load(source + j * column_step, mask=inside, other=0).to(SUM)
            added = ()
            for t in tl.static_range(STRIP):
                if tap_of(t, j, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, ADJOINT) >= 0:
                    tap = taps[tap_of(t, j, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, ADJOINT)]
                    added = added + (sums[t] + column * tap,)
                else:
                    added = added + (sums[t],)
            sums = added
    return sums


@triton.jit
def correlate(
    source, weight, bias, result, images, channel_vectors, source_u, source_v, result_u, result_v,
    MULTIPLIER: tl.constexpr, U_KERNEL: tl.constexpr, U_STRIDE: tl.constexpr, U_PADDING: tl.constexpr,
    U_DILATION: tl.constexpr, V_KERNEL: tl.constexpr, V_STRIDE: tl.constexpr, V_PADDING: tl.constexpr,
    V_DILATION: tl.constexpr, V_PERIOD: tl.constexpr, V_PHASES: tl.constexpr, ADJOINT: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, VECTOR: tl.constexpr, STRIP: tl.constexpr, SLOTS_U: tl.constexpr,
    SLOTS_V: tl.constexpr, LANES: tl.constexpr, UNROLL: tl.constexpr, INDEX: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """``channel_vectors``: channels of the result / VECTOR, so that the compiler sees what 16-byte access needs. The
    weight lies [taps, oc] for channels_last, else [oc, taps]."""
    channels = channel_vectors * VECTOR
    source_channels = channels * MULTIPLIER if ADJOINT else channels // MULTIPLIER
    image, channel, u, v, phase = place(
        channels, result_u, result_v, V_PHASES, CHANNELS_LAST, STRIP, SLOTS_U, SLOTS_V, LANES
    )
    valid = (image < images) & (channel < channels) & (v < result_v)
    # Full tiles of pointers, also where all lanes or slots point to one address: so everything has one register layout.
    channel = (channel + (u + v) * 0).to(INDEX)
    source_step_c, source_step_u, source_step_v = strides(source_channels, source_u, source_v, CHANNELS_LAST)
    step_c, step_u, step_v = strides(channels, result_u, result_v, CHANNELS_LAST)
    first = first_source(u, U_STRIDE, U_PADDING, ADJOINT)
    source += image * source_u * source_v * source_channels + first.to(INDEX) * source_step_u
    if CHANNELS_LAST:
        weight_channels = channels if not ADJOINT else source_channels
        weight_step_u, weight_step_v, weight_step_c = weight_channels, weight_channels * U_KERNEL, 1
    else:
        weight_step_u, weight_step_v, weight_step_c = V_KERNEL, 1, U_KERNEL * V_KERNEL

    start = tl.zeros([LANES, SLOTS_U * SLOTS_V], SUM)
    if bias is not None:
        start += tl.load(bias + channel, mask=valid, other=0).to(SUM)
    sums = repeated(start, STRIP)
    for part in range(MULTIPLIER if ADJOINT else 1):
        if ADJOINT:
            source_channel = channel * MULTIPLIER + part
            weight_channel = source_channel
        else:
            source_channel = channel // MULTIPLIER
            weight_channel = channel
        plane = source + source_channel * source_step_c
        filter = weight + weight_channel * weight_step_c
        if UNROLL:
            for tap in tl.static_range(V_KERNEL):
                row = source_of_tap(v, tap, V_STRIDE, V_PADDING, V_DILATION, ADJOINT)
                sums = add_filter_row(
                    sums, plane + row.to(INDEX) * source_step_v, source_step_u, filter + tap * weight_step_v,
                    weight_step_u, first, source_u, valid & (row >= 0) & (row < source_v), valid,
                    U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, ADJOINT, STRIP, SUM,
                )  # fmt: skip
        else:
            begin = first_tap(phase, V_KERNEL, V_PERIOD, V_STRIDE, V_PADDING, V_DILATION) if ADJOINT else 0
            for tap in range(begin, V_KERNEL, V_PERIOD):
                row = source_of_tap(v, tap, V_STRIDE, V_PADDING, V_DILATION, ADJOINT)
                sums = add_filter_row(
                    sums, plane + row.to(INDEX) * source_step_v, source_step_u, filter + tap * weight_step_v,
                    weight_step_u, first, source_u, valid & (row >= 0) & (row < source_v), valid,
                    U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, ADJOINT, STRIP, SUM,
                )  # fmt: skip

    result += image * result_u * result_v * channels + channel * step_c + u.to(INDEX) * step_u + v.to(INDEX) * step_v
    for t in tl.static_range(STRIP):
        tl.store(result + t * step_u, sums[t].to(result.dtype.element_ty), mask=valid & (u + t < result_u))

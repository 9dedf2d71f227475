"""The largest element or the average of windows of one size: each column of a strip is combined over the window's rows
once, then used for every window it belongs to.

-inf or 0 stand for what is outside of the image, so windows that hold no element come out as that. Of zeros of both
signs the positive one is the larger.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .strips import end_column, first_source, is_read, place, repeated, source_of_tap, strides, tap_of


@triton.jit
def combine(first, second, MAXIMUM: tl.constexpr):
    if MAXIMUM:
        combined = tl.maximum(first, second, propagate_nan=tl.PropagateNan.ALL)
    else:
        combined = first + second
    return combined


@triton.jit
def length_inside(first, size, KERNEL: tl.constexpr, PADDING: tl.constexpr, INCLUDE_PAD: tl.constexpr):
    """How many positions of a window along one axis count in an average: torch's rule."""
    if INCLUDE_PAD:
        length = tl.minimum(first + KERNEL, size + PADDING) - first
    else:
        length = tl.minimum(first + KERNEL, size) - tl.maximum(first, 0)
    return tl.maximum(length, 0)


@triton.jit
def divisor(
    u, v, u_size, v_size, U_KERNEL: tl.constexpr, U_STRIDE: tl.constexpr, U_PADDING: tl.constexpr,
    V_KERNEL: tl.constexpr, V_STRIDE: tl.constexpr, V_PADDING: tl.constexpr, DIVISOR: tl.constexpr,
    INCLUDE_PAD: tl.constexpr,
):  # fmt: skip
    """What the sum of window (u, v) is divided by; DIVISOR where that is the same for all, 0 where it is not."""
    if DIVISOR != 0:
        by = u * 0 + v * 0 + DIVISOR
    else:
        u_length = length_inside(u * U_STRIDE - U_PADDING, u_size, U_KERNEL, U_PADDING, INCLUDE_PAD)
        v_length = length_inside(v * V_STRIDE - V_PADDING, v_size, V_KERNEL, V_PADDING, INCLUDE_PAD)
        by = tl.maximum(u_length * v_length, 1)
    return by


@triton.jit
def windows(
    source, result, images, channel_vectors, source_u, source_v, result_u, result_v,
    U_KERNEL: tl.constexpr, U_STRIDE: tl.constexpr, U_PADDING: tl.constexpr, U_DILATION: tl.constexpr,
    V_KERNEL: tl.constexpr, V_STRIDE: tl.constexpr, V_PADDING: tl.constexpr, V_DILATION: tl.constexpr,
    MAXIMUM: tl.constexpr, DIVISOR: tl.constexpr, INCLUDE_PAD: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    VECTOR: tl.constexpr, STRIP: tl.constexpr, SLOTS_U: tl.constexpr, SLOTS_V: tl.constexpr, LANES: tl.constexpr,
    UNROLL: tl.constexpr, INDEX: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    channels = channel_vectors * VECTOR
    image, channel, u, v, _ = place(channels, result_u, result_v, 1, CHANNELS_LAST, STRIP, SLOTS_U, SLOTS_V, LANES)
    valid = (image < images) & (channel < channels) & (v < result_v)
    channel = channel.to(INDEX)
    step_c, step_u, step_v = strides(channels, source_u, source_v, CHANNELS_LAST)
    first = first_source(u, U_STRIDE, U_PADDING, False)
    plane = source + image * source_u * source_v * channels + channel * step_c + first.to(INDEX) * step_u
    nothing: tl.constexpr = float("-inf") if MAXIMUM else 0.0
    start = tl.full([LANES, SLOTS_U * SLOTS_V], nothing, SUM)
    totals = repeated(start, STRIP)
    for j in tl.static_range(end_column(STRIP, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, False)):
        if is_read(j, STRIP, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, False):
            column_inside = valid & (first + j >= 0) & (first + j < source_u)
            column = start
            if UNROLL:
                for tap in tl.static_range(V_KERNEL):
                    row = source_of_tap(v, tap, V_STRIDE, V_PADDING, V_DILATION, False)
                    inside = column_inside & (row >= 0) & (row < source_v)
                    loaded = tl.load(plane + j * step_u + row.to(INDEX) * step_v, mask=inside, other=nothing)
                    column = combine(column, loaded.to(SUM), MAXIMUM)
            else:
                for begin in range(0, V_KERNEL, 4):
                    # Four loads under way at a time, in code that stays short.
                    for ahead in tl.static_range(4):
                        row = source_of_tap(v, begin + ahead, V_STRIDE, V_PADDING, V_DILATION, False)
                        inside = column_inside & (row >= 0) & (row < source_v) & (begin + ahead < V_KERNEL)
                        loaded = tl.load(plane + j * step_u + row.to(INDEX) * step_v, mask=inside, other=nothing)
                        column = combine(column, loaded.to(SUM), MAXIMUM)
            combined = ()
            for t in tl.static_range(STRIP):
                if tap_of(t, j, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, False) >= 0:
                    combined = combined + (combine(totals[t], column, MAXIMUM),)
                else:
                    combined = combined + (totals[t],)
            totals = combined
    step_c, step_u, step_v = strides(channels, result_u, result_v, CHANNELS_LAST)
    result += image * result_u * result_v * channels + channel * step_c + u.to(INDEX) * step_u + v.to(INDEX) * step_v
    for t in tl.static_range(STRIP):
        total = totals[t]
        if not MAXIMUM:
            total = total / divisor(
                u + t, v, source_u, source_v, U_KERNEL, U_STRIDE, U_PADDING, V_KERNEL, V_STRIDE, V_PADDING,
                DIVISOR, INCLUDE_PAD,
            ).to(SUM)  # fmt: skip
        tl.store(result + t * step_u, total.to(result.dtype.element_ty), mask=valid & (u + t < result_u))

"""Gradient of average pooling, in gather form: each input position adds up its shares of the windows that hold it."""

from __future__ import annotations

import triton
import triton.language as tl

from .pool_windows import divisor
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
def spread_averages(
    grad_output, grad_input, images, channel_vectors, source_u, source_v, result_u, result_v,
    U_KERNEL: tl.constexpr, U_STRIDE: tl.constexpr, U_PADDING: tl.constexpr, U_DILATION: tl.constexpr,
    V_KERNEL: tl.constexpr, V_STRIDE: tl.constexpr, V_PADDING: tl.constexpr, V_DILATION: tl.constexpr,
    V_PERIOD: tl.constexpr, DIVISOR: tl.constexpr, INCLUDE_PAD: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    VECTOR: tl.constexpr, STRIP: tl.constexpr, SLOTS_U: tl.constexpr, SLOTS_V: tl.constexpr, LANES: tl.constexpr,
    INDEX: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    channels = channel_vectors * VECTOR
    image, channel, u, v, phase = place(
        channels, result_u, result_v, V_STRIDE, CHANNELS_LAST, STRIP, SLOTS_U, SLOTS_V, LANES
    )
    valid = (image < images) & (channel < channels) & (v < result_v)
    channel = channel.to(INDEX)
    step_c, step_u, step_v = strides(channels, source_u, source_v, CHANNELS_LAST)
    first = first_source(u, U_STRIDE, U_PADDING, True)
    plane = grad_output + image * source_u * source_v * channels + channel * step_c + first.to(INDEX) * step_u
    sums = repeated(tl.zeros([LANES, SLOTS_U * SLOTS_V], SUM), STRIP)
    for tap in range(first_tap(phase, V_KERNEL, V_PERIOD, V_STRIDE, V_PADDING, V_DILATION), V_KERNEL, V_PERIOD):
        row = source_of_tap(v, tap, V_STRIDE, V_PADDING, V_DILATION, True)
        row_inside = valid & (row >= 0) & (row < source_v)
        for j in tl.static_range(
            first_column(STRIP, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, True),
            end_column(STRIP, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, True),
        ):
            if is_read(j, STRIP, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, True):
                inside = row_inside & (first + j >= 0) & (first + j < source_u)
                share = tl.load(plane + j * step_u + row.to(INDEX) * step_v, mask=inside, other=0).to(SUM)
                if DIVISOR == 0:
                    share = share / divisor(
                        first + j, row, result_u, result_v, U_KERNEL, U_STRIDE, U_PADDING,
                        V_KERNEL, V_STRIDE, V_PADDING, DIVISOR, INCLUDE_PAD,
                    ).to(SUM)  # fmt: skip
                added = ()
                for t in tl.static_range(STRIP):
                    if tap_of(t, j, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, True) >= 0:
                        added = added + (sums[t] + share,)
                    else:
                        added = added + (sums[t],)
                sums = added
    step_c, step_u, step_v = strides(channels, result_u, result_v, CHANNELS_LAST)
    result = grad_input + image * result_u * result_v * channels + channel * step_c
    result += u.to(INDEX) * step_u + v.to(INDEX) * step_v
    for t in tl.static_range(STRIP):
        total = sums[t]
        if DIVISOR != 0:
            total = total / DIVISOR
        tl.store(result + t * step_u, total.to(grad_input.dtype.element_ty), mask=valid & (u + t < result_u))

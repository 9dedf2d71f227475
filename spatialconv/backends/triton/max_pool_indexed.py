"""Max pooling that notes where each maximum stands, as an index into the plane or as a uint8 tap of the window.

The taps of a window are met row by row, and a later element wins only if it is larger or NaN: so the first of equal
elements wins, and the last NaN, as in torch.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .strips import end_column, first_source, is_read, place, repeated, source_of_tap, strides, tap_of


@triton.jit
def meet(
    best, where, source, inside, tap_v, j, U_KERNEL: tl.constexpr, U_STRIDE: tl.constexpr, U_DILATION: tl.constexpr,
    V_KERNEL: tl.constexpr, CHANNELS_LAST: tl.constexpr, STRIP: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """The largest elements of a strip's windows and their taps, after one more element of column j."""
    element = tl.load(source, mask=inside, other=float("-inf")).to(SUM)
    is_nan = element != element
    larger = ()
    there = ()
    for t in tl.static_range(STRIP):
        if tap_of(t, j, U_KERNEL, U_STRIDE, 0, U_DILATION, False) >= 0:
            if CHANNELS_LAST:
                tap = tap_v * U_KERNEL + tap_of(t, j, U_KERNEL, U_STRIDE, 0, U_DILATION, False)
            else:
                tap = tap_of(t, j, U_KERNEL, U_STRIDE, 0, U_DILATION, False) * V_KERNEL + tap_v
            better = (element > best[t]) | is_nan
            larger = larger + (tl.where(better, element, best[t]),)
            there = there + (tl.where(better, tap, where[t]),)
        else:
            larger = larger + (best[t],)
            there = there + (where[t],)
    return larger, there


@triton.jit
def first_tap_inside(first, DILATION: tl.constexpr):
    """The first tap of a window that begins at ``first`` which is not before the image."""
    return (tl.maximum(-first, 0) + DILATION - 1) // DILATION


@triton.jit
def indexed_windows(
    source, values, places, images, channel_vectors, source_u, source_v, result_u, result_v,
    U_KERNEL: tl.constexpr, U_STRIDE: tl.constexpr, U_PADDING: tl.constexpr, U_DILATION: tl.constexpr,
    V_KERNEL: tl.constexpr, V_STRIDE: tl.constexpr, V_PADDING: tl.constexpr, V_DILATION: tl.constexpr,
    OFFSETS: tl.constexpr, CHANNELS_LAST: tl.constexpr, VECTOR: tl.constexpr, STRIP: tl.constexpr,
    SLOTS_U: tl.constexpr, SLOTS_V: tl.constexpr, LANES: tl.constexpr, INDEX: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    channels = channel_vectors * VECTOR
    image, channel, u, v, _ = place(channels, result_u, result_v, 1, CHANNELS_LAST, STRIP, SLOTS_U, SLOTS_V, LANES)
    valid = (image < images) & (channel < channels) & (v < result_v)
    channel = channel.to(INDEX)
    step_c, step_u, step_v = strides(channels, source_u, source_v, CHANNELS_LAST)
    first_u = first_source(u, U_STRIDE, U_PADDING, False)
    first_v = first_source(v, V_STRIDE, V_PADDING, False)
    plane = source + image * source_u * source_v * channels + channel * step_c + first_u.to(INDEX) * step_u
    best = repeated(tl.full([LANES, SLOTS_U * SLOTS_V], float("-inf"), SUM), STRIP)
    where = repeated(tl.full([LANES, SLOTS_U * SLOTS_V], -1, tl.int32), STRIP)
    # Row by row: the rows of a window are its taps along v in channels_last, along u in contiguous tensors.
    if CHANNELS_LAST:
        for tap in range(V_KERNEL):
            row = source_of_tap(v, tap, V_STRIDE, V_PADDING, V_DILATION, False)
            row_inside = valid & (row >= 0) & (row < source_v)
            for j in tl.static_range(end_column(STRIP, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, False)):
                if is_read(j, STRIP, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, False):
                    best, where = meet(
                        best, where, plane + row.to(INDEX) * step_v + j * step_u,
                        row_inside & (first_u + j >= 0) & (first_u + j < source_u), tap, j,
                        U_KERNEL, U_STRIDE, U_DILATION, V_KERNEL, CHANNELS_LAST, STRIP, SUM,
                    )  # fmt: skip
    else:
        for j in tl.static_range(end_column(STRIP, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, False)):
            if is_read(j, STRIP, U_KERNEL, U_STRIDE, U_PADDING, U_DILATION, False):
                row_inside = valid & (first_u + j >= 0) & (first_u + j < source_u)
                for tap in range(V_KERNEL):
                    column = source_of_tap(v, tap, V_STRIDE, V_PADDING, V_DILATION, False)
                    best, where = meet(
                        best, where, plane + column.to(INDEX) * step_v + j * step_u,
                        row_inside & (column >= 0) & (column < source_v), tap, j,
                        U_KERNEL, U_STRIDE, U_DILATION, V_KERNEL, CHANNELS_LAST, STRIP, SUM,
                    )  # fmt: skip
    step_c, step_u, step_v = strides(channels, result_u, result_v, CHANNELS_LAST)
    at = image * result_u * result_v * channels + channel * step_c + u.to(INDEX) * step_u + v.to(INDEX) * step_v
    for t in tl.static_range(STRIP):
        kept = valid & (u + t < result_u)
        tl.store(values + at + t * step_u, best[t].to(values.dtype.element_ty), mask=kept)
        # Where nothing was larger than -inf, the first element of the window wins; an empty window has none.
        window_u = first_u + t * U_STRIDE
        tap_u = first_tap_inside(window_u, U_DILATION)
        tap_v = first_tap_inside(first_v, V_DILATION)
        if CHANNELS_LAST:
            none = tap_v * U_KERNEL + tap_u
        else:
            none = tap_u * V_KERNEL + tap_v
        if OFFSETS:
            exists = (window_u + tap_u * U_DILATION < source_u) & (first_v + tap_v * V_DILATION < source_v)
            exists = exists & (tap_u < U_KERNEL) & (tap_v < V_KERNEL)
            tap = tl.where(where[t] >= 0, where[t], tl.where(exists, none, 0))
            tl.store(places + at + t * step_u, tap.to(tl.uint8), mask=kept)
        else:
            if CHANNELS_LAST:
                found_u, found_v = where[t] % U_KERNEL, where[t] // U_KERNEL
            else:
                found_u, found_v = where[t] // V_KERNEL, where[t] % V_KERNEL
            position_u = window_u + tl.where(where[t] >= 0, found_u, tap_u) * U_DILATION
            position_v = first_v + tl.where(where[t] >= 0, found_v, tap_v) * V_DILATION
            position_u = tl.minimum(position_u, source_u - 1).to(INDEX)
            position_v = tl.minimum(position_v, source_v - 1).to(INDEX)
            if CHANNELS_LAST:
                index = position_v * source_u + position_u
            else:
                index = position_u * source_v + position_v
            tl.store(places + at + t * step_u, index.to(tl.int64), mask=kept)

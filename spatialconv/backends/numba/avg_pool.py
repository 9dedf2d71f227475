"""Average pooling and its gradient, window by window: rows of the window first, then its columns; nchw by
``pool_ring.py``, where it serves, columns first.

Forward, a task is one output row: of one channel (nchw), of all (nhwc). Backward, it is one plane (nchw) or a chunk of
the channels of an image (nhwc). Where one window is the whole plane, its elements are summed as one run of memory.
"""

from __future__ import annotations

from numba import njit

from . import pool_fields as f
from .copies import fill
from .masked import load_first, load_where, mask_between, store_first
from .max_pool_planes import part
from .memory import as_element, elements, integers, itemsize, moved
from .pool_pixels import pixels_of
from .pool_ring import ring_of
from .vectors import add, divide, lanes, load, load_even, splat, store, sum_of_lanes
from .windows import column_window, row_window, window_divisor


@njit(error_model="numpy")
def add_to(sums, values, step, count):
    """sums[i] += values[i * step]."""
    if step == 1:
        for i in range(count):
            sums[i] += values[i]
    elif step == 2:
        for i in range(count):
            sums[i] += values[2 * i]
    else:
        for i in range(count):
            sums[i] += values[i * step]


@njit(error_model="numpy")
def divide_all(sums, divisor, count):
    for i in range(count):
        sums[i] /= divisor


def avg_pool2d(begin, end, context):
    p = integers(context)
    x, y = elements(context, p[f.X]), elements(context, p[f.Y])
    for slab in range(begin, end):
        scratch = elements(context, p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(context))
        last = p[f.TASKS] * (slab + 1) // p[f.SLABS]
        if p[f.ADAPTIVE] and p[f.OH] == 1 and p[f.OW] == 1 and not p[f.NHWC]:
            plane_averages(x, y, p[f.TASKS] * slab // p[f.SLABS], last, p[f.IH] * p[f.IW])
            continue
        for task in range(p[f.TASKS] * slab // p[f.SLABS], last):
            oh = task % p[f.OH]
            if p[f.NHWC]:
                at = task // p[f.OH] * p[f.Y_N] + oh * p[f.Y_H]
                average_pixels(p, moved(x, task // p[f.OH] * p[f.X_N]), moved(y, at), oh)
            else:
                average_row(p, moved(x, task // p[f.OH] * (p[f.IH] * p[f.IW])), moved(y, task * p[f.OW]), scratch, oh)


@njit(error_model="numpy")
def sum_of(held, value):
    return add(held, value)


ringed_slabs = ring_of("average", sum_of, 0.0)
average_pixels = pixels_of("average", sum_of, 0.0)


def avg_pool2d_in_ring(begin, end, context):
    """nchw, where ``pool_ring.py`` serves."""
    p = integers(context)
    ringed_slabs(p, elements(context, p[f.X]), elements(context, p[f.Y]), begin, end)


@njit(error_model="numpy")
def plane_averages(x, y, begin, end, count):
    """Each the average of ``count`` elements that follow each other."""
    width, nothing = lanes(x), splat(x, 0)
    whole = count // width * width
    rest, divisor = mask_between(x, 0, count - whole), as_element(x, count)
    for plane in range(begin, end):
        values, total = moved(x, plane * count), nothing
        for i in range(0, whole, width):
            total = add(total, load(values, i))
        if whole < count:
            total = add(total, load_where(rest, values, whole, nothing))
        y[plane] = sum_of_lanes(total) / divisor


@njit(error_model="numpy")
def average_row(p, plane, y, scratch, oh):
    """``scratch`` holds the divisors, then the sum of each column, 0 where the image is padded."""
    nothing = as_element(y, 0)
    left = 0 if p[f.ADAPTIVE] else p[f.PW]
    padded = moved(scratch, p[f.OW] + lanes(y))
    columns = moved(padded, left)
    sums_of_columns(p, plane, columns, oh)
    for ow in range(p[f.OW]):
        scratch[ow] = as_element(y, window_divisor(p, oh, ow))
    if p[f.ADAPTIVE]:
        for ow in range(p[f.OW]):
            begin, taps, _ = column_window(p, ow)
            total = nothing
            for i in range(begin, begin + taps):
                total += columns[i]
            y[ow] = total / scratch[ow]
        return
    fill(padded, left, nothing)
    fill(moved(columns, p[f.IW]), (p[f.OW] - 1) * p[f.SW] + (p[f.KW] - 1) * p[f.DW] + 1 - left - p[f.IW], nothing)
    averages_of_windows(p, padded, scratch, y)


@njit(error_model="numpy")
def sums_of_columns(p, plane, columns, oh):
    first, count, step = row_window(p, oh)
    for i in range(0, p[f.IW], lanes(columns)):
        total = splat(columns, 0)
        for tap in range(count):
            total = add(total, load_first(plane, (first + tap * step) * p[f.IW] + i, p[f.IW] - i))
        store(columns, i, total)


@njit(error_model="numpy")
def averages_of_windows(p, columns, divisors, y):
    """Each output of a row from the columns of its window; up to two vectors behind the last column are read."""
    if p[f.SW] > 2:
        fill(y, p[f.OW], as_element(y, 0))
        for kw in range(p[f.KW]):
            add_to(y, moved(columns, kw * p[f.DW]), p[f.SW], p[f.OW])
        for ow in range(p[f.OW]):
            y[ow] /= divisors[ow]
        return
    for ow in range(0, p[f.OW], lanes(y)):
        total = splat(y, 0)
        if p[f.SW] == 1:
            for kw in range(p[f.KW]):
                total = add(total, load(columns, ow + kw * p[f.DW]))
        else:
            for kw in range(p[f.KW]):
                total = add(total, load_even(columns, 2 * ow + kw * p[f.DW]))
        store_first(y, ow, divide(total, load(divisors, ow)), p[f.OW] - ow)


def avg_pool2d_grad_input(begin, end, context):
    p = integers(context)
    x, y = elements(context, p[f.X]), elements(context, p[f.Y])
    for slab in range(begin, end):
        scratch = elements(context, p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(context))
        for task in range(p[f.TASKS] * slab // p[f.SLABS], p[f.TASKS] * (slab + 1) // p[f.SLABS]):
            to, source, channels, pixel = part(p, task)
            if p[f.NHWC]:
                spread_pixels(p, moved(x, to), moved(y, source), scratch, channels, pixel)
            else:
                spread_plane(p, moved(x, to), moved(y, source), scratch)


@njit(error_model="numpy")
def spread_plane(p, x, y, scratch):
    """Each row of windows is spread along the columns in ``scratch``, then added to the rows it covers."""
    fill(x, p[f.IH] * p[f.IW], as_element(x, 0))
    for oh in range(p[f.OH]):
        fill(scratch, p[f.IW], as_element(x, 0))
        for ow in range(p[f.OW]):
            begin, taps, across = column_window(p, ow)
            share = y[oh * p[f.OW] + ow] / as_element(y, window_divisor(p, oh, ow))
            for i in range(taps):
                scratch[begin + i * across] += share
        first, count, step = row_window(p, oh)
        for tap in range(count):
            add_to(moved(x, (first + tap * step) * p[f.IW]), scratch, 1, p[f.IW])


@njit(error_model="numpy")
def spread_pixels(p, x, y, scratch, channels, pixel):
    for i in range(p[f.IH] * p[f.IW]):
        fill(moved(x, i * pixel), channels, as_element(x, 0))
    for oh in range(p[f.OH]):
        first, count, step = row_window(p, oh)
        for ow in range(p[f.OW]):
            begin, taps, across = column_window(p, ow)
            fill(scratch, channels, as_element(x, 0))
            add_to(scratch, moved(y, (oh * p[f.OW] + ow) * pixel), 1, channels)
            divide_all(scratch, as_element(y, window_divisor(p, oh, ow)), channels)
            for tap in range(count):
                for i in range(taps):
                    at = (first + tap * step) * p[f.IW] + begin + i * across
                    add_to(moved(x, at * pixel), scratch, 1, channels)

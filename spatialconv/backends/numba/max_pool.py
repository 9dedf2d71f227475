"""Max pooling as torch defines it: the first of equal values wins, the last NaN wins.

Without indices a row of nchw is reduced by ``pool_ring.py``, or, where windows are wide, adaptive or step by more than
two columns, over the window's rows first and then along the columns; with indices, window by window in the order of its
elements. A task is one output row: of one channel (nchw), of all (nhwc).
"""

from __future__ import annotations

import math

from numba import njit

from . import pool_fields as f
from .arithmetic import first_inside, last_inside
from .copies import copy, fill
from .masked import load_first, store_first
from .memory import as_element, elements, indices_at, integers, itemsize, moved
from .pool_pixels import pixels_of
from .pool_ring import ring_of
from .vectors import lanes, larger, load, load_even, store
from .windows import column_window, row_window


def max_pool2d(begin, end, context):
    p = integers(context)
    x, y, indices = elements(context, p[f.X]), elements(context, p[f.Y]), indices_at(p[f.AUX])
    for slab in range(begin, end):
        scratch = elements(context, p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(context))
        for task in range(p[f.TASKS] * slab // p[f.SLABS], p[f.TASKS] * (slab + 1) // p[f.SLABS]):
            oh = task % p[f.OH]
            if p[f.NHWC]:
                plane = moved(x, task // p[f.OH] * p[f.X_N])
                at = task // p[f.OH] * p[f.Y_N] + oh * p[f.Y_H]
                if p[f.AUX] != 0:
                    indexed_pixels(p, plane, moved(y, at), moved(indices, at), oh)
                else:
                    pixels(p, plane, moved(y, at), oh)
                continue
            plane, at = moved(x, task // p[f.OH] * (p[f.IH] * p[f.IW])), task * p[f.OW]
            if p[f.AUX] != 0:
                indexed_row(p, plane, moved(y, at), moved(indices, at), oh)
            else:
                row(p, plane, moved(y, at), scratch, oh)


@njit(error_model="numpy")
def larger_of(held, value):
    return larger(held, value)


@njit(error_model="numpy")
def keep_larger(best, values, step, count):
    """best[i] = the larger of best[i] and values[i * step], NaN being the largest."""
    for i in range(count):
        value, held = values[i * step], best[i]
        best[i] = value if value > held or value != value else held


@njit(error_model="numpy")
def keep_larger_indexed(best, where, values, step, index, index_step, count):
    """The same, noting in where[i] the index + i * index_step of a value that is kept."""
    for i in range(count):
        value, held = values[i * step], best[i]
        better = value > held or value != value
        best[i] = value if better else held
        where[i] = index + i * index_step if better else where[i]


ringed_slabs = ring_of("maximum", larger_of, -math.inf)
pixels = pixels_of("maximum", larger_of, -math.inf)


def max_pool2d_in_ring(begin, end, context):
    """nchw, where ``pool_ring.py`` serves."""
    p = integers(context)
    ringed_slabs(p, elements(context, p[f.X]), elements(context, p[f.Y]), begin, end)


@njit(error_model="numpy")
def row(p, plane, y, scratch, oh):
    """One row without indices; ``scratch`` holds the largest of each column, -inf where the image is padded."""
    lowest = as_element(y, -math.inf)
    left = 0 if p[f.ADAPTIVE] else p[f.PW]
    columns = moved(scratch, left)
    largest_of_columns(p, plane, columns, oh)
    if p[f.ADAPTIVE]:
        for ow in range(p[f.OW]):
            begin, taps, _ = column_window(p, ow)
            best = lowest
            for i in range(begin, begin + taps):
                best = columns[i] if columns[i] > best or columns[i] != columns[i] else best
            y[ow] = best
        return
    fill(scratch, left, lowest)
    fill(moved(columns, p[f.IW]), (p[f.OW] - 1) * p[f.SW] + (p[f.KW] - 1) * p[f.DW] + 1 - left - p[f.IW], lowest)
    largest_of_windows(p, scratch, y)


@njit(error_model="numpy")
def largest_of_columns(p, plane, columns, oh):
    first, count, step = row_window(p, oh)
    if count == 0:
        fill(columns, p[f.IW], as_element(columns, -math.inf))
        return
    for i in range(0, p[f.IW], lanes(columns)):
        best = load_first(plane, first * p[f.IW] + i, p[f.IW] - i)
        for tap in range(1, count):
            best = larger(best, load_first(plane, (first + tap * step) * p[f.IW] + i, p[f.IW] - i))
        store(columns, i, best)


@njit(error_model="numpy")
def largest_of_windows(p, columns, y):
    """Each output of a row from the columns of its window; up to two vectors behind the last column are read."""
    if p[f.SW] == 1:
        for ow in range(0, p[f.OW], lanes(y)):
            best = load(columns, ow)
            for kw in range(1, p[f.KW]):
                best = larger(best, load(columns, ow + kw * p[f.DW]))
            store_first(y, ow, best, p[f.OW] - ow)
    elif p[f.SW] == 2:
        for ow in range(0, p[f.OW], lanes(y)):
            best = load_even(columns, 2 * ow)
            for kw in range(1, p[f.KW]):
                best = larger(best, load_even(columns, 2 * ow + kw * p[f.DW]))
            store_first(y, ow, best, p[f.OW] - ow)
    else:
        copy(y, columns, p[f.SW], p[f.OW])
        for kw in range(1, p[f.KW]):
            keep_larger(y, moved(columns, kw * p[f.DW]), p[f.SW], p[f.OW])


@njit(error_model="numpy")
def indexed_row(p, plane, y, where, oh):
    first, count, step = row_window(p, oh)
    lowest = as_element(y, -math.inf)
    for ow in range(p[f.OW]):
        begin, taps, across = column_window(p, ow)
        y[ow] = lowest
        where[ow] = first * p[f.IW] + begin
        if p[f.ADAPTIVE]:
            for tap in range(count):
                for i in range(taps):
                    at = (first + tap * step) * p[f.IW] + begin + i * across
                    keep_larger_indexed(moved(y, ow), moved(where, ow), moved(plane, at), 1, at, 0, 1)
    if p[f.ADAPTIVE]:
        return
    for tap in range(count):
        ih = first + tap * step
        for kw in range(p[f.KW]):
            shift = kw * p[f.DW] - p[f.PW]
            low = first_inside(shift, p[f.SW], p[f.OW])
            inside = last_inside(shift, p[f.SW], p[f.IW], p[f.OW]) - low
            at = ih * p[f.IW] + low * p[f.SW] + shift
            keep_larger_indexed(moved(y, low), moved(where, low), moved(plane, at), p[f.SW], at, p[f.SW], inside)


@njit(error_model="numpy")
def indexed_pixels(p, image, y, where, oh):
    first, count, step = row_window(p, oh)
    for ow in range(p[f.OW]):
        begin, taps, across = column_window(p, ow)
        best, index = moved(y, ow * p[f.IC]), moved(where, ow * p[f.IC])
        fill(best, p[f.IC], as_element(y, -math.inf))
        for c in range(p[f.IC]):
            index[c] = first * p[f.IW] + begin
        for tap in range(count):
            for i in range(taps):
                ih, iw = first + tap * step, begin + i * across
                pixel = moved(image, ih * p[f.X_H] + iw * p[f.X_W])
                keep_larger_indexed(best, index, pixel, 1, ih * p[f.IW] + iw, 0, p[f.IC])

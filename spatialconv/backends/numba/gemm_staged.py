"""Convolution as a matrix product that reads every tap from one staged band of the source, as ``staging.py`` describes
it: the source is copied once and not once a tap. Every sum is added up in the order of the packed filters.
"""

from __future__ import annotations

from numba import njit

from . import gemm_fields as f
from .arithmetic import first_inside, last_inside, smaller
from .copies import clear, copy, copy_padded
from .gemm import filter_width, store_lines, store_rows
from .memory import elements, integers, itemsize, moved
from .tiles import (
    TALL_ROWS,
    TALL_VECTORS,
    WIDE_VECTORS,
    narrow_tile,
    one_wide_tile,
    tall_tile,
    two_wide_tile,
    wide_tile,
)
from .vectors import lanes


def correlate(begin, end, context):
    """A slab is a share of the tasks; a task is a band of one group of an image and a panel of filters."""
    p = integers(context)
    source, dest = elements(context, p[f.SOURCE]), elements(context, p[f.DEST])
    filters, bias = elements(context, p[f.FILTERS]), elements(context, p[f.BIAS])
    width = filter_width(p, context)
    depth = p[f.TAPS_H] * p[f.TAPS_W] * p[f.SOURCE_CHANNELS]
    per_group = (p[f.DEST_CHANNELS] + width - 1) // width
    for slab in range(begin, end):
        sums = elements(context, p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(context))
        band = moved(sums, TALL_ROWS * WIDE_VECTORS * lanes(context))
        held = -1
        for task in range(p[f.TASKS] * slab // p[f.SLABS], p[f.TASKS] * (slab + 1) // p[f.SLABS]):
            panel, part = task % per_group, task // per_group
            group, image = part % p[f.GROUPS], part // p[f.GROUPS] // p[f.BANDS]
            first = part // p[f.GROUPS] % p[f.BANDS] * p[f.BAND]
            rows = smaller(p[f.BAND], p[f.COUNT_H] - first)
            if part != held:
                at = image * p[f.S_IMAGE] + group * p[f.SOURCE_CHANNELS] * p[f.S_CHANNEL]
                if p[f.NHWC]:
                    stage_pixels(p, moved(source, at), first, band)
                else:
                    stage_planes(p, moved(source, at), first, band)
                held = part
            weights = moved(filters, (group * per_group + panel) * depth * width)
            channel = group * p[f.DEST_CHANNELS] + panel * width
            count = smaller(width, p[f.DEST_CHANNELS] - panel * width)
            out, added = moved(dest, channel * p[f.D_CHANNEL]), moved(bias, channel)
            grid_row = image * p[f.COUNT_H] + first
            if p[f.NHWC]:
                pixels_times_panel(p, band, weights, out, added, grid_row, rows, count, sums)
            else:
                planes_times_panel(p, band, weights, out, added, grid_row, rows, count, sums)


@njit(error_model="numpy")
def stage_planes(p, source, first, band):
    """nchw: ascending, since every row is written up to a vector too far."""
    stride_h, stride, length = p[f.STRIDE_H], p[f.STRIDE_W], p[f.ROW_PITCH]
    for channel in range(p[f.SOURCE_CHANNELS]):
        plane = moved(source, channel * p[f.S_CHANNEL])
        for phase in range(stride_h * stride):
            to = moved(band, channel * p[f.CHANNEL_PITCH] + phase * p[f.PHASE_PITCH])
            shift, top = p[f.LOW_W] + phase % stride, first * stride_h + p[f.LOW_H] + phase // stride
            begin, end = first_inside(shift, stride, length), last_inside(shift, stride, p[f.SOURCE_W], length)
            for r in range(p[f.ROWS_STAGED]):
                row = top + r * stride_h
                there = row >= 0 and row < p[f.SOURCE_H]
                line = moved(plane, row * p[f.S_ROW])
                copy_padded(moved(to, r * length), length, line, begin, end if there else begin, shift, stride)


@njit(error_model="numpy")
def stage_pixels(p, source, first, band):
    """nhwc."""
    channels, pixel = p[f.SOURCE_CHANNELS], p[f.PIXEL_PITCH]
    columns = p[f.ROW_PITCH] // pixel
    begin, end = first_inside(p[f.LOW_W], 1, columns), last_inside(p[f.LOW_W], 1, p[f.SOURCE_W], columns)
    for r in range(p[f.ROWS_STAGED]):
        row, to = first * p[f.STRIDE_H] + p[f.LOW_H] + r, moved(band, r * p[f.ROW_PITCH])
        if row < 0 or row >= p[f.SOURCE_H]:
            clear(to, p[f.ROW_PITCH])
            continue
        clear(to, begin * pixel)
        line = moved(source, row * p[f.S_ROW] + p[f.LOW_W] * p[f.S_COLUMN])
        if channels == pixel and channels == p[f.S_COLUMN]:
            copy(moved(to, begin * pixel), moved(line, begin * pixel), 1, (end - begin) * pixel)
        else:
            for column in range(begin, end):
                copy(moved(to, column * pixel), moved(line, column * p[f.S_COLUMN]), 1, channels)
        clear(moved(to, end * pixel), (columns - end) * pixel)


@njit(error_model="numpy")
def planes_times_panel(p, band, weights, dest, bias, grid_row, rows, channels, sums):
    """nchw: tiles run over the band's grid rows as one line."""
    lane_count, pitch, columns = lanes(sums), p[f.ROW_PITCH], p[f.COUNT_W]
    width, count = WIDE_VECTORS * lane_count, (rows - 1) * pitch + columns
    runs, run, step, offsets = p[f.RUNS], p[f.RUN], p[f.CHANNEL_PITCH], moved(p, f.COUNT)
    for first in range(0, count, width):
        here, left = moved(band, first), count - first
        if left > 2 * lane_count:
            wide_tile(runs, offsets, run, weights, 1, here, step, sums, width, 0)
        elif left > lane_count:
            two_wide_tile(runs, offsets, run, weights, 1, here, step, sums, width, 0)
        else:
            one_wide_tile(runs, offsets, run, weights, 1, here, step, sums, width, 0)
        last = smaller(first + width, count)
        at = first
        while at < last:
            row, column = at // pitch, at % pitch
            wanted = smaller(last - at, columns - column)
            if wanted > 0:
                pixel = (grid_row + row) * columns + column
                store_lines(p, dest, bias, pixel, wanted, channels, moved(sums, at - first), width)
            at += smaller(last - at, pitch - column)


@njit(error_model="numpy")
def pixels_times_panel(p, band, weights, dest, bias, grid_row, rows, channels, sums):
    """nhwc: the last tile of a row holds pixels of the one before it, too, and computes them again to the same bits."""
    lane_count, columns = lanes(sums), p[f.COUNT_W]
    width, step = TALL_VECTORS * lane_count, p[f.STRIDE_W] * p[f.PIXEL_PITCH]
    runs, run, offsets = p[f.RUNS], p[f.RUN], moved(p, f.COUNT)
    narrow = channels <= lane_count
    direct = p[f.DENSE] and not p[f.BIAS] and (channels == width or channels == lane_count)
    for row in range(rows):
        line = moved(band, row * p[f.STRIDE_H] * p[f.ROW_PITCH])
        for first in range(0, columns, TALL_ROWS):
            column = smaller(first, columns - TALL_ROWS)
            pixel = (grid_row + row) * columns + column
            here = moved(line, column * step)
            out = moved(dest, pixel * p[f.D_COLUMN]) if direct else sums
            out_step = p[f.D_COLUMN] if direct else width
            if narrow:
                narrow_tile(runs, offsets, run, here, step, weights, width, out, out_step, 0)
            else:
                tall_tile(runs, offsets, run, here, step, weights, width, out, out_step, 0)
            if not direct:
                store_rows(p, dest, bias, pixel, TALL_ROWS, channels, sums, width)

"""Convolution as a matrix product whose large operand is packed block by block, for a correlation of any geometry.

nhwc: source pixels (rows of the tile) times panels of filters. nchw: panels of filters times lines of source pixels.
Every task's sums are added up in one order, wherever it lies.
"""

from __future__ import annotations

from numba import njit

from . import gemm_fields as f
from .arithmetic import smaller
from .copies import copy
from .memory import elements, integers, itemsize, moved
from .packing import pack_filter_block, pack_lines, pack_rows, pack_runs
from .tiles import TALL_ROWS, TALL_VECTORS, WIDE_ROWS, WIDE_VECTORS, narrow_tile, tall_tile, wide_tile
from .vectors import lanes


@njit(error_model="numpy")
def filter_width(p, context):
    """Filters in a packed panel."""
    return TALL_VECTORS * lanes(context) if p[f.NHWC] else WIDE_ROWS


def pack_weights(begin, end, context):
    """A task is one panel of filters."""
    p = integers(context)
    filters, packed = elements(context, p[f.FILTERS]), elements(context, p[f.WORK])
    width = filter_width(p, context)
    per_group = (p[f.DEST_CHANNELS] + width - 1) // width
    depth = p[f.TAPS_H] * p[f.TAPS_W] * p[f.SOURCE_CHANNELS]
    for task in range(begin, end):
        first = task % per_group * width
        source = moved(filters, task // per_group * p[f.F_GROUP] + first * p[f.F_DEST])
        count = smaller(width, p[f.DEST_CHANNELS] - first)
        pack_filter_block(p, source, count, moved(packed, task * depth * width), width)


def correlate(begin, end, context):
    """A slab is a share of the tasks; a task is a block of grid positions and a panel of filters."""
    p = integers(context)
    source, dest = elements(context, p[f.SOURCE]), elements(context, p[f.DEST])
    filters, bias = elements(context, p[f.FILTERS]), elements(context, p[f.BIAS])
    width = filter_width(p, context)
    depth = p[f.TAPS_H] * p[f.TAPS_W] * p[f.SOURCE_CHANNELS]
    per_group = (p[f.DEST_CHANNELS] + width - 1) // width
    pixels = p[f.IMAGES] * p[f.COUNT_H] * p[f.COUNT_W]
    for slab in range(begin, end):
        sums = elements(context, p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(context))
        packed = moved(sums, TALL_ROWS * WIDE_VECTORS * lanes(context))
        held = -1
        for task in range(p[f.TASKS] * slab // p[f.SLABS], p[f.TASKS] * (slab + 1) // p[f.SLABS]):
            panel, part = task % per_group, task // per_group
            group, first = part % p[f.GROUPS], part // p[f.GROUPS] * p[f.BLOCK]
            last = smaller(first + p[f.BLOCK], pixels)
            from_group = moved(source, group * p[f.SOURCE_CHANNELS] * p[f.S_CHANNEL])
            if part != held and not p[f.IN_PLACE]:
                if p[f.NHWC]:
                    pack_rows(p, from_group, first, last, 0, depth, packed, p[f.PITCH])
                else:
                    pack_panels(p, from_group, first, last, depth, packed)
            held = part
            weights = moved(filters, (group * per_group + panel) * depth * width)
            channel = group * p[f.DEST_CHANNELS] + panel * width
            count = smaller(width, p[f.DEST_CHANNELS] - panel * width)
            out, added = moved(dest, channel * p[f.D_CHANNEL]), moved(bias, channel)
            if p[f.NHWC]:
                rows, step = packed, p[f.PITCH]
                if p[f.IN_PLACE]:
                    rows, step = moved(from_group, first * p[f.S_COLUMN]), p[f.S_COLUMN]
                rows_times_panel(p, rows, step, packed, weights, out, added, first, last, count, depth, sums)
            else:
                lines_times_panel(p, packed, weights, out, added, first, last, count, depth, sums)


@njit(error_model="numpy")
def rows_times_panel(p, rows, pitch, spare, weights, dest, bias, first, last, channels, depth, sums):
    """nhwc. Rows that are read in place end with the image, so the last ones are copied to where a tile may overrun."""
    lane_count = lanes(sums)
    width = TALL_VECTORS * lane_count
    narrow = channels <= lane_count
    direct = p[f.DENSE] and not p[f.BIAS] and (channels == width or channels == lane_count)
    for pixel in range(first, last, TALL_ROWS):
        count = smaller(TALL_ROWS, last - pixel)
        a, a_step = moved(rows, (pixel - first) * pitch), pitch
        if count < TALL_ROWS and p[f.IN_PLACE]:
            for i in range(count):
                copy(moved(spare, i * p[f.PITCH]), moved(a, i * pitch), 1, depth)
            a, a_step = spare, p[f.PITCH]
        whole = direct and count == TALL_ROWS
        out = moved(dest, pixel * p[f.D_COLUMN]) if whole else sums
        step = p[f.D_COLUMN] if whole else width
        if narrow:
            narrow_tile(1, moved(p, f.ONE_RUN), depth, a, a_step, weights, width, out, step, 0)
        else:
            tall_tile(1, moved(p, f.ONE_RUN), depth, a, a_step, weights, width, out, step, 0)
        if not whole:
            store_rows(p, dest, bias, pixel, count, channels, sums, width)


@njit(error_model="numpy")
def pack_panels(p, source, first, last, depth, to):
    """nchw: one behind the other, so that a tile reads one run of memory."""
    width = WIDE_VECTORS * lanes(to)
    for pixel in range(first, last, width):
        end, panel = smaller(pixel + width, last), moved(to, (pixel - first) * depth)
        if p[f.IDENTITY]:
            pack_runs(p, source, pixel, end, depth, panel, width)
        else:
            pack_lines(p, source, pixel, end, 0, depth, panel, width)


@njit(error_model="numpy")
def lines_times_panel(p, lines, weights, dest, bias, first, last, channels, depth, sums):
    """nchw."""
    width = WIDE_VECTORS * lanes(sums)
    plane = p[f.COUNT_H] * p[f.COUNT_W]
    direct = p[f.DENSE] and not p[f.BIAS] and channels == WIDE_ROWS
    for pixel in range(first, last, width):
        count = smaller(width, last - pixel)
        whole = direct and count == width and pixel % plane + width <= plane
        out = moved(dest, pixel // plane * p[f.D_IMAGE] + pixel % plane) if whole else sums
        step = p[f.D_CHANNEL] if whole else width
        panel = moved(lines, (pixel - first) * depth)
        wide_tile(1, moved(p, f.ONE_RUN), depth, weights, 1, panel, width, out, step, 0)
        if not whole:
            store_lines(p, dest, bias, pixel, count, channels, sums, width)


@njit(error_model="numpy")
def place(p, pixel):
    """Where a grid position lies in the destination."""
    w, h, image = pixel % p[f.COUNT_W], pixel // p[f.COUNT_W] % p[f.COUNT_H], pixel // p[f.COUNT_W] // p[f.COUNT_H]
    row, column = p[f.ORIGIN_H] + h * p[f.SPACING_H], p[f.ORIGIN_W] + w * p[f.SPACING_W]
    return image * p[f.D_IMAGE] + row * p[f.D_ROW] + column * p[f.D_COLUMN]


@njit(error_model="numpy")
def store_rows(p, dest, bias, pixel, count, channels, sums, width):
    for i in range(count):
        out, row = moved(dest, place(p, pixel + i)), moved(sums, i * width)
        if p[f.BIAS]:
            for j in range(channels):
                out[j] = row[j] + bias[j]
        else:
            copy(out, row, 1, channels)


@njit(error_model="numpy")
def store_lines(p, dest, bias, pixel, count, channels, sums, width):
    """Run by run of neighbouring grid positions, each of them a row of the grid, or a plane where that is dense."""
    length = p[f.COUNT_H] * p[f.COUNT_W] if p[f.DENSE] else p[f.COUNT_W]
    done = 0
    while done < count:
        run = smaller(count - done, length - (pixel + done) % length)
        out = moved(dest, place(p, pixel + done))
        for i in range(channels):
            spread(moved(out, i * p[f.D_CHANNEL]), p[f.SPACING_W], moved(sums, i * width + done), run)
            if p[f.BIAS]:
                add_to_all(moved(out, i * p[f.D_CHANNEL]), p[f.SPACING_W], bias[i], run)
        done += run


@njit(error_model="numpy")
def spread(to, step, source, count):
    if step == 1:
        for i in range(count):
            to[i] = source[i]
    else:
        for i in range(count):
            to[i * step] = source[i]


@njit(error_model="numpy")
def add_to_all(to, step, value, count):
    if step == 1:
        for i in range(count):
            to[i] += value
    else:
        for i in range(count):
            to[i * step] += value

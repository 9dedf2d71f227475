"""The weight gradient: a product over all output pixels, added up in memory block by block of filters.

    nhwc: sums[oc][depth] = panels of grad_output, transposed, times source rows [pixel][depth]
    nchw: sums[depth][oc] = source lines [depth][pixel] times panels of grad_output

The pixels are cut into slabs with sums of their own, which are then added in order.
"""

from __future__ import annotations

from numba import njit

from . import gemm_fields as f
from .arithmetic import smaller
from .memory import elements, integers, itemsize, moved
from .packing import pack_gradients, pack_lines, pack_rows
from .tiles import TALL_ROWS, TALL_VECTORS, WIDE_ROWS, WIDE_VECTORS, narrow_tile, tall_tile, wide_tile
from .vectors import lanes


@njit(error_model="numpy")
def block_of(p, index):
    """Group, channels [first, last) and depth indices [begin, end) of a block of filters."""
    first = index % p[f.CHANNEL_BLOCKS] * p[f.CHANNEL_BLOCK]
    rest = index // p[f.CHANNEL_BLOCKS]
    begin = rest % p[f.DEPTH_BLOCKS] * p[f.DEPTH_BLOCK]
    depth = p[f.TAPS_H] * p[f.TAPS_W] * p[f.SOURCE_CHANNELS]
    last, end = smaller(first + p[f.CHANNEL_BLOCK], p[f.DEST_CHANNELS]), smaller(begin + p[f.DEPTH_BLOCK], depth)
    return rest // p[f.DEPTH_BLOCKS], first, last, begin, end


def accumulate(begin, end, context):
    """A task is a block of filters over a slab of pixels."""
    p = integers(context)
    source, gradients, sums = elements(context, p[f.SOURCE]), elements(context, p[f.DEST]), elements(context, p[f.WORK])
    pixels = p[f.IMAGES] * p[f.COUNT_H] * p[f.COUNT_W]
    for share in range(begin, end):
        scratch = elements(
            context, p[f.WORK] + (p[f.TASKS] * p[f.SUMS_SIZE] + share * p[f.SLAB_SIZE]) * itemsize(context)
        )
        for task in range(p[f.TASKS] * share // p[f.SHARES], p[f.TASKS] * (share + 1) // p[f.SHARES]):
            group, first, last, k, k_end = block_of(p, task % p[f.BLOCKS])
            from_group = moved(source, group * p[f.SOURCE_CHANNELS] * p[f.S_CHANNEL])
            from_channel = moved(gradients, (group * p[f.DEST_CHANNELS] + first) * p[f.D_CHANNEL])
            to, grads = moved(sums, task * p[f.SUMS_SIZE]), moved(scratch, p[f.GRADS_AT])
            slab = task // p[f.BLOCKS] * p[f.SLAB_PIXELS]
            slab_end = smaller(slab + p[f.SLAB_PIXELS], pixels)
            for pixel in range(slab, slab_end, p[f.BLOCK]):
                count = smaller(p[f.BLOCK], slab_end - pixel)
                adding = 1 if pixel > slab else 0
                if p[f.NHWC]:
                    pack_rows(p, from_group, pixel, pixel + count, k, k_end, scratch, p[f.PITCH])
                    add_rows(p, scratch, from_channel, grads, to, pixel, count, last - first, k_end - k, adding)
                else:
                    pack_lines(p, from_group, pixel, pixel + count, k, k_end, scratch, p[f.PITCH])
                    add_lines(p, scratch, from_channel, grads, to, pixel, count, last - first, k_end - k, adding)


@njit(error_model="numpy")
def add_rows(p, rows, gradients, panel, sums, pixel, count, channels, depth, adding):
    width = WIDE_VECTORS * lanes(sums)
    for first in range(0, channels, WIDE_ROWS):
        held = smaller(WIDE_ROWS, channels - first)
        pack_gradients(p, moved(gradients, first * p[f.D_CHANNEL]), pixel, pixel + count, held, panel, WIDE_ROWS)
        out = moved(sums, first * p[f.SUMS_PITCH])
        for k in range(0, depth, width):
            wide_tile(
                1,
                moved(p, f.ONE_RUN),
                count,
                panel,
                1,
                moved(rows, k),
                p[f.PITCH],
                moved(out, k),
                p[f.SUMS_PITCH],
                adding,
            )


@njit(error_model="numpy")
def add_lines(p, lines, gradients, panel, sums, pixel, count, channels, depth, adding):
    lane_count = lanes(sums)
    width = TALL_VECTORS * lane_count
    for first in range(0, channels, width):
        held = smaller(width, channels - first)
        pack_gradients(p, moved(gradients, first * p[f.D_CHANNEL]), pixel, pixel + count, held, panel, width)
        for k in range(0, depth, TALL_ROWS):
            a, out = moved(lines, k * p[f.PITCH]), moved(sums, k * p[f.SUMS_PITCH] + first)
            if held <= lane_count:
                narrow_tile(1, moved(p, f.ONE_RUN), count, a, p[f.PITCH], panel, width, out, p[f.SUMS_PITCH], adding)
            else:
                tall_tile(1, moved(p, f.ONE_RUN), count, a, p[f.PITCH], panel, width, out, p[f.SUMS_PITCH], adding)


def finish(begin, end, context):
    """A task is a block of filters: its sums of all slabs, in their order."""
    p = integers(context)
    weights, sums = elements(context, p[f.FILTERS]), elements(context, p[f.WORK])
    for task in range(begin, end):
        group, first, last, k, k_end = block_of(p, task)
        for channel in range(first, last):
            out = moved(weights, group * p[f.F_GROUP] + channel * p[f.F_DEST])
            if p[f.NHWC]:
                row = moved(sums, task * p[f.SUMS_SIZE] + (channel - first) * p[f.SUMS_PITCH])
                finish_filter(p, row, 1, out, k, k_end)
            else:
                column = moved(sums, task * p[f.SUMS_SIZE] + channel - first)
                finish_filter(p, column, p[f.SUMS_PITCH], out, k, k_end)


@njit(error_model="numpy")
def finish_filter(p, sums, step, out, begin, end):
    channels, taps_w = p[f.SOURCE_CHANNELS], p[f.TAPS_W]
    slab_step, slabs = p[f.BLOCKS] * p[f.SUMS_SIZE], p[f.SLABS]
    source_step = p[f.F_SOURCE]
    k = begin
    while k < end:
        tap, channel = k // channels, k % channels
        run = smaller(channels - channel, end - k)
        to = moved(out, tap // taps_w * p[f.F_H] + tap % taps_w * p[f.F_W] + channel * source_step)
        source = moved(sums, (k - begin) * step)
        for i in range(run):
            total = source[i * step]
            for slab in range(1, slabs):
                total += source[slab * slab_step + i * step]
            to[i * source_step] = total
        k += run

"""Depthwise convolution, one input channel a group, nhwc: pixel by pixel, along the channels.

The filters are laid out tap by tap first, [kh * kw][oc], so that a tap's weights are one run of memory.
"""

from __future__ import annotations

from numba import njit

from . import conv_fields as f
from .arithmetic import ceil_div, first_inside, larger, last_inside, smaller
from .copies import clear, copy, fill
from .masked import load_first, store_first
from .memory import as_element, elements, indices_at, integers, itemsize, moved
from .vectors import lanes, load, multiply_add, splat, store

# Pixels whose sums are held in registers at a time.
_COLUMNS = 7


@njit(error_model="numpy")
def transpose(to, source, rows, columns):
    """to[i][j] = source[j][i], ``rows`` by ``columns`` numbers written."""
    for i in range(rows):
        for j in range(columns):
            to[i * columns + j] = source[j * rows + i]


@njit(error_model="numpy", fastmath={"contract"})
def add_products(to, a, b, count, multiplier):
    """to[i] += a[i] * b[i // multiplier]."""
    if multiplier == 1:
        for i in range(0, count, lanes(to)):
            rest = count - i
            total = multiply_add(load_first(a, i, rest), load_first(b, i, rest), load_first(to, i, rest))
            store_first(to, i, total, rest)
    else:
        for i in range(count):
            to[i] += a[i] * b[i // multiplier]


def conv2d(begin, end, context):
    """A task is one output row; a slab is a share of them with the filters in its own memory."""
    p = integers(context)
    x, w, y = elements(context, p[f.X]), elements(context, p[f.W]), elements(context, p[f.Y])
    bias, tasks = elements(context, p[f.AUX]), p[f.N] * p[f.OH]
    for slab in range(begin, end):
        memory = p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(context)
        offsets, filters = indices_at(memory), elements(context, memory + 16 * p[f.KH] * p[f.KW])
        transpose(filters, w, p[f.KH] * p[f.KW], p[f.OC])
        for task in range(tasks * slab // p[f.SLABS], tasks * (slab + 1) // p[f.SLABS]):
            n, oh = task // p[f.OH], task % p[f.OH]
            output_row(p, moved(x, n * p[f.X_N]), filters, moved(y, n * p[f.Y_N] + oh * p[f.Y_H]), bias, offsets, oh)


@njit(error_model="numpy")
def output_row(p, image, filters, y, bias, offsets, oh):
    channels = p[f.OC]
    low, high = 0, 0
    if p[f.OC] == p[f.G] and channels >= lanes(y):
        # The columns whose windows lie inside.
        low = smaller(p[f.OW], ceil_div(p[f.PW], p[f.SW]))
        high = larger(low, smaller(p[f.OW], (p[f.IW] - 1 - (p[f.KW] - 1) * p[f.DW] + p[f.PW]) // p[f.SW] + 1))
    if high - low < _COLUMNS:
        low, high = 0, 0
    taps = taps_of_row(p, offsets, oh) if low < high else 0
    step = p[f.SW] * p[f.X_W]
    for ow in range(low, high, _COLUMNS):
        # The last columns are computed again with those before them, to the same bits.
        first = smaller(ow, high - _COLUMNS)
        left = moved(image, (first * p[f.SW] - p[f.PW]) * p[f.X_W])
        columns_inside(taps, offsets, left, step, filters, moved(y, first * channels), channels, bias, p[f.AUX] != 0)
    for ow in range(p[f.OW]):
        if ow < low or ow >= high:
            output_pixel(p, image, filters, moved(y, ow * channels), bias, oh, ow)


@njit(error_model="numpy")
def taps_of_row(p, offsets, oh):
    """How many taps lie in rows of the image; for each, where it reads the image and the filters."""
    taps = 0
    for kh in range(p[f.KH]):
        ih = oh * p[f.SH] + kh * p[f.DH] - p[f.PH]
        if ih < 0 or ih >= p[f.IH]:
            continue
        for kw in range(p[f.KW]):
            offsets[2 * taps] = ih * p[f.X_H] + kw * p[f.DW] * p[f.X_W]
            offsets[2 * taps + 1] = (kh * p[f.KW] + kw) * p[f.OC]
            taps += 1
    return taps


@njit(error_model="numpy")
def columns_inside(taps, offsets, image, step, filters, y, channels, bias, biased):
    """``_COLUMNS`` neighbouring pixels, which share the filters' taps; the last vector overlaps the one before it."""
    for first in range(0, channels, lanes(y)):
        c = smaller(first, channels - lanes(y))
        s0 = load(bias, c) if biased else splat(y, 0)
        s1, s2, s3, s4, s5, s6 = s0, s0, s0, s0, s0, s0
        for tap in range(taps):
            pixel, weights = moved(image, offsets[2 * tap] + c), load(filters, offsets[2 * tap + 1] + c)
            s0 = multiply_add(load(pixel, 0), weights, s0)
            s1 = multiply_add(load(pixel, step), weights, s1)
            s2 = multiply_add(load(pixel, 2 * step), weights, s2)
            s3 = multiply_add(load(pixel, 3 * step), weights, s3)
            s4 = multiply_add(load(pixel, 4 * step), weights, s4)
            s5 = multiply_add(load(pixel, 5 * step), weights, s5)
            s6 = multiply_add(load(pixel, 6 * step), weights, s6)
        store(y, c, s0)
        store(y, c + channels, s1)
        store(y, c + 2 * channels, s2)
        store(y, c + 3 * channels, s3)
        store(y, c + 4 * channels, s4)
        store(y, c + 5 * channels, s5)
        store(y, c + 6 * channels, s6)


@njit(error_model="numpy", fastmath={"contract"})
def output_pixel(p, image, filters, out, bias, oh, ow):
    channels, multiplier = p[f.OC], p[f.OC] // p[f.G]
    if p[f.AUX] != 0:
        copy(out, bias, 1, channels)
    else:
        clear(out, channels)
    for kh in range(p[f.KH]):
        ih = oh * p[f.SH] + kh * p[f.DH] - p[f.PH]
        if ih < 0 or ih >= p[f.IH]:
            continue
        for kw in range(p[f.KW]):
            iw = ow * p[f.SW] + kw * p[f.DW] - p[f.PW]
            if iw >= 0 and iw < p[f.IW]:
                taps = moved(filters, (kh * p[f.KW] + kw) * channels)
                add_products(out, taps, moved(image, ih * p[f.X_H] + iw * p[f.X_W]), channels, multiplier)


def conv2d_grad_input(begin, end, context):
    """A task is one row of the input's gradient."""
    p = integers(context)
    x, w, y = elements(context, p[f.X]), elements(context, p[f.W]), elements(context, p[f.Y])
    tasks = p[f.N] * p[f.IH]
    for slab in range(begin, end):
        filters = elements(context, p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(context))
        transpose(filters, w, p[f.KH] * p[f.KW], p[f.OC])
        for task in range(tasks * slab // p[f.SLABS], tasks * (slab + 1) // p[f.SLABS]):
            n, ih = task // p[f.IH], task % p[f.IH]
            input_row(p, moved(x, n * p[f.X_N] + ih * p[f.X_H]), filters, moved(y, n * p[f.Y_N]), ih)


@njit(error_model="numpy", fastmath={"contract"})
def input_row(p, x, filters, image, ih):
    channels, multiplier = p[f.IC], p[f.OC] // p[f.G]
    fill(x, p[f.IW] * channels, as_element(x, 0))
    for kh in range(p[f.KH]):
        down = ih + p[f.PH] - kh * p[f.DH]
        oh = down // p[f.SH]
        if oh * p[f.SH] != down or oh < 0 or oh >= p[f.OH]:
            continue
        for kw in range(p[f.KW]):
            shift = kw * p[f.DW] - p[f.PW]
            taps = moved(filters, (kh * p[f.KW] + kw) * p[f.OC])
            for ow in range(first_inside(shift, p[f.SW], p[f.OW]), last_inside(shift, p[f.SW], p[f.IW], p[f.OW])):
                to = moved(x, (ow * p[f.SW] + shift) * channels)
                gather_products(to, taps, moved(image, oh * p[f.Y_H] + ow * p[f.Y_W]), channels, multiplier)


@njit(error_model="numpy", fastmath={"contract"})
def gather_products(to, a, b, count, multiplier):
    """to[i] += the sum over j < multiplier of a[i * multiplier + j] * b[i * multiplier + j]."""
    if multiplier == 1:
        for i in range(count):
            to[i] += a[i] * b[i]
    else:
        for i in range(count):
            for j in range(i * multiplier, (i + 1) * multiplier):
                to[i] += a[j] * b[j]


def conv2d_grad_weight(begin, end, context):
    """A slab is a block of channels, summed over all pixels tap by tap, then laid out as filters."""
    p = integers(context)
    x, w, y = elements(context, p[f.X]), elements(context, p[f.W]), elements(context, p[f.Y])
    multiplier, taps = p[f.OC] // p[f.G], p[f.KH] * p[f.KW]
    for slab in range(begin, end):
        sums = elements(context, p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(context))
        first, last = slab * p[f.BLOCK], smaller((slab + 1) * p[f.BLOCK], p[f.OC])
        count = last - first
        fill(sums, taps * count, as_element(x, 0))
        for n in range(p[f.N]):
            image, gradients = moved(x, n * p[f.X_N] + first // multiplier), moved(y, n * p[f.Y_N] + first)
            sum_image(p, image, gradients, sums, count, multiplier)
        transpose(moved(w, first * taps), sums, count, taps)


@njit(error_model="numpy", fastmath={"contract"})
def sum_image(p, image, gradients, sums, count, multiplier):
    for oh in range(p[f.OH]):
        for kh in range(p[f.KH]):
            ih = oh * p[f.SH] + kh * p[f.DH] - p[f.PH]
            if ih < 0 or ih >= p[f.IH]:
                continue
            for kw in range(p[f.KW]):
                shift = kw * p[f.DW] - p[f.PW]
                to = moved(sums, (kh * p[f.KW] + kw) * count)
                for ow in range(first_inside(shift, p[f.SW], p[f.OW]), last_inside(shift, p[f.SW], p[f.IW], p[f.OW])):
                    pixel = moved(image, ih * p[f.X_H] + (ow * p[f.SW] + shift) * p[f.X_W])
                    add_products(to, moved(gradients, oh * p[f.Y_H] + ow * p[f.Y_W]), pixel, count, multiplier)

"""Depthwise convolution, one input channel a group, nhwc: pixel by pixel, along the channels.

The filters are laid out tap by tap first, [kh * kw][oc], so that a tap's weights are one run of memory.
"""

from __future__ import annotations

from numba import njit

from . import conv_fields as f
from .arithmetic import first_inside, last_inside, smaller
from .direct import fill
from .memory import as_element, elements, integers, itemsize, moved
from .packing import copy


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
        for i in range(count):
            to[i] += a[i] * b[i]
    else:
        for i in range(count):
            to[i] += a[i] * b[i // multiplier]


@njit(error_model="numpy", fastmath={"contract"})
def add_three(to, a, a_step, b, b_step, count):
    """Three neighbouring taps at once, in the order in which ``add_products`` would add them."""
    a1, a2, b1, b2 = moved(a, a_step), moved(a, 2 * a_step), moved(b, b_step), moved(b, 2 * b_step)
    for i in range(count):
        total = to[i] + a[i] * b[i]
        total += a1[i] * b1[i]
        total += a2[i] * b2[i]
        to[i] = total


def conv2d(begin, end, context):
    """A task is one output row; a slab is a share of them with the filters in its own memory."""
    p = integers(context)
    x, w, y = elements(context, p[f.X]), elements(context, p[f.W]), elements(context, p[f.Y])
    bias, tasks = elements(context, p[f.AUX]), p[f.N] * p[f.OH]
    for slab in range(begin, end):
        filters = elements(context, p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(context))
        transpose(filters, w, p[f.KH] * p[f.KW], p[f.OC])
        for task in range(tasks * slab // p[f.SLABS], tasks * (slab + 1) // p[f.SLABS]):
            n, oh = task // p[f.OH], task % p[f.OH]
            output_row(p, moved(x, n * p[f.X_N]), filters, moved(y, n * p[f.Y_N] + oh * p[f.Y_H]), bias, oh)


@njit(error_model="numpy", fastmath={"contract"})
def output_row(p, image, filters, y, bias, oh):
    channels, multiplier = p[f.OC], p[f.OC] // p[f.G]
    for ow in range(p[f.OW]):
        out = moved(y, ow * channels)
        if p[f.AUX] != 0:
            copy(out, bias, 1, channels)
        else:
            fill(out, channels, as_element(y, 0))
        left = ow * p[f.SW] - p[f.PW]
        whole = multiplier == 1 and left >= 0 and left + (p[f.KW] - 1) * p[f.DW] < p[f.IW]
        for kh in range(p[f.KH]):
            ih = oh * p[f.SH] + kh * p[f.DH] - p[f.PH]
            if ih < 0 or ih >= p[f.IH]:
                continue
            kw = 0
            while whole and kw + 3 <= p[f.KW]:
                pixel = moved(image, ih * p[f.X_H] + (left + kw * p[f.DW]) * p[f.X_W])
                taps = moved(filters, (kh * p[f.KW] + kw) * channels)
                add_three(out, taps, channels, pixel, p[f.DW] * p[f.X_W], channels)
                kw += 3
            while kw < p[f.KW]:
                iw = left + kw * p[f.DW]
                if iw >= 0 and iw < p[f.IW]:
                    taps = moved(filters, (kh * p[f.KW] + kw) * channels)
                    add_products(out, taps, moved(image, ih * p[f.X_H] + iw * p[f.X_W]), channels, multiplier)
                kw += 1


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

"""Depthwise convolution, one input channel a group, nchw: planes are copied once into a padded form without strides,
unless ``depthwise_nine.py`` reads them in place.

In that form (``phases``) every image row is split into sw rows, the columns of each residue modulo the stride, so that
what one tap reads along an output row is one run of memory:

    input row r, column c  ->  phases[(r * sw + c % sw) * length + c // sw]      r, c counted in the padded image
"""

from __future__ import annotations

from numba import njit

from . import conv_fields as f
from .arithmetic import ceil_div, larger, smaller
from .copies import copy_padded, fill
from .depthwise_nine import nine_taps, takes_nine_taps
from .direct import add_scaled, dot
from .masked import store_first
from .memory import as_element, elements, indices_at, integers, itemsize, moved
from .vectors import lanes, load, multiply_add, splat


@njit(error_model="numpy")
def phases_of(p, plane, phases):
    """The padded form of a plane, as far as any window reaches."""
    height, length, stride = (p[f.OH] - 1) * p[f.SH] + (p[f.KH] - 1) * p[f.DH] + 1, p[f.PITCH], p[f.SW]
    for r in range(height):
        row = r - p[f.PH]
        for phase in range(stride):
            to, shift = moved(phases, (r * stride + phase) * length), phase - p[f.PW]
            first = smaller(length, larger(0, ceil_div(-shift, stride)))
            last = larger(first, smaller(length, ceil_div(p[f.IW] - shift, stride)))
            if row < 0 or row >= p[f.IH]:
                first, last = 0, 0
            copy_padded(to, length, moved(plane, row * p[f.IW]), first, last, shift, stride)


@njit(error_model="numpy")
def tap_at(p, kw):
    """Where the run of a tap begins in the phases of its row."""
    return kw * p[f.DW] % p[f.SW] * p[f.PITCH] + kw * p[f.DW] // p[f.SW]


def conv2d(begin, end, context):
    """A task is one output plane."""
    p = integers(context)
    x, w, y = elements(context, p[f.X]), elements(context, p[f.W]), elements(context, p[f.Y])
    bias, tasks, multiplier = elements(context, p[f.AUX]), p[f.N] * p[f.OC], p[f.OC] // p[f.G]
    in_place = takes_nine_taps(p)
    for slab in range(begin, end):
        memory = p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(context)
        offsets, phases = indices_at(memory), elements(context, memory + p[f.KH] * p[f.KW] * 8)
        for kh in range(p[f.KH]):
            for kw in range(p[f.KW]):
                offsets[kh * p[f.KW] + kw] = kh * p[f.DH] * p[f.SW] * p[f.PITCH] + tap_at(p, kw)
        held = -1
        for task in range(tasks * slab // p[f.SLABS], tasks * (slab + 1) // p[f.SLABS]):
            oc, source = task % p[f.OC], task // multiplier
            plane, weights = moved(x, source * p[f.IH] * p[f.IW]), moved(w, oc * p[f.W_N])
            out, start = moved(y, task * p[f.OH] * p[f.OW]), splat(y, bias[oc] if p[f.AUX] != 0 else as_element(y, 0))
            if in_place:
                nine_taps(p, plane, weights, out, start)
                continue
            if source != held:
                phases_of(p, plane, phases)
                held = source
            for oh in range(p[f.OH]):
                rows = moved(phases, oh * p[f.SH] * p[f.SW] * p[f.PITCH])
                row_of_taps(rows, offsets, p[f.KH] * p[f.KW], weights, moved(out, oh * p[f.OW]), p[f.OW], start)


@njit(error_model="numpy")
def row_of_taps(rows, offsets, taps, w, y, columns, start):
    """Every output is added up tap by tap in the order of the filter; loads overrun by up to four vectors."""
    width = lanes(y)
    for i in range(0, columns, 4 * width):
        s0, s1, s2, s3 = start, start, start, start
        for tap in range(taps):
            weight, values = splat(w, w[tap]), moved(rows, offsets[tap] + i)
            s0 = multiply_add(weight, load(values, 0), s0)
            s1 = multiply_add(weight, load(values, width), s1)
            s2 = multiply_add(weight, load(values, 2 * width), s2)
            s3 = multiply_add(weight, load(values, 3 * width), s3)
        rest = columns - i
        store_first(y, i, s0, rest)
        store_first(y, i + width, s1, rest - width)
        store_first(y, i + 2 * width, s2, rest - 2 * width)
        store_first(y, i + 3 * width, s3, rest - 3 * width)


def conv2d_grad_input(begin, end, context):
    """A task is one plane of the input's gradient: added up in its padded form, then copied back."""
    p = integers(context)
    x, w, y = elements(context, p[f.X]), elements(context, p[f.W]), elements(context, p[f.Y])
    tasks, multiplier = p[f.N] * p[f.IC], p[f.OC] // p[f.G]
    for slab in range(begin, end):
        phases = elements(context, p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(context))
        for task in range(tasks * slab // p[f.SLABS], tasks * (slab + 1) // p[f.SLABS]):
            n, ic = task // p[f.IC], task % p[f.IC]
            height = (p[f.OH] - 1) * p[f.SH] + (p[f.KH] - 1) * p[f.DH] + 1
            fill(phases, height * p[f.SW] * p[f.PITCH], as_element(x, 0))
            for oc in range(ic * multiplier, (ic + 1) * multiplier):
                spread_plane(p, phases, moved(w, oc * p[f.W_N]), moved(y, (n * p[f.OC] + oc) * p[f.OH] * p[f.OW]))
            plane_of(p, phases, moved(x, task * p[f.IH] * p[f.IW]), height)


@njit(error_model="numpy", fastmath={"contract"})
def spread_plane(p, phases, w, y):
    for oh in range(p[f.OH]):
        for kh in range(p[f.KH]):
            row = moved(phases, (oh * p[f.SH] + kh * p[f.DH]) * p[f.SW] * p[f.PITCH])
            for kw in range(p[f.KW]):
                add_scaled(moved(row, tap_at(p, kw)), 1, moved(y, oh * p[f.OW]), 1, w[kh * p[f.KW] + kw], p[f.OW])


@njit(error_model="numpy")
def plane_of(p, phases, plane, height):
    """A plane from its padded form; what no window reaches is 0."""
    stride = p[f.SW]
    width = (p[f.OW] - 1) * stride + (p[f.KW] - 1) * p[f.DW] + 1
    for ih in range(p[f.IH]):
        to = moved(plane, ih * p[f.IW])
        r = ih + p[f.PH]
        known = smaller(p[f.IW], larger(0, width - p[f.PW])) if r < height else 0
        fill(moved(to, known), p[f.IW] - known, as_element(plane, 0))
        for phase in range(stride):
            row, first = moved(phases, (r * stride + phase) * p[f.PITCH]), ceil_div(larger(0, p[f.PW] - phase), stride)
            scatter_row(to, phase - p[f.PW], stride, row, first, ceil_div(known + p[f.PW] - phase, stride))


@njit(error_model="numpy")
def scatter_row(to, shift, stride, source, first, last):
    """to[i * stride + shift] = source[i]."""
    if stride == 1:
        for i in range(first, last):
            to[i + shift] = source[i]
    elif stride == 2:
        for i in range(first, last):
            to[2 * i + shift] = source[i]
    else:
        for i in range(first, last):
            to[i * stride + shift] = source[i]


def conv2d_grad_weight(begin, end, context):
    """A task is one filter."""
    p = integers(context)
    x, w, y = elements(context, p[f.X]), elements(context, p[f.W]), elements(context, p[f.Y])
    for slab in range(begin, end):
        phases = elements(context, p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(context))
        for oc in range(p[f.OC] * slab // p[f.SLABS], p[f.OC] * (slab + 1) // p[f.SLABS]):
            fill(moved(w, oc * p[f.W_N]), p[f.KH] * p[f.KW], as_element(w, 0))
            for n in range(p[f.N]):
                phases_of(p, moved(x, (n * p[f.IC] + oc // (p[f.OC] // p[f.G])) * p[f.IH] * p[f.IW]), phases)
                add_products(p, phases, moved(y, (n * p[f.OC] + oc) * p[f.OH] * p[f.OW]), moved(w, oc * p[f.W_N]))


@njit(error_model="numpy", fastmath={"contract"})
def add_products(p, phases, y, w):
    for kh in range(p[f.KH]):
        for kw in range(p[f.KW]):
            total = as_element(w, 0)
            for oh in range(p[f.OH]):
                row = moved(phases, (oh * p[f.SH] + kh * p[f.DH]) * p[f.SW] * p[f.PITCH])
                total += dot(moved(y, oh * p[f.OW]), moved(row, tap_at(p, kw)), 1, p[f.OW])
            w[kh * p[f.KW] + kw] += total

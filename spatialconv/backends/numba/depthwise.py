"""Depthwise convolution, one input channel a group, nchw: planes are copied once into a padded form without strides.

In that form (``phases``) every image row is split into sw rows, the columns of each residue modulo the stride, so that
what one tap reads along an output row is one run of memory:

    input row r, column c  ->  phases[(r * sw + c % sw) * length + c // sw]      r, c counted in the padded image
"""

from __future__ import annotations

from numba import njit

from . import conv_fields as f
from .arithmetic import ceil_div, larger, smaller
from .direct import add_scaled, dot, fill
from .memory import as_element, elements, integers, itemsize, moved
from .packing import copy

# Output rows below this are computed a plane at a time.
_NARROW = 32


@njit(error_model="numpy")
def phases_of(p, plane, phases):
    """The padded form of a plane, as far as any window reaches."""
    height, length, stride = (p[f.OH] - 1) * p[f.SH] + (p[f.KH] - 1) * p[f.DH] + 1, p[f.PITCH], p[f.SW]
    nothing = as_element(phases, 0)
    for phase in range(stride):
        shift = phase - p[f.PW]
        first = smaller(length, larger(0, ceil_div(-shift, stride)))
        last = larger(first, smaller(length, ceil_div(p[f.IW] - shift, stride)))
        for r in range(height):
            to, row = moved(phases, (r * stride + phase) * length), r - p[f.PH]
            if row < 0 or row >= p[f.IH]:
                fill(to, length, nothing)
                continue
            fill(to, first, nothing)
            copy(moved(to, first), moved(plane, row * p[f.IW] + first * stride + shift), stride, last - first)
            fill(moved(to, last), length - last, nothing)


@njit(error_model="numpy")
def tap_at(p, kw):
    """Where the run of a tap begins in the phases of its row."""
    return kw * p[f.DW] % p[f.SW] * p[f.PITCH] + kw * p[f.DW] // p[f.SW]


def conv2d(begin, end, context):
    """A task is one output plane."""
    p = integers(context)
    x, w, y = elements(context, p[f.X]), elements(context, p[f.W]), elements(context, p[f.Y])
    bias = elements(context, p[f.AUX])
    tasks = p[f.N] * p[f.OC]
    for slab in range(begin, end):
        phases = elements(context, p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(context))
        for task in range(tasks * slab // p[f.SLABS], tasks * (slab + 1) // p[f.SLABS]):
            n, oc = task // p[f.OC], task % p[f.OC]
            phases_of(p, moved(x, (n * p[f.IC] + oc // (p[f.OC] // p[f.G])) * p[f.IH] * p[f.IW]), phases)
            start = bias[oc] if p[f.AUX] != 0 else as_element(y, 0)
            output_plane(p, phases, moved(w, oc * p[f.W_N]), moved(y, task * p[f.OH] * p[f.OW]), start)


@njit(error_model="numpy", fastmath={"contract"})
def output_plane(p, phases, w, y, start):
    length = p[f.SW] * p[f.PITCH]
    if p[f.SH] == 1 and p[f.SW] == 1 and p[f.OW] < _NARROW:
        # Rows too short for vectors are one run in the padded form, with what stands between them computed in vain.
        spare = moved(phases, (p[f.OH] + (p[f.KH] - 1) * p[f.DH]) * length)
        output_run(p, phases, w, spare, (p[f.OH] - 1) * length + p[f.OW], start)
        for oh in range(p[f.OH]):
            copy(moved(y, oh * p[f.OW]), moved(spare, oh * length), 1, p[f.OW])
        return
    for oh in range(p[f.OH]):
        output_run(p, moved(phases, oh * p[f.SH] * length), w, moved(y, oh * p[f.OW]), p[f.OW], start)


@njit(error_model="numpy", fastmath={"contract"})
def output_run(p, phases, w, out, count, start):
    """Outputs that follow each other in the padded form, each added up tap by tap in the order of the filter."""
    if p[f.KH] == 3 and p[f.KW] == 3:
        nine_taps(p, phases, w, out, count, start)
        return
    fill(out, count, start)
    for kh in range(p[f.KH]):
        row, weights = moved(phases, kh * p[f.DH] * p[f.SW] * p[f.PITCH]), moved(w, kh * p[f.KW])
        kw = 0
        while kw + 5 <= p[f.KW]:
            add_five(p, row, moved(weights, kw), out, count, kw)
            kw += 5
        while kw + 2 <= p[f.KW]:
            add_two(p, row, moved(weights, kw), out, count, kw)
            kw += 2
        if kw < p[f.KW]:
            add_scaled(out, 1, moved(row, tap_at(p, kw)), 1, weights[kw], count)


@njit(error_model="numpy", fastmath={"contract"})
def nine_taps(p, phases, w, out, count, start):
    length = p[f.SW] * p[f.PITCH]
    s1, s2 = moved(phases, p[f.DH] * length), moved(phases, 2 * p[f.DH] * length)
    t1, t2 = tap_at(p, 1), tap_at(p, 2)
    w0, w1, w2, w3, w4, w5, w6, w7, w8 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8]
    for i in range(count):
        total = start + w0 * phases[i]
        total += w1 * phases[i + t1]
        total += w2 * phases[i + t2]
        total += w3 * s1[i]
        total += w4 * s1[i + t1]
        total += w5 * s1[i + t2]
        total += w6 * s2[i]
        total += w7 * s2[i + t1]
        total += w8 * s2[i + t2]
        out[i] = total


@njit(error_model="numpy", fastmath={"contract"})
def add_five(p, row, w, out, count, kw):
    t0, t1, t2, t3, t4 = tap_at(p, kw), tap_at(p, kw + 1), tap_at(p, kw + 2), tap_at(p, kw + 3), tap_at(p, kw + 4)
    w0, w1, w2, w3, w4 = w[0], w[1], w[2], w[3], w[4]
    for i in range(count):
        total = out[i] + w0 * row[i + t0]
        total += w1 * row[i + t1]
        total += w2 * row[i + t2]
        total += w3 * row[i + t3]
        total += w4 * row[i + t4]
        out[i] = total


@njit(error_model="numpy", fastmath={"contract"})
def add_two(p, row, w, out, count, kw):
    t0, t1, w0, w1 = tap_at(p, kw), tap_at(p, kw + 1), w[0], w[1]
    for i in range(count):
        total = out[i] + w0 * row[i + t0]
        total += w1 * row[i + t1]
        out[i] = total


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

"""Convolution with a filter of its own at every output position: the filters of a position, which lie together, meet
the windows of all images there, gathered into rows of taps.

A place is a position and a group; its filters are the next of the weight's, so each pass goes through the weight once.
"""

from __future__ import annotations

from numba import njit

from . import conv_fields as f
from .arithmetic import ceil_div, first_inside, larger, last_inside, smaller
from .copies import clear
from .direct import add_scaled, dot
from .memory import as_element, elements, integers, itemsize, moved


@njit(error_model="numpy")
def taps_of(p):
    return p[f.IC] // p[f.G] * p[f.KH] * p[f.KW]


@njit(error_model="numpy")
def corner(p, place):
    """Row and column of the window's first tap in its image, inside it or not, and where that is in memory."""
    row = place // p[f.G] // p[f.OW] * p[f.SH] - p[f.PH]
    column = place // p[f.G] % p[f.OW] * p[f.SW] - p[f.PW]
    first_ic = place % p[f.G] * (p[f.IC] // p[f.G])
    return row, column, first_ic * p[f.X_C] + row * p[f.X_H] + column * p[f.X_W]


@njit(error_model="numpy")
def output_at(p, place, image):
    """Where the first output of a place lies."""
    pixel, first_oc = place // p[f.G], place % p[f.G] * (p[f.OC] // p[f.G])
    return image * p[f.Y_N] + first_oc * p[f.Y_C] + pixel // p[f.OW] * p[f.Y_H] + pixel % p[f.OW] * p[f.Y_W]


@njit(error_model="numpy")
def gather(p, x, place, first, count, windows):
    """The windows of so many images, in rows PITCH apart, zeros for the padding."""
    row, column, at = corner(p, place)
    top, bottom = first_inside(row, p[f.DH], p[f.KH]), last_inside(row, p[f.DH], p[f.IH], p[f.KH])
    left, right = first_inside(column, p[f.DW], p[f.KW]), last_inside(column, p[f.DW], p[f.IW], p[f.KW])
    for image in range(count):
        window = moved(windows, image * p[f.PITCH])
        if (bottom - top) * (right - left) < p[f.KH] * p[f.KW]:
            clear(window, taps_of(p))
        for ic in range(p[f.IC] // p[f.G]):
            for kh in range(top, bottom):
                to = (ic * p[f.KH] + kh) * p[f.KW]
                source = (first + image) * p[f.X_N] + at + ic * p[f.X_C] + kh * p[f.DH] * p[f.X_H]
                for kw in range(left, right):
                    window[to + kw] = x[source + kw * p[f.DW] * p[f.X_W]]


@njit(error_model="numpy")
def scatter(p, x, place, image, first_row, last_row, window):
    """Adds the gradient of a window to the rows of its image that are asked for."""
    row, column, at = corner(p, place)
    top = first_inside(row - first_row, p[f.DH], p[f.KH])
    bottom = last_inside(row - first_row, p[f.DH], last_row - first_row, p[f.KH])
    left, right = first_inside(column, p[f.DW], p[f.KW]), last_inside(column, p[f.DW], p[f.IW], p[f.KW])
    for ic in range(p[f.IC] // p[f.G]):
        for kh in range(top, bottom):
            source = (ic * p[f.KH] + kh) * p[f.KW]
            to = image * p[f.X_N] + at + ic * p[f.X_C] + kh * p[f.DH] * p[f.X_H]
            for kw in range(left, right):
                x[to + kw * p[f.DW] * p[f.X_W]] += window[source + kw]


def local_conv2d(begin, end, context):
    """A task is a slab, a fixed share of the places, with memory of its own."""
    p = integers(context)
    x, w, y = elements(context, p[f.X]), elements(context, p[f.W]), elements(context, p[f.Y])
    bias, places, filters, taps = elements(context, p[f.AUX]), p[f.OH] * p[f.OW] * p[f.G], p[f.OC] // p[f.G], taps_of(p)
    for slab in range(begin, end):
        windows = elements(context, p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(context))
        for place in range(places * slab // p[f.SLABS], places * (slab + 1) // p[f.SLABS]):
            for first in range(0, p[f.N], p[f.BLOCK]):
                count = smaller(p[f.BLOCK], p[f.N] - first)
                gather(p, x, place, first, count, windows)
                for oc in range(filters):
                    row = moved(w, (place * filters + oc) * taps)
                    for image in range(count):
                        total = dot(row, moved(windows, image * p[f.PITCH]), 1, taps)
                        if p[f.AUX] != 0:
                            total += bias[place * filters + oc]
                        y[output_at(p, place, first + image) + oc * p[f.Y_C]] = total


def local_conv2d_grad_weight(begin, end, context):
    """A task is a slab, a fixed share of the places, with memory of its own."""
    p = integers(context)
    x, w, y = elements(context, p[f.X]), elements(context, p[f.W]), elements(context, p[f.Y])
    places, filters, taps = p[f.OH] * p[f.OW] * p[f.G], p[f.OC] // p[f.G], taps_of(p)
    for slab in range(begin, end):
        windows = elements(context, p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(context))
        for place in range(places * slab // p[f.SLABS], places * (slab + 1) // p[f.SLABS]):
            gather(p, x, place, 0, p[f.N], windows)
            for oc in range(filters):
                row = moved(w, (place * filters + oc) * taps)
                clear(row, taps)
                for image in range(p[f.N]):
                    gradient = y[output_at(p, place, image) + oc * p[f.Y_C]]
                    add_scaled(row, 1, moved(windows, image * p[f.PITCH]), 1, gradient, taps)


@njit(error_model="numpy")
def clear_rows(p, x, group, first_row, last_row):
    depth = p[f.IC] // p[f.G]
    for image in range(p[f.N]):
        for row in range(first_row, last_row):
            for ic in range(depth):
                at = image * p[f.X_N] + (group * depth + ic) * p[f.X_C] + row * p[f.X_H]
                for column in range(p[f.IW]):
                    x[at + column * p[f.X_W]] = as_element(x, 0)


def local_conv2d_grad_input(begin, end, context):
    """A task is a slab, a share of the groups' bands of input rows: a window that reaches into two is computed in both,
    and every gradient is added up in the order of the places."""
    p = integers(context)
    x, w, y = elements(context, p[f.X]), elements(context, p[f.W]), elements(context, p[f.Y])
    filters, taps, tasks = p[f.OC] // p[f.G], taps_of(p), p[f.G] * p[f.BANDS]
    for slab in range(begin, end):
        windows = elements(context, p[f.WORK] + slab * p[f.SLAB_SIZE] * itemsize(context))
        for task in range(tasks * slab // p[f.SLABS], tasks * (slab + 1) // p[f.SLABS]):
            group, band = task // p[f.BANDS], task % p[f.BANDS]
            first_row, last_row = p[f.IH] * band // p[f.BANDS], p[f.IH] * (band + 1) // p[f.BANDS]
            clear_rows(p, x, group, first_row, last_row)
            above = ceil_div(first_row + p[f.PH] - (p[f.KH] - 1) * p[f.DH], p[f.SH])
            below = ceil_div(last_row + p[f.PH], p[f.SH])
            for pixel in range(larger(0, above) * p[f.OW], smaller(p[f.OH], below) * p[f.OW]):
                place = pixel * p[f.G] + group
                for first in range(0, p[f.N], p[f.BLOCK]):
                    count = smaller(p[f.BLOCK], p[f.N] - first)
                    clear(windows, count * p[f.PITCH])
                    for oc in range(filters):
                        row = moved(w, (place * filters + oc) * taps)
                        for image in range(count):
                            gradient = y[output_at(p, place, first + image) + oc * p[f.Y_C]]
                            add_scaled(moved(windows, image * p[f.PITCH]), 1, row, 1, gradient, taps)
                    for image in range(count):
                        window = moved(windows, image * p[f.PITCH])
                        scatter(p, x, place, first + image, first_row, last_row, window)

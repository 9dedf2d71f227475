"""Depthwise convolution with filters of 3 x 3 and stride one or two, nchw: planes are read in place, a vector of
neighbouring columns down all rows. A padded copy would cost more than the products where planes are small.

Rows are done several at a time and share what they load; the last such block overlaps the one before it, and so does
the last vector of a row. Every output is added up tap by tap in the order of the filter.
"""

from __future__ import annotations

from numba import njit

from . import conv_fields as f
from .arithmetic import larger, smaller
from .borders import bordered, whole
from .masked import mask_between, store_first
from .memory import moved
from .variants import variant
from .vectors import evens, in_order, lanes, multiply_add, odds, splat


@njit(error_model="numpy")
def takes_nine_taps(p):
    return p[f.KH] == 3 and p[f.KW] == 3 and p[f.SH] == p[f.SW] <= 2 and p[f.DH] == 1 and p[f.DW] == 1


@njit(error_model="numpy")
def nine_taps(p, plane, w, y, start):
    columns, width = p[f.OW], lanes(y)
    for i in range(0, columns, width):
        ow = smaller(i, larger(columns - width, 0))
        column = ow * p[f.SW] - p[f.PW]
        if p[f.SW] == 1:
            if column >= 0 and column + width + 2 <= p[f.IW]:
                inside_by_one(p, plane, column, w, y, ow, start)
            else:
                bordered_by_one(p, plane, column, w, y, ow, start)
        elif column >= 0 and column + 2 * width + 2 <= p[f.IW]:
            inside_by_two(p, plane, column, w, y, ow, start)
        else:
            bordered_by_two(p, plane, column, w, y, ow, start)


@njit(error_model="numpy")
def three_products(total, row, a, b, c):
    """``row``: the filter's taps of one row, ``a, b, c`` what they read."""
    total = multiply_add(row[0], a, total)
    total = multiply_add(row[1], b, total)
    return multiply_add(row[2], c, total)


@njit(error_model="numpy")
def spread_row(w, kh):
    return splat(w, w[3 * kh]), splat(w, w[3 * kh + 1]), splat(w, w[3 * kh + 2])


def columns_by_one(fetch):
    """A vector of columns of all output rows, four rows at a time: row i of the six that they read serves the output
    rows i - 2, i - 1 and i."""

    @variant(fetch.__name__)
    def three(here, masks, zero):
        return fetch(here, 0, masks[0], zero), fetch(here, 1, masks[1], zero), fetch(here, 2, masks[2], zero)

    @variant(fetch.__name__)
    def columns(p, plane, column, w, y, ow, start):
        height, width, rows, step = p[f.IH], p[f.IW], p[f.OH], p[f.OW]
        zero, w0, w1, w2 = splat(y, 0), spread_row(w, 0), spread_row(w, 1), spread_row(w, 2)
        masks = (
            mask_between(y, -column, width - column),
            mask_between(y, -column - 1, width - column - 1),
            mask_between(y, -column - 2, width - column - 2),
        )
        for r in range(0, rows, 4):
            oh = smaller(r, larger(rows - 4, 0))
            row = oh - p[f.PH]
            here = moved(plane, row * width + column)
            s0, s1, s2, s3 = start, start, start, start
            if 0 <= row < height:
                a, b, c = three(here, masks, zero)
                s0 = three_products(s0, w0, a, b, c)
            if -1 <= row < height - 1:
                a, b, c = three(moved(here, width), masks, zero)
                s0, s1 = three_products(s0, w1, a, b, c), three_products(s1, w0, a, b, c)
            if -2 <= row < height - 2:
                a, b, c = three(moved(here, 2 * width), masks, zero)
                s0, s1 = three_products(s0, w2, a, b, c), three_products(s1, w1, a, b, c)
                s2 = three_products(s2, w0, a, b, c)
            if -3 <= row < height - 3:
                a, b, c = three(moved(here, 3 * width), masks, zero)
                s1, s2 = three_products(s1, w2, a, b, c), three_products(s2, w1, a, b, c)
                s3 = three_products(s3, w0, a, b, c)
            if -4 <= row < height - 4:
                a, b, c = three(moved(here, 4 * width), masks, zero)
                s2, s3 = three_products(s2, w2, a, b, c), three_products(s3, w1, a, b, c)
            if -5 <= row < height - 5:
                a, b, c = three(moved(here, 5 * width), masks, zero)
                s3 = three_products(s3, w2, a, b, c)
            # What a row narrower than a vector stores past its end the next one stores again.
            out, room = moved(y, oh * step + ow), (rows - oh) * step - ow
            store_first(out, 0, s0, room)
            if rows > 1:
                store_first(out, step, s1, room - step)
            if rows > 2:
                store_first(out, 2 * step, s2, room - 2 * step)
            if rows > 3:
                store_first(out, 3 * step, s3, room - 3 * step)

    return columns


def columns_by_two(fetch):
    """The same with stride two, two rows at a time, which share the third of the five that they read."""

    @variant(fetch.__name__)
    def three(here, masks, zero):
        width = lanes(here)
        low, high = fetch(here, 0, masks[0], zero), fetch(here, width, masks[1], zero)
        last = evens(fetch(here, 2, masks[2], zero), fetch(here, 2 + width, masks[3], zero))
        return evens(low, high), odds(low, high), last

    @variant(fetch.__name__)
    def columns(p, plane, column, w, y, ow, start):
        height, width, rows, step, behind = p[f.IH], p[f.IW], p[f.OH], p[f.OW], column + lanes(y)
        zero, w0, w1, w2 = splat(y, 0), spread_row(w, 0), spread_row(w, 1), spread_row(w, 2)
        masks = (
            mask_between(y, -column, width - column),
            mask_between(y, -behind, width - behind),
            mask_between(y, -column - 2, width - column - 2),
            mask_between(y, -behind - 2, width - behind - 2),
        )
        for r in range(0, rows, 2):
            oh = smaller(r, larger(rows - 2, 0))
            row = 2 * oh - p[f.PH]
            here = moved(plane, row * width + column)
            s0, s1 = start, start
            if 0 <= row < height:
                a, b, c = three(here, masks, zero)
                s0 = three_products(s0, w0, a, b, c)
            if -1 <= row < height - 1:
                a, b, c = three(moved(here, width), masks, zero)
                s0 = three_products(s0, w1, a, b, c)
            if -2 <= row < height - 2:
                a, b, c = three(moved(here, 2 * width), masks, zero)
                s0, s1 = three_products(s0, w2, a, b, c), three_products(s1, w0, a, b, c)
            if -3 <= row < height - 3:
                a, b, c = three(moved(here, 3 * width), masks, zero)
                s1 = three_products(s1, w1, a, b, c)
            if -4 <= row < height - 4:
                a, b, c = three(moved(here, 4 * width), masks, zero)
                s1 = three_products(s1, w2, a, b, c)
            out, room = moved(y, oh * step + ow), (rows - oh) * step - ow
            store_first(out, 0, in_order(s0), room)
            if rows > 1:
                store_first(out, step, in_order(s1), room - step)

    return columns


inside_by_one, bordered_by_one = columns_by_one(whole), columns_by_one(bordered)
inside_by_two, bordered_by_two = columns_by_two(whole), columns_by_two(bordered)

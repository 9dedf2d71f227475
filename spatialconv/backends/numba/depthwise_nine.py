"""Depthwise convolution with filters of 3 x 3, nchw: planes are read in place, a vector of neighbouring columns down
all rows, with lanes beside the image masked. A padded copy would cost more than the products where planes are small.
"""

from __future__ import annotations

from numba import njit

from . import conv_fields as f
from .arithmetic import first_inside, last_inside
from .memory import moved
from .vectors import lanes, load_between, load_even_between, multiply_add, splat, store_first


@njit(error_model="numpy")
def takes_nine_taps(p):
    return p[f.KH] == 3 and p[f.KW] == 3 and p[f.SW] <= 2


@njit(error_model="numpy")
def nine_taps(p, plane, w, y, start):
    """Every output is added up tap by tap in the order of the filter."""
    oh, columns, stride = p[f.OH], p[f.OW], p[f.SW]
    height, width, step, top = p[f.IH], p[f.IW], p[f.SH], p[f.PH]
    down, left, middle, right = p[f.DH], -p[f.PW], p[f.DW] - p[f.PW], 2 * p[f.DW] - p[f.PW]
    if stride == 1 and step == 1 and down == 1:
        fours = oh // 4 * 4
        for i in range(0, columns, lanes(y)):
            four_rows(plane, -top, height, width, left, middle, right, i, w, y, fours, columns, start)
    else:
        fours = 0
    if fours == oh:
        return
    first0, last0 = first_inside(left, stride, columns), last_inside(left, stride, width, columns)
    first1, last1 = first_inside(middle, stride, columns), last_inside(middle, stride, width, columns)
    first2, last2 = first_inside(right, stride, columns), last_inside(right, stride, width, columns)
    for i in range(0, columns, lanes(y)):
        for out in range(fours, oh):
            total = start
            for kh in range(3):
                row = out * step + kh * down - top
                a, b, c = splat(y, 0), splat(y, 0), splat(y, 0)
                if row >= 0 and row < height:
                    values = moved(plane, row * width)
                    a = columns_at(moved(values, left), i, first0, last0, stride)
                    b = columns_at(moved(values, middle), i, first1, last1, stride)
                    c = columns_at(moved(values, right), i, first2, last2, stride)
                total = add_taps(total, w, 3 * kh, a, b, c)
            store_first(y, out * columns + i, total, columns - i)


@njit(error_model="numpy")
def columns_at(row, i, first, last, stride):
    if stride == 1:
        return load_between(row, i, first, last)
    return load_even_between(row, i, first, last)


@njit(error_model="numpy")
def add_taps(total, w, k, a, b, c):
    """Three taps of a filter row."""
    total = multiply_add(splat(w, w[k]), a, total)
    total = multiply_add(splat(w, w[k + 1]), b, total)
    return multiply_add(splat(w, w[k + 2]), c, total)


@njit(error_model="numpy")
def inside(plane, row, height, width, column):
    """A vector of a row from a column on; what lies beside the image is 0."""
    if row < 0 or row >= height:
        return splat(plane, 0)
    return load_between(moved(plane, row * width), column, 0, width)


@njit(error_model="numpy")
def three_taps(plane, row, height, width, left, middle, right):
    return (
        inside(plane, row, height, width, left),
        inside(plane, row, height, width, middle),
        inside(plane, row, height, width, right),
    )


@njit(error_model="numpy")
def four_rows(plane, row, height, width, left, middle, right, i, w, y, rows, columns, start):
    """Four output rows at a time share what they load: row r of six serves the output rows r - 2, r - 1 and r."""
    left, middle, right = left + i, middle + i, right + i
    for oh in range(0, rows, 4):
        r = row + oh
        a, b, c = three_taps(plane, r, height, width, left, middle, right)
        s0 = add_taps(start, w, 0, a, b, c)
        r += 1
        a, b, c = three_taps(plane, r, height, width, left, middle, right)
        s0, s1 = add_taps(s0, w, 3, a, b, c), add_taps(start, w, 0, a, b, c)
        r += 1
        a, b, c = three_taps(plane, r, height, width, left, middle, right)
        s0, s1, s2 = add_taps(s0, w, 6, a, b, c), add_taps(s1, w, 3, a, b, c), add_taps(start, w, 0, a, b, c)
        r += 1
        a, b, c = three_taps(plane, r, height, width, left, middle, right)
        s1, s2, s3 = add_taps(s1, w, 6, a, b, c), add_taps(s2, w, 3, a, b, c), add_taps(start, w, 0, a, b, c)
        r += 1
        a, b, c = three_taps(plane, r, height, width, left, middle, right)
        s2, s3 = add_taps(s2, w, 6, a, b, c), add_taps(s3, w, 3, a, b, c)
        r += 1
        a, b, c = three_taps(plane, r, height, width, left, middle, right)
        s3 = add_taps(s3, w, 6, a, b, c)
        rest, out = columns - i, moved(y, oh * columns + i)
        store_first(out, 0, s0, rest)
        store_first(out, columns, s1, rest)
        store_first(out, 2 * columns, s2, rest)
        store_first(out, 3 * columns, s3, rest)

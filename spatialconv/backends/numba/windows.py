"""Pooling windows along one axis, and what they contribute to an average's divisor."""

from __future__ import annotations

from numba import njit

from . import pool_fields as f
from .arithmetic import larger, smaller


@njit(error_model="numpy")
def row_window(p, o):
    """The input rows first, first + step, ... of a window, ``count`` of them."""
    return window(p[f.ADAPTIVE], o, p[f.IH], p[f.OH], p[f.KH], p[f.SH], p[f.PH], p[f.DH])


@njit(error_model="numpy")
def column_window(p, o):
    """The input columns first, first + step, ... of a window, ``count`` of them."""
    return window(p[f.ADAPTIVE], o, p[f.IW], p[f.OW], p[f.KW], p[f.SW], p[f.PW], p[f.DW])


@njit(error_model="numpy")
def window(adaptive, o, size, outputs, kernel, stride, padding, dilation):
    """With no element, ``first`` is where torch would have started, moved inside the input."""
    if adaptive:
        begin = o // outputs * size + o % outputs * size // outputs
        end = (o + 1) // outputs * size + ((o + 1) % outputs * size + outputs - 1) // outputs
        return begin, end - begin, 1
    first, taps = o * stride - padding, kernel
    if first < 0:
        skipped = (dilation - 1 - first) // dilation
        first += skipped * dilation
        taps -= skipped
    count = (size - 1 - first) // dilation + 1 if first < size else 0
    return smaller(first, size - 1), larger(0, smaller(count, taps)), dilation


@njit(error_model="numpy")
def row_divisor(p, o):
    if p[f.DIVISOR] != 0:
        return p[f.DIVISOR]
    if p[f.ADAPTIVE] or not p[f.INCLUDE_PAD]:
        return row_window(p, o)[1]
    return extent(o * p[f.SH] - p[f.PH], p[f.KH], p[f.IH] + p[f.PH])


@njit(error_model="numpy")
def column_divisor(p, o):
    if p[f.DIVISOR] != 0:
        return 1
    if p[f.ADAPTIVE] or not p[f.INCLUDE_PAD]:
        return column_window(p, o)[1]
    return extent(o * p[f.SW] - p[f.PW], p[f.KW], p[f.IW] + p[f.PW])


@njit(error_model="numpy")
def extent(begin, kernel, limit):
    """How much of a window counts: padding up to ``limit`` does, what lies beyond it does not."""
    return smaller(begin + kernel, limit) - begin


@njit(error_model="numpy")
def window_divisor(p, oh, ow):
    """What the sum of a window is divided by, 1 where nothing is in it."""
    return nonzero(row_divisor(p, oh) * column_divisor(p, ow))


@njit(error_model="numpy")
def nonzero(divisor):
    return divisor if divisor != 0 else 1

"""Integer arithmetic of the geometry."""

from __future__ import annotations

from numba import njit


@njit(error_model="numpy")
def ceil_div(a, b):
    # Divisions by the usual strides are spared, which shows where rows are short.
    if b == 1:
        return a
    if b == 2:
        return (a + 1) >> 1
    return -(-a // b)


@njit(error_model="numpy")
def smaller(a, b):
    return a if a < b else b


@njit(error_model="numpy")
def larger(a, b):
    return a if a > b else b


@njit(error_model="numpy")
def first_inside(shift, stride, outputs):
    """The first output of [0, outputs) whose input position, output * stride + shift, is not before the input."""
    return smaller(outputs, larger(0, ceil_div(-shift, stride)))


@njit(error_model="numpy")
def last_inside(shift, stride, size, outputs):
    """One past the last output whose input position lies before the input's end, at least ``first_inside``."""
    return larger(first_inside(shift, stride, outputs), smaller(outputs, ceil_div(size - shift, stride)))

"""Runs of memory, copied and filled a vector at a time."""

from __future__ import annotations

from numba import njit

from .memory import moved
from .vectors import lanes, load, load_between, load_even_between, load_first, splat, store, store_first


@njit(error_model="numpy")
def copy(to, source, step, count):
    """to[i] = source[i * step]."""
    width = lanes(to)
    if step == 1:
        whole = count // width * width
        for i in range(0, whole, width):
            store(to, i, load(source, i))
        if whole < count:
            store_first(to, whole, load_first(source, whole, count - whole), count - whole)
    elif step == 2:
        for i in range(0, count, width):
            store_first(to, i, load_even_between(source, i, 0, count), count - i)
    else:
        for i in range(count):
            to[i] = source[i * step]


@njit(error_model="numpy")
def fill(to, count, value):
    width, values = lanes(to), splat(to, value)
    for i in range(0, count, width):
        store_first(to, i, values, count - i)


@njit(error_model="numpy")
def clear(to, count):
    fill(to, count, 0)


@njit(error_model="numpy")
def copy_padded(to, length, source, first, last, shift, step):
    """to[i] = source[i * step + shift] for i in [first, last), else 0, i < length; a vector more may be written."""
    source, width = moved(source, shift), lanes(to)
    if step == 1:
        for i in range(0, length, width):
            store(to, i, load_between(source, i, first, last))
    elif step == 2:
        for i in range(0, length, width):
            store(to, i, load_even_between(source, i, first, last))
    else:
        clear(to, first)
        copy(moved(to, first), moved(source, first * step), step, last - first)
        clear(moved(to, last), length - last)

"""Runs of memory, copied and filled a vector at a time; the last vector overlaps the one before it."""

from __future__ import annotations

from numba import njit

from .masked import load_between, load_even_between, load_first, store_first
from .memory import moved
from .vectors import lanes, load, load_even, splat, store


@njit(error_model="numpy")
def copy(to, source, step, count):
    """to[i] = source[i * step]."""
    width = lanes(to)
    if step == 1 and count < width:
        store_first(to, 0, load_first(source, 0, count), count)
    elif step == 1:
        for i in range(0, count - width, width):
            store(to, i, load(source, i))
        store(to, count - width, load(source, count - width))
    elif step == 2 and count >= width:
        for i in range(0, count - width, width):
            store(to, i, load_even(source, 2 * i))
        store(to, count - width, load_even(source, 2 * (count - width)))
    else:
        for i in range(count):
            to[i] = source[i * step]


@njit(error_model="numpy")
def fill(to, count, value):
    width, values = lanes(to), splat(to, value)
    if count < width:
        store_first(to, 0, values, count)
        return
    for i in range(0, count - width, width):
        store(to, i, values)
    store(to, count - width, values)


@njit(error_model="numpy")
def clear(to, count):
    fill(to, count, 0)


@njit(error_model="numpy")
def copy_padded(to, length, source, first, last, shift, step):
    """to[i] = source[i * step + shift] for i in [first, last), else 0, i < length; a vector more may be written."""
    source, width = moved(source, shift), lanes(to)
    if step <= 2:
        for i in range(0, length, width):
            inside = i >= first and i + width <= last
            if step == 1:
                store(to, i, load(source, i) if inside else load_between(source, i, first, last))
            else:
                store(to, i, load_even(source, 2 * i) if inside else load_even_between(source, i, first, last))
    else:
        clear(to, first)
        copy(moved(to, first), moved(source, first * step), step, last - first)
        clear(moved(to, last), length - last)

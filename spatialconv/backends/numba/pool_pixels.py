"""Pooling of nhwc images without indices: a window at a time, four vectors of channels together, so that every cache
line of the window is read once."""

from __future__ import annotations

from . import pool_fields as f
from .masked import load_first, store_first
from .memory import moved
from .variants import variant
from .vectors import divide, lanes, load, splat, store
from .windows import column_window, row_window, window_divisor


def pixels_of(name: str, combine, neutral: float):
    """The function that computes an output row of ``maximum`` or ``average`` pooling."""
    averaged = name == "average"

    @variant(name, forceinline=True)
    def four_vectors(window, rows, down, taps, across, divisor, to):
        width = lanes(to)
        s0 = s1 = s2 = s3 = splat(to, neutral)
        for row in range(rows):
            for tap in range(taps):
                here = moved(window, row * down + tap * across)
                s0, s1 = combine(s0, load(here, 0)), combine(s1, load(here, width))
                s2, s3 = combine(s2, load(here, 2 * width)), combine(s3, load(here, 3 * width))
        if averaged:
            s0, s1, s2, s3 = divide(s0, divisor), divide(s1, divisor), divide(s2, divisor), divide(s3, divisor)
        store(to, 0, s0)
        store(to, width, s1)
        store(to, 2 * width, s2)
        store(to, 3 * width, s3)

    @variant(name, forceinline=True)
    def first_of_vector(window, rows, down, taps, across, divisor, to, count):
        total = splat(to, neutral)
        for row in range(rows):
            for tap in range(taps):
                total = combine(total, load_first(moved(window, row * down + tap * across), 0, count))
        store_first(to, 0, divide(total, divisor) if averaged else total, count)

    @variant(name)
    def output_row(p, image, y, oh):
        first, rows, step = row_window(p, oh)
        channels, down, four = p[f.IC], step * p[f.X_H], 4 * lanes(y)
        whole = channels // four * four
        for ow in range(p[f.OW]):
            begin, taps, across = column_window(p, ow)
            across *= p[f.X_W]
            to, window = moved(y, ow * channels), moved(image, first * p[f.X_H] + begin * p[f.X_W])
            divisor = splat(y, window_divisor(p, oh, ow) if averaged else 1)
            for c in range(0, whole, four):
                four_vectors(moved(window, c), rows, down, taps, across, divisor, moved(to, c))
            for c in range(whole, channels, lanes(y)):
                rest = channels - c
                first_of_vector(moved(window, c), rows, down, taps, across, divisor, moved(to, c), rest)

    return output_row

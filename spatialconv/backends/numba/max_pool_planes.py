"""The gradient of max pooling, a scatter by the indices of the forward pass, and its second derivative, the gather.

A task is one plane (nchw), or a chunk of the channels of an image (nhwc). The gradient of a window without an input
element is dropped, and so is an index outside the plane.
"""

from __future__ import annotations

from numba import njit

from . import pool_fields as f
from .arithmetic import smaller
from .memory import as_element, elements, indices_at, integers, moved
from .windows import column_window, row_window


@njit(error_model="numpy")
def part(p, task):
    """Where a task's elements begin in x and in y, how many channels it has, and how far its pixels lie apart."""
    if not p[f.NHWC]:
        return task * (p[f.IH] * p[f.IW]), task * (p[f.OH] * p[f.OW]), 1, 1
    chunks = (p[f.IC] + p[f.CHUNK] - 1) // p[f.CHUNK]
    image, first = task // chunks, task % chunks * p[f.CHUNK]
    return image * p[f.X_N] + first, image * p[f.Y_N] + first, smaller(p[f.CHUNK], p[f.IC] - first), p[f.IC]


def max_pool2d_scatter(begin, end, context):
    p = integers(context)
    x, y, indices = elements(context, p[f.X]), elements(context, p[f.Y]), indices_at(p[f.AUX])
    for task in range(begin, end):
        to, source, channels, pixel = part(p, task)
        scatter(p, moved(x, to), moved(y, source), moved(indices, source), channels, pixel)


@njit(error_model="numpy")
def scatter(p, x, y, where, channels, pixel):
    plane = p[f.IH] * p[f.IW]
    for i in range(plane):
        for c in range(channels):
            x[i * pixel + c] = as_element(x, 0)
    for oh in range(p[f.OH]):
        if row_window(p, oh)[1] == 0:
            continue
        for ow in range(p[f.OW]):
            if column_window(p, ow)[1] == 0:
                continue
            at = (oh * p[f.OW] + ow) * pixel
            for c in range(channels):
                index = where[at + c]
                if 0 <= index < plane:
                    x[index * pixel + c] += y[at + c]


def max_pool2d_gather(begin, end, context):
    p = integers(context)
    x, y, indices = elements(context, p[f.X]), elements(context, p[f.Y]), indices_at(p[f.AUX])
    for task in range(begin, end):
        source, to, channels, pixel = part(p, task)
        gather(p, moved(x, source), moved(y, to), moved(indices, to), channels, pixel)


@njit(error_model="numpy")
def gather(p, x, y, where, channels, pixel):
    plane = p[f.IH] * p[f.IW]
    for oh in range(p[f.OH]):
        row_there = row_window(p, oh)[1] > 0
        for ow in range(p[f.OW]):
            there = row_there and column_window(p, ow)[1] > 0
            at = (oh * p[f.OW] + ow) * pixel
            for c in range(channels):
                index = where[at + c]
                y[at + c] = x[index * pixel + c] if there and 0 <= index < plane else as_element(x, 0)

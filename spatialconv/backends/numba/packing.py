"""Copies of images, filters and gradients in the order in which the tiles read them."""

from __future__ import annotations

from numba import njit

from . import gemm_fields as f
from .arithmetic import first_inside, larger, last_inside, smaller
from .copies import clear, copy
from .memory import moved
from .tiles import WIDE_ROWS
from .vectors import interleaving, lanes, load, store, transpose_square

# Channels of filters that are packed at a time.
_RUN = 64


interleave_filters = interleaving(WIDE_ROWS)


@njit(error_model="numpy")
def pack_filter_block(p, filters, filter_count, to, width):
    """to[k * width + j] = filter j at depth index k = (chunk of channels, tap, source channel in the chunk); zeros
    behind the last filter."""
    channels, source_step, dest_step, chunk = p[f.SOURCE_CHANNELS], p[f.F_SOURCE], p[f.F_DEST], p[f.CHUNK]
    taps_h, taps_w = p[f.TAPS_H], p[f.TAPS_W]
    # A few channels at a time, so that no line that is read or written leaves the cache half used.
    run = smaller(chunk, _RUN)
    for first in range(0, channels, run):
        begin = first // chunk * chunk
        count = smaller(run, begin + chunk - first)
        for tap_h in range(taps_h):
            for tap_w in range(taps_w):
                at = (p[f.FIRST_H] + tap_h * p[f.STEP_H]) * p[f.F_H] + (p[f.FIRST_W] + tap_w * p[f.STEP_W]) * p[f.F_W]
                depth = begin * taps_h * taps_w + (tap_h * taps_w + tap_w) * chunk + first - begin
                source = moved(filters, at + first * source_step)
                transpose(moved(to, depth * width), width, source, dest_step, source_step, count, filter_count)
    if filter_count < width:
        for k in range(channels * taps_h * taps_w):
            clear(moved(to, k * width + filter_count), width - filter_count)


@njit(error_model="numpy")
def transpose(to, width, source, column_step, row_step, rows, columns):
    """to[i * width + j] = source[j * column_step + i * row_step]."""
    square, across = lanes(to), 0
    if row_step == 1 and columns == width and width == WIDE_ROWS:
        whole = rows // square * square
        for i in range(0, whole, square):
            interleave_filters(moved(to, i * width), square, moved(source, i), column_step)
        for i in range(whole, rows):
            for j in range(width):
                to[i * width + j] = source[j * column_step + i]
        return
    while row_step == 1 and across + square <= columns:
        down = 0
        while down + square <= rows:
            transpose_square(
                moved(to, down * width + across), width, moved(source, across * column_step + down), column_step
            )
            down += square
        for j in range(across, across + square):
            for i in range(down, rows):
                to[i * width + j] = source[j * column_step + i]
        across += square
    for j in range(across, columns):
        for i in range(rows):
            to[i * width + j] = source[j * column_step + i * row_step]


@njit(error_model="numpy")
def next_pixel(w, h, n, count, count_w, count_h):
    """The grid position ``count`` further on, in this row or at the beginning of the next."""
    w += count
    if w < count_w:
        return w, h, n
    h += 1
    if h < count_h:
        return 0, h, n
    return 0, 0, n + 1


@njit(error_model="numpy")
def pack_rows(p, source, first, last, begin, end, to, pitch):
    """nhwc: to[(pixel - first) * pitch + k - begin], grid positions [first, last), depth indices [begin, end)."""
    # Neighbouring taps of a filter row are one run of memory where their channels are.
    run_taps = p[f.TAPS_W] if p[f.GROUPS] == 1 and p[f.SHIFT_W] == 1 else 1
    channels = p[f.SOURCE_CHANNELS]
    run, rows = run_taps * channels, p[f.TAPS_W] // run_taps
    count_w, count_h = p[f.COUNT_W], p[f.COUNT_H]
    first_run, last_run = begin // run, (end + run - 1) // run
    first_row, first_column = first_run // rows, first_run % rows
    w, h, n = first % count_w, first // count_w % count_h, first // count_w // count_h
    for pixel in range(first, last):
        image = moved(source, n * p[f.S_IMAGE])
        row, left = h * p[f.STRIDE_H] + p[f.OFFSET_H] + first_row * p[f.SHIFT_H], w * p[f.STRIDE_W] + p[f.OFFSET_W]
        out = moved(to, (pixel - first) * pitch - begin)
        tap_w = first_column
        for r in range(first_run, last_run):
            column = left + tap_w * p[f.SHIFT_W]
            low, high = larger(begin, r * run), smaller(end, (r + 1) * run)
            if row < 0 or row >= p[f.SOURCE_H]:
                clear(moved(out, low), high - low)
            else:
                inside = smaller(high, larger(low, r * run - column * channels))
                beyond = larger(inside, smaller(high, r * run + (p[f.SOURCE_W] - column) * channels))
                here = row * p[f.S_ROW] + column * p[f.S_COLUMN] - r * run
                clear(moved(out, low), inside - low)
                copy(moved(out, inside), moved(image, here + inside), 1, beyond - inside)
                clear(moved(out, beyond), high - beyond)
            tap_w += 1
            if tap_w == rows:
                tap_w = 0
                row += p[f.SHIFT_H]
        w, h, n = next_pixel(w, h, n, 1, count_w, count_h)


@njit(error_model="numpy")
def pack_lines(p, source, first, last, begin, end, to, pitch):
    """nchw: to[(k - begin) * pitch + pixel - first]."""
    channels, stride = p[f.SOURCE_CHANNELS], p[f.STRIDE_W]
    count_w, count_h = p[f.COUNT_W], p[f.COUNT_H]
    step_h, source_h, s_row, s_image = p[f.STRIDE_H], p[f.SOURCE_H], p[f.S_ROW], p[f.S_IMAGE]
    start_w, start_h, start_n = first % count_w, first // count_w % count_h, first // count_w // count_h
    for k in range(begin, end):
        tap, channel = k // channels, k % channels
        top = p[f.OFFSET_H] + tap // p[f.TAPS_W] * p[f.SHIFT_H]
        left = p[f.OFFSET_W] + tap % p[f.TAPS_W] * p[f.SHIFT_W]
        first_w = first_inside(left, stride, count_w)
        last_w = last_inside(left, stride, p[f.SOURCE_W], count_w)
        out = moved(to, (k - begin) * pitch)
        plane = moved(source, channel * p[f.S_CHANNEL] + left)
        pixel, w, h, n = first, start_w, start_h, start_n
        while pixel < last:
            end_w = smaller(count_w, w + last - pixel)
            row = h * step_h + top
            at = moved(out, pixel - first - w)
            if row < 0 or row >= source_h:
                clear(moved(at, w), end_w - w)
            else:
                low = smaller(end_w, larger(w, first_w))
                high = larger(low, smaller(end_w, last_w))
                clear(moved(at, w), low - w)
                copy(moved(at, low), moved(plane, n * s_image + row * s_row + low * stride), stride, high - low)
                clear(moved(at, high), end_w - high)
            pixel += end_w - w
            w, h, n = next_pixel(w, h, n, end_w - w, count_w, count_h)


@njit(error_model="numpy")
def pack_runs(p, source, first, last, depth, to, width):
    """nchw, where every pixel keeps its place: to[k * width + pixel - first], for at most ``width`` pixels. Beyond the
    last of them anything may stand."""
    plane, channel, image = p[f.COUNT_W], p[f.S_CHANNEL], p[f.S_IMAGE]
    at, step = moved(source, first // plane * image + first % plane), lanes(to)
    left = plane - first % plane
    if left >= width and last - first == width:
        for k in range(depth):
            for i in range(0, width, step):
                store(to, k * width + i, load(at, k * channel + i))
        return
    for k in range(depth):
        done, run = 0, smaller(left, last - first)
        here = moved(at, k * channel)
        while run > 0:
            copy(moved(to, k * width + done), here, 1, run)
            done += run
            run = smaller(plane, last - first - done)
            here = moved(source, ((first + done) // plane) * image + k * channel)


@njit(error_model="numpy")
def pack_gradients(p, gradients, first, last, count, to, width):
    """to[(pixel - first) * width + j] = the gradient of channel j of ``count`` at a pixel; zeros behind the last."""
    plane = p[f.COUNT_H] * p[f.COUNT_W]
    channel_step, column_step = p[f.D_CHANNEL], p[f.D_COLUMN]
    pixel = first
    while pixel < last:
        at = pixel % plane
        run = smaller(plane - at, last - pixel)
        image = moved(gradients, pixel // plane * p[f.D_IMAGE] + at * column_step)
        out = moved(to, (pixel - first) * width)
        if channel_step == 1 and count == WIDE_ROWS and width == WIDE_ROWS:
            for i in range(run):
                for j in range(WIDE_ROWS):
                    out[i * WIDE_ROWS + j] = image[i * column_step + j]
        elif channel_step == 1:
            for i in range(run):
                copy(moved(out, i * width), moved(image, i * column_step), 1, count)
        else:
            for j in range(count):
                for i in range(run):
                    out[i * width + j] = image[j * channel_step + i]
        pixel += run
    for i in range(last - first):
        clear(moved(to, i * width + count), width - count)

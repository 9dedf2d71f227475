"""The gradient of the weight as an implicit GEMM: [output channels, taps x input channels], summed over all pixels.

The result is small and the sum is long, so the pixels are split among programs, each of which writes a partial sum in
the accumulators' type to a workspace; a second kernel adds these in a fixed order. How many there are follows from
the problem alone, so results are the same bits at every run and on every device of one architecture.
"""

import triton
import triton.language as tl

from .tiles import along_channels, along_pixels, multiply, tile_of


@triton.jit
def conv_grad_weight(
    grad_output,
    input,
    partial,  # [splits, oc, kh, kw, ic / g] of the workspace, or the result itself where there is one split
    images,
    groups,
    ih,
    iw,
    ow,
    plane_units,  # pixels of an output image, in units of PLANE_UNIT
    in_units,  # input channels of a group, in units of IN_UNIT
    out_units,
    sh,
    sw,
    ph,
    pw,
    dh,
    dw,
    steps,  # blocks of pixels of one split
    out_tap_stride,  # of the partial sums
    out_channel_stride,
    KH: tl.constexpr,
    KW: tl.constexpr,
    IN_UNIT: tl.constexpr,
    OUT_UNIT: tl.constexpr,
    PLANE_UNIT: tl.constexpr,
    POINTWISE: tl.constexpr,
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,
    PACKED: tl.constexpr,  # a tile spans taps: few input channels
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    RASTER: tl.constexpr,
):
    INDEX: tl.constexpr = tl.int64 if WIDE else tl.int32
    ih, iw = tl.cast(ih, INDEX), tl.cast(iw, INDEX)
    ow = tl.cast(ow, INDEX)
    in_units, out_units = tl.cast(in_units, INDEX), tl.cast(out_units, INDEX)
    SUM: tl.constexpr = tl.float64 if input.dtype.element_ty == tl.float64 else tl.float32
    channels = in_units * IN_UNIT
    targets = out_units * OUT_UNIT
    in_channels = groups * channels
    out_channels = groups * targets
    plane = tl.cast(plane_units, INDEX) * PLANE_UNIT
    count = images * plane
    row_tiles = tl.cdiv(targets, ROWS)
    if PACKED:
        blocks = tl.cdiv(KH * KW * channels, COLUMNS)
        column_tiles = blocks
    else:
        blocks = tl.cdiv(channels, COLUMNS)
        column_tiles = KH * KW * blocks
    tiles = row_tiles * column_tiles
    program = tl.program_id(0).to(INDEX)
    row_tile, column_tile = tile_of(program % tiles, row_tiles, column_tiles, RASTER)
    group = program // tiles % groups
    split = program // tiles // groups

    target = row_tile * ROWS + tl.arange(0, ROWS)
    if PACKED:
        index = column_tile * COLUMNS + tl.arange(0, COLUMNS)
        tap = index // channels
        channel = index % channels
        known = index < KH * KW * channels
        tap_row = along_channels(tap // KW * dh - ph, NHWC)
        tap_column = along_channels(tap % KW * dw - pw, NHWC)
    else:
        tap = column_tile // blocks
        channel = column_tile % blocks * COLUMNS + tl.arange(0, COLUMNS)
        known = channel < channels
        tap_row = tap // KW * dh - ph
        tap_column = tap % KW * dw - pw
    in_plane = plane if POINTWISE else ih * iw
    if NHWC:
        pixel_stride, channel_stride = in_channels, 1
        out_pixel_stride, target_stride = out_channels, 1
    else:
        pixel_stride, channel_stride = 1, in_plane
        out_pixel_stride, target_stride = 1, plane
    offset = channel * channel_stride
    if not POINTWISE:
        offset += (tap // KW * dh - ph) * iw * pixel_stride + (tap % KW * dw - pw) * pixel_stride

    first_grad = grad_output + group.to(tl.int64) * targets * target_stride
    first_input = input + group.to(tl.int64) * channels * channel_stride
    total = tl.zeros((ROWS, COLUMNS), SUM)
    for step in range(split * steps, tl.minimum((split + 1) * steps, tl.cdiv(count, DEPTH))):
        pixel = step * DEPTH + tl.arange(0, DEPTH)
        live = pixel < count
        image = (pixel // plane).to(tl.int64)
        place = pixel % plane
        at = along_pixels(image * plane * out_channels + place * out_pixel_stride, NHWC)
        kept = along_pixels(live, NHWC) & along_channels(target < targets, NHWC)
        grads = tl.load(first_grad + at + along_channels(target * target_stride, NHWC), mask=kept, other=0.0)

        kept = along_pixels(live, NHWC) & along_channels(known, NHWC)
        if not POINTWISE:
            row = place // ow * sh
            column = place % ow * sw
            down = along_pixels(row, NHWC) + tap_row
            across = along_pixels(column, NHWC) + tap_column
            kept &= (down >= 0) & (down < ih) & (across >= 0) & (across < iw)
            place = row * iw + column
        at = along_pixels(image * in_plane * in_channels + place * pixel_stride, NHWC)
        pixels = tl.load(first_input + at + along_channels(offset, NHWC), mask=kept, other=0.0)
        if NHWC:
            total = multiply(total, tl.trans(grads), pixels, PRECISION)
        else:
            total = multiply(total, grads, tl.trans(pixels), PRECISION)

    out_channel = (split * groups + group) * targets + target
    at = (out_channel.to(tl.int64) * (KH * KW * channels))[:, None] + (
        tap * out_tap_stride + channel * out_channel_stride
    )[None, :]
    kept = (target < targets)[:, None] & known[None, :]
    tl.store(partial + at, total.to(partial.dtype.element_ty), mask=kept)


@triton.jit
def add_partial_sums(
    partial,  # [splits, oc, kh, kw, ic / g]
    result,  # the same, or [oc, ic / g, kh, kw]
    splits,
    size,  # elements of the result
    taps,
    channels,
    TRANSPOSED: tl.constexpr,  # whether the result's taps are contiguous, and not its channels
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Adds the partial sums, always in the same order, and rounds once."""
    element = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    kept = element < size
    total = tl.zeros((SPLITS, BLOCK), partial.dtype.element_ty)
    for first in range(0, splits, SPLITS):
        split = first + tl.arange(0, SPLITS)
        at = partial + (split.to(tl.int64) * size)[:, None] + element[None, :]
        total += tl.load(at, mask=(split < splits)[:, None] & kept[None, :], other=0.0)
    if TRANSPOSED:
        channel = element % channels
        tap = element // channels % taps
        element += channel * taps + tap - (tap * channels + channel)
    tl.store(result + element, tl.sum(total, 0).to(result.dtype.element_ty), mask=kept)

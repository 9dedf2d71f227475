"""Convolution as an implicit GEMM: a program computes the outputs of some pixels and channels of one group.

The bias is added, and an activation applied, to the accumulators, so the output is written once and never read.
"""

import triton
import triton.language as tl

from .correlation import accumulate
from .tiles import activate, along_channels, along_pixels, tile_of


@triton.jit
def conv_forward(
    input,
    weight,  # [oc, kh, kw, ic / g], whatever the images' layout
    bias,  # or None
    output,
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
    KH: tl.constexpr,  # constant, so that 1x1 has no taps to count and 3x3 divides by 3
    KW: tl.constexpr,
    # Counts of neighbours in memory are units times a constant: a divisor that the compiler sees, for wide loads.
    IN_UNIT: tl.constexpr,
    OUT_UNIT: tl.constexpr,
    PLANE_UNIT: tl.constexpr,
    POINTWISE: tl.constexpr,  # output pixel i reads input pixel i alone
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,  # whether places within an image or a count of pixels pass 31 bits
    PACKED: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
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
    plane = tl.cast(plane_units, INDEX) * PLANE_UNIT
    count = images * plane
    pixel_tiles = tl.cdiv(count, PIXELS)
    channel_tiles = tl.cdiv(targets, CHANNELS)
    tiles = pixel_tiles * channel_tiles
    program = tl.program_id(0).to(INDEX)
    group = program // tiles
    pixel_tile, channel_tile = tile_of(program % tiles, pixel_tiles, channel_tiles, RASTER)

    pixel = pixel_tile * PIXELS + tl.arange(0, PIXELS)
    live = pixel < count
    image = (pixel // plane).to(tl.int64)
    place = pixel % plane
    row = place // ow * sh - ph
    column = place % ow * sw - pw
    in_channels = groups * channels
    in_plane = plane if POINTWISE else ih * iw
    if NHWC:
        channel_stride = 1
        column_stride = in_channels
    else:
        channel_stride = in_plane
        column_stride = 1
    row_stride = iw * column_stride
    base = image * in_plane * in_channels
    if POINTWISE:
        base += place * column_stride
    else:
        base += row * row_stride + column * column_stride

    target = channel_tile * CHANNELS + tl.arange(0, CHANNELS)
    filter_size = KH * KW * channels
    if NHWC:
        total = tl.zeros((PIXELS, CHANNELS), SUM)
    else:
        total = tl.zeros((CHANNELS, PIXELS), SUM)
    total = accumulate(
        total,
        input + group.to(tl.int64) * channels * channel_stride,
        weight + group.to(tl.int64) * targets * filter_size,
        base, row, column, live, target, targets,
        ih, iw, channels, channel_stride, row_stride, column_stride,
        KH, KW, dh, dw, 0, KW, 1, filter_size, channels,
        True, NHWC, POINTWISE, PACKED, EVEN, DEPTH, PRECISION,
    )  # fmt: skip

    out_channel = group * targets + target
    kept = target < targets
    if bias is not None:
        total += along_channels(tl.load(bias + out_channel, mask=kept, other=0.0).to(SUM), NHWC)
    total = activate(total, ACTIVATION)
    out_channels = groups * targets
    start = image * plane * out_channels
    if NHWC:
        at = along_pixels(start + place * out_channels, NHWC) + along_channels(out_channel, NHWC)
    else:
        at = along_pixels(start + place, NHWC) + along_channels(out_channel * plane, NHWC)
    kept = along_pixels(live, NHWC) & along_channels(kept, NHWC)
    tl.store(output + at, total.to(output.dtype.element_ty), mask=kept)

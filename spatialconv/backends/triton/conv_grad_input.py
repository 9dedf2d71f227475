"""The gradient of the input as an implicit GEMM over the outputs that read each input pixel: nothing is scattered.

Input pixels whose places agree modulo the stride meet the same taps, evenly spaced (Tillet and others' "phases",
MIOpen's "tilde" filters): a phase is a dense correlation of grad_output. All phases run in one launch, neighbours in
the image at the same time. A pixel that no window reads has a phase without taps, or sees only padding, and gets zero.
"""

import triton
import triton.language as tl

from .correlation import accumulate
from .tiles import along_channels, along_pixels, tile_of


@triton.jit
def meeting_taps(
    residue, padding, KERNEL: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr, STEP: tl.constexpr
):
    """The first tap that meets the pixels of a residue, how many do, every STEP-th, and the output that meets the
    first of these pixels by the first tap: tap k meets where STRIDE divides residue + padding - k * DILATION."""
    CANDIDATES: tl.constexpr = STEP if STEP < KERNEL else KERNEL
    first = residue * 0 + KERNEL
    for tap in tl.static_range(0, CANDIDATES):
        meets = (residue + padding - tap * DILATION) % STRIDE == 0
        first = tl.where(meets, tl.minimum(first, tap), first)
    return first, tl.cdiv(KERNEL - first, STEP), (residue + padding - first * DILATION) // STRIDE


@triton.jit
def conv_grad_input(
    grad_output,
    weight,  # [oc, kh, kw, ic / g], whatever the images' layout
    grad_input,
    images,
    groups,
    ih,
    iw,
    oh,
    ow,
    plane_units,  # pixels of an image's largest phase, in units of PLANE_UNIT
    in_units,  # input channels of a group, in units of IN_UNIT
    out_units,
    ph,
    pw,
    # Constant: the arithmetic of phases is gone where the stride is 1.
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    DH: tl.constexpr,
    DW: tl.constexpr,
    STEP_H: tl.constexpr,  # taps from one that meets a pixel to the next: stride / gcd(stride, dilation)
    STEP_W: tl.constexpr,
    IN_UNIT: tl.constexpr,
    OUT_UNIT: tl.constexpr,
    PLANE_UNIT: tl.constexpr,
    POINTWISE: tl.constexpr,
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,
    PACKED: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    DEPTH: tl.constexpr,
    RASTER: tl.constexpr,
):
    INDEX: tl.constexpr = tl.int64 if WIDE else tl.int32
    ih, iw = tl.cast(ih, INDEX), tl.cast(iw, INDEX)
    oh, ow = tl.cast(oh, INDEX), tl.cast(ow, INDEX)
    in_units, out_units = tl.cast(in_units, INDEX), tl.cast(out_units, INDEX)
    SUM: tl.constexpr = tl.float64 if grad_output.dtype.element_ty == tl.float64 else tl.float32
    channels = out_units * OUT_UNIT
    targets = in_units * IN_UNIT
    # Every phase is given as many tiles as the largest, that of residue 0.
    phase_plane = tl.cast(plane_units, INDEX) * PLANE_UNIT
    phase_columns = tl.cdiv(iw, SW)
    count = images * phase_plane
    pixel_tiles = tl.cdiv(count, PIXELS)
    channel_tiles = tl.cdiv(targets, CHANNELS)
    across = tl.minimum(iw, SW)
    phases = tl.minimum(ih, SH) * across
    program = tl.program_id(0).to(INDEX)
    residue_row = program % phases // across
    residue_column = program % phases % across
    program = program // phases
    tiles = pixel_tiles * channel_tiles
    group = program // tiles
    pixel_tile, channel_tile = tile_of(program % tiles, pixel_tiles, channel_tiles, RASTER)
    first_row, rows_of_taps, top = meeting_taps(residue_row, ph, KH, SH, DH, STEP_H)
    first_column, columns_of_taps, left = meeting_taps(residue_column, pw, KW, SW, DW, STEP_W)

    pixel = pixel_tile * PIXELS + tl.arange(0, PIXELS)
    image = (pixel // phase_plane).to(tl.int64)
    place = pixel % phase_plane
    in_row = place // phase_columns * SH + residue_row
    in_column = place % phase_columns * SW + residue_column
    live = pixel < count
    if SH > 1 or SW > 1:
        live &= (in_row < ih) & (in_column < iw)
    row = place // phase_columns + top
    column = place % phase_columns + left
    out_channels = groups * channels
    out_plane = phase_plane if POINTWISE else oh * ow
    if NHWC:
        channel_stride = 1
        column_stride = out_channels
    else:
        channel_stride = out_plane
        column_stride = 1
    row_stride = ow * column_stride
    base = image * out_plane * out_channels
    if POINTWISE:
        base += place * column_stride
    else:
        base += row * row_stride + column * column_stride

    target = channel_tile * CHANNELS + tl.arange(0, CHANNELS)
    filter_size = KH * KW * targets
    if NHWC:
        total = tl.zeros((PIXELS, CHANNELS), SUM)
    else:
        total = tl.zeros((CHANNELS, PIXELS), SUM)
    total = accumulate(
        total,
        grad_output + group.to(tl.int64) * channels * channel_stride,
        weight + group.to(tl.int64) * channels * filter_size,
        base, row, column, live, target, targets,
        oh, ow, channels, channel_stride, row_stride, column_stride,
        rows_of_taps, columns_of_taps, -(STEP_H * DH // SH), -(STEP_W * DW // SW),
        first_row * KW + first_column, STEP_H * KW, STEP_W, filter_size, targets,
        False, NHWC, POINTWISE, PACKED, EVEN, DEPTH, PRECISION,
    )  # fmt: skip

    in_channel = group * targets + target
    in_channels = groups * targets
    if SH == 1 and SW == 1:
        in_plane = phase_plane
        in_place = place
    else:
        in_plane = ih * iw
        in_place = in_row * iw + in_column
    start = image * in_plane * in_channels
    if NHWC:
        at = along_pixels(start + in_place * in_channels, NHWC) + along_channels(in_channel, NHWC)
    else:
        at = along_pixels(start + in_place, NHWC) + along_channels(in_channel * in_plane, NHWC)
    kept = along_pixels(live, NHWC) & along_channels(target < targets, NHWC)
    tl.store(grad_input + at, total.to(grad_input.dtype.element_ty), mask=kept)

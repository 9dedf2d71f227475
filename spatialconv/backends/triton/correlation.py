"""The product in forward and grad_input: [destination pixels, destination channels], summed over taps and channels.

Implicit GEMM (Chellapilla, Puri, Simard 2006; Chetlur et al., cuDNN, 2014): the im2col matrix is never stored. Where
each pixel's first tap stands is computed once, a tap adds one offset to it, and what falls outside the image is masked
to zero. Depth runs over taps, then source channels, in blocks; with few channels (``PACKED``) a block spans taps.
"""

import triton
import triton.language as tl

from .tiles import along_channels, along_pixels, multiply


@triton.jit
def accumulate(
    total,  # the tile to add to
    source,  # at the group's first channel
    weight,  # at the group's first element; a filter lies as [oc, kh, kw, ic]
    base,  # [pixels] the element of channel 0 at the first tap, which may lie outside the image
    row,  # [pixels] its row in the image
    column,  # [pixels] its column
    live,  # [pixels] whether there is such a destination pixel
    target,  # [channels] destination channels within the group
    targets,  # how many the group has
    height,
    width,
    channels,  # source channels of a group
    channel_stride,
    row_stride,
    column_stride,
    rows_of_taps,
    columns_of_taps,
    row_step,  # how far in the image the next row of taps is
    column_step,
    first_tap,  # place of the first tap in the filter
    tap_row_step,  # how far in the filter the next row of taps is
    tap_column_step,
    filter_size,  # elements of one output channel
    filter_channels,  # elements between two taps of a filter
    FORWARD: tl.constexpr,  # the filter's input channels are the source's; else the destination's
    NHWC: tl.constexpr,
    POINTWISE: tl.constexpr,  # one tap, which is always inside the image
    PACKED: tl.constexpr,
    EVEN: tl.constexpr,  # whether depth is a whole number of blocks
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    taps = rows_of_taps * columns_of_taps
    if PACKED:
        steps = tl.cdiv(taps * channels, DEPTH)
    else:
        blocks = tl.cdiv(channels, DEPTH)
        steps = taps * blocks
    for step in range(0, steps):
        if PACKED:
            index = step * DEPTH + tl.arange(0, DEPTH)
            tap = index // channels
            channel = index % channels
            known = index < taps * channels
        else:
            tap = step // blocks
            channel = step % blocks * DEPTH + tl.arange(0, DEPTH)
            known = channel < channels
        down = tap // columns_of_taps
        across = tap % columns_of_taps

        inside = along_pixels(live, NHWC)
        if not POINTWISE:
            if PACKED:
                tap_row = along_pixels(row, NHWC) + along_channels(down * row_step, NHWC)
                tap_column = along_pixels(column, NHWC) + along_channels(across * column_step, NHWC)
            else:
                tap_row = along_pixels(row + down * row_step, NHWC)
                tap_column = along_pixels(column + across * column_step, NHWC)
            inside &= (tap_row >= 0) & (tap_row < height) & (tap_column >= 0) & (tap_column < width)
        if not EVEN:
            inside &= along_channels(known, NHWC)
        offset = channel * channel_stride
        if not POINTWISE:
            offset += down * row_step * row_stride + across * column_step * column_stride
        at = source + along_pixels(base, NHWC) + along_channels(offset, NHWC)
        pixels = tl.load(at, mask=inside, other=0.0)

        if POINTWISE:
            place = 0
        else:
            place = (first_tap + down * tap_row_step + across * tap_column_step) * filter_channels
        if FORWARD:
            at = weight + (target * filter_size)[:, None] + (place + channel)[None, :]
            kept = (target < targets)[:, None]
            if not EVEN:
                kept &= known[None, :]
        else:
            at = weight + (place + channel * filter_size)[:, None] + target[None, :]
            kept = (target < targets)[None, :]
            if not EVEN:
                kept &= known[:, None]
        filters = tl.load(at, mask=kept, other=0.0)
        # The filters' tile lies as the weight does: [target, source] in a forward pass.
        if FORWARD == NHWC:
            filters = tl.trans(filters)
        if NHWC:
            total = multiply(total, pixels, filters, PRECISION)
        else:
            total = multiply(total, filters, pixels, PRECISION)
    return total

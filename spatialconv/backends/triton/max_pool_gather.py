"""The elements at the places of max pooling, which is the derivative of its gradient."""

from __future__ import annotations

import triton
import triton.language as tl

from .max_pool_adjoint import holds_element
from .strips import strides


@triton.jit
def gather(
    source, places, result, images, channels, source_h, source_w, result_h, result_w,
    H_KERNEL: tl.constexpr, H_STRIDE: tl.constexpr, H_PADDING: tl.constexpr, H_DILATION: tl.constexpr,
    W_KERNEL: tl.constexpr, W_STRIDE: tl.constexpr, W_PADDING: tl.constexpr, W_DILATION: tl.constexpr,
    OFFSETS: tl.constexpr, ADAPTIVE: tl.constexpr, CHANNELS_LAST: tl.constexpr, BLOCK: tl.constexpr,
    INDEX: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK outputs of one image, in the order of memory."""
    blocks = tl.cdiv(channels * result_h * result_w, BLOCK)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    at = (tl.program_id(0) % blocks).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    valid = at < channels * result_h * result_w
    if CHANNELS_LAST:
        channel, w, h = at % channels, at // channels % result_w, at // channels // result_w
        step_c, step_w, step_h = strides(channels, source_w, source_h, True)
    else:
        channel, w, h = at // (result_w * result_h), at % result_w, at // result_w % result_h
        step_c, step_h, step_w = strides(channels, source_h, source_w, False)
    place = tl.load(places + image * channels * result_h * result_w + at, mask=valid, other=0)
    if OFFSETS:
        tap = place.to(INDEX)
        row = h * H_STRIDE - H_PADDING + tap // W_KERNEL * H_DILATION
        column = w * W_STRIDE - W_PADDING + tap % W_KERNEL * W_DILATION
        inside = (row >= 0) & (row < source_h) & (column >= 0) & (column < source_w) & (tap < H_KERNEL * W_KERNEL)
    else:
        row, column = place // source_w, place % source_w
        inside = (place >= 0) & (row < source_h)
    if not ADAPTIVE:
        inside = inside & holds_element(h, source_h, H_KERNEL, H_STRIDE, H_PADDING, H_DILATION)
        inside = inside & holds_element(w, source_w, W_KERNEL, W_STRIDE, W_PADDING, W_DILATION)
    plane = source + image * channels * source_h * source_w + channel * step_c
    taken = tl.load(plane + row * step_h + column * step_w, mask=valid & inside, other=0)
    tl.store(result + image * channels * result_h * result_w + at, taken, mask=valid)

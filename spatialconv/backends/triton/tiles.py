"""Tiles of a matrix product: which one a program computes, how it lies, and what happens to it before it is stored.

A tile lies as memory does: [pixels, channels] of channels_last images, else [channels, pixels]. So the last axis is
the contiguous one, and neighbouring threads meet neighbouring addresses also where the compiler cannot prove it.
"""

import triton
import triton.language as tl


@triton.jit
def tile_of(program, rows, columns, GROUP: tl.constexpr):
    """Row and column of a program's tile. GROUP rows of tiles are walked down column after column, so that programs
    that run together share operands in the L2 cache."""
    band = program // (GROUP * columns)
    place = program % (GROUP * columns)
    height = tl.minimum(rows - band * GROUP, GROUP)
    return band * GROUP + place % height, place // height


@triton.jit
def along_pixels(vector, NHWC: tl.constexpr):
    """A vector over pixels as an axis of a tile."""
    return vector[:, None] if NHWC else vector[None, :]


@triton.jit
def along_channels(vector, NHWC: tl.constexpr):
    """A vector over channels as an axis of a tile."""
    return vector[None, :] if NHWC else vector[:, None]


@triton.jit
def multiply(total, rows, columns, PRECISION: tl.constexpr):
    """Adds a product of matrices. Tensor cores cut off what tf32 has no place for, an error up to twice that
    of rounding and always towards zero; so operands are rounded first. tf32x3 multiplies the rest too."""
    if PRECISION == "tf32":
        rows = round_to_tf32(rows)
        columns = round_to_tf32(columns)
    return tl.dot(rows, columns, total, input_precision=PRECISION, out_dtype=total.dtype)


@triton.jit
def round_to_tf32(value):
    """The nearest number with 10 bits of fraction, of two as near the even one; NaN stays NaN."""
    bits = value.to(tl.uint32, bitcast=True)
    rounded = (bits + 0xFFF + ((bits >> 13) & 1)) & 0xFFFFE000
    return tl.where(value == value, rounded.to(tl.float32, bitcast=True), value)


@triton.jit
def activate(value, ACTIVATION: tl.constexpr):
    """torch's function of that name, on accumulators; NaN stays NaN."""
    if ACTIVATION == "relu":
        value = tl.where(value < 0, 0.0, value)
    elif ACTIVATION == "relu6":
        value = tl.where(value < 0, 0.0, tl.where(value > 6, 6.0, value))
    elif ACTIVATION == "silu":
        value = value / (1 + tl.exp(-value))
    elif ACTIVATION == "gelu":
        value = 0.5 * value * (1 + tl.erf(value * 0.7071067811865476))
    elif ACTIVATION == "hardswish":
        gate = tl.where(value < -3, 0.0, tl.where(value > 3, 6.0, value + 3))
        value = value * gate / 6
    else:
        tl.static_assert(ACTIVATION == "none", "unknown activation")
    return value

"""What the kernels that slide windows without mixing channels have in common: a register window along one axis.

A program computes a tile [lanes, slots] of strips. A strip is STRIP neighbouring results along the axis ``u``; it is
walked column by column, and each column of the source is loaded once and used for every result it belongs to. The
other axis is ``v``. channels_last: u is the width, v the height, lanes are channels. Contiguous: u is the height, v the
width, lanes are columns. So lanes are always neighbours in memory.

ADJOINT walks the other way, from results at input positions to the outputs whose windows hold them. Positions that
differ by a multiple of the stride meet the same taps: along u a strip holds whole multiples of the stride, along v a
tile holds positions of one phase only, and no tap is visited in vain.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.constexpr_function
def tap_of(t, j, kernel, stride, padding, dilation, adjoint):
    """The tap through which result t of a strip meets column j, or -1."""
    distance = t + padding % stride - j * stride if adjoint else j - t * stride
    return distance // dilation if distance % dilation == 0 and 0 <= distance < kernel * dilation else -1


@triton.constexpr_function
def first_column(strip, kernel, stride, padding, dilation, adjoint):
    return -(((kernel - 1) * dilation - padding % stride) // stride) if adjoint else 0


@triton.constexpr_function
def end_column(strip, kernel, stride, padding, dilation, adjoint):
    if adjoint:
        return (strip - 1 + padding % stride) // stride + 1
    return (strip - 1) * stride + (kernel - 1) * dilation + 1


@triton.constexpr_function
def is_read(j, strip, kernel, stride, padding, dilation, adjoint):
    """Whether any result of a strip meets column j."""
    return any(tap_of(t, j, kernel, stride, padding, dilation, adjoint) >= 0 for t in range(strip))


@triton.jit
def repeated(value, COUNT: tl.constexpr):
    """A tuple that holds the value COUNT times: one register tile for each result of a strip."""
    values = ()
    for _ in tl.static_range(COUNT):
        values = values + (value,)
    return values


@triton.jit
def strides(channels, u_size, v_size, CHANNELS_LAST: tl.constexpr):
    """Element strides of a dense image along channel, u and v."""
    if CHANNELS_LAST:
        steps = (1, channels, channels * u_size)
    else:
        steps = (u_size * v_size, v_size, 1)
    return steps


@triton.jit
def place(
    channels, u_size, v_size, V_PHASES: tl.constexpr, CHANNELS_LAST: tl.constexpr, STRIP: tl.constexpr,
    SLOTS_U: tl.constexpr, SLOTS_V: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Image, channel, first u, v and phase along v of the tile's elements, each [1, slots], [lanes, 1] or a scalar.

    What is near in memory has near program numbers. In contiguous tensors SLOTS_V counts planes.
    """
    slot = tl.arange(0, SLOTS_U * SLOTS_V)[None, :]
    lane = tl.arange(0, LANES)[:, None]
    u_tiles = tl.cdiv(tl.cdiv(u_size, STRIP), SLOTS_U)
    program = tl.program_id(0)
    if CHANNELS_LAST:
        blocks = tl.cdiv(channels, LANES)
        channel = program % blocks * LANES + lane
        rest = program // blocks
        u = (rest % u_tiles * SLOTS_U + slot % SLOTS_U) * STRIP
        rest = rest // u_tiles
        phase = rest % V_PHASES
        rest = rest // V_PHASES
        v_tiles = tl.cdiv(tl.cdiv(v_size, V_PHASES), SLOTS_V)
        v = (rest % v_tiles * SLOTS_V + slot // SLOTS_U) * V_PHASES + phase
        image = rest // v_tiles + slot * 0
    else:
        phase = program % V_PHASES
        rest = program // V_PHASES
        v_tiles = tl.cdiv(tl.cdiv(v_size, V_PHASES), LANES)
        v = (rest % v_tiles * LANES + lane) * V_PHASES + phase
        rest = rest // v_tiles
        u = (rest % u_tiles * SLOTS_U + slot % SLOTS_U) * STRIP
        plane = rest // u_tiles * SLOTS_V + slot // SLOTS_U
        image = plane // channels
        channel = plane % channels
    return image.to(tl.int64), channel, u, v, phase


@triton.jit
def first_source(u, STRIDE: tl.constexpr, PADDING: tl.constexpr, ADJOINT: tl.constexpr):
    """The source position of column 0 of the strip that begins at u."""
    if ADJOINT:
        first = u // STRIDE + PADDING // STRIDE
    else:
        first = u * STRIDE - PADDING
    return first


@triton.jit
def source_of_tap(v, tap, STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr, ADJOINT: tl.constexpr):
    """The source position that v meets through a tap; the adjoint needs a tap of v's phase."""
    if ADJOINT:
        source = (v + PADDING - tap * DILATION) // STRIDE
    else:
        source = v * STRIDE - PADDING + tap * DILATION
    return source


@triton.jit
def first_tap(
    phase, KERNEL: tl.constexpr, PERIOD: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr,
    DILATION: tl.constexpr,
):  # fmt: skip
    """The first tap that positions of a phase meet in the adjoint, KERNEL where there is none; the others follow at
    multiples of PERIOD = STRIDE / gcd(STRIDE, DILATION)."""
    first = phase * 0 + KERNEL
    for tap in tl.static_range(min(PERIOD, KERNEL)):
        # Counted up, not down: the remainder of a negative number is negative.
        first = tl.where((phase + PADDING + (STRIDE - 1) * tap * DILATION) % STRIDE == 0, tap, first)
    return first

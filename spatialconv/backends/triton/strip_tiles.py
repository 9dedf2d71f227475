"""How a problem is cut into strips and tiles: the axes of each layout, and sizes that follow from the problem alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from ...problem import Conv2dProblem, Pool2dProblem


@dataclass(frozen=True)
class Axis:
    """One axis of a problem, under names that serve both axes."""

    input: int
    output: int
    kernel: int
    stride: int
    padding: int
    dilation: int

    def constants(self, name: str) -> dict[str, int]:
        """What a kernel takes as constants: with them the walk along a strip is straight-line code."""
        return {
            f"{name}_KERNEL": self.kernel, f"{name}_STRIDE": self.stride,
            f"{name}_PADDING": self.padding, f"{name}_DILATION": self.dilation,
        }  # fmt: skip

    @property
    def period(self) -> int:
        """Taps that one input position meets are this far apart."""
        return self.stride // gcd(self.stride, self.dilation)


def axes(p: Conv2dProblem | Pool2dProblem) -> tuple[Axis, Axis]:
    """The axis that strips run along, and the other."""
    height = Axis(p.ih, p.oh, p.kh, p.sh, p.ph, p.dh)
    width = Axis(p.iw, p.ow, p.kw, p.sw, p.pw, p.dw)
    return (width, height) if p.layout == "nhwc" else (height, width)


@dataclass(frozen=True)
class Tile:
    """[lanes, slots_u * slots_v] strips of ``strip`` results; ``vector`` lanes are loaded by one instruction."""

    vector: int
    strip: int
    slots_u: int
    slots_v: int
    lanes: int
    num_warps: int

    def constants(self) -> dict[str, int]:
        return {
            "VECTOR": self.vector, "STRIP": self.strip,
            "SLOTS_U": self.slots_u, "SLOTS_V": self.slots_v, "LANES": self.lanes,
        }  # fmt: skip

    def programs(self, images: int, channels: int, u_size: int, v_size: int, phases: int, channels_last: bool) -> int:
        u_tiles = ceil_div(u_size, self.strip * self.slots_u)
        rows = ceil_div(v_size, phases)
        if channels_last:
            return images * ceil_div(channels, self.lanes) * u_tiles * phases * ceil_div(rows, self.slots_v)
        return ceil_div(images * channels, self.slots_v) * u_tiles * phases * ceil_div(rows, self.lanes)


_THREADS = 128
# Sums and gradients of a strip that a thread of grad_weight keeps: with more, ptxas spills.
_KEPT_IN_REGISTERS = 104


def ceil_div(amount: int, by: int) -> int:
    return -(-amount // by)


def power_of_two(amount: int) -> int:
    """The smallest power of two that holds the amount."""
    return 1 << max(amount - 1, 0).bit_length()


def vector_of(channels: int, itemsize: int) -> int:
    """The largest power of two that divides the channels and is at most 16 bytes of elements."""
    return gcd(channels, 16 // itemsize)


def strip_of(axis: Axis, adjoint: bool, longest: int) -> int:
    """The length of a strip that loads the fewest columns in all; in the adjoint a multiple of the stride."""
    reach = (axis.kernel - 1) * axis.dilation + 1
    if adjoint:
        lengths = range(axis.stride, max(longest, axis.stride) + 1, axis.stride)
        size, columns = axis.input, {length: (length + reach - 2) // axis.stride + 1 for length in lengths}
    else:
        lengths = range(1, longest + 1)
        size, columns = axis.output, {length: (length - 1) * axis.stride + reach for length in lengths}
    return min(lengths, key=lambda length: (ceil_div(size, length) * columns[length], -length))


def tile_for(
    channels_last: bool, itemsize: int, planes: int, channels: int, u_size: int, v_size: int, strip: int, phases: int
) -> Tile:
    """The tile of results of a size: 128 threads with a vector of channels each, or with one column each.

    Small images take as many slots as they fill, and the rest of the threads goes to more channels or planes.
    """
    strips, rows = ceil_div(u_size, strip), ceil_div(v_size, phases)
    if channels_last:
        vector, lanes, room = _channel_lanes(channels, itemsize)
        slots_v = min(power_of_two(rows), room // lanes, 8)
        slots_u = min(power_of_two(strips), room // lanes // slots_v)
        slots_v = min(power_of_two(rows), room // lanes // slots_u)
        lanes = max(lanes, min(power_of_two(channels), room // (slots_u * slots_v)))
        return Tile(vector, strip, slots_u, slots_v, lanes, _warps(slots_u * slots_v * lanes, vector))
    lanes = _column_lanes(rows)
    slots_u = min(power_of_two(strips), _THREADS // lanes)
    slots_v = min(power_of_two(planes), _THREADS // lanes // slots_u)
    return Tile(1, strip, slots_u, slots_v, lanes, _warps(slots_u * slots_v * lanes, 1))


def tile_of_one_channel(
    channels_last: bool, itemsize: int, images: int, channels: int, u_size: int, v_size: int, strip: int, sums: int
) -> Tile:
    """The tile of ``sums`` sums over positions: its slots hold strips of any rows and images, of the lanes' channels or
    of one channel. Many sums leave registers for a shorter vector only."""
    strips = images * ceil_div(u_size, strip)
    if channels_last:
        vector, lanes, room = _channel_lanes(channels, itemsize)
        while (sums + strip) * vector > _KEPT_IN_REGISTERS and vector > 1:
            vector, room = vector // 2, room // 2
        slots = min(power_of_two(strips * v_size), room // lanes)
    else:
        vector, lanes = 1, _column_lanes(v_size)
        slots = min(power_of_two(strips * ceil_div(v_size, lanes)), _THREADS // lanes)
    return Tile(vector, strip, slots, 1, lanes, _warps(slots * lanes, vector))


def _channel_lanes(channels: int, itemsize: int) -> tuple[int, int, int]:
    """The vector, lanes of 128 or 64 bytes, whichever leaves fewer idle, and how many elements a tile has room for."""
    vector = vector_of(channels, itemsize)
    lanes = min((64 // itemsize, 128 // itemsize), key=lambda count: (ceil_div(channels, count) * count, -count))
    return vector, min(lanes, power_of_two(channels)), _THREADS * max(vector, 4 // itemsize)


def _column_lanes(columns: int) -> int:
    lanes = min((32, 64, 128), key=lambda count: (ceil_div(columns, count) * count, -count))
    return min(lanes, power_of_two(columns))


def _warps(elements: int, vector: int) -> int:
    return max(1, min(_THREADS // 32, elements // (32 * vector)))


def refuse_many_positions(p: Conv2dProblem | Pool2dProblem) -> list[str]:
    """Programs number planes and the pixels of all images in 32 bits, and multiply sizes for adaptive windows."""
    most = max(p.n * max(p.ih * p.iw, p.oh * p.ow, p.ic, p.result_shape[1]), p.ih * (p.oh + 1), p.iw * (p.ow + 1))
    return [f"counts planes and pixels in 32 bits, the problem has {most}"] if most >= 2**31 else []


def exceeds_int32(p: Conv2dProblem | Pool2dProblem, *channels: int) -> bool:
    """Whether offsets inside one image need 64 bits; those between images always have them."""
    reach = (p.kh * p.dh + p.kw * p.dw) * max(p.iw, p.ow)
    largest = max(p.ih * p.iw, p.oh * p.ow) + reach
    return max(channels) * largest >= 2**31

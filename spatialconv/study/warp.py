"""What a GPU's memory system sees of a convolution: sectors a request, useful bytes, and conflicts of banks.

A warp is 32 lanes that execute one load together, a request. Global memory answers in sectors of 32 bytes, however few
of a sector's bytes are wanted; equal addresses are answered once. Shared memory has 32 banks of 4 bytes, each of which
gives one word at a time: a request takes as many passes as the busiest bank has different words, and elements of more
than 4 bytes take the warp in parts (CUDA C++ Programming Guide, "Device Memory Accesses" and "Shared Memory"; Nsight
Compute's kernel profiling guide for sectors and requests).

The model is that of a plain kernel whose lanes are neighbouring output pixels, input channels or filters, each lane
loading one element a request. Every tensor begins at a multiple of 128 bytes. Lanes whose window is outside of the
input ask for nothing, and a request in which no lane asks is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..problem import Conv2dProblem
from .counting import count

WARP, SECTOR, BANKS, WORD = 32, 32, 32, 4
LANES = ("pixel", "c", "k")
INPUTS = ("NCHW", "NHWC")
WEIGHTS = ("KCRS", "RSCK", "KRSC")
UNTIED = ("PKCRS", "KCRSP")
# So many groups of lanes are held at a time.
_BLOCK = 2**14


@dataclass(frozen=True)
class Block:
    """Requests that differ by a common offset: ``offsets`` [groups, 32] in elements and ``active`` alike, each group
    asked for at every one of ``bases``, ``times`` times."""

    offsets: np.ndarray
    active: np.ndarray
    bases: np.ndarray
    times: np.ndarray


@dataclass(frozen=True)
class Pattern:
    """The requests for one operand: ``operand`` 'input' or 'weight', its ``arrangement`` in memory from the slowest
    axis to the fastest (P: the output position, of an untied layer), and what the lanes are."""

    problem: Conv2dProblem
    operand: str
    arrangement: str
    lane: str

    def blocks(self, pitch: int = 0) -> Iterator[Block]:
        """All requests; ``pitch``: elements left free after each lane's neighbourhood, where lanes are channels or
        filters."""
        build = {"pixel": _over_pixels, "c": _over_channels, "k": _over_filters}[self.lane]
        return build(self, pitch)

    def addresses(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Every request written out: byte offsets [requests, 32] and which lanes ask."""
        for block in self.blocks():
            for base, times in zip(block.bases, block.times, strict=True):
                for _ in range(int(times)):
                    yield (block.offsets + base) * self.problem.itemsize, block.active


def patterns(problem: Conv2dProblem, lanes: tuple[str, ...] = LANES) -> list[Pattern]:
    """Every arrangement of input and weights with every meaning of a lane; untied weights where lanes are pixels, for
    elsewhere a warp stays at one position and cannot tell. ValueError for what is no forward convolution."""
    if not isinstance(problem, Conv2dProblem) or problem.op != "conv2d":
        raise ValueError(f"study: warp: expected a forward convolution, got {problem}")
    if unknown := [lane for lane in lanes if lane not in LANES]:
        raise ValueError(f"study: warp: lane: expected {', '.join(LANES)}, got {', '.join(unknown)}")
    found = [Pattern(problem, "input", arrangement, lane) for lane in lanes for arrangement in INPUTS]
    for lane in lanes:
        arrangements = WEIGHTS + (UNTIED if lane == "pixel" else ())
        found += [Pattern(problem, "weight", arrangement, lane) for arrangement in arrangements]
    return found


def _strides(sizes: dict[str, int], arrangement: str) -> dict[str, int]:
    """The distance of neighbours along each axis, in elements."""
    strides, step = {}, 1
    for axis in reversed(arrangement):
        strides[axis] = step
        step *= sizes[axis]
    return strides


def _input_strides(pattern: Pattern) -> dict[str, int]:
    p = pattern.problem
    return _strides({"N": p.n, "C": p.ic, "H": p.ih, "W": p.iw}, pattern.arrangement)


def _weight_strides(pattern: Pattern) -> dict[str, int]:
    p = pattern.problem
    sizes = {"P": p.oh * p.ow, "K": p.oc, "C": p.ic // p.g, "R": p.kh, "S": p.kw}
    return {"P": 0} | _strides(sizes, pattern.arrangement)


def _over_pixels(pattern: Pattern, pitch: int) -> Iterator[Block]:
    """Lanes are neighbouring output pixels of the batch, one channel and tap at a time."""
    p = pattern.problem
    pixels, warps = p.n * p.oh * p.ow, -(-p.n * p.oh * p.ow // WARP)
    of_input = pattern.operand == "input"
    steps = _input_strides(pattern) if of_input else _weight_strides(pattern)
    if of_input:
        bases, taps = np.arange(p.ic) * steps["C"], np.zeros(p.kh * p.kw, np.int64)
    else:
        filters, channels = np.arange(p.oc), np.arange(p.ic // p.g)
        bases = (filters[:, None] * steps["K"] + channels * steps["C"]).ravel()
        taps = (np.arange(p.kh)[:, None] * steps["R"] + np.arange(p.kw) * steps["S"]).ravel()
    rows, columns = np.divmod(np.arange(p.kh * p.kw), p.kw)
    for start in range(0, warps, max(_BLOCK // (p.kh * p.kw), 1)):
        stop = min(warps, start + max(_BLOCK // (p.kh * p.kw), 1))
        pixel = np.arange(start * WARP, stop * WARP).reshape(-1, 1, WARP)
        image, place = np.divmod(pixel, p.oh * p.ow)
        row, column = np.divmod(place, p.ow)
        ih = row * p.sh - p.ph + rows[:, None] * p.dh
        iw = column * p.sw - p.pw + columns[:, None] * p.dw
        active = (pixel < pixels) & (ih >= 0) & (ih < p.ih) & (iw >= 0) & (iw < p.iw)
        if of_input:
            offsets = image * steps["N"] + ih * steps["H"] + iw * steps["W"]
        else:
            offsets = np.broadcast_to(place * steps["P"] + taps[:, None], active.shape)
        yield _asked(offsets.reshape(-1, WARP), active.reshape(-1, WARP), bases, np.ones_like(bases))


def _over_channels(pattern: Pattern, pitch: int) -> Iterator[Block]:
    """Lanes are neighbouring input channels of a group, one output pixel and tap at a time."""
    p = pattern.problem
    channels = p.ic // p.g
    lanes, active = _chunks(channels)
    if pattern.operand == "input":
        steps = _input_strides(pattern)
        places, times = _read_places(pattern, steps)
        groups = np.arange(p.g) * channels * steps["C"]
        bases, times = (groups[:, None] + places).ravel(), np.tile(times, p.g)
    else:
        steps = _weight_strides(pattern)
        taps, uses = _read_taps(pattern, steps)
        bases, times = (np.arange(p.oc)[:, None] * steps["K"] + taps).ravel(), np.tile(uses, p.oc)
    yield _asked(lanes * (steps["C"] + pitch), active, bases, times)


def _over_filters(pattern: Pattern, pitch: int) -> Iterator[Block]:
    """Lanes are neighbouring filters, one output pixel, channel and tap at a time."""
    p = pattern.problem
    lanes, active = _chunks(p.oc)
    channels = np.arange(p.ic // p.g)
    if pattern.operand == "input":
        steps = _input_strides(pattern)
        places, times = _read_places(pattern, steps)
        group = np.minimum(lanes, p.oc - 1) // (p.oc // p.g)
        offsets = group * (p.ic // p.g) * (steps["C"] + pitch)
    else:
        steps = _weight_strides(pattern)
        places, times = _read_taps(pattern, steps)
        offsets = lanes * (steps["K"] + pitch)
    bases = (channels[:, None] * steps["C"] + places).ravel()
    yield _asked(offsets, active, bases, np.tile(times, len(channels)))


def _chunks(size: int) -> tuple[np.ndarray, np.ndarray]:
    lanes = np.arange(-(-size // WARP) * WARP).reshape(-1, WARP)
    return lanes, lanes < size


def _read_places(pattern: Pattern, steps: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of channel 0 lie, and how many windows of the batch read each."""
    p, counts = pattern.problem, count(pattern.problem)
    uses = np.outer(counts.rows, counts.columns)
    places = np.arange(p.ih)[:, None] * steps["H"] + np.arange(p.iw) * steps["W"]
    images = np.arange(p.n)[:, None] * steps["N"]
    return (images + places.ravel()).ravel(), np.tile(uses.ravel(), p.n)


def _read_taps(pattern: Pattern, steps: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where the taps of a filter's channel 0 lie, and at how many positions of the batch each meets a pixel."""
    p, counts = pattern.problem, count(pattern.problem)
    uses = p.n * np.outer(counts.tap_rows, counts.tap_columns)
    places = np.arange(p.kh)[:, None] * steps["R"] + np.arange(p.kw) * steps["S"]
    return places.ravel(), uses.ravel()


def _asked(offsets: np.ndarray, active: np.ndarray, bases: np.ndarray, times: np.ndarray) -> Block:
    kept, used = active.any(axis=1), times > 0
    return Block(offsets[kept], active[kept], bases[used], times[used])

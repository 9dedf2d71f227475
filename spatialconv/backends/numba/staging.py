"""Which convolutions read a staged band of the source in place, and how that band lies in memory.

A band is the source rows under some rows of the grid, padded, and every tap of it is one constant offset from the grid
position, so that nothing is packed tap by tap:

    nchw: channel, residue of row and column modulo the stride, row / stride, column / stride. Grid rows lie ROW_PITCH
          apart, and a tile runs over them with what stands between them computed in vain.
    nhwc: row, column, channel. A tile holds neighbouring pixels of one grid row.
"""

from __future__ import annotations

from dataclasses import dataclass

from .correlation import Axis, Correlation

# A band, with the filters, stays in the second-level cache: 512 KB where vectors have 32 bytes, 1 MB and more where
# they have 64.
_BAND_VECTORS = 8 << 10
# The least share of a tile's sums that has to be wanted.
_LEAST_USED = 0.75
# Channels below which the taps of a filter row are one run.
_FEW_CHANNELS = 32
# Channels (nchw) that are read tap after tap, so that what a tile reads of them stays in the first-level cache.
_CHUNK = 32


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True)
class Reach:
    """The source positions under the taps of one axis: tap j lies ``taps[j]`` after ``low`` + position * stride."""

    low: int
    taps: tuple[int, ...]
    stride: int

    @property
    def halo(self) -> int:
        """Strides between the first and the last tap."""
        return max(self.taps) // self.stride


def reach_of(axis: Axis) -> Reach:
    places = [axis.offset + j * axis.shift for j in range(axis.taps)]
    return Reach(min(places), tuple(place - min(places) for place in places), axis.stride)


@dataclass(frozen=True)
class Staging:
    """``size`` elements hold a band of ``band`` grid rows; see the fields of the same names in ``gemm_fields.py``."""

    band: int
    bands: int
    rows_staged: int
    low_h: int
    low_w: int
    row_pitch: int
    pixel_pitch: int
    phase_pitch: int
    channel_pitch: int
    run: int
    chunk: int
    offsets: tuple[int, ...]
    size: int

    @property
    def fields(self) -> dict[str, int]:
        names = ("band", "bands", "rows_staged", "low_h", "low_w", "row_pitch", "pixel_pitch", "phase_pitch")
        values = {name.upper(): getattr(self, name) for name in (*names, "channel_pitch", "run", "chunk")}
        return {**values, "RUNS": len(self.offsets)}


def _bands(count: int, row_vectors: int, halo: int) -> tuple[int, int]:
    """Grid rows of a band, all bands of like size, and how many bands there are."""
    fitting = max(1, _BAND_VECTORS // row_vectors - halo)
    band = _ceil_div(count, _ceil_div(count, fitting))
    return band, _ceil_div(count, band)


def staging_of(c: Correlation, itemsize: int, lanes: int, tall_rows: int, wide_vectors: int) -> Staging | None:
    """None where taps are better packed: one tap, tiles that would not be filled, strides longer than the filter."""
    taps = c.h.taps * c.w.taps
    if taps < 2 or c.h.stride * c.w.stride > taps:
        return None
    h, w = reach_of(c.h), reach_of(c.w)
    if c.nhwc:
        return _staging_nhwc(c, h, w, itemsize, lanes, tall_rows)
    return _staging_nchw(c, h, w, lanes, wide_vectors)


def _staging_nchw(c: Correlation, h: Reach, w: Reach, lanes: int, wide_vectors: int) -> Staging | None:
    pitch, phases = c.w.count + w.halo, h.stride * w.stride
    band, bands = _bands(c.h.count, _ceil_div(c.source_channels * phases * pitch, lanes), h.halo)
    run = (band - 1) * pitch + c.w.count
    if band * c.w.count < _LEAST_USED * _ceil_div(run, lanes) * lanes:
        return None
    rows = band + h.halo
    # Rows are written, and the last tile reads, up to a tile's vectors too far.
    phase_pitch = rows * pitch + lanes
    chunk = max(size for size in range(1, _CHUNK + 1) if c.source_channels % size == 0)
    chunk = chunk if chunk >= _CHUNK // 4 else c.source_channels
    channel_pitch = phases * phase_pitch
    offsets = tuple(
        first * channel_pitch
        + (down % h.stride * w.stride + across % w.stride) * phase_pitch
        + down // h.stride * pitch
        + across // w.stride
        for first in range(0, c.source_channels, chunk)
        for down in h.taps
        for across in w.taps
    )
    size = c.source_channels * channel_pitch + wide_vectors * lanes
    return Staging(band, bands, rows, h.low, w.low, pitch, 1, phase_pitch, channel_pitch, chunk, chunk, offsets, size)


def _staging_nhwc(c: Correlation, h: Reach, w: Reach, itemsize: int, lanes: int, tall_rows: int) -> Staging | None:
    if c.w.count < _LEAST_USED * _ceil_div(c.w.count, tall_rows) * tall_rows or c.w.count < tall_rows:
        return None
    per_line = 64 // itemsize
    merged = c.source_channels < _FEW_CHANNELS and c.w.shift == 1
    # An odd number of cache lines between pixels spreads them over the cache's sets.
    pixel = c.source_channels if merged else (_ceil_div(c.source_channels, per_line) | 1) * per_line
    columns = (c.w.count - 1) * w.stride + max(w.taps) + 1
    row_pitch = columns * pixel
    band, bands = _bands(c.h.count, _ceil_div(row_pitch * h.stride, lanes), _ceil_div(max(h.taps), h.stride))
    rows = (band - 1) * h.stride + max(h.taps) + 1
    across = (0,) if merged else w.taps
    offsets = tuple(down * row_pitch + right * pixel for down in h.taps for right in across)
    run = c.source_channels * (c.w.taps if merged else 1)
    size = rows * row_pitch + 2 * lanes
    return Staging(band, bands, rows, h.low, w.low, row_pitch, pixel, 0, 1, run, c.source_channels, offsets, size)

// Packing of source pixels: for a run of grid positions, the values under every tap.
#pragma once
#include <cstdint>

#include "gemm_copy.h"
#include "gemm_geometry.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

// Bytes of packed source values that share the second-level cache with a block of filters.
constexpr int64_t kSourceBytes = 256 << 10;
constexpr int64_t kFewPixels = 24;  // of a block, for which reading all filters does not pay

// Pixels of a block of whole source columns.
template <class Compute>
int64_t fitting_pixels(const Correlation& c) {
  const int64_t unit = c.nhwc ? kTileRows : kTileColumns<Compute>;
  return kSourceBytes / (int64_t(sizeof(Compute)) * larger(c.depth(), 1)) / unit * unit;
}

// A block of the matrix [grid position][depth]: positions [pixel, pixel_end) and depth indices [k, k_end).
struct Block {
  int64_t pixel, pixel_end, k, k_end;
};

// nhwc: to[(p - pixel) * pitch + k].
template <class Storage>
void pack_rows(const Correlation& c, const Storage* source, int64_t group, const Block& block,
               compute_t<Storage>* to, int64_t pitch) {
  // Neighbouring taps of a filter row are one run of memory when their channels are.
  const int64_t run_taps = c.groups == 1 && c.w.offset_step == 1 ? c.w.taps : 1;
  const int64_t channels = c.source_channels, run = run_taps * channels;
  const int64_t first_run = block.k / run, run_count = ceil_div(block.k_end, run);
  const int64_t runs_per_row = c.w.taps / run_taps;
  source += group * channels;
  Cursor at(c, block.pixel);
  for (int64_t pixel = block.pixel; pixel < block.pixel_end; ++pixel, at.advance(c, 1), to += pitch) {
    const Storage* image = source + at.image * c.source.image;
    const int64_t top = at.h * c.h.stride + c.h.offset, left = at.w * c.w.stride + c.w.offset;
    compute_t<Storage>* out = to;
    int64_t tap_h = first_run / runs_per_row, tap_w = first_run % runs_per_row;
    for (int64_t r = first_run; r < run_count; ++r) {
      const int64_t begin = larger(block.k - r * run, 0), end = smaller(block.k_end - r * run, run);
      const int64_t h = top + tap_h * c.h.offset_step, w = left + tap_w * c.w.offset_step;
      int64_t low = begin, high = begin;
      if (h >= 0 && h < c.h.source) {
        low = clamped(-w * channels, begin, end);
        high = clamped((c.w.source - w) * channels, low, end);
      }
      if (low > begin) zero_spilling(out, low - begin);
      if (high > low) {
        const Storage* from = image + h * c.source.row + w * c.source.column;
        copy_spilling(out + (low - begin), from + low, high - low);
      }
      if (end > high) zero_spilling(out + (high - begin), end - high);
      out += end - begin;
      if (++tap_w == runs_per_row) {
        tap_w = 0;
        ++tap_h;
      }
    }
  }
}

// nchw: to[(k - block.k) * pitch + (p - pixel)], zeros up to a whole vector.
template <class Storage>
void pack_lines(const Correlation& c, const Storage* source, int64_t group, const Block& block,
                compute_t<Storage>* to, int64_t pitch) {
  const int64_t taps = c.taps(), pixels = block.pixel_end - block.pixel;
  const int64_t tail = round_up(pixels, kLanes<compute_t<Storage>>) - pixels;
  const Cursor start(c, block.pixel);
  // With one tap every line is read once, from planes too far apart for the processor to see what comes next.
  const bool ahead = taps == 1 && c.w.stride > 1;
  source += group * c.source_channels * c.source.channel;
  int64_t tap = c.tap_major ? block.k / c.source_channels : block.k % taps;
  int64_t channel = c.tap_major ? block.k % c.source_channels : block.k / taps;
  int64_t held = -1, left = 0, top = 0, valid_begin = 0, valid_end = 0;
  for (int64_t k = block.k; k < block.k_end; ++k, to += pitch) {
    if (tap != held) {
      const int64_t tap_h = tap / c.w.taps, tap_w = tap % c.w.taps;
      left = c.w.offset + tap_w * c.w.offset_step;
      top = c.h.offset + tap_h * c.h.offset_step;
      c.w.valid(tap_w, &valid_begin, &valid_end);
      held = tap;
    }
    const Storage* plane = source + channel * c.source.channel;
    compute_t<Storage>* out = to;
    Cursor at = start;
    for (int64_t rest = pixels; rest > 0;) {
      const int64_t n = smaller(rest, c.w.count - at.w), h = at.h * c.h.stride + top;
      int64_t low = at.w, high = at.w;
      if (h >= 0 && h < c.h.source) {
        low = clamped(valid_begin, at.w, at.w + n);
        high = clamped(valid_end, low, at.w + n);
      }
      if (low > at.w) zero_spilling(out, low - at.w);
      if (high > low) {
        const Storage* row = plane + at.image * c.source.image + h * c.source.row;
        if (ahead) {
          const Storage* next = row + c.source.channel + low * c.w.stride + left;
          for (int64_t j = 0; j < (high - low) * c.w.stride; j += 64 / sizeof(Storage)) __builtin_prefetch(next + j);
        }
        copy_strided_spilling(out + (low - at.w), row + low * c.w.stride + left, c.w.stride, high - low);
      }
      if (at.w + n > high) zero_spilling(out + (high - at.w), at.w + n - high);
      out += n;
      rest -= n;
      at.advance(c, n);
    }
    if (tail > 0) zero_spilling(out, tail);
    int64_t& inner = c.tap_major ? channel : tap;
    int64_t& outer = c.tap_major ? tap : channel;
    if (++inner == (c.tap_major ? c.source_channels : taps)) {
      inner = 0;
      ++outer;
    }
  }
}

// nchw, where every pixel keeps its place: panels of kColumns grid positions one behind the other, so that a tile reads
// one run of memory. Elsewhere runs are short, and cutting them at panels costs more than it saves. Several panels are
// written by turns, so that more than one cache line is read of every page.
// to[(p - pixel) / kColumns * depth * kColumns + k * kColumns + (p - pixel) % kColumns].
template <int kColumns, class Storage>
void pack_panels(const Correlation& c, const Storage* source, int64_t group, const Block& block,
                 compute_t<Storage>* to) {
  constexpr int64_t lanes = kLanes<compute_t<Storage>>, together = 4;
  const int64_t depth = block.k_end - block.k, plane = c.h.count * c.w.count, panel = depth * kColumns;
  const auto whole = [&](int64_t pixel, int64_t panels) {
    return block.pixel_end - pixel >= panels * kColumns && pixel % plane + panels * kColumns <= plane;
  };
  for (int64_t pixel = block.pixel; pixel < block.pixel_end;) {
    if (!whole(pixel, 1)) {
      const Block rest{pixel, smaller(pixel + kColumns, block.pixel_end), block.k, block.k_end};
      pack_lines(c, source, group, rest, to, kColumns);
      pixel += kColumns;
      to += panel;
      continue;
    }
    const int64_t panels = whole(pixel, together) ? together : 1;
    const Storage* from = source + (group * c.source_channels + block.k) * c.source.channel +
                          pixel / plane * c.source.image + pixel % plane;
    compute_t<Storage>* out = to;
    for (int64_t k = 0; k < depth; ++k, from += c.source.channel, out += kColumns) {
      for (int64_t i = 0; i < panels; ++i) {
        SC_UNROLL for (int j = 0; j < kColumns; j += lanes) store(out + i * panel + j, load(from + i * kColumns + j));
      }
    }
    pixel += panels * kColumns;
    to += panels * panel;
  }
}

// nchw, the whole depth under a few pixels: to[(p - pixel) * depth + k].
template <class Storage>
void pack_columns(const Correlation& c, const Storage* source, int64_t group, int64_t pixel, int64_t pixel_end,
                  compute_t<Storage>* to) {
  const int64_t taps = c.taps(), channel_step = c.tap_major ? 1 : taps;
  source += group * c.source_channels * c.source.channel;
  Cursor at(c, pixel);
  for (; pixel < pixel_end; ++pixel, at.advance(c, 1), to += c.depth()) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t h = at.h * c.h.stride + c.h.offset + tap / c.w.taps * c.h.offset_step;
      const int64_t w = at.w * c.w.stride + c.w.offset + tap % c.w.taps * c.w.offset_step;
      const bool inside = h >= 0 && h < c.h.source && w >= 0 && w < c.w.source;
      const Storage* from = source + at.image * c.source.image + (inside ? h * c.source.row + w * c.source.column : 0);
      compute_t<Storage>* out = to + tap * (c.tap_major ? c.source_channels : 1);
      for (int64_t channel = 0; channel < c.source_channels; ++channel, out += channel_step) {
        *out = inside ? widen(from[channel * c.source.channel]) : compute_t<Storage>(0);
      }
    }
  }
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

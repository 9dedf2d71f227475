// Staging of grid positions: the values under every tap, zeros where a tap is outside of the image and up to a whole
// tile of depth. What lies behind the last position is not set, and its sums are not stored.
#pragma once
#include <cstdint>
#include <cstring>

#include "dots_copy.h"
#include "dots_plan.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace dots {

// nhwc: a row along the depth for every position.
inline void stage_rows(const Correlation& c, const Operands& operands, const bf16* source, int64_t pixel,
                       int64_t pixel_end, char* to) {
  // Neighbouring taps of a filter row are one run of memory when their channels are.
  const int64_t run_taps = c.groups == 1 && c.w.offset_step == 1 ? c.w.taps : 1;
  const int64_t channels = c.source_channels, run = run_taps * channels;
  const int64_t padding = operands.depth_tiles * kRowNumbers - c.depth();
  Cursor at(c, pixel);
  for (; pixel < pixel_end; ++pixel, at.advance(c, 1), to += operands.row_stride) {
    bf16* out = reinterpret_cast<bf16*>(to);
    const bf16* image = source + at.image * c.source.image;
    for (int64_t tap_h = 0; tap_h < c.h.taps; ++tap_h) {
      const int64_t h = at.h * c.h.stride + c.h.offset + tap_h * c.h.offset_step;
      const bool inside = h >= 0 && h < c.h.source;
      for (int64_t tap_w = 0; tap_w < c.w.taps; tap_w += run_taps, out += run) {
        const int64_t w = at.w * c.w.stride + c.w.offset + tap_w * c.w.offset_step;
        const int64_t low = inside ? clamped(-w * channels, 0, run) : 0;
        const int64_t high = inside ? clamped((c.w.source - w) * channels, low, run) : 0;
        zeros(out, low);
        if (high > low) copy(out + low, image + (h * c.source.row + w * c.source.column + low), high - low);
        zeros(out + high, run - high);
      }
    }
    zeros(out, padding);
  }
}

// nchw: what lies under depth index k at a run of positions.
inline void stage_line(const Correlation& c, const bf16* source, int64_t k, Cursor at, int64_t pixels, bf16* out) {
  if (k >= c.depth()) return zeros(out, pixels);
  const int64_t tap = c.tap_major ? k / c.source_channels : k % c.taps();
  const int64_t channel = c.tap_major ? k % c.source_channels : k / c.taps();
  const int64_t top = c.h.offset + tap / c.w.taps * c.h.offset_step, tap_w = tap % c.w.taps;
  const int64_t left = c.w.offset + tap_w * c.w.offset_step;
  int64_t valid_begin, valid_end;
  c.w.valid(tap_w, &valid_begin, &valid_end);
  for (int64_t n; pixels > 0; pixels -= n, out += n) {
    n = smaller(pixels, c.w.count - at.w);
    const int64_t h = at.h * c.h.stride + top;
    const bool inside = h >= 0 && h < c.h.source;
    const int64_t low = inside ? clamped(valid_begin - at.w, 0, n) : 0;
    const int64_t high = inside ? clamped(valid_end - at.w, low, n) : 0;
    zeros(out, low);
    if (high > low) {
      const int64_t first = (at.w + low) * c.w.stride + left;
      const bf16* image = source + at.image * c.source.image + channel * c.source.channel;
      copy_strided(out + low, image + h * c.source.row + first, c.w.stride, high - low);
    }
    zeros(out + high, n - high);
    at.advance(c, n);
  }
}

// nchw: two lines at a time, number by number beside each other.
inline void stage_pairs(const Correlation& c, const Operands& operands, const bf16* source, int64_t pixel,
                        int64_t pixel_end, char* to) {
  const int64_t pixels = pixel_end - pixel;
  const Cursor start(c, pixel);
  bf16 first[kMostPixels] = {}, second[kMostPixels] = {};
  for (int64_t pair = 0; pair < operands.depth_tiles * kRows; ++pair, to += kRowBytes) {
    stage_line(c, source, 2 * pair, start, pixels, first);
    stage_line(c, source, 2 * pair + 1, start, pixels, second);
    char* out = to;
    for (int64_t i = 0; i < pixels; i += kRows, out += operands.pairs_tile) {
      uint32_t words[kRows];
      for (int64_t j = 0; j < kRows; ++j) words[j] = first[i + j].bits | uint32_t(second[i + j].bits) << 16;
      std::memcpy(out, words, sizeof words);
    }
  }
}

}  // namespace dots
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

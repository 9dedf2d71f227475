// Packing of filters, of any strides, into tiles of 16: rows along the depth (nchw), or pairs (nhwc).
#pragma once
#include <cstdint>
#include <cstring>

#include "dots_copy.h"
#include "dots_plan.h"
#include "gemm_copy.h"
#include "gemm_weights.h"

#include "../common/parallel.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace dots {

// The n values of a filter at depth k.
inline void copy_filter(const Correlation& c, const bf16* filter, int64_t k, int64_t n, bf16* to) {
  const int64_t channels = c.source_channels, taps = c.taps();
  if (!c.tap_major && c.weight_source == taps && gemm::taps_are_dense(c)) {
    return copy(to, filter + gemm::tap_offset(c, 0) + k, n);
  }
  if (!c.tap_major) {
    for (int64_t i = 0; i < n; ++i) {
      to[i] = filter[gemm::tap_offset(c, (k + i) % taps) + (k + i) / taps * c.weight_source];
    }
    return;
  }
  for (int64_t tap = k / channels, channel = k % channels; n > 0; ++tap, channel = 0) {
    const int64_t run = smaller(n, channels - channel);
    copy_strided(to, filter + gemm::tap_offset(c, tap) + channel * c.weight_source, c.weight_source, run);
    to += run;
    n -= run;
  }
}

// Sixteen filters, zeros in place of those that are not there.
inline void pack_filter_tile(const Correlation& c, const bf16* filters, int64_t count, char* to) {
  const Operands operands(c);
  for (int64_t tile = 0; tile < operands.depth_tiles; ++tile) {
    bf16 rows[kRows][kRowNumbers];
    const int64_t k = tile * kRowNumbers, n = smaller(kRowNumbers, c.depth() - k);
    for (int64_t i = 0; i < kRows; ++i) {
      const int64_t there = i < count ? n : 0;
      if (there > 0) copy_filter(c, filters + i * c.weight_dest, k, there, rows[i]);
      zeros(rows[i] + there, kRowNumbers - there);
    }
    if (!c.nhwc) {
      char* out = to + tile * kRowBytes;
      for (int64_t i = 0; i < kRows; ++i, out += operands.row_stride) std::memcpy(out, rows[i], kRowBytes);
      continue;
    }
    // A pair is as large as a float, and moves as one.
    constexpr int64_t words = kRowBytes / int64_t(sizeof(float));
    float pairs[kRows * words];
    std::memcpy(pairs, rows, sizeof pairs);
    gemm::transpose_spilling(reinterpret_cast<float*>(to + tile * kTileBytes), kRows, pairs, words, kRows, words);
  }
}

inline int32_t pack_filters(const Correlation& c, const bf16* w, char* packed) {
  const int64_t tiles = filter_tiles(c), bytes = filter_tile_bytes(c);
  return parallel_for(c.groups * tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t first = index % tiles * kRows;
      const bf16* filters = w + index / tiles * c.weight_group + first * c.weight_dest;
      pack_filter_tile(c, filters, smaller(kRows, c.dest_channels - first), packed + index * bytes);
    }
  });
}

}  // namespace dots
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

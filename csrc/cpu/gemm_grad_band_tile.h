// The register tile of the weight gradient of narrow groups: four output channels by a few vectors of (tap, source
// channels), over all pixels of a band.
#pragma once
#include <cstdint>

#include "gemm_narrow_tile.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

constexpr int kBandFilters = 4, kBandVectors = 3;

// sums[i * sums_pitch + v * kLanes + lane] (+)= sum over rows r and pixels p of
// y[r * y_row + p * y_step + i] * x[r * x_row + p * x_step + offsets[v] + lane]; where groups share a vector, y has the
// four values of every group, each of which meets the four lanes of its group.
template <class Compute>
struct BandOuter {
  int64_t rows, pixels;
  const Compute* x;
  int64_t x_row, x_step;
  const int64_t* offsets;
  const Compute* y;
  int64_t y_row, y_step;
  Compute* sums;
  int64_t sums_pitch;
  bool accumulate;
};

template <class Compute, bool shared, int index>
SC_INLINE vec<Compute> spread_filter(const Compute* y) {
  if constexpr (!shared) return broadcast(y[index]);
  const vec<Compute> groups = load(y);
  return shuffle<quad_lane<index>, Compute>(groups, groups);
}

template <class Compute, bool shared, int vectors>
void band_outer_tile(const BandOuter<Compute>& tile) {
  using V = vec<Compute>;
  constexpr int lanes = kLanes<Compute>, filters = kBandFilters;
  const int64_t x_step = tile.x_step, y_step = tile.y_step;
  V sum[filters][vectors];
  SC_UNROLL for (int i = 0; i < filters; ++i) {
    SC_UNROLL for (int v = 0; v < vectors; ++v) {
      sum[i][v] = tile.accumulate ? load(tile.sums + i * tile.sums_pitch + v * lanes) : zero<Compute>();
    }
  }
  const int64_t second = vectors > 1 ? tile.offsets[1] - tile.offsets[0] : 0;
  const int64_t third = vectors > 2 ? tile.offsets[2] - tile.offsets[0] : 0;
  const int64_t offset[kBandVectors] = {0, second, third};
  for (int64_t row = 0; row < tile.rows; ++row) {
    const Compute* x = tile.x + tile.offsets[0] + row * tile.x_row;
    const Compute* y = tile.y + row * tile.y_row;
    for (int64_t pixel = tile.pixels; pixel > 0; --pixel, x += x_step, y += y_step) {
      V right[vectors];
      SC_UNROLL for (int v = 0; v < vectors; ++v) right[v] = load(x + offset[v]);
      const auto add = [&](V left, V* sums) {
        SC_UNROLL for (int v = 0; v < vectors; ++v) sums[v] = fma(left, right[v], sums[v]);
      };
      add(spread_filter<Compute, shared, 0>(y), sum[0]);
      add(spread_filter<Compute, shared, 1>(y), sum[1]);
      add(spread_filter<Compute, shared, 2>(y), sum[2]);
      add(spread_filter<Compute, shared, 3>(y), sum[3]);
    }
  }
  SC_UNROLL for (int i = 0; i < filters; ++i) {
    SC_UNROLL for (int v = 0; v < vectors; ++v) store(tile.sums + i * tile.sums_pitch + v * lanes, sum[i][v]);
  }
}

template <class Compute, bool shared>
void multiply_band(int64_t vectors, const BandOuter<Compute>& tile) {
  static_assert(kBandVectors == 3, "one case each");
  if (vectors >= 3) return band_outer_tile<Compute, shared, 3>(tile);
  if (vectors == 2) return band_outer_tile<Compute, shared, 2>(tile);
  band_outer_tile<Compute, shared, 1>(tile);
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

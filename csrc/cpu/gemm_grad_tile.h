// The register tile of the weight gradient where the channels of a pixel lie side by side, in both factors.
#pragma once
#include <cstdint>

#include "gemm_tile.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

// sums[row * sums_pitch + column] (+)= sum over pixels of a[pixel * a_step + row] * b[pixel * b_step + column].
template <class Compute>
struct OuterTile {
  int64_t pixels;
  const Compute* a;
  int64_t a_step;
  const Compute* b;
  int64_t b_step;
  Compute* sums;
  int64_t sums_pitch;
  bool accumulate;
};

template <class Compute, int rows, int vectors>
void outer_tile(const OuterTile<Compute>& tile) {
  constexpr int lanes = kLanes<Compute>;
  const int64_t a_step = tile.a_step, b_step = tile.b_step, sums_pitch = tile.sums_pitch;
  const Compute* a = tile.a;
  const Compute* b = tile.b;
  Compute* sums = tile.sums;
  vec<Compute> sum[rows][vectors];
  SC_UNROLL for (int i = 0; i < rows; ++i) {
    SC_UNROLL for (int j = 0; j < vectors; ++j) sum[i][j] = zero<Compute>();
  }
  if (tile.accumulate) {
    SC_UNROLL for (int i = 0; i < rows; ++i) {
      SC_UNROLL for (int j = 0; j < vectors; ++j) sum[i][j] = load(sums + i * sums_pitch + j * lanes);
    }
  }
  for (int64_t pixel = tile.pixels; pixel > 0; --pixel, a += a_step, b += b_step) {
    vec<Compute> right[vectors];
    SC_UNROLL for (int j = 0; j < vectors; ++j) right[j] = load(b + j * lanes);
    SC_UNROLL for (int i = 0; i < rows; ++i) {
      const vec<Compute> left = broadcast(a[i]);
      SC_UNROLL for (int j = 0; j < vectors; ++j) sum[i][j] = fma(left, right[j], sum[i][j]);
    }
  }
  SC_UNROLL for (int i = 0; i < rows; ++i) {
    SC_UNROLL for (int j = 0; j < vectors; ++j) store(sums + i * sums_pitch + j * lanes, sum[i][j]);
  }
}

template <class Compute, int vectors>
void outer_tile_of_rows(int64_t rows, const OuterTile<Compute>& tile) {
  switch (rows) {
    case 1: return outer_tile<Compute, 1, vectors>(tile);
    case 2: return outer_tile<Compute, 2, vectors>(tile);
    case 3: return outer_tile<Compute, 3, vectors>(tile);
#if SC_VECTOR_BYTES >= 32
    case 4: return outer_tile<Compute, 4, vectors>(tile);
    case 5: return outer_tile<Compute, 5, vectors>(tile);
#endif
#if SC_VECTOR_BYTES >= 64
    case 6: return outer_tile<Compute, 6, vectors>(tile);
    case 7: return outer_tile<Compute, 7, vectors>(tile);
    case 8: return outer_tile<Compute, 8, vectors>(tile);
    case 9: return outer_tile<Compute, 9, vectors>(tile);
    case 10: return outer_tile<Compute, 10, vectors>(tile);
    case 11: return outer_tile<Compute, 11, vectors>(tile);
    case 12: return outer_tile<Compute, 12, vectors>(tile);
    case 13: return outer_tile<Compute, 13, vectors>(tile);
#endif
    default: return outer_tile<Compute, kTileRows, vectors>(tile);
  }
}

// At most kTileRows rows and kTileColumns columns; columns are rounded up to whole vectors, in `b` and in `sums`.
template <class Compute>
void multiply_pixels(int64_t rows, int64_t columns, const OuterTile<Compute>& tile) {
  if (columns > kLanes<Compute>) return outer_tile_of_rows<Compute, 2>(rows, tile);
  outer_tile_of_rows<Compute, 1>(rows, tile);
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

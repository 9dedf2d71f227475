// Tiles of inner products of rows that are read where they lie: kTileFilters x kTilePixels sums of vectors, or
// kColumnFilters of the pixels that are left over, whose lanes are added up at the end by transposes. Internal linkage: a
// level's code stays in its own translation unit.
#pragma once
#include <cstdint>
#include <type_traits>

#include "gemm_copy.h"
#include "simd.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

constexpr int kTilePixels = kVectorBytes == 64 ? 4 : 2;
constexpr int kTileFilters = 4, kColumnFilters = kTileFilters * kTilePixels;

// Filter f times pixel p over `depth` values: products[p * kFilters + f]. Every sum is in the same order in any tile.
template <class Storage, class Pixel, int kFilters, int kPixels>
void multiply(const Storage* const (&filters)[kFilters], const Pixel* const (&pixels)[kPixels], int64_t depth,
              compute_t<Storage>* products) {
  using C = compute_t<Storage>;
  static_assert(std::is_same_v<compute_t<Pixel>, C>, "both sides are computed in one type");
  constexpr int64_t lanes = kLanes<C>;
  static_assert(kFilters * kPixels % lanes == 0, "sums fill the squares that are transposed");
  vec<C> sum[kPixels * kFilters] = {};
  int64_t k = 0;
  for (; k + lanes <= depth; k += lanes) {
    vec<C> x[kPixels];
    SC_UNROLL for (int p = 0; p < kPixels; ++p) x[p] = load(pixels[p] + k);
    SC_UNROLL for (int f = 0; f < kFilters; ++f) {
      vec<C> w = load(filters[f] + k);
      // Kept in a register; left alone it is loaded again for every pixel.
      if constexpr (kPixels > 1) pin(w);
      SC_UNROLL for (int p = 0; p < kPixels; ++p) sum[p * kFilters + f] = fma(w, x[p], sum[p * kFilters + f]);
    }
  }
  if (k < depth) {
    vec<C> x[kPixels];
    SC_UNROLL for (int p = 0; p < kPixels; ++p) x[p] = load_n(pixels[p] + k, depth - k);
    SC_UNROLL for (int f = 0; f < kFilters; ++f) {
      const vec<C> w = load_n(filters[f] + k, depth - k);
      SC_UNROLL for (int p = 0; p < kPixels; ++p) sum[p * kFilters + f] = fma(w, x[p], sum[p * kFilters + f]);
    }
  }
  SC_UNROLL for (int first = 0; first < kPixels * kFilters; first += lanes) {
    gemm::transpose_square<C>(sum + first);
    vec<C> total = sum[first];
    SC_UNROLL for (int i = 1; i < lanes; ++i) total += sum[first + i];
    store(products + first, total);
  }
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

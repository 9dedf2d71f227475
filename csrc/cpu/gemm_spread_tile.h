// Register tiles over staged planes, and the writing of one phase between the others.
#pragma once
#include <cstdint>
#include <utility>

#include "gemm_tile.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

// Vectors of a tile: where channels are few, there are registers for more of them.
template <int rows>
constexpr int kSpreadVectors = 2 * rows <= kTileRows ? 2 * kTileVectors : kTileVectors;
template <class Compute>
constexpr int64_t kSpreadWidth = 2 * kTileVectors * kLanes<Compute>;

// out[i * kSpreadWidth + j] = sum over channels c and taps t of a[(c * taps + t) * kTileRows + i] *
// b[c * plane + offsets[t] + j], in this order.
template <class Compute>
struct SpreadCall {
  int64_t channels, taps;
  const Compute* a;
  const Compute* b;
  int64_t plane;
  const int64_t* offsets;
  Compute* out;
};

template <class Compute, int rows>
void spread_tile(const SpreadCall<Compute>& call) {
  constexpr int lanes = kLanes<Compute>, vectors = kSpreadVectors<rows>;
  const int64_t taps = call.taps, plane = call.plane;
  const int64_t* offsets = call.offsets;
  const Compute* a = call.a;
  const Compute* line = call.b;
  vec<Compute> sum[rows][vectors];
  SC_UNROLL for (int i = 0; i < rows; ++i) {
    SC_UNROLL for (int j = 0; j < vectors; ++j) sum[i][j] = zero<Compute>();
  }
  for (int64_t c = 0; c < call.channels; ++c, line += plane) {
    for (int64_t t = 0; t < taps; ++t, a += kTileRows) {
      const Compute* b = line + offsets[t];
      if constexpr (rows < vectors) {
        vec<Compute> left[rows];
        SC_UNROLL for (int i = 0; i < rows; ++i) left[i] = broadcast(a[i]);
        SC_UNROLL for (int j = 0; j < vectors; ++j) {
          const vec<Compute> right = load(b + j * lanes);
          SC_UNROLL for (int i = 0; i < rows; ++i) sum[i][j] = fma(left[i], right, sum[i][j]);
        }
      } else {
        vec<Compute> right[vectors];
        SC_UNROLL for (int j = 0; j < vectors; ++j) right[j] = load(b + j * lanes);
        SC_UNROLL for (int i = 0; i < rows; ++i) {
          const vec<Compute> left = broadcast(a[i]);
          SC_UNROLL for (int j = 0; j < vectors; ++j) sum[i][j] = fma(left, right[j], sum[i][j]);
        }
      }
    }
  }
  SC_UNROLL for (int i = 0; i < rows; ++i) {
    SC_UNROLL for (int j = 0; j < vectors; ++j) store(call.out + i * kSpreadWidth<Compute> + j * lanes, sum[i][j]);
  }
}

template <class Compute, int... index>
void spread_tile_of(int64_t rows, const SpreadCall<Compute>& call, std::integer_sequence<int, index...>) {
  static constexpr void (*tiles[])(const SpreadCall<Compute>&) = {spread_tile<Compute, index + 1>...};
  tiles[rows - 1](call);
}

constexpr int lower_pairs(int lane, int lanes) { return lane / 2 + lane % 2 * lanes; }
constexpr int upper_pairs(int lane, int lanes) { return lanes / 2 + lower_pairs(lane, lanes); }

// to[j * phases + r] = from[r * pitch + j], for the first n elements of `to`.
template <int phases, class Storage>
void interleave(const compute_t<Storage>* from, int64_t pitch, int64_t n, Storage* to) {
  using C = compute_t<Storage>;
  constexpr int lanes = kLanes<C>;
  if constexpr (phases == 2 || phases == 4) {
    for (int64_t at = 0; at < n; at += phases * lanes, from += lanes) {
      vec<C> part[phases];
      SC_UNROLL for (int r = 0; r < phases; ++r) part[r] = load(from + r * pitch);
      if constexpr (phases == 4) {
        const vec<C> a = part[0], b = part[1];
        part[0] = shuffle<lower_pairs, C>(a, part[2]);
        part[2] = shuffle<upper_pairs, C>(a, part[2]);
        part[1] = shuffle<lower_pairs, C>(b, part[3]);
        part[3] = shuffle<upper_pairs, C>(b, part[3]);
      }
      SC_UNROLL for (int r = 0; r < phases; r += 2) {
        const vec<C> halves[2] = {shuffle<lower_pairs, C>(part[r], part[r + 1]),
                                  shuffle<upper_pairs, C>(part[r], part[r + 1])};
        SC_UNROLL for (int half = 0; half < 2; ++half) {
          const int64_t first = at + (r + half) * lanes;
          if (first < n) store_n(to + first, halves[half], n - first);
        }
      }
    }
  } else {
    for (int64_t j = 0; j < n; ++j) to[j] = narrow<Storage>(from[j % phases * pitch + j / phases]);
  }
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

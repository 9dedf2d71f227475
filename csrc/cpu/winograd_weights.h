// Transformed filters: U[point][ic][kTileColumns] of a panel of output channels.
#pragma once
#include <cstdint>

#include "winograd_plan.h"
#include "winograd_transform.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace winograd {

// taps[k][tap][lane] for `count` input and `n` output channels, each at most a vector; lanes behind n are zero.
template <class Storage>
SC_INLINE void gather_taps(const Shape& s, const Storage* w, int64_t n, int64_t count, compute_t<Storage>* taps) {
  using C = compute_t<Storage>;
  constexpr int64_t lanes = kLanes<C>;
  const auto slot = [&](int64_t k, int64_t tap) { return taps + (k * 9 + (s.flipped ? 8 - tap : tap)) * lanes; };
  if (s.weight_dest != 1 && s.weight_source == 1) {
    for (int64_t tap = 0; tap < 9; ++tap) {
      const Storage* from = w + tap / 3 * s.weight_h + tap % 3 * s.weight_w;
      // Too many streams for the hardware to follow. What lies behind the filters may be asked for, but is not read.
      for (int64_t lane = 0; lane < n; ++lane) __builtin_prefetch(from + lane * s.weight_dest + 4 * lanes);
      gemm::transpose_piece(from, s.weight_dest, n, count, [&](int64_t k) { return slot(k, tap); });
    }
    return;
  }
  const bool dense = s.weight_dest != 1 && s.weight_w == 1 && s.weight_h == 3;
  for (int64_t k = 0; k < count; ++k, w += s.weight_source) {
    int64_t tap = 0;
    if (dense) {
      for (; tap + lanes <= 9; tap += lanes) {
        gemm::transpose_piece(w + tap, s.weight_dest, n, lanes, [&](int64_t j) { return slot(k, tap + j); });
      }
    }
    for (; tap < 9; ++tap) {
      store(slot(k, tap), load_strided_n(w + tap / 3 * s.weight_h + tap % 3 * s.weight_w, s.weight_dest, n));
    }
  }
}

// The panel from output channel `first` on, input channels [k, k_end), to u[point * step + (channel - k) * width].
template <class Storage, int m>
void transform_panel(const Shape& s, const Storage* w, int64_t first, int64_t k, int64_t k_end, compute_t<Storage>* u,
                     int64_t step) {
  using C = compute_t<Storage>;
  constexpr int64_t lanes = kLanes<C>, width = kTileColumns<C>;
  constexpr int edge = m + 2;
  alignas(64) C taps[lanes * 9 * lanes];
  for (int64_t lane = 0; lane < width; lane += lanes) {
    const int64_t n = smaller(lanes, s.oc - first - lane);
    for (int64_t channel = k; channel < k_end; channel += lanes) {
      const int64_t count = smaller(lanes, k_end - channel);
      C* out = u + (channel - k) * width + lane;
      if (n <= 0) {
        for (int64_t i = 0; i < count; ++i) {
          for (int64_t point = 0; point < edge * edge; ++point) store(out + point * step + i * width, zero<C>());
        }
        continue;
      }
      const Storage* filters = w + (first + lane) * s.weight_dest + channel * s.weight_source;
      gather_taps(s, filters, n, count, taps);
      for (int64_t i = 0; i < count; ++i, out += width) {
        vec<C> half[edge][3];
        SC_UNROLL for (int column = 0; column < 3; ++column) {
          vec<C> g[3], t[edge];
          SC_UNROLL for (int row = 0; row < 3; ++row) g[row] = load(taps + (i * 9 + row * 3 + column) * lanes);
          Transform<m>::template filter<C>(g, t);
          SC_UNROLL for (int row = 0; row < edge; ++row) half[row][column] = t[row];
        }
        SC_UNROLL for (int row = 0; row < edge; ++row) {
          vec<C> t[edge];
          Transform<m>::template filter<C>(half[row], t);
          SC_UNROLL for (int column = 0; column < edge; ++column) {
            store(out + (row * edge + column) * step, t[column]);
          }
        }
      }
    }
  }
}

}  // namespace winograd
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

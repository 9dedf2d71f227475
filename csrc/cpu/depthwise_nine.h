// Depthwise convolution of nchw planes with 3 x 3 filters, stride 1 or 2: planes are read in place, where a padded copy
// would cost more than the products. Four output rows at a time share what they load, and the nine weights stay in
// registers. The last block of a row and of a plane overlaps its neighbour rather than being a narrower one. Planes are
// gone through as `NineWalk` says, and what comes next is prefetched.
#pragma once
#include "activation.h"
#include "rows.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

constexpr int kNineRows = 4;

// One correlation over the planes of a channel; `top` and `left` are the padding, which may be negative. `image` is
// the way to the next image's plane, `ahead` to what is read after this span of rows; likewise for what is written.
struct NinePlane {
  int64_t height, width, row_stride, top, left, columns, out_row_stride;
  int64_t image, out_image, ahead, out_ahead;
};

// Small planes are taken whole, those of several images one after the other; large ones in bands of few rows, which
// keeps the lines that a vector of columns leaves for the next one close together.
struct NineWalk {
  bool whole;
  int64_t images, band;
};

template <class Storage>
NineWalk nine_walk(int64_t images, int64_t rows, int64_t row_elements) {
  constexpr int64_t kWhole = 8 * 1024, kBand = 12;
  const int64_t bytes = rows * row_elements * static_cast<int64_t>(sizeof(Storage));
  if (bytes > kWhole) return {false, 1, round_up(ceil_div(rows, ceil_div(rows, kBand)), 2)};
  return {true, clamped(3 * kWhole / larger(bytes, 1), 1, images), rows};
}

// What the three taps of a filter row read for a vector of outputs, of which some may lie beside the plane.
template <class Storage, int kStride, bool kInside>
struct ThreeTaps {
  using C = compute_t<Storage>;
  static constexpr int64_t kLoads = kStride == 1 ? 3 : 4;
  lane_mask<C> mask[kLoads];

  // `column` is what the first tap reads for the first output.
  ThreeTaps(int64_t column, int64_t width) {
    for (int i = 0; i < kLoads; ++i) mask[i] = lanes_between<C>(-column - shift(i), width - column - shift(i));
  }
  static constexpr int64_t shift(int i) { return kStride == 1 ? i : i / 2 * 2 + i % 2 * kLanes<C>; }

  SC_INLINE vec<C> at(const Storage* from, int i) const {
    return kInside ? load(from + shift(i)) : load_masked(from + shift(i), mask[i]);
  }
  SC_INLINE void read(const Storage* from, vec<C>* x) const {
    if constexpr (kStride == 1) {
      SC_UNROLL for (int k = 0; k < 3; ++k) x[k] = at(from, k);
    } else {
      split_pairs<C>(at(from, 0), at(from, 1), x[0], x[1]);
      x[2] = shuffle<even_lane, C>(at(from, 2), at(from, 3));
    }
  }
};

template <class Storage, int kStride, int kRows, bool kInside, bool kActivated>
SC_INLINE void nine_block(const NinePlane& p, const ThreeTaps<Storage, kStride, kInside>& taps, const Storage* plane,
                          const vec<compute_t<Storage>>* w, const PlaneFinish<compute_t<Storage>>& finish, int64_t oh,
                          int64_t ow, Storage* out) {
  using C = compute_t<Storage>;
  vec<C> sum[kRows];
  SC_UNROLL for (int r = 0; r < kRows; ++r) sum[r] = zero<C>();
  const int64_t first = oh * kStride - p.top;
  const Storage* from = plane + first * p.row_stride + ow * kStride - p.left;
  SC_UNROLL for (int i = 0; i < (kRows - 1) * kStride + 3; ++i, from += p.row_stride) {
    if (first + i < 0 || first + i >= p.height) continue;
    vec<C> x[3];
    taps.read(from, x);
    if (i < kRows * kStride) __builtin_prefetch(from + p.ahead, 0, 2);
    SC_UNROLL for (int r = 0; r < kRows; ++r) {
      const int kh = i - r * kStride;
      if (kh < 0 || kh > 2) continue;
      SC_UNROLL for (int k = 0; k < 3; ++k) sum[r] = fma(x[k], w[3 * kh + k], sum[r]);
    }
  }
  const vec<C> bias = broadcast(finish.bias);
  SC_UNROLL for (int r = 0; r < kRows; ++r) sum[r] += bias;
  if constexpr (kActivated) activate<C>(finish.activation, sum);
  SC_UNROLL for (int r = 0; r < kRows; ++r) {
    Storage* to = out + (oh + r) * p.out_row_stride + ow;
    __builtin_prefetch(to + p.out_ahead, 0, 2);
    store_n(to, sum[r], p.columns - ow);
  }
}

// A vector of outputs of the rows [begin, end) of some images.
template <class Storage, int kStride, bool kInside, bool kActivated>
__attribute__((noinline)) void nine_column(const NinePlane& problem, const Storage* plane,
                                           const compute_t<Storage>* filter,
                                           const PlaneFinish<compute_t<Storage>>& finish, int64_t images,
                                           int64_t begin, int64_t end, int64_t ow, Storage* out) {
  using C = compute_t<Storage>;
  const NinePlane p = problem;
  const ThreeTaps<Storage, kStride, kInside> taps(ow * kStride - p.left, p.width);
  vec<C> w[9];
  SC_UNROLL for (int t = 0; t < 9; ++t) w[t] = broadcast(filter[t]);
  for (int64_t n = 0; n < images; ++n, plane += p.image, out += p.out_image) {
    if (end - begin < kNineRows) {
      for (int64_t oh = begin; oh < end; ++oh) {
        nine_block<Storage, kStride, 1, kInside, kActivated>(p, taps, plane, w, finish, oh, ow, out);
      }
      continue;
    }
    for (int64_t r = begin; r < end; r += kNineRows) {
      const int64_t oh = smaller(r, end - kNineRows);
      nine_block<Storage, kStride, kNineRows, kInside, kActivated>(p, taps, plane, w, finish, oh, ow, out);
    }
  }
}

// Output rows [begin, end) of the planes of some images.
template <class Storage, int kStride>
void nine_taps(const NinePlane& p, const Storage* plane, const compute_t<Storage>* filter,
               const PlaneFinish<compute_t<Storage>>& finish, int64_t images, int64_t begin, int64_t end,
               Storage* out) {
  const bool activated = finish.activation != Activation::none;
  constexpr int64_t kL = kLanes<compute_t<Storage>>, kReach = kStride == 1 ? kL + 2 : 2 * kL + 2;
  for (int64_t c = 0; c < p.columns; c += kL) {
    const int64_t ow = smaller(c, larger(p.columns - kL, 0)), column = ow * kStride - p.left;
    const bool inside = column >= 0 && column + kReach <= p.width;
    const auto run = inside ? (activated ? nine_column<Storage, kStride, true, true>
                                         : nine_column<Storage, kStride, true, false>)
                            : (activated ? nine_column<Storage, kStride, false, true>
                                         : nine_column<Storage, kStride, false, false>);
    run(p, plane, filter, finish, images, begin, end, ow, out);
  }
}

inline bool suits_nine_taps(const Conv2d& p) {
  return p.kh == 3 && p.kw == 3 && p.sh == p.sw && p.sh <= 2 && p.dh == 1 && p.dw == 1;
}

// Rows handed out at a time: all, unless there are too few planes for the threads; an even number, unless all.
inline int64_t nine_band(int64_t planes, int64_t rows, int64_t threads) {
  const int64_t wanted = 2 * positive_threads(threads);
  return planes >= wanted ? rows : round_up(ceil_div(rows, smaller(rows, ceil_div(wanted, planes))), 2);
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

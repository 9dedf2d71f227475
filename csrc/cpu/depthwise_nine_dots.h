// The gradient of 3 x 3 depthwise filters in nchw, stride 1 or 2, with input and gradient read in place: a vector of
// neighbouring columns goes down the rows with all nine sums in registers, and a row of the input is loaded once for
// all rows of the gradient that it meets. Small planes of several images are gone through one after the other, large
// ones in bands of few rows, next to each other in memory; what comes after is prefetched.
#pragma once
#include "depthwise_nine.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// The planes of one channel; the gradient's rows are `plane.out_row_stride` apart.
template <class Storage>
struct NineDots {
  NinePlane plane;
  const Storage* x;
  const Storage* y;
  int64_t x_image, y_image, x_channel, y_channel, images, rows;
};

// The gradient's rows [begin, end) of some images; what is used next lies as far ahead as is said.
template <class Storage>
struct NineSpan {
  const Storage* x;
  const Storage* y;
  int64_t images, begin, end, x_ahead, y_ahead;
};

// Adds to sums[tap][lane] what columns ow, ow + 1, ... of the gradient give.
template <class Storage, int kStride, bool kInside>
__attribute__((noinline)) void nine_dots_column(const NineDots<Storage>& dots, const NineSpan<Storage>& span,
                                                int64_t ow, compute_t<Storage>* sums) {
  using C = compute_t<Storage>;
  constexpr int kL = kLanes<C>, kKept = 4 - kStride;
  const NinePlane p = dots.plane;
  const NineSpan<Storage> s = span;
  const ThreeTaps<Storage, kStride, kInside> taps(ow * kStride - p.left, p.width);
  const lane_mask<C> there = lanes_between<C>(0, p.columns - ow);
  const int64_t bottom = smaller(p.height, (s.end - 1) * kStride + 3 - p.top);
  vec<C> sum[9];
  SC_UNROLL for (int t = 0; t < 9; ++t) sum[t] = load(sums + t * kL);
  for (int64_t n = 0; n < s.images; ++n) {
    const Storage* x = s.x + n * dots.x_image + (s.begin * kStride - p.top) * p.row_stride + ow * kStride - p.left;
    const Storage* y = s.y + n * dots.y_image + s.begin * p.out_row_stride + ow;
    vec<C> g[kKept];  // of this row and those above
    SC_UNROLL for (int i = 0; i < kKept; ++i) g[i] = zero<C>();
    for (int64_t r = s.begin; r < s.end + kKept - 1; ++r, y += p.out_row_stride) {
      SC_UNROLL for (int i = kKept - 1; i > 0; --i) g[i] = g[i - 1];
      g[0] = r >= s.end ? zero<C>() : kInside ? load(y) : load_masked(y, there);
      __builtin_prefetch(y + s.y_ahead, 0, 2);
      SC_UNROLL for (int q = 0; q < kStride; ++q, x += p.row_stride) {
        const int64_t ih = r * kStride + q - p.top;
        if (ih < 0 || ih >= bottom) continue;
        vec<C> v[3];
        taps.read(x, v);
        __builtin_prefetch(x + s.x_ahead, 0, 2);
        SC_UNROLL for (int kh = q; kh < 3; kh += kStride) {
          SC_UNROLL for (int k = 0; k < 3; ++k) sum[3 * kh + k] = fma(v[k], g[kh / kStride], sum[3 * kh + k]);
        }
      }
    }
  }
  SC_UNROLL for (int t = 0; t < 9; ++t) store(sums + t * kL, sum[t]);
}

// Rows of a plane too large to be taken as a whole.
constexpr int64_t kDotRows = 12;

template <class Storage, int kStride>
void nine_dots(const NineDots<Storage>& dots, compute_t<Storage>* out) {
  using C = compute_t<Storage>;
  constexpr int64_t kL = kLanes<C>, kReach = kStride == 1 ? kL + 2 : 2 * kL + 2, kWhole = 8 * 1024;
  const NinePlane& p = dots.plane;
  const int64_t plane_bytes = dots.rows * (p.columns + kStride * p.width) * static_cast<int64_t>(sizeof(Storage));
  const bool whole = plane_bytes <= kWhole;
  const int64_t band = whole ? dots.rows : ceil_div(dots.rows, ceil_div(dots.rows, kDotRows));
  const int64_t together = whole ? larger(1, 3 * kWhole / plane_bytes) : 1;
  NineSpan<Storage> span;
  span.x_ahead = whole ? dots.x_channel : band * kStride * p.row_stride;
  span.y_ahead = whole ? dots.y_channel : band * p.out_row_stride;
  alignas(64) C sums[9 * kL] = {};
  for (int64_t n = 0; n < dots.images; n += together) {
    span.x = dots.x + n * dots.x_image;
    span.y = dots.y + n * dots.y_image;
    span.images = smaller(together, dots.images - n);
    for (span.begin = 0; span.begin < dots.rows; span.begin = span.end) {
      span.end = smaller(span.begin + band, dots.rows);
      for (int64_t ow = 0; ow < p.columns; ow += kL) {
        const int64_t column = ow * kStride - p.left;
        const bool inside = column >= 0 && column + kReach <= p.width && ow + kL <= p.columns;
        const auto run = inside ? nine_dots_column<Storage, kStride, true> : nine_dots_column<Storage, kStride, false>;
        run(dots, span, ow, sums);
      }
    }
  }
  for (int t = 0; t < 9; ++t) out[t] = sum_of_lanes<C>(load(sums + t * kL));
}


}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

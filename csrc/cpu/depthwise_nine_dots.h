// The gradient of 3 x 3 depthwise filters in nchw, stride 1 or 2, with input and gradient read in place: a vector of
// neighbouring columns goes down the rows with all nine sums in registers, and a row of the input is loaded once for
// all rows of the gradient that it meets.
#pragma once
#include "depthwise_nine.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// The planes of some images of a channel; what NinePlane says of the output is said of the gradient here.
template <class Storage>
struct NineDots {
  NinePlane plane;
  const Storage* x;
  const Storage* y;
  int64_t images;
};

// Adds to sums[tap][lane] what columns ow, ow + 1, ... of the gradient's rows [begin, end) give.
template <class Storage, int kStride, bool kInside>
__attribute__((noinline)) void nine_dots_column(const NineDots<Storage>& dots, int64_t begin, int64_t end, int64_t ow,
                                                compute_t<Storage>* sums) {
  using C = compute_t<Storage>;
  constexpr int kL = kLanes<C>, kKept = 4 - kStride;
  const NinePlane p = dots.plane;
  const ThreeTaps<Storage, kStride, kInside> taps(ow * kStride - p.left, p.width);
  const lane_mask<C> there = lanes_between<C>(0, p.columns - ow);
  const int64_t bottom = smaller(p.height, (end - 1) * kStride + 3 - p.top);
  vec<C> sum[9];
  SC_UNROLL for (int t = 0; t < 9; ++t) sum[t] = load(sums + t * kL);
  for (int64_t n = 0; n < dots.images; ++n) {
    const Storage* x = dots.x + n * p.image + (begin * kStride - p.top) * p.row_stride + ow * kStride - p.left;
    const Storage* y = dots.y + n * p.out_image + begin * p.out_row_stride + ow;
    vec<C> g[kKept];  // of this row and those above
    SC_UNROLL for (int i = 0; i < kKept; ++i) g[i] = zero<C>();
    for (int64_t r = begin; r < end + kKept - 1; ++r, y += p.out_row_stride) {
      SC_UNROLL for (int i = kKept - 1; i > 0; --i) g[i] = g[i - 1];
      g[0] = r >= end ? zero<C>() : kInside ? load(y) : load_masked(y, there);
      __builtin_prefetch(y + p.out_ahead, 0, 2);
      SC_UNROLL for (int q = 0; q < kStride; ++q, x += p.row_stride) {
        const int64_t ih = r * kStride + q - p.top;
        if (ih < 0 || ih >= bottom) continue;
        vec<C> v[3];
        taps.read(x, v);
        __builtin_prefetch(x + p.ahead, 0, 2);
        SC_UNROLL for (int kh = q; kh < 3; kh += kStride) {
          SC_UNROLL for (int k = 0; k < 3; ++k) sum[3 * kh + k] = fma(v[k], g[kh / kStride], sum[3 * kh + k]);
        }
      }
    }
  }
  SC_UNROLL for (int t = 0; t < 9; ++t) store(sums + t * kL, sum[t]);
}

// The gradient's rows [begin, end).
template <class Storage, int kStride>
void nine_dots(const NineDots<Storage>& dots, int64_t begin, int64_t end, compute_t<Storage>* sums) {
  constexpr int64_t kL = kLanes<compute_t<Storage>>, kReach = kStride == 1 ? kL + 2 : 2 * kL + 2;
  const NinePlane& p = dots.plane;
  for (int64_t ow = 0; ow < p.columns; ow += kL) {
    const int64_t column = ow * kStride - p.left;
    const bool inside = column >= 0 && column + kReach <= p.width && ow + kL <= p.columns;
    const auto run = inside ? nine_dots_column<Storage, kStride, true> : nine_dots_column<Storage, kStride, false>;
    run(dots, begin, end, ow, sums);
  }
}

// out[tap]: the sum over the images [first, last) of output channel oc.
template <class Storage>
void nine_weight_grad(const Conv2d& p, const Buffers& buffers, int64_t oc, int64_t first, int64_t last,
                      compute_t<Storage>* out) {
  using C = compute_t<Storage>;
  constexpr int kL = kLanes<C>;
  const NineWalk walk = nine_walk<Storage>(last - first, p.oh, p.ow + p.sh * p.iw);
  NineDots<Storage> dots;
  dots.plane = {p.ih, p.iw, p.x_stride[2], p.ph, p.pw, p.ow, p.y_stride[2], p.x_stride[0], p.y_stride[0],
                walk.whole ? p.x_stride[1] : walk.band * p.sh * p.x_stride[2],
                walk.whole ? p.y_stride[1] : walk.band * p.y_stride[2]};
  alignas(64) C sums[9 * kL] = {};
  for (int64_t n = first; n < last; n += walk.images) {
    dots.x = static_cast<const Storage*>(buffers.x) + n * p.x_stride[0] + oc / (p.oc / p.ic) * p.x_stride[1];
    dots.y = static_cast<const Storage*>(buffers.y) + n * p.y_stride[0] + oc * p.y_stride[1];
    dots.images = smaller(walk.images, last - n);
    for (int64_t begin = 0; begin < p.oh; begin += walk.band) {
      const auto run = p.sh == 1 ? nine_dots<Storage, 1> : nine_dots<Storage, 2>;
      run(dots, begin, smaller(begin + walk.band, p.oh), sums);
    }
  }
  for (int t = 0; t < 9; ++t) out[t] = sum_of_lanes<C>(load(sums + t * kL));
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

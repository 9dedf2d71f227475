// The gradient of the input of an nchw depthwise convolution with 3 x 3 filters and stride 2, read in place. Pairs of
// rows and of columns of the input meet the same two by two outputs, each member of a pair with the taps of its parity:
// the nine products of a vector of outputs fill two vectors in each of two rows.
#pragma once
#include "depthwise_nine.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// The two by two outputs that a pair of rows and of columns meets, a vector of each.
template <class C>
struct Quad {
  vec<C> above_left, above_right, left, right;
};

// Rows [begin, end) of the input, columns from 2 * pair on, of some images. kOddTop, kOddLeft: the padding's parity;
// where it is odd, the second row or column of a pair is the one of two taps.
template <class Storage, bool kOddTop, bool kOddLeft, bool kInside>
__attribute__((noinline)) void spread_column(const NinePlane& problem, const Storage* plane,
                                             const compute_t<Storage>* filter, int64_t images, int64_t begin,
                                             int64_t end, int64_t pair, Storage* out) {
  using C = compute_t<Storage>;
  constexpr int64_t kL = kLanes<C>;
  const NinePlane p = problem;
  const int64_t column = pair + (p.left + 1) / 2 - 1, remaining = p.columns - 2 * pair;
  const lane_mask<C> mask[2] = {lanes_between<C>(-column, p.width - column),
                                lanes_between<C>(-column - 1, p.width - column - 1)};
  vec<C> w[9];
  SC_UNROLL for (int t = 0; t < 9; ++t) w[t] = broadcast(filter[t]);
  plane += column;
  out += 2 * pair;
  for (int64_t n = 0; n < images; ++n, plane += p.image, out += p.out_image) {
    const auto read = [&](int64_t row, int right) -> vec<C> {
      if (row < 0 || row >= p.height) return zero<C>();
      const Storage* from = plane + row * p.row_stride + right;
      return kInside ? load(from) : load_masked(from, mask[right]);
    };
    int64_t row = begin / 2 + (p.top + 1) / 2;
    Quad<C> y{zero<C>(), zero<C>(), read(row - 1, 0), read(row - 1, 1)};
    for (int64_t r = begin; r < end; r += 2, ++row) {
      y = {y.left, y.right, read(row, 0), read(row, 1)};
      __builtin_prefetch(plane + row * p.row_stride + p.ahead, 0, 2);
      // Named by their taps in the filter's rows and columns.
      const vec<C> two_two = fma(y.above_left, w[8], fma(y.above_right, w[6], fma(y.left, w[2], y.right * w[0])));
      const vec<C> two_one = fma(kOddLeft ? y.above_left : y.above_right, w[7], (kOddLeft ? y.left : y.right) * w[1]);
      const vec<C> one_two =
          fma(kOddTop ? y.above_left : y.left, w[5], (kOddTop ? y.above_right : y.right) * w[3]);
      const vec<C> one_one = (kOddTop ? (kOddLeft ? y.above_left : y.above_right) : kOddLeft ? y.left : y.right) * w[4];
      const auto write = [&](Storage* to, vec<C> two, vec<C> one) {
        vec<C> first, second;
        kOddLeft ? merge_pairs<C>(one, two, first, second) : merge_pairs<C>(two, one, first, second);
        __builtin_prefetch(to + p.out_ahead, 0, 2);
        store_n(to, first, remaining);
        if (remaining > kL) store_n(to + kL, second, remaining - kL);
      };
      Storage* to = out + r * p.out_row_stride;
      kOddTop ? write(to, one_two, one_one) : write(to, two_two, two_one);
      if (r + 1 == end) continue;
      to += p.out_row_stride;
      kOddTop ? write(to, two_two, two_one) : write(to, one_two, one_one);
    }
  }
}

template <class Storage, bool kOddTop, bool kOddLeft>
void spread_columns(const NinePlane& p, const Storage* plane, const compute_t<Storage>* filter, int64_t images,
                    int64_t begin, int64_t end, Storage* out) {
  constexpr int64_t kL = kLanes<compute_t<Storage>>;
  const int64_t pairs = ceil_div(p.columns, 2);
  for (int64_t c = 0; c < pairs; c += kL) {
    const int64_t pair = smaller(c, larger(pairs - kL, 0)), column = pair + (p.left + 1) / 2 - 1;
    const auto run = column >= 0 && column + 1 + kL <= p.width ? spread_column<Storage, kOddTop, kOddLeft, true>
                                                               : spread_column<Storage, kOddTop, kOddLeft, false>;
    run(p, plane, filter, images, begin, end, pair, out);
  }
}

// Rows [begin, end) of the input's planes of some images, `begin` even; p's output is the input here.
template <class Storage>
void nine_spread(const NinePlane& p, const Storage* plane, const compute_t<Storage>* filter, int64_t images,
                 int64_t begin, int64_t end, Storage* out) {
  const auto run = p.top % 2 == 0 ? (p.left % 2 == 0 ? spread_columns<Storage, false, false>
                                                     : spread_columns<Storage, false, true>)
                                  : (p.left % 2 == 0 ? spread_columns<Storage, true, false>
                                                     : spread_columns<Storage, true, true>);
  run(p, plane, filter, images, begin, end, out);
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

// Depthwise convolution of one staged nchw plane with a 5 x 5 filter and stride 1: a strip of columns goes down the
// rows. Each staged row is met with all rows of the filter at once, for as many output rows, whose sums stay in
// registers; one of them is then complete and gives its registers to the next. So no row is loaded twice, and there are
// always enough independent sums to hide the latency of an FMA, which blocks of rows lack above and below.
#pragma once
#include "depthwise_shared.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// Vectors of a strip: the sums of kTaps rows, an input for each vector and a weight fit the registers.
template <int kTaps>
constexpr int kRollVectors = smaller((kVectorRegisters - 1) / (kTaps + 1), 4);

// Staged row `row` with filter row kh for the sums of output slot (slot - kh) mod kTaps.
template <class C, int kTaps, int kVectors, int slot>
SC_INLINE void roll_row(const C* row, const C* weights, vec<C> (&sum)[kTaps][kVectors]) {
  SC_UNROLL for (int k = 0; k < kTaps; ++k) {
    vec<C> x[kVectors];
    SC_UNROLL for (int j = 0; j < kVectors; ++j) x[j] = load(row + k + j * kLanes<C>);
    SC_UNROLL for (int kh = 0; kh < kTaps; ++kh) {
      const vec<C> weight = broadcast(weights[kh * kTaps + k]);
      vec<C>(&to)[kVectors] = sum[(slot - kh + kTaps) % kTaps];
      SC_UNROLL for (int j = 0; j < kVectors; ++j) to[j] = fma(x[j], weight, to[j]);
    }
  }
}

// Row `at` of the padded plane, of which at % kTaps is `slot`, and those behind it. False when all outputs are written.
template <class C, int kTaps, int kVectors, bool kActivated, int slot = 0>
SC_INLINE bool roll_rows(const SharedPlane<C>& p, int64_t at, const C* rows, C* out, int64_t left, vec<C> added,
                         vec<C> (&sum)[kTaps][kVectors]) {
  if constexpr (slot < kTaps) {
    const int64_t row = at + slot - p.top, r = at + slot - (kTaps - 1);
    if (row >= 0 && row < p.height) roll_row<C, kTaps, kVectors, slot>(rows + row * p.pitch, p.weights, sum);
    vec<C>(&done)[kVectors] = sum[(slot + 1) % kTaps];
    if (r >= 0) {
      SC_UNROLL for (int j = 0; j < kVectors; ++j) done[j] += added;
      if constexpr (kActivated) activate<C>(p.finish.activation, done);
      C* to = out + r * p.out_pitch;
      SC_UNROLL for (int j = 0; j < kVectors - 1; ++j) store(to + j * kLanes<C>, done[j]);
      store_n(to + (kVectors - 1) * kLanes<C>, done[kVectors - 1], left);
      if (r + 1 == p.out_rows) return false;
    }
    SC_UNROLL for (int j = 0; j < kVectors; ++j) done[j] = zero<C>();
    return roll_rows<C, kTaps, kVectors, kActivated, slot + 1>(p, at, rows, out, left, added, sum);
  }
  return true;
}

template <class C, int kTaps, int kVectors, bool kActivated>
__attribute__((noinline)) void roll_strip(const SharedPlane<C>& plane, int64_t ow) {
  const SharedPlane<C> p = plane;
  vec<C> sum[kTaps][kVectors];
  SC_UNROLL for (int r = 0; r < kTaps; ++r) {
    SC_UNROLL for (int j = 0; j < kVectors; ++j) sum[r][j] = zero<C>();
  }
  const int64_t left = p.columns - ow - (kVectors - 1) * kLanes<C>;
  const vec<C> added = broadcast(p.finish.bias);
  int64_t at = 0;
  while (roll_rows<C, kTaps, kVectors, kActivated>(p, at, p.rows + ow, p.out + ow, left, added, sum)) at += kTaps;
}

// As many strips as there are; returns where the columns begin that are left.
template <class C, int kTaps>
int64_t roll_columns(const SharedPlane<C>& p) {
  constexpr int kVectors = kRollVectors<kTaps>;
  const auto run = p.finish.activation == Activation::none ? roll_strip<C, kTaps, kVectors, false>
                                                           : roll_strip<C, kTaps, kVectors, true>;
  int64_t c = 0;
  for (; p.columns - c > (kVectors - 1) * kLanes<C>; c += kVectors * kLanes<C>) run(p, c);
  return c;
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

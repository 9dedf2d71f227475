// Pooling of nchw planes by windows of 2 x 2 that tile the image, stride 2 without padding: two rows are joined, then
// the pairs of neighbours in them. Nothing is kept from row to row, and nothing lies beside the image. (Where zeros of
// both signs tie for the maximum, the sign may be another than torch's.)
#pragma once
#include "pool_reduce.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

inline bool suits_pairs(const Pool2d& p) {
  if (p.adaptive || p.x_stride[3] != 1 || p.y_stride[3] != 1) return false;
  if (p.kh != 2 || p.kw != 2 || p.sh != 2 || p.sw != 2 || p.ph != 0 || p.pw != 0) return false;
  if (p.divisor != 0 && exact_reciprocal(static_cast<double>(p.divisor)) == 0) return false;
  return p.dh == 1 && p.dw == 1 && 2 * p.oh <= p.ih && 2 * p.ow <= p.iw;
}

template <Reduce kind, class Compute>
SC_INLINE vec<Compute> joined(vec<Compute> a, vec<Compute> b) {
  if constexpr (kind == Reduce::sum) return a + b;
  return max_or_nan(a, b);
}

// Output columns [begin, begin + kLanes) of a row.
template <Reduce kind, class Storage>
SC_INLINE vec<compute_t<Storage>> pool_pair_vector(const Storage* upper, const Storage* lower, int64_t begin) {
  using C = compute_t<Storage>;
  constexpr int64_t kL = kLanes<C>;
  vec<C> even, odd;
  const int64_t at = 2 * begin;
  split_pairs<C>(joined<kind, C>(load(upper + at), load(lower + at)),
                 joined<kind, C>(load(upper + at + kL), load(lower + at + kL)), even, odd);
  return joined<kind, C>(even, odd);
}

template <Reduce kind, class Storage>
Storage pool_pair(const Storage* upper, const Storage* lower, compute_t<Storage> factor) {
  using C = compute_t<Storage>;
  const C value[4] = {widen(upper[0]), widen(upper[1]), widen(lower[0]), widen(lower[1])};
  if constexpr (kind == Reduce::sum) return narrow<Storage>((value[0] + value[2] + (value[1] + value[3])) * factor);
  C best = value[0];
  for (int i = 1; i < 4; ++i) best = value[i] > best || value[i] != value[i] ? value[i] : best;
  return narrow<Storage>(best);
}

template <Reduce kind, class Storage>
void pool_pair_row(const Storage* upper, const Storage* lower, int64_t columns, compute_t<Storage> factor,
                   Storage* y) {
  using C = compute_t<Storage>;
  constexpr int64_t kL = kLanes<C>;
  if (columns < kL) {
    for (int64_t o = 0; o < columns; ++o) y[o] = pool_pair<kind>(upper + 2 * o, lower + 2 * o, factor);
    return;
  }
  for (int64_t i = 0; i < columns; i += kL) {
    const int64_t o = smaller(i, columns - kL);  // the last vector overlaps the one before it
    vec<C> value = pool_pair_vector<kind>(upper, lower, o);
    if constexpr (kind == Reduce::sum) value = value * broadcast(factor);
    store(y + o, value);
  }
}

// A task is one plane.
template <Reduce kind, class Storage>
int32_t pool_pairs(const Pool2d& p, const Buffers& buffers) {
  using C = compute_t<Storage>;
  const C factor = exact_reciprocal(static_cast<C>(p.divisor != 0 ? p.divisor : 4));
  return for_each_slab(p.n * p.c, buffers.threads, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t n = plane / p.c, c = plane % p.c;
      const Storage* x = static_cast<const Storage*>(buffers.x) + n * p.x_stride[0] + c * p.x_stride[1];
      Storage* y = static_cast<Storage*>(buffers.y) + n * p.y_stride[0] + c * p.y_stride[1];
      for (int64_t oh = 0; oh < p.oh; ++oh, x += 2 * p.x_stride[2], y += p.y_stride[2]) {
        pool_pair_row<kind>(x, x + p.x_stride[2], p.ow, factor, y);
      }
    }
  });
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

// What the row-wise kernels (depthwise, pooling) share: slabs of work, workspace carving, and rows widened, padded,
// split by stride and merged back. Internal linkage: a level's code stays in its own translation unit.
#pragma once
#include <cstdint>
#include <type_traits>

#include "../common/geometry.h"
#include "../common/parallel.h"
#include "../common/problem.h"
#include "../common/shares.h"
#include "activation.h"
#include "simd.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

inline int64_t positive_threads(int64_t threads) { return larger(threads, 1); }

// Bytes of `count` elements, rounded to whole cache lines.
template <class T>
int64_t lines_of(int64_t count) {
  return round_up(count * static_cast<int64_t>(sizeof(T)), 64);
}

// Cuts aligned pieces off a workspace; the sizes are those of lines_of.
struct Carver {
  char* cursor;
  template <class T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(cursor);
    cursor += lines_of<T>(count);
    return piece;
  }
};

// body(slab, begin, end): ranges that cover [0, tasks), those of one slab one after the other, each slab with a
// workspace slot of its own.
template <class Body>
int32_t for_each_slab(int64_t tasks, int64_t threads, const Body& body) {
  return for_each_share(tasks, threads, [&](int64_t slab, Share& share) {
    for (int64_t begin, end; share.take(&begin, &end);) body(slab, begin, end);
  });
}

// The integer as wide as a lane.
template <class Compute>
using lane_int = std::conditional_t<sizeof(Compute) == 4, int32_t, int64_t>;

// Whether a partial load of the type is one instruction.
#if defined(__AVX512F__)
template <class Storage>
constexpr bool kMasksLoads = true;
#elif defined(__AVX2__)
template <class Storage>
constexpr bool kMasksLoads = std::is_same_v<Storage, compute_t<Storage>>;
#else
template <class Storage>
constexpr bool kMasksLoads = false;
#endif

template <class Storage>
__attribute__((noinline)) vec<compute_t<Storage>> load_piecewise(const Storage* p, int64_t n) {
  return load_n(p, n);
}

// The first n values, n less than a vector. Out of line where a partial load is not one instruction, to keep kernels
// small.
template <class Storage>
SC_INLINE vec<compute_t<Storage>> load_tail(const Storage* p, int64_t n) {
  if constexpr (kMasksLoads<Storage>) return load_n(p, n);
  return load_piecewise(p, n);
}

// The row functions below write up to one vector past the end of their destination, which the caller provides.
template <class Compute>
constexpr int64_t kSlack = 2 * kLanes<Compute>;

template <class Compute>
void fill_row(Compute* row, int64_t n, Compute value) {
  const vec<Compute> v = broadcast(value);
  for (int64_t i = 0; i < n; i += kLanes<Compute>) store(row + i, v);
}

template <class Storage>
void widen_row(const Storage* source, int64_t n, compute_t<Storage>* row) {
  using C = compute_t<Storage>;
  int64_t i = 0;
  for (; i + kLanes<C> <= n; i += kLanes<C>) store(row + i, load(source + i));
  if (i < n) store(row + i, load_n(source + i, n - i));
}

template <class Storage>
void narrow_row(const compute_t<Storage>* row, int64_t n, Storage* out) {
  using C = compute_t<Storage>;
  int64_t i = 0;
  for (; i + kLanes<C> <= n; i += kLanes<C>) store(out + i, load(row + i));
  if (i < n) store_n(out + i, load_n(row + i, n - i), n - i);
}

// row[u] = source[u - left] where that exists, else `value`, for u in [0, total). `left` may be negative, source null.
template <class Storage>
void pad_row(const Storage* source, int64_t n, int64_t left, int64_t total, compute_t<Storage> value,
             compute_t<Storage>* row) {
  if (source == nullptr) return fill_row(row, total, value);
  const int64_t begin = clamped(left, 0, total);
  const int64_t end = clamped(left + n, begin, total);
  fill_row(row, begin, value);
  widen_row(source + (begin - left), end - begin, row + begin);
  fill_row(row + end, total - end, value);
}

constexpr int even_lane(int lane, int) { return 2 * lane; }
constexpr int odd_lane(int lane, int) { return 2 * lane + 1; }
constexpr int lower_alternating(int lane, int lanes) { return lane / 2 + lane % 2 * lanes; }
constexpr int upper_alternating(int lane, int lanes) { return lanes / 2 + lower_alternating(lane, lanes); }

template <class Compute>
SC_INLINE void split_pairs(vec<Compute> a, vec<Compute> b, vec<Compute>& even, vec<Compute>& odd) {
  even = shuffle<even_lane, Compute>(a, b);
  odd = shuffle<odd_lane, Compute>(a, b);
}

template <class Compute>
SC_INLINE void merge_pairs(vec<Compute> even, vec<Compute> odd, vec<Compute>& a, vec<Compute>& b) {
  a = shuffle<lower_alternating, Compute>(even, odd);
  b = shuffle<upper_alternating, Compute>(even, odd);
}

// Splits pairs again and again: the even half of what remains holds the phases whose next bit is 0.
template <int kStride, class Compute>
SC_INLINE void split_phases(const vec<Compute>* from, vec<Compute>* phase, int first, int step) {
  if constexpr (kStride == 1) {
    phase[first] = from[0];
  } else {
    vec<Compute> even[kStride / 2], odd[kStride / 2];
    SC_UNROLL for (int i = 0; i < kStride / 2; ++i) split_pairs<Compute>(from[2 * i], from[2 * i + 1], even[i], odd[i]);
    split_phases<kStride / 2, Compute>(even, phase, first, 2 * step);
    split_phases<kStride / 2, Compute>(odd, phase, first + step, 2 * step);
  }
}

template <int kStride, class Compute>
void split_row_by(const Compute* row, int64_t n, Compute* phases, int64_t pitch) {
  constexpr int64_t kL = kLanes<Compute>;
  for (int64_t i = 0; i < n; i += kL) {
    vec<Compute> from[kStride], phase[kStride];
    SC_UNROLL for (int j = 0; j < kStride; ++j) from[j] = load(row + kStride * i + j * kL);
    split_phases<kStride, Compute>(from, phase, 0, 1);
    SC_UNROLL for (int p = 0; p < kStride; ++p) store(phases + p * pitch + i, phase[p]);
  }
}

// phases[p * pitch + i] = row[i * stride + p] for i in [0, n); both have slack.
template <class Compute>
void split_row(const Compute* row, int64_t stride, int64_t n, Compute* phases, int64_t pitch) {
  constexpr int64_t kL = kLanes<Compute>;
  if (stride == 2) {
    for (int64_t i = 0; i < n; i += kL) {
      vec<Compute> even, odd;
      split_pairs<Compute>(load(row + 2 * i), load(row + 2 * i + kL), even, odd);
      store(phases + i, even);
      store(phases + pitch + i, odd);
    }
    return;
  }
  if (stride == 4) return split_row_by<4>(row, n, phases, pitch);
  if (stride == 8) return split_row_by<8>(row, n, phases, pitch);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t p = 0; p < stride; ++p) phases[p * pitch + i] = row[i * stride + p];
  }
}

// row[i * stride + p] = phases[p * pitch + i] for i in [0, n); both have slack.
template <class Compute>
void merge_row(const Compute* phases, int64_t pitch, int64_t stride, int64_t n, Compute* row) {
  constexpr int64_t kL = kLanes<Compute>;
  if (stride == 2) {
    for (int64_t i = 0; i < n; i += kL) {
      vec<Compute> a, b;
      merge_pairs<Compute>(load(phases + i), load(phases + pitch + i), a, b);
      store(row + 2 * i, a);
      store(row + 2 * i + kL, b);
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t p = 0; p < stride; ++p) row[i * stride + p] = phases[p * pitch + i];
  }
}

// Elements a split or merged row of `n` per phase needs, slack included.
template <class Compute>
int64_t strided_row_size(int64_t n, int64_t stride) {
  return round_up(n, kLanes<Compute>) * stride + kSlack<Compute>;
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

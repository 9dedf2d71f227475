// Converting copies and in-register transposes from which all packing is made.
#pragma once
#include <cstdint>

#include "simd.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

// Elements between packed rows of `length`: room for one vector stored past the end, and an odd number of cache lines,
// so that a column of rows does not fall into one cache set.
template <class Compute>
int64_t packed_pitch(int64_t length) {
  constexpr int64_t line = 64 / sizeof(Compute);
  const int64_t lines = (length + kLanes<Compute> + line - 1) / line;
  return (lines | 1) * line;
}

// The copies below store whole vectors: up to a vector less one element past the end is overwritten. Packing goes
// through addresses in ascending order, so what is spilled is written over by the next piece.
template <class Storage>
SC_INLINE void copy_spilling(compute_t<Storage>* to, const Storage* from, int64_t n) {
  constexpr int64_t lanes = kLanes<compute_t<Storage>>;
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store(to + i, load(from + i));
  if (i < n) store(to + i, load_n(from + i, n - i));
}

template <class Compute>
SC_INLINE void zero_spilling(Compute* to, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes<Compute>) store(to + i, zero<Compute>());
}

template <class Storage>
SC_INLINE void copy_strided_spilling(compute_t<Storage>* to, const Storage* from, int64_t stride, int64_t n) {
  constexpr int64_t lanes = kLanes<compute_t<Storage>>;
  if (stride == 1) return copy_spilling(to, from, n);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store(to + i, load_strided_n(from + i * stride, stride, lanes));
  // The last vector overlaps the one before it.
  if (i < n && n > lanes) return store(to + n - lanes, load_strided_n(from + (n - lanes) * stride, stride, lanes));
  if (i < n) store(to, load_strided_n(from, stride, n));
}

// even[i] = from[2 * i] and odd[i] = from[2 * i + 1], from n values.
template <class Storage>
SC_INLINE void split_spilling(compute_t<Storage>* even, compute_t<Storage>* odd, const Storage* from, int64_t n) {
  using C = compute_t<Storage>;
  constexpr int64_t lanes = kLanes<C>;
  for (int64_t i = 0; i < n; i += 2 * lanes, even += lanes, odd += lanes) {
    const vec<C> a = load_n(from + i, n - i);
    const vec<C> b = n - i > lanes ? load_n(from + i + lanes, n - i - lanes) : zero<C>();
    store(even, shuffle<every_even, C>(a, b));
    store(odd, shuffle<every_odd, C>(a, b));
  }
}

template <int distance>
constexpr int upper_half(int lane, int lanes) {
  return lane & distance ? lanes + lane - distance : lane;
}
template <int distance>
constexpr int lower_half(int lane, int lanes) {
  return lane & distance ? lanes + lane : lane + distance;
}

// Transposes a square of kLanes rows in place: exchanges the off-diagonal quarters of ever smaller squares.
template <class Compute, int distance = kLanes<Compute> / 2>
SC_INLINE void transpose_square(vec<Compute>* rows) {
  SC_UNROLL for (int i = 0; i < kLanes<Compute>; ++i) {
    if ((i & distance) != 0) continue;
    const vec<Compute> a = rows[i], b = rows[i + distance];
    rows[i] = shuffle<upper_half<distance>, Compute>(a, b);
    rows[i + distance] = shuffle<lower_half<distance>, Compute>(a, b);
  }
  if constexpr (distance > 1) transpose_square<Compute, distance / 2>(rows);
}

// Row i of the source starts at from + i * stride. Column j of it is stored as one vector, zeros behind its `rows`
// values, at to(j). At most kLanes rows and columns.
template <class Storage, class To>
SC_INLINE void transpose_piece(const Storage* from, int64_t stride, int64_t rows, int64_t columns, const To& to) {
  using C = compute_t<Storage>;
  constexpr int lanes = kLanes<C>;
  vec<C> square[lanes];
  if (rows == lanes && columns == lanes) {
    SC_UNROLL for (int i = 0; i < lanes; ++i) square[i] = load(from + i * stride);
  } else {
    for (int i = 0; i < lanes; ++i) square[i] = i < rows ? load_n(from + i * stride, columns) : zero<C>();
  }
  transpose_square<C>(square);
  if (columns == lanes) {
    SC_UNROLL for (int j = 0; j < lanes; ++j) store(to(j), square[j]);
  } else {
    for (int64_t j = 0; j < columns; ++j) store(to(j), square[j]);
  }
}

// to[j * to_stride + i] = from[i * stride + j], in whole vectors along i.
template <class Storage>
void transpose_spilling(compute_t<Storage>* to, int64_t to_stride, const Storage* from, int64_t stride, int64_t rows,
                        int64_t columns) {
  constexpr int64_t lanes = kLanes<compute_t<Storage>>;
  for (int64_t i = 0; i < rows; i += lanes) {
    const int64_t height = rows - i < lanes ? rows - i : lanes;
    for (int64_t j = 0; j < columns; j += lanes) {
      const int64_t width = columns - j < lanes ? columns - j : lanes;
      compute_t<Storage>* corner = to + j * to_stride + i;
      transpose_piece(from + i * stride + j, stride, height, width,
                      [corner, to_stride](int64_t column) { return corner + column * to_stride; });
    }
  }
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

// Depthwise convolution of one nchw plane. The source plane is staged in the compute type, zero-padded and split by
// stride, so that each tap is one constant offset from the output position: the output grid is stored with the pitch
// of the staged plane, and one run over it computes many rows at once, however short they are. A square stride-1
// filter on rows that fill vectors takes another path, in which several output rows share each load. Both sum the
// taps in the same order.
#pragma once
#include "rows.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// What is done to finished sums.
template <class Compute>
struct Finish {
  Compute bias;
  Activation activation;
};

constexpr int kSharedRows = 4;
constexpr int kRunVectors = 8;

template <class Compute, int kVectors>
__attribute__((noinline)) void run_block(const Compute* plane, const int64_t* offsets, const Compute* weights,
                                         int64_t taps, bool accumulate, Compute* out) {
  constexpr int kL = kLanes<Compute>;
  vec<Compute> sum[kVectors];
  SC_UNROLL
  for (int j = 0; j < kVectors; ++j) sum[j] = accumulate ? load(out + j * kL) : zero<Compute>();
  for (int64_t t = 0; t < taps; ++t) {
    const Compute* p = plane + offsets[t];
    const vec<Compute> w = broadcast(weights[t]);
    SC_UNROLL
    for (int j = 0; j < kVectors; ++j) sum[j] = fma(load(p + j * kL), w, sum[j]);
  }
  SC_UNROLL
  for (int j = 0; j < kVectors; ++j) store(out + j * kL, sum[j]);
}

// out[q] (+)= sum over taps of weights[t] * plane[offsets[t] + q], q in [0, n) and up to a vector beyond.
template <class Compute>
void run_taps(const Compute* plane, const int64_t* offsets, const Compute* weights, int64_t taps, bool accumulate,
              int64_t n, Compute* out) {
  constexpr int64_t kL = kLanes<Compute>;
  int64_t vectors = ceil_div(n, kL), q = 0;
  for (; vectors >= kRunVectors; vectors -= kRunVectors, q += kRunVectors * kL) {
    run_block<Compute, kRunVectors>(plane + q, offsets, weights, taps, accumulate, out + q);
  }
  const Compute* p = plane + q;
  Compute* to = out + q;
  switch (vectors) {
    case 7: return run_block<Compute, 7>(p, offsets, weights, taps, accumulate, to);
    case 6: return run_block<Compute, 6>(p, offsets, weights, taps, accumulate, to);
    case 5: return run_block<Compute, 5>(p, offsets, weights, taps, accumulate, to);
    case 4: return run_block<Compute, 4>(p, offsets, weights, taps, accumulate, to);
    case 3: return run_block<Compute, 3>(p, offsets, weights, taps, accumulate, to);
    case 2: return run_block<Compute, 2>(p, offsets, weights, taps, accumulate, to);
    case 1: return run_block<Compute, 1>(p, offsets, weights, taps, accumulate, to);
    default: return;
  }
}

// Keeps the compiler from moving a value's computation past this point; left alone it sinks chains of FMAs into the
// conditional stores and spills.
template <class V>
SC_INLINE void pin(V& v) {
#if defined(__AVX512F__)
  asm volatile("" : "+v"(v));
#elif defined(__x86_64__) && SC_VECTOR_BYTES < 64
  asm volatile("" : "+x"(v));
#else
  (void)v;
#endif
}

// kSharedRows output rows by kVectors vectors of a kTaps x kTaps filter; `rows` and `columns` say how many are wanted.
template <class C, int kTaps, int kVectors, bool kActivated>
__attribute__((noinline)) void shared_block(const C* plane, int64_t pitch, const C* weights, Finish<C> finish,
                                            int64_t rows, int64_t columns, C* out, int64_t out_pitch) {
  constexpr int kL = kLanes<C>;
  vec<C> sum[kSharedRows][kVectors];
  SC_UNROLL
  for (int r = 0; r < kSharedRows; ++r) {
    SC_UNROLL
    for (int j = 0; j < kVectors; ++j) sum[r][j] = zero<C>();
  }
  SC_UNROLL
  for (int ih = 0; ih < kSharedRows + kTaps - 1; ++ih) {
    const C* p = plane + ih * pitch;
    _Pragma("GCC unroll 1")
    for (int kw = 0; kw < kTaps; ++kw) {
      vec<C> x[kVectors];
      SC_UNROLL
      for (int j = 0; j < kVectors; ++j) x[j] = load(p + kw + j * kL);
      SC_UNROLL
      for (int r = 0; r < kSharedRows; ++r) {
        const int kh = ih - r;
        if (kh < 0 || kh >= kTaps) continue;
        const vec<C> w = broadcast(weights[kh * kTaps + kw]);
        SC_UNROLL
        for (int j = 0; j < kVectors; ++j) sum[r][j] = fma(x[j], w, sum[r][j]);
      }
    }
  }
  SC_UNROLL
  for (int r = 0; r < kSharedRows; ++r) {
    SC_UNROLL
    for (int j = 0; j < kVectors; ++j) pin(sum[r][j]);
  }
  const vec<C> added = broadcast(finish.bias);
  if constexpr (kActivated) {
    SC_UNROLL
    for (int r = 0; r < kSharedRows; ++r) {
      SC_UNROLL
      for (int j = 0; j < kVectors; ++j) sum[r][j] += added;
    }
    activate<C>(finish.activation, sum);
  }
  SC_UNROLL
  for (int r = 0; r < kSharedRows; ++r) {
    if (r >= rows) break;
    SC_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      const int64_t left = columns - j * kL;
      const vec<C> value = kActivated ? sum[r][j] : sum[r][j] + added;
      if (left >= kL) {
        store(out + r * out_pitch + j * kL, value);
      } else if (left > 0) {
        store_n(out + r * out_pitch + j * kL, value, left);
      }
    }
  }
}

template <class C, int kTaps, bool kActivated>
void shared_strips(const C* plane, int64_t pitch, const C* weights, Finish<C> finish, int64_t rows, int64_t columns,
                  C* out, int64_t out_pitch) {
  constexpr int64_t kL = kLanes<C>;
  constexpr int kWidest = kVectorRegisters >= 32 ? 4 : 2;
  for (int64_t r = 0; r < rows; r += kSharedRows) {
    for (int64_t c = 0; c < columns; c += kWidest * kL) {
      const C* p = plane + r * pitch + c;
      C* to = out + r * out_pitch + c;
      const int64_t vectors = smaller(ceil_div(columns - c, kL), kWidest);
      if (vectors == 1) {
        shared_block<C, kTaps, 1, kActivated>(p, pitch, weights, finish, rows - r, columns - c, to, out_pitch);
      } else if (vectors == 2) {
        shared_block<C, kTaps, 2, kActivated>(p, pitch, weights, finish, rows - r, columns - c, to, out_pitch);
      } else if constexpr (kWidest == 4) {
        if (vectors == 3) {
          shared_block<C, kTaps, 3, kActivated>(p, pitch, weights, finish, rows - r, columns - c, to, out_pitch);
        } else {
          shared_block<C, kTaps, 4, kActivated>(p, pitch, weights, finish, rows - r, columns - c, to, out_pitch);
        }
      }
    }
  }
}

template <class C, int kTaps>
void shared_plane(const C* plane, int64_t pitch, const C* weights, Finish<C> finish, int64_t rows, int64_t columns,
                  C* out, int64_t out_pitch) {
  if (finish.activation == Activation::none) {
    shared_strips<C, kTaps, false>(plane, pitch, weights, finish, rows, columns, out, out_pitch);
  } else {
    shared_strips<C, kTaps, true>(plane, pitch, weights, finish, rows, columns, out, out_pitch);
  }
}

// The staged form of a plane: position (row, column) of the padded plane, counted in strides, lies at
// phase * phase_size + row * pitch + column, with one phase for every residue of both coordinates.
struct Staging {
  int64_t pitch, rows, phase_size;
};

template <class Compute>
Staging staging_of(int64_t out_rows, int64_t out_columns, int64_t row_halo, int64_t column_halo) {
  Staging s;
  s.pitch = out_columns + column_halo;
  s.rows = out_rows + row_halo + kSharedRows - 1;
  // Runs read whole vectors past the last position, and the padding keeps phases apart after a split.
  s.phase_size = round_up(s.rows * s.pitch + s.pitch + (kRunVectors + 2) * kLanes<Compute>, kLanes<Compute>);
  return s;
}

// Stages the rows that output rows first, first + 1, ... read: staged (row, column) is the plane's
// ((first + row) * sh + row_phase - top, column * sw + column_phase - left), zero outside.
template <class Storage>
void stage_plane(const Storage* plane, int64_t row_stride, int64_t ih, int64_t iw, int64_t sh, int64_t sw,
                 int64_t first, int64_t top, int64_t left, const Staging& staging, compute_t<Storage>* padded,
                 compute_t<Storage>* out) {
  using C = compute_t<Storage>;
  for (int64_t row_phase = 0; row_phase < sh; ++row_phase) {
    C* phases = out + row_phase * sw * staging.phase_size;
    for (int64_t r = 0; r < staging.rows; ++r) {
      const int64_t from = (first + r) * sh + row_phase - top;
      const Storage* source = from >= 0 && from < ih ? plane + from * row_stride : nullptr;
      C* to = phases + r * staging.pitch;
      if (sw == 1) {
        pad_row(source, iw, left, staging.pitch, C{0}, to);
      } else {
        pad_row(source, iw, left, staging.pitch * sw, C{0}, padded);
        split_row(padded, sw, staging.pitch, to, staging.phase_size);
      }
    }
  }
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

// Depthwise convolution of one nchw plane, for every geometry. The source plane is staged in the compute type,
// zero-padded and split by stride, so that each tap is one constant offset from the output position: the output grid is
// stored with the pitch of the staged plane, and one run over it computes many rows at once, however short they are.
#pragma once
#include "rows.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

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

// The staged form of a plane: position (row, column) of the padded plane, counted in strides, lies at
// phase * phase_size + row * pitch + column, with one phase for every residue of both coordinates.
struct Staging {
  int64_t pitch, rows, phase_size;
};

template <class Compute>
Staging staging_of(int64_t out_rows, int64_t out_columns, int64_t row_halo, int64_t column_halo) {
  Staging s;
  s.pitch = out_columns + column_halo;
  s.rows = out_rows + row_halo;
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

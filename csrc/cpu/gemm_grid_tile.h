// Register tiles that read staged planes where they lie, every tap at a constant offset.
#pragma once
#include <cstdint>
#include <utility>

#include "gemm_tile.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

// Filters by vectors of a tile: few filters, since narrow groups have no more.
constexpr int kGridRows = 4, kGridVectors = kVectorRegisters >= 32 ? 6 : 3;

// out[j][i * out_stride + lane], for lane < columns, = sum over k < depth of
// a[i * a_stride + k] * b[j][offsets[k] + lane], in the order of k, and finished where that is asked for. Vectors are
// read whole.
template <class Compute>
struct GridCall {
  int64_t depth;
  const Compute* a;
  int64_t a_stride;
  const Compute* b[kGridVectors];
  const int64_t* offsets;
  Compute* out[kGridVectors];
  int64_t out_stride, columns;
  const Finish<Compute>* finish;
};

template <class Compute, int rows, int vectors>
void grid_tile(const GridCall<Compute>& call) {
  const int64_t a_stride = call.a_stride, depth = call.depth;
  const int64_t* offsets = call.offsets;
  const Compute* a = call.a;
  const Compute* b[vectors];
  SC_UNROLL for (int j = 0; j < vectors; ++j) {
    b[j] = call.b[j];
    prefetch_rows<Compute, rows, 1>(call.out[j], call.out_stride);
  }
  vec<Compute> sum[rows][vectors];
  SC_UNROLL for (int i = 0; i < rows; ++i) {
    SC_UNROLL for (int j = 0; j < vectors; ++j) sum[i][j] = zero<Compute>();
  }
  for (int64_t k = 0; k < depth; ++k, ++a) {
    const int64_t offset = offsets[k];
    vec<Compute> right[vectors];
    SC_UNROLL for (int j = 0; j < vectors; ++j) right[j] = load(b[j] + offset);
    SC_UNROLL for (int i = 0; i < rows; ++i) {
      const vec<Compute> left = broadcast(a[i * a_stride]);
      SC_UNROLL for (int j = 0; j < vectors; ++j) sum[i][j] = fma(left, right[j], sum[i][j]);
    }
  }
  if (call.finish != nullptr) finish_tile(*call.finish, sum);
  if (call.columns == kLanes<Compute>) {
    SC_UNROLL for (int i = 0; i < rows; ++i) {
      SC_UNROLL for (int j = 0; j < vectors; ++j) store(call.out[j] + i * call.out_stride, sum[i][j]);
    }
    return;
  }
  SC_UNROLL for (int i = 0; i < rows; ++i) {
    SC_UNROLL for (int j = 0; j < vectors; ++j) store_n(call.out[j] + i * call.out_stride, sum[i][j], call.columns);
  }
}

template <class Compute, int rows, int... index>
void grid_tile_of_rows(int64_t vectors, const GridCall<Compute>& call, std::integer_sequence<int, index...>) {
  static constexpr void (*tiles[])(const GridCall<Compute>&) = {grid_tile<Compute, rows, index + 1>...};
  tiles[vectors - 1](call);
}
template <class Compute>
void grid_tile_of(int64_t rows, int64_t vectors, const GridCall<Compute>& call) {
  static_assert(kGridRows == 4, "one case each");
  constexpr auto all = std::make_integer_sequence<int, kGridVectors>{};
  switch (rows) {
    case 1: return grid_tile_of_rows<Compute, 1>(vectors, call, all);
    case 2: return grid_tile_of_rows<Compute, 2>(vectors, call, all);
    case 3: return grid_tile_of_rows<Compute, 3>(vectors, call, all);
    default: return grid_tile_of_rows<Compute, 4>(vectors, call, all);
  }
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

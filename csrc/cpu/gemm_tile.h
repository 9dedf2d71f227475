// The one inner loop of the gemm kernel: a register tile of rows x vectors.
#pragma once
#include <cstdint>

#include "activation.h"
#include "simd.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

constexpr int kTileRows = kVectorBytes == 64 ? 14 : kVectorBytes == 32 ? 6 : 4;
constexpr int kTileVectors = 2;
template <class Compute>
constexpr int kTileColumns = kTileVectors * kLanes<Compute>;

// What is done to finished sums: a bias is added (null: none), of rows or of columns, then comes the activation.
template <class Compute>
struct Finish {
  const Compute* bias;
  bool of_rows;
  Activation activation;

  bool needed() const { return bias != nullptr || activation != Activation::none; }
};

// out[i][j] (+)= sum over k < depth of a[i * a_stride + k] * b[k * b_stride + j], every sum in the order of k, and
// finished where that is asked for; then as much again for each further tile, whose operands lie `*_next` further.
template <class Compute>
struct TileCall {
  int64_t depth;
  const Compute* a;
  int64_t a_stride;
  const Compute* b;
  int64_t b_stride;
  Compute* out;
  int64_t out_stride;
  bool accumulate;
  const Finish<Compute>* finish = nullptr;
  int64_t tiles = 1, a_next = 0, b_next = 0, out_next = 0;
  // Whether lines of what the next tile reads as `a` are fetched meanwhile, and how much further what is fetched of
  // `out` lies (0: what this tile writes): a processor follows few streams by itself, and every row is one.
  bool fetch_a = false;
  int64_t out_ahead = 0;
  // Rows of `depth` elements that are read next: every tile fetches so many of them, line by line as it goes.
  const Compute* fetch = nullptr;
  int64_t fetch_rows = 0, fetch_stride = 0;
};

template <class Compute>
constexpr int64_t kLineElements = 64 / int64_t(sizeof(Compute));

template <class Compute, int rows, int vectors>
SC_INLINE void finish_tile(const Finish<Compute>& finish, vec<Compute> (&sum)[rows][vectors]) {
  if (finish.bias != nullptr && finish.of_rows) {
    SC_UNROLL for (int i = 0; i < rows; ++i) {
      SC_UNROLL for (int j = 0; j < vectors; ++j) sum[i][j] += broadcast(finish.bias[i]);
    }
  } else if (finish.bias != nullptr) {
    SC_UNROLL for (int j = 0; j < vectors; ++j) {
      const vec<Compute> added = load(finish.bias + j * kLanes<Compute>);
      SC_UNROLL for (int i = 0; i < rows; ++i) sum[i][j] += added;
    }
  }
  activate<Compute>(finish.activation, sum);
}

// Asks for memory that will be written, so that it comes while sums are made.
template <class Compute, int rows, int vectors>
SC_INLINE void prefetch_rows(const Compute* out, int64_t stride) {
  SC_UNROLL for (int i = 0; i < rows; ++i) {
    __builtin_prefetch(out + i * stride, 1);
    __builtin_prefetch(out + i * stride + vectors * kLanes<Compute> - 1, 1);
  }
}

template <class Compute, int rows, int vectors>
void tile(const TileCall<Compute>& call) {
  constexpr int lanes = kLanes<Compute>;
  constexpr int64_t line = kLineElements<Compute>;
  const int64_t depth = call.depth, a_stride = call.a_stride, b_stride = call.b_stride, out_stride = call.out_stride;
  const int64_t a_next = call.a_next, b_next = call.b_next, out_next = call.out_next;
  const int64_t fetch_rows = call.fetch_rows, fetch_stride = call.fetch_stride;
  const int64_t out_ahead = call.out_ahead, fetch_a = call.fetch_a ? a_next : 0;
  const Compute *a_first = call.a, *b_first = call.b, *fetch = call.fetch;
  const bool accumulate = call.accumulate;
  const Finish<Compute>* finish = call.finish;
  Compute* out = call.out;
  for (int64_t tile = 0; tile < call.tiles; ++tile, a_first += a_next, b_first += b_next, out += out_next) {
    vec<Compute> sum[rows][vectors];
    SC_UNROLL for (int i = 0; i < rows; ++i) {
      SC_UNROLL for (int j = 0; j < vectors; ++j) sum[i][j] = zero<Compute>();
    }
    if (accumulate) {
      SC_UNROLL for (int i = 0; i < rows; ++i) {
        SC_UNROLL for (int j = 0; j < vectors; ++j) sum[i][j] = load(out + i * out_stride + j * lanes);
      }
    }
    prefetch_rows<Compute, rows, vectors>(out + out_ahead, out_stride);
    const Compute *a = a_first, *b = b_first;
    for (int64_t k = 0; k < depth;) {
      for (int64_t i = 0; i < fetch_rows; ++i) __builtin_prefetch(fetch + i * fetch_stride + k, 0, 2);
      if (fetch_a != 0) {
        SC_UNROLL for (int i = 0; i < rows; ++i) __builtin_prefetch(a + fetch_a + i * a_stride, 0, 3);
      }
      for (const int64_t end = smaller(k + line, depth); k < end; ++k) {
        vec<Compute> right[vectors];
        SC_UNROLL for (int j = 0; j < vectors; ++j) right[j] = load(b + j * lanes);
        SC_UNROLL for (int i = 0; i < rows; ++i) {
          const vec<Compute> left = broadcast(a[i * a_stride]);
          SC_UNROLL for (int j = 0; j < vectors; ++j) sum[i][j] = fma(left, right[j], sum[i][j]);
        }
        ++a;
        b += b_stride;
      }
    }
    fetch += fetch_rows * fetch_stride;
    if (finish != nullptr) finish_tile(*finish, sum);
    SC_UNROLL for (int i = 0; i < rows; ++i) {
      SC_UNROLL for (int j = 0; j < vectors; ++j) store(out + i * out_stride + j * lanes, sum[i][j]);
    }
  }
}

template <class Compute, int vectors>
void tile_of_rows(int64_t rows, const TileCall<Compute>& call) {
  switch (rows) {
    case 1: return tile<Compute, 1, vectors>(call);
    case 2: return tile<Compute, 2, vectors>(call);
    case 3: return tile<Compute, 3, vectors>(call);
    case 4: return tile<Compute, 4, vectors>(call);
#if SC_VECTOR_BYTES >= 32
    case 5: return tile<Compute, 5, vectors>(call);
    case 6: return tile<Compute, 6, vectors>(call);
#endif
#if SC_VECTOR_BYTES >= 64
    case 7: return tile<Compute, 7, vectors>(call);
    case 8: return tile<Compute, 8, vectors>(call);
    case 9: return tile<Compute, 9, vectors>(call);
    case 10: return tile<Compute, 10, vectors>(call);
    case 11: return tile<Compute, 11, vectors>(call);
    case 12: return tile<Compute, 12, vectors>(call);
    case 13: return tile<Compute, 13, vectors>(call);
    default: return tile<Compute, 14, vectors>(call);
#else
    default: return;
#endif
  }
}

// At most kTileRows rows and kTileColumns columns; columns are rounded up to whole vectors, in `b` and in `out`.
template <class Compute>
void multiply_tile(int64_t rows, int64_t columns, const TileCall<Compute>& call) {
  if (columns > kLanes<Compute>) return tile_of_rows<Compute, 2>(rows, call);
  tile_of_rows<Compute, 1>(rows, call);
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

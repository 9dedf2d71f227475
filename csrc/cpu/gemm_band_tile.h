// Register tiles that read source pixels where they lie, a run of taps and channels at a time.
#pragma once
#include <cstdint>
#include <utility>

#include "gemm_geometry.h"
#include "gemm_tile.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

// Pixels of a tile. With one vector of channels there are registers for more than the usual rows, and eight sums hide
// the latency of an FMA.
template <int vectors>
constexpr int kBandTile = vectors == 1 && kTileRows < 8 ? 8 : kTileRows;

// out[i][j] = sum over segments s and k < run of a[i * a_stride + offsets[s] + k] * b[s * run + k][j], in this order,
// and finished where that is asked for.
template <class Compute>
struct BandCall {
  const Compute* a;
  int64_t a_stride;
  const int64_t* offsets;
  int64_t segments, run;
  const Compute* b;
  Compute* out;
  int64_t out_stride;
  const Finish<Compute>* finish = nullptr;
};

template <class Compute, int rows, int vectors>
void band_tile(const BandCall<Compute>& call) {
  constexpr int lanes = kLanes<Compute>;
  const int64_t a_stride = call.a_stride, run = call.run;
  const Compute* b = call.b;
  prefetch_rows<Compute, rows, vectors>(call.out, call.out_stride);
  vec<Compute> sum[rows][vectors];
  SC_UNROLL for (int i = 0; i < rows; ++i) {
    SC_UNROLL for (int j = 0; j < vectors; ++j) sum[i][j] = zero<Compute>();
    __builtin_prefetch(call.out + i * call.out_stride, 1);  // far apart, and written only when all is summed
  }
  for (int64_t s = 0; s < call.segments; ++s) {
    const Compute* a = call.a + call.offsets[s];
    for (int64_t k = 0; k < run; ++k, ++a, b += kTileColumns<Compute>) {
      vec<Compute> right[vectors];
      SC_UNROLL for (int j = 0; j < vectors; ++j) right[j] = load(b + j * lanes);
      SC_UNROLL for (int i = 0; i < rows; ++i) {
        const vec<Compute> left = broadcast(a[i * a_stride]);
        SC_UNROLL for (int j = 0; j < vectors; ++j) sum[i][j] = fma(left, right[j], sum[i][j]);
      }
    }
  }
  if (call.finish != nullptr) finish_tile(*call.finish, sum);
  SC_UNROLL for (int i = 0; i < rows; ++i) {
    SC_UNROLL for (int j = 0; j < vectors; ++j) store(call.out + i * call.out_stride + j * lanes, sum[i][j]);
  }
}

template <class Compute, int vectors, int... index>
void band_tile_of(int64_t rows, const BandCall<Compute>& call, std::integer_sequence<int, index...>) {
  static constexpr void (*tiles[])(const BandCall<Compute>&) = {band_tile<Compute, index + 1, vectors>...};
  tiles[rows - 1](call);
}
template <class Compute, int vectors>
void band_tile_of_rows(int64_t rows, const BandCall<Compute>& call) {
  band_tile_of<Compute, vectors>(rows, call, std::make_integer_sequence<int, kBandTile<vectors>>{});
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

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
  vec<Compute> sum[rows][vectors];
  SC_UNROLL for (int i = 0; i < rows; ++i) {
    SC_UNROLL for (int j = 0; j < vectors; ++j) sum[i][j] = zero<Compute>();
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

template <int channel>
constexpr int quad_lane(int lane, int) {
  return lane / 4 * 4 + channel;
}

// Groups of four channels to four: a vector holds several groups, and each of a pixel's four values is spread over the
// four lanes of its group. b is [s][channel][kLanes], the sums and their order are those of band_tile.
template <class Compute, int rows>
void quad_tile(const BandCall<Compute>& call) {
  using V = vec<Compute>;
  const int64_t a_stride = call.a_stride;
  const Compute* b = call.b;
  V sum[rows][1];
  SC_UNROLL for (int i = 0; i < rows; ++i) sum[i][0] = zero<Compute>();
  for (int64_t s = 0; s < call.segments; ++s) {
    const Compute* a = call.a + call.offsets[s];
    V right[4];
    SC_UNROLL for (int k = 0; k < 4; ++k, b += kLanes<Compute>) right[k] = load(b);
    SC_UNROLL for (int i = 0; i < rows; ++i) {
      const V left = load(a + i * a_stride);
      sum[i][0] = fma(shuffle<quad_lane<0>, Compute>(left, left), right[0], sum[i][0]);
      sum[i][0] = fma(shuffle<quad_lane<1>, Compute>(left, left), right[1], sum[i][0]);
      sum[i][0] = fma(shuffle<quad_lane<2>, Compute>(left, left), right[2], sum[i][0]);
      sum[i][0] = fma(shuffle<quad_lane<3>, Compute>(left, left), right[3], sum[i][0]);
    }
  }
  if (call.finish != nullptr) finish_tile(*call.finish, sum);
  SC_UNROLL for (int i = 0; i < rows; ++i) store(call.out + i * call.out_stride, sum[i][0]);
}

template <class Compute, int... index>
void quad_tile_of_rows(int64_t rows, const BandCall<Compute>& call, std::integer_sequence<int, index...>) {
  static constexpr void (*tiles[])(const BandCall<Compute>&) = {quad_tile<Compute, index + 1>...};
  tiles[rows - 1](call);
}

template <class Compute>
bool suits_quads(const Correlation& c) {
  constexpr int64_t lanes = kLanes<Compute>;
  return c.groups > 1 && lanes % 4 == 0 && c.source_channels == 4 && c.dest_channels == 4 && c.groups * 4 % lanes == 0;
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

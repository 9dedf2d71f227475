// The two small kernels around the products: weights into the order the copy engine reads, and partial sums into
// results.
#pragma once
#include "../common/geometry.h"
#include "kernel.h"
#include "number.h"

namespace spatialconv {
namespace cuda {
namespace wgmma_conv {

constexpr int kPassThreads = 256;

// Weights of any strides as [oc][tap][ic of a group], 8 channels a thread. Neighbouring threads read the same cache
// lines at different taps; the weights are read once and written once.
struct WeightOrder {
  int64_t pieces;  // of 8 channels
  int32_t taps, kw, channels;
  int64_t stride[4];
};

template <class T>
__global__ void __launch_bounds__(kPassThreads) order_weights(WeightOrder o, const T* weights, T* ordered) {
  const int64_t piece = static_cast<int64_t>(blockIdx.x) * kPassThreads + threadIdx.x;
  if (piece >= o.pieces) return;
  const int32_t pieces_of_tap = o.channels / 8;
  const int32_t channel = static_cast<int32_t>(piece % pieces_of_tap) * 8;
  const int32_t tap = static_cast<int32_t>(piece / pieces_of_tap % o.taps);
  const int64_t oc = piece / pieces_of_tap / o.taps;
  const int64_t tap_offset = tap / o.kw * o.stride[2] + tap % o.kw * o.stride[3];
  const T* from = weights + oc * o.stride[0] + channel * o.stride[1] + tap_offset;
  alignas(16) T values[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] = from[i * o.stride[1]];
  *reinterpret_cast<uint4*>(ordered + piece * 8) = *reinterpret_cast<const uint4*>(values);
}

// result = the partial sums added in order, plus the bias of each channel where there is one. Partial sums are dense
// [row][tap][channel]; element (row, tap, channel) of the result has strides of its own.
struct PartialSum {
  int64_t count, partial_count;  // elements of the result, and from one share to the next
  int32_t splits, taps, kw, channels;
  int64_t stride[4];  // of row, channel, tap row, tap column
  bool dense;         // whether the result is stored as the partial sums are
};

constexpr int kSumPiece = 4;

template <class T>
__global__ void __launch_bounds__(kPassThreads)
    add_partial(PartialSum p, const float* partial, const T* bias, T* result) {
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kPassThreads + threadIdx.x) * kSumPiece;
  if (first >= p.count) return;
  float4 sum = *reinterpret_cast<const float4*>(partial + first);
  for (int32_t split = 1; split < p.splits; ++split) {
    const float4 more = *reinterpret_cast<const float4*>(partial + split * p.partial_count + first);
    sum = make_float4(sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w);
  }
  const float values[kSumPiece] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
  for (int i = 0; i < kSumPiece; ++i) {
    const int64_t index = first + i;
    if (index >= p.count) return;
    const int64_t channel = index % p.channels;
    const float value = bias == nullptr ? values[i] : values[i] + to_compute(bias[channel]);
    int64_t offset = index;
    if (!p.dense) {
      const int64_t tap = index / p.channels % p.taps, row = index / p.channels / p.taps;
      offset = row * p.stride[0] + channel * p.stride[1] + tap / p.kw * p.stride[2] + tap % p.kw * p.stride[3];
    }
    result[offset] = from_compute<T>(value);
  }
}

}  // namespace wgmma_conv
}  // namespace cuda
}  // namespace spatialconv

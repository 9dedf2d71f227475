// Partial sums into results: where the terms of a sum were shared out among blocks, this kernel adds the shares in
// order, so that every run gives the same bits.
#pragma once
#include "../common/geometry.h"
#include "divisor.h"
#include "kernel.h"
#include "number.h"

namespace spatialconv {
namespace cuda {
namespace mma_conv {

// Partial sums are dense [share][i][j][k][channel]. The result has strides of its own in each of them; of j and channel
// it has the first `result_j` and `result_channels`. The bias has a value for each (k, channel).
struct ShareSum {
  int32_t shares, i, j, k, channels, result_j, result_channels;
  int64_t stride_i, stride_j, stride_k, stride_channel;

  __host__ __device__ int64_t count_of_i() const { return static_cast<int64_t>(j) * k * channels; }
  __host__ __device__ int64_t count() const { return i * count_of_i(); }
};

constexpr int kSumThreads = 256;

// Blocks: x = (i, piece of it).
template <class T>
__global__ void __launch_bounds__(kSumThreads)
    add_shares(ShareSum s, Divisor by_channels, Divisor by_k, int32_t pieces, const float* partial, const T* bias,
               T* result) {
  const int32_t i = static_cast<int32_t>(blockIdx.x) / pieces;
  const int32_t piece = static_cast<int32_t>(blockIdx.x) - i * pieces;
  const int32_t inside = piece * kSumThreads + static_cast<int32_t>(threadIdx.x);
  if (inside >= s.count_of_i()) return;
  const int32_t line = by_channels.quotient(inside), j = by_k.quotient(line);
  const int32_t channel = inside - line * s.channels, k = line - j * s.k;
  if (channel >= s.result_channels || j >= s.result_j) return;
  const float* own = partial + i * s.count_of_i() + inside;
  float sum = *own;
#pragma unroll 4
  for (int32_t share = 1; share < s.shares; ++share) sum += own[share * s.count()];
  if (bias != nullptr) sum += to_compute(bias[static_cast<int64_t>(k) * s.result_channels + channel]);
  result[i * s.stride_i + j * s.stride_j + k * s.stride_k + channel * s.stride_channel] = from_compute<T>(sum);
}

// The sums of one i must be fewer than 2^30.
template <class T>
int32_t launch_add_shares(const ShareSum& s, const float* partial, const T* bias, T* result, Stream stream) {
  const int64_t pieces = ceil_div(s.count_of_i(), kSumThreads);
  const dim3 grid(static_cast<unsigned>(s.i * pieces));
  return launch(add_shares<T>, grid, dim3(kSumThreads), 0, stream, s, Divisor(s.channels), Divisor(s.k),
                static_cast<int32_t>(pieces), partial, bias, result);
}

}  // namespace mma_conv
}  // namespace cuda
}  // namespace spatialconv

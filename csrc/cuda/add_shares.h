// The end of a sum that several blocks share: their partial sums are added in order, so that every run gives the same
// bits.
#pragma once
#include "../common/geometry.h"
#include "number.h"

namespace spatialconv {
namespace cuda {

template <class Storage>
__global__ void __launch_bounds__(256) add_shares_kernel(const compute_t<Storage>* partial, int64_t count,
                                                         int32_t shares, Storage* result) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    compute_t<Storage> sum = 0;
    for (int32_t share = 0; share < shares; ++share) sum += partial[share * count + i];
    result[i] = from_compute<Storage>(sum);
  }
}

// Adds `shares` results of `count` values each, one after the other.
template <class Storage>
int32_t add_shares(const compute_t<Storage>* partial, int64_t count, int32_t shares, Storage* result, Stream stream) {
  constexpr int64_t kThreads = 256, kMostBlocks = 4096;
  const int64_t blocks = smaller(ceil_div(count, kThreads), kMostBlocks);
  return launch(add_shares_kernel<Storage>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, partial,
                count, shares, result);
}

}  // namespace cuda
}  // namespace spatialconv

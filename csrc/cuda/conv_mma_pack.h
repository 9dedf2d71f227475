// Operands in the order the mma kernels load, when the caller's are not: a batched transposition through shared memory
// that fills each run of channels up to whole 16-byte chunks with zeros. It reads and writes the operand once.
#pragma once
#include "../common/geometry.h"
#include "conv_mma_tile.h"
#include "kernel.h"

namespace spatialconv {
namespace cuda {
namespace mma_conv {

// to[i][j][row][channel] = from[i][j][row][channel], strides in elements; `to` is contiguous along `padded` channels,
// of which `from` has the first `channels`.
struct Pack {
  int64_t outer, inner, rows;
  int32_t channels, padded;
  int64_t from_outer, from_inner, from_row, from_channel;
  int64_t to_outer, to_inner, to_row;
};

constexpr int kPackRows = 64, kPackChannels = 64;
constexpr int kPackThreads = 256;
template <class T>
constexpr int kPackPitch = kPackChannels + 4 / sizeof(T);  // an odd number of words: columns are free of conflicts

inline int64_t pack_blocks(const Pack& p) {
  return p.outer * p.inner * ceil_div(p.rows, kPackRows) * ceil_div(p.padded, kPackChannels);
}

template <class T>
__global__ void __launch_bounds__(kPackThreads) pack(Pack p, const T* from, T* to) {
  SHARED_MEMORY(raw);
  constexpr int kPitch = kPackPitch<T>;
  T* tile = reinterpret_cast<T*>(raw);
  const int64_t channel_tiles = (p.padded + kPackChannels - 1) / kPackChannels;
  const int64_t row_tiles = (p.rows + kPackRows - 1) / kPackRows;
  int64_t index = blockIdx.x;
  const int32_t channel = static_cast<int32_t>(index % channel_tiles) * kPackChannels;
  index /= channel_tiles;
  const int64_t row = index % row_tiles * kPackRows;
  index /= row_tiles;
  const int64_t i = index / p.inner, j = index % p.inner;
  const int rows = static_cast<int>(p.rows - row < kPackRows ? p.rows - row : kPackRows);
  const int wanted = p.padded - channel < kPackChannels ? p.padded - channel : kPackChannels;
  const int there = p.channels - channel;

  const T* source = from + i * p.from_outer + j * p.from_inner + row * p.from_row + channel * p.from_channel;
  const bool along_channels = p.from_channel == 1;
  static_assert(kPackRows == kPackChannels, "neighbouring threads walk along either");
  const int lines = along_channels ? rows : wanted;
#pragma unroll 4
  for (int element = threadIdx.x; element < lines * kPackRows; element += kPackThreads) {
    const int slow = element / kPackRows, fast = element % kPackRows;
    const int r = along_channels ? slow : fast, c = along_channels ? fast : slow;
    T value{};
    if (r < rows && c < there) value = source[r * p.from_row + c * p.from_channel];
    tile[r * kPitch + c] = value;
  }
  __syncthreads();

  T* target = to + i * p.to_outer + j * p.to_inner + row * p.to_row + channel;
  const int chunks = wanted / kVector<T>;
  for (int chunk = threadIdx.x; chunk < rows * chunks; chunk += kPackThreads) {
    const int r = chunk / chunks, c = chunk % chunks * kVector<T>;
    alignas(kChunkBytes) T values[kVector<T>];
#pragma unroll
    for (int v = 0; v < kVector<T>; ++v) values[v] = tile[r * kPitch + c + v];
    *reinterpret_cast<uint4*>(target + r * p.to_row + c) = *reinterpret_cast<const uint4*>(values);
  }
}

template <class T>
int32_t launch_pack(const Pack& p, const void* from, void* to, Stream stream) {
  constexpr size_t kShared = kPackRows * kPackPitch<T> * sizeof(T);
  return launch(pack<T>, dim3(static_cast<unsigned>(pack_blocks(p))), dim3(kPackThreads), kShared, stream, p,
                static_cast<const T*>(from), static_cast<T*>(to));
}

}  // namespace mma_conv
}  // namespace cuda
}  // namespace spatialconv

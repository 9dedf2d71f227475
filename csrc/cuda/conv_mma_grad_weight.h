// grad_weight as implicit GEMM: rows are output channels, columns (tap, input channel), flattened, and the sum runs
// over the pixels of grad_output. Both operands lie along their channels and are transposed on the way into registers.
// The pixels are cut into shares, one a block, whose float32 partial sums a second kernel adds in order: no atomics,
// the same bits at every run. (Split-K: NVIDIA, CUTLASS; the GEMM view: Chetlur et al., "cuDNN", 2014.)
#pragma once
#include "conv_mma_tile.h"
#include "divisor.h"

namespace spatialconv {
namespace cuda {
namespace mma_conv {

// Sizes in elements. Both images are dense with their channels last, padded in each group to a multiple of kVector;
// `x_channels` and `y_channels` count a group's with that padding.
struct GradWeight {
  int32_t ih, iw, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw;
  int32_t pixels, groups, x_channels, y_channels;
  int32_t column_tiles, shares;
  int64_t share_stride;  // of the partial sums
  Divisor by_ow, by_oh;
};

template <class T, int kSide>
struct GradWeightTile {
  using Operand = RowMajor<T, kSide>;
  static constexpr int kSharedBytes = kStages * 2 * Operand::kBytes;
};

// Partial sums are [share][group][output channel, padded][tap][input channel, padded].
// Blocks: x = (row tile, column tile); y = share; z = group.
template <class T, int kSide, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks)
    grad_weight(GradWeight g, const T* x, const T* y, float* partial) {
  using Operand = typename GradWeightTile<T, kSide>::Operand;
  constexpr int kLinesApart = kThreads / Operand::kChunks, kLines = Operand::kLines / kLinesApart;
  constexpr int kBytesApart = kLinesApart * Operand::kLineBytes;
  static_assert(kLinesApart % Operand::kPeriod == 0, "a thread's lines are permuted alike");
  SHARED_MEMORY(shared);

  const int32_t first_row = static_cast<int32_t>(blockIdx.x) / g.column_tiles * kSide;
  const int32_t first_column = static_cast<int32_t>(blockIdx.x) % g.column_tiles * kSide;
  const int32_t columns = g.kh * g.kw * g.x_channels;
  const int64_t all_steps = (g.pixels + kDepth<T> - 1) / kDepth<T>;
  const int32_t begin = static_cast<int32_t>(all_steps * blockIdx.y / g.shares) * kDepth<T>;
  const int32_t steps = static_cast<int32_t>(all_steps * (blockIdx.y + 1) / g.shares) - begin / kDepth<T>;

  // This thread's chunk of each line: output channels of y, and a run of input channels of x at one tap.
  const int line = threadIdx.x / Operand::kChunks, chunk = threadIdx.x % Operand::kChunks;
  const int32_t row = first_row + chunk * kVector<T>, column = first_column + chunk * kVector<T>;
  const int32_t y_pitch = g.groups * g.y_channels, x_pitch = g.groups * g.x_channels;
  const int32_t tap = column / g.x_channels;
  const int32_t move_h = tap / g.kw * g.dh - g.ph, move_w = tap % g.kw * g.dw - g.pw;
  const T* const y_chunk = y + static_cast<int64_t>(blockIdx.z) * g.y_channels + row;
  const T* const x_chunk = x + static_cast<int64_t>(blockIdx.z) * g.x_channels + column % g.x_channels;
  const bool row_exists = row < g.y_channels, column_exists = column < columns;

  const int place = Operand::place(line, chunk);
  const auto load = [&](int32_t step, unsigned char* stage) {
#pragma unroll
    for (int i = 0; i < kLines; ++i) {
      const int32_t pixel = begin + step * kDepth<T> + line + i * kLinesApart;
      const int32_t pixel_row = g.by_ow.quotient(pixel), image = g.by_oh.quotient(pixel_row);
      const int32_t h = (pixel_row - image * g.oh) * g.sh + move_h, w = (pixel - pixel_row * g.ow) * g.sw + move_w;
      const bool y_valid = row_exists && pixel < g.pixels;
      const bool inside = static_cast<uint32_t>(h) < static_cast<uint32_t>(g.ih) &&
                          static_cast<uint32_t>(w) < static_cast<uint32_t>(g.iw);
      const bool x_valid = column_exists && pixel < g.pixels && inside;
      unsigned char* to = stage + place + i * kBytesApart;
      copy_async(to, y_valid ? y_chunk + int64_t{pixel} * y_pitch : y, y_valid);
      const T* x_from = x_valid ? x_chunk + int64_t{(image * g.ih + h) * g.iw + w} * x_pitch : x;
      copy_async(to + Operand::kBytes, x_from, x_valid);
    }
  };

  WarpTile<kSide, kSide> sums;
  sums.clear();
  run_pipeline<T, Operand, Operand>(sums, shared, steps, load);

  float* own = partial + blockIdx.y * g.share_stride + static_cast<int64_t>(blockIdx.z) * g.y_channels * columns;
  sums.for_each_pair([&](int down, int across, float first, float second) {
    const int32_t to_row = first_row + down, to_column = first_column + across;
    if (to_row >= g.y_channels || to_column >= columns) return;
    *reinterpret_cast<float2*>(own + static_cast<int64_t>(to_row) * columns + to_column) = make_float2(first, second);
  });
}

}  // namespace mma_conv
}  // namespace cuda
}  // namespace spatialconv

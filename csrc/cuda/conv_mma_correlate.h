// Forward and grad_input as implicit GEMM: rows are result pixels, columns result channels, and the sum runs over (tap,
// source channel), flattened, so that few channels waste nothing. A row's source pixel is worked out once; a step moves
// all rows by the same tap. grad_input falls into one phase for each residue of the pixel modulo the stride, in each of
// which a regular list of taps is met: a phase is a correlation of its own, and all are one launch. Where tiles are too
// few for the multiprocessors, the sum is cut into shares, one a block, whose float32 partial sums are added by a
// second kernel in order. (Implicit GEMM: Chetlur et al., "cuDNN", 2014; phases: the polyphase form of a transposed
// convolution.)
#pragma once
#include "conv_mma_tile.h"

namespace spatialconv {
namespace cuda {
namespace mma_conv {

// One axis of the convolution. Taps t and t + tap_period are met by the same phases of grad_input; the period is
// stride / gcd(stride, dilation).
struct Axis {
  int32_t in, out, kernel, stride, padding, dilation, tap_period;
};

// Result pixel first + i * spacing, for i < count, reads source pixel i * stride + offset + t * step with tap
// first_tap + t * tap_step, for t < taps.
struct PhaseAxis {
  int32_t first, spacing, count;
  int32_t stride, offset, step;
  int32_t first_tap, tap_step, taps;
};

__device__ __forceinline__ PhaseAxis forward_axis(const Axis& a) {
  return {0, 1, a.out, a.stride, -a.padding, a.dilation, 0, 1, a.kernel};
}

__device__ __forceinline__ PhaseAxis grad_input_axis(const Axis& a, int32_t residue) {
  const int32_t count = residue < a.in ? (a.in - 1 - residue) / a.stride + 1 : 0;
  PhaseAxis phase{residue, a.stride, count, 1, 0, 0, 0, a.tap_period, 0};
  const int32_t candidates = a.kernel < a.tap_period ? a.kernel : a.tap_period;
  int32_t tap = 0;
  while (tap < candidates && (residue + a.padding - tap * a.dilation) % a.stride != 0) ++tap;
  if (tap == candidates) return phase;
  phase.first_tap = tap;
  phase.taps = (a.kernel - 1 - tap) / a.tap_period + 1;
  phase.offset = (residue + a.padding - tap * a.dilation) / a.stride;
  phase.step = -(a.tap_period * a.dilation / a.stride);
  return phase;
}

// Sizes in elements. The source is dense with its channels last, `source_channels` of each group, a multiple of
// kVector; weights are dense [group][result channel][tap][source channel].
struct Correlation {
  bool grad_input;
  Axis h, w;
  int32_t images, groups, source_channels, result_channels;  // channels of one group
  int32_t column_tiles, shares;
  int64_t result_stride[4];  // of the partial sums, where there are shares
  int64_t share_stride;
  bool whole_chunks;  // whether results lie along channels in aligned chunks
};

template <class T, int kRows, int kColumns>
struct CorrelationTile {
  using Left = SumMajor<T, kRows>;
  using Right = SumMajor<T, kColumns>;
  static constexpr int kPipelineBytes = kStages * (Left::kBytes + Right::kBytes);
  static constexpr int kPitch = kColumns + kVector<T>;  // of the results on their way out
  static constexpr int kResultBytes = kRows * kPitch * sizeof(T);
  static constexpr int kSharedBytes =
      (kPipelineBytes > kResultBytes ? kPipelineBytes : kResultBytes) + kRows * sizeof(int64_t);
};

// Where in the sum a thread's chunk of the coming step lies.
struct SumPosition {
  int32_t tap_h, tap_w, channel;

  __device__ __forceinline__ SumPosition(int32_t term, int32_t channels, int32_t taps_w)
      : tap_h(term / channels / taps_w), tap_w(term / channels % taps_w), channel(term % channels) {}

  __device__ __forceinline__ void advance(int32_t by, int32_t channels, int32_t taps_w) {
    channel += by;
    while (channel >= channels) {
      channel -= channels;
      if (++tap_w < taps_w) continue;
      tap_w = 0;
      ++tap_h;
    }
  }
};

// Where the rows of a tile begin in the result.
__device__ __forceinline__ void find_places(const Correlation& c, const PhaseAxis& h, const PhaseAxis& w,
                                            int32_t pixels, int32_t first_pixel, int rows, int64_t* places) {
  for (int row = threadIdx.x; row < rows; row += kThreads) {
    const int32_t pixel = first_pixel + row;
    if (pixel >= pixels) continue;
    const int32_t line = pixel / w.count, x = w.first + pixel % w.count * w.spacing;
    const int32_t y = h.first + line % h.count * h.spacing;
    places[row] = line / h.count * c.result_stride[0] + y * c.result_stride[2] + x * c.result_stride[3];
  }
}

// A block writes its tile of `rows` x `columns` through shared memory, so that neighbouring threads store neighbouring
// bytes.
template <class T, int kRows, int kColumns>
__device__ __forceinline__ void store_tile(const Correlation& c, const WarpTile<kRows, kColumns>& sums,
                                           const int64_t* places, int rows, int columns, T* result,
                                           unsigned char* shared) {
  using Tile = CorrelationTile<T, kRows, kColumns>;
  T* tile = reinterpret_cast<T*>(shared);
  sums.for_each_pair([&](int row, int column, float first, float second) {
    tile[row * Tile::kPitch + column] = from_compute<T>(first);
    tile[row * Tile::kPitch + column + 1] = from_compute<T>(second);
  });
  __syncthreads();
  if (c.whole_chunks) {
    constexpr int kChunks = kColumns / kVector<T>;
    for (int i = threadIdx.x; i < rows * kChunks; i += kThreads) {
      const int row = i / kChunks, column = i % kChunks * kVector<T>;
      if (column >= columns) continue;
      *reinterpret_cast<uint4*>(result + places[row] + column) =
          *reinterpret_cast<const uint4*>(tile + row * Tile::kPitch + column);
    }
    return;
  }
  const bool along_channels = c.result_stride[1] == 1;
  for (int i = threadIdx.x; i < kRows * kColumns; i += kThreads) {
    const int row = along_channels ? i / kColumns : i % kRows, column = along_channels ? i % kColumns : i / kRows;
    if (row >= rows || column >= columns) continue;
    result[places[row] + column * c.result_stride[1]] = tile[row * Tile::kPitch + column];
  }
}

// Blocks: x = (pixel tile, column tile), the latter fastest so that blocks at work together share source pixels;
// y = (phase, share); z = group.
template <class T, int kRows, int kColumns, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks)
    correlate(Correlation c, const T* source, const T* weights, const T* bias, T* result,
              float* partial) {
  using Tile = CorrelationTile<T, kRows, kColumns>;
  using Left = typename Tile::Left;
  using Right = typename Tile::Right;
  constexpr int kLinesApart = kThreads / Left::kChunks;
  constexpr int kLeftLines = kRows / kLinesApart, kRightLines = kColumns / kLinesApart;
  constexpr int kBytesApart = kLinesApart * Left::kLineBytes;
  static_assert(kLinesApart % Left::kPeriod == 0, "a thread's lines are permuted alike");
  SHARED_MEMORY(shared);

  const int32_t phase = static_cast<int32_t>(blockIdx.y) / c.shares;
  const int32_t share = static_cast<int32_t>(blockIdx.y) - phase * c.shares;
  const int32_t phases_w = c.w.stride < c.w.in ? c.w.stride : c.w.in;
  const PhaseAxis h = c.grad_input ? grad_input_axis(c.h, phase / phases_w) : forward_axis(c.h);
  const PhaseAxis w = c.grad_input ? grad_input_axis(c.w, phase % phases_w) : forward_axis(c.w);
  const int32_t source_h = c.grad_input ? c.h.out : c.h.in, source_w = c.grad_input ? c.w.out : c.w.in;
  const int32_t pixels = c.images * h.count * w.count;
  const int32_t first_pixel = static_cast<int32_t>(blockIdx.x) / c.column_tiles * kRows;
  const int32_t first_column = static_cast<int32_t>(blockIdx.x) % c.column_tiles * kColumns;
  if (first_pixel >= pixels) return;

  const int64_t pitch = static_cast<int64_t>(c.groups) * c.source_channels;
  const int line = threadIdx.x / Left::kChunks, chunk = threadIdx.x % Left::kChunks;
  int64_t origin[kLeftLines];
  int32_t y[kLeftLines], x[kLeftLines];
#pragma unroll
  for (int i = 0; i < kLeftLines; ++i) {
    const int32_t pixel = first_pixel + line + i * kLinesApart, row = pixel / w.count;
    y[i] = row % h.count * h.stride + h.offset;
    x[i] = pixel % w.count * w.stride + w.offset;
    origin[i] = ((static_cast<int64_t>(row / h.count) * source_h + y[i]) * source_w + x[i]) * pitch +
                static_cast<int64_t>(blockIdx.z) * c.source_channels;
    if (pixel >= pixels) y[i] = -(1 << 30);  // outside of the source with any tap
  }
  const int64_t weight_row = static_cast<int64_t>(c.h.kernel) * c.w.kernel * c.source_channels;
  const int64_t first_channel = static_cast<int64_t>(blockIdx.z) * c.result_channels + first_column;
  const int64_t first_weight = (first_channel + line) * weight_row;
  const int64_t steps = (h.taps * w.taps * c.source_channels + kDepth<T> - 1) / kDepth<T>;
  const int32_t begin = static_cast<int32_t>(steps * share / c.shares);
  const int32_t end = static_cast<int32_t>(steps * (share + 1) / c.shares);
  SumPosition at(begin * kDepth<T> + chunk * kVector<T>, c.source_channels, w.taps > 0 ? w.taps : 1);

  const int place = Left::place(line, chunk);
  const auto load = [&](int32_t, unsigned char* stage) {
    const int32_t move_y = at.tap_h * h.step, move_x = at.tap_w * w.step;
    const int64_t move = (static_cast<int64_t>(move_y) * source_w + move_x) * pitch + at.channel;
    const bool in_sum = at.tap_h < h.taps;
#pragma unroll
    for (int i = 0; i < kLeftLines; ++i) {
      const bool valid = in_sum && static_cast<uint32_t>(y[i] + move_y) < static_cast<uint32_t>(source_h) &&
                         static_cast<uint32_t>(x[i] + move_x) < static_cast<uint32_t>(source_w);
      copy_async(stage + place + i * kBytesApart, source + (valid ? origin[i] + move : 0), valid);
    }
    const int32_t tap = (h.first_tap + at.tap_h * h.tap_step) * c.w.kernel + w.first_tap + at.tap_w * w.tap_step;
    const int64_t weight = first_weight + static_cast<int64_t>(tap) * c.source_channels + at.channel;
#pragma unroll
    for (int i = 0; i < kRightLines; ++i) {
      const bool valid = in_sum && first_column + line + i * kLinesApart < c.result_channels;
      copy_async(stage + Left::kBytes + place + i * kBytesApart,
                 weights + (valid ? weight + i * kLinesApart * weight_row : 0), valid);
    }
    at.advance(kDepth<T>, c.source_channels, w.taps);
  };

  WarpTile<kRows, kColumns> sums;
  sums.clear();
  run_pipeline<T, Left, Right>(sums, shared, end - begin, load);

  int64_t* places = reinterpret_cast<int64_t*>(shared + Tile::kSharedBytes) - kRows;
  find_places(c, h, w, pixels, first_pixel, kRows, places);
  const int rows = pixels - first_pixel < kRows ? pixels - first_pixel : kRows;
  const int columns = c.result_channels - first_column;
  if (partial != nullptr) {
    __syncthreads();
    float* own = partial + share * c.share_stride + first_channel;
    sums.for_each_pair([&](int row, int column, float first, float second) {
      if (row >= rows) return;
      if (column < columns) own[places[row] + column] = first;
      if (column + 1 < columns) own[places[row] + column + 1] = second;
    });
    return;
  }
  if (bias != nullptr) {
    sums.add_to_columns(
        [&](int column) { return column < columns ? to_compute(bias[first_channel + column]) : 0.0f; });
  }
  store_tile<T, kRows, kColumns>(c, sums, places, rows, columns, result + first_channel * c.result_stride[1], shared);
}

}  // namespace mma_conv
}  // namespace cuda
}  // namespace spatialconv

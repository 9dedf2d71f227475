// grad_weight as implicit GEMM: rows are output channels, columns are (tap, chunk of 64 input channels) boxes, and the
// sum runs over the pixels of grad_output, 64 a stage. Both operands lie in memory along their channels, which wgmma
// reads from shared memory as they come. Shares of the pixels go to different blocks as float32 partial sums.
#pragma once
#include "conv_wgmma.h"

namespace spatialconv {
namespace cuda {
namespace wgmma_conv {

struct GradWeight {
  TensorMap grad_output;  // pixels x oc
  TensorMap input;        // im2col columns of pixels
  float* partial;         // [split][oc][tap][ic of a group]
  int64_t partial_count;
  int32_t oh, ow, sh, sw, ph, pw, dh, dw, kw;
  int32_t taps, chunks;                  // chunks of 64 input channels of one group
  int32_t group_ic, group_oc;
  int32_t group_row_tiles, column_tiles, tiles;  // tiles along the channels of one group, along the boxes, in all
  int32_t steps, splits;                 // stages of pixels, and how many shares they are cut into
};

struct WeightTile {
  int32_t group, row;  // first output channel within the group
  int32_t box, boxes;  // the first (tap, chunk), and how many there are
  int32_t split, begin, end;
};

template <int kColumns>
__device__ __forceinline__ WeightTile weight_tile_of(const GradWeight& g, int32_t unit) {
  constexpr int32_t kBoxes = kColumns / 64;
  const int32_t split = unit / g.tiles, tile = unit % g.tiles;  // blocks at work together read the same pixels
  const int32_t row_tile = tile / g.column_tiles, box = tile % g.column_tiles * kBoxes;
  const int32_t left = g.taps * g.chunks - box;
  return {row_tile / g.group_row_tiles,
          row_tile % g.group_row_tiles * kRows,
          box,
          left < kBoxes ? left : kBoxes,
          split,
          static_cast<int32_t>(static_cast<int64_t>(g.steps) * split / g.splits),
          static_cast<int32_t>(static_cast<int64_t>(g.steps) * (split + 1) / g.splits)};
}

// A pixel of grad_output, and what kDepth pixels are in images, rows and columns: a stage further costs no division.
struct PixelWalk {
  int32_t image, row, column;
  int32_t images_on, rows_on, columns_on;

  __device__ __forceinline__ PixelWalk(const GradWeight& g, int32_t pixel)
      : image(pixel / (g.oh * g.ow)),
        row(pixel / g.ow % g.oh),
        column(pixel % g.ow),
        images_on(kDepth / (g.oh * g.ow)),
        rows_on(kDepth / g.ow % g.oh),
        columns_on(kDepth % g.ow) {}

  __device__ __forceinline__ void next(const GradWeight& g) {
    column += columns_on;
    row += rows_on;
    image += images_on;
    if (column >= g.ow) {
      column -= g.ow;
      ++row;
    }
    if (row >= g.oh) {
      row -= g.oh;
      ++image;
    }
  }
};

template <int kColumns>
__device__ __forceinline__ void load_pixels(const GradWeight& g, Shared<kColumns>& shared) {
  constexpr int kBoxes = kColumns / 64;
  tensor_map_prefetch(&g.grad_output);
  tensor_map_prefetch(&g.input);
  Ring<kColumns> ring;
  for (int32_t unit = blockIdx.x; unit < g.tiles * g.splits; unit += gridDim.x) {
    const WeightTile tile = weight_tile_of<kColumns>(g, unit);
    const int32_t oc = tile.group * g.group_oc + tile.row;
    int32_t ic[kBoxes], offset_h[kBoxes], offset_w[kBoxes];
#pragma unroll
    for (int i = 0; i < kBoxes; ++i) {
      const int32_t tap = (tile.box + i) / g.chunks;
      ic[i] = tile.group * g.group_ic + (tile.box + i) % g.chunks * 64;
      offset_h[i] = tap / g.kw * g.dh;
      offset_w[i] = tap % g.kw * g.dw;
    }
    PixelWalk pixel(g, tile.begin * kDepth);
    for (int32_t step = tile.begin; step < tile.end; ++step, pixel.next(g), ring.next()) {
      uint64_t* full = claim(shared, ring, (kConsumers + tile.boxes) * kBoxBytes);
#pragma unroll
      for (int half = 0; half < kConsumers; ++half) {
        load_tile(shared.a[ring.stage] + half * kBoxBytes / 2, &g.grad_output, full, oc + half * 64, step * kDepth);
      }
      const int32_t h = pixel.row * g.sh - g.ph, w = pixel.column * g.sw - g.pw;
#pragma unroll
      for (int i = 0; i < kBoxes; ++i) {
        if (i >= tile.boxes) break;
        load_im2col(shared.b[ring.stage] + i * kBoxBytes / 2, &g.input, full, ic[i], w, h, pixel.image, offset_w[i],
                    offset_h[i]);
      }
    }
  }
}

template <int kColumns>
__device__ __forceinline__ void store_weights(const GradWeight& g, const WeightTile& tile,
                                              const float (&accumulators)[kColumns / 2]) {
  const int32_t thread = threadIdx.x - 128;
#pragma unroll
  for (int box = 0; box < kColumns / 64; ++box) {
    if (box >= tile.boxes) break;
    const int32_t tap = (tile.box + box) / g.chunks, chunk = (tile.box + box) % g.chunks;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int32_t row = tile.row + thread / 32 * 16 + thread % 32 / 4 + 8 * half;
      if (row >= g.group_oc) continue;
      float* to = g.partial + tile.split * g.partial_count +
                  (static_cast<int64_t>(tile.group * g.group_oc + row) * g.taps + tap) * g.group_ic;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int32_t channel = chunk * 64 + 8 * i + thread % 4 * 2;
        const float* pair = &accumulators[box * 32 + 4 * i + 2 * half];
        if (channel < g.group_ic) *reinterpret_cast<float2*>(to + channel) = make_float2(pair[0], pair[1]);
      }
    }
  }
}

template <class T, int kColumns>
__global__ void __launch_bounds__(kThreads, 1) grad_weight(const __grid_constant__ GradWeight g) {
  SHARED_MEMORY(raw);
  Shared<kColumns>& shared = shared_of<kColumns>(raw);
  prepare(shared);
  if (threadIdx.x < 128) {
    give_registers<kProducerRegisters>();
    if (threadIdx.x == 0) load_pixels<kColumns>(g, shared);
  } else {
    take_registers<kConsumerRegisters>();
    Ring<kColumns> ring;
    for (int32_t unit = blockIdx.x; unit < g.tiles * g.splits; unit += gridDim.x) {
      const WeightTile tile = weight_tile_of<kColumns>(g, unit);
      float accumulators[kColumns / 2];
#pragma unroll
      for (int i = 0; i < kColumns / 2; ++i) accumulators[i] = 0;
      multiply<T, kColumns, Major::mn, Major::mn>(shared, ring, tile.end - tile.begin, accumulators);
      store_weights<kColumns>(g, tile, accumulators);
    }
  }
}

}  // namespace wgmma_conv
}  // namespace cuda
}  // namespace spatialconv

// Forward and grad_input as implicit GEMM: rows are pixels of the result, columns its channels, and the sum runs over
// the taps and, within a tap, over the source's channels. The copy engine's im2col mode gathers 128 pixels moved by a
// tap, zeros where they lie outside. grad_input with stride is one such correlation for every phase of the stride, all
// in one launch: the pixels of a phase meet the same taps (MIOpen's and CUTLASS's way).
#pragma once
#include "conv_wgmma.h"

namespace spatialconv {
namespace cuda {
namespace wgmma_conv {

// Pixels first + step * i of the result along each axis, and the taps first_tap + tap_step * j that they meet. The
// source position of pixel i under tap j is source + i * source_step + j * source_offset.
struct PhaseAxis {
  int32_t first, count;
  int32_t first_tap, taps;
};

struct Phase {
  TensorMap source;
  PhaseAxis h, w;
  int32_t lower_h, lower_w;    // source position of the first pixel under the nearest tap
  int32_t offset_h, offset_w;  // from one tap to the next, in the order the taps are read
  int32_t row_tiles;
  int32_t first_tile, tiles;
};

constexpr int kMostPhases = 4;

struct Correlation {
  Phase phase[kMostPhases];
  TensorMap weights;
  void* result;
  const void* bias;
  float* partial;  // null where results are stored at once
  int64_t partial_count;
  int32_t n, height, width, channels;  // of the result
  int32_t step_h, step_w;              // between the pixels of a phase
  int32_t source_step_h, source_step_w;
  int32_t tap_step_h, tap_step_w, kw;
  int32_t group_source, group_channels;  // channels of one group
  int32_t chunks;                        // of kDepth source channels
  int32_t group_tiles, column_tiles;     // tiles across the channels of one group and of all
  int32_t phases, tiles, splits;
};
static_assert(sizeof(Correlation) <= 4096, "kernel parameters must fit the parameter space of every driver");

struct Tile {
  const Phase* phase;
  int32_t row;     // first pixel of the phase
  int32_t group;
  int32_t column;  // first channel of the group
  int32_t split;
  int32_t begin, end;  // steps of the sum, a tap and a chunk of channels each
};

// Work units in an order in which neighbours share pixels and weights: up to 8 columns of tiles, row by row.
template <int kColumns>
__device__ __forceinline__ Tile tile_of(const Correlation& c, int32_t unit) {
  constexpr int32_t kBand = 8;
  int32_t tile = unit / c.splits;
  const int32_t split = unit % c.splits;
  const Phase* phase = c.phase;
  while (tile >= phase->first_tile + phase->tiles) ++phase;
  tile -= phase->first_tile;
  const int32_t band = tile / (phase->row_tiles * kBand), rest = tile % (phase->row_tiles * kBand);
  const int32_t width = c.column_tiles - band * kBand < kBand ? c.column_tiles - band * kBand : kBand;
  const int32_t column = band * kBand + rest % width;
  const int64_t steps = static_cast<int64_t>(phase->h.taps) * phase->w.taps * c.chunks;
  return {phase,
          rest / width * kRows,
          column / c.group_tiles,
          column % c.group_tiles * kColumns,
          split,
          static_cast<int32_t>(steps * split / c.splits),
          static_cast<int32_t>(steps * (split + 1) / c.splits)};
}

template <int kColumns, Major kWeights>
__device__ __forceinline__ void load_tiles(const Correlation& c, Shared<kColumns>& shared) {
  constexpr uint32_t kBytes = Shared<kColumns>::kStageBytes;
  tensor_map_prefetch(&c.weights);
  if (c.phase->h.taps * c.phase->w.taps != 0) tensor_map_prefetch(&c.phase->source);
  Ring<kColumns> ring;
  for (int32_t unit = blockIdx.x; unit < c.tiles * c.splits; unit += gridDim.x) {
    const Tile tile = tile_of<kColumns>(c, unit);
    if (tile.begin == tile.end) continue;  // a phase that no tap meets
    const Phase& phase = *tile.phase;
    const int32_t pixel_row = tile.row / phase.w.count;
    const int32_t image = pixel_row / phase.h.count;
    const int32_t h = phase.lower_h + pixel_row % phase.h.count * c.source_step_h;
    const int32_t w = phase.lower_w + tile.row % phase.w.count * c.source_step_w;
    int32_t chunk = tile.begin % c.chunks;
    int32_t tap_w = tile.begin / c.chunks % phase.w.taps, tap_h = tile.begin / c.chunks / phase.w.taps;
    for (int32_t step = tile.begin; step < tile.end; ++step, ring.next()) {
      uint64_t* full = claim(shared, ring, kBytes);
      const int32_t source = chunk * kDepth;
      load_im2col(shared.a[ring.stage], &phase.source, full, tile.group * c.group_source + source, w, h, image,
                  tap_w * phase.offset_w, tap_h * phase.offset_h);
      const int32_t tap = (phase.h.first_tap + tap_h * c.tap_step_h) * c.kw + phase.w.first_tap + tap_w * c.tap_step_w;
      if constexpr (kWeights == Major::k) {
        load_tile(shared.b[ring.stage], &c.weights, full, source, tap, tile.group * c.group_channels + tile.column);
      } else {
#pragma unroll
        for (int box = 0; box < kColumns / 64; ++box) {
          load_tile(shared.b[ring.stage] + box * kBoxBytes / 2, &c.weights, full, tile.column + box * 64, tap,
                    tile.group * c.group_source + source);
        }
      }
      if (++chunk < c.chunks) continue;
      chunk = 0;
      if (++tap_w < phase.w.taps) continue;
      tap_w = 0;
      ++tap_h;
    }
  }
}

// Where pixel `row` of a phase lies in the result, in elements; negative past the last.
__device__ __forceinline__ int64_t result_offset(const Correlation& c, const Phase& phase, int32_t row) {
  const int32_t pixel_row = row / phase.w.count, image = pixel_row / phase.h.count;
  if (image >= c.n) return -1;
  const int32_t h = phase.h.first + pixel_row % phase.h.count * c.step_h;
  const int32_t w = phase.w.first + row % phase.w.count * c.step_w;
  return ((static_cast<int64_t>(image) * c.height + h) * c.width + w) * c.channels;
}

// Partial sums go out as the warpgroup holds them: four threads write one sector of 32 bytes.
template <int kColumns>
__device__ __forceinline__ void store_partial(const Correlation& c, const Tile& tile,
                                              const float (&accumulators)[kColumns / 2]) {
  const int32_t thread = threadIdx.x - 128, column = tile.column + thread % 4 * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t offset = result_offset(c, *tile.phase, tile.row + thread / 32 * 16 + thread % 32 / 4 + 8 * half);
    if (offset < 0) continue;
    float* to = c.partial + tile.split * c.partial_count + offset + tile.group * c.group_channels;
#pragma unroll
    for (int i = 0; i < kColumns / 8; ++i) {
      if (column + 8 * i < c.group_channels) to[column + 8 * i] = accumulators[4 * i + 2 * half];
      if (column + 8 * i + 1 < c.group_channels) to[column + 8 * i + 1] = accumulators[4 * i + 2 * half + 1];
    }
  }
}

template <class T>
__device__ __forceinline__ uint32_t packed(float low, float high) {
#if !defined(EMULATED)
  if constexpr (std::is_same<T, bf16>::value) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  } else {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
#else
  return from_compute<T>(low).bits | static_cast<uint32_t>(from_compute<T>(high).bits) << 16;
#endif
}

// Results go out through 2 KiB of shared memory of each warp, 16 rows of 64 channels at a time, so that eight threads
// write 128 bytes in a row. 16-byte pieces are swizzled by row: neither side meets a bank twice. The bias is added
// here: accumulators that began with it would be written while products are in flight, and ptxas would serialise those.
template <class T, int kColumns>
__device__ __forceinline__ void store_result(const Correlation& c, const Tile& tile, uint16_t* staging,
                                             const float (&accumulators)[kColumns / 2]) {
  const int32_t thread = threadIdx.x - 128, lane = thread % 32;
  const bool in_pieces = c.group_channels % 8 == 0;
  const int32_t group_first = tile.group * c.group_channels;
  const T* bias = static_cast<const T*>(c.bias);
  int64_t offset[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    offset[i] = result_offset(c, *tile.phase, tile.row + thread / 32 * 16 + i * 4 + lane / 8);
  }
#pragma unroll
  for (int slice = 0; slice < kColumns / 64; ++slice) {
    const int32_t first = tile.column + slice * 64;
    if (first >= c.group_channels) break;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float add[2] = {0, 0};
      if (bias != nullptr) {
        const int32_t column = first + 8 * i + lane % 4 * 2;
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          if (column + e < c.group_channels) add[e] = to_compute(bias[group_first + column + e]);
        }
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int32_t row = lane / 4 + 8 * half;
        const float* pair = &accumulators[slice * 32 + 4 * i + 2 * half];
        const int32_t place = row * 64 + (i ^ row % 8) * 8 + lane % 4 * 2;
        *reinterpret_cast<uint32_t*>(staging + place) = packed<T>(pair[0] + add[0], pair[1] + add[1]);
      }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int32_t row = i * 4 + lane / 8, column = first + lane % 8 * 8;
      if (offset[i] < 0) continue;
      const uint16_t* from = staging + row * 64 + (lane % 8 ^ row % 8) * 8;
      uint16_t* to = static_cast<uint16_t*>(c.result) + offset[i] + group_first + column;
      if (in_pieces) {
        if (column < c.group_channels) *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
      } else {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          if (column + e < c.group_channels) to[e] = from[e];
        }
      }
    }
  }
}

// `kWeights`: forward reads oc as columns from rows along ic, grad_input ic as columns from the same rows.
template <class T, int kColumns, Major kWeights>
__global__ void __launch_bounds__(kThreads, 1) correlate(const __grid_constant__ Correlation c) {
  SHARED_MEMORY(raw);
  Shared<kColumns>& shared = shared_of<kColumns>(raw);
  prepare(shared);
  if (threadIdx.x < 128) {
    give_registers<kProducerRegisters>();
    if (threadIdx.x == 0) load_tiles<kColumns, kWeights>(c, shared);
  } else {
    take_registers<kConsumerRegisters>();
    Ring<kColumns> ring;
    for (int32_t unit = blockIdx.x; unit < c.tiles * c.splits; unit += gridDim.x) {
      const Tile tile = tile_of<kColumns>(c, unit);
      float accumulators[kColumns / 2];
#pragma unroll
      for (int i = 0; i < kColumns / 2; ++i) accumulators[i] = 0;
      multiply<T, kColumns, Major::k, kWeights>(shared, ring, tile.end - tile.begin, accumulators);
      if (c.partial != nullptr) {
        store_partial<kColumns>(c, tile, accumulators);
      } else {
        store_result<T, kColumns>(c, tile, shared.staging[threadIdx.x / 32 - 4], accumulators);
      }
    }
  }
}

}  // namespace wgmma_conv
}  // namespace cuda
}  // namespace spatialconv

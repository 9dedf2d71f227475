// What the wgmma kernels share: the ring of tiles in shared memory that one producer thread fills through the copy
// engine and two warpgroups multiply, tile after tile, on a grid of one block per multiprocessor. The ring runs on from
// one tile to the next, so that the next tile's loads overlap the stores of the last. Design: CUTLASS's persistent
// cooperative kernel for Hopper (Thakkar et al.), implicit GEMM as in cuDNN (Chetlur et al., 2014).
#pragma once
#include "../common/geometry.h"
#include "hopper.h"
#include "kernel.h"

namespace spatialconv {
namespace cuda {
namespace wgmma_conv {

constexpr int kConsumers = 2;                            // warpgroups that multiply, 64 rows of the tile each
constexpr int kThreads = 128 * (1 + kConsumers);         // the first warpgroup loads
constexpr int kRows = 64 * kConsumers;                   // of a tile
constexpr int kDepth = 64;                               // terms of the sum in one stage: one swizzled row of 128 bytes
constexpr int kBoxBytes = kDepth * 64 * 2;               // 64 rows of 128 bytes
constexpr int kMostShared = 227 * 1024;
constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
// What ptxas gives every thread at launch and the warpgroups then share anew: whoever asks for more waits for ever.
constexpr int kLaunchRegisters = 168;
static_assert(kProducerRegisters + kConsumers * kConsumerRegisters <= (1 + kConsumers) * kLaunchRegisters);

// Shared memory of a block that computes tiles of kRows x kColumns.
template <int kColumns>
struct Shared {
  static constexpr int kStageBytes = (kRows + kColumns) * kDepth * 2;
  static constexpr int kStages = 192 * 1024 / kStageBytes;

  uint16_t a[kStages][kRows * kDepth];
  uint16_t b[kStages][kColumns * kDepth];
  uint16_t staging[4 * kConsumers][16 * 64];  // results on their way out, of one warp each
  uint64_t full[kStages], empty[kStages];

  static constexpr int kAlignment = 1024;  // of the swizzle's pattern
};

template <int kColumns>
constexpr int64_t shared_bytes() {
  using S = Shared<kColumns>;
  static_assert(sizeof(S) + S::kAlignment <= kMostShared, "the stages must fit a multiprocessor");
  return sizeof(S) + S::kAlignment;
}

// The stage that is next, and how often the ring has been round.
template <int kColumns>
struct Ring {
  int stage = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void next() {
    if (++stage < Shared<kColumns>::kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

template <int kColumns>
__device__ __forceinline__ Shared<kColumns>& shared_of(unsigned char* raw) {
  constexpr uint32_t kAlignment = Shared<kColumns>::kAlignment;
  return *reinterpret_cast<Shared<kColumns>*>(raw + (kAlignment - shared_address(raw) % kAlignment) % kAlignment);
}

template <int kColumns>
__device__ __forceinline__ void prepare(Shared<kColumns>& shared) {
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Shared<kColumns>::kStages; ++stage) {
      barrier_init(&shared.full[stage], 1);
      barrier_init(&shared.empty[stage], 4 * kConsumers);
    }
    barrier_init_fence();
  }
  __syncthreads();
}

// A stage for the producer to fill with `bytes`; the caller issues the loads and moves the ring on.
template <int kColumns>
__device__ __forceinline__ uint64_t* claim(Shared<kColumns>& shared, const Ring<kColumns>& ring, uint32_t bytes) {
  barrier_wait(&shared.empty[ring.stage], ring.parity ^ 1);
  barrier_arrive_expect(&shared.full[ring.stage], bytes);
  return &shared.full[ring.stage];
}

template <Major kMajor>
__device__ __forceinline__ uint64_t descriptor_of(const uint16_t* tile) {
  return matrix_descriptor(tile, kMajor == Major::mn ? kBoxBytes : 16, 1024);
}

// accumulators += the product of the next `steps` stages. One group of products stays in flight while the next is
// issued; a stage is given back by each warp once no product of its own reads it.
template <class T, int kColumns, Major kA, Major kB>
__device__ __forceinline__ void multiply(Shared<kColumns>& shared, Ring<kColumns>& ring, int32_t steps,
                                         float (&accumulators)[kColumns / 2]) {
  constexpr int kProduct = 16;  // terms of the sum in one instruction
  constexpr uint64_t kStepA = descriptor_step(kProduct * (kA == Major::k ? 2 : 128));
  constexpr uint64_t kStepB = descriptor_step(kProduct * (kB == Major::k ? 2 : 128));
  const int consumer = threadIdx.x / 128 - 1;
  const bool signals = threadIdx.x % 32 == 0;
  uint64_t* in_flight = nullptr;
  for (int32_t step = 0; step < steps; ++step, ring.next()) {
    barrier_wait(&shared.full[ring.stage], ring.parity);
    const uint64_t a = descriptor_of<kA>(shared.a[ring.stage] + consumer * 64 * kDepth);
    const uint64_t b = descriptor_of<kB>(shared.b[ring.stage]);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kDepth / kProduct; ++i) wgmma<T, kA, kB>(accumulators, a + i * kStepA, b + i * kStepB);
    wgmma_commit();
    wgmma_wait<1>(accumulators);
    if (signals && in_flight != nullptr) barrier_arrive(in_flight);
    in_flight = &shared.empty[ring.stage];
  }
  wgmma_wait<0>(accumulators);
  if (signals && in_flight != nullptr) barrier_arrive(in_flight);
}

// How a launch covers its results: `splits` shares of the sum become float32 partial sums that a second kernel adds in
// order.
struct Cover {
  int32_t columns;  // of a tile: 64, 128 or 256
  int32_t splits;
};

// The cheapest cover by a model of the multiprocessors' time, in units of 4 cycles: a step of a tile costs its width,
// narrow tiles more because they fetch more for a product; filling the ring and storing cost a fixed part of every
// tile; partial sums cost a launch and their way through memory. `tiles(columns)` counts tiles.
template <class Tiles>
Cover choose_cover(const Tiles& tiles, int64_t steps, int64_t elements, int64_t multiprocessors, bool may_split) {
  constexpr double kTile = 750, kLaunch = 1250, kPerElement = 8.0 / 6600;
  Cover best{64, 1};
  double least = 0;
  for (const int32_t columns : {256, 128, 64}) {
    const double width = columns == 64 ? 112 : columns == 128 ? 160 : 256;
    const int64_t count = tiles(columns), idle = multiprocessors / larger(1, count);
    const int64_t most = may_split ? larger(1, smaller(steps / 8, larger(8, idle))) : 1;
    for (int64_t splits = 1; splits <= most; ++splits) {
      const double waves = static_cast<double>(ceil_div(count * splits, multiprocessors));
      double cost = waves * (static_cast<double>(ceil_div(steps, splits)) * width + kTile);
      if (splits > 1) cost += kLaunch + static_cast<double>(splits * elements) * kPerElement;
      if (least == 0 || cost < least) {
        least = cost;
        best = {columns, static_cast<int32_t>(splits)};
      }
    }
  }
  return best;
}

}  // namespace wgmma_conv
}  // namespace cuda
}  // namespace spatialconv

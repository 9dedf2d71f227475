// Each instruction of hopper.h by itself, or with the one that feeds it, run by one warpgroup: what a device and the
// twin make of it is compared with the PTX manual's words. Pointers are the device's.
#include "cuda/hopper.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

using namespace spatialconv;
using namespace spatialconv::cuda;

namespace {

constexpr unsigned kThreads = 128;
constexpr size_t kShared = 64 * 1024;
constexpr unsigned kBox = 64 * 64;  // values of 64 rows of 128 bytes

struct Memory {
  uint16_t a[kBox], b[4 * kBox];
  uint64_t barrier;
};

__device__ Memory& prepared(unsigned char* raw) {
  Memory& shared = *reinterpret_cast<Memory*>(raw + (1024 - shared_address(raw) % 1024) % 1024);
  if (threadIdx.x == 0) {
    barrier_init(&shared.barrier, 1);
    barrier_init_fence();
  }
  __syncthreads();
  return shared;
}

struct Place {
  int32_t i0, i1, i2, i3, offset_w, offset_h;
};

// Loads two places one after the other, through both phases of one barrier, and shows shared memory as it is.
template <bool kIm2col>
__global__ void loads(const __grid_constant__ TensorMap map, Place first, Place second, int32_t rank, int32_t bytes,
                      uint16_t* to) {
  SHARED_MEMORY(raw);
  Memory& shared = prepared(raw);
  for (uint32_t phase = 0; phase < 2; ++phase) {
    uint16_t* half = shared.b + phase * 2 * kBox;
    const Place& at = phase == 0 ? first : second;
    if (threadIdx.x == 0) {
      barrier_arrive_expect(&shared.barrier, bytes);
      if (kIm2col) {
        load_im2col(half, &map, &shared.barrier, at.i0, at.i1, at.i2, at.i3, at.offset_w, at.offset_h);
      } else if (rank == 2) {
        load_tile(half, &map, &shared.barrier, at.i0, at.i1);
      } else {
        load_tile(half, &map, &shared.barrier, at.i0, at.i1, at.i2);
      }
    }
    barrier_wait(&shared.barrier, phase);
    for (int32_t i = threadIdx.x; i < bytes / 2; i += kThreads) to[phase * (bytes / 2) + i] = half[i];
    __syncthreads();
  }
}

// Sums plus `count` products of 16 terms from term 16 * first of a tile of 64, the operands as the copy engine lays
// them.
template <class T, int kColumns, Major kA, Major kB>
__global__ void __launch_bounds__(kThreads)
    products(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, int32_t first, int32_t count,
             const float* sums, float* to) {
  SHARED_MEMORY(raw);
  Memory& shared = prepared(raw);
  if (threadIdx.x == 0) {
    barrier_arrive_expect(&shared.barrier, (64 + kColumns) * 128);
    load_tile(shared.a, &a, &shared.barrier, 0, 0);
    if (kB == Major::k) {
      load_tile(shared.b, &b, &shared.barrier, 0, 0);
    } else {
      for (int box = 0; box < kColumns / 64; ++box) load_tile(shared.b + box * kBox, &b, &shared.barrier, box * 64, 0);
    }
  }
  float d[kColumns / 2];
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) d[i] = sums[threadIdx.x * (kColumns / 2) + i];
  barrier_wait(&shared.barrier, 0);
  const uint64_t matrix_a = matrix_descriptor(shared.a, kBox * 2, 1024);
  const uint64_t matrix_b = matrix_descriptor(shared.b, kBox * 2, 1024);
  wgmma_fence();
  for (int32_t i = first; i < first + count; ++i) {
    wgmma<T, kA, kB>(d, matrix_a + i * descriptor_step(kA == Major::k ? 32 : 2048),
                     matrix_b + i * descriptor_step(kB == Major::k ? 32 : 2048));
  }
  wgmma_commit();
  wgmma_wait<0>(d);
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) to[threadIdx.x * (kColumns / 2) + i] = d[i];
}

template <class T, int kColumns, Major kA, Major kB>
int32_t run(const void* a, const void* b, int32_t first, int32_t count, const float* sums, float* to) {
  TensorMap map_a, map_b;
  const TiledMap tile_a{2, {64, 64}, {64, 64}};
  const TiledMap tile_b = kB == Major::k ? TiledMap{2, {64, kColumns}, {64, kColumns}}
                                         : TiledMap{2, {kColumns, 64}, {64, 64}};
  if (const int32_t error = encode(map_a, dtype_of<T>::value, a, tile_a)) return error;
  if (const int32_t error = encode(map_b, dtype_of<T>::value, b, tile_b)) return error;
  return launch(products<T, kColumns, kA, kB>, dim3(1), dim3(kThreads), kShared, Stream{}, map_a, map_b, first, count,
                sums, to);
}

template <class T, int kColumns>
int32_t run_majors(bool a_mn, bool b_mn, const void* a, const void* b, int32_t first, int32_t count, const float* sums,
                   float* to) {
  if (a_mn && b_mn) return run<T, kColumns, Major::mn, Major::mn>(a, b, first, count, sums, to);
  if (b_mn) return run<T, kColumns, Major::k, Major::mn>(a, b, first, count, sums, to);
  if (a_mn) return run<T, kColumns, Major::mn, Major::k>(a, b, first, count, sums, to);
  return run<T, kColumns, Major::k, Major::k>(a, b, first, count, sums, to);
}

template <class T>
int32_t run_columns(int32_t columns, bool a_mn, bool b_mn, const void* a, const void* b, int32_t first, int32_t count,
                    const float* sums, float* to) {
  if (columns == 64) return run_majors<T, 64>(a_mn, b_mn, a, b, first, count, sums, to);
  if (columns == 128) return run_majors<T, 128>(a_mn, b_mn, a, b, first, count, sums, to);
  return run_majors<T, 256>(a_mn, b_mn, a, b, first, count, sums, to);
}

}  // namespace

// `map`: n h w c, lower and upper corners h w, strides h w, pixels.
EXPORTED int32_t run_im2col(const int64_t* map, const int32_t* places, const void* values, uint16_t* to) {
  TensorMap encoded;
  const Im2colMap m{map[0], map[1], map[2], map[3], map[4], map[5], map[6], map[7], map[8], map[9], 64, map[10]};
  if (const int32_t error = encode(encoded, DType::bf16, values, m)) return error;
  const Place* place = reinterpret_cast<const Place*>(places);
  return launch(loads<true>, dim3(1), dim3(kThreads), kShared, Stream{}, encoded, place[0], place[1], 4,
                static_cast<int32_t>(map[10] * 128), to);
}

// `map`: rank, 3 sizes, 3 sides of the box.
EXPORTED int32_t run_tile(const int64_t* map, const int32_t* places, const void* values, uint16_t* to) {
  TensorMap encoded;
  const TiledMap m{map[0], {map[1], map[2], map[3]}, {map[4], map[5], map[6]}};
  if (const int32_t error = encode(encoded, DType::bf16, values, m)) return error;
  const Place* place = reinterpret_cast<const Place*>(places);
  const int64_t values_of_box = m.box[0] * m.box[1] * (m.rank == 3 ? m.box[2] : 1);
  return launch(loads<false>, dim3(1), dim3(kThreads), kShared, Stream{}, encoded, place[0], place[1],
                static_cast<int32_t>(m.rank), static_cast<int32_t>(values_of_box * 2), to);
}

EXPORTED int32_t run_products(int32_t is_bf16, int32_t columns, int32_t a_mn, int32_t b_mn, int32_t first,
                              int32_t count, const void* a, const void* b, const float* sums, float* to) {
  return is_bf16 ? run_columns<bf16>(columns, a_mn != 0, b_mn != 0, a, b, first, count, sums, to)
                 : run_columns<f16>(columns, a_mn != 0, b_mn != 0, a, b, first, count, sums, to);
}

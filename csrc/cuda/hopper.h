// The instructions of sm_90a that our kernels use, each in one function; kernels contain no asm. hopper_twin.h gives
// every one of them a meaning on a CPU. Source: PTX ISA 8.x, "mbarrier", "cp.async.bulk.tensor", "wgmma", "setmaxnreg".
#pragma once
#include <cstdint>
#include <type_traits>

#include "launch.h"
#include "number.h"
#include "tensor_map.h"

namespace spatialconv {
namespace cuda {

// Which index of an operand of wgmma runs along memory: the one summed over, or the row of a and column of b.
enum class Major { k = 0, mn = 1 };

}  // namespace cuda
}  // namespace spatialconv

#ifdef __CUDACC__

namespace spatialconv {
namespace cuda {

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// An mbarrier completes a phase when `arrivals` threads have arrived and every byte expected has been copied; phases
// alternate in parity, beginning with 0. Waiting for parity 1 on a fresh barrier returns at once.
__device__ __forceinline__ void barrier_init(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// Makes initialised barriers visible to the copy engine; a block barrier makes them visible to the other threads.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

__device__ __forceinline__ void barrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void barrier_wait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

__device__ __forceinline__ void tensor_map_prefetch(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Copies a column of pixels, starting at pixel (n, h, w) of the map's bounding box and channel c, each pixel moved by
// the offsets of one tap.
__device__ __forceinline__ void load_im2col(void* to, const TensorMap* map, uint64_t* barrier, int32_t c, int32_t w,
                                            int32_t h, int32_t n, int32_t offset_w, int32_t offset_h) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8};" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(c), "r"(w), "r"(h), "r"(n), "h"(static_cast<uint16_t>(offset_w)),
      "h"(static_cast<uint16_t>(offset_h))
      : "memory");
}

__device__ __forceinline__ void load_tile(void* to, const TensorMap* map, uint64_t* barrier, int32_t i0, int32_t i1) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(i0), "r"(i1)
      : "memory");
}

__device__ __forceinline__ void load_tile(void* to, const TensorMap* map, uint64_t* barrier, int32_t i0, int32_t i1,
                                          int32_t i2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(i0), "r"(i1), "r"(i2)
      : "memory");
}

template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Orders earlier writes of the accumulators' registers before the products that follow.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

#define SC_ACC_4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SC_ACC_16(i) SC_ACC_4(i), SC_ACC_4(i + 4), SC_ACC_4(i + 8), SC_ACC_4(i + 12)
#define SC_ACC_32 SC_ACC_16(0), SC_ACC_16(16)
#define SC_ACC_64 SC_ACC_32, SC_ACC_16(32), SC_ACC_16(48)
#define SC_ACC_128 SC_ACC_64, SC_ACC_16(64), SC_ACC_16(80), SC_ACC_16(96), SC_ACC_16(112)

// Waits until at most kPending groups are in flight. The accumulators are operands so that the compiler neither reads
// nor moves them before.
template <int kPending>
__device__ __forceinline__ void wgmma_wait(float (&d)[32]) {
  asm volatile("wgmma.wait_group.sync.aligned %32;" : SC_ACC_32 : "n"(kPending) : "memory");
}
template <int kPending>
__device__ __forceinline__ void wgmma_wait(float (&d)[64]) {
  asm volatile("wgmma.wait_group.sync.aligned %64;" : SC_ACC_64 : "n"(kPending) : "memory");
}
template <int kPending>
__device__ __forceinline__ void wgmma_wait(float (&d)[128]) {
  asm volatile("wgmma.wait_group.sync.aligned %128;" : SC_ACC_128 : "n"(kPending) : "memory");
}

#define SC_REGS_32                                                                                                     \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "     \
  "%24, %25, %26, %27, %28, %29, %30, %31"
#define SC_REGS_64                                                                                                     \
  SC_REGS_32                                                                                                           \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, "   \
  "%54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SC_REGS_128                                                                                                    \
  SC_REGS_64                                                                                                           \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, "   \
  "%86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, "   \
  "%107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, "      \
  "%125, %126, %127"

// d[64][n] += a[64][16] * b[16][n] by the four warps of a warpgroup, operands in shared memory as their descriptors
// say. Thread t of the group holds, of each 8 columns j, d[4j + 2h + e]: row 16 * (t / 32) + t % 32 / 4 + 8h, column 8j
// + 2 * (t % 4) + e.
#define SC_WGMMA(registers, shape, type, a, b, ta, tb)                                                                 \
  asm volatile("wgmma.mma_async.sync.aligned." shape ".f32." type "." type " {" SC_REGS_##registers "}, " a ", " b     \
               ", 1, 1, 1, " ta ", " tb ";"                                                                            \
               : SC_ACC_##registers                                                                                    \
               : "l"(a_matrix), "l"(b_matrix), "n"(static_cast<int>(kA)), "n"(static_cast<int>(kB)))

template <class T, Major kA, Major kB>
__device__ __forceinline__ void wgmma(float (&d)[32], uint64_t a_matrix, uint64_t b_matrix) {
  if constexpr (std::is_same<T, bf16>::value) {
    SC_WGMMA(32, "m64n64k16", "bf16", "%32", "%33", "%34", "%35");
  } else {
    SC_WGMMA(32, "m64n64k16", "f16", "%32", "%33", "%34", "%35");
  }
}
template <class T, Major kA, Major kB>
__device__ __forceinline__ void wgmma(float (&d)[64], uint64_t a_matrix, uint64_t b_matrix) {
  if constexpr (std::is_same<T, bf16>::value) {
    SC_WGMMA(64, "m64n128k16", "bf16", "%64", "%65", "%66", "%67");
  } else {
    SC_WGMMA(64, "m64n128k16", "f16", "%64", "%65", "%66", "%67");
  }
}
template <class T, Major kA, Major kB>
__device__ __forceinline__ void wgmma(float (&d)[128], uint64_t a_matrix, uint64_t b_matrix) {
  if constexpr (std::is_same<T, bf16>::value) {
    SC_WGMMA(128, "m64n256k16", "bf16", "%128", "%129", "%130", "%131");
  } else {
    SC_WGMMA(128, "m64n256k16", "f16", "%128", "%129", "%130", "%131");
  }
}

}  // namespace cuda
}  // namespace spatialconv

#else
#include "hopper_twin.h"
#endif

namespace spatialconv {
namespace cuda {

// An operand of wgmma in shared memory, rows of 128 bytes in the copy engine's 128-byte swizzle, groups of 8 rows
// `stride_bytes` apart. Major::k: a row is 64 values along k. Major::mn: a row is 64 values along m or n, the next 64
// lie `leading_bytes` further.
__device__ __forceinline__ uint64_t matrix_descriptor(const void* start, uint32_t leading_bytes,
                                                      uint32_t stride_bytes) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  const auto field = [](uint32_t bytes) { return static_cast<uint64_t>((bytes & 0x3FFFF) >> 4); };
  return field(shared_address(start)) | field(leading_bytes) << 16 | field(stride_bytes) << 32 | kSwizzle128;
}

// What to add to a descriptor to move its start.
__host__ __device__ constexpr uint64_t descriptor_step(uint32_t bytes) { return bytes >> 4; }

}  // namespace cuda
}  // namespace spatialconv

// The instructions of sm_80 that our kernels use, each in one function; kernels contain no asm. ptx_twin.h gives every
// one of them a meaning on a CPU. Source: PTX ISA 8.x, "cp.async", "ldmatrix", "mma", "cvt".
#pragma once
#include <cstdint>

#include "launch.h"
#include "number.h"

#if !defined(EMULATED)

namespace spatialconv {
namespace cuda {

__device__ __forceinline__ uint32_t shared_window(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Copies 16 bytes to shared memory, past the first-level cache and past the registers; zeros where not `valid`. `from`
// is an address of the tensor in any case.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_window(to)), "l"(from), "r"(bytes)
               : "memory");
}

// Closes the group of copies that this thread issued since the last group.
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most kPending groups of this thread are under way; other threads see the rest after a block barrier.
template <int kPending>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Loads four 8x8 matrices of 16-bit elements, or 8x4 of 32-bit ones. Lane 8i + r gives the address of the 16 bytes that
// are row r of matrix i; lane l receives, of each matrix, 32 bits: row l / 4, and of it word l % 4.
__device__ __forceinline__ void load_matrices(uint32_t (&words)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_window(row))
               : "memory");
}

// The same with each matrix transposed, 16-bit elements only: lane l receives rows 2 * (l % 4) and the next of column
// l / 4.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&words)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(shared_window(row))
               : "memory");
}

// One word of shared memory for each lane, by an ordinary load; here because the twin watches its banks.
__device__ __forceinline__ uint32_t load_word(const void* word) { return *static_cast<const uint32_t*>(word); }

// The nearest float of 10 mantissa bits, ties away from zero: tf32.
__device__ __forceinline__ uint32_t round_to_tf32(uint32_t bits) {
  uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
  return rounded;
}

// d[16][8] += a[16][k] * b[k][8] by a warp, k being 16 for 16-bit elements and 8 for float ones, read as tf32.
// With q = lane / 4, p = lane % 4 and two elements (2p, 2p + 1; float: the one, p) of k in a word, a lane holds
//   a: row q, low half of k; row q + 8, low; row q, high; row q + 8, high    b: column q, low half of k; high
//   d: row q, columns 2p and 2p + 1; row q + 8, the same columns.
template <class T>
__device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b_low, uint32_t b_high);

#define SC_MULTIPLY(T, shape)                                                                                          \
  template <>                                                                                                          \
  __device__ __forceinline__ void multiply<T>(float (&d)[4], const uint32_t (&a)[4], uint32_t b_low,                   \
                                              uint32_t b_high) {                                                       \
    asm volatile("mma.sync.aligned." shape " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"          \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                      \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));                               \
  }

SC_MULTIPLY(bf16, "m16n8k16.row.col.f32.bf16.bf16.f32")
SC_MULTIPLY(f16, "m16n8k16.row.col.f32.f16.f16.f32")
SC_MULTIPLY(float, "m16n8k8.row.col.f32.tf32.tf32.f32")

#undef SC_MULTIPLY

}  // namespace cuda
}  // namespace spatialconv

#else
#include "ptx_twin.h"
#endif

// Each instruction of ptx.h by itself, run by one warp on given registers: what a device and the twin make of it is
// compared with the PTX manual's words. Pointers are the device's.
#include "cuda/ptx.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

using namespace spatialconv::cuda;

namespace {

constexpr unsigned kLanes = 32;

// Lane l copies chunk l of `from` in a first group and chunk 32 + l in a second; it sees its own first chunk when one
// group may be under way, and its neighbour's second one when none is.
__global__ void copies(const uint4* from, const int32_t* valid, uint4* to) {
  SHARED_MEMORY(raw);
  uint4* shared = reinterpret_cast<uint4*>(raw);
  const unsigned lane = threadIdx.x;
  for (unsigned group = 0; group < 2; ++group) {
    const unsigned chunk = group * kLanes + lane;
    copy_async(shared + chunk, from + chunk, valid[chunk] != 0);
    copy_commit();
  }
  copy_wait<1>();
  to[lane] = shared[lane];
  copy_wait<0>();
  __syncthreads();
  to[kLanes + lane] = shared[kLanes + (lane + 1) % kLanes];
}

// Shared memory holds 32 rows of 16 bytes; lane l gives the address of row order[l].
template <bool kTransposed>
__global__ void matrices(const uint4* rows, const int32_t* order, uint32_t* words) {
  SHARED_MEMORY(raw);
  uint4* shared = reinterpret_cast<uint4*>(raw);
  const unsigned lane = threadIdx.x;
  shared[lane] = rows[lane];
  __syncthreads();
  uint32_t own[4];
  if (kTransposed) {
    load_matrices_transposed(own, shared + order[lane]);
  } else {
    load_matrices(own, shared + order[lane]);
  }
  for (unsigned i = 0; i < 4; ++i) words[lane * 4 + i] = own[i];
}

__global__ void words(const uint32_t* from, const int32_t* order, uint32_t* to) {
  SHARED_MEMORY(raw);
  uint32_t* shared = reinterpret_cast<uint32_t*>(raw);
  shared[threadIdx.x] = from[threadIdx.x];
  __syncthreads();
  to[threadIdx.x] = load_word(shared + order[threadIdx.x]);
}

__global__ void rounded(const uint32_t* from, uint32_t* to) { to[threadIdx.x] = round_to_tf32(from[threadIdx.x]); }

// Four words of a, two of b and four sums a lane.
template <class T>
__global__ void product(const uint32_t* a, const uint32_t* b, const float* c, float* d) {
  const unsigned lane = threadIdx.x;
  uint32_t own[4];
  float sums[4];
  for (unsigned i = 0; i < 4; ++i) {
    own[i] = a[lane * 4 + i];
    sums[i] = c[lane * 4 + i];
  }
  multiply<T>(sums, own, b[lane * 2], b[lane * 2 + 1]);
  for (unsigned i = 0; i < 4; ++i) d[lane * 4 + i] = sums[i];
}

template <class... Parameters, class... Arguments>
int32_t run(void (*kernel)(Parameters...), Arguments... arguments) {
  return launch(kernel, dim3(1), dim3(kLanes), 2048, Stream{}, arguments...);
}

}  // namespace

EXPORTED int32_t run_copies(const uint4* from, const int32_t* valid, uint4* to) { return run(copies, from, valid, to); }

EXPORTED int32_t run_matrices(int32_t transposed, const uint4* rows, const int32_t* order, uint32_t* words) {
  return transposed ? run(matrices<true>, rows, order, words) : run(matrices<false>, rows, order, words);
}

EXPORTED int32_t run_words(const uint32_t* from, const int32_t* order, uint32_t* to) {
  return run(words, from, order, to);
}

EXPORTED int32_t run_rounded(const uint32_t* from, uint32_t* to) { return run(rounded, from, to); }

EXPORTED int32_t run_product_bf16(const uint32_t* a, const uint32_t* b, const float* c, float* d) {
  return run(product<bf16>, a, b, c, d);
}
EXPORTED int32_t run_product_f16(const uint32_t* a, const uint32_t* b, const float* c, float* d) {
  return run(product<f16>, a, b, c, d);
}
EXPORTED int32_t run_product_f32(const uint32_t* a, const uint32_t* b, const float* c, float* d) {
  return run(product<float>, a, b, c, d);
}

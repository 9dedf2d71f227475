// Bare multiply-adds: the most that a core's arithmetic can reach, which the benchmark holds kernels against.
#include "dispatch.h"
#include "simd.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// Enough independent sums to hide the latency of two units, few enough to stay in registers.
constexpr int kSums = kVectorRegisters >= 32 ? 20 : 12;

// x -> x / 2 + 1 goes to 2 from everywhere: no overflow, no subnormal.
template <class Compute>
int64_t run(int64_t rounds) {
  const vec<Compute> half = broadcast<Compute>(Compute(0.5)), one = broadcast<Compute>(Compute(1));
  vec<Compute> sums[kSums];
  SC_UNROLL for (int i = 0; i < kSums; ++i) sums[i] = broadcast<Compute>(Compute(i));
  for (int64_t round = 0; round < rounds; ++round) {
    SC_UNROLL for (int i = 0; i < kSums; ++i) sums[i] = fma(sums[i], half, one);
  }
  SC_UNROLL for (int i = 1; i < kSums; ++i) sums[0] += sums[i];
  volatile Compute used = sum_of_lanes<Compute>(sums[0]);
  (void)used;
  return rounds * kSums * kLanes<Compute> * 2;
}

}  // namespace

extern int64_t multiply_adds(DType dtype, int64_t rounds);
int64_t multiply_adds(DType dtype, int64_t rounds) {
  return dtype == DType::f64 ? run<double>(rounds) : run<float>(rounds);
}

}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

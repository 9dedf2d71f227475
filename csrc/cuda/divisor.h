// Division of a non-negative int32 by a divisor known before the launch, as a multiplication and a shift.
// (Granlund and Montgomery, "Division by invariant integers using multiplication", 1994.)
#pragma once
#include <cstdint>

#include "launch.h"

namespace spatialconv {
namespace cuda {

class Divisor {
 public:
  explicit Divisor(int32_t divisor = 1) {
    while ((int64_t{1} << shift_) < divisor) ++shift_;
    multiplier_ = static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << shift_) - divisor)) / divisor + 1);
  }

  __device__ __forceinline__ int32_t quotient(int32_t value) const {
    const uint32_t n = static_cast<uint32_t>(value);
    return static_cast<int32_t>((__umulhi(n, multiplier_) + n) >> shift_);
  }

 private:
  uint32_t multiplier_ = 0, shift_ = 0;
};

}  // namespace cuda
}  // namespace spatialconv

// Values that lie side by side and are moved by one instruction, and the division of a position by a size.
#pragma once
#include <cstdint>

#include "launch.h"

namespace spatialconv {
namespace cuda {

template <class Value, int kCount>
struct alignas(sizeof(Value) * kCount) Vector {
  Value value[kCount];
};

// Values in the widest load there is, 16 bytes.
template <class Value>
constexpr int kVectorWidth = 16 / sizeof(Value);

template <class Value, int kCount>
__device__ __forceinline__ Vector<Value, kCount> load_vector(const Value* from) {
  return *reinterpret_cast<const Vector<Value, kCount>*>(from);
}

template <class Value, int kCount>
__device__ __forceinline__ void store_vector(Value* to, const Vector<Value, kCount>& vector) {
  *reinterpret_cast<Vector<Value, kCount>*>(to) = vector;
}

__host__ __device__ __forceinline__ bool is_aligned(const void* address, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(bytes) == 0;
}

struct Divided {
  int64_t quotient;
  int32_t remainder;
};

// Of values that are not negative. Division of 64 bits takes a hundred instructions, and is seldom needed.
__device__ __forceinline__ Divided divide(int64_t value, int32_t by) {
  if (value <= INT32_MAX) {
    const uint32_t narrow = static_cast<uint32_t>(value), divisor = static_cast<uint32_t>(by);
    return {narrow / divisor, static_cast<int32_t>(narrow % divisor)};
  }
  return {value / by, static_cast<int32_t>(value % by)};
}

}  // namespace cuda
}  // namespace spatialconv

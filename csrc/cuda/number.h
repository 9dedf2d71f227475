// Element types, the types in which arithmetic is done on them, and the conversions between the two: exact when widening,
// to nearest even when narrowing, NaN stays NaN.
#pragma once
#include <cstdint>

#include "../common/problem.h"
#include "launch.h"
#if !defined(EMULATED)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace spatialconv {
namespace cuda {

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

template <class Storage>
struct compute_of {
  using type = Storage;
};
template <>
struct compute_of<bf16> {
  using type = float;
};
template <>
struct compute_of<f16> {
  using type = float;
};
template <class Storage>
using compute_t = typename compute_of<Storage>::type;

template <class Storage>
struct dtype_of;
template <>
struct dtype_of<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct dtype_of<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct dtype_of<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct dtype_of<f16> {
  static constexpr DType value = DType::f16;
};

__host__ __device__ inline float to_compute(float value) { return value; }
__host__ __device__ inline double to_compute(double value) { return value; }

__device__ inline float to_compute(bf16 value) { return __uint_as_float(static_cast<uint32_t>(value.bits) << 16); }

__device__ inline float to_compute(f16 value) {
#if defined(EMULATED)
  const uint32_t sign = (value.bits & 0x8000u) << 16, magnitude = value.bits & 0x7FFFu;
  if (magnitude >= 0x7C00u) return __uint_as_float(sign | 0x7F800000u | (magnitude & 0x3FFu) << 13);
  // Halves, small ones too, are floats of the same bits 112 powers of two too low.
  const float scaled = __uint_as_float(magnitude << 13) * 0x1p112f;
  return __uint_as_float(sign | __float_as_uint(scaled));
#else
  return __half2float(__ushort_as_half(value.bits));
#endif
}

template <class Storage>
__device__ inline Storage from_compute(compute_t<Storage> value) {
  return value;
}

template <>
__device__ inline bf16 from_compute<bf16>(float value) {
#if defined(EMULATED)
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return {0x7FFF};
  return {static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16)};
#else
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#endif
}

template <>
__device__ inline f16 from_compute<f16>(float value) {
#if defined(EMULATED)
  const uint32_t bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return {0x7FFF};
  uint32_t half;
  if (magnitude >= 0x477FF000u) {
    half = 0x7C00u;  // 65520 and more round to infinity
  } else if (magnitude < 0x38800000u) {
    // Below the least normal half its spacing is that of floats near 1/2: adding rounds, the low bits are the result.
    half = __float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3F000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(sign | half)};
#else
  return {__half_as_ushort(__float2half_rn(value))};
#endif
}

}  // namespace cuda
}  // namespace spatialconv

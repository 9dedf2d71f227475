// Copies of 16-bit numbers, whose bits are not looked at. Nothing past the last one is read or written.
#pragma once
#include <cstdint>
#include <cstring>

#include "simd.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace dots {

// The n numbers that are fewer than 2 * piece, in pieces of sizes the compiler knows.
template <int64_t piece>
SC_INLINE void copy_rest(bf16* to, const bf16* from, int64_t n) {
  if ((n & piece) != 0) {
    std::memcpy(to, from, piece * sizeof(bf16));
    to += piece;
    from += piece;
  }
  if constexpr (piece > 1) copy_rest<piece / 2>(to, from, n);
}
SC_INLINE void copy(bf16* to, const bf16* from, int64_t n) {
  for (; n >= 32; n -= 32, to += 32, from += 32) std::memcpy(to, from, 32 * sizeof(bf16));
  copy_rest<16>(to, from, n);
}

SC_INLINE void copy_strided(bf16* to, const bf16* from, int64_t stride, int64_t n) {
  if (stride == 1) return copy(to, from, n);
  for (int64_t i = 0; i < n; ++i) to[i] = from[i * stride];
}

template <int64_t piece>
SC_INLINE void zero_rest(bf16* to, int64_t n) {
  if ((n & piece) != 0) {
    std::memset(to, 0, piece * sizeof(bf16));
    to += piece;
  }
  if constexpr (piece > 1) zero_rest<piece / 2>(to, n);
}
SC_INLINE void zeros(bf16* to, int64_t n) {
  for (; n >= 32; n -= 32, to += 32) std::memset(to, 0, 32 * sizeof(bf16));
  zero_rest<16>(to, n);
}

}  // namespace dots
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

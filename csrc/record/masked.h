// Included before everything else in a recorded kernel file. Masked loads and stores are compiler built-ins, which the
// instrumentation passes over: here each tells of the lanes that its mask selects, which are neighbours.
#pragma once
#include <cstdint>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>

extern "C" void spatialconv_touch(const void* first, int64_t bytes, int store);

namespace spatialconv_masked {

inline void touch(const void* p, uint32_t lanes, int64_t lane_bytes, int store) {
  if (lanes == 0) return;
  const int64_t first = __builtin_ctz(lanes), count = __builtin_popcount(lanes);
  spatialconv_touch(static_cast<const char*>(p) + first * lane_bytes, count * lane_bytes, store);
}

inline __m256 load(const float* p, __m256i mask) {
  touch(p, static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(mask))), 4, 0);
  return _mm256_maskload_ps(p, mask);
}
inline __m256d load(const double* p, __m256i mask) {
  touch(p, static_cast<uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(mask))), 8, 0);
  return _mm256_maskload_pd(p, mask);
}
#if defined(__AVX512F__)
inline __m512 load(const float* p, __mmask16 mask) {
  touch(p, mask, 4, 0);
  return _mm512_maskz_loadu_ps(mask, p);
}
inline __m512d load(const double* p, __mmask8 mask) {
  touch(p, mask, 8, 0);
  return _mm512_maskz_loadu_pd(mask, p);
}
inline __m256i load(const void* p, __mmask16 mask) {
  touch(p, mask, 2, 0);
  return _mm256_maskz_loadu_epi16(mask, p);
}
inline void store(float* p, __mmask16 mask, __m512 v) {
  touch(p, mask, 4, 1);
  _mm512_mask_storeu_ps(p, mask, v);
}
inline void store(double* p, __mmask8 mask, __m512d v) {
  touch(p, mask, 8, 1);
  _mm512_mask_storeu_pd(p, mask, v);
}
inline void store(void* p, __mmask16 mask, __m256i v) {
  touch(p, mask, 2, 1);
  _mm256_mask_storeu_epi16(p, mask, v);
}
#define _mm512_maskz_loadu_ps(mask, p) spatialconv_masked::load(static_cast<const float*>(p), mask)
#define _mm512_maskz_loadu_pd(mask, p) spatialconv_masked::load(static_cast<const double*>(p), mask)
#define _mm256_maskz_loadu_epi16(mask, p) spatialconv_masked::load(static_cast<const void*>(p), mask)
#define _mm512_mask_storeu_ps(p, mask, v) spatialconv_masked::store(static_cast<float*>(p), mask, v)
#define _mm512_mask_storeu_pd(p, mask, v) spatialconv_masked::store(static_cast<double*>(p), mask, v)
#define _mm256_mask_storeu_epi16(p, mask, v) spatialconv_masked::store(static_cast<void*>(p), mask, v)
#endif
#define _mm256_maskload_ps(p, mask) spatialconv_masked::load(static_cast<const float*>(p), mask)
#define _mm256_maskload_pd(p, mask) spatialconv_masked::load(static_cast<const double*>(p), mask)

}  // namespace spatialconv_masked
#endif

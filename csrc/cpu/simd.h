// The one place of vector loads, stores and arithmetic. Kernels are plain code over vec<float> and vec<double>,
// compiled once per instruction-set level; 16-bit floats are widened on load and rounded to nearest even on store.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#ifndef SPATIALCONV_ISA
#define SPATIALCONV_ISA baseline
#endif

#define SC_INLINE inline __attribute__((always_inline))
#define SC_UNROLL _Pragma("GCC unroll 32")

// The size of a vector, which lanes and tiles follow; instructions follow what the compiler was allowed. With
// SPATIALCONV_WIDE a level has the tiles of AVX-512 in generic vectors: slow, but tests of it run on any machine.
#if defined(__AVX512F__) || defined(SPATIALCONV_WIDE)
#define SC_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define SC_VECTOR_BYTES 32
#else
#define SC_VECTOR_BYTES 16
#endif

namespace spatialconv {
namespace SPATIALCONV_ISA {

constexpr int kVectorBytes = SC_VECTOR_BYTES;
constexpr int kVectorRegisters = kVectorBytes == 64 ? 32 : 16;

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

// The type arithmetic is done in, for each storage type.
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

template <class Compute>
struct vector_of {
  typedef Compute type __attribute__((vector_size(kVectorBytes)));
};
template <class Compute>
using vec = typename vector_of<Compute>::type;
template <class Compute>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Compute));

SC_INLINE float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
SC_INLINE uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

// Scalar conversions. The half conversions follow Fabian Giesen's "float->half variants" (public domain), without
// branches on the common path.
SC_INLINE float widen(float value) { return value; }
SC_INLINE double widen(double value) { return value; }
SC_INLINE float widen(bf16 value) { return bits_to_float(static_cast<uint32_t>(value.bits) << 16); }
SC_INLINE float widen(f16 value) {
#if defined(__F16C__)
  return _cvtsh_ss(value.bits);
#else
  const uint32_t exponent_and_mantissa = static_cast<uint32_t>(value.bits & 0x7fff) << 13;
  const uint32_t exponent = exponent_and_mantissa & (0x7c00u << 13);
  uint32_t bits = exponent_and_mantissa + ((127 - 15) << 23);
  if (exponent == (0x7c00u << 13)) {
    bits += (128 - 16) << 23;
  } else if (exponent == 0) {
    bits = float_to_bits(bits_to_float(bits + (1u << 23)) - bits_to_float(113u << 23));
  }
  return bits_to_float(bits | (static_cast<uint32_t>(value.bits & 0x8000) << 16));
#endif
}

template <class Storage>
SC_INLINE Storage narrow(compute_t<Storage> value) {
  if constexpr (std::is_same_v<Storage, bf16>) {
    uint32_t bits = float_to_bits(value);
    if (value != value) return bf16{static_cast<uint16_t>((bits >> 16) | 0x40)};
    bits += 0x7fff + ((bits >> 16) & 1);
    return bf16{static_cast<uint16_t>(bits >> 16)};
  } else if constexpr (std::is_same_v<Storage, f16>) {
#if defined(__F16C__)
    return f16{static_cast<uint16_t>(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT))};
#else
    uint32_t bits = float_to_bits(value);
    const uint32_t sign = bits & 0x80000000u;
    bits ^= sign;
    uint32_t half;
    if (bits >= (127u + 16) << 23) {
      half = bits > (255u << 23) ? 0x7e00 : 0x7c00;
    } else if (bits < 113u << 23) {
      half = float_to_bits(bits_to_float(bits) + bits_to_float(((127u - 15) + (23 - 10) + 1) << 23)) -
             (((127u - 15) + (23 - 10) + 1) << 23);
    } else {
      half = (bits + (static_cast<uint32_t>(15 - 127) << 23) + 0xfff + ((bits >> 13) & 1)) >> 13;
    }
    return f16{static_cast<uint16_t>(half | (sign >> 16))};
#endif
  } else {
    return value;
  }
}

template <class Compute>
SC_INLINE vec<Compute> broadcast(Compute value) {
  return value - vec<Compute>{};
}
template <class Compute>
SC_INLINE vec<Compute> zero() {
  return vec<Compute>{};
}

template <int (*order)(int lane, int lanes), class Compute, int... lane>
SC_INLINE vec<Compute> shuffle_lanes(vec<Compute> a, vec<Compute> b, std::integer_sequence<int, lane...>) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, order(lane, sizeof...(lane))...);
#else
  using Lanes = decltype(a < b);
  return __builtin_shuffle(a, b, Lanes{order(lane, sizeof...(lane))...});
#endif
}
// Lane i is lane order(i, kLanes) of a and b, counted on from one to the other.
template <int (*order)(int lane, int lanes), class Compute>
SC_INLINE vec<Compute> shuffle(vec<Compute> a, vec<Compute> b) {
  return shuffle_lanes<order, Compute>(a, b, std::make_integer_sequence<int, kLanes<Compute>>{});
}

#if defined(__AVX512F__)
// One vector of 16-bit floats to and from float.
template <class Storage>
SC_INLINE vec<float> widen_bits(__m256i bits) {
  if constexpr (std::is_same_v<Storage, f16>) return (vec<float>)_mm512_cvtph_ps(bits);
  return (vec<float>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
}
template <class Storage>
SC_INLINE __m256i narrow_bits(vec<float> v) {
  if constexpr (std::is_same_v<Storage, f16>) return _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
  const __m512i bits = (__m512i)v;
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
  rounded = _mm512_mask_or_epi32(rounded, nan, _mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
  return _mm512_cvtepi32_epi16(rounded);
}
#elif defined(__AVX2__) && defined(__F16C__)
template <class Storage>
SC_INLINE vec<float> widen_bits(__m128i bits) {
  if constexpr (std::is_same_v<Storage, f16>) return (vec<float>)_mm256_cvtph_ps(bits);
  return (vec<float>)_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16);
}
template <class Storage>
SC_INLINE __m128i narrow_bits(vec<float> v) {
  if constexpr (std::is_same_v<Storage, f16>) return _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
  const __m256i bits = (__m256i)v, upper = _mm256_srli_epi32(bits, 16);
  const __m256i half = _mm256_add_epi32(_mm256_and_si256(upper, _mm256_set1_epi32(1)), _mm256_set1_epi32(0x7fff));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
  const __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps((__m256)v, (__m256)v, _CMP_UNORD_Q));
  const __m256i words = _mm256_blendv_epi8(rounded, quiet, nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}
#endif

// Which lanes of a vector are meant: those first <= i < last, and bounds outside [0, kLanes] mean what they say.
#if defined(__AVX512F__)
template <class Compute>
using lane_mask = uint32_t;
#else
template <class Compute>
using lane_mask = decltype(vec<Compute>{} < vec<Compute>{});
#endif

template <class Compute>
SC_INLINE lane_mask<Compute> lanes_between(int64_t first, int64_t last) {
  const auto bound = [](int64_t at) { return at < 0 ? 0 : at > kLanes<Compute> ? kLanes<Compute> : at; };
#if defined(__AVX512F__)
  return ((1u << bound(last)) - 1) & ~((1u << bound(first)) - 1);
#else
  lane_mask<Compute> lane{};
  using Index = decltype(lane[0] + 0);
  for (int i = 0; i < kLanes<Compute>; ++i) lane[i] = i;
  return (lane >= static_cast<Index>(bound(first))) & (lane < static_cast<Index>(bound(last)));
#endif
}

// a in the lanes of a mask, b in the others.
template <class Compute>
SC_INLINE vec<Compute> select(lane_mask<Compute> mask, vec<Compute> a, vec<Compute> b) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<Compute, float>) {
    return (vec<Compute>)_mm512_mask_blend_ps((__mmask16)mask, (__m512)b, (__m512)a);
  } else {
    return (vec<Compute>)_mm512_mask_blend_pd((__mmask8)mask, (__m512d)b, (__m512d)a);
  }
#else
  return mask ? a : b;
#endif
}

// load: kLanes values from memory of any alignment; load_n: the first n >= 1, zeros behind, touching nothing past them.
template <class Storage>
SC_INLINE vec<compute_t<Storage>> load(const Storage* p) {
  using V = vec<compute_t<Storage>>;
  V v;
  if constexpr (std::is_same_v<Storage, compute_t<Storage>>) {
    std::memcpy(&v, p, sizeof v);
  } else {
#if defined(__AVX512F__)
    v = widen_bits<Storage>(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__AVX2__) && defined(__F16C__)
    v = widen_bits<Storage>(_mm_loadu_si128((const __m128i*)p));
#else
    for (int i = 0; i < kLanes<float>; ++i) v[i] = widen(p[i]);
#endif
  }
  return v;
}

// The lanes of a mask; zeros in the others, whose memory is not touched.
template <class Storage>
SC_INLINE vec<compute_t<Storage>> load_masked(const Storage* p, lane_mask<compute_t<Storage>> mask) {
  using C = compute_t<Storage>;
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<Storage, double>) {
    return (vec<C>)_mm512_maskz_loadu_pd((__mmask8)mask, p);
  } else if constexpr (std::is_same_v<Storage, float>) {
    return (vec<C>)_mm512_maskz_loadu_ps((__mmask16)mask, p);
  } else {
    return widen_bits<Storage>(_mm256_maskz_loadu_epi16((__mmask16)mask, p));
  }
#else
#if defined(__AVX2__)
  if constexpr (std::is_same_v<Storage, float>) {
    return (vec<C>)_mm256_maskload_ps(p, (__m256i)mask);
  } else if constexpr (std::is_same_v<Storage, double>) {
    return (vec<C>)_mm256_maskload_pd(p, (__m256i)mask);
  }
#endif
  vec<C> v{};
  for (int i = 0; i < kLanes<C>; ++i) {
    if (mask[i] != 0) v[i] = widen(p[i]);
  }
  return v;
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// The first 1 <= n < 8 of 16-bit elements, as two overlapping pieces of which the second is shifted into its place.
SC_INLINE __m128i load_part(const void* p, int64_t n) {
  const char* bytes = static_cast<const char*>(p);
  const auto piece = [&](auto word, int64_t at) {
    std::memcpy(&word, bytes + 2 * at, sizeof word);
    return static_cast<uint64_t>(word);
  };
  if (n >= 4) {
    const int64_t shift = 8 * (8 - n);  // twice: all 64 bits at once would be undefined
    return _mm_set_epi64x(piece(uint64_t{}, n - 4) >> shift >> shift, piece(uint64_t{}, 0));
  }
  if (n == 1) return _mm_cvtsi64_si128(piece(uint16_t{}, 0));
  return _mm_cvtsi64_si128(piece(uint32_t{}, 0) | piece(uint32_t{}, n - 2) >> (16 * (4 - n)) << 32);
}
#endif

template <class Storage>
SC_INLINE vec<compute_t<Storage>> load_n(const Storage* p, int64_t n) {
  using C = compute_t<Storage>;
  if (n >= kLanes<C>) return load(p);
#if defined(__AVX512F__)
  return load_masked(p, lanes_between<C>(0, n));
#else
#if defined(__AVX2__)
  if constexpr (std::is_same_v<Storage, C>) return load_masked(p, lanes_between<C>(0, n));
#if defined(__F16C__)
  if constexpr (!std::is_same_v<Storage, C>) return widen_bits<Storage>(load_part(p, n));
#endif
#endif
  Storage staged[kLanes<C>];
  std::memset(staged, 0, sizeof staged);
  std::memcpy(staged, p, static_cast<size_t>(n) * sizeof(Storage));
  return load(staged);
#endif
}

template <class Storage>
SC_INLINE void store(Storage* p, vec<compute_t<Storage>> v) {
  if constexpr (std::is_same_v<Storage, compute_t<Storage>>) {
    std::memcpy(p, &v, sizeof v);
  } else {
#if defined(__AVX512F__)
    _mm256_storeu_si256((__m256i*)p, narrow_bits<Storage>(v));
#elif defined(__AVX2__) && defined(__F16C__)
    _mm_storeu_si128((__m128i*)p, narrow_bits<Storage>(v));
#else
    for (int i = 0; i < kLanes<float>; ++i) p[i] = narrow<Storage>(v[i]);
#endif
  }
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// The first 1 <= n < kLanes lanes, as two overlapping pieces: masked stores take dozens of cycles on some processors.
SC_INLINE void store_part(float* p, vec<float> v, int64_t n) {
  const __m128 low = _mm256_castps256_ps128((__m256)v);
  if (n >= 4) {
    const __m256i last = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32((int)n - 4));
    _mm_storeu_ps(p, low);
    _mm_storeu_ps(p + n - 4, _mm256_castps256_ps128(_mm256_permutevar8x32_ps((__m256)v, last)));
  } else if (n >= 2) {
    _mm_storel_pi((__m64*)p, low);
    if (n == 3) _mm_store_ss(p + 2, _mm_movehl_ps(low, low));
  } else {
    _mm_store_ss(p, low);
  }
}
SC_INLINE void store_part(double* p, vec<double> v, int64_t n) {
  const __m128d low = _mm256_castpd256_pd128((__m256d)v);
  if (n == 1) return _mm_store_sd(p, low);
  _mm_storeu_pd(p, low);
  if (n == 3) _mm_store_sd(p + 2, _mm256_extractf128_pd((__m256d)v, 1));
}
#endif

// The first n >= 1 lanes; nothing past them is touched.
template <class Storage>
SC_INLINE void store_n(Storage* p, vec<compute_t<Storage>> v, int64_t n) {
  using C = compute_t<Storage>;
  if (n >= kLanes<C>) return store(p, v);
#if defined(__AVX512F__)
  const uint32_t mask = (1u << n) - 1;
  if constexpr (std::is_same_v<Storage, double>) {
    _mm512_mask_storeu_pd(p, (__mmask8)mask, (__m512d)v);
  } else if constexpr (std::is_same_v<Storage, float>) {
    _mm512_mask_storeu_ps(p, (__mmask16)mask, (__m512)v);
  } else {
    _mm256_mask_storeu_epi16(p, (__mmask16)mask, narrow_bits<Storage>(v));
  }
#else
#if defined(__AVX2__)
  if constexpr (std::is_same_v<Storage, C>) return store_part(p, v, n);
#endif
  Storage staged[kLanes<C>];
  store(staged, v);
  if constexpr (sizeof(Storage) == 2 && kLanes<C> <= 8) {
    // Overlapping pieces of sizes the compiler knows.
    const auto copy = [&](auto count, int64_t at) { std::memcpy(p + at, staged + at, count() * sizeof(Storage)); };
    constexpr std::integral_constant<size_t, 4> four{};
    constexpr std::integral_constant<size_t, 2> two{};
    if (n >= 4) return copy(four, 0), copy(four, n - 4);
    if (n >= 2) return copy(two, 0), copy(two, n - 2);
    p[0] = staged[0];
  } else {
    std::memcpy(p, staged, static_cast<size_t>(n) * sizeof(Storage));
  }
#endif
}

// Two vectors of consecutive values with their lanes in an order of its own, the cheapest: for bf16 the even elements
// and the odd ones, each widened by one instruction. store_both puts such lanes back in their places.
template <class Storage>
SC_INLINE void load_both(const Storage* p, vec<compute_t<Storage>>& a, vec<compute_t<Storage>>& b) {
  if constexpr (std::is_same_v<Storage, bf16>) {
    typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
    Bits bits;
    std::memcpy(&bits, p, sizeof bits);
    a = (vec<float>)(bits << 16);
    b = (vec<float>)(bits & 0xffff0000u);
  } else {
    a = load(p);
    b = load(p + kLanes<compute_t<Storage>>);
  }
}
template <class Storage>
SC_INLINE void store_both(Storage* p, vec<compute_t<Storage>> a, vec<compute_t<Storage>> b) {
  if constexpr (std::is_same_v<Storage, bf16>) {
    typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));
    const auto rounded = [](vec<float> v) {
      const Bits bits = (Bits)v;
      return v != v ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u);
    };
    const Bits bits = rounded(a) >> 16 | (rounded(b) & 0xffff0000u);
    std::memcpy(p, &bits, sizeof bits);
  } else {
    store(p, a);
    store(p + kLanes<compute_t<Storage>>, b);
  }
}

constexpr int every_even(int lane, int) { return 2 * lane; }
constexpr int every_odd(int lane, int) { return 2 * lane + 1; }
constexpr int every_second(int lane, int lanes) { return lane < lanes / 2 ? 2 * lane : 2 * lane + 1; }

// Lane i reads p[i * stride], for i < n; zeros behind.
template <class Storage>
SC_INLINE vec<compute_t<Storage>> load_strided_n(const Storage* p, int64_t stride, int64_t n) {
  using C = compute_t<Storage>;
  if (stride == 1) return load_n(p, n);
  // Two loads and a shuffle beat a gather; the second load stops at the last value wanted.
  if (stride == 2 && n == kLanes<C>) return shuffle<every_second, C>(load(p), load(p + kLanes<C> - 1));
  if (stride == 2 && 2 * n > kLanes<C>) {
    return shuffle<every_even, C>(load(p), load_n(p + kLanes<C>, 2 * n - 1 - kLanes<C>));
  }
  vec<C> v{};
  for (int64_t i = 0; i < n && i < kLanes<C>; ++i) v[i] = widen(p[i * stride]);
  return v;
}

// a * b + c, fused where the level has FMA. Named there, not left to contraction: a compiler contracts in one tile and
// not in the next, and the same sum must come out of both.
template <class V>
SC_INLINE V fma(V a, V b, V c) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<V, vec<float>>) return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
  else return (V)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX2__) && defined(__FMA__)
  if constexpr (std::is_same_v<V, vec<float>>) return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
  else return (V)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

// Keeps the compiler from moving a value's computation past this point; left alone it sinks chains of FMAs into the
// conditional stores and spills.
template <class V>
SC_INLINE void pin(V& v) {
#if defined(__AVX512F__)
  asm volatile("" : "+v"(v));
#elif defined(__x86_64__) && SC_VECTOR_BYTES < 64
  asm volatile("" : "+x"(v));
#else
  (void)v;
#endif
}

// The same for an address: many addresses a distance apart, all computed at once, do not fit the registers.
template <class T>
SC_INLINE void pin(const T*& address) {
  asm volatile("" : "+r"(address));
}

// fma(a, b, c) in the lanes first <= i < last, c elsewhere: for products with what is not there, which must not be
// formed where the other factor may be infinite.
template <class Compute>
SC_INLINE vec<Compute> fma_between(vec<Compute> a, vec<Compute> b, vec<Compute> c, int64_t first, int64_t last) {
#if defined(__AVX512F__)
  const uint32_t mask = lanes_between<Compute>(first, last);
  if constexpr (std::is_same_v<Compute, float>) {
    return (vec<Compute>)_mm512_mask3_fmadd_ps((__m512)a, (__m512)b, (__m512)c, (__mmask16)mask);
  } else {
    return (vec<Compute>)_mm512_mask3_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c, (__mmask8)mask);
  }
#else
  return select<Compute>(lanes_between<Compute>(first, last), fma(a, b, c), c);
#endif
}

// The sum of all lanes, halves added first, then quarters, and so on.
template <class Compute>
SC_INLINE Compute sum_of_lanes(vec<Compute> v) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<Compute, float>) return _mm512_reduce_add_ps((__m512)v);
  else return _mm512_reduce_add_pd((__m512d)v);
#elif defined(__AVX2__)
  if constexpr (std::is_same_v<Compute, float>) {
    const __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    const __m128 quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)));
  } else {
    const __m128d half = _mm_add_pd(_mm256_castpd256_pd128((__m256d)v), _mm256_extractf128_pd((__m256d)v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
  }
#else
  Compute lanes[kLanes<Compute>];
  std::memcpy(lanes, &v, sizeof lanes);
  for (int width = kLanes<Compute> / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
#endif
}

// v, or the bound where v is beyond it; a NaN in v stays.
template <class V>
SC_INLINE V at_least(V v, V bound) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<V, vec<float>>) return (V)_mm512_max_ps((__m512)bound, (__m512)v);
  else return (V)_mm512_max_pd((__m512d)bound, (__m512d)v);
#elif defined(__AVX2__)
  if constexpr (std::is_same_v<V, vec<float>>) return (V)_mm256_max_ps((__m256)bound, (__m256)v);
  else return (V)_mm256_max_pd((__m256d)bound, (__m256d)v);
#else
  return bound > v ? bound : v;
#endif
}
template <class V>
SC_INLINE V at_most(V v, V bound) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<V, vec<float>>) return (V)_mm512_min_ps((__m512)bound, (__m512)v);
  else return (V)_mm512_min_pd((__m512d)bound, (__m512d)v);
#elif defined(__AVX2__)
  if constexpr (std::is_same_v<V, vec<float>>) return (V)_mm256_min_ps((__m256)bound, (__m256)v);
  else return (V)_mm256_min_pd((__m256d)bound, (__m256d)v);
#else
  return bound < v ? bound : v;
#endif
}

// Whether no lane is infinite or NaN.
template <class Compute>
SC_INLINE bool all_finite(vec<Compute> v) {
  const vec<Compute> rest = v - v;
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<Compute, float>) {
    return _mm512_cmp_ps_mask((__m512)rest, (__m512)rest, _CMP_UNORD_Q) == 0;
  }
  else return _mm512_cmp_pd_mask((__m512d)rest, (__m512d)rest, _CMP_UNORD_Q) == 0;
#elif defined(__AVX2__)
  if constexpr (std::is_same_v<Compute, float>) return _mm256_movemask_ps((__m256)(rest != rest)) == 0;
  else return _mm256_movemask_pd((__m256d)(rest != rest)) == 0;
#else
  bool finite = true;
  for (int i = 0; i < kLanes<Compute>; ++i) finite &= rest[i] == 0;
  return finite;
#endif
}

// The larger lane by lane; a NaN on either side wins, as in torch.
template <class V>
SC_INLINE V max_or_nan(V a, V b) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  // The instruction gives b where either is NaN.
  if constexpr (std::is_same_v<V, vec<float>>) {
    const __m256 larger = _mm256_max_ps((__m256)a, (__m256)b);
    return (V)_mm256_blendv_ps(larger, (__m256)a, _mm256_cmp_ps((__m256)a, (__m256)a, _CMP_UNORD_Q));
  }
#endif
  return ((b > a) | (b != b)) ? b : a;
}

}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

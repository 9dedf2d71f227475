// The instructions that multiply pairs of bfloat16 and add in float, each in one place, with its twin in plain C++
// beside it. Source: Intel, "64 and IA-32 Architectures Software Developer's Manual", volume 2: LDTILECFG, TDPBF16PS,
// TILELOADD, TILERELEASE, TILESTORED, TILEZERO, VDPBF16PS. They are asm, which needs no flag of the compiler's: one
// object holds instructions and twins, and which of them run is decided by the processor.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "simd.h"

// Whether compiler and level know the instructions.
#if defined(__AVX512F__) && defined(__x86_64__)
#if defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11
#define SC_DOTS
#endif
#endif

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace dots {

// A tile: rows of so many bytes, which are 32 numbers, 16 pairs or 16 sums.
constexpr int64_t kRows = 16, kRowBytes = 64, kRowNumbers = 32, kTileBytes = kRows * kRowBytes;
constexpr int kTiles = 8;

// What LDTILECFG reads; palette 1 has eight tiles.
struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64, "as the manual has it");

inline TileConfig whole_tiles() {
  TileConfig config;
  for (int tile = 0; tile < kTiles; ++tile) {
    config.row_bytes[tile] = kRowBytes;
    config.rows[tile] = kRows;
  }
  return config;
}

// Both instructions take subnormal numbers for zeros and give zeros for them, whatever the thread's mode. (Of the sums
// that round up to the smallest normal number, a processor flushes those that would not with more exponents.)
SC_INLINE float flushed(float value) { return std::fabs(value) < 0x1p-126f ? std::copysign(0.0f, value) : value; }
SC_INLINE float multiply_add(bf16 a, bf16 b, float sum) {
  return flushed(std::fma(flushed(widen(a)), flushed(widen(b)), flushed(sum)));
}
SC_INLINE float add(float a, float b) { return flushed(flushed(a) + flushed(b)); }

// The tile registers of the thread that has one of these.
class TileTwin {
 public:
  TileTwin() : config_(whole_tiles()) {}
  TileTwin(const TileTwin&) = delete;

  template <int tile>
  void zero() {
    std::memset(data_[tile], 0, kTileBytes);
  }
  // Row i from, and to, `stride` bytes after row i - 1.
  template <int tile>
  void load(const void* from, int64_t stride) {
    zero<tile>();
    for (int64_t i = 0; i < config_.rows[tile]; ++i) {
      std::memcpy(data_[tile][i], static_cast<const char*>(from) + i * stride, config_.row_bytes[tile]);
    }
  }
  template <int tile>
  void store(void* to, int64_t stride) const {
    for (int64_t i = 0; i < config_.rows[tile]; ++i) {
      std::memcpy(static_cast<char*>(to) + i * stride, data_[tile][i], config_.row_bytes[tile]);
    }
  }
  // sums[i][j] += the products of row i of `a` with pair j of each row of `b`: first numbers and second numbers of all
  // pairs are summed apart, then added to one another and to the sum.
  template <int sums, int a, int b>
  void dot() {
    const int64_t rows = config_.rows[sums], columns = config_.row_bytes[sums] / 4, pairs = config_.row_bytes[a] / 4;
    if (config_.rows[a] != rows || config_.rows[b] != pairs || config_.row_bytes[b] / 4 != columns) __builtin_trap();
    for (int64_t i = 0; i < rows; ++i) {
      float first[kRows] = {}, second[kRows] = {}, total[kRows];
      bf16 left[kRowNumbers], right[kRowNumbers];
      std::memcpy(left, data_[a][i], kRowBytes);
      for (int64_t k = 0; k < pairs; ++k) {
        std::memcpy(right, data_[b][k], kRowBytes);
        for (int64_t j = 0; j < columns; ++j) {
          first[j] = multiply_add(left[2 * k], right[2 * j], first[j]);
          second[j] = multiply_add(left[2 * k + 1], right[2 * j + 1], second[j]);
        }
      }
      std::memcpy(total, data_[sums][i], kRowBytes);
      for (int64_t j = 0; j < columns; ++j) total[j] = add(total[j], add(first[j], second[j]));
      std::memcpy(data_[sums][i], total, kRowBytes);
    }
  }

 private:
  TileConfig config_;
  alignas(64) unsigned char data_[kTiles][kRows][kRowBytes];
};

// Sixteen sums in one register, and the pairs they are of.
struct VectorTwin {
  struct Sums {
    float lane[kRows];
  };
  struct Pairs {
    bf16 lane[kRowNumbers];
  };

  static Sums zero() { return {}; }
  static Sums load(const float* from) {
    Sums sums;
    std::memcpy(&sums, from, sizeof sums);
    return sums;
  }
  static void store(float* to, const Sums& sums) { std::memcpy(to, &sums, sizeof sums); }
  static Pairs pairs(const char* from) {
    Pairs pairs;
    std::memcpy(&pairs, from, sizeof pairs);
    return pairs;
  }
  // One pair in every lane.
  static Pairs broadcast(const char* from) {
    Pairs pairs;
    for (int64_t i = 0; i < kRows; ++i) std::memcpy(pairs.lane + 2 * i, from, 2 * sizeof(bf16));
    return pairs;
  }
  // The products of the second numbers are added first.
  static Sums dot(Sums sums, const Pairs& a, const Pairs& b) {
    for (int64_t i = 0; i < kRows; ++i) {
      sums.lane[i] = multiply_add(a.lane[2 * i + 1], b.lane[2 * i + 1], sums.lane[i]);
      sums.lane[i] = multiply_add(a.lane[2 * i], b.lane[2 * i], sums.lane[i]);
    }
    return sums;
  }
};

#if defined(SC_DOTS)
class Tiles {
 public:
  Tiles() {
    const TileConfig config = whole_tiles();
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  ~Tiles() { asm volatile("tilerelease"); }
  Tiles(const Tiles&) = delete;

  template <int tile>
  SC_INLINE void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(tile));
  }
  template <int tile>
  SC_INLINE void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(tile) : "memory");
  }
  template <int tile>
  SC_INLINE void store(void* to, int64_t stride) const {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(tile) : "memory");
  }
  template <int sums, int a, int b>
  SC_INLINE void dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(a), "i"(b));
  }
};

struct Vectors {
  using Sums = vec<float>;
  using Pairs = vec<float>;

  static SC_INLINE Sums zero() { return Sums{}; }
  static SC_INLINE Sums load(const float* from) { return SPATIALCONV_ISA::load(from); }
  static SC_INLINE void store(float* to, Sums sums) { SPATIALCONV_ISA::store(to, sums); }
  static SC_INLINE Pairs pairs(const char* from) {
    Pairs pairs;
    std::memcpy(&pairs, from, sizeof pairs);
    return pairs;
  }
  static SC_INLINE Pairs broadcast(const char* from) {
    int32_t pair;
    std::memcpy(&pair, from, sizeof pair);
    return (Pairs)_mm512_set1_epi32(pair);
  }
  static SC_INLINE Sums dot(Sums sums, Pairs a, Pairs b) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
    return sums;
  }
};
#endif

}  // namespace dots
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

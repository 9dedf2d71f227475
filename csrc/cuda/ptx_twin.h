// The instructions of ptx.h on a CPU. An asynchronous copy happens when it is issued, as early as it may, or, compiled
// with EMULATE_LAZY_COPIES, when it is waited for, as late as it may: storage overwritten too early shows in the first
// mode, a missing or weak wait in the second. A load whose lanes meet in a bank of shared memory ends the program: the
// kernels' layouts are meant to have no conflicts.
#pragma once
#include <cstring>
#include <deque>
#include <vector>

#include "launch.h"
#include "number.h"

namespace spatialconv {
namespace cuda {

namespace twin {

struct Copy {
  void* to;
  const void* from;
  bool valid;
};

inline void perform(const Copy& copy) {
  if (copy.valid) {
    std::memcpy(copy.to, copy.from, 16);
  } else {
    std::memset(copy.to, 0, 16);
  }
}

// Copies of one thread that have not happened: committed groups, the oldest first, and the open one.
struct CopiesUnderWay {
  std::deque<std::vector<Copy>> groups;
  std::vector<Copy> open;
};

inline uintptr_t place_in_shared(const void* pointer) {
  return static_cast<uintptr_t>(static_cast<const unsigned char*>(pointer) - emulator::dynamic_shared());
}

// Lanes [first, first + count) load `bytes` each, together at most the 128 bytes that shared memory gives at a time.
inline void demand_distinct_banks(const void* const (&addresses)[32], unsigned first, unsigned count, unsigned bytes) {
  const uintptr_t banks = 128 / bytes;
  for (unsigned i = first; i < first + count; ++i) {
    const uintptr_t place = place_in_shared(addresses[i]);
    if (place % bytes != 0) emulator::fail("a load from shared memory is not aligned");
    for (unsigned j = first; j < i; ++j) {
      const uintptr_t other = place_in_shared(addresses[j]);
      if (place != other && place / bytes % banks == other / bytes % banks) {
        emulator::fail("lanes of one load meet in a bank of shared memory");
      }
    }
  }
}

inline const void* const (&gather_rows(const void* row))[32] {
  const auto& rows = emulator::gather(row);
  if (emulator::lane() == 0) {
    for (unsigned matrix = 0; matrix < 4; ++matrix) demand_distinct_banks(rows, 8 * matrix, 8, 16);
  }
  return rows;
}

template <class T>
struct Fragment;  // element `i` of a word
template <>
struct Fragment<bf16> {
  static constexpr unsigned kPerWord = 2;
  static float value(uint32_t word, unsigned i) { return to_compute(bf16{static_cast<uint16_t>(word >> 16 * i)}); }
};
template <>
struct Fragment<f16> {
  static constexpr unsigned kPerWord = 2;
  static float value(uint32_t word, unsigned i) { return to_compute(f16{static_cast<uint16_t>(word >> 16 * i)}); }
};
template <>
struct Fragment<float> {
  static constexpr unsigned kPerWord = 1;
  static float value(uint32_t word, unsigned) { return __uint_as_float(word & 0xFFFFE000u); }
};

struct Operands {
  uint32_t a[4], b[2];
};

}  // namespace twin

inline void copy_async(void* to, const void* from, bool valid) {
  if (twin::place_in_shared(to) % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0) {
    emulator::fail("an asynchronous copy is not aligned");
  }
#ifdef EMULATE_LAZY_COPIES
  emulator::per_thread<twin::CopiesUnderWay>().open.push_back({to, from, valid});
#else
  twin::perform({to, from, valid});
#endif
}

inline void copy_commit() {
#ifdef EMULATE_LAZY_COPIES
  auto& copies = emulator::per_thread<twin::CopiesUnderWay>();
  copies.groups.push_back(std::move(copies.open));
  copies.open.clear();
#endif
}

template <int kPending>
void copy_wait() {
#ifdef EMULATE_LAZY_COPIES
  auto& groups = emulator::per_thread<twin::CopiesUnderWay>().groups;
  while (static_cast<int>(groups.size()) > kPending) {
    for (const twin::Copy& copy : groups.front()) twin::perform(copy);
    groups.pop_front();
  }
#endif
}

inline void load_matrices(uint32_t (&words)[4], const void* row) {
  const auto& rows = twin::gather_rows(row);
  const unsigned lane = emulator::lane();
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    std::memcpy(&words[matrix], static_cast<const char*>(rows[8 * matrix + lane / 4]) + lane % 4 * 4, 4);
  }
}

inline void load_matrices_transposed(uint32_t (&words)[4], const void* row) {
  const auto& rows = twin::gather_rows(row);
  const unsigned lane = emulator::lane();
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    uint16_t halves[2];
    for (unsigned i = 0; i < 2; ++i) {
      std::memcpy(&halves[i], static_cast<const char*>(rows[8 * matrix + lane % 4 * 2 + i]) + lane / 4 * 2, 2);
    }
    words[matrix] = halves[0] | static_cast<uint32_t>(halves[1]) << 16;
  }
}

inline uint32_t load_word(const void* word) {
  const auto& words = emulator::gather(word);
  if (emulator::lane() == 0) twin::demand_distinct_banks(words, 0, 32, 4);
  uint32_t value;
  std::memcpy(&value, word, sizeof value);
  return value;
}

inline uint32_t round_to_tf32(uint32_t bits) {
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return 0x7FFFFFFFu;
  if (magnitude == 0x7F800000u) return bits;
  return (bits + 0x1000u) & 0xFFFFE000u;
}

template <class T>
void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b_low, uint32_t b_high) {
  using Fragment = twin::Fragment<T>;
  constexpr unsigned kPerWord = Fragment::kPerWord;
  const auto& all = emulator::gather(twin::Operands{{a[0], a[1], a[2], a[3]}, {b_low, b_high}});
  const unsigned lane = emulator::lane();
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4, lower = i / 2, column = lane % 4 * 2 + i % 2;
    for (unsigned half = 0; half < 2; ++half) {
      for (unsigned p = 0; p < 4; ++p) {
        const uint32_t a_word = all[row * 4 + p].a[lower + 2 * half], b_word = all[column * 4 + p].b[half];
        for (unsigned e = 0; e < kPerWord; ++e) d[i] += Fragment::value(a_word, e) * Fragment::value(b_word, e);
      }
    }
  }
}

}  // namespace cuda
}  // namespace spatialconv

// What the instructions of hopper.h do, on a CPU. With EMULATE_LAZY_COPIES a copy happens when its barrier is waited
// for and a product when its group is, as late as the hardware may; without, both happen when they are issued, as early
// as it may. A missing wait shows in the first mode, storage given back too early in both. ThreadSanitizer sees a
// barrier order memory as the hardware does: what came before an arrival or a copy, with what comes after a wait.
#pragma once
#include <cstring>
#include <functional>
#include <vector>

#include "launch.h"
#include "number.h"
#include "tensor_map.h"

namespace spatialconv {
namespace cuda {

EMULATOR_UNWATCHED inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) - emulator::dynamic_shared());
}

namespace twin {

#ifdef EMULATE_LAZY_COPIES
constexpr bool kLazy = true;
#else
constexpr bool kLazy = false;
#endif

// Bits 4 to 6 of an address are crossed with bits 7 to 9.
inline unsigned char* swizzled(uint32_t address) {
  return emulator::dynamic_shared() + (address ^ (address >> 7 & 7) << 4);
}

// The eight bytes of an mbarrier.
struct Barrier {
  int32_t bytes;
  uint16_t pending;
  uint8_t arrivals, parity;
};
static_assert(sizeof(Barrier) == sizeof(uint64_t), "a barrier is one word of shared memory");

EMULATOR_UNWATCHED inline Barrier& state(uint64_t* barrier) { return *reinterpret_cast<Barrier*>(barrier); }

// Where ThreadSanitizer orders memory: what comes before the end of a phase, with what waited for it.
EMULATOR_UNWATCHED inline void* phase(uint64_t* barrier, uint32_t parity) {
  return reinterpret_cast<unsigned char*>(barrier) + parity;
}

EMULATOR_UNWATCHED inline void change(uint64_t* barrier, int32_t bytes, uint16_t arrivals) {
  Barrier& b = state(barrier);
  emulator::order_before(phase(barrier, b.parity));
  if (b.pending < arrivals) emulator::fail("more threads arrived at a barrier than it was made for");
  b.bytes += bytes;
  b.pending = static_cast<uint16_t>(b.pending - arrivals);
  if (b.pending != 0 || b.bytes != 0) return;
  b.parity ^= 1;
  b.pending = b.arrivals;
}

using Copy = std::function<int32_t()>;  // returns how many bytes it wrote

// Copies that nobody has waited for. A plain array, which ThreadSanitizer does not watch: only a copy and whoever makes
// it are ordered.
struct LateCopies {
  const uint64_t* barrier[1024];
  Copy* copy[1024];
  unsigned count;
};

EMULATOR_UNWATCHED inline LateCopies& late_copies() {
  static LateCopies late;
  return late;
}

EMULATOR_UNWATCHED inline void put_off(const uint64_t* barrier, Copy* copy) {
  LateCopies& late = late_copies();
  if (late.count == 1024) emulator::fail("too many copies in flight");
  emulator::order_before(copy);
  late.barrier[late.count] = barrier;
  late.copy[late.count++] = copy;
}

// The oldest copy of a barrier, or null.
EMULATOR_UNWATCHED inline Copy* take_late(const uint64_t* barrier) {
  LateCopies& late = late_copies();
  for (unsigned i = 0; i < late.count; ++i) {
    if (late.barrier[i] != barrier) continue;
    Copy* copy = late.copy[i];
    for (--late.count; i < late.count; ++i) {
      late.barrier[i] = late.barrier[i + 1];
      late.copy[i] = late.copy[i + 1];
    }
    emulator::order_after(copy);
    return copy;
  }
  return nullptr;
}

template <class Function>
void issue(uint64_t* barrier, const Function& copy) {
  if (kLazy) {
    put_off(barrier, new Copy(copy));
  } else {
    change(barrier, -copy(), 0);
  }
}

inline void copy_now(uint64_t* barrier) {
  while (Copy* copy = take_late(barrier)) {
    emulator::order_after(phase(barrier, state(barrier).parity));
    change(barrier, -(*copy)(), 0);
    delete copy;
  }
}

}  // namespace twin

EMULATOR_UNWATCHED inline void barrier_init(uint64_t* barrier, uint32_t arrivals) {
  while (twin::Copy* copy = twin::take_late(barrier)) delete copy;
  twin::state(barrier) = {0, static_cast<uint16_t>(arrivals), static_cast<uint8_t>(arrivals), 0};
}

inline void barrier_init_fence() {}

inline void barrier_arrive(uint64_t* barrier) { twin::change(barrier, 0, 1); }

inline void barrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
  twin::change(barrier, static_cast<int32_t>(bytes), 1);
}

inline void barrier_wait(uint64_t* barrier, uint32_t parity) {
  emulator::wait_until([=] {
    if (twin::kLazy) twin::copy_now(barrier);
    return twin::state(barrier).parity != parity;
  });
  emulator::order_after(twin::phase(barrier, parity));
}

inline void tensor_map_prefetch(const TensorMap*) {}

inline void load_im2col(void* to, const TensorMap* map, uint64_t* barrier, int32_t c, int32_t w, int32_t h, int32_t n,
                        int32_t offset_w, int32_t offset_h) {
  const uint32_t address = shared_address(to);
  twin::issue(barrier, [=, values = map->values, m = map->im2col] {
    int64_t row = h, column = w, image = n;
    for (int64_t pixel = 0; pixel < m.pixels; ++pixel) {
      const int64_t ih = row + offset_h, iw = column + offset_w;
      const bool inside = image < m.n && 0 <= ih && ih < m.h && 0 <= iw && iw < m.w;
      for (int64_t j = 0; j < m.channels; ++j) {
        uint16_t value = 0;
        if (inside && 0 <= c + j && c + j < m.c) value = values[((image * m.h + ih) * m.w + iw) * m.c + c + j];
        std::memcpy(twin::swizzled(address + static_cast<uint32_t>((pixel * m.channels + j) * 2)), &value, 2);
      }
      column += m.stride_w;
      if (column <= m.w - 1 + m.upper_w) continue;
      column = m.lower_w;
      row += m.stride_h;
      if (row <= m.h - 1 + m.upper_h) continue;
      row = m.lower_h;
      ++image;
    }
    return static_cast<int32_t>(m.pixels * m.channels * 2);
  });
}

inline void load_tile(void* to, const TensorMap* map, uint64_t* barrier, int32_t i0, int32_t i1, int32_t i2 = 0) {
  const uint32_t address = shared_address(to);
  twin::issue(barrier, [=, values = map->values, m = map->tiled] {
    const int64_t planes = m.rank == 3 ? m.size[2] : 1, box_planes = m.rank == 3 ? m.box[2] : 1;
    uint32_t offset = 0;
    for (int64_t z = i2; z < i2 + box_planes; ++z) {
      for (int64_t y = i1; y < i1 + m.box[1]; ++y) {
        for (int64_t x = i0; x < i0 + m.box[0]; ++x, offset += 2) {
          const bool inside = 0 <= x && x < m.size[0] && 0 <= y && y < m.size[1] && 0 <= z && z < planes;
          const uint16_t value = inside ? values[(z * m.size[1] + y) * m.size[0] + x] : uint16_t{0};
          std::memcpy(twin::swizzled(address + offset), &value, 2);
        }
      }
    }
    return static_cast<int32_t>(offset);
  });
}

template <int kRegisters>
void take_registers() {}
template <int kRegisters>
void give_registers() {}

namespace twin {

// Element i of m or n and k of an operand.
template <class T, Major kMajor>
float operand(uint64_t matrix, uint32_t i, uint32_t k) {
  const auto field = [matrix](int shift) { return static_cast<uint32_t>(matrix >> shift & 0x3FFF) << 4; };
  const uint32_t start = field(0), leading = field(16), stride = field(32);
  const uint32_t offset = kMajor == Major::k ? i / 8 * stride + i % 8 * 128 + k * 2
                                             : i / 64 * leading + i % 64 * 2 + k / 8 * stride + k % 8 * 128;
  T value;
  std::memcpy(&value, swizzled(start + offset), 2);
  return to_compute(value);
}

template <class T, Major kA, Major kB>
void multiply(float* d, int registers, uint64_t a_matrix, uint64_t b_matrix) {
  const uint32_t thread = threadIdx.x % 128, row = thread / 32 * 16 + thread % 32 / 4, column = thread % 4 * 2;
  float a[2][16];
  for (uint32_t k = 0; k < 16; ++k) {
    a[0][k] = operand<T, kA>(a_matrix, row, k);
    a[1][k] = operand<T, kA>(a_matrix, row + 8, k);
  }
  for (int j = 0; j < registers / 4; ++j) {
    for (int e = 0; e < 2; ++e) {
      for (uint32_t k = 0; k < 16; ++k) {
        const float b = operand<T, kB>(b_matrix, j * 8 + column + e, k);
        d[4 * j + e] += a[0][k] * b;
        d[4 * j + 2 + e] += a[1][k] * b;
      }
    }
  }
}

// The products of one thread that are not done: committed groups, the oldest first, and behind them the open one.
struct Products {
  std::vector<std::vector<std::function<void()>>> groups{1};
};

}  // namespace twin

inline void wgmma_fence() {}

template <class T, Major kA, Major kB, int kRegisters>
void wgmma(float (&d)[kRegisters], uint64_t a_matrix, uint64_t b_matrix) {
  const auto product = [to = &d[0], a_matrix, b_matrix] {
    twin::multiply<T, kA, kB>(to, kRegisters, a_matrix, b_matrix);
  };
  if (!twin::kLazy) return product();
  emulator::per_thread<twin::Products>().groups.back().push_back(product);
}

inline void wgmma_commit() { emulator::per_thread<twin::Products>().groups.emplace_back(); }

// The warp leaves together, as `.sync.aligned` says; a product is the whole warp's.
template <int kPending, int kRegisters>
void wgmma_wait(float (&)[kRegisters]) {
  auto& groups = emulator::per_thread<twin::Products>().groups;
  while (static_cast<int>(groups.size()) > kPending + 1) {
    for (const auto& product : groups.front()) product();
    groups.erase(groups.begin());
  }
  __syncwarp();
}

}  // namespace cuda
}  // namespace spatialconv

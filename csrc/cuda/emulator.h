// A CPU twin of the part of CUDA that the kernels use, so that a C++ compiler and its sanitizers can run them. The threads
// of a block are fibers that run in turn from barrier to barrier; blocks run one after another. Dynamic shared memory is
// filled with 0xFF, a NaN in every type, for every block and lies between guards. Launches come one at a time.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <type_traits>

#include "emulator_fiber.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __constant__
#define __shared__ static
#define __align__(bytes) alignas(bytes)
#ifndef __restrict__
#define __restrict__ __restrict
#endif

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};

inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

namespace emulator {

constexpr unsigned warp_size = 32;
constexpr unsigned barrier_count = 16;  // of a block, number 0 being __syncthreads

// Where some threads of a block wait for each other. Whoever passes is ordered after all that arrived in the same phase;
// odd and even phases are told apart, since a thread may arrive at the next one before the last thread leaves this one.
struct Meeting {
  unsigned arrived = 0;
  uint64_t phase = 0;
  char order[2];
};

struct Warp {
  Meeting meeting, exchange;
  alignas(16) unsigned char values[2][warp_size][128];
};

// Objects of any types, one of each, made on first use; whoever gets one sees it made. No container of the standard
// library: its functions would be watched by ThreadSanitizer, and what all threads share here is not the kernel's.
class Belongings {
 public:
  template <class T>
  EMULATOR_UNWATCHED T& get() {
    const size_t index = index_of<T>();
    if (index >= most) fail("too many types of belongings");
    Held& held = held_[index];
    if (held.object == nullptr) {
      held.object = new T();
      held.destroy = [](void* object) { delete static_cast<T*>(object); };
      order_before(&held);
    }
    order_after(&held);
    return *static_cast<T*>(held.object);
  }

  EMULATOR_UNWATCHED void clear() {
    for (Held& held : held_) {
      if (held.object != nullptr) held.destroy(held.object);
      held.object = nullptr;
    }
  }

 private:
  static constexpr size_t most = 16;
  struct Held {
    void* object = nullptr;
    void (*destroy)(void*) = nullptr;
  };

  template <class T>
  EMULATOR_UNWATCHED static size_t index_of() {
    static const size_t index = count_++;
    return index;
  }

  static inline size_t count_ = 0;
  Held held_[most];
};

struct Thread {
  explicit Thread(void (*entry)()) : fiber(entry) {}

  Fiber fiber;
  unsigned rank = 0;
  dim3 index, block;
  bool done = false;
  uint64_t exchanges = 0;
  Belongings belongings;
};

// The block that runs, and the launch it belongs to.
struct Block {
  dim3 grid, size;
  unsigned threads = 0, alive = 0;
  Thread* pool[1024] = {};
  Warp* warps = nullptr;
  Meeting barriers[barrier_count];
  Belongings belongings;
  unsigned char* shared = nullptr;
  void (*call)(const void*) = nullptr;
  const void* arguments = nullptr;
  Thread* running = nullptr;
  Fiber* host = nullptr;
  unsigned waits_in_vain = 0;
  char begun, ended;
};

EMULATOR_UNWATCHED inline Block& block() {
  static Block* one = new Block;
  return *one;
}

EMULATOR_UNWATCHED inline Thread& thread() { return *block().running; }
EMULATOR_UNWATCHED inline dim3 thread_index() { return thread().index; }
EMULATOR_UNWATCHED inline dim3 block_index() { return thread().block; }
EMULATOR_UNWATCHED inline dim3 block_size() { return block().size; }
EMULATOR_UNWATCHED inline dim3 grid_size() { return block().grid; }
EMULATOR_UNWATCHED inline unsigned char* dynamic_shared() { return block().shared; }
EMULATOR_UNWATCHED inline unsigned thread_rank() { return thread().rank; }
EMULATOR_UNWATCHED inline unsigned lane() { return thread().rank % warp_size; }
EMULATOR_UNWATCHED inline unsigned warp_rank() { return thread().rank / warp_size; }
EMULATOR_UNWATCHED inline Warp& warp() { return block().warps[warp_rank()]; }

// How many threads the running thread's warp was launched with.
EMULATOR_UNWATCHED inline unsigned warp_threads() {
  return std::min(warp_size, block().threads - warp_rank() * warp_size);
}

// The object of that type that belongs to this thread of this block, or to this block.
template <class T>
EMULATOR_UNWATCHED T& per_thread() {
  return thread().belongings.get<T>();
}
template <class T>
EMULATOR_UNWATCHED T& per_block() {
  return block().belongings.get<T>();
}

// Runs the next thread that has not ended; with none, whoever launched.
EMULATOR_UNWATCHED inline void pass_on() {
  Block& b = block();
  Thread& self = *b.running;
  if (b.alive == 0) {
    self.fiber.leave_for(*b.host);
    return;
  }
  unsigned next = self.rank;
  do next = next + 1 == b.threads ? 0 : next + 1;
  while (b.pool[next]->done);
  if (next == self.rank) return;
  b.running = b.pool[next];
  self.fiber.leave_for(b.running->fiber);
}

// Lets the other threads run until the condition holds. Threads run one at a time, so when all of them have found their
// conditions false in a row, none will ever hold.
template <class Condition>
EMULATOR_UNWATCHED void wait_until(Condition holds) {
  while (!holds()) {
    if (++block().waits_in_vain > 2 * block().alive) fail("deadlock: every thread of the block waits for another");
    pass_on();
  }
  block().waits_in_vain = 0;
}

EMULATOR_UNWATCHED inline void meet(Meeting& meeting, unsigned expected, bool orders_memory) {
  const uint64_t phase = meeting.phase;
  char* order = &meeting.order[phase % 2];
  if (orders_memory) order_before(order);
  if (++meeting.arrived >= expected) {
    meeting.arrived = 0;
    meeting.phase = phase + 1;
    block().waits_in_vain = 0;
  } else {
    wait_until([&]() EMULATOR_UNWATCHED { return meeting.phase != phase; });
  }
  if (orders_memory) order_after(order);
}

// bar.sync: `threads` of the block, whole warps, meet. A thread that returned is still waited for.
EMULATOR_UNWATCHED inline void barrier(unsigned number, unsigned threads) {
  if (number >= barrier_count || threads % warp_size != 0) fail("barrier: no such barrier, or not whole warps");
  meet(block().barriers[number], threads, true);
}

// What each lane of the warp gave, by lane; it stands until this lane's next call but one. Orders no memory.
template <class T>
EMULATOR_UNWATCHED const T (&gather(const T& value))[warp_size] {
  static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= 128, "registers only");
  static_assert(sizeof(Warp::values[0]) == warp_size * 128, "");
  Warp& w = warp();
  unsigned char* values = w.values[thread().exchanges++ % 2][0];
  std::memcpy(values + lane() * sizeof(T), &value, sizeof(T));
  meet(w.exchange, warp_threads(), false);
  return *reinterpret_cast<const T(*)[warp_size]>(values);
}

// The life of one thread: fibers are used again for the next block.
EMULATOR_UNWATCHED inline void thread_main() {
  Block& b = block();
  Thread& self = *b.running;
  self.fiber.arrived();
  for (;;) {
    order_after(&b.begun);
    b.call(b.arguments);
    order_before(&b.ended);
    self.done = true;
    --b.alive;
    b.waits_in_vain = 0;
    pass_on();
  }
}

// Guards around dynamic shared memory; AddressSanitizer has its own, right behind the last byte.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t guard_bytes = 0;
#else
constexpr size_t guard_bytes = 1024;
#endif

EMULATOR_UNWATCHED inline void run_block(dim3 index) {
  Block& b = block();
  b.alive = b.threads;
  b.waits_in_vain = 0;
  b.belongings.clear();
  for (Meeting& meeting : b.barriers) meeting = Meeting{};
  for (unsigned w = 0; w * warp_size < b.threads; ++w) b.warps[w].meeting = b.warps[w].exchange = Meeting{};
  for (unsigned rank = 0; rank < b.threads; ++rank) {
    Thread& t = *b.pool[rank];
    t.rank = rank;
    t.index = dim3(rank % b.size.x, rank / b.size.x % b.size.y, rank / b.size.x / b.size.y);
    t.block = index;
    t.done = false;
    t.exchanges = 0;
    t.belongings.clear();
  }
  order_before(&b.begun);
  b.running = b.pool[0];
  b.host->leave_for(b.running->fiber);
  order_after(&b.ended);
}

EMULATOR_UNWATCHED inline void run_grid(dim3 grid, dim3 size, size_t shared_bytes, void (*call)(const void*),
                                        const void* arguments) {
  static std::mutex one_launch_at_a_time;
  std::lock_guard<std::mutex> lock(one_launch_at_a_time);
  Block& b = block();
  Fiber host;
  b.host = &host;
  b.grid = grid;
  b.size = size;
  b.threads = size.x * size.y * size.z;
  b.call = call;
  b.arguments = arguments;
  if (b.warps == nullptr) b.warps = new Warp[sizeof b.pool / sizeof b.pool[0] / warp_size];
  for (unsigned rank = 0; rank < b.threads; ++rank) {
    if (b.pool[rank] == nullptr) b.pool[rank] = new Thread(thread_main);
    b.pool[rank]->fiber.rewind();
  }
  void* memory = nullptr;
  if (posix_memalign(&memory, 1024, std::max<size_t>(1, shared_bytes + 2 * guard_bytes)) != 0) fail("out of memory");
  b.shared = static_cast<unsigned char*>(memory) + guard_bytes;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        std::memset(memory, 0xFF, shared_bytes + 2 * guard_bytes);
        run_block(dim3(x, y, z));
        for (size_t i = 0; i < guard_bytes; ++i)
          if (b.shared[-1 - static_cast<ptrdiff_t>(i)] != 0xFF || b.shared[shared_bytes + i] != 0xFF)
            fail("a kernel wrote outside of its dynamic shared memory");
      }
  std::free(memory);
}

// Calls body() in every thread of the grid and returns 0, or 1 (cudaErrorInvalidValue) for sizes that CUDA refuses.
template <class Body>
int32_t launch(dim3 grid, dim3 size, size_t shared_bytes, const Body& body) {
  const uint64_t threads = static_cast<uint64_t>(size.x) * size.y * size.z;
  const bool fits = grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x <= 0x7fffffffu && grid.y <= 65535 &&
                    grid.z <= 65535 && threads > 0 && threads <= 1024 && size.z <= 64 && shared_bytes <= 227 * 1024;
  if (!fits) return 1;
  run_grid(grid, size, shared_bytes, [](const void* given) { (*static_cast<const Body*>(given))(); }, &body);
  return 0;
}

}  // namespace emulator

#define threadIdx (emulator::thread_index())
#define blockIdx (emulator::block_index())
#define blockDim (emulator::block_size())
#define gridDim (emulator::grid_size())

#include "emulator_functions.h"

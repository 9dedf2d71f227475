// torch's own thread pool, reached through the address of the C function torch_parallel_for that Python hands over at
// load.
#pragma once
#include <atomic>
#include <cstdint>

namespace spatialconv {

using ParallelBody = void (*)(int64_t begin, int64_t end, void* context);
using ParallelFor = int32_t (*)(int64_t begin, int64_t end, int64_t grain, ParallelBody body, void* context);

// Null until Python sets it; work then runs serially.
extern std::atomic<ParallelFor> g_parallel_for;

// Calls body(begin, end) over disjoint ranges that cover [0, count). Returns 0, or the pool's error code.
template <class Body>
int32_t parallel_for(int64_t count, int64_t grain, const Body& body) {
  if (count <= 0) return 0;
  ParallelFor pool = g_parallel_for.load(std::memory_order_acquire);
  if (pool == nullptr || count <= grain) {
    body(int64_t{0}, count);
    return 0;
  }
  auto trampoline = [](int64_t begin, int64_t end, void* context) { (*static_cast<const Body*>(context))(begin, end); };
  return pool(0, count, grain, trampoline, const_cast<Body*>(&body));
}

}  // namespace spatialconv

// Writes down every access of a shipped CUDA kernel to its tensors in global memory, thread by thread, while its CPU twin
// runs. As recorder.cpp; the instruction before which a call stands tells which accesses of a warp are one request.
// Compiled with __SANITIZE_THREAD__ defined, so that the emulator's types are those of the instrumented file.
#include <cstdint>
#include <cstring>
#include <vector>

#include "../common/problem.h"
#include "../cuda/kernel.h"
#include "callbacks.h"
#include "regions.h"

namespace spatialconv {

namespace cuda {
extern const Table SC_RECORDED;
}

namespace record {
namespace {

struct Event {
  int64_t offset, site;
  int32_t bytes;
  uint32_t block, thread;
  uint8_t region, store;
  uint16_t unused;
};

Regions g_regions;
std::vector<Event> g_events;
int64_t g_limit = 0;
bool g_recording = false;

const cuda::Entry* entry(const char* op, const char* name, int64_t dtype) {
  for (int64_t i = 0; i < cuda::SC_RECORDED.count; ++i) {
    const cuda::Entry& one = cuda::SC_RECORDED.entries[i];
    const bool same = static_cast<int64_t>(one.dtype) == dtype;
    if (same && std::strcmp(one.op, op) == 0 && std::strcmp(one.name, name) == 0) return &one;
  }
  return nullptr;
}

}  // namespace

void record_access(const void* p, int64_t bytes, bool store, const void* site) {
  if (!g_recording || bytes <= 0 || static_cast<int64_t>(g_events.size()) >= g_limit) return;
  int64_t offset;
  const int64_t region = g_regions.find(p, &offset);
  if (region < 0) return;
  const emulator::Block& launch = emulator::block();
  const dim3 at = launch.running->block;
  const uint32_t block = (at.z * launch.grid.y + at.y) * launch.grid.x + at.x;
  g_events.push_back({offset, reinterpret_cast<int64_t>(site), static_cast<int32_t>(bytes), block,
                      launch.running->rank, static_cast<uint8_t>(region), store, 0});
}

}  // namespace record
}  // namespace spatialconv

using namespace spatialconv::record;

#pragma GCC visibility push(default)
extern "C" {

void* __tsan_get_current_fiber() { return nullptr; }
void* __tsan_create_fiber(unsigned) { return nullptr; }
void __tsan_destroy_fiber(void*) {}
void __tsan_switch_to_fiber(void*, unsigned) {}
void __tsan_acquire(void*) {}
void __tsan_release(void*) {}

// Bytes of workspace on a device of so many multiprocessors; -1 where the table has no such kernel.
int64_t spatialconv_record_workspace(const char* op, const char* name, int64_t dtype, const void* problem,
                                     int64_t multiprocessors) {
  const spatialconv::cuda::Entry* kernel = entry(op, name, dtype);
  if (kernel == nullptr) return -1;
  return kernel->workspace == nullptr ? 0 : kernel->workspace(problem, multiprocessors);
}

// Launches the kernel on x, w, y, aux and workspace, each `bytes` long, and keeps at most `limit` accesses. Returns how
// many there are, -1 where the table has no such kernel, -2 where it refuses the launch.
int64_t spatialconv_record(const char* op, const char* name, int64_t dtype, const void* problem, void* const* tensors,
                           const int64_t* bytes, int64_t limit, int64_t multiprocessors) {
  const spatialconv::cuda::Entry* kernel = entry(op, name, dtype);
  if (kernel == nullptr) return -1;
  g_regions.set(tensors, bytes);
  g_events.clear();
  g_limit = limit;
  const spatialconv::Buffers buffers{tensors[0], tensors[1], tensors[2], tensors[3], tensors[4], multiprocessors, 0};
  g_recording = true;
  const int32_t error = kernel->launch(problem, buffers, nullptr);
  g_recording = false;
  return error != 0 ? -2 : static_cast<int64_t>(g_events.size());
}

void spatialconv_recorded(void* out) { std::memcpy(out, g_events.data(), g_events.size() * sizeof(Event)); }

}  // extern "C"
#pragma GCC visibility pop

// Writes down every access of a shipped CPU kernel to its tensors. The kernel's own file is compiled as for its level with
// ThreadSanitizer's instrumentation, and what that calls is written down here, in order. One thread; SC_RECORDED is the
// table of the kernel file.
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../common/parallel.h"
#include "../common/problem.h"
#include "../cpu/kernel.h"
#include "callbacks.h"
#include "regions.h"

namespace spatialconv {

std::atomic<ParallelFor> g_parallel_for{nullptr};

namespace SPATIALCONV_ISA {
extern const KernelTable SC_RECORDED;
}

namespace record {
namespace {

struct Event {
  int64_t offset;
  int32_t bytes;
  uint8_t region, store;
  uint16_t unused;
};

Regions g_regions;
std::vector<Event> g_events;
int64_t g_limit = 0;
bool g_recording = false;

const KernelEntry* entry(const char* op, const char* name, int64_t dtype) {
  const KernelTable& table = SPATIALCONV_ISA::SC_RECORDED;
  for (int64_t i = 0; i < table.count; ++i) {
    const KernelEntry& one = table.entries[i];
    const bool same = static_cast<int64_t>(one.dtype) == dtype;
    if (same && std::strcmp(one.op, op) == 0 && std::strcmp(one.name, name) == 0) return &one;
  }
  return nullptr;
}

}  // namespace

void record_access(const void* p, int64_t bytes, bool store, const void*) {
  if (!g_recording || bytes <= 0 || static_cast<int64_t>(g_events.size()) >= g_limit) return;
  int64_t offset;
  const int64_t region = g_regions.find(p, &offset);
  if (region < 0) return;
  g_events.push_back({offset, static_cast<int32_t>(bytes), static_cast<uint8_t>(region), store, 0});
}

}  // namespace record
}  // namespace spatialconv

using namespace spatialconv::record;

#pragma GCC visibility push(default)
extern "C" {

// Bytes of workspace that the kernel wants on one thread; -1 where the table has no such kernel.
int64_t spatialconv_record_workspace(const char* op, const char* name, int64_t dtype, const void* problem) {
  const spatialconv::KernelEntry* kernel = entry(op, name, dtype);
  if (kernel == nullptr) return -1;
  return kernel->workspace == nullptr ? 0 : kernel->workspace(problem, 1);
}

// Runs the kernel on x, w, y, aux and workspace, each `bytes` long, and keeps at most `limit` accesses. Returns how
// many there are, or -1 where the table has no such kernel.
int64_t spatialconv_record(const char* op, const char* name, int64_t dtype, const void* problem, void* const* tensors,
                           const int64_t* bytes, int64_t limit) {
  const spatialconv::KernelEntry* kernel = entry(op, name, dtype);
  if (kernel == nullptr) return -1;
  g_regions.set(tensors, bytes);
  g_events.clear();
  g_limit = limit;
  const spatialconv::Buffers buffers{tensors[0], tensors[1], tensors[2], tensors[3], tensors[4], 1, 0};
  g_recording = true;
  kernel->run(problem, buffers);
  g_recording = false;
  return static_cast<int64_t>(g_events.size());
}

void spatialconv_recorded(void* out) { std::memcpy(out, g_events.data(), g_events.size() * sizeof(Event)); }

}  // extern "C"
#pragma GCC visibility pop

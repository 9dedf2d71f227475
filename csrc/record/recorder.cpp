// Writes down every access of a shipped kernel to its tensors. The kernel's own file is compiled as for its level with
// ThreadSanitizer's instrumentation, a call before each load and store that the optimised code makes; here those calls
// end, in place of the sanitizer, and what lies in a tensor is kept, in order. One thread; SC_RECORDED is the table of
// the kernel file.
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../common/parallel.h"
#include "../common/problem.h"
#include "../cpu/kernel.h"

namespace spatialconv {

std::atomic<ParallelFor> g_parallel_for{nullptr};

namespace SPATIALCONV_ISA {
extern const KernelTable SC_RECORDED;
}

}  // namespace spatialconv

namespace {

using spatialconv::Buffers;
using spatialconv::KernelEntry;
using spatialconv::KernelTable;

struct Region {
  int64_t begin, bytes;
};
struct Event {
  int64_t offset;
  int32_t bytes;
  uint8_t region, store;
  uint16_t unused;
};

constexpr int64_t kRegions = 5;
Region g_regions[kRegions];
std::vector<Event> g_events;
int64_t g_limit = 0;
bool g_recording = false;

void touch(const void* p, int64_t bytes, bool store) {
  if (!g_recording || bytes <= 0 || static_cast<int64_t>(g_events.size()) >= g_limit) return;
  const int64_t at = reinterpret_cast<int64_t>(p);
  for (int64_t i = 0; i < kRegions; ++i) {
    const int64_t offset = at - g_regions[i].begin;
    if (offset < 0 || offset >= g_regions[i].bytes) continue;
    g_events.push_back({offset, static_cast<int32_t>(bytes), static_cast<uint8_t>(i), store, 0});
    return;
  }
}

const KernelEntry* entry(const char* op, const char* name, int64_t dtype) {
  const KernelTable& table = spatialconv::SPATIALCONV_ISA::SC_RECORDED;
  for (int64_t i = 0; i < table.count; ++i) {
    const KernelEntry& one = table.entries[i];
    const bool same = static_cast<int64_t>(one.dtype) == dtype;
    if (same && std::strcmp(one.op, op) == 0 && std::strcmp(one.name, name) == 0) return &one;
  }
  return nullptr;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Bytes of workspace that the kernel wants on one thread; -1 where the table has no such kernel.
int64_t spatialconv_record_workspace(const char* op, const char* name, int64_t dtype, const void* problem) {
  const KernelEntry* kernel = entry(op, name, dtype);
  if (kernel == nullptr) return -1;
  return kernel->workspace == nullptr ? 0 : kernel->workspace(problem, 1);
}

// Runs the kernel on x, w, y, aux and workspace, each `bytes` long, and keeps at most `limit` accesses. Returns how
// many there are, or -1 where the table has no such kernel.
int64_t spatialconv_record(const char* op, const char* name, int64_t dtype, const void* problem, void* const* tensors,
                           const int64_t* bytes, int64_t limit) {
  const KernelEntry* kernel = entry(op, name, dtype);
  if (kernel == nullptr) return -1;
  for (int64_t i = 0; i < kRegions; ++i) g_regions[i] = {reinterpret_cast<int64_t>(tensors[i]), bytes[i]};
  g_events.clear();
  g_limit = limit;
  const Buffers buffers{tensors[0], tensors[1], tensors[2], tensors[3], tensors[4], 1, 0};
  g_recording = true;
  kernel->run(problem, buffers);
  g_recording = false;
  return static_cast<int64_t>(g_events.size());
}

void spatialconv_recorded(void* out) { std::memcpy(out, g_events.data(), g_events.size() * sizeof(Event)); }

void spatialconv_touch(const void* p, int64_t bytes, int store) { touch(p, bytes, store != 0); }

void* __real_memcpy(void* to, const void* from, size_t bytes);
void* __real_memmove(void* to, const void* from, size_t bytes);
void* __real_memset(void* to, int value, size_t bytes);

void* __wrap_memcpy(void* to, const void* from, size_t bytes) {
  touch(from, static_cast<int64_t>(bytes), false);
  touch(to, static_cast<int64_t>(bytes), true);
  return __real_memcpy(to, from, bytes);
}
void* __wrap_memmove(void* to, const void* from, size_t bytes) {
  touch(from, static_cast<int64_t>(bytes), false);
  touch(to, static_cast<int64_t>(bytes), true);
  return __real_memmove(to, from, bytes);
}
void* __wrap_memset(void* to, int value, size_t bytes) {
  touch(to, static_cast<int64_t>(bytes), true);
  return __real_memset(to, value, bytes);
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_read_range(void* p, size_t bytes) { touch(p, static_cast<int64_t>(bytes), false); }
void __tsan_write_range(void* p, size_t bytes) { touch(p, static_cast<int64_t>(bytes), true); }
int64_t __tsan_atomic64_load(const volatile int64_t* p, int) { return *p; }
uint8_t __tsan_atomic8_load(const volatile uint8_t* p, int) { return *p; }
void __tsan_atomic8_store(volatile uint8_t* p, uint8_t value, int) { *p = value; }

#define SC_ACCESS(bytes)                                                  \
  void __tsan_read##bytes(void* p) { touch(p, bytes, false); }            \
  void __tsan_write##bytes(void* p) { touch(p, bytes, true); }            \
  void __tsan_unaligned_read##bytes(void* p) { touch(p, bytes, false); }  \
  void __tsan_unaligned_write##bytes(void* p) { touch(p, bytes, true); }  \
  void __tsan_volatile_read##bytes(void* p) { touch(p, bytes, false); }   \
  void __tsan_volatile_write##bytes(void* p) { touch(p, bytes, true); }
SC_ACCESS(1)
SC_ACCESS(2)
SC_ACCESS(4)
SC_ACCESS(8)
SC_ACCESS(16)
#undef SC_ACCESS

}  // extern "C"
#pragma GCC visibility pop

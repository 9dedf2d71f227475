// What ThreadSanitizer's instrumentation calls before every load and store of the optimised code, ended here in place of
// the sanitizer: each becomes a call of record_access, with the instruction it stands before. Included once a library.
#pragma once
#include <cstddef>
#include <cstdint>

namespace spatialconv {
namespace record {

void record_access(const void* p, int64_t bytes, bool store, const void* site);

}  // namespace record
}  // namespace spatialconv

#define SC_RECORD(p, bytes, store) \
  spatialconv::record::record_access(p, static_cast<int64_t>(bytes), store, __builtin_return_address(0))

#pragma GCC visibility push(default)
extern "C" {

void spatialconv_touch(const void* p, int64_t bytes, int store) { SC_RECORD(p, bytes, store != 0); }

void* __real_memcpy(void* to, const void* from, size_t bytes);
void* __real_memmove(void* to, const void* from, size_t bytes);
void* __real_memset(void* to, int value, size_t bytes);

void* __wrap_memcpy(void* to, const void* from, size_t bytes) {
  SC_RECORD(from, bytes, false);
  SC_RECORD(to, bytes, true);
  return __real_memcpy(to, from, bytes);
}
void* __wrap_memmove(void* to, const void* from, size_t bytes) {
  SC_RECORD(from, bytes, false);
  SC_RECORD(to, bytes, true);
  return __real_memmove(to, from, bytes);
}
void* __wrap_memset(void* to, int value, size_t bytes) {
  SC_RECORD(to, bytes, true);
  return __real_memset(to, value, bytes);
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_read_range(void* p, size_t bytes) { SC_RECORD(p, bytes, false); }
void __tsan_write_range(void* p, size_t bytes) { SC_RECORD(p, bytes, true); }
// Of a list of tasks, which one thread walks alone here; not an access of the kernel's to what it works on.
int64_t __tsan_atomic64_load(const volatile int64_t* p, int) { return *p; }
void __tsan_atomic64_store(volatile int64_t* p, int64_t value, int) { *p = value; }
int __tsan_atomic64_compare_exchange_weak(volatile int64_t* p, int64_t* seen, int64_t value, int, int) {
  const bool same = *p == *seen;
  *(same ? p : seen) = same ? value : *p;
  return same;
}
int __tsan_atomic64_compare_exchange_strong(volatile int64_t* p, int64_t* seen, int64_t value, int, int) {
  return __tsan_atomic64_compare_exchange_weak(p, seen, value, 0, 0);
}
uint8_t __tsan_atomic8_load(const volatile uint8_t* p, int) { return *p; }
void __tsan_atomic8_store(volatile uint8_t* p, uint8_t value, int) { *p = value; }

#define SC_ACCESS(bytes)                                                \
  void __tsan_read##bytes(void* p) { SC_RECORD(p, bytes, false); }            \
  void __tsan_write##bytes(void* p) { SC_RECORD(p, bytes, true); }            \
  void __tsan_unaligned_read##bytes(void* p) { SC_RECORD(p, bytes, false); }  \
  void __tsan_unaligned_write##bytes(void* p) { SC_RECORD(p, bytes, true); }  \
  void __tsan_volatile_read##bytes(void* p) { SC_RECORD(p, bytes, false); }   \
  void __tsan_volatile_write##bytes(void* p) { SC_RECORD(p, bytes, true); }
SC_ACCESS(1)
SC_ACCESS(2)
SC_ACCESS(4)
SC_ACCESS(8)
SC_ACCESS(16)
#undef SC_ACCESS

}  // extern "C"
#pragma GCC visibility pop

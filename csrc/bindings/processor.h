// What this processor has and this system lets a process use.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace spatialconv {
namespace bindings {

struct CpuId {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;

  explicit CpuId(unsigned leaf, unsigned part = 0) { __get_cpuid_count(leaf, part, &eax, &ebx, &ecx, &edx); }
};

inline bool has_f16c() { return (CpuId(1).ecx & bit_F16C) != 0; }

inline bool runs_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

inline bool runs_avx512() {
  return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd");
}

inline bool runs_avx512_bf16() { return runs_avx512() && (CpuId(7, 1).eax & 1u << 5) != 0; }

// Whether the system saves tile registers, and grants them to this process: arch_prctl(ARCH_REQ_XCOMP_PERM,
// XFEATURE_XTILEDATA), Linux, "Documentation/arch/x86/xstate.rst". Asked again, it answers the same.
inline bool grants_tiles() {
#if defined(__linux__)
  constexpr unsigned kOsXsave = 1u << 27, kTileState = 3u << 17;
  if ((CpuId(1).ecx & kOsXsave) == 0) return false;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kTileState) == kTileState && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
  return false;
#endif
}

// Tiles of bfloat16: eight of 16 rows of 64 bytes in palette 1, on a processor of level avx512.
inline bool runs_amx_bf16() {
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
  if (!runs_avx512() || (~CpuId(7).edx & (kBf16 | kTile)) != 0) return false;
  const CpuId palette(0x1D, 1);
  return palette.ebx >> 16 >= 8 && (palette.ebx & 0xFFFF) >= 64 && (palette.ecx & 0xFFFF) >= 16 && grants_tiles();
}

}  // namespace bindings
}  // namespace spatialconv
#endif

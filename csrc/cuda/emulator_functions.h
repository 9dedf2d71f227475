// Device functions of CUDA as the emulator gives them.
#pragma once

inline void __syncthreads() { emulator::meet(emulator::block().barriers[0], emulator::block().threads, true); }

// All threads of the warp have to come: no kernel here splits a warp.
inline void __syncwarp(unsigned = ~0u) { emulator::meet(emulator::warp().meeting, emulator::warp_threads(), true); }

template <class T>
T __shfl_sync(unsigned, T value, int source, int width = 32) {
  const auto& all = emulator::gather(value);
  const int first = static_cast<int>(emulator::lane()) / width * width;
  return all[first + (source & (width - 1))];
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask, int = 32) {
  return emulator::gather(value)[emulator::lane() ^ static_cast<unsigned>(mask)];
}

template <class T>
T __shfl_down_sync(unsigned, T value, unsigned delta, int width = 32) {
  const unsigned lane = emulator::lane(), last = lane / width * width + width - 1;
  return emulator::gather(value)[lane + delta > last ? lane : lane + delta];
}

template <class T>
T __shfl_up_sync(unsigned, T value, unsigned delta, int width = 32) {
  const unsigned lane = emulator::lane(), place = lane % width;
  return emulator::gather(value)[place < delta ? lane : lane - delta];
}

inline unsigned __ballot_sync(unsigned, bool vote) {
  const auto& all = emulator::gather(vote);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < emulator::warp_threads(); ++lane) votes |= static_cast<unsigned>(all[lane]) << lane;
  return votes;
}

inline bool __any_sync(unsigned mask, bool vote) { return __ballot_sync(mask, vote) != 0; }
inline bool __all_sync(unsigned mask, bool vote) { return __ballot_sync(mask, !vote) == 0; }

template <class T>
T __ldg(const T* place) {
  return *place;
}

namespace emulator {

template <class To, class From>
To bits_as(From value) {
  static_assert(sizeof(To) == sizeof(From), "the same number of bits");
  To bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

}  // namespace emulator

inline unsigned __float_as_uint(float value) { return emulator::bits_as<unsigned>(value); }
inline int __float_as_int(float value) { return emulator::bits_as<int>(value); }
inline float __uint_as_float(unsigned bits) { return emulator::bits_as<float>(bits); }
inline float __int_as_float(int bits) { return emulator::bits_as<float>(bits); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(static_cast<unsigned>(bits)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32); }

using std::max;
using std::min;

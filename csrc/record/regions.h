// The tensors whose accesses are kept.
#pragma once
#include <cstdint>

namespace spatialconv {
namespace record {

constexpr int64_t kRegions = 5;

struct Regions {
  int64_t begin[kRegions] = {}, bytes[kRegions] = {};

  void set(void* const* tensors, const int64_t* sizes) {
    for (int64_t i = 0; i < kRegions; ++i) {
      begin[i] = reinterpret_cast<int64_t>(tensors[i]);
      bytes[i] = sizes[i];
    }
  }
  // The tensor that an address lies in, with the offset in it; -1 for none.
  int64_t find(const void* p, int64_t* offset) const {
    for (int64_t i = 0; i < kRegions; ++i) {
      *offset = reinterpret_cast<int64_t>(p) - begin[i];
      if (*offset >= 0 && *offset < bytes[i]) return i;
    }
    return -1;
  }
};

}  // namespace record
}  // namespace spatialconv

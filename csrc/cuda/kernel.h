// What a CUDA kernel declares of itself. Each .cu file ends in one table of entries; tables.cu joins them. The same
// files are compiled by nvcc for a device and, with the twins of launch.h and ptx.h, by a C++ compiler for a CPU.
#pragma once
#include <cstdint>

#include "../common/problem.h"
#include "launch.h"

namespace spatialconv {
namespace cuda {

// `problem` points at a Conv2d or a Pool2d, by the op. `launch` enqueues on the stream, never waits for it, and returns
// 0 or a cudaError_t. Buffers hold device addresses; `buffers.threads` is the number of multiprocessors. `aux` is the
// bias, or where the maxima stand (int64 indices, uint8 with `offsets`), strided as y. `workspace` gives bytes (null:
// none needed). `least_capability`: 80 for sm_80 and later, 90 for sm_90a alone, 0 for any.
struct Entry {
  const char* op;
  const char* name;
  DType dtype;
  int32_t least_capability;
  int32_t (*launch)(const void* problem, const Buffers& buffers, Stream stream);
  int64_t (*workspace)(const void* problem, int64_t multiprocessors);
};

struct Table {
  const Entry* entries;
  int64_t count;
};

}  // namespace cuda
}  // namespace spatialconv

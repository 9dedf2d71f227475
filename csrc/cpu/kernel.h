// What a CPU kernel declares of itself. Each kernel file is compiled once per instruction-set level into the namespace
// SPATIALCONV_ISA and ends in one table of entries; isa.cpp of the same level joins the tables.
#pragma once
#include <cstdint>

#include "../common/problem.h"

namespace spatialconv {

// `problem` points at a Conv2d or a Pool2d, by the op. `run` returns 0 or the thread pool's error code and never
// throws. `workspace` gives bytes (null: none needed). `packed_bytes` and `pack` (null: weights are read as they are)
// serve callers who pre-transform the weights; `pack` reads buffers.w and writes buffers.workspace.
struct KernelEntry {
  const char* op;    // conv2d, conv2d_grad_input, conv2d_grad_weight, max_pool2d, ...
  const char* name;  // direct, gemm, depthwise, ...
  DType dtype;
  int32_t (*run)(const void* problem, const Buffers& buffers);
  int64_t (*workspace)(const void* problem, int64_t threads);
  int64_t (*packed_bytes)(const void* problem);
  int32_t (*pack)(const void* problem, const Buffers& buffers);
};

struct KernelTable {
  const KernelEntry* entries;
  int64_t count;
};

}  // namespace spatialconv

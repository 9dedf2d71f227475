// All CUDA kernels of this build.
#pragma once
#include "kernel.h"

namespace spatialconv {
namespace cuda {

extern const Table* const tables[];
extern const int64_t table_count;

}  // namespace cuda
}  // namespace spatialconv

// One instruction-set level: the tables of every kernel file compiled for it.
#pragma once
#include <cstdint>

#include "kernel.h"

namespace spatialconv {

struct IsaLevel {
  const char* name;
  const KernelTable* const* tables;
  int64_t count;
  // Runs so many rounds of bare multiply-adds in float or double and returns how many operations they were.
  int64_t (*multiply_adds)(DType dtype, int64_t rounds);
};

namespace baseline {
extern const IsaLevel isa_level;
}
namespace avx2 {
extern const IsaLevel isa_level;
}
namespace avx512 {
extern const IsaLevel isa_level;
}

}  // namespace spatialconv

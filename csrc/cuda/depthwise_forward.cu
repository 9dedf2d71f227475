// The forward pass of depthwise convolution.
#include <type_traits>

#include "depthwise_any.h"
#include "depthwise_strip.h"

namespace spatialconv {
namespace cuda {
namespace {

using namespace depthwise;

template <class Storage>
int32_t launch_forward(const void* problem, const Buffers& b, Stream stream) {
  if (!fits(conv(problem))) return kInvalidValue;
  const Problem p = problem_of(conv(problem), false);
  int32_t error = 0;
  if constexpr (!std::is_same_v<Storage, double>) {
    const auto run = [&](auto strip) {
      error = launch_strips<decltype(strip)>(p, b.x, b.w, b.aux, b.y, b.threads, stream);
    };
    if (with_strip<Storage, Pass::forward>(conv(problem), b.x, b.y, run)) return error;
  }
  return launch_any<Storage, false>(p, b.x, b.w, b.aux, b.y, b.threads, stream);
}

template <class Storage>
constexpr Entry entry() {
  return {"conv2d", "cuda_depthwise", dtype_of<Storage>::value, 0, launch_forward<Storage>, no_workspace};
}

constexpr Entry kEntries[] = {entry<float>(), entry<double>(), entry<bf16>(), entry<f16>()};

}  // namespace

extern const Table depthwise_forward_table;
const Table depthwise_forward_table = {kEntries, sizeof kEntries / sizeof kEntries[0]};

}  // namespace cuda
}  // namespace spatialconv

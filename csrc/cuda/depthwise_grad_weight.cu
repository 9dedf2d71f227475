// The gradient of the weight of depthwise convolution.
#include "depthwise_grad_weight.h"

#include <type_traits>

namespace spatialconv {
namespace cuda {
namespace {

using namespace depthwise;

template <class Storage>
int32_t launch_grad_weight(const void* problem, const Buffers& buffers, Stream stream) {
  if (!fits(conv(problem))) return kInvalidValue;
  const Problem p = problem_of(conv(problem), false);
  int32_t error = 0;
  if constexpr (!std::is_same_v<Storage, double>) {
    const auto run = [&](auto strip) {
      error = launch_grad_weight_strips<decltype(strip)>(p, buffers, stream);
    };
    if (with_strip<Storage, Pass::grad_weight>(conv(problem), buffers.x, buffers.y, run)) return error;
  }
  return launch_grad_weight_any<Storage>(p, buffers, stream);
}

// Enough for whichever kernel is taken, which depends on where the tensors begin.
template <class Storage>
int64_t workspace(const void* problem, int64_t) {
  if (!fits(conv(problem))) return -1;
  const Problem p = problem_of(conv(problem), false);
  int64_t blocks = any_cover(p).blocks;
  if constexpr (!std::is_same_v<Storage, double>) {
    const auto count = [&](auto strip) { blocks = larger(blocks, strip_cover<decltype(strip)>(p).blocks); };
    with_strip<Storage, Pass::grad_weight>(conv(problem), nullptr, nullptr, count);
  }
  if (blocks == 1) return 0;
  return blocks * p.channels * p.h.kernel * p.w.kernel * static_cast<int64_t>(sizeof(compute_t<Storage>));
}

template <class Storage>
constexpr Entry entry() {
  return {"conv2d_grad_weight",        "cuda_depthwise",   dtype_of<Storage>::value, 0,
          launch_grad_weight<Storage>, workspace<Storage>};
}

constexpr Entry kEntries[] = {entry<float>(), entry<double>(), entry<bf16>(), entry<f16>()};

}  // namespace

extern const Table depthwise_grad_weight_table;
const Table depthwise_grad_weight_table = {kEntries, sizeof kEntries / sizeof kEntries[0]};

}  // namespace cuda
}  // namespace spatialconv

// The forward pass on plain arithmetic units: any geometry, any group, both layouts.
#include "conv_simt_correlation.h"

namespace spatialconv {
namespace cuda {
namespace {

using namespace conv_simt;

template <class Storage>
int32_t launch_forward(const void* problem, const Buffers& buffers, Stream stream) {
  if (!fits(conv(problem))) return kInvalidValue;
  using Work = CorrelationWork<Storage, false>;
  const auto p = correlation_problem<Storage, false>(conv(problem), buffers.x, buffers.w, buffers.aux, buffers.y);
  if (p.source_stride.channel == 1) return multiply<Storage, Work, Along::depth, Along::depth>(p, stream);
  return multiply<Storage, Work, Along::lines, Along::depth>(p, stream);
}

template <class Storage>
constexpr Entry entry() {
  return {"conv2d", "cuda_simt", dtype_of<Storage>::value, 0, launch_forward<Storage>, no_workspace};
}

constexpr Entry kEntries[] = {entry<float>(), entry<double>(), entry<bf16>(), entry<f16>()};

}  // namespace

extern const Table conv_simt_forward_table;
const Table conv_simt_forward_table = {kEntries, sizeof kEntries / sizeof kEntries[0]};

}  // namespace cuda
}  // namespace spatialconv

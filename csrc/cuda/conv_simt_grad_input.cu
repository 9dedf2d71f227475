// The gradient of the input on plain arithmetic units: any geometry, any group, both layouts.
#include "conv_simt_correlation.h"

namespace spatialconv {
namespace cuda {
namespace {

using namespace conv_simt;

template <class Storage>
int32_t launch_grad_input(const void* problem, const Buffers& buffers, Stream stream) {
  if (!fits(conv(problem))) return kInvalidValue;
  using Work = CorrelationWork<Storage, true>;
  const auto p = correlation_problem<Storage, true>(conv(problem), buffers.y, buffers.w, nullptr, buffers.x);
  if (p.source_stride.channel == 1) return multiply<Storage, Work, Along::depth, Along::lines>(p, stream);
  return multiply<Storage, Work, Along::lines, Along::lines>(p, stream);
}

template <class Storage>
constexpr Entry entry() {
  return {"conv2d_grad_input", "cuda_simt", dtype_of<Storage>::value, 0, launch_grad_input<Storage>, no_workspace};
}

constexpr Entry kEntries[] = {entry<float>(), entry<double>(), entry<bf16>(), entry<f16>()};

}  // namespace

extern const Table conv_simt_grad_input_table;
const Table conv_simt_grad_input_table = {kEntries, sizeof kEntries / sizeof kEntries[0]};

}  // namespace cuda
}  // namespace spatialconv

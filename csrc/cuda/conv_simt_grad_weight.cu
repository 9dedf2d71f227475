// The gradient of the weight on plain arithmetic units: any geometry, any group, both layouts.
#include "conv_simt_grad_weight.h"

namespace spatialconv {
namespace cuda {
namespace {

using namespace conv_simt;

template <class Storage>
int32_t launch_grad_weight(const void* problem, const Buffers& buffers, Stream stream) {
  if (!fits(conv(problem))) return kInvalidValue;
  using Work = GradWeightWork<Storage>;
  const auto p = grad_weight_problem<Storage>(conv(problem), buffers);
  const int32_t error = p.tap_major ? multiply<Storage, Work, Along::lines, Along::lines>(p, stream)
                                    : multiply<Storage, Work, Along::depth, Along::depth>(p, stream);
  if (error != 0 || p.partial == nullptr) return error;
  return add_shares<Storage>(p.partial, p.result_count, p.shares, p.result, stream);
}

template <class Storage>
int64_t workspace_grad_weight(const void* problem, int64_t) {
  if (!fits(conv(problem))) return -1;
  const auto p = grad_weight_problem<Storage>(conv(problem), Buffers{});
  return p.shares > 1 ? p.shares * p.result_count * static_cast<int64_t>(sizeof(compute_t<Storage>)) : 0;
}

template <class Storage>
constexpr Entry entry() {
  return {"conv2d_grad_weight",        "cuda_simt", dtype_of<Storage>::value, 0,
          launch_grad_weight<Storage>, workspace_grad_weight<Storage>};
}

constexpr Entry kEntries[] = {entry<float>(), entry<double>(), entry<bf16>(), entry<f16>()};

}  // namespace

extern const Table conv_simt_grad_weight_table;
const Table conv_simt_grad_weight_table = {kEntries, sizeof kEntries / sizeof kEntries[0]};

}  // namespace cuda
}  // namespace spatialconv

// Convolution as a matrix product whose large operand is packed block by block: any geometry, all three passes.
#include "kernel.h"

#include "gemm_correlate.h"
#include "gemm_detour.h"
#include "gemm_grad_band.h"
#include "gemm_grad_weight.h"
#include "gemm_merge.h"
#include "gemm_spread.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

using namespace gemm;

// The correlation whose filters are packed.
template <class Storage>
Correlation packed_correlation(const Conv2d& p) {
  return forward_correlation(suits_detour<Storage>(p, true) ? Detour<compute_t<Storage>>(p).problem : p);
}

template <class Storage>
int64_t forward_packed_bytes(const void* problem) {
  using C = compute_t<Storage>;
  return packed_weight_size<C>(packed_correlation<Storage>(as_conv(problem))) * sizeof(C);
}

template <class Storage>
int32_t forward_pack(const void* problem, const Buffers& b) {
  return pack_weights(packed_correlation<Storage>(as_conv(problem)), static_cast<const Storage*>(b.w),
                      static_cast<compute_t<Storage>*>(b.workspace));
}

template <class Storage>
int32_t run_forward(const void* problem, const Buffers& buffers) {
  using C = compute_t<Storage>;
  const auto run = [](const Conv2d& p, const Buffers& b) {
    return correlate<Storage>(forward_correlation(p), b.x, b.w, b.packed != 0, b.y, b.aux, b.workspace, b.threads);
  };
  const Conv2d& p = as_conv(problem);
  if (!suits_detour<Storage>(p, true)) return run(p, buffers);
  Buffers b = buffers;
  if (b.packed == 0) {  // once for all images
    const int32_t error = forward_pack<Storage>(problem, b);
    if (error != 0) return error;
    b.w = b.workspace;
    b.packed = 1;
    b.workspace = static_cast<char*>(b.workspace) + round_up(forward_packed_bytes<Storage>(problem), 64 * sizeof(C));
  }
  return take_detour<C>(p, b, true, run);
}

template <class Storage>
int64_t forward_workspace(const void* problem, int64_t threads) {
  const auto workspace = [threads](const Conv2d& p) {
    return correlate_workspace<Storage>(forward_correlation(p), threads);
  };
  const Conv2d& p = as_conv(problem);
  return suits_detour<Storage>(p, true) ? detour_workspace<compute_t<Storage>>(p, workspace) : workspace(p);
}

template <class Storage>
int32_t grad_input_in_layout(const Conv2d& p, const Buffers& b) {
  if (suits_merging<Storage>(p)) {
    bool done = false;
    const int32_t error = correlate_merged<Storage>(p, b, &done);
    if (error != 0 || done) return error;
  }
  for (int64_t phase = 0; phase < gradient_phases(p); ++phase) {
    const int32_t error = correlate<Storage>(gradient_correlation(p, phase), b.y, b.w, false, b.x, nullptr, b.workspace,
                                             b.threads);
    if (error != 0) return error;
  }
  return 0;
}

template <class Storage>
int32_t run_grad_input(const void* problem, const Buffers& b) {
  const Conv2d& p = as_conv(problem);
  if (suits_spread<Storage>(p)) return spread<Storage>(p, b);
  if (!suits_detour<Storage>(p, false)) return grad_input_in_layout<Storage>(p, b);
  return take_detour<compute_t<Storage>>(p, b, false, grad_input_in_layout<Storage>);
}

template <class Storage>
int64_t grad_input_workspace(const void* problem, int64_t threads) {
  const auto workspace = [threads](const Conv2d& p) {
    int64_t bytes = suits_merging<Storage>(p) ? merged_workspace<Storage>(p, threads) : 0;
    for (int64_t phase = 0; phase < gradient_phases(p); ++phase) {
      bytes = larger(bytes, correlate_workspace<Storage>(gradient_correlation(p, phase), threads));
    }
    return bytes;
  };
  const Conv2d& p = as_conv(problem);
  if (suits_spread<Storage>(p)) return spread_workspace<Storage>(p, threads);
  return suits_detour<Storage>(p, false) ? detour_workspace<compute_t<Storage>>(p, workspace) : workspace(p);
}

template <class Storage>
int32_t run_grad_weight(const void* problem, const Buffers& b) {
  const Correlation c = forward_correlation(as_conv(problem));
  const auto run = suits_grad_bands<Storage>(c) ? grad_bands<Storage> : grad_weight<Storage>;
  return run(c, b.x, b.y, b.w, b.workspace, b.threads);
}

template <class Storage>
int64_t weight_workspace(const void* problem, int64_t threads) {
  const Correlation c = forward_correlation(as_conv(problem));
  return (suits_grad_bands<Storage>(c) ? grad_bands_workspace<Storage> : grad_weight_workspace<Storage>)(c, threads);
}

template <class Storage>
constexpr KernelEntry forward_entry(DType dtype) {
  return {"conv2d", "gemm", dtype, run_forward<Storage>, forward_workspace<Storage>, forward_packed_bytes<Storage>,
          forward_pack<Storage>};
}
template <class Storage>
constexpr KernelEntry grad_input_entry(DType dtype) {
  return {"conv2d_grad_input", "gemm", dtype, run_grad_input<Storage>, grad_input_workspace<Storage>, nullptr, nullptr};
}
template <class Storage>
constexpr KernelEntry grad_weight_entry(DType dtype) {
  return {"conv2d_grad_weight", "gemm", dtype, run_grad_weight<Storage>, weight_workspace<Storage>, nullptr, nullptr};
}

const KernelEntry entries[] = {
    forward_entry<float>(DType::f32),      grad_input_entry<float>(DType::f32),  grad_weight_entry<float>(DType::f32),
    forward_entry<double>(DType::f64),     grad_input_entry<double>(DType::f64), grad_weight_entry<double>(DType::f64),
    forward_entry<bf16>(DType::bf16),      grad_input_entry<bf16>(DType::bf16),  grad_weight_entry<bf16>(DType::bf16),
    forward_entry<f16>(DType::f16),        grad_input_entry<f16>(DType::f16),    grad_weight_entry<f16>(DType::f16),
};

}  // namespace

extern const KernelTable gemm_table;
const KernelTable gemm_table{entries, sizeof entries / sizeof entries[0]};

}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

// Winograd convolution of 3x3 filters, the forward pass and the input gradient: F(2x2, 3x3) in 4/9 of the
// multiplications, as exact as a direct sum, and F(4x4, 3x3) in 1/4 of them. Sources in winograd_transform.h. A dilated
// convolution is several of these, one for each way in which rows and columns are left over by the dilation.
#include "kernel.h"

#include "gemm_detour.h"
#include "winograd_correlate.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

using namespace winograd;

// Pixels that a dilated filter brings together do not follow each other in nchw. What is stored in 16 bits cannot take
// the detour; the kernel's refusals leave it out.
bool needs_detour(const Conv2d& p) { return !gemm::is_nhwc(p) && (p.dh > 1 || p.dw > 1); }

// Runs the problem as it is, or, with what is dilated in nchw, by way of nhwc.
template <class Storage, class Run>
int32_t in_layout(const Conv2d& p, const Buffers& b, bool forward, const Run& run) {
  if constexpr (std::is_same_v<Storage, compute_t<Storage>>) {
    if (needs_detour(p)) return gemm::take_detour<Storage>(p, b, forward, run);
  }
  return run(p, b);
}
template <class Storage, class Workspace>
int64_t workspace_in_layout(const Conv2d& p, const Workspace& workspace) {
  if constexpr (std::is_same_v<Storage, compute_t<Storage>>) {
    if (needs_detour(p)) return gemm::detour_workspace<Storage>(p, workspace);
  }
  return workspace(p);
}

template <class Storage, int m>
int32_t run_forward(const void* problem, const Buffers& buffers) {
  return in_layout<Storage>(gemm::as_conv(problem), buffers, true, [](const Conv2d& p, const Buffers& b) {
    return correlate<Storage, m>(gemm::forward_correlation(p), b.x, b.w, b.packed != 0, b.y, b.aux, b.workspace,
                                 b.threads);
  });
}
template <class Storage, int m>
int64_t forward_workspace(const void* problem, int64_t threads) {
  return workspace_in_layout<Storage>(gemm::as_conv(problem), [threads](const Conv2d& p) {
    return Plan<Storage, m>(gemm::forward_correlation(p), threads).workspace_bytes(threads);
  });
}
template <class Storage, int m>
int64_t forward_packed_bytes(const void* problem) {
  return packed_bytes<Storage, m>(gemm::forward_correlation(gemm::as_conv(problem)));
}
template <class Storage, int m>
int32_t forward_pack(const void* problem, const Buffers& b) {
  return pack<Storage, m>(gemm::forward_correlation(gemm::as_conv(problem)), static_cast<const Storage*>(b.w),
                          b.workspace);
}

template <class Storage, int m>
int32_t run_grad_input(const void* problem, const Buffers& buffers) {
  return in_layout<Storage>(gemm::as_conv(problem), buffers, false, [](const Conv2d& p, const Buffers& b) {
    return correlate<Storage, m>(gemm::gradient_correlation(p, 0), b.y, b.w, false, b.x, nullptr, b.workspace,
                                 b.threads);
  });
}
template <class Storage, int m>
int64_t grad_input_workspace(const void* problem, int64_t threads) {
  return workspace_in_layout<Storage>(gemm::as_conv(problem), [threads](const Conv2d& p) {
    return Plan<Storage, m>(gemm::gradient_correlation(p, 0), threads).workspace_bytes(threads);
  });
}

template <class Storage, int m>
constexpr KernelEntry forward_entry(const char* name, DType dtype) {
  return {"conv2d", name, dtype, run_forward<Storage, m>, forward_workspace<Storage, m>,
          forward_packed_bytes<Storage, m>, forward_pack<Storage, m>};
}
template <class Storage, int m>
constexpr KernelEntry grad_input_entry(const char* name, DType dtype) {
  return {"conv2d_grad_input", name, dtype, run_grad_input<Storage, m>, grad_input_workspace<Storage, m>, nullptr,
          nullptr};
}

constexpr KernelEntry kEntries[] = {
    forward_entry<float, 2>("winograd", DType::f32),    grad_input_entry<float, 2>("winograd", DType::f32),
    forward_entry<double, 2>("winograd", DType::f64),   grad_input_entry<double, 2>("winograd", DType::f64),
    forward_entry<bf16, 2>("winograd", DType::bf16),    grad_input_entry<bf16, 2>("winograd", DType::bf16),
    forward_entry<f16, 2>("winograd", DType::f16),      grad_input_entry<f16, 2>("winograd", DType::f16),
    forward_entry<float, 4>("winograd4", DType::f32),   grad_input_entry<float, 4>("winograd4", DType::f32),
};

}  // namespace

extern const KernelTable winograd_table;
const KernelTable winograd_table = {kEntries, sizeof kEntries / sizeof kEntries[0]};

}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

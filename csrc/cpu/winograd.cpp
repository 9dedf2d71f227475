// Winograd convolution of 3x3 filters, the forward pass and the input gradient: F(2x2, 3x3) in 4/9 of the
// multiplications, as exact as a direct sum, and F(4x4, 3x3) in 1/4 of them. Sources in winograd_transform.h.
#include "kernel.h"

#include "winograd_correlate.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

using namespace winograd;

gemm::Correlation forward_of(const void* problem) {
  return gemm::forward_correlation(*static_cast<const Conv2d*>(problem));
}
gemm::Correlation gradient_of(const void* problem) {
  return gemm::gradient_correlation(*static_cast<const Conv2d*>(problem), 0);
}

template <class Storage, int m>
int32_t run_forward(const void* problem, const Buffers& b) {
  return correlate<Storage, m>(forward_of(problem), b.x, b.w, b.packed != 0, b.y, b.aux, b.workspace, b.threads);
}
template <class Storage, int m>
int64_t forward_workspace(const void* problem, int64_t threads) {
  return Plan<Storage, m>(forward_of(problem), threads).workspace_bytes(threads);
}
template <class Storage, int m>
int64_t forward_packed_bytes(const void* problem) {
  return packed_bytes<Storage, m>(forward_of(problem));
}
template <class Storage, int m>
int32_t forward_pack(const void* problem, const Buffers& b) {
  return pack<Storage, m>(forward_of(problem), static_cast<const Storage*>(b.w), b.workspace);
}

template <class Storage, int m>
int32_t run_grad_input(const void* problem, const Buffers& b) {
  return correlate<Storage, m>(gradient_of(problem), b.y, b.w, false, b.x, nullptr, b.workspace, b.threads);
}
template <class Storage, int m>
int64_t grad_input_workspace(const void* problem, int64_t threads) {
  return Plan<Storage, m>(gradient_of(problem), threads).workspace_bytes(threads);
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

// Depthwise convolution (one input channel per group): the table of its three passes, in either layout.
#include "depthwise_grad_weight_nchw.h"
#include "depthwise_grad_weight_nhwc.h"
#include "depthwise_large.h"
#include "depthwise_nchw.h"
#include "depthwise_nhwc.h"
#include "kernel.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

const Conv2d& conv(const void* problem) { return *static_cast<const Conv2d*>(problem); }
bool channels_last(const Conv2d& p) { return p.x_stride[1] == 1 && p.y_stride[1] == 1; }

template <class Storage>
int32_t run_forward(const void* problem, const Buffers& buffers) {
  const Conv2d& p = conv(problem);
  if (!channels_last(p)) return depthwise_forward_nchw<Storage>(p, buffers);
  if (!suits_large(p)) return depthwise_forward_nhwc<Storage>(p, buffers);
  return depthwise_large(p, LargeSum::forward(p), buffers, static_cast<const Storage*>(buffers.x),
                         static_cast<Storage*>(buffers.y), static_cast<const Storage*>(buffers.aux), p.activation);
}
template <class Storage>
int64_t forward_workspace(const void* problem, int64_t threads) {
  const Conv2d& p = conv(problem);
  if (!channels_last(p)) return depthwise_forward_nchw_workspace<Storage>(p, threads);
  if (!suits_large(p)) return depthwise_nhwc_workspace<Storage>(p, threads);
  return depthwise_large_workspace<Storage>(p, LargeSum::forward(p), threads);
}

template <class Storage>
int64_t forward_packed_bytes(const void* problem) {
  const Conv2d& p = conv(problem);
  if (!channels_last(p) || suits_large(p)) return 0;
  return lines_of<compute_t<Storage>>(tap_weights_size<compute_t<Storage>>(p));
}
template <class Storage>
int32_t forward_pack(const void* problem, const Buffers& buffers) {
  return pack_depthwise_nhwc<Storage>(conv(problem), buffers);
}

template <class Storage>
int32_t run_grad_input(const void* problem, const Buffers& buffers) {
  const Conv2d& p = conv(problem);
  if (!channels_last(p)) return depthwise_grad_input_nchw<Storage>(p, buffers);
  if (!suits_large(p)) return depthwise_grad_input_nhwc<Storage>(p, buffers);
  return depthwise_large<Storage>(p, LargeSum::grad_input(p), buffers, static_cast<const Storage*>(buffers.y),
                                  static_cast<Storage*>(buffers.x), nullptr, Activation::none);
}
template <class Storage>
int64_t grad_input_workspace(const void* problem, int64_t threads) {
  const Conv2d& p = conv(problem);
  if (!channels_last(p)) return depthwise_grad_input_nchw_workspace<Storage>(p, threads);
  if (!suits_large(p)) return depthwise_nhwc_workspace<Storage>(p, threads);
  return depthwise_large_workspace<Storage>(p, LargeSum::grad_input(p), threads);
}

template <class Storage>
int32_t run_grad_weight(const void* problem, const Buffers& buffers) {
  const Conv2d& p = conv(problem);
  return channels_last(p) ? depthwise_grad_weight_nhwc<Storage>(p, buffers)
                          : depthwise_grad_weight_nchw<Storage>(p, buffers);
}
template <class Storage>
int64_t grad_weight_workspace(const void* problem, int64_t threads) {
  using C = compute_t<Storage>;
  const Conv2d& p = conv(problem);
  if (channels_last(p)) return lines_of<C>(tap_weights_size<C>(p)) * positive_threads(threads);
  const WeightGradPlan<C> plan(p, threads);
  return lines_of<C>(plan.partial_size(p)) + plan.slot * positive_threads(threads);
}

template <class Storage>
constexpr KernelEntry forward_entry(DType dtype) {
  return {"conv2d", "depthwise", dtype, run_forward<Storage>, forward_workspace<Storage>,
          forward_packed_bytes<Storage>, forward_pack<Storage>};
}
template <class Storage>
constexpr KernelEntry grad_input_entry(DType dtype) {
  return {"conv2d_grad_input", "depthwise", dtype, run_grad_input<Storage>, grad_input_workspace<Storage>,
          nullptr, nullptr};
}
template <class Storage>
constexpr KernelEntry grad_weight_entry(DType dtype) {
  return {"conv2d_grad_weight", "depthwise", dtype, run_grad_weight<Storage>, grad_weight_workspace<Storage>,
          nullptr, nullptr};
}

constexpr KernelEntry kEntries[] = {
    forward_entry<float>(DType::f32),     forward_entry<double>(DType::f64),     forward_entry<bf16>(DType::bf16),
    forward_entry<f16>(DType::f16),       grad_input_entry<float>(DType::f32),   grad_input_entry<double>(DType::f64),
    grad_input_entry<bf16>(DType::bf16),  grad_input_entry<f16>(DType::f16),     grad_weight_entry<float>(DType::f32),
    grad_weight_entry<double>(DType::f64), grad_weight_entry<bf16>(DType::bf16), grad_weight_entry<f16>(DType::f16),
};

}  // namespace

extern const KernelTable depthwise_table;
const KernelTable depthwise_table = {kEntries, sizeof kEntries / sizeof kEntries[0]};

}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

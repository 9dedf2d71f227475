// The direct convolution: the trilinear form's own loop nest, for every geometry, dtype and stride. The universal
// kernel.
#include "direct_channel.h"
#include "direct_width.h"
#include "kernel.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

const Conv2d& conv(const void* problem) { return *static_cast<const Conv2d*>(problem); }

template <class T>
int32_t conv2d(const void* problem, const Buffers& buffers) {
  const Conv2d& p = conv(problem);
  return direct::suits_channel_lanes<T>(p) ? direct::forward_channel<T>(p, buffers)
                                           : direct::forward_width<T>(p, buffers);
}

template <class T>
int32_t conv2d_grad_input(const void* problem, const Buffers& buffers) {
  const Conv2d& p = conv(problem);
  return direct::suits_channel_lanes<T>(p) ? direct::grad_input_channel<T>(p, buffers)
                                           : direct::grad_input_width<T>(p, buffers);
}

template <class T>
int32_t conv2d_grad_weight(const void* problem, const Buffers& buffers) {
  const Conv2d& p = conv(problem);
  return direct::suits_channel_lanes<T>(p) ? direct::grad_weight_channel<T>(p, buffers)
                                           : direct::grad_weight_width<T>(p, buffers);
}

// The forward pass and grad_input want the channels of the weight next to each other, and copy it where they are not.
template <class T>
int64_t workspace(const void* problem, int64_t) {
  const Conv2d& p = conv(problem);
  return direct::suits_channel_lanes<T>(p) ? direct::packed_weight_bytes<T>(p) : 0;
}

#define SC_DIRECT(T, DTYPE)                                                                           \
  {"conv2d", "direct", DTYPE, conv2d<T>, workspace<T>, nullptr, nullptr},                             \
      {"conv2d_grad_input", "direct", DTYPE, conv2d_grad_input<T>, workspace<T>, nullptr, nullptr}, { \
    "conv2d_grad_weight", "direct", DTYPE, conv2d_grad_weight<T>, nullptr, nullptr, nullptr           \
  }

constexpr KernelEntry kEntries[] = {
    SC_DIRECT(float, DType::f32),
    SC_DIRECT(double, DType::f64),
    SC_DIRECT(bf16, DType::bf16),
    SC_DIRECT(f16, DType::f16),
};

}  // namespace

extern const KernelTable direct_table;
const KernelTable direct_table = {kEntries, sizeof kEntries / sizeof kEntries[0]};

}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

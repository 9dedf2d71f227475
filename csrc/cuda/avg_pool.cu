// Average pooling, and its gradient: every input position takes its share of the outputs whose windows hold it.
#include "pool_forward.h"

namespace spatialconv {
namespace cuda {
namespace {

using namespace pool;

template <class Storage>
struct AverageOutput {
  Storage* values;
};

template <class Storage, int kVector>
struct Average {
  using Compute = compute_t<Storage>;
  using Output = AverageOutput<Storage>;
  Compute sum[kVector];

  __device__ __forceinline__ static Vector<Storage, kVector> neutral() { return {}; }

  __device__ __forceinline__ void start(int32_t) {
#pragma unroll
    for (int v = 0; v < kVector; ++v) sum[v] = 0;
  }

  __device__ __forceinline__ void take(const Vector<Storage, kVector>& seen, int32_t) {
#pragma unroll
    for (int v = 0; v < kVector; ++v) sum[v] += to_compute(seen.value[v]);
  }

  template <class PlaceOf>
  __device__ __forceinline__ void finish(const Problem& p, const Output& output, int32_t oh, int32_t ow, int64_t at,
                                         const PlaceOf&) const {
    const Compute divisor = static_cast<Compute>(divisor_of(p, oh, ow));
    Vector<Storage, kVector> average;
#pragma unroll
    for (int v = 0; v < kVector; ++v) average.value[v] = from_compute<Storage>(sum[v] / divisor);
    store_vector<Storage, kVector>(output.values + at, average);
  }
};

// A share is a product with the divisor's inverse: a division for each window, not for each channel of it.
template <class Storage, int kVector>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(Problem p, const Storage* grad_output, Storage* grad_input, int64_t count) {
  using Compute = compute_t<Storage>;
  const Compute given = p.divisor != 0 ? Compute{1} / static_cast<Compute>(p.divisor) : Compute{};
  for_each_unit(count, [&](int64_t unit) {
    const Position at = position_of<kVector>(p, unit, p.h.in, p.w.in);
    const Covering rows = covering(p.h, at.row), columns = covering(p.w, at.column);
    const Storage* from = grad_output + at.image * p.y_image + at.channel * p.y_channel;
    Compute sum[kVector] = {};
    for (int32_t oh = rows.first; oh <= rows.last; ++oh) {
      if (tap_at(p.h, at.row, oh) < 0) continue;
      for (int32_t ow = columns.first; ow <= columns.last; ++ow) {
        if (tap_at(p.w, at.column, ow) < 0) continue;
        const Compute share = p.divisor != 0 ? given : Compute{1} / static_cast<Compute>(divisor_of(p, oh, ow));
        const auto gradient = load_vector<Storage, kVector>(from + (oh * p.h.y_step + ow * p.w.y_step));
#pragma unroll
        for (int v = 0; v < kVector; ++v) sum[v] += to_compute(gradient.value[v]) * share;
      }
    }
    Vector<Storage, kVector> narrow;
#pragma unroll
    for (int v = 0; v < kVector; ++v) narrow.value[v] = from_compute<Storage>(sum[v]);
    store_vector<Storage, kVector>(
        grad_input + (at.image * p.x_image + at.channel * p.x_channel + at.row * p.h.x_step + at.column * p.w.x_step),
        narrow);
  });
}

template <class Storage>
bool in_vectors(const Problem& p, const Buffers& buffers) {
  return reads_vectors(p, kVectorWidth<Storage>) && is_aligned(buffers.x, 16) && is_aligned(buffers.y, 16);
}

template <class Storage>
int32_t launch_avg_pool(const void* problem, const Buffers& buffers, Stream stream) {
  if (!fits(problem)) return kInvalidValue;
  const Problem p = problem_of(problem);
  const AverageOutput<Storage> output{static_cast<Storage*>(buffers.y)};
  return launch_forward<Storage, Average>(p, buffers.x, output, in_vectors<Storage>(p, buffers), stream);
}

// Windows whose divisors are all alike are windows of a given divisor.
void settle_divisor(Problem& p) {
  const auto all_counted = [](const Axis& axis) {
    const int32_t last = (axis.out - 1) * axis.stride - axis.padding + axis.kernel;
    return !axis.adaptive && last <= axis.in + axis.padding;
  };
  const bool padding_counts = p.include_pad || (p.h.padding == 0 && p.w.padding == 0);
  if (p.divisor == 0 && padding_counts && all_counted(p.h) && all_counted(p.w)) {
    p.divisor = static_cast<int64_t>(p.h.kernel) * p.w.kernel;
  }
}

template <class Storage>
int32_t launch_gradient(const void* problem, const Buffers& buffers, Stream stream) {
  if (!fits(problem)) return kInvalidValue;
  Problem p = problem_of(problem);
  settle_divisor(p);
  const auto* from = static_cast<const Storage*>(buffers.y);
  auto* to = static_cast<Storage*>(buffers.x);
  const int64_t count = p.images * p.channels * p.h.in * p.w.in;
  if (in_vectors<Storage>(p, buffers)) {
    constexpr int kWidth = kVectorWidth<Storage>;
    return launch_units(gradient_kernel<Storage, kWidth>, count / kWidth, stream, p, from, to, count / kWidth);
  }
  return launch_units(gradient_kernel<Storage, 1>, count, stream, p, from, to, count);
}

template <class Storage>
constexpr Entry forward_entry() {
  return {"avg_pool2d", "cuda_windows", dtype_of<Storage>::value, 0, launch_avg_pool<Storage>, no_workspace};
}
template <class Storage>
constexpr Entry gradient_entry() {
  return {"avg_pool2d_grad_input", "cuda_windows", dtype_of<Storage>::value, 0, launch_gradient<Storage>, no_workspace};
}

constexpr Entry kEntries[] = {
    forward_entry<float>(),  forward_entry<double>(),  forward_entry<bf16>(),  forward_entry<f16>(),
    gradient_entry<float>(), gradient_entry<double>(), gradient_entry<bf16>(), gradient_entry<f16>(),
};

}  // namespace

extern const Table avg_pool_table;
const Table avg_pool_table = {kEntries, sizeof kEntries / sizeof kEntries[0]};

}  // namespace cuda
}  // namespace spatialconv

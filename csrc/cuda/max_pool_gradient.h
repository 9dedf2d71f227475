// The gradient of max pooling, gathered: every input position asks the few windows that hold it whether their maximum
// stands there, and adds their gradients in order, so no two threads write to one place and every run gives the same
// bits.
//
// int64 indices come from the caller, and nothing keeps them inside their windows: the op checks their shape alone. One
// that lies elsewhere in the plane counts there, as in torch; one outside the plane counts nowhere. The gather finds
// such a plane, since exactly one thread sees each window at its first element, and marks it; a last kernel does marked
// planes again, every position looking at every output. Offsets into the window cannot lie elsewhere.
#pragma once
#include "pool.h"

namespace spatialconv {
namespace cuda {
namespace pool {

static __global__ void __launch_bounds__(kThreads) clear_marks_kernel(int32_t* marks, int64_t count) {
  for_each_unit(count, [&](int64_t unit) { marks[unit] = 0; });
}

// Several threads may mark one plane, all with the same value.
__device__ __forceinline__ void set_mark(int32_t* mark) {
#if defined(EMULATED)
  __atomic_store_n(mark, 1, __ATOMIC_RELAXED);
#else
  *mark = 1;
#endif
}

__device__ __forceinline__ bool holds(const Axis& axis, int32_t o, int32_t i) {
  const Window window = window_at(axis, o);
  const int32_t distance = i - window.first;
  return distance >= 0 && distance % window.step == 0 && distance / window.step < window.count;
}

// Whether the index names an element of the plane that is not in window (oh, ow).
__device__ __forceinline__ bool is_foreign(const Problem& p, int64_t index, int32_t oh, int32_t ow) {
  if (index < 0 || index >= static_cast<int64_t>(p.h.in) * p.w.in) return false;
  const int32_t place = static_cast<int32_t>(index);
  return !holds(p.h, oh, place / p.w.in) || !holds(p.w, ow, place % p.w.in);
}

// Index is int64_t or uint8_t. `marks` holds one for each plane, and is not read with uint8_t.
template <class Storage, int kVector, class Index>
__global__ void __launch_bounds__(kThreads)
    scatter_kernel(Problem p, const Storage* grad_output, const Index* places, Storage* grad_input, int32_t* marks,
                   int64_t count) {
  using Compute = compute_t<Storage>;
  constexpr bool kOffsets = sizeof(Index) == 1;
  for_each_unit(count, [&](int64_t unit) {
    const Position at = position_of<kVector>(p, unit, p.h.in, p.w.in);
    const Covering rows = covering(p.h, at.row), columns = covering(p.w, at.column);
    const int64_t plane = at.image * p.y_image + at.channel * p.y_channel;
    const int64_t here = static_cast<int64_t>(at.row) * p.w.in + at.column;
    Compute sum[kVector] = {};
    for (int32_t oh = rows.first; oh <= rows.last; ++oh) {
      const int32_t tap_row = tap_at(p.h, at.row, oh);
      if (tap_row < 0) continue;
      for (int32_t ow = columns.first; ow <= columns.last; ++ow) {
        const int32_t tap_column = tap_at(p.w, at.column, ow);
        if (tap_column < 0) continue;
        const int64_t from = plane + oh * p.h.y_step + ow * p.w.y_step;
        const auto place = load_vector<Index, kVector>(places + from);
        const auto gradient = load_vector<Storage, kVector>(grad_output + from);
        const Index wanted = static_cast<Index>(kOffsets ? tap_row * p.w.kernel + tap_column : here);
#pragma unroll
        for (int v = 0; v < kVector; ++v) {
          if (place.value[v] == wanted) sum[v] += to_compute(gradient.value[v]);
        }
        if constexpr (!kOffsets) {
          if (window_at(p.h, oh).first != at.row || window_at(p.w, ow).first != at.column) continue;
#pragma unroll
          for (int v = 0; v < kVector; ++v) {
            if (is_foreign(p, place.value[v], oh, ow)) set_mark(marks + at.image * p.channels + at.channel + v);
          }
        }
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

// Marked planes again, with indices anywhere: a block takes one plane after another.
template <class Storage>
__global__ void __launch_bounds__(kThreads, 4)
    scatter_marked_kernel(Problem p, const Storage* grad_output, const int64_t* indices, Storage* grad_input,
                          const int32_t* marks) {
  const int64_t planes = p.images * p.channels;
  const int32_t inputs = p.h.in * p.w.in;
  for (int64_t plane = blockIdx.x; plane < planes; plane += gridDim.x) {
    if (marks[plane] == 0) continue;
    const Divided image = divide(plane, p.channels);
    const int64_t from = image.quotient * p.y_image + image.remainder * p.y_channel;
    const int64_t to = image.quotient * p.x_image + image.remainder * p.x_channel;
    for (int32_t place = threadIdx.x; place < inputs; place += kThreads) {
      compute_t<Storage> sum = 0;
      for (int32_t oh = 0; oh < p.h.out; ++oh) {
        if (window_at(p.h, oh).count == 0) continue;
        for (int32_t ow = 0; ow < p.w.out; ++ow) {
          const int64_t at = from + oh * p.h.y_step + ow * p.w.y_step;
          if (indices[at] == place && window_at(p.w, ow).count > 0) sum += to_compute(grad_output[at]);
        }
      }
      grad_input[to + place / p.w.in * p.h.x_step + place % p.w.in * p.w.x_step] = from_compute<Storage>(sum);
    }
  }
}

// The derivative of that gradient: every output takes the element at its place, 0 where there is none.
template <class Storage, class Index>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(Problem p, const Storage* x, const Index* places, Storage* y, int64_t count) {
  for_each_unit(count, [&](int64_t unit) {
    const Position at = position_of<1>(p, unit, p.h.out, p.w.out);
    const int64_t to = at.image * p.y_image + at.channel * p.y_channel + at.row * p.h.y_step + at.column * p.w.y_step;
    int64_t row, column;
    if (sizeof(Index) == 1) {
      const int32_t tap = static_cast<int32_t>(places[to]);
      row = at.row * p.h.stride - p.h.padding + tap / p.w.kernel * p.h.dilation;
      column = at.column * p.w.stride - p.w.padding + tap % p.w.kernel * p.w.dilation;
    } else {
      const int64_t index = places[to];
      row = index < 0 ? -1 : index / p.w.in;
      column = index < 0 ? -1 : index % p.w.in;
    }
    const bool there = row >= 0 && row < p.h.in && column >= 0 && column < p.w.in &&
                       window_at(p.h, at.row).count > 0 && window_at(p.w, at.column).count > 0;
    y[to] = there ? x[at.image * p.x_image + at.channel * p.x_channel + row * p.h.x_step + column * p.w.x_step]
                  : Storage{};
  });
}

}  // namespace pool
}  // namespace cuda
}  // namespace spatialconv

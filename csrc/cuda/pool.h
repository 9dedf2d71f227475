// Pooling on a GPU: windows along one axis, for normal, dilated, clipped and adaptive windows alike, and how threads
// share positions. In channels_last a thread computes a vector of channels and neighbouring threads take neighbouring
// vectors; otherwise a thread computes one value and neighbouring threads take neighbouring columns.
#pragma once
#include "../common/geometry.h"
#include "kernel.h"
#include "number.h"
#include "vector.h"

namespace spatialconv {
namespace cuda {
namespace pool {

constexpr int32_t kInvalidValue = 1;  // cudaErrorInvalidValue
constexpr int kThreads = 128;

struct Axis {
  int32_t in, out, kernel, stride, padding, dilation;
  bool adaptive;
  int64_t x_step, y_step;
};

struct Problem {
  Axis h, w;
  int64_t images;
  int32_t channels;
  int64_t x_image, x_channel, y_image, y_channel;
  int64_t divisor;  // 0: none given
  bool channels_last, include_pad, offsets;
};

inline const Pool2d& pool2d(const void* problem) { return *static_cast<const Pool2d*>(problem); }

inline Axis axis_of(bool adaptive, int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t padding,
                    int64_t dilation, int64_t x_step, int64_t y_step) {
  const auto narrow = [](int64_t value) { return static_cast<int32_t>(value); };
  return {narrow(in),       narrow(out), narrow(kernel), narrow(stride), narrow(padding),
          narrow(dilation), adaptive,    x_step,         y_step};
}

inline Problem problem_of(const void* given) {
  const Pool2d& p = pool2d(given);
  Problem problem;
  problem.h = axis_of(p.adaptive != 0, p.ih, p.oh, p.kh, p.sh, p.ph, p.dh, p.x_stride[2], p.y_stride[2]);
  problem.w = axis_of(p.adaptive != 0, p.iw, p.ow, p.kw, p.sw, p.pw, p.dw, p.x_stride[3], p.y_stride[3]);
  problem.images = p.n;
  problem.channels = static_cast<int32_t>(p.c);
  problem.x_image = p.x_stride[0];
  problem.x_channel = p.x_stride[1];
  problem.y_image = p.y_stride[0];
  problem.y_channel = p.y_stride[1];
  problem.divisor = p.divisor;
  problem.channels_last = p.x_stride[1] == 1 && p.y_stride[1] == 1;
  problem.include_pad = p.include_pad != 0;
  problem.offsets = p.offsets != 0;
  return problem;
}

// Whether positions and places in a plane fit 32 bits; images themselves may be of any size.
inline bool fits(const void* given) {
  constexpr int64_t kPosition = 1 << 28, kPlane = 1 << 30;
  const Pool2d& p = pool2d(given);
  for (const int64_t size : {p.ih, p.iw, p.oh, p.ow, p.kh, p.kw, p.sh, p.sw, p.ph, p.pw, p.dh, p.dw, p.c}) {
    if (size > kPosition) return false;
  }
  return p.kh * p.dh <= kPosition && p.kw * p.dw <= kPosition && p.oh * p.sh <= kPosition &&
         p.ow * p.sw <= kPosition && p.kh * p.kw <= kPlane && p.ih * p.iw <= kPlane && p.oh * p.ow <= kPlane;
}

inline int64_t no_workspace(const void* problem, int64_t) { return fits(problem) ? 0 : -1; }

// The input positions first, first + step, ... of one window, `count` of them, the first of which is tap `first_tap`;
// with none, `first` is where torch would have started, moved inside the input.
struct Window {
  int32_t first, count, step, first_tap;
};

__host__ __device__ inline Window window_at(const Axis& axis, int32_t o) {
  if (axis.adaptive) {
    const int64_t begin = static_cast<int64_t>(o) * axis.in / axis.out;
    const int64_t end = ((o + int64_t{1}) * axis.in + axis.out - 1) / axis.out;
    return {static_cast<int32_t>(begin), static_cast<int32_t>(end - begin), 1, 0};
  }
  Window window{o * axis.stride - axis.padding, 0, axis.dilation, 0};
  if (window.first < 0) {
    window.first_tap = (-window.first + axis.dilation - 1) / axis.dilation;
    window.first += window.first_tap * axis.dilation;
  }
  const int32_t taps = axis.kernel - window.first_tap;
  const int32_t inside = window.first < axis.in ? (axis.in - 1 - window.first) / axis.dilation + 1 : 0;
  const int32_t count = taps < inside ? taps : inside;
  window.count = count > 0 ? count : 0;
  if (window.first > axis.in - 1) window.first = axis.in - 1;
  return window;
}

// Of windows that hold an input element; others are told apart before.
inline bool no_window_is_empty(const Axis& axis) {
  return window_at(axis, 0).count > 0 && window_at(axis, axis.out - 1).count > 0;
}

// The outputs first..last whose windows may hold input position i; `tap_at` tells which do.
struct Covering {
  int32_t first, last;
};

__device__ __forceinline__ Covering covering(const Axis& axis, int32_t i) {
  if (axis.adaptive) {
    return {static_cast<int32_t>(static_cast<int64_t>(i) * axis.out / axis.in),
            static_cast<int32_t>(((i + int64_t{1}) * axis.out - 1) / axis.in)};
  }
  const int32_t shifted = i + axis.padding, reach = (axis.kernel - 1) * axis.dilation;
  const int32_t last = shifted / axis.stride;
  return {shifted > reach ? (shifted - reach + axis.stride - 1) / axis.stride : 0,
          last < axis.out ? last : axis.out - 1};
}

// The tap of window o that stands at input position i, or -1; of adaptive windows 0.
__device__ __forceinline__ int32_t tap_at(const Axis& axis, int32_t i, int32_t o) {
  if (axis.adaptive) return 0;
  const int32_t distance = i + axis.padding - o * axis.stride;
  return axis.dilation == 1 ? distance : distance % axis.dilation == 0 ? distance / axis.dilation : -1;
}

// What one axis contributes to the divisor of an average. Padding counts up to `padding` past the input, as in torch.
__device__ __forceinline__ int32_t divisor_at(const Axis& axis, bool include_pad, int32_t o) {
  if (axis.adaptive || !include_pad) return window_at(axis, o).count;
  const int32_t begin = o * axis.stride - axis.padding;
  return min(begin + axis.kernel, axis.in + axis.padding) - begin;
}

// 1 where torch would divide the 0 of an empty window by 0.
__device__ __forceinline__ int64_t divisor_of(const Problem& p, int32_t oh, int32_t ow) {
  if (p.divisor != 0) return p.divisor;
  const int64_t divisor =
      static_cast<int64_t>(divisor_at(p.h, p.include_pad, oh)) * divisor_at(p.w, p.include_pad, ow);
  return divisor == 0 ? 1 : divisor;
}

// One thread's vector of channels at one position of a grid of `rows` x `columns` positions an image.
struct Position {
  int64_t image;
  int32_t channel, row, column;
};

template <int kVector>
__device__ __forceinline__ Position position_of(const Problem& p, int64_t unit, int32_t rows, int32_t columns) {
  const Divided first = divide(unit, p.channels_last ? p.channels / kVector : columns);
  const Divided second = divide(first.quotient, p.channels_last ? columns : rows);
  const Divided third = divide(second.quotient, p.channels_last ? rows : p.channels);
  if (p.channels_last) return {third.quotient, first.remainder * kVector, third.remainder, second.remainder};
  return {third.quotient, third.remainder, second.remainder, first.remainder};
}

// Calls body(unit) for the thread's share of `count` units.
template <class Body>
__device__ __forceinline__ void for_each_unit(int64_t count, const Body& body) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t unit = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; unit < count; unit += step) {
    body(unit);
  }
}

template <class... Parameters, class... Arguments>
int32_t launch_units(void (*kernel)(Parameters...), int64_t count, Stream stream, const Arguments&... arguments) {
  const int64_t blocks = smaller(ceil_div(count, kThreads), INT32_MAX);
  return launch(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, arguments...);
}

// Whether the channels of every pixel are whole vectors of `width` values.
inline bool reads_vectors(const Problem& p, int64_t width) { return p.channels_last && p.channels % width == 0; }

}  // namespace pool
}  // namespace cuda
}  // namespace spatialconv

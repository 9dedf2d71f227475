// Depthwise convolution: what its kernels share. A block owns a slab of neighbouring channels, whose weights it keeps
// in shared memory, and walks over positions; a thread owns a vector of the slab's channels (`lane`) and takes every
// so-many-th position (`row`). In channels_last lanes are neighbours in memory, else a slab is one channel and rows
// are.
#pragma once
#include "../common/geometry.h"
#include "kernel.h"
#include "number.h"
#include "vector.h"

namespace spatialconv {
namespace cuda {
namespace depthwise {

constexpr int32_t kInvalidValue = 1;  // cudaErrorInvalidValue

// One axis of the image. `result` and `source` are the sizes of what a pass writes and reads.
struct Axis {
  int32_t result, source, kernel, stride, padding, dilation;
  int64_t result_step, source_step;
};

struct Image {
  int64_t image, channel;  // steps
};

// Forward and grad_input. `multiplier` counts output channels for each input channel.
struct Problem {
  Axis h, w;
  Image result, source;
  int64_t images;
  int32_t channels, multiplier;  // channels of the result
  int64_t weight_channel, weight_row, weight_column;
  bool channels_last;
};

inline const Conv2d& conv(const void* problem) { return *static_cast<const Conv2d*>(problem); }

// Whether positions fit 32 bits, padding and filter included; images themselves may be of any size.
inline bool fits(const Conv2d& p) {
  constexpr int64_t kPosition = 1 << 28;
  for (const int64_t size : {p.ih, p.iw, p.oh, p.ow, p.kh, p.kw, p.sh, p.sw, p.ph, p.pw, p.dh, p.dw, p.ic, p.oc}) {
    if (size > kPosition) return false;
  }
  return p.kh * p.dh <= kPosition && p.kw * p.dw <= kPosition && p.oh * p.sh <= kPosition && p.ow * p.sw <= kPosition;
}

inline int64_t no_workspace(const void* problem, int64_t) { return fits(conv(problem)) ? 0 : -1; }

inline Axis axis_of(bool gradient, int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t padding,
                    int64_t dilation, int64_t x_step, int64_t y_step) {
  const auto narrow = [](int64_t value) { return static_cast<int32_t>(value); };
  Axis axis;
  axis.result = narrow(gradient ? in : out);
  axis.source = narrow(gradient ? out : in);
  axis.kernel = narrow(kernel);
  axis.stride = narrow(stride);
  axis.padding = narrow(padding);
  axis.dilation = narrow(dilation);
  axis.result_step = gradient ? x_step : y_step;
  axis.source_step = gradient ? y_step : x_step;
  return axis;
}

// Forward, or grad_input with `gradient`.
inline Problem problem_of(const Conv2d& p, bool gradient) {
  Problem problem;
  problem.h = axis_of(gradient, p.ih, p.oh, p.kh, p.sh, p.ph, p.dh, p.x_stride[2], p.y_stride[2]);
  problem.w = axis_of(gradient, p.iw, p.ow, p.kw, p.sw, p.pw, p.dw, p.x_stride[3], p.y_stride[3]);
  const Image x{p.x_stride[0], p.x_stride[1]}, y{p.y_stride[0], p.y_stride[1]};
  problem.result = gradient ? x : y;
  problem.source = gradient ? y : x;
  problem.images = p.n;
  problem.channels = static_cast<int32_t>(gradient ? p.ic : p.oc);
  problem.multiplier = static_cast<int32_t>(p.oc / p.ic);
  problem.weight_channel = p.w_stride[0];
  problem.weight_row = p.w_stride[2];
  problem.weight_column = p.w_stride[3];
  problem.channels_last = p.x_stride[1] == 1 && p.y_stride[1] == 1;
  return problem;
}

// Whether the channels of every pixel of both images begin on a vector of 16 bytes and are whole vectors.
template <class Storage>
bool reads_vectors(const Conv2d& p, const void* x, const void* y) {
  constexpr int64_t kWidth = kVectorWidth<Storage>;
  return p.x_stride[1] == 1 && p.y_stride[1] == 1 && p.ic == p.oc && p.ic % kWidth == 0 && is_aligned(x, 16) &&
         is_aligned(y, 16);
}

// Whether the filter is a square of that size and stride, without dilation, and each channel has one.
inline bool square(const Conv2d& p, int64_t kernel, int64_t stride) {
  return p.kh == kernel && p.kw == kernel && p.sh == stride && p.sw == stride && p.dh == 1 && p.dw == 1 && p.ic == p.oc;
}

// How a block's threads share `vectors` vectors of channels: the widest slab of at most `most` that leaves the fewest
// lanes without a channel.
inline int32_t lanes_for(int64_t vectors, int64_t most) {
  int64_t best = 1, least = vectors;
  for (int64_t lanes = 1; lanes <= most; ++lanes) {
    const int64_t padded = round_up(vectors, lanes);
    if (lanes == 1 || padded <= least) {
      best = lanes;
      least = padded;
    }
  }
  return static_cast<int32_t>(best);
}

// The positions of a block: `blocks` blocks share the `count` positions of each of `slabs` slabs.
struct Cover {
  int32_t lanes, rows, slabs, blocks;
  int64_t count;
};

}  // namespace depthwise
}  // namespace cuda
}  // namespace spatialconv

// Forward and input-gradient convolutions as one thing: a correlation of a source image with a list of taps, written to
// a regular grid of destination pixels.
#pragma once
#include <cstdint>
#include <utility>

#include "../common/geometry.h"
#include "../common/problem.h"
#include "simd.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

// Grid position b (of `count`) lies at destination coordinate origin + b * spacing; its tap j (of `taps`) reads source
// coordinate b * stride + offset + j * offset_step with filter coordinate kernel_first + j * kernel_step (of `kernel`).
struct Axis {
  int64_t taps, kernel, kernel_first, kernel_step;
  int64_t offset, offset_step, stride, source;
  int64_t origin, spacing, count, dest;

  // Whether grid positions are source coordinates, whole and in order; and destination coordinates too.
  bool in_order() const { return taps == 1 && offset == 0 && stride == 1 && count == source; }
  bool identity() const { return in_order() && origin == 0 && spacing == 1 && count == dest; }
  // The grid positions in [*begin, *end) whose tap j falls inside the source.
  void valid(int64_t j, int64_t* begin, int64_t* end) const {
    const int64_t shift = offset + j * offset_step;
    *begin = shift >= 0 ? 0 : ceil_div(-shift, stride);
    *end = shift >= source ? 0 : (source - 1 - shift) / stride + 1;
    *begin = smaller(*begin, count);
    *end = clamped(*end, *begin, count);
  }
};

// Elements between neighbours of a dense image batch.
struct ImageStrides {
  int64_t image, channel, row, column;
};

struct Correlation {
  bool nhwc;
  bool tap_major;  // depth index (tap, source channel), else (source channel, tap)
  int64_t images, groups;
  int64_t source_channels, dest_channels;  // of one group
  Axis h, w;
  ImageStrides source, dest;
  int64_t weight_group, weight_dest, weight_source, weight_h, weight_w;
  Activation activation = Activation::none;
  bool accumulate = false;  // onto what dest holds, before the activation

  int64_t taps() const { return h.taps * w.taps; }
  int64_t depth() const { return taps() * source_channels; }
  int64_t pixels() const { return images * h.count * w.count; }
  // Whether grid positions in order are destination pixels in order.
  bool dense_dest() const {
    return h.spacing == 1 && w.spacing == 1 && h.count == h.dest && w.count == w.dest && h.origin == 0 && w.origin == 0;
  }
};

inline const Conv2d& as_conv(const void* problem) { return *static_cast<const Conv2d*>(problem); }

inline bool is_nhwc(const Conv2d& p) { return p.x_stride[1] == 1 && p.y_stride[1] == 1; }

inline ImageStrides dense_strides(bool nhwc, int64_t channels, int64_t h, int64_t w) {
  if (nhwc) return {channels * h * w, 1, channels * w, channels};
  return {channels * h * w, h * w, w, 1};
}

// An image one pixel wide is one row, and so is an image whose every pixel meets one tap and keeps its place.
inline void flatten(Correlation& c) {
  if (c.w.source == 1 && c.w.dest == 1 && c.w.identity() && c.w.kernel == 1) {
    std::swap(c.h, c.w);
    std::swap(c.weight_h, c.weight_w);
    c.source.column = c.source.row;
    c.dest.column = c.dest.row;
  }
  if (!c.h.identity() || !c.w.identity()) return;
  const int64_t pixels = c.h.count * c.w.count;
  c.w.source = c.w.count = c.w.dest = pixels;
  c.h.source = c.h.count = c.h.dest = 1;
}

inline Correlation forward_correlation(const Conv2d& p) {
  Correlation c;
  c.nhwc = c.tap_major = is_nhwc(p);
  c.images = p.n;
  c.groups = p.g;
  c.source_channels = p.ic / p.g;
  c.dest_channels = p.oc / p.g;
  c.h = Axis{p.kh, p.kh, 0, 1, -p.ph, p.dh, p.sh, p.ih, 0, 1, p.oh, p.oh};
  c.w = Axis{p.kw, p.kw, 0, 1, -p.pw, p.dw, p.sw, p.iw, 0, 1, p.ow, p.ow};
  c.source = dense_strides(c.nhwc, p.ic, p.ih, p.iw);
  c.dest = dense_strides(c.nhwc, p.oc, p.oh, p.ow);
  c.weight_group = c.dest_channels * p.w_stride[0];
  c.weight_dest = p.w_stride[0];
  c.weight_source = p.w_stride[1];
  c.weight_h = p.w_stride[2];
  c.weight_w = p.w_stride[3];
  c.activation = p.activation;
  c.accumulate = p.accumulate != 0;
  flatten(c);
  return c;
}

// The taps that meet input coordinates residue, residue + stride, ...: those k with stride | residue + pad - k *
// dilation.
inline Axis gradient_axis(int64_t k, int64_t stride, int64_t pad, int64_t dilation, int64_t in, int64_t out,
                          int64_t residue) {
  Axis axis{0, k, 0, 1, 0, 0, 1, out, residue, stride, residue < in ? (in - residue - 1) / stride + 1 : 0, in};
  int64_t first = 0;
  while (first < k && (residue + pad - first * dilation) % stride != 0) ++first;
  if (first == k) return axis;
  int64_t step = 1;
  while (step < k && step * dilation % stride != 0) ++step;  // k: there is no second tap
  axis.kernel_first = first;
  axis.kernel_step = step;
  axis.taps = (k - 1 - first) / step + 1;
  axis.offset = (residue + pad - first * dilation) / stride;
  axis.offset_step = -(step * dilation / stride);
  return axis;
}

// Phases of the input gradient: one for each residue of the input coordinates modulo the stride.
inline int64_t gradient_phases(const Conv2d& p) { return smaller(p.sh, p.ih) * smaller(p.sw, p.iw); }

inline Correlation gradient_correlation(const Conv2d& p, int64_t phase) {
  const int64_t columns = smaller(p.sw, p.iw);
  Correlation c;
  c.nhwc = is_nhwc(p);
  c.tap_major = true;
  c.images = p.n;
  c.groups = p.g;
  c.source_channels = p.oc / p.g;
  c.dest_channels = p.ic / p.g;
  c.h = gradient_axis(p.kh, p.sh, p.ph, p.dh, p.ih, p.oh, phase / columns);
  c.w = gradient_axis(p.kw, p.sw, p.pw, p.dw, p.iw, p.ow, phase % columns);
  c.source = dense_strides(c.nhwc, p.oc, p.oh, p.ow);
  c.dest = dense_strides(c.nhwc, p.ic, p.ih, p.iw);
  c.weight_group = c.source_channels * p.w_stride[0];
  c.weight_dest = p.w_stride[1];
  c.weight_source = p.w_stride[0];
  c.weight_h = p.w_stride[2];
  c.weight_w = p.w_stride[3];
  flatten(c);
  return c;
}

// A run of grid positions, walked pixel by pixel or row by row.
struct Cursor {
  int64_t image, h, w;

  Cursor(const Correlation& c, int64_t pixel)
      : image(pixel / (c.h.count * c.w.count)), h(pixel / c.w.count % c.h.count), w(pixel % c.w.count) {}
  // Moves on by no more than the rest of the row.
  void advance(const Correlation& c, int64_t pixels) {
    w += pixels;
    if (w < c.w.count) return;
    w = 0;
    if (++h < c.h.count) return;
    h = 0;
    ++image;
  }
  void move(const Correlation& c, int64_t pixels) {
    while (pixels > 0) {
      const int64_t n = smaller(pixels, c.w.count - w);
      advance(c, n);
      pixels -= n;
    }
  }
};

inline int64_t dest_offset(const Correlation& c, const Cursor& at) {
  return at.image * c.dest.image + (c.h.origin + at.h * c.h.spacing) * c.dest.row +
         (c.w.origin + at.w * c.w.spacing) * c.dest.column;
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

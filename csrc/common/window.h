// Pooling windows along one axis, and the divisor of an average. Internal linkage: every instruction-set level has
// its own.
#pragma once
#include <cstdint>

#include "problem.h"

#ifndef SPATIALCONV_ISA
#define SPATIALCONV_ISA baseline
#endif

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// One axis of a Pool2d.
struct Axis {
  int64_t in, out, kernel, stride, padding, dilation;
  bool adaptive;
};

inline Axis row_axis(const Pool2d& p) { return {p.ih, p.oh, p.kh, p.sh, p.ph, p.dh, p.adaptive != 0}; }
inline Axis column_axis(const Pool2d& p) { return {p.iw, p.ow, p.kw, p.sw, p.pw, p.dw, p.adaptive != 0}; }

// The input positions first, first + step, ... of one window, `count` of them; with none, `first` is where torch would
// have started, moved inside the input.
struct Window {
  int64_t first, count, step;
};

inline Window window_at(const Axis& axis, int64_t o) {
  if (axis.adaptive) {
    const int64_t begin = o / axis.out * axis.in + o % axis.out * axis.in / axis.out;
    const int64_t next = o + 1;
    const int64_t last = next / axis.out * axis.in + (next % axis.out * axis.in + axis.out - 1) / axis.out;
    return {begin, last - begin, 1};
  }
  int64_t first = o * axis.stride - axis.padding;
  int64_t taps = axis.kernel;
  if (first < 0) {
    const int64_t skipped = (-first + axis.dilation - 1) / axis.dilation;
    first += skipped * axis.dilation;
    taps -= skipped;
  }
  const int64_t room = axis.in - 1 - first;
  int64_t count = room < 0 ? 0 : (axis.dilation == 1 ? room : room / axis.dilation) + 1;
  if (count > taps) count = taps > 0 ? taps : 0;
  if (first > axis.in - 1) first = axis.in - 1;
  return {first, count, axis.dilation};
}

// No tap of window `o` or of a later one lies before this.
inline int64_t earliest_tap(const Axis& axis, int64_t o) {
  if (axis.adaptive) return window_at(axis, o).first;
  const int64_t begin = o * axis.stride - axis.padding;
  return begin > 0 ? begin : 0;
}

// The most input positions between the first and the last of any window, both included.
inline int64_t largest_span(const Axis& axis) {
  if (!axis.adaptive) {
    const int64_t span = (axis.kernel - 1) * axis.dilation + 1;
    return span < axis.in ? span : axis.in;
  }
  const int64_t span = (axis.in + axis.out - 1) / axis.out + 1;
  return span < axis.in ? span : axis.in;
}

// What one axis contributes to the divisor of an average: the divisor is the product of both axes, unless one is given.
// Padding counts up to `padding` past the input, as in torch, and not beyond.
inline int64_t divisor_at(const Axis& axis, bool include_pad, int64_t o) {
  if (axis.adaptive || !include_pad) return window_at(axis, o).count;
  const int64_t begin = o * axis.stride - axis.padding;
  const int64_t end = begin + axis.kernel;
  const int64_t limit = axis.in + axis.padding;
  return (end < limit ? end : limit) - begin;
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

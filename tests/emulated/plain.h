// The passes as plain loops in double over strided tensors: what the kernels are held against.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "common/problem.h"

namespace plain {

using spatialconv::Conv2d;
using spatialconv::Pool2d;
using Values = std::vector<double>;

inline int64_t at(const int64_t (&stride)[4], int64_t a, int64_t b, int64_t c, int64_t d) {
  return a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3];
}

// Calls visit(x place, w place, y place) for every product of the convolution.
template <class Visit>
void products(const Conv2d& p, Visit visit) {
  const int64_t inputs = p.ic / p.g, outputs = p.oc / p.g;
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t oc = 0; oc < p.oc; ++oc)
      for (int64_t oh = 0; oh < p.oh; ++oh)
        for (int64_t ow = 0; ow < p.ow; ++ow)
          for (int64_t kh = 0; kh < p.kh; ++kh)
            for (int64_t kw = 0; kw < p.kw; ++kw) {
              const int64_t ih = oh * p.sh + kh * p.dh - p.ph, iw = ow * p.sw + kw * p.dw - p.pw;
              if (ih < 0 || ih >= p.ih || iw < 0 || iw >= p.iw) continue;
              for (int64_t c = 0; c < inputs; ++c)
                visit(at(p.x_stride, n, oc / outputs * inputs + c, ih, iw), at(p.w_stride, oc, c, kh, kw),
                      at(p.y_stride, n, oc, oh, ow));
            }
}

// The tensor that the pass writes, from the other two; `bias` may be empty.
inline Values convolution(const std::string& op, const Conv2d& p, const Values& x, const Values& w, const Values& y,
                          const Values& bias) {
  if (op == "conv2d_grad_input") {
    Values grad_input(x.size(), 0.0);
    products(p, [&](int64_t i, int64_t k, int64_t o) { grad_input[i] += w[k] * y[o]; });
    return grad_input;
  }
  if (op == "conv2d_grad_weight") {
    Values grad_weight(w.size(), 0.0);
    products(p, [&](int64_t i, int64_t k, int64_t o) { grad_weight[k] += x[i] * y[o]; });
    return grad_weight;
  }
  Values output(y.size(), 0.0);
  if (!bias.empty())
    for (int64_t n = 0; n < p.n; ++n)
      for (int64_t oc = 0; oc < p.oc; ++oc)
        for (int64_t oh = 0; oh < p.oh; ++oh)
          for (int64_t ow = 0; ow < p.ow; ++ow) output[at(p.y_stride, n, oc, oh, ow)] = bias[oc];
  products(p, [&](int64_t i, int64_t k, int64_t o) { output[o] += x[i] * w[k]; });
  return output;
}

// One window along one axis: its taps t stand at begin + t * step, and those inside [0, size) count.
struct Window {
  int64_t begin, taps, step;
};

inline Window window(const Pool2d& p, bool rows, int64_t o) {
  const int64_t in = rows ? p.ih : p.iw, out = rows ? p.oh : p.ow;
  if (p.adaptive) {
    const int64_t begin = o * in / out;
    return {begin, ((o + 1) * in + out - 1) / out - begin, 1};
  }
  return rows ? Window{o * p.sh - p.ph, p.kh, p.dh} : Window{o * p.sw - p.pw, p.kw, p.dw};
}

// What one window holds: the places of its elements in the order of its taps, the taps, and what an average divides by.
struct Held {
  std::vector<int64_t> places, indices, taps;
  double divisor;
};

inline Held held(const Pool2d& p, int64_t n, int64_t c, int64_t oh, int64_t ow) {
  const Window rows = window(p, true, oh), columns = window(p, false, ow);
  Held found;
  for (int64_t a = 0; a < rows.taps; ++a)
    for (int64_t b = 0; b < columns.taps; ++b) {
      const int64_t ih = rows.begin + a * rows.step, iw = columns.begin + b * columns.step;
      if (ih < 0 || ih >= p.ih || iw < 0 || iw >= p.iw) continue;
      found.places.push_back(at(p.x_stride, n, c, ih, iw));
      found.indices.push_back(ih * p.iw + iw);
      found.taps.push_back(a * columns.taps + b);
    }
  const auto padded = [](const Window& w, int64_t size, int64_t padding) {
    return std::min(w.begin + w.taps, size + padding) - w.begin;
  };
  const bool whole = p.include_pad && !p.adaptive;
  found.divisor = p.divisor ? static_cast<double>(p.divisor)
                  : whole   ? static_cast<double>(padded(rows, p.ih, p.ph) * padded(columns, p.iw, p.pw))
                            : static_cast<double>(found.places.size());
  return found;
}

template <class Visit>
void windows(const Pool2d& p, Visit visit) {
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t c = 0; c < p.c; ++c)
      for (int64_t oh = 0; oh < p.oh; ++oh)
        for (int64_t ow = 0; ow < p.ow; ++ow) visit(at(p.y_stride, n, c, oh, ow), held(p, n, c, oh, ow));
}

// Which element of a window is its maximum, the first of equal ones; -1 for a window that holds none.
inline int64_t maximum(const Held& window, const Values& x) {
  int64_t best = -1;
  for (size_t i = 0; i < window.places.size(); ++i)
    if (best < 0 || x[window.places[i]] > x[window.places[best]]) best = static_cast<int64_t>(i);
  return best;
}

// Where the maxima stand, as an index into the plane or, with `offsets`, as a tap; -1 where a window holds nothing.
inline std::vector<int64_t> maxima(const Pool2d& p, const Values& x, size_t outputs) {
  std::vector<int64_t> found(outputs, -1);
  windows(p, [&](int64_t o, const Held& window) {
    const int64_t best = maximum(window, x);
    if (best >= 0) found[o] = p.offsets ? window.taps[best] : window.indices[best];
  });
  return found;
}

// `chosen` are the values that the maxima were found among; x and y are the tensors of the pass.
inline Values pooling(const std::string& op, const Pool2d& p, const Values& chosen, const Values& x, const Values& y) {
  const bool to_input = op == "max_pool2d_scatter" || op == "avg_pool2d_grad_input";
  Values result(to_input ? x.size() : y.size(), 0.0);
  windows(p, [&](int64_t o, const Held& window) {
    const int64_t best = maximum(window, chosen);
    if (op == "max_pool2d") result[o] = best < 0 ? -std::numeric_limits<double>::infinity() : x[window.places[best]];
    if (op == "max_pool2d_gather") result[o] = best < 0 ? 0.0 : x[window.places[best]];
    if (op == "max_pool2d_scatter" && best >= 0) result[window.places[best]] += y[o];
    for (const int64_t place : window.places) {
      if (op == "avg_pool2d") result[o] += x[place] / window.divisor;
      if (op == "avg_pool2d_grad_input") result[place] += y[o] / window.divisor;
    }
    if (op == "avg_pool2d" && window.places.empty()) result[o] = 0.0 / window.divisor;
  });
  return result;
}

}  // namespace plain

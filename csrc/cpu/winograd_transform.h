// The one-dimensional transforms of Winograd's minimal filtering F(m, 3): m outputs of a 3-tap filter from m + 2 inputs
// with m + 2 multiplications. S. Winograd, "Arithmetic Complexity of Computations", 1980; nested to F(m x m, 3 x 3) and
// applied to convolution layers by A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015
// (arXiv 1509.09308).
#pragma once
#include "simd.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace winograd {

// y = output(filter(g) * input(d)) with an elementwise product, where y[i] = sum over k of g[k] * d[i + k].
template <int m>
struct Transform;

// Points 0, 1, -1, infinity. An input is added to and subtracted from none but those that share an output with it, so
// the error of an output is bounded by what that output reads.
template <>
struct Transform<2> {
  template <class Compute>
  SC_INLINE static void filter(const vec<Compute>* g, vec<Compute>* u) {
    const vec<Compute> half = broadcast(Compute(0.5)), outer = g[0] + g[2];
    u[0] = g[0];
    u[1] = (outer + g[1]) * half;
    u[2] = (outer - g[1]) * half;
    u[3] = g[2];
  }
  template <class Compute>
  SC_INLINE static void input(const vec<Compute>* d, vec<Compute>* v) {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[1] - d[3];
  }
  template <class Compute>
  SC_INLINE static void output(const vec<Compute>* s, vec<Compute>* y) {
    y[0] = s[0] + s[1] + s[2];
    y[1] = s[1] - s[2] - s[3];
  }
};

}  // namespace winograd
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

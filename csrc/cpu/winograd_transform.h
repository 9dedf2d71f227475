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

// Points 0, 1, -1, 2, -2, infinity. Inputs are mixed with others that an output does not read, and products grow before
// they cancel: an error like that of operands rounded to tf32. Multiply-adds are named, so that every copy of this code
// rounds alike.
template <>
struct Transform<4> {
  template <class Compute>
  SC_INLINE static void filter(const vec<Compute>* g, vec<Compute>* u) {
    const vec<Compute> sixth = broadcast(Compute(1) / 6), twelfth = broadcast(Compute(1) / 12);
    const vec<Compute> outer = (g[0] + g[2]) * -sixth;
    const vec<Compute> wide = fma(g[0], broadcast(Compute(1) / 24), g[2] * sixth);
    u[0] = g[0] * broadcast(Compute(0.25));
    u[1] = fma(g[1], -sixth, outer);
    u[2] = fma(g[1], sixth, outer);
    u[3] = fma(g[1], twelfth, wide);
    u[4] = fma(g[1], -twelfth, wide);
    u[5] = g[2];
  }
  template <class Compute>
  SC_INLINE static void input(const vec<Compute>* d, vec<Compute>* v) {
    const vec<Compute> two = broadcast(Compute(2)), four = broadcast(Compute(4)), five = broadcast(Compute(5));
    const vec<Compute> even = fma(d[2], -four, d[4]), odd = fma(d[1], -four, d[3]);
    const vec<Compute> outer = d[4] - d[2], inner = d[3] - d[1];
    v[0] = fma(d[0], four, fma(d[2], -five, d[4]));
    v[1] = even + odd;
    v[2] = even - odd;
    v[3] = fma(inner, two, outer);
    v[4] = fma(inner, -two, outer);
    v[5] = fma(d[1], four, fma(d[3], -five, d[5]));
  }
  template <class Compute>
  SC_INLINE static void output(const vec<Compute>* s, vec<Compute>* y) {
    const vec<Compute> sum = s[1] + s[2], difference = s[1] - s[2];
    const vec<Compute> wide_sum = s[3] + s[4], wide_difference = s[3] - s[4];
    y[0] = s[0] + sum + wide_sum;
    y[1] = fma(wide_difference, broadcast(Compute(2)), difference);
    y[2] = fma(wide_sum, broadcast(Compute(4)), sum);
    y[3] = fma(wide_difference, broadcast(Compute(8)), difference + s[5]);
  }
};

}  // namespace winograd
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

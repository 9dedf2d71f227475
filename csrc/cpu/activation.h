// Activations of finished sums, in registers. NaN and infinities come out as torch's functions give them. In float,
// exponential and normal distribution are polynomials, in double they are libm's, lane by lane.
#pragma once
#include <cmath>
#include <type_traits>

#include "../common/problem.h"
#include "simd.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {

// The polynomial whose coefficients are given from the constant one up.
template <int n>
SC_INLINE vec<float> polynomial(vec<float> x, const float (&coefficients)[n]) {
  vec<float> value = broadcast(coefficients[n - 1]);
  SC_UNROLL for (int i = n - 2; i >= 0; --i) value = fma(value, x, broadcast(coefficients[i]));
  return value;
}

// e^x with a relative error below 1e-7; 0 below e^-87.6, infinite above e^88.4. The argument is reduced by a multiple
// of ln 2, subtracted in two parts (Cody and Waite, "Software Manual for the Elementary Functions", 1980); the rest,
// at most half of ln 2, is interpolated at Chebyshev nodes (relative error 2.6e-9).
SC_INLINE vec<float> exponential(vec<float> x) {
  constexpr float coefficients[] = {1.0f,           1.00000003772f,    0.500000004712f,  0.166664155147f,
                                    0.0416663528968f, 0.00837512639815f, 0.0013941108434f};
  using Whole = decltype(x < x);
  const vec<float> nearest = broadcast(12582912.0f);  // 1.5 * 2^23: a sum with it is rounded to an integer
  x = at_most(at_least(x, broadcast(-88.0f)), broadcast(88.8f));
  const vec<float> shifted = fma(x, broadcast(1.44269504f), nearest);
  const Whole exponent = (Whole)shifted - (Whole)nearest;
  const vec<float> count = shifted - nearest;
  const vec<float> rest = fma(count, broadcast(2.12194440e-4f), fma(count, broadcast(-0.693359375f), x));
  return polynomial(rest, coefficients) * (vec<float>)((exponent + 127) << 23);
}

// The standard normal distribution at -a, a >= 0, with a relative error below 3e-7 for a below 2, absolute 1e-8 beyond.
// Divided by its density and by t = 1 / (1 + a / 4) it is smooth in t over (0, 1], as Shepherd and Laframboise found
// ("Chebyshev Approximation of (1 + 2x) exp(x^2) erfc x", 1981), and interpolated there at Chebyshev nodes (9.1e-8).
SC_INLINE vec<float> normal_below(vec<float> a) {
  constexpr float coefficients[] = {0.0997355610364f, 0.0997373967683f,  0.0934395147095f, 0.0818896317661f,
                                    0.0574462582406f, 0.0682739957334f,  -0.0397468633678f, 0.103798857523f,
                                    -0.0853892299368f, 0.020814888403f};
  const vec<float> t = broadcast(1.0f) / fma(a, broadcast(0.25f), broadcast(1.0f));
  return exponential(broadcast(-0.5f) * a * a) * (t * polynomial(t, coefficients));
}

SC_INLINE vec<float> silu(vec<float> x) { return x / (broadcast(1.0f) + exponential(-x)); }
SC_INLINE vec<float> gelu(vec<float> x) {
  const vec<float> below = normal_below(at_least(x, -x));
  return x * (x < zero<float>() ? below : broadcast(1.0f) - below);
}
SC_INLINE vec<double> silu(vec<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = x[i] / (1 + std::exp(-x[i]));
  return x;
}
SC_INLINE vec<double> gelu(vec<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = x[i] * (0.5 * std::erfc(-0.70710678118654752 * x[i]));
  return x;
}
template <class V>
SC_INLINE V hardswish(V x) {
  using C = std::remove_reference_t<decltype(x[0])>;
  const V gate = at_most(at_least(x + C(3), V{}), V{} + C(6));
  return x * gate * C(1.0 / 6);
}

// The long ones, out of line: kernels keep their sums in registers and should not grow by them.
template <class Compute>
__attribute__((noinline)) void activate_in_memory(Activation activation, vec<Compute>* values, int count) {
  if (activation == Activation::silu) {
    for (int i = 0; i < count; ++i) values[i] = silu(values[i]);
  } else {
    for (int i = 0; i < count; ++i) values[i] = gelu(values[i]);
  }
}

// body(v) for every vector of an array of any rank.
template <class Values, class Body>
SC_INLINE void for_each_vector(Values& values, const Body& body) {
  if constexpr (std::is_array_v<Values>) {
    SC_UNROLL for (size_t i = 0; i < std::extent_v<Values>; ++i) for_each_vector(values[i], body);
  } else {
    body(values);
  }
}

// Every vector of an array replaced by its activation.
template <class Compute, class Values>
SC_INLINE void activate(Activation activation, Values& values) {
  using V = vec<Compute>;
  switch (activation) {
    case Activation::none: return;
    case Activation::relu: return for_each_vector(values, [](V& v) { v = at_least(v, V{}); });
    case Activation::relu6:
      return for_each_vector(values, [](V& v) { v = at_most(at_least(v, V{}), V{} + Compute(6)); });
    case Activation::hardswish: return for_each_vector(values, [](V& v) { v = hardswish(v); });
    default: break;
  }
  // A copy, so that the caller's array has no address and stays in registers.
  V staged[sizeof values / sizeof(V)];
  int count = 0;
  for_each_vector(values, [&](V& v) { staged[count++] = v; });
  activate_in_memory<Compute>(activation, staged, count);
  count = 0;
  for_each_vector(values, [&](V& v) { v = staged[count++]; });
}

}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

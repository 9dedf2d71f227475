// What pooling reduces windows by: sums, and maxima with or without where they stand. Taking elements in ascending
// order keeps torch's choice among ties (the first).
#pragma once
#include <cmath>

#include "rows.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

enum class Reduce { max, max_index, sum };

template <class Compute>
struct index_vector {
  typedef lane_int<Compute> type __attribute__((vector_size(kVectorBytes)));
};
template <class Compute>
using ivec = typename index_vector<Compute>::type;

template <class Compute>
SC_INLINE ivec<Compute> load_index(const lane_int<Compute>* p) {
  ivec<Compute> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class Compute>
SC_INLINE void store_index(lane_int<Compute>* p, ivec<Compute> v) {
  std::memcpy(p, &v, sizeof v);
}

template <Reduce kind, class Compute>
constexpr Compute neutral() {
  return kind == Reduce::sum ? Compute{0} : -std::numeric_limits<Compute>::infinity();
}

// 1 / divisor where multiplying by it rounds as dividing does, for powers of two; else 0.
template <class Compute>
Compute exact_reciprocal(Compute divisor) {
  int exponent;
  const Compute mantissa = std::frexp(divisor, &exponent);
  return mantissa == Compute{0.5} || mantissa == Compute{-0.5} ? Compute{1} / divisor : Compute{0};
}

template <Reduce kind, class Compute>
struct Running {
  vec<Compute> value;
  ivec<Compute> index;

  SC_INLINE void take(vec<Compute> v, ivec<Compute> at) {
    if constexpr (kind == Reduce::sum) {
      value = value + v;
    } else if constexpr (kind == Reduce::max) {
      value = max_or_nan(value, v);
    } else {
      const auto wins = (v > value) | (v != v);
      value = wins ? v : value;
      index = wins ? at : index;
    }
  }
};

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

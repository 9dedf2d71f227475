// Integer geometry shared by the kernels. Internal linkage: a copy compiled for one instruction-set level must not
// serve another.
#pragma once
#include <cstdint>

namespace spatialconv {

static constexpr int64_t ceil_div(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }
static constexpr int64_t floor_div(int64_t a, int64_t b) { return -ceil_div(-a, b); }
static constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static constexpr int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static constexpr int64_t clamped(int64_t value, int64_t low, int64_t high) { return smaller(larger(value, low), high); }
static constexpr int64_t round_up(int64_t a, int64_t unit) { return ceil_div(a, unit) * unit; }

// The lanes j of [0, n) whose position start + j * step lies inside [0, size).
struct Lanes {
  int64_t first, last;
};

static constexpr Lanes lanes_inside(int64_t start, int64_t step, int64_t size, int64_t n) {
  const int64_t first = smaller(n, larger(0, ceil_div(-start, step)));
  return {first, larger(first, smaller(n, ceil_div(size - start, step)))};
}

// How many items of `work` multiply-adds each are worth handing to another thread; with one thread, all of them stay.
static constexpr int64_t grain_for(int64_t work, int64_t threads) {
  return threads > 1 ? larger(1, 32768 / larger(1, work)) : INT64_MAX;
}

}  // namespace spatialconv

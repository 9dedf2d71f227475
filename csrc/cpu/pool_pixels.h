// Pooling in nhwc straight from memory: a few vectors of channels of one output pixel in registers. For windows that
// overlap little; where they overlap much, reducing every row once (pool_rows.h) saves more loads than its buffers
// cost. Rows of a window are reduced first and then joined, as pool_rows.h does it, so both give the same sums.
#pragma once
#include "../common/window.h"
#include "pool_reduce.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

constexpr int kPixelVectors = 4;

inline bool suits_pixels(const Pool2d& p) {
  if (p.x_stride[1] != 1 || p.y_stride[1] != 1) return false;
  if (p.adaptive) return p.oh <= p.ih && p.ow <= p.iw;
  return p.kh * p.kw <= 2 * (p.kw * p.sh + p.kh);
}

// What a task knows of the window of one output pixel.
template <class Storage>
struct PixelWindow {
  const Storage* first;       // its first element of channel 0
  Window row, column;
  int64_t row_step, column_step, index_step;
  compute_t<Storage> divisor, factor;  // of sums; factor: 1 / divisor where that is exact, else 0
};

// kSide: rows and columns of a window of a size known to the compiler, 0 for any.
template <Reduce kind, class Storage, int kVectors, bool kWhole, int kSide>
SC_INLINE void pool_channels(const PixelWindow<Storage>& w, int64_t channel, int64_t n, Storage* y, int64_t* index,
                             int64_t index_base) {
  using C = compute_t<Storage>;
  using I = lane_int<C>;
  constexpr int kL = kLanes<C>;
  const auto value = [&](const Storage* p, int v) { return kWhole ? load(p + v * kL) : load_tail(p, n); };
  Running<kind, C> total[kVectors];
  const int64_t rows = kSide > 0 ? kSide : w.row.count, columns = kSide > 0 ? kSide : w.column.count;
  const Storage* line = w.first + channel;
  I at = 0;
  for (int64_t i = 0; i < rows; ++i, line += w.row_step, at += static_cast<I>(w.index_step)) {
    Running<kind, C> row[kVectors];
    SC_UNROLL for (int v = 0; v < kVectors; ++v) {
      row[v] = {value(line, v), ivec<C>{} + static_cast<I>(at + w.column.first)};
    }
    const Storage* p = line + w.column_step;
    for (int64_t k = 1; k < columns; ++k, p += w.column_step) {
      const ivec<C> here = ivec<C>{} + static_cast<I>(at + w.column.first + k * w.column.step);
      SC_UNROLL for (int v = 0; v < kVectors; ++v) row[v].take(value(p, v), here);
    }
    SC_UNROLL for (int v = 0; v < kVectors; ++v) {
      if (i == 0) {
        total[v] = row[v];
      } else {
        total[v].take(row[v].value, row[v].index);
      }
    }
  }
  SC_UNROLL for (int v = 0; v < kVectors; ++v) {
    if constexpr (kind == Reduce::sum) {
      total[v].value = w.factor != 0 ? total[v].value * broadcast(w.factor) : total[v].value / broadcast(w.divisor);
    }
    const int64_t to = channel + v * kL;
    if constexpr (kWhole) {
      store(y + to, total[v].value);
    } else {
      store_n(y + to, total[v].value, n);
    }
    if constexpr (kind == Reduce::max_index) {
      I lanes[kL];
      store_index<C>(lanes, total[v].index);
      if constexpr (kWhole) {
        for (int lane = 0; lane < kL; ++lane) index[to + lane] = index_base + lanes[lane];
      } else {
        for (int64_t lane = 0; lane < n; ++lane) index[to + lane] = index_base + lanes[lane];
      }
    }
  }
}

// A window without elements.
template <Reduce kind, class Storage>
void pool_nothing(const Pool2d& p, Storage* y, int64_t* index, int64_t where) {
  for (int64_t c = 0; c < p.c; ++c) {
    y[c] = narrow<Storage>(neutral<kind, compute_t<Storage>>());
    if constexpr (kind == Reduce::max_index) index[c] = where;
  }
}

template <Reduce kind, class Storage, int kSide>
SC_INLINE void pool_window(const Pool2d& p, const PixelWindow<Storage>& w, Storage* y, int64_t* index, int64_t base) {
  constexpr int64_t kL = kLanes<compute_t<Storage>>;
  int64_t c = 0;
  for (; c + kPixelVectors * kL <= p.c; c += kPixelVectors * kL) {
    pool_channels<kind, Storage, kPixelVectors, true, kSide>(w, c, kL, y, index, base);
  }
  for (; c + kL <= p.c; c += kL) pool_channels<kind, Storage, 1, true, kSide>(w, c, kL, y, index, base);
  if (c < p.c) pool_channels<kind, Storage, 1, false, kSide>(w, c, p.c - c, y, index, base);
}

template <Reduce kind, class Storage>
__attribute__((noinline)) void pool_pixel(const Pool2d& p, const PixelWindow<Storage>& window, Storage* y,
                                          int64_t* index) {
  const PixelWindow<Storage> w = window;
  const int64_t base = w.row.first * p.iw;
  if (w.row.count <= 0 || w.column.count <= 0) {
    return pool_nothing<kind, Storage>(p, y, index, base + w.column.first);
  }
  if (w.row.count == 2 && w.column.count == 2) return pool_window<kind, Storage, 2>(p, w, y, index, base);
  if (w.row.count == 3 && w.column.count == 3) return pool_window<kind, Storage, 3>(p, w, y, index, base);
  pool_window<kind, Storage, 0>(p, w, y, index, base);
}

// A task is one row of outputs.
template <Reduce kind, class Storage>
int32_t pool_pixels(const Pool2d& p, const Buffers& buffers) {
  using C = compute_t<Storage>;
  const Axis rows = row_axis(p), columns = column_axis(p);
  const bool padded = p.include_pad != 0;
  const int64_t slot = lines_of<Window>(p.ow) + lines_of<C>(p.ow);
  return for_each_slab(p.n * p.oh, buffers.threads, [&](int64_t slab, int64_t begin, int64_t end) {
    Carver carver{static_cast<char*>(buffers.workspace) + slab * slot};
    Window* column = carver.take<Window>(p.ow);
    C* width = carver.take<C>(p.ow);
    for (int64_t ow = 0; ow < p.ow; ++ow) {
      column[ow] = window_at(columns, ow);
      width[ow] = kind == Reduce::sum ? static_cast<C>(divisor_at(columns, padded, ow)) : C{1};
    }
    C known{0}, factor{0};
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / p.oh, oh = task % p.oh;
      const Window row = window_at(rows, oh);
      const C height = kind == Reduce::sum ? static_cast<C>(divisor_at(rows, padded, oh)) : C{1};
      const Storage* x = static_cast<const Storage*>(buffers.x) + n * p.x_stride[0] + row.first * p.x_stride[2];
      int64_t at = n * p.y_stride[0] + oh * p.y_stride[2];
      for (int64_t ow = 0; ow < p.ow; ++ow, at += p.y_stride[3]) {
        const C divisor = p.divisor != 0 ? static_cast<C>(p.divisor) : height * width[ow];
        if (kind == Reduce::sum && divisor != known) {
          known = divisor;
          factor = exact_reciprocal(divisor);
        }
        const PixelWindow<Storage> window{x + column[ow].first * p.x_stride[3], row, column[ow],
                                          row.step * p.x_stride[2], column[ow].step * p.x_stride[3], row.step * p.iw,
                                          divisor, factor};
        int64_t* index = buffers.aux == nullptr ? nullptr : static_cast<int64_t*>(buffers.aux) + at;
        pool_pixel<kind, Storage>(p, window, static_cast<Storage*>(buffers.y) + at, index);
      }
    }
  });
}

template <class Storage>
int64_t pool_pixels_workspace(const Pool2d& p, int64_t threads) {
  return (lines_of<Window>(p.ow) + lines_of<compute_t<Storage>>(p.ow)) * positive_threads(threads);
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

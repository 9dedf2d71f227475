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

// Vectors of channels, in pairs unless lanes of an index go with them.
template <bool kPairs, bool kWhole, int kVectors, class Storage>
SC_INLINE void load_channels(const Storage* p, int64_t n, vec<compute_t<Storage>>* value) {
  constexpr int kL = kLanes<compute_t<Storage>>;
  if constexpr (kPairs && kVectors % 2 == 0) {
    SC_UNROLL for (int v = 0; v < kVectors; v += 2) load_both(p + v * kL, value[v], value[v + 1]);
  } else {
    SC_UNROLL for (int v = 0; v < kVectors; ++v) value[v] = kWhole ? load(p + v * kL) : load_tail(p, n);
  }
}

template <bool kPairs, bool kWhole, int kVectors, class Storage>
SC_INLINE void store_channels(Storage* p, int64_t n, const vec<compute_t<Storage>>* value) {
  constexpr int kL = kLanes<compute_t<Storage>>;
  if constexpr (kPairs && kVectors % 2 == 0) {
    SC_UNROLL for (int v = 0; v < kVectors; v += 2) store_both(p + v * kL, value[v], value[v + 1]);
  } else if constexpr (kWhole) {
    SC_UNROLL for (int v = 0; v < kVectors; ++v) store(p + v * kL, value[v]);
  } else {
    store_n(p, value[0], n);
  }
}

template <class Storage>
SC_INLINE vec<compute_t<Storage>> average(const PixelWindow<Storage>& w, vec<compute_t<Storage>> sum) {
  return w.factor != 0 ? sum * broadcast(w.factor) : sum / broadcast(w.divisor);
}

// kSide: rows and columns of a window of a size known to the compiler, 0 for any.
template <Reduce kind, class Storage, int kVectors, bool kWhole, int kSide>
SC_INLINE void pool_channels(const PixelWindow<Storage>& w, int64_t channel, int64_t n, Storage* y, int64_t* index,
                             int64_t index_base) {
  using C = compute_t<Storage>;
  using I = lane_int<C>;
  constexpr int kL = kLanes<C>;
  constexpr bool kPairs = kind != Reduce::max_index;
  Running<kind, C> total[kVectors];
  const int64_t rows = kSide > 0 ? kSide : w.row.count, columns = kSide > 0 ? kSide : w.column.count;
  const Storage* line = w.first + channel;
  I at = 0;
  for (int64_t i = 0; i < rows; ++i, line += w.row_step, at += static_cast<I>(w.index_step)) {
    Running<kind, C> row[kVectors];
    vec<C> value[kVectors];
    load_channels<kPairs, kWhole, kVectors>(line, n, value);
    SC_UNROLL for (int v = 0; v < kVectors; ++v) row[v] = {value[v], ivec<C>{} + static_cast<I>(at + w.column.first)};
    const Storage* p = line + w.column_step;
    for (int64_t k = 1; k < columns; ++k, p += w.column_step) {
      const ivec<C> here = ivec<C>{} + static_cast<I>(at + w.column.first + k * w.column.step);
      load_channels<kPairs, kWhole, kVectors>(p, n, value);
      SC_UNROLL for (int v = 0; v < kVectors; ++v) row[v].take(value[v], here);
    }
    SC_UNROLL for (int v = 0; v < kVectors; ++v) {
      if (i == 0) {
        total[v] = row[v];
      } else {
        total[v].take(row[v].value, row[v].index);
      }
    }
  }
  vec<C> result[kVectors];
  SC_UNROLL for (int v = 0; v < kVectors; ++v) {
    result[v] = kind == Reduce::sum ? average(w, total[v].value) : total[v].value;
    if constexpr (kind == Reduce::max_index) {
      const int64_t to = channel + v * kL;
      I lanes[kL];
      store_index<C>(lanes, total[v].index);
      if constexpr (kWhole) {
        for (int lane = 0; lane < kL; ++lane) index[to + lane] = index_base + lanes[lane];
      } else {
        for (int64_t lane = 0; lane < n; ++lane) index[to + lane] = index_base + lanes[lane];
      }
    }
  }
  store_channels<kPairs, kWhole, kVectors>(y + channel, n, result);
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

// Sums of large windows, or of long pixels, go through memory in its order, as a few vectors of every pixel would not:
// a few neighbouring pixels of a row at a time, over all channels. What was summed of the row so far waits in `line`,
// the rows above in `total`.
constexpr int64_t kSweptPixel = 2048, kSweptWindow = 64 << 10;  // bytes
constexpr int64_t kSweptColumns = 14;

template <class C>
struct SweptSums {
  C *line, *total;
};

// What of the window comes before and after some columns of a row.
struct SweptPlace {
  bool columns_before, columns_behind, rows_before, rows_behind;
};

// Some columns of a row of the window, the first of which is at `p`.
template <class Storage, int kVectors, bool kWhole>
SC_INLINE void sweep_channels(const PixelWindow<Storage>& w, const Storage* p, int64_t columns, int64_t n,
                              const SweptPlace& place, compute_t<Storage>* line, compute_t<Storage>* total,
                              Storage* y) {
  using C = compute_t<Storage>;
  constexpr int kL = kLanes<C>;
  vec<C> sum[kVectors];
  load_channels<true, kWhole, kVectors>(p, n, sum);
  if (place.columns_before) {
    SC_UNROLL for (int v = 0; v < kVectors; ++v) sum[v] = load(line + v * kL) + sum[v];
  }
  for (int64_t k = 1; k < columns; ++k) {
    p += w.column_step;
    vec<C> value[kVectors];
    load_channels<true, kWhole, kVectors>(p, n, value);
    SC_UNROLL for (int v = 0; v < kVectors; ++v) sum[v] = sum[v] + value[v];
  }
  if (place.columns_behind) {
    SC_UNROLL for (int v = 0; v < kVectors; ++v) store(line + v * kL, sum[v]);
    return;
  }
  if (place.rows_before) {
    SC_UNROLL for (int v = 0; v < kVectors; ++v) sum[v] = load(total + v * kL) + sum[v];
  }
  if (place.rows_behind) {
    SC_UNROLL for (int v = 0; v < kVectors; ++v) store(total + v * kL, sum[v]);
  } else {
    SC_UNROLL for (int v = 0; v < kVectors; ++v) sum[v] = average(w, sum[v]);
    store_channels<true, kWhole, kVectors>(y, n, sum);
  }
}

template <class Storage>
__attribute__((noinline)) void sweep_window(int64_t channels, const PixelWindow<Storage>& window,
                                            const SweptSums<compute_t<Storage>>& sums, Storage* y) {
  const PixelWindow<Storage> w = window;
  constexpr int64_t kL = kLanes<compute_t<Storage>>;
  compute_t<Storage>*const line = sums.line, *const total = sums.total;
  for (int64_t row = 0; row < w.row.count; ++row) {
    for (int64_t first = 0; first < w.column.count; first += kSweptColumns) {
      const int64_t columns = smaller(kSweptColumns, w.column.count - first);
      const SweptPlace place{first > 0, first + columns < w.column.count, row > 0, row + 1 < w.row.count};
      const Storage* p = w.first + row * w.row_step + first * w.column_step;
      int64_t c = 0;
      for (; c + kPixelVectors * kL <= channels; c += kPixelVectors * kL) {
        sweep_channels<Storage, kPixelVectors, true>(w, p + c, columns, kL, place, line + c, total + c, y + c);
      }
      for (; c < channels; c += kL) {
        const int64_t n = smaller(kL, channels - c);
        sweep_channels<Storage, 1, false>(w, p + c, columns, n, place, line + c, total + c, y + c);
      }
    }
  }
}

template <Reduce kind, class Storage>
__attribute__((noinline)) void pool_pixel(const Pool2d& p, const PixelWindow<Storage>& window,
                                          const SweptSums<compute_t<Storage>>& sums, Storage* y, int64_t* index) {
  const PixelWindow<Storage> w = window;
  const int64_t base = w.row.first * p.iw;
  if (w.row.count <= 0 || w.column.count <= 0) {
    return pool_nothing<kind, Storage>(p, y, index, base + w.column.first);
  }
  if (w.row.count == 2 && w.column.count == 2) return pool_window<kind, Storage, 2>(p, w, y, index, base);
  if (w.row.count == 3 && w.column.count == 3) return pool_window<kind, Storage, 3>(p, w, y, index, base);
  if constexpr (kind == Reduce::sum) {
    const int64_t pixel = p.c * static_cast<int64_t>(sizeof(Storage));
    if (pixel >= kSweptPixel || w.row.count * w.column.count * pixel >= kSweptWindow) {
      return sweep_window(p.c, window, sums, y);
    }
  }
  pool_window<kind, Storage, 0>(p, w, y, index, base);
}

template <class Storage>
int64_t pool_pixels_slot(const Pool2d& p) {
  using C = compute_t<Storage>;
  return lines_of<Window>(p.ow) + lines_of<C>(p.ow) + 2 * lines_of<C>(round_up(p.c, kLanes<C>));
}

// Channels of a task: all, unless rows of outputs are too few for the threads. Whole cache lines of every type.
inline int64_t task_channels(const Pool2d& p, int64_t threads) {
  const int64_t parts = threads == 1 ? 1 : clamped(ceil_div(2 * threads, p.n * p.oh), 1, ceil_div(p.c, 128));
  return round_up(ceil_div(p.c, parts), 64);
}

// A task is one row of outputs, or some channels of it.
template <Reduce kind, class Storage>
int32_t pool_pixels(const Pool2d& p, const Buffers& buffers) {
  using C = compute_t<Storage>;
  const Axis rows = row_axis(p), columns = column_axis(p);
  const bool padded = p.include_pad != 0;
  const int64_t slot = pool_pixels_slot<Storage>(p);
  const int64_t chunk = task_channels(p, positive_threads(buffers.threads)), chunks = ceil_div(p.c, chunk);
  return for_each_share(p.n * p.oh * chunks, buffers.threads, [&](int64_t slab, Share& share) {
    Carver carver{static_cast<char*>(buffers.workspace) + slab * slot};
    Window* column = carver.take<Window>(p.ow);
    C* width = carver.take<C>(p.ow);
    const SweptSums<C> sums{carver.take<C>(round_up(p.c, kLanes<C>)), carver.take<C>(round_up(p.c, kLanes<C>))};
    for (int64_t ow = 0; ow < p.ow; ++ow) {
      column[ow] = window_at(columns, ow);
      width[ow] = kind == Reduce::sum ? static_cast<C>(divisor_at(columns, padded, ow)) : C{1};
    }
    C known{0}, factor{0};
    for (int64_t task; share.next(&task);) {
      const int64_t channel = task % chunks * chunk, n = task / chunks / p.oh, oh = task / chunks % p.oh;
      Pool2d part = p;
      part.c = smaller(chunk, p.c - channel);
      const Window row = window_at(rows, oh);
      const C height = kind == Reduce::sum ? static_cast<C>(divisor_at(rows, padded, oh)) : C{1};
      const Storage* x = static_cast<const Storage*>(buffers.x) + n * p.x_stride[0] + row.first * p.x_stride[2] +
                         channel;
      int64_t at = n * p.y_stride[0] + oh * p.y_stride[2] + channel;
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
        pool_pixel<kind, Storage>(part, window, sums, static_cast<Storage*>(buffers.y) + at, index);
      }
    }
  });
}

template <class Storage>
int64_t pool_pixels_workspace(const Pool2d& p, int64_t threads) {
  return pool_pixels_slot<Storage>(p) * positive_threads(threads);
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

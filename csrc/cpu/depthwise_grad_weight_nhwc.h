// The gradient of depthwise weights in nhwc: vectors along channels, a row of outputs at a time. Every thread keeps
// private sums, which are added in a fixed order.
#pragma once
#include "depthwise_nhwc.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

constexpr int kPixelTaps = 8;

// A group of taps over one row of outputs, one vector of channels.
struct TapGroup {
  int64_t offset[kPixelTaps];  // of the tap's input pixel for column 0, in elements
  int64_t column[kPixelTaps];  // the column of that pixel
  int64_t index[kPixelTaps];   // the row of sums
};

// In [inside_first, inside_last) every tap of the row has an input column.
struct PixelRow {
  int64_t ow, iw, sw, x_pixel, y_pixel, inside_first, inside_last;
};

template <class Storage, int kTaps, bool kSpread, bool kWhole>
SC_INLINE void dot_pixels(const TapGroup& group, const PixelRow& row, const Storage* x, const Storage* y,
                          int64_t spread, int64_t n, compute_t<Storage>* sums, int64_t sums_row) {
  using C = compute_t<Storage>;
  vec<C> sum[kTaps];
  SC_UNROLL
  for (int t = 0; t < kTaps; ++t) sum[t] = load(sums + group.index[t] * sums_row);
  const int64_t step = row.sw * row.x_pixel;
  const auto gradient = [&](int64_t ow) -> vec<C> {
    const Storage* p = y + ow * row.y_pixel;
    if constexpr (kSpread) return load_strided_n(p, spread, n);
    if constexpr (!kWhole) return load_tail(p, n);
    return load(p);
  };
  const auto edge = [&](int64_t first, int64_t last) {
    for (int64_t ow = first; ow < last; ++ow) {
      const vec<C> g = gradient(ow);
      SC_UNROLL
      for (int t = 0; t < kTaps; ++t) {
        const int64_t iw = group.column[t] + ow * row.sw;
        if (iw < 0 || iw >= row.iw) continue;
        const Storage* p = x + (group.offset[t] + ow * step);
        sum[t] = fma(kWhole ? load(p) : load_tail(p, n), g, sum[t]);
      }
    }
  };
  edge(0, row.inside_first);
  for (int64_t ow = row.inside_first; ow < row.inside_last; ++ow) {
    const vec<C> g = gradient(ow);
    const Storage* p = x + ow * step;
    SC_UNROLL
    for (int t = 0; t < kTaps; ++t) {
      sum[t] = fma(kWhole ? load(p + group.offset[t]) : load_tail(p + group.offset[t], n), g, sum[t]);
    }
  }
  edge(row.inside_last, row.ow);
  SC_UNROLL
  for (int t = 0; t < kTaps; ++t) store(sums + group.index[t] * sums_row, sum[t]);
}

template <class Storage, int kTaps>
__attribute__((noinline)) void dot_channels(const TapGroup& group, const PixelRow& row, const Storage* x,
                                            const Storage* y, int64_t channels, int64_t spread,
                                            compute_t<Storage>* sums, int64_t sums_row) {
  constexpr int64_t kL = kLanes<compute_t<Storage>>;
  if (spread > 1) {
    for (int64_t c = 0; c < channels; c += kL) {
      dot_pixels<Storage, kTaps, true, false>(group, row, x + c, y + c * spread, spread, smaller(kL, channels - c),
                                              sums + c, sums_row);
    }
    return;
  }
  int64_t c = 0;
  for (; c + kL <= channels; c += kL) {
    dot_pixels<Storage, kTaps, false, true>(group, row, x + c, y + c, 1, kL, sums + c, sums_row);
  }
  if (c < channels) {
    dot_pixels<Storage, kTaps, false, false>(group, row, x + c, y + c, 1, channels - c, sums + c, sums_row);
  }
}

template <class Storage>
void grad_weight_row(const Conv2d& p, const Storage* x, const Storage* y, int64_t oh,
                     const TapWeights<compute_t<Storage>>& sums) {
  const int64_t reach = p.iw - 1 + p.pw - (p.kw - 1) * p.dw;
  const int64_t first = smaller(ceil_div(p.pw, p.sw), p.ow);
  const int64_t last = reach < 0 ? first : clamped(reach / p.sw + 1, first, p.ow);
  const PixelRow row{p.ow, p.iw, p.sw, p.x_stride[3], p.y_stride[3], first, last};
  for (int64_t j = 0; j < sums.per_input; ++j) {
    TapGroup group;
    int taps = 0;
    for (int64_t t = 0; t < p.kh * p.kw; ++t) {
      const int64_t ih = oh * p.sh - p.ph + t / p.kw * p.dh;
      if (ih >= 0 && ih < p.ih) {
        group.column[taps] = t % p.kw * p.dw - p.pw;
        group.offset[taps] = ih * p.x_stride[2] + group.column[taps] * p.x_stride[3];
        group.index[taps++] = t * sums.per_input + j;
      }
      const bool final_tap = t == p.kh * p.kw - 1;
      if (taps < kPixelTaps && !final_tap) continue;
      if (taps == kPixelTaps) {
        dot_channels<Storage, kPixelTaps>(group, row, x, y + j, p.ic, sums.per_input, sums.data, sums.padded);
      } else {
        for (int first_tap = 0; first_tap < taps; ++first_tap) {
          TapGroup one;
          one.offset[0] = group.offset[first_tap];
          one.column[0] = group.column[first_tap];
          one.index[0] = group.index[first_tap];
          dot_channels<Storage, 1>(one, row, x, y + j, p.ic, sums.per_input, sums.data, sums.padded);
        }
      }
      taps = 0;
    }
  }
}

template <class Storage>
int32_t depthwise_grad_weight_nhwc(const Conv2d& p, const Buffers& buffers) {
  using C = compute_t<Storage>;
  constexpr int64_t kL = kLanes<C>;
  const int64_t size = tap_weights_size<C>(p), per_input = p.oc / p.ic, padded = round_up(p.ic, kL);
  const int64_t slabs = smaller(positive_threads(buffers.threads), p.n * p.oh);
  char* memory = static_cast<char*>(buffers.workspace);
  // What is added up in one slab is fixed, so that the sums' rounding is the same in every call.
  const int32_t error = parallel_for(slabs, 1, [&](int64_t first, int64_t last) {
    for (int64_t slab = first; slab < last; ++slab) {
      const TapWeights<C> sums{reinterpret_cast<C*>(memory + slab * lines_of<C>(size)), per_input, padded};
      std::memset(sums.data, 0, static_cast<size_t>(size) * sizeof(C));
      for (int64_t task = p.n * p.oh * slab / slabs; task < p.n * p.oh * (slab + 1) / slabs; ++task) {
        const int64_t oh = task % p.oh, n = task / p.oh;
        grad_weight_row<Storage>(p, static_cast<const Storage*>(buffers.x) + n * p.x_stride[0],
                                 static_cast<const Storage*>(buffers.y) + n * p.y_stride[0] + oh * p.y_stride[2], oh,
                                 sums);
      }
    }
  });
  if (error != 0) return error;
  return parallel_for(padded / kL, 8, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin * kL; c < end * kL; c += kL) {
      for (int64_t t = 0; t < p.kh * p.kw * per_input; ++t) {
        vec<C> sum = zero<C>();
        for (int64_t slab = 0; slab < slabs; ++slab) {
          sum = sum + load(reinterpret_cast<const C*>(memory + slab * lines_of<C>(size)) + t * padded + c);
        }
        const int64_t tap = t / per_input, j = t % per_input;
        Storage* w = static_cast<Storage*>(buffers.w) + j * p.w_stride[0] + tap / p.kw * p.w_stride[2] +
                     tap % p.kw * p.w_stride[3];
        for (int64_t lane = 0; lane < smaller(kL, p.ic - c); ++lane) {
          w[(c + lane) * per_input * p.w_stride[0]] = narrow<Storage>(sum[lane]);
        }
      }
    }
  });
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

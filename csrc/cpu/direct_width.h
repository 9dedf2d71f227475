// The direct convolution with vector lanes along the width: any strides, fastest where the width is (nchw). One
// register tile is kTileChannels channels by V vectors of neighbouring columns.
#pragma once
#include "../common/geometry.h"
#include "../common/parallel.h"
#include "../common/problem.h"
#include "activation.h"
#include "simd.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace direct {

constexpr int kTileChannels = 4;
// A register sums at most about this many products before it is added to its total: the error of a long sum then grows
// with the square root of its length.
constexpr int64_t kChunk = 256;

// Lane j reads row[(start + j * step) * stride] where that column lies in [0, size), zero elsewhere.
template <class T>
SC_INLINE vec<compute_t<T>> load_columns(const T* row, int64_t start, int64_t step, int64_t size, int64_t stride,
                                         int64_t n) {
  if (start >= 0 && start + (n - 1) * step < size) return load_strided_n(row + start * stride, step * stride, n);
  T staged[kLanes<compute_t<T>>] = {};
  const Lanes lanes = lanes_inside(start, step, size, n);
  for (int64_t j = lanes.first; j < lanes.last; ++j) staged[j] = row[(start + j * step) * stride];
  return load(staged);
}

template <class T>
SC_INLINE void store_strided_n(T* p, int64_t stride, vec<compute_t<T>> v, int64_t n) {
  if (stride == 1) return store_n(p, v, n);
  for (int64_t i = 0; i < n; ++i) p[i * stride] = narrow<T>(v[i]);
}

// y[n, oc.., oh, ow..] for K channels from oc and `columns` columns from ow, at most V vectors. Padding is zeros that
// are multiplied like any other value.
template <class T, int K, int V>
void forward_tile(const Conv2d& p, const T* x, const T* w, T* y, const T* bias, int64_t oh, int64_t ow,
                  int64_t columns) {
  using C = compute_t<T>;
  constexpr int L = kLanes<C>;
  const int64_t icg = p.ic / p.g;
  const int64_t chunk = larger(1, kChunk / (p.kh * p.kw));
  vec<C> total[K][V] = {};
  for (int64_t ic0 = 0; ic0 < icg; ic0 += chunk) {
    const int64_t ic1 = smaller(icg, ic0 + chunk);
    vec<C> sum[K][V] = {};
    for (int64_t kh = 0; kh < p.kh; ++kh) {
      const int64_t ih = oh * p.sh + kh * p.dh - p.ph;
      const bool row_inside = ih >= 0 && ih < p.ih;
      const T* row = x + (row_inside ? ih : 0) * p.x_stride[2];
      for (int64_t kw = 0; kw < p.kw; ++kw) {
        const int64_t iw = ow * p.sw + kw * p.dw - p.pw;
        const T* tap = w + kh * p.w_stride[2] + kw * p.w_stride[3];
        for (int64_t ic = ic0; ic < ic1; ++ic) {
          vec<C> values[V];
          SC_UNROLL for (int v = 0; v < V; ++v) {
            const int64_t n = smaller(L, columns - v * L);
            values[v] = row_inside
                            ? load_columns(row + ic * p.x_stride[1], iw + v * L * p.sw, p.sw, p.iw, p.x_stride[3], n)
                            : zero<C>();
          }
          SC_UNROLL for (int k = 0; k < K; ++k) {
            const vec<C> weight = broadcast(widen(tap[k * p.w_stride[0] + ic * p.w_stride[1]]));
            SC_UNROLL for (int v = 0; v < V; ++v) sum[k][v] = fma(weight, values[v], sum[k][v]);
          }
        }
      }
    }
    SC_UNROLL for (int k = 0; k < K; ++k) SC_UNROLL for (int v = 0; v < V; ++v) total[k][v] += sum[k][v];
  }
  SC_UNROLL for (int k = 0; k < K; ++k) {
    const vec<C> offset = broadcast(bias == nullptr ? C(0) : widen(bias[k]));
    SC_UNROLL for (int v = 0; v < V; ++v) total[k][v] = bias == nullptr ? total[k][v] : total[k][v] + offset;
  }
  activate<C>(p.activation, total);
  SC_UNROLL for (int k = 0; k < K; ++k) {
    SC_UNROLL for (int v = 0; v < V; ++v) {
      T* out = y + k * p.y_stride[1] + oh * p.y_stride[2] + (ow + v * L) * p.y_stride[3];
      store_strided_n(out, p.y_stride[3], total[k][v], smaller(L, columns - v * L));
    }
  }
}

template <class T, int K>
void forward_row(const Conv2d& p, const T* x, const T* w, T* y, const T* bias, int64_t oh) {
  constexpr int L = kLanes<compute_t<T>>;
  for (int64_t ow = 0; ow < p.ow;) {
    const int64_t columns = p.ow - ow;
    if (columns > L) {
      forward_tile<T, K, 2>(p, x, w, y, bias, oh, ow, smaller(columns, 2 * L));
      ow += 2 * L;
    } else {
      forward_tile<T, K, 1>(p, x, w, y, bias, oh, ow, columns);
      ow += L;
    }
  }
}

template <class T>
int32_t forward_width(const Conv2d& p, const Buffers& b) {
  const int64_t ocg = p.oc / p.g, icg = p.ic / p.g;
  const int64_t blocks = ceil_div(ocg, kTileChannels);
  const int64_t work = p.ow * icg * p.kh * p.kw * smaller(ocg, kTileChannels);
  return parallel_for(p.n * p.g * blocks * p.oh, grain_for(work, b.threads), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t oh = item % p.oh, block = item / p.oh % blocks;
      const int64_t g = item / p.oh / blocks % p.g, n = item / p.oh / blocks / p.g;
      const int64_t first = g * ocg + block * kTileChannels, last = smaller((g + 1) * ocg, first + kTileChannels);
      const T* x = static_cast<const T*>(b.x) + n * p.x_stride[0] + g * icg * p.x_stride[1];
      for (int64_t oc = first; oc < last;) {
        const T* w = static_cast<const T*>(b.w) + oc * p.w_stride[0];
        T* y = static_cast<T*>(b.y) + n * p.y_stride[0] + oc * p.y_stride[1];
        const T* bias = b.aux == nullptr ? nullptr : static_cast<const T*>(b.aux) + oc;
        if (last - oc >= kTileChannels) {
          forward_row<T, kTileChannels>(p, x, w, y, bias, oh);
          oc += kTileChannels;
        } else {
          forward_row<T, 1>(p, x, w, y, bias, oh);
          ++oc;
        }
      }
    }
  });
}

// grad_input[n, ic.., ih, iw..] for K channels from ic and `columns` columns iw, iw + sw, ...: columns of one residue
// modulo the stride meet the same taps, and neighbouring ones meet neighbouring columns of grad_output.
template <class T, int K, int V>
void grad_input_tile(const Conv2d& p, const T* y, const T* w, T* x, int64_t ih, int64_t iw, int64_t columns) {
  using C = compute_t<T>;
  constexpr int L = kLanes<C>;
  const int64_t ocg = p.oc / p.g;
  const int64_t chunk = larger(1, kChunk / (p.kh * p.kw));
  vec<C> total[K][V] = {};
  for (int64_t oc0 = 0; oc0 < ocg; oc0 += chunk) {
    const int64_t oc1 = smaller(ocg, oc0 + chunk);
    vec<C> sum[K][V] = {};
    for (int64_t kh = 0; kh < p.kh; ++kh) {
      const int64_t oh_scaled = ih + p.ph - kh * p.dh, oh = floor_div(oh_scaled, p.sh);
      if (oh * p.sh != oh_scaled || oh < 0 || oh >= p.oh) continue;
      for (int64_t kw = 0; kw < p.kw; ++kw) {
        const int64_t ow_scaled = iw + p.pw - kw * p.dw, ow = floor_div(ow_scaled, p.sw);
        if (ow * p.sw != ow_scaled || ow + columns <= 0 || ow >= p.ow) continue;
        const T* row = y + oh * p.y_stride[2];
        const T* tap = w + kh * p.w_stride[2] + kw * p.w_stride[3];
        const auto add_channels = [&](auto all_lanes) {
          for (int64_t oc = oc0; oc < oc1; ++oc) {
            vec<C> values[V];
            SC_UNROLL for (int v = 0; v < V; ++v) {
              values[v] = load_columns(row + oc * p.y_stride[1], ow + v * L, 1, p.ow, p.y_stride[3],
                                       smaller(L, columns - v * L));
            }
            SC_UNROLL for (int k = 0; k < K; ++k) {
              const vec<C> weight = broadcast(widen(tap[oc * p.w_stride[0] + k * p.w_stride[1]]));
              SC_UNROLL for (int v = 0; v < V; ++v) {
                if constexpr (decltype(all_lanes)::value) {
                  sum[k][v] = fma(weight, values[v], sum[k][v]);
                } else {
                  const Lanes inside = lanes_inside(ow + v * L, 1, p.ow, L);
                  sum[k][v] = fma_between<C>(weight, values[v], sum[k][v], inside.first, inside.last);
                }
              }
            }
          }
        };
        if (ow >= 0 && ow + columns <= p.ow) {
          add_channels(std::true_type{});
        } else {
          add_channels(std::false_type{});
        }
      }
    }
    SC_UNROLL for (int k = 0; k < K; ++k) SC_UNROLL for (int v = 0; v < V; ++v) total[k][v] += sum[k][v];
  }
  SC_UNROLL for (int k = 0; k < K; ++k) SC_UNROLL for (int v = 0; v < V; ++v) {
    T* out = x + k * p.x_stride[1] + ih * p.x_stride[2] + (iw + v * L * p.sw) * p.x_stride[3];
    store_strided_n(out, p.sw * p.x_stride[3], total[k][v], smaller(L, columns - v * L));
  }
}

template <class T, int K>
void grad_input_row(const Conv2d& p, const T* y, const T* w, T* x, int64_t ih) {
  constexpr int L = kLanes<compute_t<T>>;
  for (int64_t residue = 0; residue < smaller(p.sw, p.iw); ++residue) {
    const int64_t count = ceil_div(p.iw - residue, p.sw);
    for (int64_t j = 0; j < count;) {
      const int64_t columns = count - j, iw = residue + j * p.sw;
      if (columns > L) {
        grad_input_tile<T, K, 2>(p, y, w, x, ih, iw, smaller(columns, 2 * L));
        j += 2 * L;
      } else {
        grad_input_tile<T, K, 1>(p, y, w, x, ih, iw, columns);
        j += L;
      }
    }
  }
}

template <class T>
int32_t grad_input_width(const Conv2d& p, const Buffers& b) {
  const int64_t ocg = p.oc / p.g, icg = p.ic / p.g;
  const int64_t blocks = ceil_div(icg, kTileChannels);
  const int64_t work = p.iw * ocg * p.kh * p.kw * smaller(icg, kTileChannels) / (p.sh * p.sw);
  return parallel_for(p.n * p.g * blocks * p.ih, grain_for(work, b.threads), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t ih = item % p.ih, block = item / p.ih % blocks;
      const int64_t g = item / p.ih / blocks % p.g, n = item / p.ih / blocks / p.g;
      const int64_t first = block * kTileChannels, last = smaller(icg, first + kTileChannels);
      const T* y = static_cast<const T*>(b.y) + n * p.y_stride[0] + g * ocg * p.y_stride[1];
      for (int64_t ic = first; ic < last;) {
        const T* w = static_cast<const T*>(b.w) + g * ocg * p.w_stride[0] + ic * p.w_stride[1];
        T* x = static_cast<T*>(b.x) + n * p.x_stride[0] + (g * icg + ic) * p.x_stride[1];
        if (last - ic >= kTileChannels) {
          grad_input_row<T, kTileChannels>(p, y, w, x, ih);
          ic += kTileChannels;
        } else {
          grad_input_row<T, 1>(p, y, w, x, ih);
          ++ic;
        }
      }
    }
  });
}

// grad_weight[oc.., ic, kh, kw..] for K channels from oc and Q taps of one filter row from kw: dot products along the
// rows of grad_output, one lane per column, the lanes added at the end. Padding is zeros that are multiplied like any
// other value.
template <class T, int K, int Q>
void grad_weight_tile(const Conv2d& p, const T* x, const T* y, T* w, int64_t kh, int64_t kw) {
  using C = compute_t<T>;
  constexpr int L = kLanes<C>;
  vec<C> total[K][Q] = {}, sum[K][Q] = {};
  int64_t summed = 0;
  const auto flush = [&] {
    SC_UNROLL for (int k = 0; k < K; ++k) SC_UNROLL for (int q = 0; q < Q; ++q) {
      total[k][q] += sum[k][q];
      sum[k][q] = zero<C>();
    }
    summed = 0;
  };
  for (int64_t n = 0; n < p.n; ++n) {
    for (int64_t oh = 0; oh < p.oh; ++oh) {
      const int64_t ih = oh * p.sh + kh * p.dh - p.ph;
      const bool row_inside = ih >= 0 && ih < p.ih;
      const T* x_row = x + n * p.x_stride[0] + (row_inside ? ih : 0) * p.x_stride[2];
      const T* y_row = y + n * p.y_stride[0] + oh * p.y_stride[2];
      for (int64_t ow = 0; ow < p.ow; ow += L) {
        const int64_t columns = smaller(L, p.ow - ow);
        vec<C> grad[K];
        SC_UNROLL for (int k = 0; k < K; ++k) {
          grad[k] = load_strided_n(y_row + k * p.y_stride[1] + ow * p.y_stride[3], p.y_stride[3], columns);
        }
        SC_UNROLL for (int q = 0; q < Q; ++q) {
          const int64_t iw = ow * p.sw + (kw + q) * p.dw - p.pw;
          const vec<C> values = row_inside ? load_columns(x_row, iw, p.sw, p.iw, p.x_stride[3], columns) : zero<C>();
          SC_UNROLL for (int k = 0; k < K; ++k) sum[k][q] = fma(grad[k], values, sum[k][q]);
        }
        if (++summed == kChunk) flush();
      }
    }
  }
  flush();
  SC_UNROLL for (int k = 0; k < K; ++k) SC_UNROLL for (int q = 0; q < Q; ++q) {
    w[k * p.w_stride[0] + kh * p.w_stride[2] + (kw + q) * p.w_stride[3]] = narrow<T>(sum_of_lanes<C>(total[k][q]));
  }
}

template <class T, int K>
void grad_weight_taps(const Conv2d& p, const T* x, const T* y, T* w, int64_t kh) {
  int64_t kw = 0;
  for (; p.kw - kw >= 3; kw += 3) grad_weight_tile<T, K, 3>(p, x, y, w, kh, kw);
  for (; kw < p.kw; ++kw) grad_weight_tile<T, K, 1>(p, x, y, w, kh, kw);
}

template <class T>
int32_t grad_weight_width(const Conv2d& p, const Buffers& b) {
  const int64_t ocg = p.oc / p.g, icg = p.ic / p.g;
  const int64_t blocks = ceil_div(ocg, kTileChannels);
  const int64_t work = p.n * p.oh * p.ow * p.kw * smaller(ocg, kTileChannels);
  return parallel_for(p.g * blocks * icg * p.kh, grain_for(work, b.threads), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t kh = item % p.kh, ic = item / p.kh % icg;
      const int64_t block = item / p.kh / icg % blocks, g = item / p.kh / icg / blocks;
      const int64_t first = g * ocg + block * kTileChannels, last = smaller((g + 1) * ocg, first + kTileChannels);
      const T* x = static_cast<const T*>(b.x) + (g * icg + ic) * p.x_stride[1];
      for (int64_t oc = first; oc < last;) {
        const T* y = static_cast<const T*>(b.y) + oc * p.y_stride[1];
        T* w = static_cast<T*>(b.w) + oc * p.w_stride[0] + ic * p.w_stride[1];
        if (last - oc >= kTileChannels) {
          grad_weight_taps<T, kTileChannels>(p, x, y, w, kh);
          oc += kTileChannels;
        } else {
          grad_weight_taps<T, 1>(p, x, y, w, kh);
          ++oc;
        }
      }
    }
  });
}

}  // namespace direct
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

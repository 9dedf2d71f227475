// The direct convolution with vector lanes along the input channels of a group, for tensors and weights whose channels
// are neighbours in memory (nhwc).
#pragma once
#include "../common/geometry.h"
#include "../common/parallel.h"
#include "../common/problem.h"
#include "direct_width.h"
#include "simd.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace direct {

constexpr int kTilePositions = kVectorRegisters >= 32 ? 4 : 2;

// A mostly empty vector is slower than lanes along the width, whatever the strides.
template <class T>
bool suits_channel_lanes(const Conv2d& p) {
  return p.x_stride[1] == 1 && p.y_stride[1] == 1 && 2 * (p.ic / p.g) >= kLanes<compute_t<T>>;
}

template <class T>
int64_t packed_weight_bytes(const Conv2d& p) {
  return p.w_stride[1] == 1 ? 0 : p.oc * (p.ic / p.g) * p.kh * p.kw * static_cast<int64_t>(sizeof(T));
}

// Makes the channels of the weight neighbours: where they are not, copies it to the workspace and moves p and b there.
template <class T>
int32_t pack_weight(Conv2d& p, Buffers& b) {
  if (packed_weight_bytes<T>(p) == 0) return 0;
  const int64_t icg = p.ic / p.g, taps = p.kh * p.kw;
  const T* from = static_cast<const T*>(b.w);
  T* to = static_cast<T*>(b.workspace);
  const int32_t rc = parallel_for(p.oc, grain_for(icg * taps, b.threads), [&](int64_t begin, int64_t end) {
    for (int64_t oc = begin; oc < end; ++oc)
      for (int64_t tap = 0; tap < taps; ++tap)
        for (int64_t ic = 0; ic < icg; ++ic)
          to[(oc * taps + tap) * icg + ic] =
              from[oc * p.w_stride[0] + ic * p.w_stride[1] + tap / p.kw * p.w_stride[2] + tap % p.kw * p.w_stride[3]];
  });
  b.w = to;
  p.w_stride[0] = taps * icg;
  p.w_stride[1] = 1;
  p.w_stride[2] = p.kw * icg;
  p.w_stride[3] = icg;
  return rc;
}

// y[n, oc.., oh, ow..] for K channels and R columns: dot products along the channels, the lanes added at the end.
// Padding is zeros that are multiplied like any other value.
template <class T, int K, int R>
void forward_dot(const Conv2d& p, const T* x, const T* w, T* y, const T* bias, int64_t oh, int64_t ow) {
  using C = compute_t<T>;
  constexpr int L = kLanes<C>;
  const int64_t icg = p.ic / p.g;
  vec<C> total[K][R] = {}, sum[K][R] = {};
  int64_t summed = 0;
  const auto flush = [&] {
    SC_UNROLL for (int k = 0; k < K; ++k) SC_UNROLL for (int r = 0; r < R; ++r) {
      total[k][r] += sum[k][r];
      sum[k][r] = zero<C>();
    }
    summed = 0;
  };
  for (int64_t kh = 0; kh < p.kh; ++kh) {
    const int64_t ih = oh * p.sh + kh * p.dh - p.ph;
    for (int64_t kw = 0; kw < p.kw; ++kw) {
      const T* tap = w + kh * p.w_stride[2] + kw * p.w_stride[3];
      const T* pixel[R];
      SC_UNROLL for (int r = 0; r < R; ++r) {
        const int64_t iw = (ow + r) * p.sw + kw * p.dw - p.pw;
        const bool inside = ih >= 0 && ih < p.ih && iw >= 0 && iw < p.iw;
        pixel[r] = inside ? x + ih * p.x_stride[2] + iw * p.x_stride[3] : nullptr;
      }
      for (int64_t ic = 0; ic < icg; ic += L) {
        vec<C> weight[K];
        SC_UNROLL for (int k = 0; k < K; ++k) weight[k] = load_n(tap + k * p.w_stride[0] + ic, icg - ic);
        SC_UNROLL for (int r = 0; r < R; ++r) {
          const vec<C> values = pixel[r] == nullptr ? zero<C>() : load_n(pixel[r] + ic, icg - ic);
          SC_UNROLL for (int k = 0; k < K; ++k) sum[k][r] = fma(weight[k], values, sum[k][r]);
        }
        if (++summed == kChunk) flush();
      }
    }
  }
  flush();
  const auto place = [&](int k, int r) { return k * p.y_stride[1] + oh * p.y_stride[2] + (ow + r) * p.y_stride[3]; };
  const auto value = [&](int k, int r) {
    const C sum = sum_of_lanes<C>(total[k][r]);
    return bias == nullptr ? sum : sum + widen(bias[k]);
  };
  if (p.activation == Activation::none) {
    SC_UNROLL for (int k = 0; k < K; ++k) SC_UNROLL for (int r = 0; r < R; ++r) y[place(k, r)] = narrow<T>(value(k, r));
    return;
  }
  // The outputs as the lanes of as few vectors as hold them.
  vec<C> outputs[ceil_div(K * R, L)] = {};
  SC_UNROLL for (int i = 0; i < K * R; ++i) outputs[i / L][i % L] = value(i / R, i % R);
  activate<C>(p.activation, outputs);
  SC_UNROLL for (int i = 0; i < K * R; ++i) y[place(i / R, i % R)] = narrow<T>(outputs[i / L][i % L]);
}

template <class T, int K>
void forward_dot_row(const Conv2d& p, const T* x, const T* w, T* y, const T* bias, int64_t oh) {
  int64_t ow = 0;
  for (; p.ow - ow >= kTilePositions; ow += kTilePositions) forward_dot<T, K, kTilePositions>(p, x, w, y, bias, oh, ow);
  for (; ow < p.ow; ++ow) forward_dot<T, K, 1>(p, x, w, y, bias, oh, ow);
}

template <class T>
int32_t forward_channel(Conv2d p, Buffers b) {
  if (const int32_t rc = pack_weight<T>(p, b)) return rc;
  const int64_t ocg = p.oc / p.g, icg = p.ic / p.g;
  const int64_t work = p.ow * ocg * icg * p.kh * p.kw;
  return parallel_for(p.n * p.g * p.oh, grain_for(work, b.threads), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t g = item % p.g, oh = item / p.g % p.oh, n = item / p.g / p.oh;
      const T* x = static_cast<const T*>(b.x) + n * p.x_stride[0] + g * icg;
      for (int64_t oc = g * ocg; oc < (g + 1) * ocg;) {
        const T* w = static_cast<const T*>(b.w) + oc * p.w_stride[0];
        T* y = static_cast<T*>(b.y) + n * p.y_stride[0] + oc;
        const T* bias = b.aux == nullptr ? nullptr : static_cast<const T*>(b.aux) + oc;
        if ((g + 1) * ocg - oc >= kTileChannels) {
          forward_dot_row<T, kTileChannels>(p, x, w, y, bias, oh);
          oc += kTileChannels;
        } else {
          forward_dot_row<T, 1>(p, x, w, y, bias, oh);
          ++oc;
        }
      }
    }
  });
}

// grad_input[n, ic.., ih, iw..] for V vectors of channels, `channels` in all, and R columns iw, iw + sw, ...
template <class T, int V, int R>
void grad_input_pixels(const Conv2d& p, const T* y, const T* w, T* x, int64_t channels, int64_t ih, int64_t iw) {
  using C = compute_t<T>;
  constexpr int L = kLanes<C>;
  const int64_t ocg = p.oc / p.g;
  vec<C> total[R][V] = {}, sum[R][V] = {};
  int64_t summed = 0;
  const auto flush = [&] {
    SC_UNROLL for (int r = 0; r < R; ++r) SC_UNROLL for (int v = 0; v < V; ++v) {
      total[r][v] += sum[r][v];
      sum[r][v] = zero<C>();
    }
    summed = 0;
  };
  for (int64_t kh = 0; kh < p.kh; ++kh) {
    const int64_t oh_scaled = ih + p.ph - kh * p.dh, oh = floor_div(oh_scaled, p.sh);
    if (oh * p.sh != oh_scaled || oh < 0 || oh >= p.oh) continue;
    for (int64_t kw = 0; kw < p.kw; ++kw) {
      const int64_t ow_scaled = iw + p.pw - kw * p.dw, ow = floor_div(ow_scaled, p.sw);
      if (ow * p.sw != ow_scaled || ow + R <= 0 || ow >= p.ow) continue;
      const T* tap = w + kh * p.w_stride[2] + kw * p.w_stride[3];
      const T* pixel[R];
      SC_UNROLL for (int r = 0; r < R; ++r) {
        pixel[r] = ow + r >= 0 && ow + r < p.ow ? y + oh * p.y_stride[2] + (ow + r) * p.y_stride[3] : nullptr;
      }
      for (int64_t oc = 0; oc < ocg; ++oc) {
        vec<C> weight[V];
        SC_UNROLL for (int v = 0; v < V; ++v) weight[v] = load_n(tap + oc * p.w_stride[0] + v * L, channels - v * L);
        SC_UNROLL for (int r = 0; r < R; ++r) {
          if (pixel[r] == nullptr) continue;
          const vec<C> grad = broadcast(widen(pixel[r][oc]));
          SC_UNROLL for (int v = 0; v < V; ++v) sum[r][v] = fma(grad, weight[v], sum[r][v]);
        }
        if (++summed == kChunk) flush();
      }
    }
  }
  flush();
  SC_UNROLL for (int r = 0; r < R; ++r) SC_UNROLL for (int v = 0; v < V; ++v) {
    store_n(x + v * L + ih * p.x_stride[2] + (iw + r * p.sw) * p.x_stride[3], total[r][v], channels - v * L);
  }
}

template <class T, int V>
void grad_input_pixel_row(const Conv2d& p, const T* y, const T* w, T* x, int64_t channels, int64_t ih) {
  for (int64_t residue = 0; residue < smaller(p.sw, p.iw); ++residue) {
    int64_t iw = residue;
    for (; iw + (kTilePositions - 1) * p.sw < p.iw; iw += kTilePositions * p.sw) {
      grad_input_pixels<T, V, kTilePositions>(p, y, w, x, channels, ih, iw);
    }
    for (; iw < p.iw; iw += p.sw) grad_input_pixels<T, V, 1>(p, y, w, x, channels, ih, iw);
  }
}

template <class T>
int32_t grad_input_channel(Conv2d p, Buffers b) {
  if (const int32_t rc = pack_weight<T>(p, b)) return rc;
  constexpr int L = kLanes<compute_t<T>>;
  const int64_t ocg = p.oc / p.g, icg = p.ic / p.g;
  const int64_t work = p.iw * ocg * icg * p.kh * p.kw / (p.sh * p.sw);
  return parallel_for(p.n * p.g * p.ih, grain_for(work, b.threads), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t g = item % p.g, ih = item / p.g % p.ih, n = item / p.g / p.ih;
      const T* y = static_cast<const T*>(b.y) + n * p.y_stride[0] + g * ocg;
      for (int64_t ic = 0; ic < icg;) {
        const T* w = static_cast<const T*>(b.w) + g * ocg * p.w_stride[0] + ic;
        T* x = static_cast<T*>(b.x) + n * p.x_stride[0] + g * icg + ic;
        if (icg - ic > L) {
          grad_input_pixel_row<T, 2>(p, y, w, x, smaller(2 * L, icg - ic), ih);
          ic += 2 * L;
        } else {
          grad_input_pixel_row<T, 1>(p, y, w, x, icg - ic, ih);
          ic += L;
        }
      }
    }
  });
}

// grad_weight[oc.., ic.., kh, kw] for K output channels and V vectors of input channels, `channels` in all: one outer
// product per output position. Padding is zeros that are multiplied like any other value.
template <class T, int K, int V>
void grad_weight_outer(const Conv2d& p, const T* x, const T* y, T* w, int64_t channels, int64_t kh, int64_t kw) {
  using C = compute_t<T>;
  constexpr int L = kLanes<C>;
  vec<C> total[K][V] = {}, sum[K][V] = {};
  int64_t summed = 0;
  const auto flush = [&] {
    SC_UNROLL for (int k = 0; k < K; ++k) SC_UNROLL for (int v = 0; v < V; ++v) {
      total[k][v] += sum[k][v];
      sum[k][v] = zero<C>();
    }
    summed = 0;
  };
  for (int64_t n = 0; n < p.n; ++n) {
    for (int64_t oh = 0; oh < p.oh; ++oh) {
      const int64_t ih = oh * p.sh + kh * p.dh - p.ph;
      for (int64_t ow = 0; ow < p.ow; ++ow) {
        const int64_t iw = ow * p.sw + kw * p.dw - p.pw;
        const bool inside = ih >= 0 && ih < p.ih && iw >= 0 && iw < p.iw;
        const T* grad = y + n * p.y_stride[0] + oh * p.y_stride[2] + ow * p.y_stride[3];
        vec<C> values[V];
        SC_UNROLL for (int v = 0; v < V; ++v) {
          values[v] = zero<C>();
          if (inside) {
            const T* pixel = x + n * p.x_stride[0] + ih * p.x_stride[2] + iw * p.x_stride[3];
            values[v] = load_n(pixel + v * L, channels - v * L);
          }
        }
        SC_UNROLL for (int k = 0; k < K; ++k) {
          const vec<C> factor = broadcast(widen(grad[k]));
          SC_UNROLL for (int v = 0; v < V; ++v) sum[k][v] = fma(factor, values[v], sum[k][v]);
        }
        if (++summed == kChunk) flush();
      }
    }
  }
  flush();
  SC_UNROLL for (int k = 0; k < K; ++k) SC_UNROLL for (int v = 0; v < V; ++v) {
    T* out = w + k * p.w_stride[0] + v * L * p.w_stride[1] + kh * p.w_stride[2] + kw * p.w_stride[3];
    store_strided_n(out, p.w_stride[1], total[k][v], smaller(L, channels - v * L));
  }
}

template <class T>
int32_t grad_weight_channel(const Conv2d& p, const Buffers& b) {
  constexpr int L = kLanes<compute_t<T>>;
  const int64_t ocg = p.oc / p.g, icg = p.ic / p.g;
  const int64_t oc_blocks = ceil_div(ocg, kTileChannels), ic_blocks = ceil_div(icg, 2 * L), taps = p.kh * p.kw;
  const int64_t work = p.n * p.oh * p.ow * smaller(ocg, kTileChannels) * smaller(icg, 2 * L);
  const int64_t grain = grain_for(work, b.threads);
  return parallel_for(p.g * oc_blocks * ic_blocks * taps, grain, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t kh = item % taps / p.kw, kw = item % p.kw;
      const int64_t ic = item / taps % ic_blocks * 2 * L;
      const int64_t first = item / taps / ic_blocks % oc_blocks * kTileChannels,
                    g = item / taps / ic_blocks / oc_blocks;
      const int64_t last = smaller(ocg, first + kTileChannels), channels = smaller(2 * L, icg - ic);
      const T* x = static_cast<const T*>(b.x) + g * icg + ic;
      for (int64_t k = first; k < last;) {
        const T* y = static_cast<const T*>(b.y) + g * ocg + k;
        T* w = static_cast<T*>(b.w) + (g * ocg + k) * p.w_stride[0] + ic * p.w_stride[1];
        const bool tile = last - k >= kTileChannels;
        if (tile && channels > L) grad_weight_outer<T, kTileChannels, 2>(p, x, y, w, channels, kh, kw);
        if (tile && channels <= L) grad_weight_outer<T, kTileChannels, 1>(p, x, y, w, channels, kh, kw);
        if (!tile && channels > L) grad_weight_outer<T, 1, 2>(p, x, y, w, channels, kh, kw);
        if (!tile && channels <= L) grad_weight_outer<T, 1, 1>(p, x, y, w, channels, kh, kw);
        k += tile ? kTileChannels : 1;
      }
    }
  });
}

}  // namespace direct
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

// Depthwise convolution in nhwc, forward and the gradient of the input: which taps a row has, where they point, and
// the work split over rows and channel chunks.
#pragma once
#include "depthwise_pixel.h"
#include "depthwise_slide.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// Weights as [tap][of the several per input channel][input channel], the last padded to whole vectors.
template <class Compute>
struct TapWeights {
  Compute* data;
  int64_t per_input, padded;

  const Compute* row(int64_t tap, int64_t j) const { return data + (tap * per_input + j) * padded; }
};

template <class Compute>
int64_t tap_weights_size(const Conv2d& p) {
  return p.kh * p.kw * (p.oc / p.ic) * round_up(p.ic, kLanes<Compute>);
}

// `turned`: the taps in reverse order.
template <class Storage>
int32_t relay_weights(const Conv2d& p, const void* w, const TapWeights<compute_t<Storage>>& to, bool turned = false) {
  constexpr int64_t kChunk = 256;
  const int64_t step = to.per_input * p.w_stride[0];
  return parallel_for(ceil_div(to.padded, kChunk), 8, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kChunk, last = smaller(end * kChunk, p.ic), beyond = smaller(end * kChunk, to.padded);
    for (int64_t tap = 0; tap < p.kh * p.kw; ++tap) {
      const int64_t from = turned ? p.kh * p.kw - 1 - tap : tap;
      for (int64_t j = 0; j < to.per_input; ++j) {
        const Storage* weight = static_cast<const Storage*>(w) + j * p.w_stride[0] + from / p.kw * p.w_stride[2] +
                                from % p.kw * p.w_stride[3];
        compute_t<Storage>* row = to.data + (tap * to.per_input + j) * to.padded;
        for (int64_t ic = first; ic < last; ++ic) row[ic] = widen(weight[ic * step]);
        for (int64_t ic = last; ic < beyond; ++ic) row[ic] = row[last - 1];
      }
    }
  });
}

// Bytes of input and output from which on prefetching what comes next pays for its instructions.
constexpr int64_t kPrefetchedBytes = 1 << 20;

// A task is one row of the written tensor and a chunk of the input channels; rows follow each other, so that few
// weights are in use at a time.
struct RowPlan {
  int64_t rows, chunk, chunks, tasks;
  bool prefetches;
};

template <class Storage>
RowPlan row_plan(const Conv2d& p, int64_t rows, int64_t threads) {
  RowPlan plan;
  plan.rows = rows;
  const int64_t shares = clamped(ceil_div(4 * positive_threads(threads), p.n * rows), 1, ceil_div(p.ic, 128));
  plan.chunk = round_up(ceil_div(p.ic, shares), kLanes<compute_t<Storage>>);
  plan.chunks = ceil_div(p.ic, plan.chunk);
  plan.tasks = p.n * rows * plan.chunks;
  const int64_t elements = p.n * (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow);
  plan.prefetches = elements * static_cast<int64_t>(sizeof(Storage)) >= kPrefetchedBytes;
  return plan;
}

// One row forward. Taps above and below the input are left out; those beside it read zeros.
template <class Storage, Channels kChannels>
void forward_row(const Conv2d& p, const TapWeights<compute_t<Storage>>& weights, const PixelTables<Storage>& tables,
                 const Storage* x, int64_t oh, int64_t channel, int64_t channels, int64_t j,
                 const compute_t<Storage>* bias, bool prefetches, Storage* out) {
  const int64_t width = block_columns(p.ow, kChannels);
  for (int64_t ow = 0; ow < p.ow; ow += width) {
    const int64_t columns = smaller(width, p.ow - ow), left = ow * p.sw - p.pw;
    const bool direct = kAllowsDirect<Storage, kChannels> && left >= 0 &&
                        left + (columns - 1) * p.sw + (p.kw - 1) * p.dw < p.iw;
    if (prefetches) {
      // What the next row of outputs is the first to read, and what it writes.
      const Storage* next = x + (oh * p.sh - p.ph + (p.kh - 1) * p.dh + 1) * p.x_stride[2] + left * p.x_stride[3];
      for (int64_t r = 0; r < p.sh; ++r) {
        prefetch_pixels(next + r * p.x_stride[2], columns * p.sw, p.x_stride[3], channels);
      }
      prefetch_pixels(out + p.y_stride[2] + ow * p.y_stride[3], columns, p.y_stride[3], channels);
    }
    int64_t taps = 0;
    for (int64_t kh = 0; kh < p.kh; ++kh) {
      const int64_t ih = oh * p.sh - p.ph + kh * p.dh;
      if (ih < 0 || ih >= p.ih) continue;
      const Storage* row = x + ih * p.x_stride[2];
      for (int64_t kw = 0; kw < p.kw; ++kw, ++taps) {
        tables.weights[taps] = weights.row(kh * p.kw + kw, j) + channel;
        const int64_t first = left + kw * p.dw;
        if (direct) {
          tables.source[taps] = row + first * p.x_stride[3];
          continue;
        }
        for (int64_t i = 0; i < columns; ++i) {
          const int64_t iw = first + i * p.sw;
          tables.source[taps * columns + i] = iw >= 0 && iw < p.iw ? row + iw * p.x_stride[3] : tables.zeros;
        }
      }
    }
    const PixelBlock<Storage> block{tables.source,    tables.weights, taps, p.sw * p.x_stride[3],
                                    channels,         p.oc / p.ic,    bias, out + ow * p.y_stride[3],
                                    p.y_stride[3],    p.activation};
    run_pixel_block<Storage, kChannels>(block, columns, direct);
  }
}

// One row of a stride-1 sum by sliding: `top` and `left` are the padding of `source`, `weights` the filter in the order
// in which its taps read ascending rows and columns.
template <class C>
void slide_source_row(const TapWeights<C>& weights, const C* zeros, const C* source, const int64_t* stride,
                      int64_t height, int64_t width, int64_t top, int64_t left, int64_t row, int64_t taps,
                      int64_t channel, int64_t channels, const C* bias, Activation activation, C* out,
                      int64_t out_step, int64_t columns, bool prefetches) {
  const int64_t first = row - top;
  const SlideBlock<C> block{source + first * stride[2] - left * stride[3], stride[2], stride[3],
                            clamped(-first, 0, taps), clamped(height - first, 0, taps), -left, width, zeros,
                            weights.data + channel, weights.padded, channels, bias, activation, out, out_step};
  slide_row(block, taps, columns, prefetches);
}

template <class Storage>
int32_t depthwise_forward_nhwc(const Conv2d& p, const Buffers& buffers) {
  using C = compute_t<Storage>;
  const RowPlan plan = row_plan<Storage>(p, p.oh, buffers.threads);
  const int64_t per_input = p.oc / p.ic;
  const bool slides = suits_slide<Storage>(p, p.ow, plan.chunk);
  const bool packed = buffers.packed != 0;
  const TapWeights<C> weights{static_cast<C*>(packed ? buffers.w : buffers.workspace), per_input,
                              round_up(p.ic, kLanes<C>)};
  if (!packed) {
    if (const int32_t error = relay_weights<Storage>(p, buffers.w, weights)) return error;
  }
  char* slots = static_cast<char*>(buffers.workspace) + (packed ? 0 : lines_of<C>(tap_weights_size<C>(p)));
  const int64_t slot = PixelTables<Storage>::bytes(p);
  return for_each_slab(plan.tasks, buffers.threads, [&](int64_t slab, int64_t begin, int64_t end) {
    const PixelTables<Storage> tables(p, slots + slab * slot);
    const Storage* given_bias = static_cast<const Storage*>(buffers.aux);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t channel = task / p.oh % plan.chunks * plan.chunk;
      const int64_t oh = task % p.oh, n = task / p.oh / plan.chunks;
      const int64_t channels = smaller(plan.chunk, p.ic - channel);
      const Storage* x = static_cast<const Storage*>(buffers.x) + n * p.x_stride[0] + channel;
      Storage* y = static_cast<Storage*>(buffers.y) + n * p.y_stride[0] + oh * p.y_stride[2] + channel * per_input;
      for (int64_t j = 0; j < per_input; ++j) {
        const C* bias = nullptr;
        if (std::is_same_v<Storage, C> && given_bias != nullptr && per_input == 1 && channels % kLanes<C> == 0) {
          bias = reinterpret_cast<const C*>(given_bias) + channel;
        } else if (given_bias != nullptr) {
          for (int64_t c = 0; c < channels; ++c) tables.bias[c] = widen(given_bias[(channel + c) * per_input + j]);
          bias = tables.bias;
        }
        if constexpr (std::is_same_v<Storage, C>) {
          if (slides) {
            slide_source_row<C>(weights, tables.zeros, x, p.x_stride, p.ih, p.iw, p.ph, p.pw, oh, p.kh, channel,
                                channels, bias, p.activation, y, p.y_stride[3], p.ow, plan.prefetches);
            continue;
          }
        }
        if (per_input == 1) {
          forward_row<Storage, Channels::paired>(p, weights, tables, x, oh, channel, channels, 0, bias,
                                                 plan.prefetches, y);
        } else {
          forward_row<Storage, Channels::scattered>(p, weights, tables, x, oh, channel, channels, j, bias,
                                                    plan.prefetches, y + j);
        }
      }
    }
  });
}

// One row of the gradient of the input, gathered from the outputs that read it, one phase of the column stride at a
// time.
template <class Storage, Channels kChannels>
void grad_input_row(const Conv2d& p, const TapWeights<compute_t<Storage>>& weights, const PixelTables<Storage>& tables,
                    const Storage* y, int64_t ih, int64_t channel, int64_t channels, bool prefetches, Storage* out) {
  const int64_t per_input = p.oc / p.ic;
  int64_t* row_taps = tables.taps;
  int64_t* column_taps = tables.taps + 2 * p.kh;
  int64_t row_count = 0;
  for (int64_t kh = 0; kh < p.kh; ++kh) {
    const int64_t scaled = ih + p.ph - kh * p.dh;
    if (scaled < 0 || scaled % p.sh != 0 || scaled / p.sh >= p.oh) continue;
    row_taps[2 * row_count] = kh;
    row_taps[2 * row_count++ + 1] = scaled / p.sh;
  }
  for (int64_t phase = 0; phase < p.sw; ++phase) {
    int64_t column_count = 0;
    for (int64_t kw = 0; kw < p.kw; ++kw) {
      if (kw * p.dw % p.sw != phase) continue;
      column_taps[2 * column_count] = kw;
      column_taps[2 * column_count++ + 1] = kw * p.dw / p.sw;
    }
    // Column b of this phase is input column b * sw + phase - pw.
    const int64_t first = p.pw > phase ? ceil_div(p.pw - phase, p.sw) : 0;
    const int64_t beyond = p.iw - 1 + p.pw - phase < 0 ? 0 : (p.iw - 1 + p.pw - phase) / p.sw + 1;
    if (beyond <= first) continue;
    const int64_t width = block_columns(beyond - first, kChannels);
    for (int64_t b = first; b < beyond; b += width) {
      const int64_t columns = smaller(width, beyond - b);
      bool direct = kAllowsDirect<Storage, kChannels>;
      for (int64_t k = 0; k < column_count; ++k) {
        const int64_t ow = b - column_taps[2 * k + 1];
        direct = direct && ow >= 0 && ow + columns <= p.ow;
      }
      if (prefetches && phase == 0) {
        const int64_t next = (ih + p.ph) / p.sh + 1;
        prefetch_pixels(y + next * p.y_stride[2] + b * p.y_stride[3], columns, p.y_stride[3], channels * per_input);
        prefetch_pixels(out + p.x_stride[2] + (b * p.sw - p.pw) * p.x_stride[3], columns * p.sw, p.x_stride[3],
                        channels);
      }
      int64_t taps = 0;
      for (int64_t r = 0; r < row_count; ++r) {
        const Storage* row = y + row_taps[2 * r + 1] * p.y_stride[2];
        for (int64_t k = 0; k < column_count; ++k) {
          const int64_t ow = b - column_taps[2 * k + 1];
          for (int64_t j = 0; j < per_input; ++j, ++taps) {
            tables.weights[taps] = weights.row(row_taps[2 * r] * p.kw + column_taps[2 * k], j) + channel;
            if (direct) {
              tables.source[taps] = row + ow * p.y_stride[3] + j;
              continue;
            }
            for (int64_t i = 0; i < columns; ++i) {
              const bool inside = ow + i >= 0 && ow + i < p.ow;
              tables.source[taps * columns + i] = inside ? row + (ow + i) * p.y_stride[3] + j : tables.zeros;
            }
          }
        }
      }
      Storage* to = out + (b * p.sw + phase - p.pw) * p.x_stride[3];
      const PixelBlock<Storage> block{tables.source, tables.weights, taps, p.y_stride[3],         channels,
                                      per_input,     nullptr,        to,   p.sw * p.x_stride[3]};
      run_pixel_block<Storage, kChannels>(block, columns, direct);
    }
  }
}

template <class Storage>
int32_t depthwise_grad_input_nhwc(const Conv2d& p, const Buffers& buffers) {
  using C = compute_t<Storage>;
  const RowPlan plan = row_plan<Storage>(p, p.ih, buffers.threads);
  const int64_t per_input = p.oc / p.ic;
  const bool slides = suits_slide<Storage>(p, p.iw, plan.chunk);
  const TapWeights<C> weights{static_cast<C*>(buffers.workspace), per_input, round_up(p.ic, kLanes<C>)};
  if (const int32_t error = relay_weights<Storage>(p, buffers.w, weights, slides)) return error;
  char* slots = static_cast<char*>(buffers.workspace) + lines_of<C>(tap_weights_size<C>(p));
  const int64_t slot = PixelTables<Storage>::bytes(p);
  return for_each_slab(plan.tasks, buffers.threads, [&](int64_t slab, int64_t begin, int64_t end) {
    const PixelTables<Storage> tables(p, slots + slab * slot);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t channel = task / p.ih % plan.chunks * plan.chunk;
      const int64_t ih = task % p.ih, n = task / p.ih / plan.chunks;
      const int64_t channels = smaller(plan.chunk, p.ic - channel);
      const Storage* y = static_cast<const Storage*>(buffers.y) + n * p.y_stride[0] + channel * per_input;
      Storage* x = static_cast<Storage*>(buffers.x) + n * p.x_stride[0] + ih * p.x_stride[2] + channel;
      if constexpr (std::is_same_v<Storage, C>) {
        if (slides) {
          slide_source_row<C>(weights, tables.zeros, y, p.y_stride, p.oh, p.ow, p.kh - 1 - p.ph, p.kw - 1 - p.pw, ih,
                              p.kh, channel, channels, nullptr, Activation::none, x, p.x_stride[3], p.iw,
                              plan.prefetches);
          continue;
        }
      }
      if (per_input == 1) {
        grad_input_row<Storage, Channels::paired>(p, weights, tables, y, ih, channel, channels, plan.prefetches, x);
      } else {
        grad_input_row<Storage, Channels::gathered>(p, weights, tables, y, ih, channel, channels, plan.prefetches, x);
      }
    }
  });
}

// Packed weights are TapWeights.
template <class Storage>
int32_t pack_depthwise_nhwc(const Conv2d& p, const Buffers& buffers) {
  using C = compute_t<Storage>;
  return relay_weights<Storage>(p, buffers.w,
                                {static_cast<C*>(buffers.workspace), p.oc / p.ic, round_up(p.ic, kLanes<C>)});
}

template <class Storage>
int64_t depthwise_nhwc_workspace(const Conv2d& p, int64_t threads) {
  using C = compute_t<Storage>;
  return lines_of<C>(tap_weights_size<C>(p)) + PixelTables<Storage>::bytes(p) * positive_threads(threads);
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

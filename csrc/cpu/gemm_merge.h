// The input gradient of a strided convolution in nhwc where channels are few, or no tap meets two column phases: the
// pixels that one grid position spreads over, one of every column phase, lie next to each other in memory, so they are
// taken for one pixel with all their channels. Its filters are those of all phases, with zeros where a phase lacks a
// tap that another one has. What remains is one correlation for each row phase, with whole rows written. Where such a
// zero has met a value that is not finite, the phases have to be done apart.
#pragma once
#include <atomic>
#include <cstdint>

#include "../common/parallel.h"
#include "gemm_correlate.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

struct MergedColumns {
  int64_t phases, low, taps;  // tap j reads source column b + low + j
  bool whole;                 // every phase has every tap

  explicit MergedColumns(const Conv2d& p) : phases(smaller(p.sw, p.iw)), low(INT64_MAX), taps(0) {
    int64_t high = INT64_MIN, apart = 0;
    for (int64_t i = 0; i < phases; ++i) {
      const Axis axis = phase(p, i);
      if (axis.taps == 0) continue;
      apart += axis.taps;
      const int64_t last = axis.offset + (axis.taps - 1) * axis.offset_step;
      low = smaller(low, smaller(axis.offset, last));
      high = larger(high, larger(axis.offset, last));
    }
    if (high >= low) taps = high - low + 1;
    whole = apart == phases * taps;
  }
  static Axis phase(const Conv2d& p, int64_t i) { return gradient_axis(p.kw, p.sw, p.pw, p.dw, p.iw, p.ow, i); }
};

// Where merging takes no more vectors of sums than the phases apart do.
template <class Storage>
bool suits_merging(const Conv2d& p) {
  constexpr int64_t lanes = kLanes<compute_t<Storage>>;
  if (!is_nhwc(p) || p.g != 1 || p.sw < 2 || p.sw > p.iw || p.iw % p.sw != 0 || p.oc == 0) return false;
  const MergedColumns merged(p);
  int64_t apart = 0;
  for (int64_t i = 0; i < merged.phases; ++i) {
    apart += MergedColumns::phase(p, i).taps * round_up(p.ic, lanes);
  }
  return merged.taps > 0 && merged.taps * round_up(merged.phases * p.ic, lanes) <= apart;
}

// The filters as [source channel][kernel row][tap][phase][channel].
inline int64_t merged_weight_size(const Conv2d& p, const MergedColumns& merged) {
  return round_up(p.oc * p.kh * merged.taps * merged.phases * p.ic, 64);
}

template <class Storage>
int32_t merge_weights(const Conv2d& p, const MergedColumns& merged, const Storage* w, Storage* to) {
  const int64_t size = merged.taps * merged.phases * p.ic;
  return parallel_for(p.oc * p.kh, larger(1, 8192 / size), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const Storage* from = w + row / p.kh * p.w_stride[0] + row % p.kh * p.w_stride[2];
      Storage* out = to + row * size;
      for (int64_t i = 0; i < size; ++i) out[i] = narrow<Storage>(compute_t<Storage>(0));
      for (int64_t i = 0; i < merged.phases; ++i) {
        const Axis axis = MergedColumns::phase(p, i);
        for (int64_t j = 0; j < axis.taps; ++j) {
          const int64_t tap = axis.offset + j * axis.offset_step - merged.low;
          const Storage* values = from + (axis.kernel_first + j * axis.kernel_step) * p.w_stride[3];
          Storage* channels = out + (tap * merged.phases + i) * p.ic;
          for (int64_t c = 0; c < p.ic; ++c) channels[c] = values[c * p.w_stride[1]];
        }
      }
    }
  });
}

inline Correlation merged_correlation(const Conv2d& p, const MergedColumns& merged, int64_t row_phase) {
  Correlation c;
  const int64_t channels = merged.phases * p.ic, columns = p.iw / merged.phases;
  c.nhwc = c.tap_major = true;
  c.images = p.n;
  c.groups = 1;
  c.source_channels = p.oc;
  c.dest_channels = channels;
  c.h = gradient_axis(p.kh, p.sh, p.ph, p.dh, p.ih, p.oh, row_phase);
  c.w = Axis{merged.taps, merged.taps, 0, 1, merged.low, 1, 1, p.ow, 0, 1, columns, columns};
  c.source = dense_strides(true, p.oc, p.oh, p.ow);
  c.dest = dense_strides(true, channels, p.ih, columns);
  c.weight_group = 0;
  c.weight_dest = 1;
  c.weight_source = p.kh * merged.taps * channels;
  c.weight_h = merged.taps * channels;
  c.weight_w = channels;
  flatten(c);
  return c;
}

template <class Storage>
int64_t merged_workspace(const Conv2d& p, int64_t threads) {
  const MergedColumns merged(p);
  int64_t bytes = 0;
  for (int64_t i = 0; i < smaller(p.sh, p.ih); ++i) {
    bytes = larger(bytes, correlate_workspace<Storage>(merged_correlation(p, merged, i), threads));
  }
  return bytes + merged_weight_size(p, merged) * int64_t(sizeof(Storage));
}

template <class Storage>
bool all_finite_in(const Storage* data, int64_t count) {
  constexpr int64_t lanes = kLanes<compute_t<Storage>>;
  std::atomic<bool> finite{true};
  parallel_for(ceil_div(count, 4096), 16, [&](int64_t begin, int64_t end) {
    bool all = true;
    const int64_t last = smaller(count, end * 4096);
    for (int64_t i = begin * 4096; i < last; i += lanes) {
      all &= all_finite<compute_t<Storage>>(load_n(data + i, last - i));
    }
    if (!all) finite = false;
  });
  return finite;
}

// Sets *done unless the phases have to be done apart.
template <class Storage>
int32_t correlate_merged(const Conv2d& p, const Buffers& b, bool* done) {
  const MergedColumns merged(p);
  Storage* w = static_cast<Storage*>(b.workspace);
  int32_t error = merge_weights(p, merged, static_cast<const Storage*>(b.w), w);
  for (int64_t i = 0; i < smaller(p.sh, p.ih) && error == 0; ++i) {
    error = correlate<Storage>(merged_correlation(p, merged, i), b.y, w, false, b.x, nullptr,
                               w + merged_weight_size(p, merged), b.threads);
  }
  *done = merged.whole || all_finite_in(static_cast<const Storage*>(b.x), p.n * p.ic * p.ih * p.iw);
  return error;
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

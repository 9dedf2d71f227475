// Depthwise convolution in nhwc with a large filter and stride 1, forward and the gradient of the input. Where a filter
// has hundreds of taps, a vector of channels is staged by itself: its filter, and the plane with zeros around it, each
// pixel one vector beside the next. What a block of neighbouring outputs reads are then runs of memory that the caches
// keep; in the image itself a vector of every pixel would be spread over as many cache lines as there are pixels.
#pragma once
#include <utility>

#include "activation.h"
#include "rows.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

constexpr int kLargeColumns = 8;
constexpr int64_t kLargeTaps = 64;
constexpr int64_t kLargeBytes = 320 << 10;  // of a staged plane, in the second-level cache

inline bool suits_large(const Conv2d& p) {
  return p.ic == p.oc && p.sh == 1 && p.sw == 1 && p.kh * p.kw >= kLargeTaps;
}

// The sum that is computed: the output at (h, w) reads source row h - top + kh * dh with filter row kh, or, `turned`,
// with filter row taps - 1 - kh; columns likewise.
struct LargeSum {
  const int64_t *source_stride, *dest_stride;
  int64_t source_h, source_w, h, w, top, left;
  bool turned;

  static LargeSum forward(const Conv2d& p) {
    return {p.x_stride, p.y_stride, p.ih, p.iw, p.oh, p.ow, p.ph, p.pw, false};
  }
  static LargeSum grad_input(const Conv2d& p) {
    return {p.y_stride, p.x_stride, p.oh, p.ow, p.ih, p.iw, (p.kh - 1) * p.dh - p.ph, (p.kw - 1) * p.dw - p.pw, true};
  }
};

template <class Compute>
struct LargePlan {
  int64_t columns, band, bands, vectors, tasks, slot;

  LargePlan(const Conv2d& p, const LargeSum& sum) {
    constexpr int64_t lanes = kLanes<Compute>;
    const int64_t halo = (p.kh - 1) * p.dh;
    columns = sum.w + (p.kw - 1) * p.dw;
    band = clamped(kLargeBytes / (columns * kVectorBytes) - halo, smaller(sum.h, larger(8, halo / 4)), sum.h);
    bands = ceil_div(sum.h, band);
    vectors = ceil_div(p.ic, lanes);
    tasks = p.n * vectors * bands;
    slot = lines_of<Compute>((band + halo) * columns * lanes) + lines_of<Compute>(p.kh * p.kw * lanes);
  }
};

// A rectangle of taps for a block of neighbouring outputs: the first tap is at `weights` and reads `source` for the
// first output.
template <class C>
struct LargeBlock {
  const C *source, *weights;
  int64_t rows, columns;
  int64_t source_row, source_column, weight_row;  // between taps
  vec<C> bias;
  Activation activation;
};

template <class C, int kColumns, class Storage>
__attribute__((noinline)) void large_block(const LargeBlock<C>& block, Storage* out, int64_t out_step, int64_t n) {
  constexpr int lanes = kLanes<C>;
  const int64_t columns = block.columns, step = block.source_column;
  vec<C> sum[kColumns];
  SC_UNROLL for (int j = 0; j < kColumns; ++j) sum[j] = zero<C>();
  for (int64_t kh = 0; kh < block.rows; ++kh) {
    const C* x = block.source + kh * block.source_row;
    const C* w = block.weights + kh * block.weight_row;
    for (int64_t kw = 0; kw < columns; ++kw, x += step, w += lanes) {
      const vec<C> weight = load(w);
      SC_UNROLL for (int j = 0; j < kColumns; ++j) sum[j] = fma(load(x + j * lanes), weight, sum[j]);
    }
  }
  SC_UNROLL for (int j = 0; j < kColumns; ++j) sum[j] += block.bias;
  activate<C>(block.activation, sum);
  SC_UNROLL for (int j = 0; j < kColumns; ++j) store_n(out + j * out_step, sum[j], n);
}

template <class C, class Storage, int... index>
void large_block_of(int64_t columns, const LargeBlock<C>& block, Storage* out, int64_t out_step, int64_t n,
                    std::integer_sequence<int, index...>) {
  static constexpr void (*blocks[])(const LargeBlock<C>&, Storage*, int64_t, int64_t) = {
      large_block<C, index + 1, Storage>...};
  blocks[columns - 1](block, out, out_step, n);
}

// One vector of channels of one image, some rows of it.
template <class Storage>
class LargeBand {
 public:
  using C = compute_t<Storage>;
  static constexpr int64_t kL = kLanes<C>;

  LargeBand(const Conv2d& problem, const LargeSum& sum, const LargePlan<C>& plan, char* memory)
      : p_(problem), sum_(sum), plan_(plan) {
    Carver carver{memory};
    plane_ = carver.take<C>((plan.band + (p_.kh - 1) * p_.dh) * plan.columns * kL);
    weights_ = carver.take<C>(p_.kh * p_.kw * kL);
  }

  // `channels` of a vector are there.
  void stage_weights(const Storage* w, int64_t channels) {
    C* to = weights_;
    for (int64_t kh = 0; kh < p_.kh; ++kh) {
      for (int64_t kw = 0; kw < p_.kw; ++kw, to += kL) {
        const int64_t h = sum_.turned ? p_.kh - 1 - kh : kh, c = sum_.turned ? p_.kw - 1 - kw : kw;
        const Storage* from = w + h * p_.w_stride[2] + c * p_.w_stride[3];
        for (int64_t lane = 0; lane < kL; ++lane) {
          to[lane] = lane < channels ? widen(from[lane * p_.w_stride[0]]) : C(0);
        }
      }
    }
  }

  // What rows [first, last) of the sum read.
  void stage_plane(const Storage* source, int64_t channels, int64_t first, int64_t last) {
    C* to = plane_;
    const int64_t begin = first - sum_.top, end = last - sum_.top + (p_.kh - 1) * p_.dh;
    for (int64_t h = begin; h < end; ++h, to += plan_.columns * kL) {
      if (h < 0 || h >= sum_.source_h) {
        fill_row(to, plan_.columns * kL, C{0});
        continue;
      }
      const Storage* row = source + h * sum_.source_stride[2];
      for (int64_t i = 0; i < plan_.columns; ++i) {
        const int64_t w = i - sum_.left;
        const bool there = w >= 0 && w < sum_.source_w;
        store(to + i * kL, there ? load_n(row + w * sum_.source_stride[3], channels) : zero<C>());
      }
    }
  }

  void run(int64_t first, int64_t last, vec<C> bias, Activation activation, Storage* dest, int64_t channels) const {
    // Blocks of like width: a short one is slow.
    const int64_t width = ceil_div(sum_.w, ceil_div(sum_.w, kLargeColumns));
    for (int64_t h = first; h < last; ++h) {
      // Filter rows that meet the image.
      const int64_t kh = clamped(ceil_div(sum_.top - h, p_.dh), 0, p_.kh);
      const int64_t kh_end = clamped(ceil_div(sum_.source_h + sum_.top - h, p_.dh), kh, p_.kh);
      for (int64_t w = 0; w < sum_.w; w += width) {
        const int64_t columns = smaller(width, sum_.w - w);
        // Filter columns that meet it for one of the outputs.
        const int64_t kw = clamped(ceil_div(sum_.left - w - columns + 1, p_.dw), 0, p_.kw);
        const int64_t kw_end = clamped(ceil_div(sum_.source_w + sum_.left - w, p_.dw), kw, p_.kw);
        const LargeBlock<C> block{
            plane_ + ((h - first + kh * p_.dh) * plan_.columns + w + kw * p_.dw) * kL,
            weights_ + (kh * p_.kw + kw) * kL, kh_end - kh, kw_end - kw, p_.dh * plan_.columns * kL, p_.dw * kL,
            p_.kw * kL, bias, activation};
        large_block_of<C>(columns, block, dest + h * sum_.dest_stride[2] + w * sum_.dest_stride[3], sum_.dest_stride[3],
                          channels, std::make_integer_sequence<int, kLargeColumns>{});
      }
    }
  }

 private:
  const Conv2d& p_;
  const LargeSum& sum_;
  const LargePlan<C>& plan_;
  C* plane_;
  C* weights_;
};

template <class Storage>
int32_t depthwise_large(const Conv2d& p, const LargeSum& sum, const Buffers& buffers, const Storage* source,
                        Storage* dest, const Storage* bias, Activation activation) {
  using C = compute_t<Storage>;
  const LargePlan<C> plan(p, sum);
  char* slots = static_cast<char*>(buffers.workspace);
  return for_each_slab(plan.tasks, buffers.threads, [&](int64_t slab, int64_t begin, int64_t end) {
    LargeBand<Storage> work(p, sum, plan, slots + slab * plan.slot);
    int64_t held = -1;
    for (int64_t task = begin; task < end; ++task) {
      // Images come last, so that a staged filter serves all of them.
      const int64_t n = task % p.n, band = task / p.n % plan.bands, vector = task / p.n / plan.bands;
      const int64_t channel = vector * kLanes<C>, channels = smaller(kLanes<C>, p.ic - channel);
      const int64_t first = band * plan.band, last = smaller(first + plan.band, sum.h);
      if (vector != held) {
        work.stage_weights(static_cast<const Storage*>(buffers.w) + channel * p.w_stride[0], channels);
      }
      held = vector;
      work.stage_plane(source + n * sum.source_stride[0] + channel, channels, first, last);
      const vec<C> added = bias == nullptr ? zero<C>() : load_n(bias + channel, channels);
      work.run(first, last, added, activation, dest + n * sum.dest_stride[0] + channel, channels);
    }
  });
}

template <class Storage>
int64_t depthwise_large_workspace(const Conv2d& p, const LargeSum& sum, int64_t threads) {
  return LargePlan<compute_t<Storage>>(p, sum).slot * positive_threads(threads);
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

// nchw, 1x1, few filters: a source value is used so seldom that copying it first costs as much as using it. A few
// channels at a time pass over a run of pixels, in as many streams as a processor follows by itself, while the sums wait
// in the destination; the run's piece of these channels stays in the first-level cache for every block of filters.
#pragma once
#include <cstdint>

#include "../common/parallel.h"
#include "gemm_store.h"
#include "gemm_weights.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

constexpr int64_t kThinChannels = 8, kThinPixels = 512, kThinFilters = 16;

template <class Storage>
bool suits_thin(const Correlation& c) {
  return !c.nhwc && std::is_same_v<Storage, compute_t<Storage>> && c.h.in_order() && c.w.in_order() &&
         c.dense_dest() && c.dest_channels <= kThinFilters && c.h.count * c.w.count >= kThinPixels;
}

template <class C>
class Thin {
 public:
  Thin(const Correlation& correlation, const void* source, const Filters<C>& filters, void* dest, const void* bias,
       int64_t threads)
      : c_(correlation),
        source_(static_cast<const C*>(source)),
        filters_(filters),
        dest_(static_cast<C*>(dest)),
        bias_(static_cast<const C*>(bias)),
        plane_(c_.h.count * c_.w.count),
        // Every thread gets a run.
        run_(clamped(round_up(ceil_div(c_.pixels() * c_.groups, threads), kWidth), kWidth, kThinPixels)),
        runs_(ceil_div(plane_, run_)) {}

  int64_t tasks() const { return c_.images * c_.groups * runs_; }

  void run(int64_t task) const {
    const int64_t part = task / runs_, group = part % c_.groups, image = part / c_.groups;
    const int64_t pixel = task % runs_ * run_, pixels = smaller(run_, plane_ - pixel);
    const C* planes = source_ + image * c_.source.image + group * c_.source_channels * c_.source.channel + pixel;
    const int64_t whole = pixels / kWidth * kWidth, blocks = ceil_div(c_.dest_channels, kTileRows);
    if (whole > 0) {
      for (int64_t k = 0; k < c_.depth(); k += kThinChannels) {
        for (int64_t block = 0; block < blocks; ++block) add(image, group, block, pixel, planes, k, whole / kWidth);
      }
    }
    if (whole < pixels) finish_rest(image, group, pixel + whole, planes + whole, pixels - whole);
  }

 private:
  static constexpr int64_t kWidth = kTileColumns<C>;

  int64_t rows(int64_t block) const { return smaller(kTileRows, c_.dest_channels - block * kTileRows); }
  int64_t channel(int64_t group, int64_t block) const { return group * c_.dest_channels + block * kTileRows; }
  const C* bias(int64_t channel) const { return bias_ == nullptr ? nullptr : bias_ + channel; }

  // Channels from k on, to the sums of a block of filters.
  void add(int64_t image, int64_t group, int64_t block, int64_t pixel, const C* planes, int64_t k,
           int64_t tiles) const {
    const int64_t depth = smaller(kThinChannels, c_.depth() - k), first = channel(group, block);
    const Finish<C> finish{bias(first), true, c_.activation};
    TileCall<C> call{depth,
                     filters_.at(c_, group, block) + k,
                     filters_.pitch,
                     planes + k * c_.source.channel,
                     c_.source.channel,
                     dest_ + image * c_.dest.image + first * c_.dest.channel + pixel,
                     c_.dest.channel,
                     k > 0 || c_.accumulate};
    call.tiles = tiles;
    call.b_next = call.out_next = kWidth;
    if (k + depth == c_.depth() && finish.needed()) call.finish = &finish;
    multiply_tile(rows(block), kWidth, call);
  }

  // The last pixels of a plane, less than a tile: behind them the next channel begins, or nothing.
  void finish_rest(int64_t image, int64_t group, int64_t pixel, const C* planes, int64_t pixels) const {
    alignas(64) C values[kThinChannels * kWidth] = {};
    alignas(64) C sums[(kThinFilters + kTileRows - 1) / kTileRows][kTileRows * kWidth];
    for (int64_t k = 0; k < c_.depth(); k += kThinChannels) {
      const int64_t depth = smaller(kThinChannels, c_.depth() - k);
      for (int64_t i = 0; i < depth; ++i) {
        const C* from = planes + (k + i) * c_.source.channel;
        for (int64_t j = 0; j < pixels; j += kLanes<C>) store(values + i * kWidth + j, load_n(from + j, pixels - j));
      }
      for (int64_t block = 0; block * kTileRows < c_.dest_channels; ++block) {
        multiply_tile(rows(block), kWidth,
                      TileCall<C>{depth, filters_.at(c_, group, block) + k, filters_.pitch, values, kWidth,
                                  sums[block], kWidth, k > 0});
      }
    }
    for (int64_t block = 0; block * kTileRows < c_.dest_channels; ++block) {
      const int64_t first = channel(group, block);
      store_lines(c_, dest_ + first * c_.dest.channel, bias(first), image * plane_ + pixel, rows(block), pixels,
                  sums[block]);
    }
  }

  const Correlation& c_;
  const C* source_;
  const Filters<C>& filters_;
  C* dest_;
  const C* bias_;
  const int64_t plane_, run_, runs_;
};

template <class Storage>
int32_t correlate_thin(const Correlation& c, const void* source, const Filters<compute_t<Storage>>& filters, void* dest,
                       const void* bias, int64_t threads) {
  const Thin<compute_t<Storage>> work(c, source, filters, dest, bias, threads);
  const int64_t grain = grain_for(c.pixels() * c.depth() * c.groups * c.dest_channels / work.tasks(), threads);
  return parallel_for(work.tasks(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) work.run(task);
  });
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

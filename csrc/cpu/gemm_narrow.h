// nhwc, narrow groups: the source rows that a band of output rows reads are copied once, whole pixels with zeros around
// them, and stay in the second-level cache while set after set of channels passes over them. A set is one group, or as
// many groups of four channels as fill a vector. Pixels are an odd number of cache lines apart, so that the same
// channels of neighbouring pixels do not fall into one cache set.
#pragma once
#include <cstdint>

#include "../common/shares.h"
#include "gemm_band.h"
#include "gemm_copy.h"
#include "gemm_narrow_tile.h"
#include "gemm_store.h"
#include "gemm_weights.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

constexpr int64_t kNarrowBandBytes = 256 << 10;  // of source rows, in the second-level cache

// With several vectors of destination channels, the tiles of gemm_band.h are as good where taps share few columns.
template <class Compute>
bool suits_narrow(const Correlation& c) {
  if (!c.nhwc || c.groups == 1 || c.dest_channels > 32 || (c.h.identity() && c.w.identity())) return false;
  return c.dest_channels <= kLanes<Compute> || (c.w.stride == 1 && taps_together(c.w, 1) == 3);
}

template <class Storage>
struct NarrowPlan {
  using C = compute_t<Storage>;
  BandAxis h, w;
  bool quads;
  int64_t width, dest_width, sets, vectors;  // a set's channels
  int64_t together, blocks;                  // sets whose channels share a cache line
  int64_t columns, pixel_pitch, row_pitch;
  int64_t band, bands, tasks;
  int64_t taps, runs, table_size, quad_size, slab_size;

  NarrowPlan(const Correlation& c, int64_t threads) : h(c.h), w(c.w) {
    constexpr int64_t lanes = kLanes<C>, size = sizeof(C), line = 64 / size;
    quads = suits_quads<C>(c);
    width = quads ? lanes : c.source_channels;
    dest_width = quads ? lanes : c.dest_channels;
    sets = quads ? c.groups * 4 / lanes : c.groups;
    vectors = ceil_div(dest_width, lanes);
    together = clamped(line / larger(width, dest_width), 1, sets);
    blocks = ceil_div(sets, together);
    columns = w.extent(c.w.count);
    pixel_pitch = (ceil_div(c.groups * c.source_channels, line) | 1) * line;
    row_pitch = columns * pixel_pitch;
    band = larger(1, c.h.count);
    while (band > 1 && h.extent(band) * row_pitch * size > kNarrowBandBytes) --band;
    band = smaller(band, ceil_div(c.h.count, smaller(c.h.count, ceil_div(threads, c.images))));
    band = ceil_div(c.h.count, ceil_div(c.h.count, band));
    bands = ceil_div(c.h.count, band);
    tasks = c.images * bands * blocks;
    taps = taps_together(c.w, w.stride);
    runs = c.taps() / taps;
    table_size = round_up(runs * int64_t(sizeof(TapRun)) / size + 1, 64);
    quad_size = quads ? round_up(sets * lanes * c.depth(), 64) : 0;
    // Tiles read on past the last pixel.
    const int64_t beyond = kMostNarrowPixels * w.stride * pixel_pitch;
    slab_size = table_size + quad_size + round_up(h.extent(band) * row_pitch + beyond + lanes, 64);
  }
};

template <class Storage>
class Narrow {
 public:
  using C = compute_t<Storage>;

  Narrow(const Correlation& correlation, const NarrowPlan<Storage>& plan, const void* source, void* dest,
         const void* bias, const C* filters, C* memory)
      : c_(correlation),
        plan_(plan),
        source_(static_cast<const Storage*>(source)),
        dest_(static_cast<Storage*>(dest)),
        bias_(static_cast<const Storage*>(bias)),
        filters_(filters),
        runs_(reinterpret_cast<TapRun*>(memory)),
        band_(memory + plan.table_size + plan.quad_size) {
    w_channel_ = plan.quads ? kLanes<C> : kTileColumns<C>;
    w_tap_ = c_.source_channels * w_channel_ * (c_.w.offset_step < 0 ? -1 : 1);
    list_runs();
    if (plan.quads) spread_filters(memory + plan.table_size);
  }

  void run(Share& share) const {
    int64_t held = -1;
    for (int64_t task; share.next(&task);) {
      const int64_t block = task % plan_.blocks, part = task / plan_.blocks;
      const int64_t image = part / plan_.bands, first = part % plan_.bands * plan_.band;
      const int64_t rows = smaller(plan_.band, c_.h.count - first);
      if (part != held) hold(image, first, rows);
      held = part;
      const int64_t set = block * plan_.together, end_set = smaller(set + plan_.together, plan_.sets);
      for (int64_t vector = 0; vector < plan_.vectors; ++vector) {
        for (int64_t r = 0; r < rows; ++r) {
          const C* row = band_ + r * plan_.h.stride * plan_.row_pitch;
          for (int64_t s = set; s < end_set; ++s) multiply_row(row + s * plan_.width, image, first + r, s, vector);
        }
      }
    }
  }

 private:
  void list_runs() {
    const int64_t of_row = c_.w.taps / plan_.taps;
    for (int64_t s = 0; s < plan_.runs; ++s) {
      // The tap of the first column.
      const int64_t back = c_.w.offset_step < 0 ? plan_.taps - 1 : 0;
      const int64_t tap_h = s / of_row, tap_w = s % of_row * plan_.taps + back;
      const int64_t h = c_.h.offset + tap_h * c_.h.offset_step - plan_.h.low;
      const int64_t w = c_.w.offset + tap_w * c_.w.offset_step - plan_.w.low;
      runs_[s] = {h * plan_.row_pitch + w * plan_.pixel_pitch,
                  (tap_h * c_.w.taps + tap_w) * c_.source_channels * w_channel_};
    }
  }

  // From panels of four columns to vectors of several groups, by the distance between source and dest channel.
  void spread_filters(C* to) {
    filters_of_quads_ = to;
    for (int64_t channel = 0; channel < 4 * c_.groups; channel += kLanes<C>) {
      for (int64_t k = 0; k < c_.depth(); ++k) {
        for (int64_t lane = 0; lane < kLanes<C>; ++lane) {
          const C* group = filters_ + (channel + lane) / 4 * packed_block_size<C>(c_);
          *to++ = group[(k / 4 * 4 + (k ^ lane) % 4) * kTileColumns<C> + lane % 4];
        }
      }
    }
  }

  // Ascending in memory, since a copy spills past its end.
  void hold(int64_t image, int64_t first, int64_t rows) const {
    const int64_t row_step = plan_.h.compact ? c_.h.stride : 1, column_step = plan_.w.compact ? c_.w.stride : 1;
    const int64_t begin = clamped(ceil_div(-plan_.w.low, column_step), 0, plan_.columns);
    const int64_t end = clamped(ceil_div(c_.w.source - plan_.w.low, column_step), begin, plan_.columns);
    const int64_t channels = c_.groups * c_.source_channels;
    const Storage* from = source_ + image * c_.source.image + (plan_.w.low + begin * column_step) * c_.source.column;
    C* to = band_;
    for (int64_t r = 0; r < plan_.h.extent(rows); ++r, to += plan_.row_pitch) {
      const int64_t h = first * c_.h.stride + plan_.h.low + r * row_step;
      if (h < 0 || h >= c_.h.source) {
        zero_spilling(to, plan_.row_pitch);
        continue;
      }
      const Storage* pixel = from + h * c_.source.row;
      zero_spilling(to, begin * plan_.pixel_pitch);
      for (int64_t i = begin; i < end; ++i, pixel += column_step * c_.source.column) {
        copy_spilling(to + i * plan_.pixel_pitch, pixel, channels);
      }
      zero_spilling(to + end * plan_.pixel_pitch, (plan_.columns - end) * plan_.pixel_pitch);
    }
  }

  // Row h, one vector of a set's channels; x is the first column that it reads.
  void multiply_row(const C* x, int64_t image, int64_t h, int64_t set, int64_t vector) const {
    constexpr int64_t lanes = kLanes<C>;
    alignas(64) C sums[kMostNarrowPixels * kTileColumns<C>];
    const int64_t columns = smaller(lanes, plan_.dest_width - vector * lanes);
    const int64_t channel = set * plan_.dest_width + vector * lanes;
    const Storage* added = bias_ != nullptr ? bias_ + channel : nullptr;
    const bool direct = std::is_same_v<Storage, C> && columns == lanes;
    const Finish<C> finish{reinterpret_cast<const C*>(added), false, c_.activation};
    const int64_t pixel_step = plan_.w.stride * plan_.pixel_pitch;
    NarrowCall<C> call;
    call.column = plan_.taps == 1 ? pixel_step : plan_.pixel_pitch;
    call.channels = c_.source_channels;
    call.runs = runs_;
    call.count_of_runs = plan_.runs;
    call.w = plan_.quads ? filters_of_quads_ + channel * c_.depth()
                         : filters_ + (set * weight_blocks<C>(c_) + vector / kTileVectors) * packed_block_size<C>(c_) +
                               vector % kTileVectors * lanes;
    call.w_tap = w_tap_;
    call.w_channel = w_channel_;
    call.out_stride = direct ? c_.w.spacing * c_.dest.column : kTileColumns<C>;
    call.finish = direct && finish.needed() ? &finish : nullptr;
    Storage* out = dest_ + channel + image * c_.dest.image + (c_.h.origin + h * c_.h.spacing) * c_.dest.row +
                   c_.w.origin * c_.dest.column;
    // Tiles of like width: a short one is slow.
    const int64_t tiles = ceil_div(c_.w.count, kMostNarrowPixels), step = ceil_div(c_.w.count, tiles);
    for (int64_t w = 0; w < c_.w.count; w += step) {
      call.count = smaller(step, c_.w.count - w);
      call.x = x + w * pixel_step;
      call.out = direct ? reinterpret_cast<C*>(out) + w * call.out_stride : sums;
      int size = 0;
      while (kNarrowPixels[size] < call.count) ++size;
      const auto choose = plan_.quads ? narrow_tile_for<C, kLanes<C> % 4 == 0> : narrow_tile_for<C, false>;
      choose(plan_.taps, plan_.w.stride, size)(call);
      if (direct) continue;
      store_rows(c_, dest_ + channel, added, (image * c_.h.count + h) * c_.w.count + w, call.count, columns, sums);
    }
  }

  const Correlation& c_;
  const NarrowPlan<Storage>& plan_;
  const Storage* source_;
  Storage* dest_;
  const Storage* bias_;
  const C* filters_;
  const C* filters_of_quads_ = nullptr;
  TapRun* runs_;
  C* band_;
  int64_t w_tap_, w_channel_;
};

// `filters` are packed.
template <class Storage>
int32_t correlate_narrow(const Correlation& c, const void* source, const compute_t<Storage>* filters, void* dest,
                         const void* bias, compute_t<Storage>* slabs, int64_t threads) {
  const NarrowPlan<Storage> plan(c, threads);
  return for_each_share(plan.tasks, threads, [&](int64_t slab, Share& share) {
    Narrow<Storage> work(c, plan, source, dest, bias, filters, slabs + slab * plan.slab_size);
    work.run(share);
  });
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

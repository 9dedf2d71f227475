// nhwc without packing: a tile of neighbouring pixels of one output row reads its source values where they lie. Where a
// filter reaches past the image, or pixels lie a multiple of 2 KB apart, the rows that a band of output rows reads are
// first copied once, with zeros around them.
#pragma once
#include <cstdint>

#include "../common/shares.h"
#include "gemm_band_tile.h"
#include "gemm_store.h"
#include "gemm_weights.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

constexpr int64_t kBandBytes = 192 << 10;        // of source rows, in the second-level cache
constexpr int64_t kBandFilterBytes = 16 << 10;  // of filters, in the first-level cache

// One axis of what is read: from `low` to `high` in source coordinates by the first grid position, and how the band
// keeps it. An axis with one tap keeps only what is read.
struct BandAxis {
  int64_t low, high, stride;
  bool compact;

  explicit BandAxis(const Axis& axis) {
    const int64_t reach = (axis.taps - 1) * axis.offset_step;
    low = axis.offset + smaller(0, reach);
    high = axis.offset + larger(0, reach);
    compact = axis.taps == 1;
    stride = compact ? 1 : axis.stride;
  }
  bool inside(const Axis& axis) const { return low >= 0 && high + (axis.count - 1) * axis.stride < axis.source; }
  // Positions kept for `count` grid positions.
  int64_t extent(int64_t count) const { return (count - 1) * stride + 1 + (compact ? 0 : high - low); }
};

template <class Storage>
struct BandPlan {
  using C = compute_t<Storage>;
  BandAxis h, w;
  bool in_place;
  int64_t pixel_pitch, row_pitch, columns;
  int64_t band, bands, filters, filters_together, filter_parts, tasks;
  int64_t run, segments, slab_size;

  BandPlan(const Correlation& c, int64_t threads) : h(c.h), w(c.w) {
    const int64_t channels = c.groups * c.source_channels, step = w.stride * channels;
    const bool thrashes = step * int64_t(sizeof(C)) % 2048 == 0;
    in_place = std::is_same_v<Storage, C> && h.inside(c.h) && w.inside(c.w) &&
               c.w.stride * channels * int64_t(sizeof(C)) % 2048 != 0;
    pixel_pitch = in_place || !thrashes ? channels : channels + 64 / int64_t(sizeof(C));
    columns = w.extent(c.w.count);
    if (in_place) {
      h.stride = c.h.stride;
      w.stride = c.w.stride;
      row_pitch = c.source.row;
    } else {
      row_pitch = columns * pixel_pitch;
    }
    // Neighbouring taps of a filter row are one run of memory when their channels are.
    const bool joined = c.groups == 1 && c.w.offset_step == 1 && pixel_pitch == channels;
    run = joined ? c.w.taps * c.source_channels : c.source_channels;
    segments = c.depth() / run;
    band = c.h.count;
    while (band > 1 && h.extent(band) * row_pitch * int64_t(sizeof(C)) > kBandBytes) band = ceil_div(band, 2);
    bands = ceil_div(c.h.count, band);
    if (c.images * bands < threads) {
      band = ceil_div(c.h.count, smaller(c.h.count, ceil_div(threads, c.images)));
      bands = ceil_div(c.h.count, band);
    }
    filters = weight_blocks<C>(c);
    // As many blocks of filters one after the other for the same pixels as fit the first-level cache.
    filters_together = clamped(kBandFilterBytes / (packed_block_size<C>(c) * int64_t(sizeof(C))), 1, filters);
    filter_parts = ceil_div(filters, filters_together);
    tasks = c.images * bands * c.groups * filter_parts;
    slab_size = round_up(segments * int64_t(sizeof(int64_t)) / int64_t(sizeof(C)) + 16, 64) +
                (in_place ? 0 : round_up(h.extent(band) * row_pitch + kLanes<C>, 64));
  }
};

template <class Storage>
class Banded {
 public:
  using C = compute_t<Storage>;

  Banded(const Correlation& correlation, const BandPlan<Storage>& plan, const void* source, void* dest,
         const void* bias, const C* filters, C* memory)
      : c_(correlation),
        plan_(plan),
        source_(static_cast<const Storage*>(source)),
        dest_(static_cast<Storage*>(dest)),
        bias_(static_cast<const Storage*>(bias)),
        filters_(filters),
        offsets_(reinterpret_cast<int64_t*>(memory)) {
    band_ = memory + round_up(plan.segments * int64_t(sizeof(int64_t)) / int64_t(sizeof(C)) + 16, 64);
    const int64_t runs = plan.segments / c_.h.taps;
    for (int64_t s = 0; s < plan.segments; ++s) {
      const int64_t h = c_.h.offset + s / runs * c_.h.offset_step - plan.h.low;
      const int64_t w = c_.w.offset + s % runs * c_.w.offset_step - plan.w.low;
      offsets_[s] = h * plan.row_pitch + w * plan.pixel_pitch;
    }
  }

  void run(Share& share) {
    int64_t held = -1;
    for (int64_t task; share.next(&task);) {
      const int64_t filter_part = task % plan_.filter_parts, rest = task / plan_.filter_parts;
      const int64_t filter = filter_part * plan_.filters_together;
      const int64_t end_filter = smaller(filter + plan_.filters_together, plan_.filters);
      const int64_t group = rest % c_.groups, part = rest / c_.groups;
      const int64_t image = part / plan_.bands, first = part % plan_.bands * plan_.band;
      const int64_t last = smaller(first + plan_.band, c_.h.count);
      if (part != held) hold(image, first, last);
      held = part;
      for (int64_t h = first; h < last; ++h) {
        // Tiles of like width: a short one is slow.
        const bool narrow = c_.dest_channels - filter * kTileColumns<C> <= kLanes<C>;
        const int64_t most = narrow ? kBandTile<1> : kBandTile<2>;
        const int64_t step = ceil_div(c_.w.count, ceil_div(c_.w.count, most));
        for (int64_t w = 0; w < c_.w.count; w += step) {
          for (int64_t part = filter; part < end_filter; ++part) {
            multiply(image, h, first, w, smaller(step, c_.w.count - w), group, part);
          }
        }
      }
    }
  }

 private:
  // Makes `rows_` the source row that the first tap of the first output row reads.
  void hold(int64_t image, int64_t first, int64_t last) {
    const Storage* from = source_ + image * c_.source.image;
    if (plan_.in_place) {
      rows_ = reinterpret_cast<const C*>(from + (first * c_.h.stride + plan_.h.low) * c_.source.row +
                                         plan_.w.low * c_.source.column);
      return;
    }
    rows_ = band_;
    const int64_t channels = c_.groups * c_.source_channels;
    const int64_t row_step = plan_.h.compact ? c_.h.stride : 1, column_step = plan_.w.compact ? c_.w.stride : 1;
    const bool dense = column_step == 1 && plan_.pixel_pitch == channels;
    const int64_t begin = clamped(ceil_div(-plan_.w.low, column_step), 0, plan_.columns);
    const int64_t end = clamped(ceil_div(c_.w.source - plan_.w.low, column_step), begin, plan_.columns);
    C* to = band_;
    for (int64_t r = 0; r < plan_.h.extent(last - first); ++r, to += plan_.row_pitch) {
      const int64_t h = first * c_.h.stride + plan_.h.low + r * row_step;
      if (h < 0 || h >= c_.h.source) {
        zero_spilling(to, plan_.row_pitch);
        continue;
      }
      const Storage* row = from + h * c_.source.row + (plan_.w.low + begin * column_step) * c_.source.column;
      zero_spilling(to, begin * plan_.pixel_pitch);
      if (dense) {
        copy_spilling(to + begin * channels, row, (end - begin) * channels);
      } else {
        for (int64_t i = begin; i < end; ++i, row += column_step * c_.source.column) {
          copy_spilling(to + i * plan_.pixel_pitch, row, channels);
        }
      }
      zero_spilling(to + end * plan_.pixel_pitch, (plan_.columns - end) * plan_.pixel_pitch);
    }
  }

  // `count` pixels of row h from column w, and one block of a group's channels. The held band begins at row `first`.
  void multiply(int64_t image, int64_t h, int64_t first, int64_t w, int64_t count, int64_t group,
                int64_t filter) const {
    constexpr int64_t width = kTileColumns<C>;
    alignas(64) C sums[larger(kBandTile<1>, kBandTile<2>) * width];
    const int64_t from = filter * width;
    const int64_t columns = smaller(width, c_.dest_channels - from);
    const int64_t channel = group * c_.dest_channels + from;
    const Storage* added = bias_ != nullptr ? bias_ + channel : nullptr;
    const bool direct = std::is_same_v<Storage, C> && columns % kLanes<C> == 0;
    const Finish<C> finish{reinterpret_cast<const C*>(added), false, c_.activation};
    const C* row = rows_ + (h - first) * plan_.h.stride * plan_.row_pitch + group * c_.source_channels;
    const int64_t a_stride = plan_.w.stride * plan_.pixel_pitch;
    BandCall<C> call{row + w * a_stride, a_stride, offsets_, plan_.segments, plan_.run,
                     filters_ + (group * plan_.filters + filter) * packed_block_size<C>(c_), sums, width};
    if (direct) {
      call.out = reinterpret_cast<C*>(dest_ + image * c_.dest.image + (c_.h.origin + h * c_.h.spacing) * c_.dest.row +
                                      (c_.w.origin + w * c_.w.spacing) * c_.dest.column + channel);
      call.out_stride = c_.w.spacing * c_.dest.column;
      if (finish.needed()) call.finish = &finish;
    }
    if (columns <= kLanes<C>) {
      band_tile_of_rows<C, 1>(count, call);
    } else {
      band_tile_of_rows<C, 2>(count, call);
    }
    if (!direct) {
      const int64_t pixel = (image * c_.h.count + h) * c_.w.count + w;
      store_rows(c_, dest_ + channel, added, pixel, count, columns, sums);
    }
  }

  const Correlation& c_;
  const BandPlan<Storage>& plan_;
  const Storage* source_;
  Storage* dest_;
  const Storage* bias_;
  const C* filters_;
  int64_t* offsets_;
  C* band_;
  const C* rows_ = nullptr;
};

// Packing costs little where many channels share it, and its tiles are full however short the rows are.
inline bool suits_bands(const Correlation& c) {
  if (!c.nhwc || (c.h.identity() && c.w.identity())) return false;
  if (c.dest_channels <= 32) return true;
  const int64_t tiles = ceil_div(c.w.count, kTileRows);
  return c.taps() > 1 && c.dest_channels <= 128 && 10 * c.w.count >= 9 * tiles * kTileRows;
}

// `filters` are packed.
template <class Storage>
int32_t correlate_bands(const Correlation& c, const void* source, const compute_t<Storage>* filters, void* dest,
                        const void* bias, compute_t<Storage>* slabs, int64_t threads) {
  const BandPlan<Storage> plan(c, threads);
  return for_each_share(plan.tasks, threads, [&](int64_t slab, Share& share) {
    Banded<Storage> work(c, plan, source, dest, bias, filters, slabs + slab * plan.slab_size);
    work.run(share);
  });
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

// A block of grid positions, whose source values fit the second-level cache, times one block of filters after the other.
// Where all positions are one block, a block of filters is used in one place alone, and is packed there, in a near cache,
// instead of going to memory and back beforehand; what comes next is fetched meanwhile. Where few positions are deep, the
// depth is cut instead of the positions, so that filters, which are then most of the memory, are still read once.
#pragma once
#include <cstdint>
#include <type_traits>

#include "../common/shares.h"
#include "gemm_block_plan.h"
#include "gemm_store.h"
#include "inner_products.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

template <class Storage>
class Blocks {
 public:
  using C = compute_t<Storage>;

  // `w`: filters as they lie, to be packed where they are used; null where `filters` are ready.
  Blocks(const Correlation& correlation, const BlockPlan<Storage>& plan, const void* source,
         const Filters<C>& filters, const void* w, void* dest, const void* bias)
      : c_(correlation),
        plan_(plan),
        source_(static_cast<const Storage*>(source)),
        filters_(filters),
        w_(static_cast<const Storage*>(w)),
        dest_(static_cast<Storage*>(dest)),
        bias_(static_cast<const Storage*>(bias)) {}

  // Tasks are ordered (block of positions, group, block of filters).
  void run(Share& share, C* memory) const {
    C *const piece = memory, *const packed = memory + plan_.piece_size;
    int64_t held = -1;
    for (int64_t task; share.next(&task);) {
      const int64_t filter = task % plan_.filters, part = task / plan_.filters;
      const int64_t group = part % c_.groups, pixel = part / c_.groups * plan_.block;
      const Block block{pixel, smaller(pixel + plan_.block, c_.pixels()), 0, c_.depth()};
      if (part != held && !plan_.in_place) pack_source(block, group, packed);
      held = part;
      const C* weights = piece;
      if (w_ != nullptr) {
        pack_weight_block(c_, lying(group, filter), filters_of(filter), piece);
      } else {
        weights = filters_.at(c_, group, filter);
      }
      if (!c_.nhwc) {
        multiply_panels(block, group, filter, packed, weights);
      } else if (plan_.in_place) {
        const C* rows = reinterpret_cast<const C*>(source_) + pixel * c_.source.column + group * c_.source_channels;
        multiply_rows(block, group, filter, rows, c_.source.column, weights);
      } else {
        multiply_rows(block, group, filter, packed, plan_.pitch, weights);
      }
    }
  }

 private:
  // The rows of the block of filters that comes after one, fetched by the last tiles on that one: on few pixels filters
  // take as long to come as to be used.
  struct Upcoming {
    const C* from = nullptr;
    int64_t stride = 0, rows = 0;  // of what is left to fetch
    int64_t each = 0;              // rows that a tile fetches
    int64_t skip = 0;              // tiles that come before the fetching ones

    Upcoming(const Blocks& of, int64_t group, int64_t filter, int64_t tiles) {
      const Correlation& c = of.c_;
      const int64_t count = of.filters_of(filter + 1);
      const bool lies = of.w_ != nullptr;
      if (count <= 0 || tiles == 0 || (lies && !std::is_same_v<Storage, C>)) return;
      from = lies ? reinterpret_cast<const C*>(of.lying(group, filter + 1)) : of.filters_.at(c, group, filter + 1);
      stride = lies ? c.weight_dest : c.nhwc ? c.depth() : of.filters_.pitch;
      // A packed panel is as many runs of the depth as it has columns.
      rows = c.nhwc && !lies ? kTileColumns<C> : count;
      each = ceil_div(rows, tiles);
      skip = tiles - ceil_div(rows, each);
    }
    // Of so many tiles, as many as the call can take: all of them fetch, or none does.
    void give(TileCall<C>& call, int64_t tiles) {
      call.tiles = tiles;
      call.fetch_rows = 0;
      if (rows == 0) return;
      if (skip > 0) {
        call.tiles = smaller(tiles, skip);
        skip -= call.tiles;
        return;
      }
      call.fetch = from;
      call.fetch_rows = smaller(each, rows);
      call.fetch_stride = stride;
      call.tiles = smaller(tiles, rows / call.fetch_rows);
      from += call.tiles * call.fetch_rows * stride;
      rows -= call.tiles * call.fetch_rows;
    }
  };

  // How many filters a block has, none or less behind the last.
  int64_t filters_of(int64_t filter) const { return smaller(width(), c_.dest_channels - filter * width()); }
  int64_t width() const { return c_.nhwc ? kTileColumns<C> : kTileRows; }

  // A block of filters as it lies.
  const Storage* lying(int64_t group, int64_t filter) const {
    return w_ + group * c_.weight_group + filter * width() * c_.weight_dest;
  }

  void pack_source(const Block& block, int64_t group, C* packed) const {
    if (c_.nhwc) return pack_rows(c_, source_, group, block, packed, plan_.pitch);
    const int64_t whole = tiled_end(block);
    const Block tiled{block.pixel, whole, block.k, block.k_end};
    if (plan_.panels) {
      pack_panels<kTileColumns<C>>(c_, source_, group, tiled, packed);
    } else if (whole > block.pixel) {
      pack_lines(c_, source_, group, tiled, packed, plan_.pitch);
    }
    pack_columns(c_, source_, group, whole, block.pixel_end, packed + plan_.tiled_size);
  }

  // nhwc.
  void multiply_rows(const Block& block, int64_t group, int64_t filter, const C* rows, int64_t row_stride,
                     const C* weights) const {
    constexpr int64_t width = kTileColumns<C>;
    alignas(64) C sums[kTileRows * width];
    const int64_t first = filter * width, columns = smaller(width, c_.dest_channels - first);
    const int64_t channel = group * c_.dest_channels + first;
    const Storage* added = bias_ != nullptr ? bias_ + channel : nullptr;
    const bool direct = std::is_same_v<Storage, C> && columns % kLanes<C> == 0, dense = c_.dense_dest();
    const Finish<C> finish{reinterpret_cast<const C*>(added), false, c_.activation};
    TileCall<C> call{c_.depth(), rows, row_stride, weights, width, sums, width, false};
    call.fetch_a = true;
    Upcoming next(*this, group, filter, ceil_div(block.pixel_end - block.pixel, kTileRows));
    Cursor at(c_, block.pixel);
    for (int64_t pixel = block.pixel; pixel < block.pixel_end;) {
      // The whole block where rows follow each other, else what is left of the row.
      const int64_t left = block.pixel_end - pixel, run = dense ? left : smaller(left, c_.w.count - at.w);
      const bool here = direct && (dense || run >= kTileRows);
      const int64_t count = here ? tile_height(run) : smaller(kTileRows, left);
      next.give(call, here && count == kTileRows ? larger(1, run / kTileRows - 2) : 1);
      call.a_next = count * row_stride;
      if (here) {
        const int64_t at_pixel = dense ? pixel * c_.dest.column : dest_offset(c_, at);
        const int64_t stride = c_.w.spacing * c_.dest.column;
        call.out_next = count * stride;
        into_dest(call, channel + at_pixel, stride, call.out_next, finish);
      } else {
        into_sums(call, sums);
      }
      multiply_tile(count, columns, call);
      const int64_t done = call.tiles * count;
      at.move(c_, done);
      if (!here) store_rows(c_, dest_ + channel, added, pixel, count, columns, sums);
      pixel += done;
      call.a += call.tiles * call.a_next;
    }
  }

  // Where a tile's sums go: finished to where they belong, or as they are to what is stored with care.
  void into_dest(TileCall<C>& call, int64_t offset, int64_t stride, int64_t ahead, const Finish<C>& finish) const {
    call.out = reinterpret_cast<C*>(dest_) + offset;
    call.out_stride = stride;
    call.out_ahead = ahead;
    call.accumulate = c_.accumulate;
    call.finish = finish.needed() ? &finish : nullptr;
  }
  static void into_sums(TileCall<C>& call, C* sums) {
    call.out = sums;
    call.out_stride = kTileColumns<C>;
    call.out_ahead = 0;
    call.accumulate = false;
    call.finish = nullptr;
  }

  // The last two or three tiles of a run are of like height: one of few rows takes as long as one of four, the least
  // whose sums hide the latency of a multiply-add.
  static int64_t tile_height(int64_t run) {
    return run >= 3 * kTileRows ? kTileRows : ceil_div(run, ceil_div(run, kTileRows));
  }

  // nchw.
  void multiply_panels(const Block& block, int64_t group, int64_t filter, const C* panels, const C* weights) const {
    constexpr int64_t width = kTileColumns<C>;
    alignas(64) C sums[kTileRows * width];
    const int64_t first = filter * kTileRows, rows = smaller(kTileRows, c_.dest_channels - first);
    const int64_t channel = group * c_.dest_channels + first, plane = c_.h.count * c_.w.count;
    const int64_t whole = tiled_end(block);
    const Storage* added = bias_ != nullptr ? bias_ + channel : nullptr;
    const bool direct = std::is_same_v<Storage, C> && c_.dense_dest();
    const Finish<C> finish{reinterpret_cast<const C*>(added), true, c_.activation};
    TileCall<C> call{c_.depth(), weights, filters_.pitch, panels, plan_.pitch, sums, width, false};
    call.b_next = plan_.panel_step;
    call.out_next = width;
    Upcoming next(*this, group, filter, ceil_div(whole - block.pixel, width));
    for (int64_t pixel = block.pixel; pixel < whole;) {
      const int64_t at = pixel % plane, left = whole - pixel, columns = smaller(width, left);
      const bool here = direct && columns % kLanes<C> == 0 && at + columns <= plane;
      next.give(call, here ? larger(1, smaller(left, plane - at) / width) : 1);
      if (here) {
        into_dest(call, pixel / plane * c_.dest.image + channel * c_.dest.channel + at, c_.dest.channel, width, finish);
      } else {
        into_sums(call, sums);
      }
      multiply_tile(rows, columns, call);
      if (!here) store_lines(c_, dest_ + channel * c_.dest.channel, added, pixel, rows, columns, sums);
      pixel += smaller(call.tiles * width, left);
      call.b += call.tiles * call.b_next;
    }
    if (whole == block.pixel_end) return;
    multiply_columns(rows, block.pixel_end - whole, weights, panels + plan_.tiled_size, sums);
    store_lines(c_, dest_ + channel * c_.dest.channel, added, whole, rows, block.pixel_end - whole, sums);
  }

  // nchw: where the columns left over begin.
  int64_t tiled_end(const Block& block) const {
    return block.pixel_end == c_.pixels() ? block.pixel_end - plan_.loose : block.pixel_end;
  }

  // sums[i * kTileColumns + j] = inner product of row i of the weights and column j.
  void multiply_columns(int64_t rows, int64_t count, const C* weights, const C* columns, C* sums) const {
    static_assert(kColumnFilters >= kTileRows, "a block of rows is one tile of inner products");
    const C* filters[kColumnFilters];
    for (int64_t i = 0; i < kColumnFilters; ++i) filters[i] = weights + smaller(i, rows - 1) * filters_.pitch;
    C products[kColumnFilters];
    for (int64_t j = 0; j < count; ++j) {
      const C* const column[1] = {columns + j * c_.depth()};
      multiply<C, C, kColumnFilters, 1>(filters, column, c_.depth(), products);
      for (int64_t i = 0; i < rows; ++i) sums[i * kTileColumns<C> + j] = products[i];
    }
  }

  const Correlation& c_;
  const BlockPlan<Storage>& plan_;
  const Storage* source_;
  const Filters<C> filters_;
  const Storage* w_;
  Storage* dest_;
  const Storage* bias_;
};

// `w`: filters as they lie, to be packed, or null where `filters` are ready. `memory` has room for the slabs and, where
// there is `w`, for all packed filters.
template <class Storage>
int32_t correlate_blocks(const Correlation& c, const void* source, const Filters<compute_t<Storage>>& filters,
                         const void* w, void* dest, const void* bias, compute_t<Storage>* memory, int64_t threads) {
  using C = compute_t<Storage>;
  const int64_t channels = c.source_channels, cut = cut_channels<Storage>(c);
  int64_t channel = 0;
  do {
    const Correlation part = part_from<Storage>(c, channel);
    const BlockPlan<Storage> plan(part, threads);
    Filters<C> ready = filters;
    const Storage* lying = nullptr;
    C* slabs = memory;
    if (w == nullptr) {
      ready.data += channel * (c.nhwc ? kTileColumns<C> : c.taps());
    } else {
      ready = {memory, packed_pitch<C>(part.depth()), packed_block_size<C>(part)};
      lying = static_cast<const Storage*>(w) + channel * c.weight_source;
      if (plan.piece_size == 0 || !filters_are_runs(part)) {
        const int32_t error = pack_weights(part, lying, memory);
        if (error != 0) return error;
        lying = nullptr;
        slabs += round_up(packed_weight_size<C>(part), 64);
      }
    }
    const Blocks<Storage> blocks(part, plan, static_cast<const Storage*>(source) + channel * c.source.channel, ready,
                                 lying, dest, channel + cut < channels ? nullptr : bias);
    const int32_t error = for_each_share(plan.tasks, threads, [&](int64_t slab, Share& share) {
      blocks.run(share, slabs + slab * plan.slab_size);
    });
    if (error != 0) return error;
    channel += cut;
  } while (channel < channels);
  return 0;
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

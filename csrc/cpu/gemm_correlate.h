// The forward pass and the input gradient: pack filters, then for each block of grid positions pack its source values
// and multiply them with every block of filters.
#pragma once
#include <cstdint>

#include "../common/parallel.h"
#include "../common/shares.h"
#include "gemm_band.h"
#include "gemm_deep.h"
#include "gemm_grid.h"
#include "gemm_narrow.h"
#include "gemm_source.h"
#include "gemm_store.h"
#include "gemm_thin.h"
#include "gemm_weights.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

template <class Storage>
struct Plan {
  using C = compute_t<Storage>;
  int64_t block, blocks, filters, tasks, slab_size;
  // Between packed rows (nhwc) or lines of grid positions (nchw), and between what two tiles of such lines read.
  int64_t pitch, panel_step;
  bool in_place, panels;

  Plan(const Correlation& c, int64_t threads) {
    const int64_t depth = c.depth(), unit = c.nhwc ? kTileRows : kTileColumns<C>, pixels = c.pixels();
    in_place = c.nhwc && std::is_same_v<Storage, C> && c.h.in_order() && c.w.in_order() &&
               c.source.column * sizeof(C) % 2048 != 0;
    panels = !c.nhwc && c.h.in_order() && c.w.in_order();
    const int64_t fitting = larger(1, kSourceBytes / (int64_t(sizeof(C)) * larger(depth, 1) * unit));
    const int64_t limit = smaller(fitting * unit, round_up(1024, unit));
    filters = weight_blocks<C>(c);
    blocks = ceil_div(pixels, limit);
    // Every thread gets as many blocks as the next, of like size; or, where the filters are more than the pixels, it
    // reads a part of those and all of these.
    const bool shares_filters = pixels <= c.dest_channels && filters * c.groups >= 4 * threads;
    if (!shares_filters) blocks = round_up(blocks, smaller(threads, larger(1, ceil_div(pixels, 2 * unit))));
    block = round_up(ceil_div(pixels, blocks), unit);
    blocks = ceil_div(pixels, block);
    pitch = panels ? kTileColumns<C> : packed_pitch<C>(c.nhwc ? depth : block);
    panel_step = panels ? depth * kTileColumns<C> : kTileColumns<C>;
    tasks = blocks * c.groups * filters;
    slab_size = in_place ? 0 : round_up(panels ? block * depth : (c.nhwc ? block : depth) * pitch, 64) + 64;
  }
};

// Filters as they lie, when they lie as pack_filter_rows would lay them but for the pitch.
template <class Storage>
bool filters_in_place(const Correlation& c) {
  const int64_t depth = c.depth();
  const bool dense = taps_are_dense(c) && c.weight_source == c.taps() && c.weight_dest == depth;
  return !c.nhwc && !c.tap_major && std::is_same_v<Storage, compute_t<Storage>> && dense &&
         depth * int64_t(sizeof(Storage)) % 2048 != 0 && tap_offset(c, 0) == 0;
}

template <class Storage>
int64_t correlate_workspace(const Correlation& c, int64_t threads) {
  if (c.pixels() == 0 || c.taps() == 0) return 0;
  using C = compute_t<Storage>;
  const int64_t filters = round_up(packed_weight_size<C>(c), 64);
  if (suits_thin<Storage>(c)) return filters * sizeof(C);
  if (suits_narrow<C>(c)) return (filters + threads * NarrowPlan<Storage>(c, threads).slab_size) * sizeof(C);
  if (suits_bands(c)) return (filters + threads * BandPlan<Storage>(c, threads).slab_size) * sizeof(C);
  if (suits_grid(c)) return (filters + threads * GridPlan<Storage>(c, threads).slab_size) * sizeof(C);
  // Workspace is asked for before it is known how the filters lie.
  const int64_t plain = Plan<Storage>(c, threads).slab_size;
  const bool deep = suits_deep<C>(c) || suits_pieces<C>(c);
  return (filters + threads * (deep ? larger(plain, DeepPlan<Storage>(c, threads).slab_size) : plain)) * sizeof(C);
}

template <class Storage>
int32_t pack_weights(const Correlation& c, const Storage* w, compute_t<Storage>* packed) {
  return parallel_for(c.groups * weight_blocks<compute_t<Storage>>(c), 1, [&](int64_t begin, int64_t end) {
    pack_weight_blocks(c, w, begin, end, packed);
  });
}

template <class Storage>
struct Correlating {
  using C = compute_t<Storage>;
  const Correlation& c;
  const Plan<Storage>& plan;
  const Storage* source;
  Storage* dest;
  const Storage* bias;
  Filters<C> filters;

  // The block of filters that comes after one, fetched in even parts by the tiles on that one: on few pixels filters
  // take as long to come as to be used.
  struct Upcoming {
    const C* from = nullptr;
    int64_t left = 0, chunks, step;

    Upcoming(const Correlating& work, int64_t group, int64_t filter, int64_t size, int64_t tiles)
        : chunks(ceil_div(work.c.depth(), kLineElements<C>)),
          step(round_up(ceil_div(size, chunks * tiles), kLineElements<C>)) {
      if (filter + 1 == work.plan.filters) return;
      from = work.filters.at(work.c, group, filter + 1);
      left = size;
    }
    // The call may take so many tiles: fewer where the last of it is fetched before.
    void give(TileCall<C>& call, int64_t tiles) {
      call.fetch = from;
      call.fetch_step = left > 0 ? step : 0;
      call.tiles = left > 0 ? smaller(tiles, ceil_div(left, chunks * step)) : tiles;
      const int64_t given = call.tiles * chunks * call.fetch_step;
      from += given;
      left -= given;
    }
  };

  // Block of grid positions x block of filters, nhwc.
  void rows_task(const Block& block, int64_t group, int64_t filter, const C* rows, int64_t row_stride) const {
    constexpr int64_t width = kTileColumns<C>;
    alignas(64) C sums[kTileRows * width];
    const int64_t first = filter * width, columns = smaller(width, c.dest_channels - first);
    const int64_t channel = group * c.dest_channels + first;
    const Storage* added = bias != nullptr ? bias + channel : nullptr;
    const bool direct = std::is_same_v<Storage, C> && columns % kLanes<C> == 0, dense = c.dense_dest();
    const Finish<C> finish{reinterpret_cast<const C*>(added), false, c.activation};
    TileCall<C> call{c.depth(), rows, row_stride, filters.at(c, group, filter), width, sums, width, false};
    call.a_next = kTileRows * row_stride;
    call.fetch_a = true;
    Upcoming next(*this, group, filter, c.depth() * width, ceil_div(block.pixel_end - block.pixel, kTileRows));
    Cursor at(c, block.pixel);
    for (int64_t pixel = block.pixel; pixel < block.pixel_end;) {
      const int64_t left = block.pixel_end - pixel, count = smaller(kTileRows, left);
      const bool here = direct && (dense || at.w + count <= c.w.count);
      // All whole tiles of the row, or of the block where rows follow each other.
      next.give(call, here ? larger(1, (dense ? left : smaller(left, c.w.count - at.w)) / kTileRows) : 1);
      if (here) {
        call.out = reinterpret_cast<C*>(dest) + channel + (dense ? pixel * c.dest.column : dest_offset(c, at));
        call.out_stride = c.w.spacing * c.dest.column;
        call.out_ahead = call.out_next = kTileRows * call.out_stride;
        call.accumulate = c.accumulate;
        call.finish = finish.needed() ? &finish : nullptr;
      } else {
        call.out = sums;
        call.out_stride = width;
        call.out_ahead = 0;
        call.accumulate = false;
        call.finish = nullptr;
      }
      multiply_tile(count, columns, call);
      const int64_t done = smaller(call.tiles * kTileRows, left);
      at.move(c, done);
      if (!here) store_rows(c, dest + channel, added, pixel, count, columns, sums);
      pixel += done;
      call.a += call.tiles * call.a_next;
    }
  }

  // The same, nchw.
  void panels_task(const Block& block, int64_t group, int64_t filter, const C* panels) const {
    constexpr int64_t width = kTileColumns<C>;
    alignas(64) C sums[kTileRows * width];
    const int64_t first = filter * kTileRows, rows = smaller(kTileRows, c.dest_channels - first);
    const int64_t channel = group * c.dest_channels + first, plane = c.h.count * c.w.count;
    const Storage* added = bias != nullptr ? bias + channel : nullptr;
    const bool direct = std::is_same_v<Storage, C> && c.dense_dest();
    const Finish<C> finish{reinterpret_cast<const C*>(added), true, c.activation};
    TileCall<C> call{c.depth(), filters.at(c, group, filter), filters.pitch, panels, plan.pitch, sums, width, false};
    call.b_next = plan.panel_step;
    call.out_next = width;
    Upcoming next(*this, group, filter, kTileRows * filters.pitch, ceil_div(block.pixel_end - block.pixel, width));
    for (int64_t pixel = block.pixel; pixel < block.pixel_end;) {
      const int64_t at = pixel % plane, left = block.pixel_end - pixel, columns = smaller(width, left);
      const bool here = direct && columns % kLanes<C> == 0 && at + columns <= plane;
      next.give(call, here ? larger(1, smaller(left, plane - at) / width) : 1);
      if (here) {
        call.out = reinterpret_cast<C*>(dest) + pixel / plane * c.dest.image + channel * c.dest.channel + at;
        call.out_stride = c.dest.channel;
        call.out_ahead = width;
        call.accumulate = c.accumulate;
        call.finish = finish.needed() ? &finish : nullptr;
      } else {
        call.out = sums;
        call.out_stride = width;
        call.out_ahead = 0;
        call.accumulate = false;
        call.finish = nullptr;
      }
      multiply_tile(rows, columns, call);
      if (!here) store_lines(c, dest + channel * c.dest.channel, added, pixel, rows, columns, sums);
      pixel += smaller(call.tiles * width, left);
      call.b += call.tiles * call.b_next;
    }
  }

  void run(Share& share, C* packed) const {
    int64_t held = -1;
    for (int64_t task; share.next(&task);) {
      const int64_t filter = task % plan.filters, part = task / plan.filters;
      const int64_t group = part % c.groups, pixel = part / c.groups * plan.block;
      const Block block{pixel, smaller(pixel + plan.block, c.pixels()), 0, c.depth()};
      if (plan.in_place) {
        const C* rows = reinterpret_cast<const C*>(source) + pixel * c.source.column + group * c.source_channels;
        rows_task(block, group, filter, rows, c.source.column);
        continue;
      }
      if (part != held) {
        if (c.nhwc) {
          pack_rows(c, source, group, block, packed, plan.pitch);
        } else if (plan.panels) {
          pack_panels<kTileColumns<C>>(c, source, group, block, packed);
        } else {
          pack_lines(c, source, group, block, packed, plan.pitch);
        }
        held = part;
      }
      if (c.nhwc) {
        rows_task(block, group, filter, packed, plan.pitch);
      } else {
        panels_task(block, group, filter, packed);
      }
    }
  }
};

// `w` is packed already when `packed` says so.
template <class Storage>
int32_t correlate(const Correlation& c, const void* source, const void* w, bool packed, void* dest, const void* bias,
                  void* workspace, int64_t threads) {
  using C = compute_t<Storage>;
  if (c.pixels() == 0) return 0;
  if (c.taps() == 0) {
    return parallel_for(c.pixels(), 256, [&](int64_t begin, int64_t end) {
      store_zeros(c, static_cast<Storage*>(dest), begin, end);
    });
  }
  const Plan<Storage> plan(c, threads);
  const bool deep =
      !suits_thin<Storage>(c) && !suits_narrow<C>(c) && !suits_bands(c) && !suits_grid(c) && suits_deep<C>(c);
  const bool piecewise = deep && !packed && DeepPlan<Storage>(c, threads).piecewise;
  C* slabs = static_cast<C*>(workspace);
  Correlating<Storage> work{c,
                            plan,
                            static_cast<const Storage*>(source),
                            static_cast<Storage*>(dest),
                            static_cast<const Storage*>(bias),
                            {static_cast<const C*>(w), packed_pitch<C>(c.depth()), packed_block_size<C>(c)}};
  if (!packed && filters_in_place<Storage>(c)) {
    work.filters.pitch = c.weight_dest;
    work.filters.block = 0;
  } else if (!packed && !piecewise) {
    const int32_t error = pack_weights(c, static_cast<const Storage*>(w), slabs);
    if (error != 0) return error;
    work.filters.data = slabs;
    slabs += round_up(packed_weight_size<C>(c), 64);
  }
  if constexpr (std::is_same_v<Storage, C>) {
    if (suits_thin<Storage>(c)) return correlate_thin<Storage>(c, source, work.filters, dest, bias, threads);
  }
  if (suits_narrow<C>(c)) return correlate_narrow<Storage>(c, source, work.filters.data, dest, bias, slabs, threads);
  if (suits_bands(c)) return correlate_bands<Storage>(c, source, work.filters.data, dest, bias, slabs, threads);
  if (suits_grid(c)) {
    const int64_t group = work.filters.block == 0 ? c.weight_group : plan.filters * work.filters.block;
    return correlate_grid<Storage>(c, source, work.filters.data, group, work.filters.pitch, dest, bias, slabs, threads);
  }
  if (deep) {
    return correlate_deep<Storage>(c, source, work.filters, piecewise ? w : nullptr, dest, bias, slabs, threads);
  }
  return for_each_share(plan.tasks, threads,
                        [&](int64_t slab, Share& share) { work.run(share, slabs + slab * plan.slab_size); });
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

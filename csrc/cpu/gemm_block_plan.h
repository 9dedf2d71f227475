// How positions, filters and depth are cut into blocks, and who packs what.
#pragma once
#include <cstdint>
#include <type_traits>

#include "gemm_source.h"
#include "gemm_weights.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

// Grid positions whose depth is cut at most, and the least that is left of it.
constexpr int64_t kCutPositions = 256, kCutDepth = 128;
// Positions left over from whole tiles that are dearer as a tile than as so many columns of inner products (nchw).
constexpr int64_t kLooseColumns = 4;
constexpr int64_t kPieceBytes = 128 << 10;  // of a block of filters that is worth packing where it is used

template <class Storage>
struct BlockPlan {
  using C = compute_t<Storage>;
  int64_t block, blocks, filters, tasks, slab_size;
  // Between packed rows (nhwc) or lines of grid positions (nchw), and between what two tiles of such lines read.
  int64_t pitch, panel_step;
  bool in_place, panels;
  int64_t piece_size;  // of a block of filters that is packed where it is used; 0: all are packed beforehand
  int64_t tiled_size;  // of packed source values, behind which lie the columns left over
  int64_t loose;       // columns left over, of the last block

  BlockPlan(const Correlation& c, int64_t threads) {
    const int64_t depth = c.depth(), unit = c.nhwc ? kTileRows : kTileColumns<C>, pixels = c.pixels();
    in_place = c.nhwc && std::is_same_v<Storage, C> && c.h.in_order() && c.w.in_order() &&
               c.source.column * sizeof(C) % 2048 != 0;
    panels = !c.nhwc && c.h.in_order() && c.w.in_order();
    const int64_t limit = clamped(fitting_pixels<C>(c), unit, round_up(1024, unit));
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
    loose = !c.nhwc && pixels % unit <= kLooseColumns ? pixels % unit : 0;
    const bool pieces = blocks == 1 && packed_block_size<C>(c) * int64_t(sizeof(C)) <= kPieceBytes;
    piece_size = pieces ? round_up(packed_block_size<C>(c) + kLanes<C>, 64) : 0;
    tiled_size = in_place ? 0 : round_up((panels ? block * depth : (c.nhwc ? block : depth) * pitch) + kLanes<C>, 64);
    slab_size = piece_size + tiled_size + round_up(loose * depth, 64);
  }
};

// How many source channels are multiplied at a time: all of them, or, of few positions, as many as fit the cache. Sums
// wait in the destination meanwhile. The same on any number of threads, as sums are to be. In nhwc of one tap alone:
// pack_rows takes neighbouring taps for one run, which they are no longer when channels are left out.
template <class Storage>
int64_t cut_channels(const Correlation& c) {
  using C = compute_t<Storage>;
  const int64_t channels = c.source_channels, taps = c.taps(), pixels = c.pixels();
  const bool cuts = c.groups == 1 && c.dense_dest() && std::is_same_v<Storage, C> && (taps == 1 || !c.tap_major);
  if (!cuts || pixels == 0 || pixels > smaller(kCutPositions, c.dest_channels)) return channels;
  // Under several taps what is packed is many times what was read, and worth reading once for all filters; of short
  // depths it is small.
  if (taps > 1 && fitting_pixels<C>(c) >= kFewPixels) return channels;
  const int64_t unit = taps == 1 ? 2 * kLineElements<C> : 1;
  const int64_t most = kSourceBytes / int64_t(sizeof(C)) / round_up(pixels, c.nhwc ? kTileRows : kTileColumns<C>);
  if (c.depth() <= most || most < larger(kCutDepth, unit * taps)) return channels;
  return round_up(ceil_div(channels, ceil_div(channels, most / taps / unit * unit)), unit);
}

// The part that begins at a source channel.
template <class Storage>
Correlation part_from(const Correlation& c, int64_t channel) {
  const int64_t channels = c.source_channels, cut = cut_channels<Storage>(c);
  Correlation part = c;
  if (cut == channels) return part;
  part.source_channels = smaller(cut, channels - channel);
  part.accumulate = c.accumulate || channel > 0;
  if (channel + cut < channels) part.activation = Activation::none;
  return part;
}

// The first part is the largest.
template <class Storage>
int64_t blocks_slab(const Correlation& c, int64_t threads) {
  return BlockPlan<Storage>(part_from<Storage>(c, 0), threads).slab_size;
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

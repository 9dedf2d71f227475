// How a correlation is cut into blocks. As in gemm the input exists as a matrix [grid position][depth] only where a
// block of it is staged; the sums of a block stay in tiles over a run of depth, as in BRGEMM (Georganas et al., "Tensor
// Processing Primitives", 2021, arXiv 2104.05755).
//
// Which operand is rows and which is pairs follows the layout: nhwc multiplies rows of staged pixels, contiguous along
// the depth, with pairs of filters; nchw multiplies rows of filters with pairs of staged lines, contiguous along
// pixels. Sums then come out as they are stored.
//
// Registers. A product of tiles takes 16 cycles, a tile's load from the first-level cache 8, a store 16 (Intel, "64 and
// IA-32 Architectures Optimization Reference Manual", on AMX). One sum alone needs 2 loads a product; 2 x 2 sums share
// 4 loads among 4 products, 32 cycles of loads under 64 of products, and are with 2 + 2 operands all eight tiles.
//
// First level, 48 KB. 2 tiles of filters stay while the block's pixels pass, over kDepthTiles = 16 tiles of depth: 32
// KB, which leaves room for 2 staged tiles at a time and 4 KB of sums. The staged ones come from the second level, 2 KB
// in 64 cycles: 32 bytes a cycle, where it gives 48 steadily. Sums leave the tiles once a run of depth: 4 loads and 4
// stores, 96 cycles, in 16 * 64 = 1024.
//
// Second level, 2 MB. A staged block takes at most half of it; filters and sums pass through the rest. All filters are
// read once a block: a tile of them, 1 KB, serves kMostPixels / 16 products of 16 cycles, so that with 512 pixels the
// third level is asked for 2 bytes a cycle.
//
// The vector unit uses the same blocks: what is loaded for one product is the same.
#pragma once
#include <cstdint>

#include "dots_product.h"
#include "gemm_geometry.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace dots {

using gemm::Correlation;
using gemm::Cursor;

constexpr int64_t kDepthTiles = 16, kMostPixels = 512, kStagedBytes = 1 << 20;

// How the two operands lie, each padded with zeros to whole tiles of depth.
struct Operands {
  int64_t depth_tiles;
  int64_t row_stride;             // an odd number of cache lines: 16 rows do not meet in one cache set
  int64_t rows_tile, pairs_tile;  // bytes of 16 rows, and of 16 columns

  explicit Operands(const Correlation& c)
      : depth_tiles(ceil_div(c.depth(), kRowNumbers)),
        row_stride((depth_tiles | 1) * kRowBytes),
        rows_tile(kRows * row_stride),
        pairs_tile(depth_tiles * kTileBytes) {}
};

inline int64_t filter_tiles(const Correlation& c) { return ceil_div(c.dest_channels, kRows); }
inline int64_t filter_tile_bytes(const Correlation& c) {
  const Operands operands(c);
  return c.nhwc ? operands.pairs_tile : operands.rows_tile;
}
inline int64_t packed_filter_bytes(const Correlation& c) {
  return c.groups * filter_tiles(c) * filter_tile_bytes(c);
}

struct Plan : Operands {
  bool in_place;           // rows of pixels are read from the tensor, where there are kBlock of them
  int64_t pixels, blocks;  // of a block, and how many blocks
  int64_t panels, tasks;   // blocks of filters in a group; a block of pixels with one of filters is a task
  int64_t staged_tile, staged_bytes, slab_bytes;

  Plan(const Correlation& c, int64_t threads) : Operands(c) {
    const int64_t all = c.pixels();
    in_place = c.nhwc && c.h.in_order() && c.w.in_order() && c.source_channels % kRowNumbers == 0 &&
               c.source.column * int64_t(sizeof(bf16)) % 2048 != 0;
    const int64_t fitting = kStagedBytes / (row_stride * kBlock) * kBlock;
    const int64_t limit = clamped(fitting, kBlock, kMostPixels);
    // Every thread gets as many blocks as the next, of like size.
    blocks = round_up(ceil_div(all, limit), smaller(threads, larger(1, ceil_div(all, 2 * kBlock))));
    pixels = round_up(ceil_div(all, blocks), kBlock);
    blocks = ceil_div(all, pixels);
    panels = ceil_div(c.dest_channels, kBlock);
    tasks = blocks * c.groups * panels;
    staged_tile = c.nhwc ? rows_tile : pairs_tile;
    staged_bytes = (in_place ? kBlock : pixels) / kRows * staged_tile;
    const int64_t kept = depth_tiles > kDepthTiles ? pixels / kBlock : 1;
    slab_bytes = staged_bytes + kept * kBlock * kBlock * int64_t(sizeof(float));
  }

  // The first pixel of [begin, end) that is staged.
  int64_t first_staged(const Correlation& c, int64_t begin, int64_t end) const {
    return in_place ? smaller(end, c.pixels() / kBlock * kBlock) : begin;
  }
};

}  // namespace dots
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

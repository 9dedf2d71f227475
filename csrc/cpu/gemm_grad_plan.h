// The weight gradient is a product over all output pixels: sums += rows x columns, over one run of pixels after the
// other. `rows` is the factor whose values a tile broadcasts, `columns` the one it reads in vectors. Either can be
// grad_output where every pixel keeps its place; then the factor with fewer channels is the one that is dearer to copy.
//   nhwc: rows and columns are copied into panels [pixel][channels of a tile], or read as they lie
//   nchw: rows are lines of pixels, as they lie where a run is one run of memory; columns are transposed into panels
// One panel of columns stays in the first-level cache while all rows pass it from the second.
#pragma once
#include <cstdint>

#include "gemm_copy.h"
#include "gemm_geometry.h"
#include "gemm_tile.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

// The depth and the output channels are split into blocks only where they are many; the pixels into slabs with private
// sums, only where there are many of them for few filters.
template <class Storage>
struct GradPlan {
  using C = compute_t<Storage>;
  bool filter_rows;    // sums[oc][depth]
  bool panels;         // columns are copied into panels, else (nhwc) into rows of pixels
  bool in_place;       // nhwc: both factors are read where they lie
  bool rows_in_place;  // nchw: runs end where planes end, and rows are read where they lie
  bool ahead;          // the next run, which lies behind this one, is fetched while this one is multiplied
  bool sums_in_place;  // the gradient itself holds the sums
  int64_t depth_block, depth_blocks, channel_block, channel_blocks, blocks;
  int64_t slabs, slab_pixels;
  int64_t run;           // pixels at a time
  int64_t row_pitch;     // between lines of pixels (nchw) or panels of rows (nhwc)
  int64_t column_pitch;  // between pixels
  int64_t column_panel;  // between panels of columns
  int64_t sums_pitch;
  int64_t rows_size, columns_size, sums_size, shared_size, thread_size;

  GradPlan(const Correlation& c, int64_t threads) {
    constexpr int64_t lanes = kLanes<C>, width = kTileColumns<C>, line = 64 / sizeof(C);
    const bool same = std::is_same_v<Storage, C>, identity = c.h.identity() && c.w.identity();
    const int64_t plane = c.h.count * c.w.count;
    filter_rows = c.nhwc ? !identity || c.source_channels >= smaller(c.dest_channels, kFewChannels)
                         : identity && c.dest_channels >= smaller(c.source_channels, kManyFilters);
    split(c, threads);
    const int64_t rows = filter_rows ? channel_block : depth_block, columns = filter_rows ? depth_block : channel_block;
    const int64_t pixel_bytes = (c.source.column + c.dest.column) * int64_t(sizeof(C));
    in_place = c.nhwc && same && identity && pixel_bytes <= kFewBytes &&
               (filter_rows ? c.source_channels : c.dest_channels) % lanes == 0;
    panels = !in_place && (!c.nhwc || identity);
    rows_in_place = !c.nhwc && same && (identity || filter_rows) && plane >= kShortestRun &&
                    plane * int64_t(sizeof(C)) % 2048 != 0;
    const int64_t run_bytes = (rows + columns) * int64_t(sizeof(C));
    const bool fits_ahead = c.nhwc && identity && run_bytes * kShortestRun <= kAheadBytes;
    const int64_t longest =
        fits_ahead ? clamped(kAheadBytes / 2 / run_bytes / line * line, kShortestRun, kLongestRun) : kLongestRun;
    const int64_t whole = rows_in_place ? smaller(plane, slab_pixels) : slab_pixels;
    run = smaller(round_up(ceil_div(whole, larger(1, ceil_div(whole, longest))), line), round_up(whole, lanes));
    if (in_place) run = smaller(run, kInPlaceBytes / pixel_bytes);
    ahead = fits_ahead || (identity && rows_in_place && run >= plane);
    row_pitch = c.nhwc ? run * kTileRows + line : packed_pitch<C>(run);
    column_pitch = in_place ? (filter_rows ? c.source : c.dest).column : panels ? width : packed_pitch<C>(columns);
    column_panel = panels ? run * width + line : width;
    rows_size = in_place || rows_in_place ? 0 : (c.nhwc ? ceil_div(rows, kTileRows) : rows) * row_pitch + line;
    columns_size = in_place ? 0 : (panels ? ceil_div(columns, width) * column_panel : run * column_pitch) + line;
    rows_size = round_up(rows_size, line);
    columns_size = round_up(columns_size, line);
    sums_in_place = filter_rows && identity && same && slabs == 1 && c.weight_source == 1 && c.depth() % lanes == 0;
    sums_pitch = sums_in_place ? c.weight_dest : packed_pitch<C>(columns);
    sums_size = sums_in_place ? 0 : round_up(rows * sums_pitch + lanes, line);
    shared_size = slabs > 1 ? slabs * blocks * sums_size : 0;
    thread_size = rows_size + columns_size + (slabs > 1 ? 0 : sums_size);
  }

 private:
  static constexpr int64_t kBlock = 512;                             // of the depth, and of filters
  static constexpr int64_t kShortestRun = 128, kLongestRun = 400;    // pixels
  static constexpr int64_t kAheadBytes = 256 << 10;                  // of two runs, in the second-level cache
  static constexpr int64_t kFewBytes = 768, kInPlaceBytes = 24 << 10;  // of a pixel, of a run in the first-level cache
  // With so many filters, or channels, sums [depth][oc] cost more to write out than the dearer copies.
  static constexpr int64_t kManyFilters = 160, kFewChannels = 64;

  void split(const Correlation& c, int64_t threads) {
    const int64_t depth = c.depth(), pixels = c.pixels();
    const int64_t depth_unit = filter_rows ? kTileColumns<C> : kTileRows;
    const int64_t channel_unit = filter_rows ? kTileRows : kTileColumns<C>;
    const int64_t wanted = ceil_div(threads, c.groups);
    channel_blocks = ceil_div(c.dest_channels, kBlock);
    channel_block = round_up(ceil_div(c.dest_channels, channel_blocks), channel_unit);
    channel_blocks = ceil_div(c.dest_channels, channel_block);
    const int64_t filter_bytes = depth * c.dest_channels * int64_t(sizeof(C));
    slabs = pixels >= 1024 * wanted ? smaller(wanted, larger(1, (int64_t(16) << 20) / filter_bytes)) : 1;
    depth_blocks = round_up(ceil_div(depth, kBlock), ceil_div(wanted, slabs));
    depth_block = round_up(larger(ceil_div(depth, depth_blocks), 2 * depth_unit), depth_unit);
    depth_blocks = ceil_div(depth, depth_block);
    if (slabs == 1 && channel_blocks * depth_blocks < wanted) {
      slabs = smaller(ceil_div(wanted, channel_blocks * depth_blocks), ceil_div(pixels, 256));
    }
    blocks = c.groups * channel_blocks * depth_blocks;
    slab_pixels = ceil_div(pixels, slabs);
  }
};

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

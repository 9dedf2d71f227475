// What a Winograd convolution is made of: the geometry as one correlation for both passes, blocks of tiles, panels of
// filters, and where everything lies in the workspace. A tile is a square of m x m outputs, computed from (m + 2) x
// (m + 2) inputs through as many products, the points.
#pragma once
#include <cstdint>

#include "gemm_copy.h"
#include "gemm_geometry.h"
#include "gemm_tile.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace winograd {

using gemm::ImageStrides;
using gemm::kTileColumns;
using gemm::kTileRows;

// The pixels of an image that a dilated filter brings together: every dh-th row and every dw-th column of the source and
// of the destination, from some pixel on. Among them the convolution is one without dilation. `source` and `dest` say
// how many elements lie before the first.
struct View {
  int64_t source, dest;
  int64_t ih, iw, oh, ow, ph, pw;
};

// dest[oh][ow] = sum over taps of filter[kh][kw] * source[oh + kh * dh - ph][ow + kw * dw - pw]. With `flipped` (the
// input gradient) filter[kh][kw] is the weight's tap [2 - kh][2 - kw].
struct Shape {
  bool nhwc, flipped;
  Activation activation;
  int64_t dh, dw, view_rows, view_columns, views;  // as many views as rows and columns begin one
  int64_t ic, oc, ih, iw, oh, ow, ph, pw;
  ImageStrides image_source, image_dest;
  ImageStrides source, dest;  // of a view
  int64_t weight_dest, weight_source, weight_h, weight_w;

  explicit Shape(const gemm::Correlation& c)
      : nhwc(c.nhwc), flipped(c.h.offset_step < 0), activation(c.activation),
        dh(flipped ? -c.h.offset_step : c.h.offset_step), dw(flipped ? -c.w.offset_step : c.w.offset_step),
        view_rows(smaller(dh, c.h.dest)), view_columns(smaller(dw, c.w.dest)),
        views(c.images * view_rows * view_columns), ic(c.source_channels), oc(c.dest_channels), ih(c.h.source),
        iw(c.w.source), oh(c.h.dest), ow(c.w.dest), ph(flipped ? 2 * dh - c.h.offset : -c.h.offset),
        pw(flipped ? 2 * dw - c.w.offset : -c.w.offset), image_source(c.source), image_dest(c.dest), source(c.source),
        dest(c.dest), weight_dest(c.weight_dest), weight_source(c.weight_source), weight_h(c.weight_h),
        weight_w(c.weight_w) {
    // No view has a second row where the dilation is as large as the image.
    source.row *= smaller(dh, ih);
    source.column *= smaller(dw, iw);
    dest.row *= view_rows;
    dest.column *= view_columns;
  }

  // One axis of a view: the source coordinate of its first pixel, its pixels in the source and in the destination, and
  // its padding.
  struct Part {
    int64_t first, in, out, pad;

    Part(int64_t residue, int64_t dilation, int64_t all_in, int64_t all_out, int64_t padding)
        : out(ceil_div(all_out - residue, dilation)), pad(-floor_div(residue - padding, dilation)) {
      first = residue - padding + pad * dilation;
      in = ceil_div(larger(0, all_in - first), dilation);
    }
  };
  View view(int64_t index) const {
    const int64_t column = index % view_columns, row = index / view_columns % view_rows;
    const int64_t image = index / (view_rows * view_columns);
    const Part h(row, dh, ih, oh, ph), w(column, dw, iw, ow, pw);
    return {image * image_source.image + h.first * image_source.row + w.first * image_source.column,
            image * image_dest.image + row * image_dest.row + column * image_dest.column,
            h.in, w.in, h.out, w.out, h.pad, w.pad};
  }
};

// A rectangle of tiles of one view.
struct Patch {
  View view;
  int64_t row, row_end, column, column_end;  // in tiles
  int64_t columns() const { return column_end - column; }
  int64_t tiles() const { return (row_end - row) * columns(); }
};

// Elements of whole cache lines, an odd number of them: neighbours at this distance fall into different cache sets.
template <class Compute>
int64_t odd_lines(int64_t elements) {
  constexpr int64_t line = 64 / sizeof(Compute);
  return (ceil_div(elements, line) | 1) * line;
}
template <class Compute>
int64_t whole_lines(int64_t elements) {
  return round_up(elements, int64_t{64 / sizeof(Compute)});
}

// Bytes of transformed input of a block, which shares the second-level cache with panels of filters.
constexpr int64_t kBlockBytes = 256 << 10;
// The same of the transformed filters of a panel.
constexpr int64_t kPanelBytes = 256 << 10;

template <class Storage, int m>
struct Plan {
  using C = compute_t<Storage>;
  static constexpr int64_t kPoints = (m + 2) * (m + 2);
  // Input channels of one product.
  static constexpr int64_t kDepth = kPanelBytes / (kPoints * kTileColumns<C> * int64_t(sizeof(C))) / 16 * 16;

  Shape shape;
  int64_t tile_rows, tile_columns;  // of a view, the largest one
  // A block is `rows` rows of tiles, or one of `parts` parts of a row, `part` tiles wide.
  int64_t parts, part, rows, blocks, block_tiles;
  int64_t panels;
  // Elements: V[point][tile][pitch], U[point][ic][kTileColumns], S[point][tile][kTileColumns], one step from a point to
  // the next.
  int64_t pitch, v_step, u_step, s_step;
  int64_t v_size, u_size, s_size, chunk_step, chunk_size;
  int64_t kept_sums;  // blocks whose sums wait for more input channels, where filters are the outer loop
  // nchw: the pixels under a patch and the outputs of a patch, channels next to each other. Zeros stand in for padding.
  int64_t staged_size, drained_size, zeros_size;
  // Few tiles and many filters: every panel of filters is transformed where it is used and meets all tiles, so that
  // filters are read from memory once and their transforms never leave the cache. Else every block of tiles meets all
  // filters, and no more than a block of the transformed input ever exists.
  bool filters_outer;

  Plan(const gemm::Correlation& c, int64_t threads) : shape(c) {
    tile_rows = ceil_div(ceil_div(shape.oh, shape.dh), m);
    tile_columns = ceil_div(ceil_div(shape.ow, shape.dw), m);
    panels = ceil_div(shape.oc, kTileColumns<C>);
    pitch = round_up(shape.ic, kLanes<C>);
    const int64_t fitting = kBlockBytes / (kPoints * pitch * int64_t(sizeof(C)));
    const int64_t limit = clamped(fitting / kTileRows, 4, 8) * kTileRows;
    parts = ceil_div(tile_columns, limit);
    part = ceil_div(tile_columns, parts);
    const int64_t all_rows = shape.views * tile_rows;
    rows = parts > 1 ? 1 : smaller(all_rows, limit / tile_columns);
    rows = ceil_div(all_rows, ceil_div(all_rows, rows));
    blocks = ceil_div(all_rows, rows) * parts;
    block_tiles = rows * part;
    filters_outer = 2 * blocks * block_tiles < shape.oc || blocks < threads;
    v_step = odd_lines<C>(block_tiles * pitch);
    u_step = odd_lines<C>(shape.ic * kTileColumns<C>);
    s_step = odd_lines<C>(block_tiles * kTileColumns<C>);
    chunk_step = odd_lines<C>(smaller(kDepth, shape.ic) * kTileColumns<C>);
    v_size = kPoints * v_step;
    u_size = kPoints * u_step;
    s_size = kPoints * s_step;
    chunk_size = kPoints * chunk_step;
    kept_sums = shape.ic <= kDepth ? 1 : blocks;
    const int64_t source_rows = smaller(rows * m + 2, shape.ih), source_columns = smaller(part * m + 2, shape.iw);
    staged_size = shape.nhwc ? 0 : whole_lines<C>(source_rows * source_columns * pitch);
    drained_size = shape.nhwc ? 0 : whole_lines<C>(rows * m * part * m * kTileColumns<C>);
    zeros_size = whole_lines<C>(pitch);
  }

  int64_t slab_size() const {
    const int64_t own = filters_outer ? larger(v_size, chunk_size + kept_sums * s_size) : v_size + s_size;
    return own + staged_size + drained_size + zeros_size;
  }
  int64_t shared_size() const { return filters_outer ? blocks * v_size : panels * u_size; }
  int64_t workspace_bytes(int64_t threads) const { return (shared_size() + threads * slab_size()) * sizeof(C); }

  // body(patch, index of its first tile in the block).
  template <class Body>
  void for_each_patch(int64_t block, const Body& body) const {
    int64_t row = block / parts * rows, tile = 0;
    const int64_t row_end = smaller(row + rows, shape.views * tile_rows), column = block % parts * part;
    while (row < row_end) {
      const int64_t first = row % tile_rows;
      const int64_t last = smaller(tile_rows, first + row_end - row);
      const Patch patch{shape.view(row / tile_rows), first, last, column, smaller(column + part, tile_columns)};
      body(patch, tile);
      tile += patch.tiles();
      row += last - first;
    }
  }
  int64_t tiles_of(int64_t block) const {
    int64_t tiles = 0;
    for_each_patch(block, [&](const Patch& patch, int64_t) { tiles += patch.tiles(); });
    return tiles;
  }
};

}  // namespace winograd
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

// The weight gradient, from blocks of filters and slabs of pixels.
#pragma once
#include <cstdint>

#include "../common/parallel.h"
#include "gemm_grad_copy.h"
#include "gemm_grad_plan.h"
#include "gemm_grad_tile.h"
#include "gemm_source.h"
#include "gemm_weights.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

// What one block of filters covers.
struct FilterBlock {
  int64_t group, channel, channel_end, k, k_end;
};

template <class Storage>
struct GradWeight {
  using C = compute_t<Storage>;
  const Correlation& c;  // of the forward pass
  const GradPlan<Storage>& plan;
  const Storage* input;
  const Storage* grad_output;
  Storage* grad_weight;

  FilterBlock filter_block(int64_t index) const {
    const int64_t channel = index % plan.channel_blocks * plan.channel_block, rest = index / plan.channel_blocks;
    const int64_t k = rest % plan.depth_blocks * plan.depth_block;
    return {rest / plan.depth_blocks, channel, smaller(channel + plan.channel_block, c.dest_channels), k,
            smaller(k + plan.depth_block, c.depth())};
  }

  Storage* filters_at(const FilterBlock& filters) const {
    return grad_weight + filters.group * c.weight_group + filters.channel * c.weight_dest;
  }

  // Adds up one block of filters over one slab of pixels.
  void accumulate(const FilterBlock& filters, int64_t slab, C* scratch, C* sums) const {
    const int64_t begin = slab * plan.slab_pixels, end = smaller(begin + plan.slab_pixels, c.pixels());
    const int64_t plane = c.h.count * c.w.count;
    for (int64_t pixel = begin, n = 0; pixel < end; pixel += n) {
      n = smaller(plan.run, end - pixel);
      if (plan.rows_in_place) n = smaller(n, plane - pixel % plane);
      const Block block{pixel, pixel + n, filters.k, filters.k_end};
      if (c.nhwc) {
        add_pixels(filters, block, scratch, pixel > begin, sums);
      } else {
        add_lines(filters, block, scratch, pixel > begin, sums);
      }
    }
  }

  // A vector of sums over all slabs, in their order.
  vec<C> total(const C* sums) const {
    vec<C> value = load(sums);
    for (int64_t slab = 1; slab < plan.slabs; ++slab) value += load(sums + slab * plan.blocks * plan.sums_size);
    return value;
  }

  // Writes one block of filters. `sums` are those of the first slab.
  void finish(const FilterBlock& filters, const C* sums) const {
    Storage* out = filters_at(filters);
    const int64_t channels = filters.channel_end - filters.channel;
    if (plan.filter_rows) {
      for (int64_t j = 0; j < channels; ++j) finish_row(filters, sums + j * plan.sums_pitch, out + j * c.weight_dest);
    } else {
      for (int64_t j = 0; j < channels; j += kLanes<C>) {
        finish_columns(filters, smaller(kLanes<C>, channels - j), sums + j, out + j * c.weight_dest);
      }
    }
  }

 private:
  // nhwc
  void add_pixels(const FilterBlock& filters, const Block& block, C* scratch, bool accumulate, C* sums) const {
    constexpr int64_t width = kTileColumns<C>;
    const int64_t channels = filters.channel_end - filters.channel, depth = block.k_end - block.k;
    const int64_t n = block.pixel_end - block.pixel;
    const Storage* grads = grad_output + filters.group * c.dest_channels + filters.channel;
    grads += block.pixel * c.dest.column;
    // Where every pixel keeps its place.
    const Storage* source = input + block.pixel * c.source.column + filters.group * c.source_channels + block.k;
    const int64_t rows = plan.filter_rows ? channels : depth, columns = plan.filter_rows ? depth : channels;
    C* column_panels = scratch + plan.rows_size;
    OuterTile<C> tile{n, scratch, kTileRows, column_panels, plan.column_pitch, nullptr, plan.sums_pitch, accumulate};
    const C* row_panels = scratch;
    int64_t row_panel = plan.row_pitch;
    if (plan.in_place) {
      row_panels = reinterpret_cast<const C*>(plan.filter_rows ? grads : source);
      row_panel = kTileRows;
      tile.a_step = plan.filter_rows ? c.dest.column : c.source.column;
      tile.b = reinterpret_cast<const C*>(plan.filter_rows ? source : grads);
    } else if (!plan.panels) {
      copy_panels<kTileRows>(grads, c.dest.column, channels, n, scratch, row_panel);
      pack_rows(c, input, filters.group, block, column_panels, plan.column_pitch);
    } else if (plan.filter_rows) {
      copy_panels<kTileRows>(grads, c.dest.column, channels, n, scratch, row_panel);
      copy_panels<width>(source, c.source.column, depth, n, column_panels, plan.column_panel);
    } else {
      copy_panels<kTileRows>(source, c.source.column, depth, n, scratch, row_panel);
      copy_panels<width>(grads, c.dest.column, channels, n, column_panels, plan.column_panel);
    }
    const int64_t next = plan.ahead ? smaller(plan.run, c.pixels() - block.pixel_end) : 0;
    const Ahead<Storage> next_source{source + n * c.source.column, c.source.column, next, depth};
    const Ahead<Storage> next_grads{grads + n * c.dest.column, c.dest.column, next, channels};
    const int64_t tiles = ceil_div(columns, width) * ceil_div(rows, kTileRows);
    int64_t done = 0;
    for (int64_t j = 0; j < columns; j += width, tile.b += plan.column_panel) {
      tile.a = row_panels;
      for (int64_t i = 0; i < rows; i += kTileRows, tile.a += row_panel) {
        next_source.fetch(done, tiles);
        next_grads.fetch(done++, tiles);
        tile.sums = sums + i * plan.sums_pitch + j;
        multiply_pixels(smaller(kTileRows, rows - i), smaller(width, columns - j), tile);
      }
    }
  }

  // nchw
  void add_lines(const FilterBlock& filters, const Block& block, C* scratch, bool accumulate, C* sums) const {
    constexpr int64_t width = kTileColumns<C>;
    const int64_t channels = filters.channel_end - filters.channel, depth = block.k_end - block.k;
    const int64_t plane = c.h.count * c.w.count, first = filters.group * c.dest_channels + filters.channel;
    const Planes<Storage> grads{grad_output + first * c.dest.channel, c.dest.image, c.dest.channel, plane};
    // The source where every pixel keeps its place.
    const Planes<Storage> source{input + (filters.group * c.source_channels + block.k) * c.source.channel,
                                 c.source.image, c.source.channel, plane};
    const Planes<Storage>& across = plan.filter_rows ? source : grads;
    const Planes<Storage>& along = plan.filter_rows ? grads : source;
    const int64_t rows = plan.filter_rows ? channels : depth, columns = plan.filter_rows ? depth : channels;
    C* panels = scratch + plan.rows_size;
    transpose_lines<width>(across, columns, block.pixel, block.pixel_end, panels, plan.column_panel);
    int64_t n = block.pixel_end - block.pixel;
    TileCall<C> call{n, nullptr, plan.row_pitch, panels, plan.column_pitch, nullptr, plan.sums_pitch, accumulate};
    const C* lines = scratch;
    if (plan.rows_in_place) {
      lines = reinterpret_cast<const C*>(along.piece(block.pixel, block.pixel_end, &n));
      call.a_stride = along.channel;
    } else if (plan.filter_rows) {
      copy_lines(along, rows, block.pixel, block.pixel_end, scratch, plan.row_pitch);
    } else {
      pack_lines(c, input, filters.group, block, scratch, plan.row_pitch);
    }
    Ahead<Storage> next_row{nullptr, along.channel, 0, 0}, next_column{nullptr, across.channel, 0, 0};
    if (plan.ahead && block.pixel_end < c.pixels()) {
      next_row.from = along.piece(block.pixel_end, c.pixels(), &next_row.length);
      next_row.count = rows;
      next_column.from = across.piece(block.pixel_end, c.pixels(), &next_column.length);
      next_column.count = columns;
    }
    const int64_t tiles = ceil_div(columns, width) * ceil_div(rows, kTileRows);
    int64_t done = 0;
    for (int64_t j = 0; j < columns; j += width, call.b += plan.column_panel) {
      call.a = lines;
      for (int64_t i = 0; i < rows; i += kTileRows, call.a += kTileRows * call.a_stride) {
        next_row.fetch(done, tiles);
        next_column.fetch(done++, tiles);
        call.out = sums + i * plan.sums_pitch + j;
        multiply_tile(smaller(kTileRows, rows - i), smaller(width, columns - j), call);
      }
    }
  }

  // One filter, depth index (tap, source channel).
  void finish_row(const FilterBlock& filters, const C* sums, Storage* out) const {
    constexpr int64_t lanes = kLanes<C>;
    for (int64_t k = filters.k; k < filters.k_end;) {
      const int64_t tap = k / c.source_channels, channel = k % c.source_channels;
      const int64_t run = smaller(c.source_channels - channel, filters.k_end - k);
      Storage* to = out + tap_offset(c, tap) + channel * c.weight_source;
      for (int64_t i = 0; i < run; i += lanes) {
        const int64_t n = smaller(lanes, run - i);
        const vec<C> value = total(sums + i);
        if (c.weight_source == 1) {
          store_n(to + i, value, n);
          continue;
        }
        for (int64_t l = 0; l < n; ++l) to[(i + l) * c.weight_source] = narrow<Storage>(value[l]);
      }
      sums += run;
      k += run;
    }
  }

  // A vector of filters, depth index (source channel, tap).
  void finish_columns(const FilterBlock& filters, int64_t channels, const C* sums, Storage* out) const {
    constexpr int64_t lanes = kLanes<C>;
    const int64_t taps = c.taps();
    const bool dense = c.weight_source == taps && taps_are_dense(c);
    for (int64_t k = filters.k; k < filters.k_end; k += lanes) {
      vec<C> square[lanes];
      const int64_t n = smaller(lanes, filters.k_end - k);
      for (int64_t i = 0; i < lanes; ++i) {
        square[i] = i < n ? total(sums) : zero<C>();
        if (i < n) sums += plan.sums_pitch;
      }
      transpose_square<C>(square);
      for (int64_t j = 0; j < channels; ++j) {
        if (dense) {
          store_n(out + j * c.weight_dest + k, square[j], n);
          continue;
        }
        for (int64_t i = 0; i < n; ++i) {
          const int64_t at = (k + i) / taps * c.weight_source + tap_offset(c, (k + i) % taps);
          out[j * c.weight_dest + at] = narrow<Storage>(square[j][i]);
        }
      }
    }
  }
};

template <class Storage>
int64_t grad_weight_workspace(const Correlation& c, int64_t threads) {
  const GradPlan<Storage> plan(c, threads);
  return (plan.shared_size + threads * plan.thread_size) * sizeof(compute_t<Storage>);
}

template <class Storage>
int32_t grad_weight(const Correlation& c, const void* input, const void* grad_output, void* grad, void* workspace,
                    int64_t threads) {
  using C = compute_t<Storage>;
  const GradPlan<Storage> plan(c, threads);
  const GradWeight<Storage> work{c, plan, static_cast<const Storage*>(input), static_cast<const Storage*>(grad_output),
                                 static_cast<Storage*>(grad)};
  C* shared = static_cast<C*>(workspace);
  const int64_t tasks = plan.blocks * plan.slabs;
  const int32_t error = parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      C* scratch = shared + plan.shared_size + thread * plan.thread_size;
      for (int64_t task = tasks * thread / threads; task < tasks * (thread + 1) / threads; ++task) {
        const int64_t index = task % plan.blocks;
        const FilterBlock filters = work.filter_block(index);
        C* sums = plan.slabs > 1 ? shared + task * plan.sums_size : scratch + plan.thread_size - plan.sums_size;
        if (plan.sums_in_place) sums = reinterpret_cast<C*>(work.filters_at(filters)) + filters.k;
        work.accumulate(filters, task / plan.blocks, scratch, sums);
        if (plan.slabs == 1 && !plan.sums_in_place) work.finish(filters, sums);
      }
    }
  });
  if (error != 0 || plan.slabs == 1) return error;
  return parallel_for(plan.blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) work.finish(work.filter_block(i), shared + i * plan.sums_size);
  });
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

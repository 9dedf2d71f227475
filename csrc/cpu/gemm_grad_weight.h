// The weight gradient: a product over all output pixels, added up block by block in memory.
//   nhwc: sums[oc][depth] = grad_output transposed to [oc][pixel], times source rows  [pixel][depth]
//   nchw: sums[depth][oc] = source lines [depth][pixel],           times grad_output transposed to [pixel][oc]
#pragma once
#include <cstdint>

#include "../common/parallel.h"
#include "gemm_source.h"
#include "gemm_tile.h"
#include "gemm_weights.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

template <class Storage>
struct GradPlan {
  using C = compute_t<Storage>;
  int64_t columns, column_blocks;      // the depth, split
  int64_t slabs, slab_pixels;          // the pixels, split between private sums
  int64_t block;                       // pixels packed at a time
  int64_t source_pitch, grad_pitch, grad_rows, sums_pitch;
  int64_t sums_size, source_size, scratch_size;
  bool in_place;

  GradPlan(const Correlation& c, int64_t threads) {
    const int64_t depth = c.depth(), pixels = c.pixels(), unit = c.nhwc ? kTileColumns<C> : kTileRows;
    const int64_t vector_unit = kTileColumns<C>;
    sums_pitch = round_up(c.nhwc ? depth : c.dest_channels, vector_unit);
    sums_size = c.groups * (c.nhwc ? c.dest_channels : depth) * sums_pitch;
    const int64_t wanted = ceil_div(threads, c.groups), sums_bytes = sums_size * int64_t(sizeof(C));
    // Private sums cost their own reduction, a split depth packs grad_output once for each part: the first for many
    // pixels and small filters, the second otherwise.
    slabs = 1;
    if (pixels >= 1024 * wanted) slabs = smaller(wanted, larger(1, (int64_t(64) << 20) / sums_bytes));
    column_blocks = round_up(ceil_div(depth, 512), ceil_div(wanted, slabs));
    columns = round_up(larger(ceil_div(depth, column_blocks), 2 * unit), unit);
    column_blocks = ceil_div(depth, columns);
    if (slabs == 1 && column_blocks < wanted) {
      slabs = smaller(ceil_div(wanted, column_blocks), ceil_div(pixels, 256));
    }
    slab_pixels = ceil_div(pixels, slabs);
    const int64_t fitting = (int64_t(384) << 10) / ((columns + c.dest_channels) * int64_t(sizeof(C)));
    block = smaller(round_up(slab_pixels, kLanes<C>), clamp(fitting / vector_unit * vector_unit, 64, 512));
    in_place = c.nhwc && std::is_same_v<Storage, C> && c.h.identity() && c.w.identity() &&
               c.source_channels % kLanes<C> == 0 && c.source.column * sizeof(C) % 2048 != 0;
    grad_pitch = c.nhwc ? packed_pitch<C>(block) : packed_pitch<C>(c.dest_channels);
    grad_rows = c.nhwc ? c.dest_channels : block;
    source_pitch = packed_pitch<C>(c.nhwc ? columns : block);
    source_size = in_place ? 0 : round_up((c.nhwc ? block : columns) * source_pitch + vector_unit, 64);
    scratch_size = source_size + round_up(grad_rows * grad_pitch + vector_unit, 64);
  }
};

template <class Storage>
struct GradWeight {
  using C = compute_t<Storage>;
  const Correlation& c;  // of the forward pass
  const GradPlan<Storage>& plan;
  const Storage* input;
  const Storage* grad_output;
  Storage* grad_weight;
  C* sums;

  void pack_grad_output(int64_t group, const Block& block, C* to) const {
    const int64_t pixels = block.pixel_end - block.pixel, channels = c.dest_channels;
    const Storage* from = grad_output + group * channels * c.dest.channel;
    if (c.nhwc) {
      return transpose_spilling(to, plan.grad_pitch, from + block.pixel * c.dest.column, c.dest.column, pixels, channels);
    }
    const int64_t plane = c.h.count * c.w.count;
    for (int64_t pixel = block.pixel; pixel < block.pixel_end;) {
      const int64_t n = smaller(block.pixel_end - pixel, plane - pixel % plane);
      transpose_spilling(to, plan.grad_pitch, from + pixel / plane * c.dest.image + pixel % plane, c.dest.channel, channels,
                         n);
      to += n * plan.grad_pitch;
      pixel += n;
    }
  }

  // One part of the depth, one slab of the pixels.
  void run(int64_t group, int64_t column_block, int64_t slab, C* scratch) const {
    constexpr int64_t width = kTileColumns<C>;
    const int64_t k = column_block * plan.columns, k_end = smaller(k + plan.columns, c.depth());
    const int64_t pixel_end = smaller((slab + 1) * plan.slab_pixels, c.pixels());
    C* grads = scratch + plan.source_size;
    C* out = sums + slab * plan.sums_size + group * (plan.sums_size / c.groups);
    out += c.nhwc ? k : k * plan.sums_pitch;
    const int64_t rows = c.nhwc ? c.dest_channels : k_end - k, columns = c.nhwc ? k_end - k : c.dest_channels;
    for (int64_t pixel = slab * plan.slab_pixels; pixel < pixel_end; pixel += plan.block) {
      const Block block{pixel, smaller(pixel + plan.block, pixel_end), k, k_end};
      const C* source = scratch;
      int64_t source_pitch = plan.source_pitch;
      if (plan.in_place) {
        source = reinterpret_cast<const C*>(input) + pixel * c.source.column + group * c.source_channels + k;
        source_pitch = c.source.column;
      } else if (c.nhwc) {
        pack_rows(c, input, group, block, scratch, source_pitch);
      } else {
        pack_lines(c, input, group, block, scratch, source_pitch);
      }
      pack_grad_output(group, block, grads);
      TileCall<C> call{block.pixel_end - block.pixel,
                       nullptr,
                       c.nhwc ? plan.grad_pitch : source_pitch,
                       nullptr,
                       c.nhwc ? source_pitch : plan.grad_pitch,
                       nullptr,
                       plan.sums_pitch,
                       pixel > slab * plan.slab_pixels};
      for (int64_t j = 0; j < columns; j += width) {
        call.b = (c.nhwc ? source : grads) + j;
        for (int64_t i = 0; i < rows; i += kTileRows) {
          call.a = (c.nhwc ? grads : source) + i * call.a_stride;
          call.out = out + i * plan.sums_pitch + j;
          multiply_tile(smaller(kTileRows, rows - i), smaller(width, columns - j), call);
        }
      }
    }
  }

  // A vector of sums over all slabs, in their order.
  vec<C> total(int64_t at) const {
    vec<C> value = load(sums + at);
    for (int64_t slab = 1; slab < plan.slabs; ++slab) value += load(sums + slab * plan.sums_size + at);
    return value;
  }

  // Writes the filters of one vector of output channels.
  void finish(int64_t group, int64_t channel) const {
    constexpr int64_t lanes = kLanes<C>;
    const int64_t depth = c.depth(), taps = c.taps(), channels = smaller(lanes, c.dest_channels - channel);
    const int64_t start = group * (plan.sums_size / c.groups);
    Storage* out = grad_weight + group * c.weight_group + channel * c.weight_dest;
    if (!c.nhwc) {
      const bool dense = c.weight_source == taps && taps_are_dense(c);
      for (int64_t k = 0; k < depth; k += lanes) {
        vec<C> square[lanes];
        const int64_t n = smaller(lanes, depth - k);
        for (int64_t i = 0; i < lanes; ++i) {
          square[i] = i < n ? total(start + (k + i) * plan.sums_pitch + channel) : zero<C>();
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
      return;
    }
    for (int64_t j = 0; j < channels; ++j, out += c.weight_dest) {
      const int64_t row = start + (channel + j) * plan.sums_pitch;
      for (int64_t tap = 0; tap < taps; ++tap) {
        Storage* to = out + tap_offset(c, tap);
        for (int64_t k = 0; k < c.source_channels; k += lanes) {
          const int64_t n = smaller(lanes, c.source_channels - k);
          const vec<C> value = total(row + tap * c.source_channels + k);
          if (c.weight_source == 1) {
            store_n(to + k, value, n);
            continue;
          }
          for (int64_t i = 0; i < n; ++i) to[(k + i) * c.weight_source] = narrow<Storage>(value[i]);
        }
      }
    }
  }
};

template <class Storage>
int64_t grad_weight_workspace(const Correlation& c, int64_t threads) {
  const GradPlan<Storage> plan(c, threads);
  const int64_t sums = round_up(plan.slabs * plan.sums_size + kTileColumns<compute_t<Storage>>, 64);
  return (sums + threads * plan.scratch_size) * sizeof(compute_t<Storage>);
}

template <class Storage>
int32_t grad_weight(const Correlation& c, const void* input, const void* grad_output, void* grad, void* workspace,
                    int64_t threads) {
  using C = compute_t<Storage>;
  const GradPlan<Storage> plan(c, threads);
  C* sums = static_cast<C*>(workspace);
  C* scratch = sums + round_up(plan.slabs * plan.sums_size + kTileColumns<C>, 64);
  const GradWeight<Storage> work{c,
                                 plan,
                                 static_cast<const Storage*>(input),
                                 static_cast<const Storage*>(grad_output),
                                 static_cast<Storage*>(grad),
                                 sums};
  const int64_t tasks = c.groups * plan.column_blocks * plan.slabs;
  const int32_t error = parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      for (int64_t task = tasks * thread / threads; task < tasks * (thread + 1) / threads; ++task) {
        const int64_t part = task / plan.slabs;
        work.run(part / plan.column_blocks, part % plan.column_blocks, task % plan.slabs,
                 scratch + thread * plan.scratch_size);
      }
    }
  });
  if (error != 0) return error;
  const int64_t vectors = ceil_div(c.dest_channels, kLanes<C>);
  return parallel_for(c.groups * vectors, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) work.finish(i / vectors, i % vectors * kLanes<C>);
  });
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

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

// The depth and the output channels are split into blocks whose sums stay in the second-level cache; the pixels into
// slabs with private sums, only where there are many of them for few filters.
template <class Storage>
struct GradPlan {
  using C = compute_t<Storage>;
  int64_t depth_block, depth_blocks, channel_block, channel_blocks, blocks;
  int64_t slabs, slab_pixels;
  int64_t pixel_block;  // packed at a time
  int64_t source_pitch, grad_pitch, sums_pitch;
  int64_t source_size, grad_size, sums_size, shared_size, thread_size;
  bool in_place;

  GradPlan(const Correlation& c, int64_t threads) {
    const int64_t depth = c.depth(), pixels = c.pixels();
    const int64_t depth_unit = c.nhwc ? kTileColumns<C> : kTileRows;
    const int64_t channel_unit = c.nhwc ? kTileRows : kTileColumns<C>;
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
    const int64_t fitting = (int64_t(256) << 10) / ((depth_block + channel_block) * int64_t(sizeof(C)));
    pixel_block = smaller(round_up(slab_pixels, kLanes<C>), clamped(fitting / 32 * 32, 64, 512));
    in_place = c.nhwc && std::is_same_v<Storage, C> && c.h.identity() && c.w.identity() &&
               c.source_channels % kLanes<C> == 0 && c.source.column * sizeof(C) % 2048 != 0;
    grad_pitch = packed_pitch<C>(c.nhwc ? pixel_block : channel_block);
    source_pitch = packed_pitch<C>(c.nhwc ? depth_block : pixel_block);
    sums_pitch = packed_pitch<C>(c.nhwc ? depth_block : channel_block);
    grad_size = (c.nhwc ? channel_block : pixel_block) * grad_pitch + kLanes<C>;
    source_size = in_place ? 0 : round_up((c.nhwc ? pixel_block : depth_block) * source_pitch + kLanes<C>, 64);
    sums_size = round_up((c.nhwc ? channel_block : depth_block) * sums_pitch + kLanes<C>, 64);
    shared_size = slabs > 1 ? slabs * blocks * sums_size : 0;
    thread_size = source_size + round_up(grad_size, 64) + (slabs > 1 ? 0 : sums_size);
  }

 private:
  static constexpr int64_t kBlock = 256;
};

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

  void pack_grad_output(const FilterBlock& filters, int64_t pixel, int64_t pixel_end, C* to) const {
    const int64_t channels = filters.channel_end - filters.channel, plane = c.h.count * c.w.count;
    const Storage* from = grad_output + (filters.group * c.dest_channels + filters.channel) * c.dest.channel;
    if (c.nhwc) {
      from += pixel * c.dest.column;
      return transpose_spilling(to, plan.grad_pitch, from, c.dest.column, pixel_end - pixel, channels);
    }
    while (pixel < pixel_end) {
      const int64_t n = smaller(pixel_end - pixel, plane - pixel % plane);
      const Storage* piece = from + pixel / plane * c.dest.image + pixel % plane;
      transpose_spilling(to, plan.grad_pitch, piece, c.dest.channel, channels, n);
      to += n * plan.grad_pitch;
      pixel += n;
    }
  }

  // Adds up one block of filters over one slab of pixels.
  void accumulate(const FilterBlock& filters, int64_t slab, C* scratch, C* sums) const {
    constexpr int64_t width = kTileColumns<C>;
    const int64_t slab_begin = slab * plan.slab_pixels, slab_end = smaller(slab_begin + plan.slab_pixels, c.pixels());
    const int64_t channels = filters.channel_end - filters.channel, depth = filters.k_end - filters.k;
    const int64_t rows = c.nhwc ? channels : depth, columns = c.nhwc ? depth : channels;
    C* grads = scratch + plan.source_size;
    for (int64_t pixel = slab_begin; pixel < slab_end; pixel += plan.pixel_block) {
      const Block block{pixel, smaller(pixel + plan.pixel_block, slab_end), filters.k, filters.k_end};
      const C* source = scratch;
      int64_t source_pitch = plan.source_pitch;
      if (plan.in_place) {
        source_pitch = c.source.column;
        source = reinterpret_cast<const C*>(input) + pixel * source_pitch;
        source += filters.group * c.source_channels + filters.k;
      } else if (c.nhwc) {
        pack_rows(c, input, filters.group, block, scratch, source_pitch);
      } else {
        pack_lines(c, input, filters.group, block, scratch, source_pitch);
      }
      pack_grad_output(filters, pixel, block.pixel_end, grads);
      const C* a = c.nhwc ? grads : source;
      const C* b = c.nhwc ? source : grads;
      TileCall<C> call{block.pixel_end - pixel, a,   c.nhwc ? plan.grad_pitch : source_pitch, b,
                       c.nhwc ? source_pitch : plan.grad_pitch, sums, plan.sums_pitch, pixel > slab_begin};
      for (int64_t j = 0; j < columns; j += width) {
        call.b = b + j;
        for (int64_t i = 0; i < rows; i += kTileRows) {
          call.a = a + i * call.a_stride;
          call.out = sums + i * plan.sums_pitch + j;
          multiply_tile(smaller(kTileRows, rows - i), smaller(width, columns - j), call);
        }
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
    Storage* out = grad_weight + filters.group * c.weight_group + filters.channel * c.weight_dest;
    const int64_t channels = filters.channel_end - filters.channel;
    if (c.nhwc) {
      for (int64_t j = 0; j < channels; ++j) finish_row(filters, sums + j * plan.sums_pitch, out + j * c.weight_dest);
    } else {
      for (int64_t j = 0; j < channels; j += kLanes<C>) {
        finish_columns(filters, smaller(kLanes<C>, channels - j), sums + j, out + j * c.weight_dest);
      }
    }
  }

 private:
  // nhwc: one filter, depth index (tap, source channel).
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

  // nchw: a vector of filters, depth index (source channel, tap).
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
        work.accumulate(filters, task / plan.blocks, scratch, sums);
        if (plan.slabs == 1) work.finish(filters, sums);
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

// How the input gradient is spread: phases, bands, and the filters of every phase.
#pragma once
#include <cstdint>

#include "gemm_copy.h"
#include "gemm_geometry.h"
#include "gemm_spread_tile.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

constexpr int64_t kSpreadBytes = 192 << 10;  // of staged planes, in the second-level cache
constexpr int64_t kSpreadPhases = 4;         // of columns, at most
constexpr int64_t kSpreadFilters = 1 << 20;  // bytes, beyond the second-level cache, which are read anew for every band
constexpr int64_t kSpreadPositions = 64;     // of a band that is worth reading such filters

template <class Storage>
struct SpreadPlan {
  using C = compute_t<Storage>;
  const Conv2d& p;
  int64_t source_channels, dest_channels, row_phases, phases;
  Axis w[kSpreadPhases];
  int64_t column_taps;  // of all phases
  int64_t low_h, halo_h, low_w, halo_w;
  int64_t rows, pitch, band, bands, plane, blocks, taps;
  int64_t block_size, filters_size, table_size, slab_size, tasks;

  Axis row_axis(int64_t phase) const { return gradient_axis(p.kh, p.sh, p.ph, p.dh, p.ih, p.oh, phase); }

  SpreadPlan(const Conv2d& problem, int64_t threads) : p(problem) {
    source_channels = p.oc / p.g;
    dest_channels = p.ic / p.g;
    row_phases = smaller(p.sh, p.ih);
    phases = smaller(p.sw, p.iw);
    Span columns, lines;
    column_taps = 0;
    for (int64_t i = 0; i < phases && i < kSpreadPhases; ++i) {
      w[i] = gradient_axis(p.kw, p.sw, p.pw, p.dw, p.iw, p.ow, i);
      columns.cover(w[i]);
      column_taps += w[i].taps;
    }
    taps = 0;
    for (int64_t i = 0; i < row_phases; ++i) {
      const Axis h = row_axis(i);
      lines.cover(h);
      taps += h.taps;
    }
    taps *= column_taps;
    low_h = lines.low;
    halo_h = lines.high - lines.low;
    low_w = columns.low;
    halo_w = columns.high - columns.low;
    rows = ceil_div(p.ih, p.sh);
    pitch = ceil_div(p.iw, p.sw) + halo_w;
    const int64_t row_bytes = larger(1, source_channels * pitch * int64_t(sizeof(C)));
    band = clamped(kSpreadBytes / row_bytes - halo_h, larger(1, halo_h), rows);
    band = smaller(band, ceil_div(rows, smaller(rows, ceil_div(threads, p.n * p.g))));
    bands = ceil_div(rows, band);
    band = ceil_div(rows, bands);
    bands = ceil_div(rows, band);
    plane = packed_pitch<C>((band + halo_h) * pitch);
    blocks = ceil_div(dest_channels, kTileRows);
    block_size = kTileRows * source_channels * taps;
    filters_size = round_up(p.g * blocks * block_size, 64);
    table_size = round_up(taps * int64_t(sizeof(int64_t)) / int64_t(sizeof(C)) + 16, 64);
    slab_size = table_size + round_up(source_channels * plane + 2 * kSpreadWidth<C>, 64);
    tasks = p.n * bands * p.g;
  }

 private:
  // What the taps of several phases reach, in source coordinates relative to a grid position.
  struct Span {
    int64_t low = 0, high = 0;
    bool empty = true;
    void cover(const Axis& axis) {
      if (axis.taps == 0) return;
      const int64_t last = axis.offset + (axis.taps - 1) * axis.offset_step;
      low = empty ? smaller(axis.offset, last) : smaller(low, smaller(axis.offset, last));
      high = empty ? larger(axis.offset, last) : larger(high, larger(axis.offset, last));
      empty = false;
    }
  };
};

// Where the tiles of a band are full of grid positions that count, and many pixels share what packing filters costs.
template <class Storage>
bool suits_spread(const Conv2d& p) {
  if (is_nhwc(p) || p.sw < 2 || p.iw < 2 || smaller(p.sw, p.iw) > kSpreadPhases || p.oc == 0) return false;
  if (p.ic / p.g > 32 && p.n * p.oh * p.ow < 256) return false;
  const SpreadPlan<Storage> plan(p, 1);
  const int64_t positions = plan.band * plan.pitch - plan.halo_w, width = kTileColumns<compute_t<Storage>>;
  const int64_t filter_bytes = plan.filters_size * int64_t(sizeof(compute_t<Storage>));
  if (positions < kSpreadPositions && filter_bytes > kSpreadFilters) return false;
  return plan.halo_h <= plan.band && 10 * plan.band * (plan.pitch - plan.halo_w) >= 8 * round_up(positions, width);
}

// Blocks [begin, end) of all groups, each [row phase][column phase][source channel][tap][kTileRows].
template <class Storage>
void pack_spread_filters(const SpreadPlan<Storage>& plan, const Storage* filters, int64_t begin, int64_t end,
                         compute_t<Storage>* packed) {
  const Conv2d& p = plan.p;
  for (int64_t index = begin; index < end; ++index) {
    const int64_t block = index % plan.blocks, group = index / plan.blocks;
    int64_t row = 0, rows = 0;
    for (int64_t i = 0; i <= block; ++i) {
      row += rows;
      rows = ceil_div(plan.dest_channels - row, plan.blocks - i);
    }
    const Storage* from = filters + group * plan.source_channels * p.w_stride[0] + row * p.w_stride[1];
    compute_t<Storage>* to = packed + index * plan.block_size;
    for (int64_t i = 0; i < plan.row_phases; ++i) {
      const Axis h = plan.row_axis(i);
      for (int64_t j = 0; j < plan.phases; ++j) {
        const Axis& w = plan.w[j];
        if (h.taps * w.taps == 0) continue;
        for (int64_t channel = 0; channel < plan.source_channels; ++channel) {
          for (int64_t y = 0; y < h.taps; ++y) {
            for (int64_t x = 0; x < w.taps; ++x, to += kTileRows) {
              const Storage* tap = from + channel * p.w_stride[0] +
                                   (h.kernel_first + y * h.kernel_step) * p.w_stride[2] +
                                   (w.kernel_first + x * w.kernel_step) * p.w_stride[3];
              for (int64_t r = 0; r < rows; ++r) to[r] = widen(tap[r * p.w_stride[1]]);
            }
          }
        }
      }
    }
  }
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

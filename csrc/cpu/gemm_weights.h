// Packing of filters, of any strides, into the two forms the tiles read.
#pragma once
#include <cstdint>

#include "gemm_copy.h"
#include "gemm_geometry.h"
#include "gemm_tile.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

// nhwc: panels [group][block of kTileColumns channels][tap, source channel][kTileColumns], zeros behind the last channel.
// nchw: rows [group][dest channel][pitch] of depth index (source channel, tap).
template <class Compute>
int64_t weight_blocks(const Correlation& c) {
  return ceil_div(c.dest_channels, c.nhwc ? kTileColumns<Compute> : kTileRows);
}
template <class Compute>
int64_t packed_block_size(const Correlation& c) {
  return c.nhwc ? c.depth() * kTileColumns<Compute> : kTileRows * packed_pitch<Compute>(c.depth());
}
template <class Compute>
int64_t packed_weight_size(const Correlation& c) {
  return c.groups * weight_blocks<Compute>(c) * packed_block_size<Compute>(c) + kLanes<Compute>;
}

SC_INLINE int64_t tap_offset(const Correlation& c, int64_t tap) {
  return (c.h.kernel_first + tap / c.w.taps * c.h.kernel_step) * c.weight_h +
         (c.w.kernel_first + tap % c.w.taps * c.w.kernel_step) * c.weight_w;
}

// Whether stepping through all taps of one filter plane in order is stepping through memory.
inline bool taps_are_dense(const Correlation& c) {
  return c.h.kernel_step == 1 && c.w.kernel_step == 1 && (c.w.taps == 1 || c.weight_w == 1) &&
         (c.h.taps == 1 || c.weight_h == c.w.taps);
}

// One vector of destination channels (`columns` of them) of a panel, from the filter of the first.
template <class Storage>
void pack_panel_vector(const Correlation& c, const Storage* w, int64_t columns, compute_t<Storage>* to) {
  using C = compute_t<Storage>;
  constexpr int64_t lanes = kLanes<C>, width = kTileColumns<C>;
  const int64_t channels = c.source_channels, taps = c.taps();
  if (c.weight_dest != 1 && c.weight_source == 1) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      const Storage* from = w + tap_offset(c, tap);
      C* out = to + tap * channels * width;
      for (int64_t k = 0; k < channels; k += lanes, out += lanes * width) {
        transpose_piece(from + k, c.weight_dest, columns, smaller(lanes, channels - k),
                        [out](int64_t j) { return out + j * width; });
      }
    }
    return;
  }
  if (c.weight_dest != 1 && taps_are_dense(c)) {
    // Runs of taps, joined across channels where the channels follow each other.
    const bool joined = c.weight_source == taps;
    const int64_t run = joined ? channels * taps : taps;
    for (int64_t channel = 0; channel < (joined ? 1 : channels); ++channel) {
      const Storage* from = w + tap_offset(c, 0) + channel * c.weight_source;
      for (int64_t k = 0; k < run; k += lanes) {
        transpose_piece(from + k, c.weight_dest, columns, smaller(lanes, run - k), [=](int64_t j) {
          return to + ((k + j) % taps * channels + channel + (k + j) / taps) * width;
        });
      }
    }
    return;
  }
  for (int64_t tap = 0; tap < taps; ++tap) {
    const Storage* from = w + tap_offset(c, tap);
    for (int64_t k = 0; k < channels; ++k, from += c.weight_source, to += width) {
      store(to, load_strided_n(from, c.weight_dest, columns));
    }
  }
}

// A row of filters: depth index (source channel, tap).
template <class Storage>
void pack_filter_rows(const Correlation& c, const Storage* w, int64_t rows, compute_t<Storage>* to, int64_t pitch) {
  const int64_t channels = c.source_channels, taps = c.taps();
  if (taps == 1 && c.weight_dest == 1 && c.weight_source != 1) {
    return transpose_spilling(to, pitch, w + tap_offset(c, 0), c.weight_source, channels, rows);
  }
  const bool dense = taps_are_dense(c);
  if (dense && c.weight_source == taps) {
    for (int64_t row = 0; row < rows; ++row) {
      copy_spilling(to + row * pitch, w + tap_offset(c, 0) + row * c.weight_dest, channels * taps);
    }
    return;
  }
  // Channel by channel, since here the rows of one channel are the closer neighbours.
  for (int64_t k = 0; k < channels; ++k, w += c.weight_source, to += taps) {
    for (int64_t row = 0; row < rows; ++row) {
      const Storage* from = w + row * c.weight_dest;
      compute_t<Storage>* out = to + row * pitch;
      if (dense) {
        copy_spilling(out, from + tap_offset(c, 0), taps);
        continue;
      }
      const Storage* line = from + c.h.kernel_first * c.weight_h + c.w.kernel_first * c.weight_w;
      for (int64_t h = 0; h < c.h.taps; ++h, line += c.h.kernel_step * c.weight_h) {
        for (int64_t x = 0; x < c.w.taps; ++x) *out++ = widen(line[x * c.w.kernel_step * c.weight_w]);
      }
    }
  }
}

// Block `index` counts the channel blocks of all groups.
template <class Storage>
void pack_weight_block(const Correlation& c, const Storage* w, int64_t index, compute_t<Storage>* packed) {
  using C = compute_t<Storage>;
  const int64_t per_group = weight_blocks<C>(c), width = c.nhwc ? kTileColumns<C> : kTileRows;
  const int64_t first = index % per_group * width, count = smaller(width, c.dest_channels - first);
  w += index / per_group * c.weight_group + first * c.weight_dest;
  packed += index * packed_block_size<C>(c);
  if (!c.nhwc) return pack_filter_rows(c, w, count, packed, packed_pitch<C>(c.depth()));
  for (int64_t j = 0; j < width; j += kLanes<C>) {
    if (j < count) {
      pack_panel_vector(c, w + j * c.weight_dest, smaller(kLanes<C>, count - j), packed + j);
      continue;
    }
    for (int64_t k = 0; k < c.depth(); ++k) store(packed + k * width + j, zero<C>());
  }
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

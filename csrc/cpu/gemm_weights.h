// Packing of filters, of any strides, into the two forms the tiles read.
#pragma once
#include <cstdint>

#include "../common/parallel.h"
#include "gemm_copy.h"
#include "gemm_geometry.h"
#include "gemm_tile.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

// nhwc: panels [group][block of kTileColumns channels][tap, source channel][kTileColumns], zeros behind the last
// channel. nchw: rows [group][dest channel][pitch of depth index].
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

// Filters as tiles read them: packed, or, with `block` 0, as they lie.
template <class Compute>
struct Filters {
  const Compute* data;
  int64_t pitch, block;  // between rows (nchw), and between blocks

  // Block `index` of a group's filters.
  const Compute* at(const Correlation& c, int64_t group, int64_t index) const {
    if (block == 0) return data + group * c.weight_group + index * kTileRows * pitch;
    return data + (group * weight_blocks<Compute>(c) + index) * block;
  }
};

SC_INLINE int64_t tap_offset(const Correlation& c, int64_t tap) {
  return (c.h.kernel_first + tap / c.w.taps * c.h.kernel_step) * c.weight_h +
         (c.w.kernel_first + tap % c.w.taps * c.w.kernel_step) * c.weight_w;
}

// Whether stepping through all taps of one filter plane in order is stepping through memory.
inline bool taps_are_dense(const Correlation& c) {
  return c.h.kernel_step == 1 && c.w.kernel_step == 1 && (c.w.taps == 1 || c.weight_w == 1) &&
         (c.h.taps == 1 || c.weight_h == c.w.taps);
}

// One vector of destination channels (`columns` of them) of a panel: so many source channels of one tap, from the
// weight of the first of both.
template <class Storage>
void pack_panel_run(const Correlation& c, const Storage* w, int64_t channels, int64_t columns,
                    compute_t<Storage>* to) {
  constexpr int64_t lanes = kLanes<compute_t<Storage>>, width = kTileColumns<compute_t<Storage>>;
  if (c.weight_dest != 1 && c.weight_source == 1) {
    for (int64_t k = 0; k < channels; k += lanes, to += lanes * width) {
      transpose_piece(w + k, c.weight_dest, columns, smaller(lanes, channels - k),
                      [to](int64_t j) { return to + j * width; });
    }
    return;
  }
  for (int64_t k = 0; k < channels; ++k, w += c.weight_source, to += width) {
    store(to, load_strided_n(w, c.weight_dest, columns));
  }
}

// All of such a vector, from the filter of the first.
template <class Storage>
void pack_panel_vector(const Correlation& c, const Storage* w, int64_t columns, compute_t<Storage>* to) {
  using C = compute_t<Storage>;
  constexpr int64_t lanes = kLanes<C>, width = kTileColumns<C>;
  const int64_t channels = c.source_channels, taps = c.taps();
  if (c.weight_dest != 1 && c.weight_source != 1 && taps_are_dense(c)) {
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
    pack_panel_run(c, w + tap_offset(c, tap), channels, columns, to + tap * channels * width);
  }
}

// Depth index (tap, source channel), from filters whose planes and channels follow each other in memory: transposes a
// vector of source channels at a time, dropping the taps that are not of this correlation.
template <class Storage>
void transpose_filter_rows(const Correlation& c, const Storage* w, int64_t rows, compute_t<Storage>* to,
                           int64_t pitch) {
  using C = compute_t<Storage>;
  constexpr int64_t lanes = kLanes<C>;
  const int64_t channels = c.source_channels, columns = rows * c.h.kernel * c.w.kernel;
  for (int64_t k = 0; k < channels; k += lanes, w += lanes * c.weight_source) {
    const int64_t count = smaller(lanes, channels - k);
    C* out = to + k;
    // The filter coordinates of the next column, and the taps that come next.
    int64_t h = 0, x = 0, tap_h = 0, tap_w = 0;
    for (int64_t column = 0; column < columns; column += lanes) {
      const int64_t width = smaller(lanes, columns - column);
      vec<C> square[lanes];
      for (int64_t i = 0; i < lanes; ++i) {
        square[i] = i < count ? load_n(w + i * c.weight_source + column, width) : zero<C>();
      }
      transpose_square<C>(square);
      for (int64_t j = 0; j < width; ++j) {
        const bool row_used = tap_h < c.h.taps && h == c.h.kernel_first + tap_h * c.h.kernel_step;
        if (tap_w < c.w.taps && x == c.w.kernel_first + tap_w * c.w.kernel_step) {
          if (row_used) store_n(out + (tap_h * c.w.taps + tap_w) * channels, square[j], count);
          ++tap_w;
        }
        if (++x < c.w.kernel) continue;
        x = tap_w = 0;
        tap_h += row_used;
        if (++h < c.h.kernel) continue;
        h = tap_h = 0;
        out += pitch;
      }
    }
  }
}

template <class Storage>
void pack_filter_rows(const Correlation& c, const Storage* w, int64_t rows, compute_t<Storage>* to, int64_t pitch) {
  const int64_t channels = c.source_channels, taps = c.taps();
  if (!c.tap_major && c.weight_source == taps && taps_are_dense(c)) {
    for (int64_t row = 0; row < rows; ++row) {
      copy_spilling(to + row * pitch, w + tap_offset(c, 0) + row * c.weight_dest, channels * taps);
    }
    return;
  }
  const bool dense_kernel = (c.w.kernel == 1 || c.weight_w == 1) && (c.h.kernel == 1 || c.weight_h == c.w.kernel);
  if (c.tap_major && dense_kernel && c.weight_dest == c.h.kernel * c.w.kernel) {
    // Few enough rows to stay within a few pages, enough to read whole cache lines.
    const int64_t run = larger(kTileRows, 512 / c.weight_dest);
    for (int64_t row = 0; row < rows; row += run) {
      transpose_filter_rows(c, w + row * c.weight_dest, smaller(run, rows - row), to + row * pitch, pitch);
    }
    return;
  }
  const int64_t tap_step = c.tap_major ? channels : 1, channel_step = c.tap_major ? 1 : taps;
  for (int64_t row = 0; row < rows; ++row, w += c.weight_dest, to += pitch) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      const Storage* from = w + tap_offset(c, tap);
      compute_t<Storage>* out = to + tap * tap_step;
      for (int64_t k = 0; k < channels; ++k) out[k * channel_step] = widen(from[k * c.weight_source]);
    }
  }
}

// So many filters, from the first of them: of one block in nhwc, of any number of blocks in nchw, where rows are one run.
template <class Storage>
void pack_weight_block(const Correlation& c, const Storage* w, int64_t count, compute_t<Storage>* to) {
  using C = compute_t<Storage>;
  constexpr int64_t lanes = kLanes<C>, width = kTileColumns<C>;
  if (!c.nhwc) return pack_filter_rows(c, w, count, to, packed_pitch<C>(c.depth()));
  for (int64_t j = 0; j < width; j += lanes) {
    if (j < count) {
      pack_panel_vector(c, w + j * c.weight_dest, smaller(lanes, count - j), to + j);
      continue;
    }
    for (int64_t k = 0; k < c.depth(); ++k) store(to + k * width + j, zero<C>());
  }
}

// Blocks [begin, end), counting the channel blocks of all groups.
template <class Storage>
void pack_weight_blocks(const Correlation& c, const Storage* filters, int64_t begin, int64_t end,
                        compute_t<Storage>* packed) {
  using C = compute_t<Storage>;
  const int64_t per_group = weight_blocks<C>(c), width = c.nhwc ? kTileColumns<C> : kTileRows;
  for (int64_t index = begin; index < end;) {
    const int64_t block = index % per_group, first = block * width;
    // In nchw the rows of neighbouring blocks are one run.
    const int64_t blocks = c.nhwc ? 1 : smaller(end - index, per_group - block);
    pack_weight_block(c, filters + index / per_group * c.weight_group + first * c.weight_dest,
                      smaller(blocks * width, c.dest_channels - first), packed + index * packed_block_size<C>(c));
    index += blocks;
  }
}

template <class Storage>
int32_t pack_weights(const Correlation& c, const Storage* w, compute_t<Storage>* packed) {
  return parallel_for(c.groups * weight_blocks<compute_t<Storage>>(c), 1, [&](int64_t begin, int64_t end) {
    pack_weight_blocks(c, w, begin, end, packed);
  });
}

// Whether all that a filter has in this correlation is one run of memory: such filters are read ahead row by row.
inline bool filters_are_runs(const Correlation& c) {
  const int64_t channels = c.source_channels;
  if (c.taps() == 1) return c.weight_source == 1;
  if (tap_offset(c, 0) != 0 || c.h.kernel_step != 1 || c.w.kernel_step != 1) return false;
  if (c.weight_source == c.taps()) return taps_are_dense(c);
  return c.weight_source == 1 && (c.w.taps == 1 || c.weight_w == channels) &&
         (c.h.taps == 1 || c.weight_h == c.w.taps * channels);
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

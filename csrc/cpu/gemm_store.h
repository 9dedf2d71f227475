// Finished sums to their places: bias, what they are added to, activation, rounding, and the grid's spacing.
#pragma once
#include <cstdint>

#include "gemm_geometry.h"
#include "gemm_tile.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

// nhwc: row i of `sums`, `pitch` behind the row before it, is grid position pixel + i, column j channel j of `dest` and
// `bias` (null: none).
template <class Storage>
void store_rows(const Correlation& c, Storage* dest, const Storage* bias, int64_t pixel, int64_t rows, int64_t columns,
                const compute_t<Storage>* sums, int64_t pitch = kTileColumns<compute_t<Storage>>) {
  using C = compute_t<Storage>;
  constexpr int64_t lanes = kLanes<C>;
  vec<C> added[kTileVectors];
  for (int v = 0; v < kTileVectors; ++v) {
    added[v] = bias != nullptr && v * lanes < columns ? load_n(bias + v * lanes, columns - v * lanes) : zero<C>();
  }
  Cursor at(c, pixel);
  for (int64_t i = 0; i < rows; ++i, at.advance(c, 1), sums += pitch) {
    Storage* out = dest + dest_offset(c, at);
    for (int64_t j = 0; j < columns; j += lanes) {
      vec<C> value = load(sums + j);
      if (bias != nullptr) value += added[j / lanes];
      if (c.accumulate) value += load_n(out + j, columns - j);
      activate<C>(c.activation, value);
      store_n(out + j, value, columns - j);
    }
  }
}

// nchw: row i of `sums` is channel i of `dest` and `bias`, column j grid position pixel + j.
template <class Storage>
void store_lines(const Correlation& c, Storage* dest, const Storage* bias, int64_t pixel, int64_t rows, int64_t columns,
                 const compute_t<Storage>* sums, int64_t pitch = kTileColumns<compute_t<Storage>>) {
  using C = compute_t<Storage>;
  constexpr int64_t lanes = kLanes<C>;
  const bool dense = c.dense_dest();
  const int64_t plane = c.h.count * c.w.count;
  Cursor at(c, pixel);
  for (int64_t done = 0; done < columns;) {
    const int64_t left = dense ? plane - (pixel + done) % plane : c.w.count - at.w;
    const int64_t n = smaller(columns - done, left);
    Storage* out = dest + dest_offset(c, at);
    const C* line = sums + done;
    for (int64_t i = 0; i < rows; ++i, out += c.dest.channel, line += pitch) {
      const C added = bias != nullptr ? widen(bias[i]) : C(0);
      if (c.w.spacing == 1) {
        for (int64_t j = 0; j < n; j += lanes) {
          vec<C> value = load_n(line + j, n - j);
          if (bias != nullptr) value += broadcast(added);
          if (c.accumulate) value += load_n(out + j, n - j);
          activate<C>(c.activation, value);
          store_n(out + j, value, n - j);
        }
      } else {
        for (int64_t j = 0; j < n; ++j) {
          out[j * c.w.spacing] = narrow<Storage>(bias != nullptr ? line[j] + added : line[j]);
        }
      }
    }
    done += n;
    at = Cursor(c, pixel + done);
  }
}

// Zeros at every grid position, for a phase that no tap reaches.
template <class Storage>
void store_zeros(const Correlation& c, Storage* dest, int64_t pixel, int64_t pixel_end) {
  const int64_t channels = c.groups * c.dest_channels;
  const Storage nothing = narrow<Storage>(compute_t<Storage>(0));
  Cursor at(c, pixel);
  for (int64_t rest = pixel_end - pixel; rest > 0;) {
    const int64_t n = smaller(rest, c.w.count - at.w), step = c.w.spacing * c.dest.column;
    Storage* out = dest + dest_offset(c, at);
    if (c.nhwc) {
      for (int64_t j = 0; j < n; ++j) {
        for (int64_t channel = 0; channel < channels; ++channel) out[j * step + channel] = nothing;
      }
    } else {
      for (int64_t channel = 0; channel < channels; ++channel) {
        for (int64_t j = 0; j < n; ++j) out[channel * c.dest.channel + j * step] = nothing;
      }
    }
    rest -= n;
    at.advance(c, n);
  }
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

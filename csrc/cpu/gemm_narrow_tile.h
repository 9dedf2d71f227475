// The register tile of narrow groups: one vector of destination channels for neighbouring pixels of a row. Taps that
// lie side by side are taken together: their filters stay in registers while the columns of the source pass, and each
// column, read once, meets all of them.
#pragma once
#include <cstdint>

#include "gemm_geometry.h"
#include "gemm_tile.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

// Pixels of the tiles, the largest last. Ten sums, three filters and a value fill sixteen registers; with seven or
// fewer the latency of the multiply-adds shows.
constexpr int kNarrowPixels[] = {4, 7, 8, kVectorRegisters >= 32 ? 14 : 10};
constexpr int kNarrowSizes = sizeof kNarrowPixels / sizeof kNarrowPixels[0], kMostNarrowPixels = kNarrowPixels[3];

// A run of neighbouring taps: its first column, and the filter of that column.
struct TapRun {
  int64_t x, w;
};

// out[p * out_stride + lane], for p < count, = sum over the runs s, channels k and taps t of
// x[runs[s].x + (p * step + t) * column + k] * w[runs[s].w + t * w_tap + k * w_channel + lane], in this order, and
// finished where that is asked for. Columns are read for all pixels of the tile.
template <class Compute>
struct NarrowCall {
  const Compute* x;
  int64_t column, channels;
  const TapRun* runs;
  int64_t count_of_runs;
  const Compute* w;
  int64_t w_tap, w_channel;
  Compute* out;
  int64_t out_stride, count;
  const Finish<Compute>* finish;
};

template <int channel>
constexpr int quad_lane(int lane, int) {
  return lane / 4 * 4 + channel;
}
template <int distance>
constexpr int quad_exchange(int lane, int) {
  return lane ^ distance;
}

// Groups of four channels to four: a vector holds several groups.
template <class Compute>
bool suits_quads(const Correlation& c) {
  constexpr int64_t lanes = kLanes<Compute>;
  return c.groups > 1 && lanes % 4 == 0 && c.source_channels == 4 && c.dest_channels == 4 && c.groups * 4 % lanes == 0;
}

// read(at) spreads one channel of the column at `at`.
template <int pixels, int taps, int step, class Compute, class Read>
SC_INLINE void add_taps(const NarrowCall<Compute>& call, const Compute* x, const Compute* w, const Read& read,
                        vec<Compute> (&sum)[pixels][1]) {
  vec<Compute> filter[taps];
  SC_UNROLL for (int t = 0; t < taps; ++t) filter[t] = load(w + t * call.w_tap);
  SC_UNROLL for (int i = 0; i < (pixels - 1) * step + taps; ++i) {
    if (i > 0 && i % 4 == 0) {
      x += 4 * call.column;
      pin(x);
    }
    const vec<Compute> value = read(x + i % 4 * call.column);
    SC_UNROLL for (int t = 0; t < taps; ++t) {
      const int p = (i - t) / step;
      if (i >= t && p < pixels && p * step == i - t) sum[p][0] = fma(value, filter[t], sum[p][0]);
    }
  }
}

// The channel `distance` from its own, of the lane's group: lane l of w meets channel l ^ distance.
template <int distance, int pixels, int taps, int step, class Compute>
SC_INLINE void add_exchanged(const NarrowCall<Compute>& call, const Compute* x, const Compute* w,
                             vec<Compute> (&sum)[pixels][1]) {
  const auto read = [](const Compute* at) {
    const vec<Compute> value = load(at);
    return shuffle<quad_exchange<distance>, Compute>(value, value);
  };
  add_taps<pixels, taps, step>(call, x, w + distance * call.w_channel, read, sum);
}

// With `quads`, k counts distances between channels.
template <class Compute, bool quads, int taps, int step, int pixels>
void narrow_tile(const NarrowCall<Compute>& call) {
  vec<Compute> sum[pixels][1];
  SC_UNROLL for (int p = 0; p < pixels; ++p) {
    sum[p][0] = zero<Compute>();
    __builtin_prefetch(call.out + p * call.out_stride, 1);  // far apart, and written only when all is summed
  }
  for (int64_t s = 0; s < call.count_of_runs; ++s) {
    const Compute* x = call.x + call.runs[s].x;
    const Compute* w = call.w + call.runs[s].w;
    if constexpr (quads) {
      add_exchanged<0, pixels, taps, step>(call, x, w, sum);
      add_exchanged<1, pixels, taps, step>(call, x, w, sum);
      add_exchanged<2, pixels, taps, step>(call, x, w, sum);
      add_exchanged<3, pixels, taps, step>(call, x, w, sum);
    } else {
      for (int64_t k = 0; k < call.channels; ++k, ++x, w += call.w_channel) {
        add_taps<pixels, taps, step>(call, x, w, [](const Compute* at) { return broadcast(*at); }, sum);
      }
    }
  }
  if (call.finish != nullptr) finish_tile(*call.finish, sum);
  SC_UNROLL for (int p = 0; p < pixels; ++p) {
    if (p < call.count) store(call.out + p * call.out_stride, sum[p][0]);
  }
}

template <class Compute>
using NarrowTile = void (*)(const NarrowCall<Compute>&);

template <class Compute, bool quads, int taps, int step>
NarrowTile<Compute> narrow_tile_of(int size) {
  static constexpr NarrowTile<Compute> tiles[] = {
      narrow_tile<Compute, quads, taps, step, kNarrowPixels[0]>,
      narrow_tile<Compute, quads, taps, step, kNarrowPixels[1]>,
      narrow_tile<Compute, quads, taps, step, kNarrowPixels[2]>,
      narrow_tile<Compute, quads, taps, step, kNarrowPixels[3]>};
  return tiles[size];
}

// How many taps of a filter row are taken together: neighbours, where one tile has them.
inline int64_t taps_together(const Axis& axis, int64_t stride) {
  if (axis.taps % 3 == 0 && (axis.offset_step == 1 || axis.offset_step == -1) && stride <= 2) return 3;
  return axis.taps % 2 == 0 && (axis.offset_step == 1 || axis.offset_step == -1) && stride == 1 ? 2 : 1;
}

// The tile for `taps` together and pixels `stride` columns apart; of size kNarrowPixels[size]. For one tap, the call
// counts columns from pixel to pixel.
template <class Compute, bool quads>
NarrowTile<Compute> narrow_tile_for(int64_t taps, int64_t stride, int size) {
  if (taps == 1) return narrow_tile_of<Compute, quads, 1, 1>(size);
  if (taps == 2) return narrow_tile_of<Compute, quads, 2, 1>(size);
  return stride == 1 ? narrow_tile_of<Compute, quads, 3, 1>(size) : narrow_tile_of<Compute, quads, 3, 2>(size);
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

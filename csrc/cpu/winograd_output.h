// From sums S[point][tile][kTileColumns] of a panel of filters to outputs: the inverse transform, bias, activation and
// rounding. Tiles with something infinite or NaN in them are computed anew without a transform.
#pragma once
#include <cstdint>

#include "activation.h"
#include "winograd_plan.h"
#include "winograd_transform.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace winograd {

template <class Storage, int m>
struct OutputTransform {
  using C = compute_t<Storage>;
  static constexpr int edge = m + 2;
  static constexpr int64_t lanes = kLanes<C>, width = kTileColumns<C>;
  const Plan<Storage, m>& plan;
  const Storage* source;
  const Storage* w;  // the filters themselves
  Storage* dest;
  const Storage* bias;
  C* drained;

  // The sums that define the convolution, for the tile's outputs inside the image and n output channels.
  __attribute__((noinline)) void direct_tile(const Patch& patch, int64_t row, int64_t column, int64_t channel,
                                             int64_t n, vec<C> (&y)[m][m]) const {
    const Shape& s = plan.shape;
    const View& view = patch.view;
    const Storage* image = source + view.source;
    const Storage* filters = w + channel * s.weight_dest;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < m; ++j) {
        vec<C> sum = zero<C>();
        for (int64_t tap = 0; tap < 9; ++tap) {
          const int64_t h = row * m + i + tap / 3 - view.ph, x = column * m + j + tap % 3 - view.pw;
          if (h < 0 || h >= view.ih || x < 0 || x >= view.iw) continue;
          const int64_t kept = s.flipped ? 8 - tap : tap;
          const Storage* from = image + h * s.source.row + x * s.source.column;
          const Storage* filter = filters + kept / 3 * s.weight_h + kept % 3 * s.weight_w;
          for (int64_t k = 0; k < s.ic; ++k, from += s.source.channel, filter += s.weight_source) {
            sum = fma(broadcast(C(widen(*from))), load_strided_n(filter, s.weight_dest, n), sum);
          }
        }
        y[i][j] = sum;
      }
    }
  }

  SC_INLINE void tile(const Patch& patch, int64_t row, int64_t column, int64_t channel, int64_t n, const C* sums,
                      vec<C> added, vec<C> (&y)[m][m]) const {
    vec<C> half[m][edge];
    SC_UNROLL for (int j = 0; j < edge; ++j) {
      vec<C> s[edge], t[m];
      SC_UNROLL for (int i = 0; i < edge; ++i) s[i] = load(sums + (i * edge + j) * plan.s_step);
      Transform<m>::template output<C>(s, t);
      SC_UNROLL for (int i = 0; i < m; ++i) half[i][j] = t[i];
    }
    vec<C> nothing = zero<C>();
    SC_UNROLL for (int i = 0; i < m; ++i) {
      Transform<m>::template output<C>(half[i], y[i]);
      SC_UNROLL for (int j = 0; j < m; ++j) nothing = fma(y[i][j], zero<C>(), nothing);
    }
    if (__builtin_expect(!all_finite<C>(nothing), 0)) direct_tile(patch, row, column, channel, n, y);
    if (bias != nullptr) {
      SC_UNROLL for (int i = 0; i < m; ++i) {
        SC_UNROLL for (int j = 0; j < m; ++j) y[i][j] += added;
      }
    }
    activate<C>(plan.shape.activation, y);
  }

  // One vector of output channels, of which n exist, of a patch; `sums` are its first tile's. Output (row, column) of
  // the patch goes to at(row, column).
  template <bool whole, class Out, class At>
  SC_INLINE void channels(const Patch& patch, int64_t channel, int64_t n, const C* sums, const At& at) const {
    const View& s = patch.view;
    const vec<C> added = bias == nullptr ? zero<C>() : load_n(bias + channel, n);
    for (int64_t row = patch.row; row < patch.row_end; ++row) {
      const int64_t rows = smaller(m, s.oh - row * m);
      for (int64_t column = patch.column; column < patch.column_end; ++column, sums += width) {
        vec<C> y[m][m];
        tile(patch, row, column, channel, n, sums, added, y);
        const int64_t columns = smaller(m, s.ow - column * m);
        Out* out = at((row - patch.row) * m, (column - patch.column) * m);
        const int64_t step = at(1, 0) - at(0, 0), next = at(0, 1) - at(0, 0);
        if (rows == m && columns == m) {
          SC_UNROLL for (int i = 0; i < m; ++i) {
            SC_UNROLL for (int j = 0; j < m; ++j) put<whole>(out + i * step + j * next, y[i][j], n);
          }
          continue;
        }
        for (int64_t i = 0; i < rows; ++i) {
          for (int64_t j = 0; j < columns; ++j) put<whole>(out + i * step + j * next, y[i][j], n);
        }
      }
    }
  }
  template <bool whole, class Out>
  SC_INLINE static void put(Out* out, vec<C> value, int64_t n) {
    if constexpr (whole) store(out, value);
    else store_n(out, value, n);
  }

  // drained[pixel][width] to the planes of an nchw image: `run` pixels that follow each other, n channels.
  void drain(const C* from, Storage* to, int64_t run, int64_t n) const {
    for (int64_t done = 0; done < run; done += lanes) {
      const int64_t at = run >= lanes ? smaller(done, run - lanes) : done, count = smaller(lanes, run - at);
      vec<C> square[lanes];
      SC_UNROLL for (int i = 0; i < lanes; ++i) square[i] = i < count ? load(from + (at + i) * width) : zero<C>();
      gemm::transpose_square<C>(square);
      Storage* out = to + at;
      if (n >= lanes && count == lanes) {
        SC_UNROLL for (int k = 0; k < lanes; ++k) store(out + k * plan.shape.dest.channel, square[k]);
      } else {
        for (int64_t k = 0; k < smaller(n, lanes); ++k) store_n(out + k * plan.shape.dest.channel, square[k], count);
      }
    }
  }

  // The outputs of a block in the channels of a panel.
  void block(int64_t index, int64_t panel, const C* sums) const {
    const Shape& s = plan.shape;
    const int64_t first = panel * width, exist = smaller(width, s.oc - first);
    plan.for_each_patch(index, [&](const Patch& patch, int64_t tile) {
      const C* from = sums + tile * width;
      Storage* corner = dest + patch.view.dest + patch.row * m * s.dest.row + patch.column * m * s.dest.column;
      if (s.nhwc) {
        const auto at = [&](int64_t h, int64_t x) { return corner + first + h * s.dest.row + x * s.dest.column; };
        int64_t lane = 0;
        for (; lane + lanes <= exist; lane += lanes) {
          channels<true, Storage>(patch, first + lane, lanes, from + lane,
                                  [&](int64_t h, int64_t x) { return at(h, x) + lane; });
        }
        if (lane < exist) {
          channels<false, Storage>(patch, first + lane, exist - lane, from + lane,
                                   [&](int64_t h, int64_t x) { return at(h, x) + lane; });
        }
        return;
      }
      const int64_t lines = smaller(patch.row_end * m, s.oh) - patch.row * m;
      const int64_t run = smaller(patch.column_end * m, s.ow) - patch.column * m;
      const bool joined = run == s.ow;  // whole rows follow each other
      for (int64_t lane = 0; lane < exist; lane += lanes) {
        channels<true, C>(patch, first + lane, smaller(lanes, exist - lane), from + lane,
                          [&](int64_t h, int64_t x) { return drained + (h * run + x) * width + lane; });
        Storage* planes = corner + (first + lane) * s.dest.channel;
        for (int64_t line = 0; line < (joined ? 1 : lines); ++line) {
          drain(drained + line * run * width + lane, planes + line * s.dest.row, joined ? lines * run : run,
                exist - lane);
        }
      }
    });
  }
};

}  // namespace winograd
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

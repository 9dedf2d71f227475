// Transformed input: V[point][tile][pitch] of a block of tiles.
#pragma once
#include <cstdint>

#include "winograd_plan.h"
#include "winograd_transform.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace winograd {

// One tile, one vector of channels: pixel(i, j) is the vector of input row i and column j.
template <class Compute, int m, class Pixel>
SC_INLINE void transform_vector(const Pixel& pixel, Compute* v, int64_t step) {
  constexpr int edge = m + 2;
  vec<Compute> half[edge][edge];
  SC_UNROLL for (int j = 0; j < edge; ++j) {
    vec<Compute> d[edge], t[edge];
    SC_UNROLL for (int i = 0; i < edge; ++i) d[i] = pixel(i, j);
    Transform<m>::template input<Compute>(d, t);
    SC_UNROLL for (int i = 0; i < edge; ++i) half[i][j] = t[i];
  }
  SC_UNROLL for (int i = 0; i < edge; ++i) {
    vec<Compute> t[edge];
    Transform<m>::template input<Compute>(half[i], t);
    SC_UNROLL for (int j = 0; j < edge; ++j) store(v + (i * edge + j) * step, t[j]);
  }
}

// One tile from the addresses of its pixels, whose channels are next to each other.
template <class Storage, int m>
void transform_tile(const Storage* const* pixels, int64_t channels, compute_t<Storage>* v, int64_t step) {
  using C = compute_t<Storage>;
  constexpr int edge = m + 2;
  int64_t k = 0;
  for (; k + kLanes<C> <= channels; k += kLanes<C>) {
    transform_vector<C, m>([&](int i, int j) { return load(pixels[i * edge + j] + k); }, v + k, step);
  }
  if (k == channels) return;
  transform_vector<C, m>([&](int i, int j) { return load_n(pixels[i * edge + j] + k, channels - k); }, v + k, step);
}

// The pixels of rows [row, row_end), columns [column, column_end) of an nchw image one after the other, each with its
// channels next to each other, filled up to whole vectors with zeros.
template <class Storage>
void stage_pixels(const Shape& s, const Storage* image, int64_t row, int64_t row_end, int64_t column,
                  int64_t column_end, compute_t<Storage>* to, int64_t pitch) {
  using C = compute_t<Storage>;
  constexpr int64_t lanes = kLanes<C>;
  int64_t lines = row_end - row, run = column_end - column;
  if (run == s.iw) {
    // Whole rows follow each other.
    run *= lines;
    lines = 1;
  }
  for (int64_t line = 0; line < lines; ++line) {
    const Storage* from = image + (row + line) * s.source.row + column;
    C* out = to + line * run * pitch;
    for (int64_t channel = 0; channel < s.ic; channel += lanes) {
      const Storage* plane = from + channel * s.source.channel;
      const int64_t count = smaller(lanes, s.ic - channel);
      for (int64_t done = 0; done < run; done += lanes) {
        // A last piece that is no whole vector goes back to be one.
        const int64_t at = run >= lanes ? smaller(done, run - lanes) : done;
        C* corner = out + at * pitch + channel;
        gemm::transpose_piece(plane + at, s.source.channel, count, smaller(lanes, run - at),
                              [corner, pitch](int64_t j) { return corner + j * pitch; });
      }
    }
  }
}

template <class Storage, int m>
struct InputTransform {
  using C = compute_t<Storage>;
  static constexpr int edge = m + 2;
  const Plan<Storage, m>& plan;
  const Storage* source;
  C* staged;
  const C* zeros;

  // Pixel(h, w) gives the address of a pixel inside the image.
  template <class Pixel, class Address>
  void tiles(const Patch& patch, int64_t channels, const Pixel* nothing, const Address& address, C* v) const {
    const View& s = patch.view;
    for (int64_t row = patch.row; row < patch.row_end; ++row) {
      for (int64_t column = patch.column; column < patch.column_end; ++column, v += plan.pitch) {
        const int64_t top = row * m - s.ph, left = column * m - s.pw;
        const Pixel* pixels[edge * edge];
        for (int i = 0; i < edge; ++i) {
          const bool inside = top + i >= 0 && top + i < s.ih;
          for (int j = 0; j < edge; ++j) {
            const bool there = inside && left + j >= 0 && left + j < s.iw;
            pixels[i * edge + j] = there ? address(top + i, left + j) : nothing;
          }
        }
        transform_tile<Pixel, m>(pixels, channels, v, plan.v_step);
      }
    }
  }

  void block(int64_t index, C* v) const {
    const Shape& s = plan.shape;
    plan.for_each_patch(index, [&](const Patch& patch, int64_t tile) {
      const View& view = patch.view;
      const Storage* image = source + view.source;
      C* to = v + tile * plan.pitch;
      if (s.nhwc) {
        const auto address = [&](int64_t h, int64_t w) { return image + h * s.source.row + w * s.source.column; };
        return tiles(patch, s.ic, reinterpret_cast<const Storage*>(zeros), address, to);
      }
      const int64_t top = clamped(patch.row * m - view.ph, 0, view.ih);
      const int64_t bottom = clamped(patch.row_end * m + 2 - view.ph, top, view.ih);
      const int64_t left = clamped(patch.column * m - view.pw, 0, view.iw);
      const int64_t right = clamped(patch.column_end * m + 2 - view.pw, left, view.iw);
      if (bottom > top && right > left) stage_pixels(s, image, top, bottom, left, right, staged, plan.pitch);
      const auto address = [&](int64_t h, int64_t w) {
        return staged + ((h - top) * (right - left) + w - left) * plan.pitch;
      };
      tiles(patch, plan.pitch, zeros, address, to);
    });
  }
};

}  // namespace winograd
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

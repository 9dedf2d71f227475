// Copies of the factors of the weight gradient, for a run of pixels.
#pragma once
#include <cstdint>

#include "gemm_copy.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

// Runs of memory, `count` of them of `length` values, to be had in the second-level cache before they are wanted.
template <class Storage>
struct Ahead {
  const Storage* from;
  int64_t step, count, length;

  // Asks for one of `parts` equal parts.
  void fetch(int64_t part, int64_t parts) const {
    for (int64_t run = count * part / parts; run < count * (part + 1) / parts; ++run) {
      for (int64_t i = 0; i < length; i += 64 / sizeof(Storage)) __builtin_prefetch(from + run * step + i, 0, 2);
    }
  }
};

// Planes of `size` pixels, of channels one after the other; pixels count on from image to image.
template <class Storage>
struct Planes {
  const Storage* data;
  int64_t image, channel, size;

  // The pixels of channel 0 from `pixel` on, `*n` of them up to `pixel_end` or the end of the plane.
  const Storage* piece(int64_t pixel, int64_t pixel_end, int64_t* n) const {
    const int64_t at = pixel % size;
    *n = pixel_end - pixel < size - at ? pixel_end - pixel : size - at;
    return data + pixel / size * image + at;
  }
};

// to[channel * pitch + p - pixel], up to a vector less one element more.
template <class Storage>
void copy_lines(const Planes<Storage>& from, int64_t channels, int64_t pixel, int64_t pixel_end,
                compute_t<Storage>* to, int64_t pitch) {
  for (int64_t channel = 0; channel < channels; ++channel, to += pitch) {
    compute_t<Storage>* out = to;
    for (int64_t p = pixel, n = 0; p < pixel_end; p += n, out += n) {
      const Storage* piece = from.piece(p, pixel_end, &n);
      copy_spilling(out, piece + channel * from.channel, n);
    }
  }
}

// to[channel / width * panel + (p - pixel) * width + channel % width], zeros up to a whole vector.
template <int width, class Storage>
void transpose_lines(const Planes<Storage>& from, int64_t channels, int64_t pixel, int64_t pixel_end,
                     compute_t<Storage>* to, int64_t panel) {
  constexpr int64_t lanes = kLanes<compute_t<Storage>>;
  for (int64_t p = pixel, n = 0; p < pixel_end; p += n, to += n * width) {
    const Storage* piece = from.piece(p, pixel_end, &n);
    for (int64_t channel = 0; channel < channels; channel += lanes) {
      transpose_spilling(to + channel / width * panel + channel % width, width, piece + channel * from.channel,
                         from.channel, channels - channel < lanes ? channels - channel : lanes, n);
    }
  }
}

// The same from rows of channels, `stride` apart. Spills from a pixel to the next, and past the panel.
template <int width, class Storage>
void copy_panels(const Storage* from, int64_t stride, int64_t channels, int64_t pixels, compute_t<Storage>* to,
                 int64_t panel) {
  constexpr int64_t lanes = kLanes<compute_t<Storage>>, touched = (width + lanes - 1) / lanes * lanes;
  for (int64_t pixel = 0; pixel < pixels; ++pixel, from += stride, to += width) {
    compute_t<Storage>* out = to;
    int64_t channel = 0;
    for (; channel + touched <= channels; channel += width, out += panel) {
      SC_UNROLL for (int i = 0; i < width; i += lanes) store(out + i, load(from + channel + i));
    }
    for (; channel < channels; channel += width, out += panel) {
      copy_spilling(out, from + channel, channels - channel < width ? channels - channel : width);
    }
  }
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

// The weight gradient of narrow groups. Bands of output rows, and the source rows they read with zeros around them, are
// copied into panels [row][column][channels of a set], from both layouts: a set is one group, or as many groups of four
// channels as fill a vector. The sums of a few taps stay in registers over all pixels of a band. The panels of one set
// fit the first-level cache, those of a chunk of sets the second. nchw copies set after set, plane after plane; nhwc as
// many sets at a time as make long runs of a pixel, for what memory is read in pieces comes slowly.
#pragma once
#include <cstdint>

#include "../common/parallel.h"
#include "gemm_copy.h"
#include "gemm_geometry.h"
#include "gemm_grad_band_tile.h"
#include "gemm_weights.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

template <class Storage>
bool suits_grad_bands(const Correlation& c) {
  constexpr int64_t lanes = kLanes<compute_t<Storage>>, most = 64;
  if (c.groups == 1 || c.taps() == 1 || c.pixels() == 0 || c.source_channels > most || c.dest_channels > most) {
    return false;
  }
  const int64_t unit = c.nhwc ? kBandFilters : larger(kBandFilters, lanes);  // transposed pixels are whole vectors
  return suits_quads<compute_t<Storage>>(c) || (c.source_channels % lanes == 0 && c.dest_channels % unit == 0);
}

// Rows of pixels in panels, one for every set of a chunk.
struct BandPanels {
  int64_t low_h, low_w;       // image coordinates of the first row and column
  int64_t columns, width;     // of a row, and channels of a set
  int64_t panel;              // elements between panels
};

template <class Storage>
struct GradBandPlan {
  using C = compute_t<Storage>;
  bool shared;  // several groups share a vector
  int64_t sets, filters, vectors, sums_pitch, set_size;
  BandPanels x, y;
  int64_t band, bands, chunk, chunks, slabs, shared_size, thread_size;

  GradBandPlan(const Correlation& c, int64_t threads) {
    constexpr int64_t lanes = kLanes<C>, line = 64 / int64_t(sizeof(C));
    shared = c.source_channels < lanes;
    x = {c.h.offset, c.w.offset, (c.w.count - 1) * c.w.stride + reach(c.w), shared ? lanes : c.source_channels, 0};
    y = {0, 0, c.w.count, shared ? lanes : c.dest_channels, 0};
    filters = c.dest_channels;
    sets = c.groups * c.source_channels / x.width;
    vectors = c.taps() * x.width / lanes;
    sums_pitch = vectors * lanes;
    set_size = filters * sums_pitch;
    band = c.h.count;
    const int64_t together = c.nhwc ? smaller(sets, ceil_div(kRunBytes / int64_t(sizeof(C)), x.width)) : 1;
    const auto too_large = [&](int64_t rows) {
      const int64_t bytes = set_elements(c, rows) * int64_t(sizeof(C));
      return bytes > kSetBytes || (together * bytes > kChunkBytes && rows * c.w.count > kFewPixels);
    };
    while (band > 1 && too_large(band)) band = ceil_div(band, 2);
    bands = ceil_div(c.h.count, band);
    band = ceil_div(c.h.count, bands);
    bands = c.images * ceil_div(c.h.count, band);
    x.panel = round_up(source_rows(c, band) * x.columns * x.width, line) + line;
    y.panel = round_up(band * y.columns * y.width, line) + line;
    chunk = c.nhwc ? clamped(kChunkBytes / int64_t(sizeof(C)) / (x.panel + y.panel), 1, sets) : 1;
    chunk = smaller(chunk, larger(1, sets / threads));
    chunks = ceil_div(sets, chunk);
    chunk = ceil_div(sets, chunks);
    slabs = smaller(ceil_div(threads, chunks), bands);
    shared_size = round_up(slabs * sets * set_size, line);
    thread_size = chunk * (x.panel + y.panel) + round_up(vectors * int64_t(sizeof(int64_t)) / int64_t(sizeof(C)), line);
  }
  static int64_t source_rows(const Correlation& c, int64_t rows) { return (rows - 1) * c.h.stride + reach(c.h); }

 private:
  static constexpr int64_t kSetBytes = 28 << 10, kChunkBytes = 360 << 10;
  static constexpr int64_t kRunBytes = 1024;  // nhwc: of a pixel, to be read at once
  static constexpr int64_t kFewPixels = 64;   // of a band: fewer do not pay for the loads and stores of the sums

  static int64_t reach(const Axis& axis) { return (axis.taps - 1) * axis.offset_step + 1; }
  int64_t set_elements(const Correlation& c, int64_t rows) const {
    return source_rows(c, rows) * x.columns * x.width + rows * y.columns * y.width;
  }
};

template <class Storage>
class GradBands {
 public:
  using C = compute_t<Storage>;

  GradBands(const Correlation& correlation, const GradBandPlan<Storage>& plan, const void* x, const void* y,
            void* grad_weight, C* sums)
      : c_(correlation),
        plan_(plan),
        x_(static_cast<const Storage*>(x)),
        y_(static_cast<const Storage*>(y)),
        grad_weight_(static_cast<Storage*>(grad_weight)),
        sums_(sums) {}

  void accumulate(int64_t chunk, int64_t slab, C* scratch) const {
    int64_t* offsets = reinterpret_cast<int64_t*>(scratch + plan_.chunk * (plan_.x.panel + plan_.y.panel));
    fill_offsets(offsets);
    C* x_panels = scratch;
    C* y_panels = scratch + plan_.chunk * plan_.x.panel;
    const int64_t first = chunk * plan_.chunk, last = smaller(first + plan_.chunk, plan_.sets);
    const int64_t bands_of_image = ceil_div(c_.h.count, plan_.band);
    const int64_t begin = plan_.bands * slab / plan_.slabs, end = plan_.bands * (slab + 1) / plan_.slabs;
    for (int64_t band = begin; band < end; ++band) {
      const int64_t image = band / bands_of_image, row = band % bands_of_image * plan_.band;
      const int64_t rows = smaller(plan_.band, c_.h.count - row);
      pack(plan_.x, c_.source, c_.h.source, c_.w.source, x_ + image * c_.source.image, row * c_.h.stride,
           plan_.source_rows(c_, rows), first, last, x_panels);
      pack(plan_.y, c_.dest, c_.h.count, c_.w.count, y_ + image * c_.dest.image, row, rows, first, last, y_panels);
      BandOuter<C> tile{rows, c_.w.count, nullptr, c_.h.stride * plan_.x.columns * plan_.x.width,
                        c_.w.stride * plan_.x.width, offsets, nullptr, plan_.y.columns * plan_.y.width, plan_.y.width,
                        nullptr, plan_.sums_pitch, band > begin};
      for (int64_t set = first; set < last; ++set) {
        tile.x = x_panels + (set - first) * plan_.x.panel;
        C* sums = sums_ + (slab * plan_.sets + set) * plan_.set_size;
        for (int64_t i = 0; i < plan_.filters; i += kBandFilters) {
          tile.y = y_panels + (set - first) * plan_.y.panel + i;
          for (int64_t v = 0; v < plan_.vectors; v += kBandVectors) {
            tile.offsets = offsets + v;
            tile.sums = sums + i * plan_.sums_pitch + v * kLanes<C>;
            if (plan_.shared) {
              multiply_band<C, kLanes<C> % 4 == 0>(plan_.vectors - v, tile);
            } else {
              multiply_band<C, false>(plan_.vectors - v, tile);
            }
          }
        }
      }
    }
  }

  // Writes the filters of one set.
  void finish(int64_t set) const {
    constexpr int64_t lanes = kLanes<C>;
    const int64_t channels = c_.source_channels, groups = plan_.x.width / channels;
    const int64_t parts = plan_.x.width / lanes, slab_size = plan_.sets * plan_.set_size;
    const C* sums = sums_ + set * plan_.set_size;
    for (int64_t i = 0; i < plan_.filters; ++i) {
      Storage* to = grad_weight_ + set * groups * c_.weight_group + i * c_.weight_dest;
      for (int64_t v = 0; v < plan_.vectors; ++v, sums += lanes) {
        vec<C> value = load(sums);
        for (int64_t slab = 1; slab < plan_.slabs; ++slab) value += load(sums + slab * slab_size);
        Storage* tap = to + tap_offset(c_, v / parts) + v % parts * lanes * c_.weight_source;
        if (!plan_.shared && c_.weight_source == 1) {
          store(tap, value);
          continue;
        }
        for (int64_t l = 0; l < lanes; ++l) {
          const int64_t group = plan_.shared ? l / channels : 0;
          tap[group * c_.weight_group + (l - group * channels) * c_.weight_source] = narrow<Storage>(value[l]);
        }
      }
    }
  }

 private:
  // What the vectors of (tap, source channels) read, by the panel's first pixel.
  void fill_offsets(int64_t* offsets) const {
    const int64_t parts = plan_.x.width / kLanes<C>;
    for (int64_t v = 0; v < plan_.vectors; ++v) {
      const int64_t tap = v / parts, h = tap / c_.w.taps * c_.h.offset_step, w = tap % c_.w.taps * c_.w.offset_step;
      offsets[v] = (h * plan_.x.columns + w) * plan_.x.width + v % parts * kLanes<C>;
    }
  }

  // The rows from `row` on of an image of height x width pixels, sets first to last.
  void pack(const BandPanels& to, const ImageStrides& strides, int64_t height, int64_t width, const Storage* image,
            int64_t row, int64_t rows, int64_t first, int64_t last, C* panels) const {
    const int64_t begin = clamped(-to.low_w, 0, to.columns), end = clamped(width - to.low_w, begin, to.columns);
    image += first * to.width * strides.channel;
    for (int64_t r = 0; r < rows; ++r, panels += to.columns * to.width) {
      const int64_t h = row + r + to.low_h;
      const bool inside = h >= 0 && h < height && begin < end;
      const int64_t zeros = inside ? begin : to.columns;
      for (int64_t set = 0; set < last - first; ++set) {
        C* line = panels + set * to.panel;
        zero_spilling(line, zeros * to.width);
        if (inside) zero_spilling(line + end * to.width, (to.columns - end) * to.width);
      }
      if (!inside) continue;
      const Storage* from = image + h * strides.row + (begin + to.low_w) * strides.column;
      if (c_.nhwc) {
        copy_pixels(to, from, strides.column, end - begin, last - first, panels + begin * to.width);
      } else {
        for (int64_t set = 0; set < last - first; ++set, from += to.width * strides.channel) {
          transpose_spilling(panels + set * to.panel + begin * to.width, to.width, from, strides.channel, to.width,
                             end - begin);
        }
      }
    }
  }

  void copy_pixels(const BandPanels& to, const Storage* from, int64_t stride, int64_t pixels, int64_t sets,
                   C* line) const {
    for (int64_t pixel = 0; pixel < pixels; ++pixel, from += stride, line += to.width) {
      const Storage* channels = from;
      C* out = line;
      for (int64_t set = 0; set < sets; ++set, out += to.panel, channels += to.width) {
        copy_spilling(out, channels, to.width);
      }
    }
  }

  const Correlation& c_;
  const GradBandPlan<Storage>& plan_;
  const Storage* x_;
  const Storage* y_;
  Storage* grad_weight_;
  C* sums_;
};

template <class Storage>
int64_t grad_bands_workspace(const Correlation& c, int64_t threads) {
  const GradBandPlan<Storage> plan(c, threads);
  return (plan.shared_size + threads * plan.thread_size) * sizeof(compute_t<Storage>);
}

template <class Storage>
int32_t grad_bands(const Correlation& c, const void* input, const void* grad_output, void* grad, void* workspace,
                   int64_t threads) {
  using C = compute_t<Storage>;
  const GradBandPlan<Storage> plan(c, threads);
  C* shared = static_cast<C*>(workspace);
  const GradBands<Storage> work(c, plan, input, grad_output, grad, shared);
  const int64_t tasks = plan.chunks * plan.slabs;
  const int32_t error = parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      C* scratch = shared + plan.shared_size + thread * plan.thread_size;
      for (int64_t task = tasks * thread / threads; task < tasks * (thread + 1) / threads; ++task) {
        const int64_t chunk = task % plan.chunks;
        work.accumulate(chunk, task / plan.chunks, scratch);
        if (plan.slabs > 1) continue;
        const int64_t first = chunk * plan.chunk;
        for (int64_t set = first; set < smaller(first + plan.chunk, plan.sets); ++set) work.finish(set);
      }
    }
  });
  if (error != 0 || plan.slabs == 1) return error;
  return parallel_for(plan.sets, 1, [&](int64_t begin, int64_t end) {
    for (int64_t set = begin; set < end; ++set) work.finish(set);
  });
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

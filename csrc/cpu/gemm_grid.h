// nchw without packing: the planes that a band of output rows reads are staged once, with zeros around them and split
// by stride, so that every tap is one constant offset and neighbouring output positions are neighbours in memory.
#pragma once
#include <cstdint>
#include <utility>

#include "../common/shares.h"
#include "gemm_grid_tile.h"
#include "gemm_store.h"
#include "gemm_weights.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

constexpr int64_t kGridBytes = 192 << 10;  // of staged planes, in the second-level cache

// One axis: tap j reads, for grid position b, position b + shift(j) of phase phase(j), where position s of phase r is
// source coordinate (s + low) * stride + r.
struct GridAxis {
  const Axis& axis;
  int64_t low, halo;

  explicit GridAxis(const Axis& of) : axis(of) {
    const int64_t first = floor_div(at(0), axis.stride), last = floor_div(at(axis.taps - 1), axis.stride);
    low = smaller(first, last);
    halo = larger(first, last) - low;
  }
  int64_t at(int64_t j) const { return axis.offset + j * axis.offset_step; }
  int64_t shift(int64_t j) const { return floor_div(at(j), axis.stride) - low; }
  int64_t phase(int64_t j) const { return at(j) - floor_div(at(j), axis.stride) * axis.stride; }
  bool uses(int64_t phase_index) const {
    for (int64_t j = 0; j < axis.taps; ++j) {
      if (phase(j) == phase_index) return true;
    }
    return false;
  }
};

template <class Storage>
struct GridPlan {
  using C = compute_t<Storage>;
  GridAxis h, w;
  int64_t pitch, band, bands, phase_size, plane_size, tasks, table_size, slab_size;

  GridPlan(const Correlation& c, int64_t threads) : h(c.h), w(c.w) {
    const int64_t phases = c.h.stride * c.w.stride;
    pitch = c.w.count + w.halo;
    const int64_t row_bytes = c.source_channels * phases * pitch * int64_t(sizeof(C));
    band = clamped(kGridBytes / row_bytes - h.halo, larger(1, h.halo), c.h.count);
    band = smaller(band, ceil_div(c.h.count, smaller(c.h.count, ceil_div(threads, c.images * c.groups))));
    bands = ceil_div(c.h.count, band);
    band = ceil_div(c.h.count, bands);
    bands = ceil_div(c.h.count, band);
    phase_size = (band + h.halo) * pitch + kLanes<C>;  // what the copy of a phase spills must not reach the next
    plane_size = packed_pitch<C>(phases * phase_size);
    tasks = c.images * bands * c.groups;
    table_size = round_up(c.depth() * int64_t(sizeof(int64_t)) / int64_t(sizeof(C)) + 16, 64);
    slab_size = table_size + round_up(c.source_channels * plane_size + 2 * kTileColumns<C>, 64);
  }
};

template <class Storage>
class Gridded {
 public:
  using C = compute_t<Storage>;

  // Row r of a group's filters is at filters + group * filter_group + r * filter_pitch.
  Gridded(const Correlation& correlation, const GridPlan<Storage>& plan, const void* source, void* dest,
          const void* bias, const C* filters, int64_t filter_group, int64_t filter_pitch, C* memory)
      : c_(correlation),
        plan_(plan),
        source_(static_cast<const Storage*>(source)),
        dest_(static_cast<Storage*>(dest)),
        bias_(static_cast<const Storage*>(bias)),
        filters_(filters),
        filter_group_(filter_group),
        filter_pitch_(filter_pitch),
        offsets_(reinterpret_cast<int64_t*>(memory)),
        staged_(memory + plan.table_size) {
    const int64_t taps = c_.taps();
    for (int64_t k = 0; k < c_.depth(); ++k) {
      const int64_t tap = c_.tap_major ? k / c_.source_channels : k % taps;
      const int64_t channel = c_.tap_major ? k % c_.source_channels : k / taps;
      const int64_t h = tap / c_.w.taps, w = tap % c_.w.taps;
      offsets_[k] = channel * plan.plane_size +
                    (plan.h.phase(h) * c_.w.stride + plan.w.phase(w)) * plan.phase_size +
                    plan.h.shift(h) * plan.pitch + plan.w.shift(w);
    }
  }

  void run(Share& share) {
    for (int64_t task; share.next(&task);) {
      const int64_t group = task % c_.groups, part = task / c_.groups;
      const int64_t image = part / plan_.bands, first = part % plan_.bands * plan_.band;
      const int64_t last = smaller(first + plan_.band, c_.h.count);
      const Storage* planes =
          source_ + image * c_.source.image + group * c_.source_channels * c_.source.channel;
      for (int64_t channel = 0; channel < c_.source_channels; ++channel) {
        stage(planes + channel * c_.source.channel, first, last, staged_ + channel * plan_.plane_size);
      }
      // Blocks of like height: a short one is slow.
      int64_t blocks = ceil_div(c_.dest_channels, kGridRows);
      for (int64_t row = 0; row < c_.dest_channels; --blocks) {
        const int64_t rows = ceil_div(c_.dest_channels - row, blocks);
        multiply(image, first, last, group, row, rows);
        row += rows;
      }
    }
  }

 private:
  // Ascending in memory within each phase, since a copy spills past its end.
  void stage(const Storage* plane, int64_t first, int64_t last, C* to) const {
    const bool pairs = c_.w.stride == 2 && plan_.w.uses(0) && plan_.w.uses(1);
    for (int64_t ph = 0; ph < c_.h.stride; ++ph) {
      for (int64_t pw = 0; pw < c_.w.stride; ++pw, to += plan_.phase_size) {
        if (!plan_.h.uses(ph) || !plan_.w.uses(pw) || (pairs && pw == 1)) continue;
        const int64_t left = plan_.w.low * c_.w.stride + pw;
        const int64_t begin = clamped(ceil_div(-left, c_.w.stride), 0, plan_.pitch);
        const int64_t end = clamped(ceil_div(c_.w.source - left, c_.w.stride), begin, plan_.pitch);
        C* row = to;
        for (int64_t r = 0; r < last - first + plan_.h.halo; ++r, row += plan_.pitch) {
          const int64_t h = (first + r + plan_.h.low) * c_.h.stride + ph;
          const Storage* from = h < 0 || h >= c_.h.source ? nullptr : plane + h * c_.source.row + left;
          if (pairs) {
            stage_pairs(row, from, begin, end);
          } else {
            stage_row(row, from, begin, end);
          }
        }
      }
    }
  }

  // One phase of a row: positions begin to end are read, the others are zeros. `from` is null where all are.
  void stage_row(C* row, const Storage* from, int64_t begin, int64_t end) const {
    if (from == nullptr) begin = end = 0;
    if (begin > 0) zero_spilling(row, begin);
    if (end > begin) {
      copy_strided_spilling(row + begin, from + begin * c_.w.stride, c_.w.stride, end - begin);
    }
    if (end < plan_.pitch) zero_spilling(row + end, plan_.pitch - end);
  }

  // Both phases of a row, given as for the first; the last position of the second may be missing.
  void stage_pairs(C* row, const Storage* from, int64_t begin, int64_t end) const {
    if (from == nullptr) begin = end = 0;
    C* odd = row + plan_.phase_size;
    zero_spilling(row, begin);
    zero_spilling(odd, begin);
    const int64_t count = smaller(2 * (end - begin), c_.w.source - 2 * (plan_.w.low + begin));
    if (end > begin) split_spilling(row + begin, odd + begin, from + 2 * begin, count);
    zero_spilling(row + end, plan_.pitch - end);
    zero_spilling(odd + end, plan_.pitch - end);
  }

  // Sums of `rows` filters from `row` on. Where a vector is no more than half full with a row of outputs, vectors run
  // on over the end of a row into the next, and what falls between is dropped; else every row begins a vector and its
  // last one overlaps the last but one.
  void multiply(int64_t image, int64_t first, int64_t last, int64_t group, int64_t row, int64_t rows) const {
    constexpr int64_t lanes = kLanes<C>;
    const int64_t channel = group * c_.dest_channels + row;
    const Storage* added = bias_ != nullptr ? bias_ + channel : nullptr;
    GridCall<C> call;
    call.depth = c_.depth();
    call.a = filters_ + group * filter_group_ + row * filter_pitch_;
    call.a_stride = filter_pitch_;
    call.offsets = offsets_;
    call.finish = nullptr;
    call.columns = lanes;
    Storage* out = dest_ + channel * c_.dest.channel;
    if (!std::is_same_v<Storage, C> || c_.w.spacing != 1 || 2 * c_.w.count <= lanes) {
      return multiply_runs(call, image, first, last, added, rows, out);
    }
    const Finish<C> finish{reinterpret_cast<const C*>(added), true, c_.activation};
    if (finish.needed()) call.finish = &finish;
    call.columns = smaller(lanes, c_.w.count);
    call.out_stride = c_.dest.channel;
    // Tiles of like width: a short one is slow.
    int64_t left = (last - first) * ceil_div(c_.w.count, lanes), held = 0;
    int64_t step = ceil_div(left, ceil_div(left, kGridVectors));
    for (int64_t h = first; h < last; ++h) {
      const C* line = staged_ + (h - first) * plan_.pitch;
      C* to = reinterpret_cast<C*>(out + image * c_.dest.image + (c_.h.origin + h * c_.h.spacing) * c_.dest.row +
                                   c_.w.origin);
      for (int64_t w = 0; w < c_.w.count; w += lanes) {
        const int64_t at = larger(0, smaller(w, c_.w.count - lanes));
        call.b[held] = line + at;
        call.out[held] = to + at;
        if (++held < step) continue;
        grid_tile_of<C>(rows, held, call);
        left -= held;
        held = 0;
        step = ceil_div(left, larger(1, ceil_div(left, kGridVectors)));
      }
    }
  }

  void multiply_runs(GridCall<C>& call, int64_t image, int64_t first, int64_t last, const Storage* added, int64_t rows,
                     Storage* out) const {
    constexpr int64_t lanes = kLanes<C>, width = kTileColumns<C>;
    alignas(64) C sums[kGridRows * width];
    call.out_stride = width;
    const int64_t positions = (last - first) * plan_.pitch - plan_.w.halo;
    int64_t h = first, w = 0;
    for (int64_t q = 0; q < positions; q += width) {
      for (int j = 0; j < kTileVectors; ++j) {
        call.b[j] = staged_ + q + j * lanes;
        call.out[j] = sums + j * lanes;
      }
      grid_tile_of<C>(rows, positions - q <= lanes ? 1 : kTileVectors, call);
      // On to where the next tile begins, storing the pieces of rows on the way.
      for (int64_t done = 0; done < width;) {
        const int64_t step = smaller(width - done, plan_.pitch - w);
        const int64_t wanted = smaller(step, c_.w.count - w);
        if (wanted > 0 && h < last) {
          store_lines(c_, out, added, (image * c_.h.count + h) * c_.w.count + w, rows, wanted, sums + done);
        }
        done += step;
        w += step;
        if (w == plan_.pitch) w = 0, ++h;
      }
    }
  }

  const Correlation& c_;
  const GridPlan<Storage>& plan_;
  const Storage* source_;
  Storage* dest_;
  const Storage* bias_;
  const C* filters_;
  const int64_t filter_group_, filter_pitch_;
  int64_t* offsets_;
  C* staged_;
};

// Whether neighbouring windows of an axis share most of what they read.
inline bool windows_overlap(const Axis& axis) {
  return axis.taps > axis.stride && (axis.offset_step == 1 || axis.offset_step == -1);
}

// Packing costs little where many filters share it, but of few channels under overlapping windows it makes many times
// what there was; and the planes of many source channels would leave the caches.
inline bool suits_grid(const Correlation& c) {
  if (c.nhwc || c.taps() == 1 || c.source_channels > 128) return false;
  if (c.dest_channels <= 32) return true;
  return c.source_channels <= 8 && c.depth() >= 32 && windows_overlap(c.h) && windows_overlap(c.w);
}

template <class Storage>
int32_t correlate_grid(const Correlation& c, const void* source, const compute_t<Storage>* filters,
                       int64_t filter_group, int64_t filter_pitch, void* dest, const void* bias,
                       compute_t<Storage>* slabs, int64_t threads) {
  const GridPlan<Storage> plan(c, threads);
  return for_each_share(plan.tasks, threads, [&](int64_t slab, Share& share) {
    Gridded<Storage> work(c, plan, source, dest, bias, filters, filter_group, filter_pitch,
                          slabs + slab * plan.slab_size);
    work.run(share);
  });
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

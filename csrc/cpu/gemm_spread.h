// The input gradient of a strided convolution in nchw. Input coordinates of one residue modulo the stride, a phase,
// meet the same taps. The planes of the output gradient that a band of input rows meets are staged once, with zeros
// around them, and serve all phases: for a tile of neighbouring grid positions the sums of every column phase are made
// one after the other and then written between each other, as one run of memory. Rows and columns that no tap reaches
// are written as zeros on the way.
#pragma once
#include <cstdint>
#include <utility>

#include "../common/parallel.h"
#include "../common/shares.h"
#include "gemm_spread_plan.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

template <class Storage>
class Spreading {
 public:
  using C = compute_t<Storage>;

  Spreading(const SpreadPlan<Storage>& plan, const void* source, void* dest, const C* filters, C* memory)
      : plan_(plan),
        p_(plan.p),
        source_(static_cast<const Storage*>(source)),
        dest_(static_cast<Storage*>(dest)),
        filters_(filters),
        offsets_(reinterpret_cast<int64_t*>(memory)),
        staged_(memory + plan.table_size) {
    int64_t* to = offsets_;
    for (int64_t i = 0; i < plan.row_phases; ++i) {
      const Axis h = plan.row_axis(i);
      for (int64_t j = 0; j < plan.phases; ++j) {
        const Axis& w = plan.w[j];
        for (int64_t y = 0; y < h.taps; ++y) {
          for (int64_t x = 0; x < w.taps; ++x) {
            const int64_t row = h.offset + y * h.offset_step - plan.low_h;
            *to++ = row * plan.pitch + w.offset + x * w.offset_step - plan.low_w;
          }
        }
      }
    }
  }

  void run(Share& share) {
    for (int64_t task; share.next(&task);) {
      const int64_t group = task % p_.g, part = task / p_.g;
      const int64_t image = part / plan_.bands, first = part % plan_.bands * plan_.band;
      const int64_t last = smaller(first + plan_.band, plan_.rows);
      const Storage* planes = source_ + (image * p_.oc + group * plan_.source_channels) * p_.oh * p_.ow;
      for (int64_t channel = 0; channel < plan_.source_channels; ++channel) {
        stage(planes + channel * p_.oh * p_.ow, first, last, staged_ + channel * plan_.plane);
      }
      // Blocks of like height: a short one is slow.
      for (int64_t block = 0, row = 0; block < plan_.blocks; ++block) {
        const int64_t rows = ceil_div(plan_.dest_channels - row, plan_.blocks - block);
        const C* filters = filters_ + (group * plan_.blocks + block) * plan_.block_size;
        const int64_t channel = image * p_.ic + group * plan_.dest_channels + row;
        multiply(filters, rows, dest_ + channel * p_.ih * p_.iw, first, last);
        row += rows;
      }
    }
  }

 private:
  // Ascending in memory, since a copy spills past its end.
  void stage(const Storage* plane, int64_t first, int64_t last, C* to) const {
    const int64_t begin = clamped(-plan_.low_w, 0, plan_.pitch);
    const int64_t end = clamped(p_.ow - plan_.low_w, begin, plan_.pitch);
    for (int64_t r = 0; r < last - first + plan_.halo_h; ++r, to += plan_.pitch) {
      const int64_t h = first + r + plan_.low_h;
      if (h < 0 || h >= p_.oh || end == begin) {
        zero_spilling(to, plan_.pitch);
        continue;
      }
      zero_spilling(to, begin);
      copy_spilling(to + begin, plane + h * p_.ow + begin + plan_.low_w, end - begin);
      zero_spilling(to + end, plan_.pitch - end);
    }
  }

  // The planes of `rows` channels from `dest`, grid rows [first, last) of all phases.
  void multiply(const C* filters, int64_t rows, Storage* dest, int64_t first, int64_t last) const {
    const int64_t* offsets = offsets_;
    for (int64_t i = 0; i < plan_.row_phases; ++i) {
      const Axis h = plan_.row_axis(i);
      const int64_t end = smaller(last, h.count), taps = h.taps * plan_.column_taps;
      if (taps == 0) {
        for (int64_t r = first; r < end; ++r) clear(dest + (r * p_.sh + i) * p_.iw, rows);
      } else if (first < end) {
        multiply_phase(filters, offsets, h.taps, rows, dest + (first * p_.sh + i) * p_.iw, end - first);
      }
      filters += taps * plan_.source_channels * kTileRows;
      offsets += taps;
    }
  }

  void clear(Storage* row, int64_t rows) const {
    for (int64_t i = 0; i < rows; ++i, row += p_.ih * p_.iw) {
      for (int64_t j = 0; j < p_.iw; ++j) row[j] = narrow<Storage>(C(0));
    }
  }

  // `count` grid rows of one row phase, of which `dest` is the first.
  void multiply_phase(const C* filters, const int64_t* offsets, int64_t row_taps, int64_t rows, Storage* dest,
                      int64_t count) const {
    constexpr int64_t pitch = kSpreadWidth<C>, piece = kTileRows * pitch;
    alignas(64) C sums[kSpreadPhases * piece];
    const int64_t width = kLanes<C> * (2 * rows <= kTileRows ? 2 : 1) * kTileVectors;
    const int64_t columns = plan_.pitch - plan_.halo_w, positions = count * plan_.pitch - plan_.halo_w;
    for (int64_t j = 0; j < plan_.phases; ++j) {
      if (plan_.w[j].taps == 0) zero_spilling(sums + j * piece, piece);
    }
    int64_t w = 0;
    for (int64_t q = 0; q < positions; q += width) {
      // What will be written comes while the sums are made.
      for (int64_t i = 0; i < rows; ++i) {
        const Storage* line = dest + i * p_.ih * p_.iw + w * p_.sw;
        for (int64_t j = 0; j < width * p_.sw; j += 64 / sizeof(Storage)) __builtin_prefetch(line + j, 1);
      }
      SpreadCall<C> call{plan_.source_channels, 0, filters, staged_ + q, plan_.plane, offsets, sums};
      for (int64_t j = 0; j < plan_.phases; ++j, call.out += piece) {
        call.taps = row_taps * plan_.w[j].taps;
        if (call.taps == 0) continue;
        spread_tile_of<C>(rows, call, std::make_integer_sequence<int, kTileRows>{});
        call.a += call.taps * plan_.source_channels * kTileRows;
        call.offsets += call.taps;
      }
      // On to where the next tile begins, storing the pieces of rows on the way.
      const int64_t wanted = smaller(width, positions - q);
      for (int64_t done = 0; done < wanted;) {
        const int64_t step = smaller(wanted - done, plan_.pitch - w), n = smaller(step, columns - w);
        if (n > 0) store_piece(sums + done, rows, n, w, dest);
        done += step;
        w += step;
        if (w == plan_.pitch) w = 0, dest += p_.sh * p_.iw;
      }
    }
  }

  // n grid positions from w of a row.
  void store_piece(const C* sums, int64_t rows, int64_t n, int64_t w, Storage* dest) const {
    constexpr int64_t pitch = kSpreadWidth<C>, piece = kTileRows * pitch;
    dest += w * p_.sw;
    const int64_t elements = smaller(n * plan_.phases, p_.iw - w * p_.sw);
    for (int64_t i = 0; i < rows; ++i, sums += pitch, dest += p_.ih * p_.iw) {
      if (plan_.phases == 2) {
        interleave<2>(sums, piece, elements, dest);
      } else if (plan_.phases == 3) {
        interleave<3>(sums, piece, elements, dest);
      } else {
        interleave<4>(sums, piece, elements, dest);
      }
    }
  }

  const SpreadPlan<Storage>& plan_;
  const Conv2d& p_;
  const Storage* source_;
  Storage* dest_;
  const C* filters_;
  int64_t* offsets_;
  C* staged_;
};

template <class Storage>
int64_t spread_workspace(const Conv2d& p, int64_t threads) {
  const SpreadPlan<Storage> plan(p, threads);
  return (plan.filters_size + threads * plan.slab_size) * sizeof(compute_t<Storage>);
}

template <class Storage>
int32_t spread(const Conv2d& p, const Buffers& b) {
  using C = compute_t<Storage>;
  const SpreadPlan<Storage> plan(p, b.threads);
  C* filters = static_cast<C*>(b.workspace);
  const int32_t error = parallel_for(p.g * plan.blocks, 1, [&](int64_t begin, int64_t end) {
    pack_spread_filters(plan, static_cast<const Storage*>(b.w), begin, end, filters);
  });
  if (error != 0) return error;
  return for_each_share(plan.tasks, b.threads, [&](int64_t slab, Share& share) {
    Spreading<Storage> work(plan, b.y, b.x, filters, filters + plan.filters_size + slab * plan.slab_size);
    work.run(share);
  });
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

// Deep products: where the depth is so long that a block of whole source columns would be a few pixels wide, and all
// filters be read anew for every few pixels, the depth is cut too, and a block's sums are added up in memory. After
// Goto and van de Geijn: kDeepBlock of a panel of filters stay in the first-level cache, the packed block of source
// values in the second. A tile whose pixels all miss the image in a block's taps is left out: with wide dilation most
// are, which is the other reason to come here. Where all pixels are one block, a piece of the filters is used in one
// place alone, and is packed there, in the first-level cache, instead of going to memory and back beforehand.
#pragma once
#include <cstdint>

#include "../common/parallel.h"
#include "gemm_source.h"
#include "gemm_store.h"
#include "gemm_weights.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

constexpr int64_t kDeepBlock = 256;
constexpr int64_t kDeepPixels = 256;

// How many of an axis's taps meet the source, over all grid positions.
inline int64_t taps_met(const Axis& axis) {
  int64_t met = 0;
  for (int64_t j = 0; j < axis.taps; ++j) {
    int64_t begin, end;
    axis.valid(j, &begin, &end);
    met += end - begin;
  }
  return met;
}

// Whether a block of the depth lies in one tap, and whether filters lie such that a block of them can be packed alone.
inline bool blocks_lie_in_taps(const Correlation& c) {
  return c.tap_major && (c.taps() == 1 || c.source_channels >= kDeepBlock / 2);
}
inline bool packs_piecewise(const Correlation& c) {
  return c.nhwc && blocks_lie_in_taps(c) && (c.weight_source == 1 || c.weight_dest == 1);
}

// Whether packing filters piecewise pays, if their strides allow it.
template <class Compute>
bool suits_pieces(const Correlation& c) {
  return c.nhwc && blocks_lie_in_taps(c) && c.taps() > 1 && c.pixels() <= kDeepPixels &&
         fitting_pixels<Compute>(c) <= kFewPixels;
}

// Whether a block of whole source columns would have too few pixels for what is read of the filters, or filters are
// best packed piecewise, or most of such a block would be zeros beside the image, which one of a few taps leaves out.
template <class Compute>
bool suits_deep(const Correlation& c) {
  if (suits_pieces<Compute>(c) && packs_piecewise(c)) return true;
  const int64_t fitting = fitting_pixels<Compute>(c);
  if (c.pixels() <= fitting) return false;
  const bool mostly_zeros = 2 * taps_met(c.h) * taps_met(c.w) < c.taps() * c.h.count * c.w.count;
  return fitting < kFewPixels || (c.nhwc && mostly_zeros && c.source_channels >= kDeepBlock / 4);
}

template <class Storage>
struct DeepPlan {
  using C = compute_t<Storage>;
  int64_t unit, block, blocks, whole, depth_block, filters, tasks, pitch, tiles, source_size, sums_size, kept_sums,
      slab_size;
  bool piecewise;  // filters are packed where they are used, should they not be packed already

  DeepPlan(const Correlation& c, int64_t threads) {
    const int64_t pixels = c.pixels();
    unit = c.nhwc ? kTileRows : kTileColumns<C>;
    filters = weight_blocks<C>(c);
    blocks = ceil_div(pixels, kDeepPixels);
    // Every thread gets as many blocks as the next, of like size; or a part of the filters, where those are more.
    const bool shares_filters = pixels <= c.dest_channels && filters * c.groups >= 4 * threads;
    if (!shares_filters) blocks = round_up(blocks, smaller(threads, ceil_div(pixels, 4 * unit)));
    block = round_up(ceil_div(pixels, blocks), unit);
    blocks = ceil_div(pixels, block);
    whole = larger(1, blocks_lie_in_taps(c) ? c.source_channels : c.depth());
    depth_block = ceil_div(whole, ceil_div(whole, kDeepBlock));
    tasks = blocks * c.groups * filters;
    pitch = packed_pitch<C>(c.nhwc ? depth_block : block);
    tiles = block / unit;
    source_size = round_up((c.nhwc ? block : depth_block) * pitch, 64) + 64;
    sums_size = tiles * kTileRows * kTileColumns<C>;
    kept_sums = smaller(filters, ceil_div(tasks, threads)) * sums_size;
    piecewise = blocks == 1 && packs_piecewise(c);
    // Whatever the strides of the filters, by which no workspace is asked for.
    const int64_t piece_size = c.nhwc && blocks == 1 ? round_up(depth_block * kTileColumns<C> + kLanes<C>, 64) : 0;
    slab_size = source_size + kept_sums + piece_size;
  }

  // Where the block of the depth that begins at k ends: at the latest where its tap does.
  int64_t block_end(int64_t k, int64_t depth) const {
    return smaller(smaller(k + depth_block, (k / whole + 1) * whole), depth);
  }
};

template <class Storage>
class Deep {
 public:
  using C = compute_t<Storage>;

  // `w`: filters as they lie, to be packed piecewise; null where `filters` are ready.
  Deep(const Correlation& c, const DeepPlan<Storage>& plan, const void* source, const Filters<C>& filters,
       const void* w, void* dest, const void* bias, C* memory)
      : c_(c),
        plan_(plan),
        source_(static_cast<const Storage*>(source)),
        filters_(filters),
        w_(static_cast<const Storage*>(w)),
        dest_(static_cast<Storage*>(dest)),
        bias_(static_cast<const Storage*>(bias)),
        packed_(memory),
        sums_(memory + plan.source_size),
        piece_(sums_ + plan.kept_sums) {}

  // Tasks are ordered (pixel block, group, block of filters).
  void run(int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end;) {
      const int64_t first = task % plan_.filters, last = smaller(plan_.filters, first + end - task);
      const int64_t part = task / plan_.filters, group = part % c_.groups, pixel = part / c_.groups * plan_.block;
      Block block{pixel, smaller(pixel + plan_.block, c_.pixels()), 0, 0};
      for (; block.k < c_.depth(); block.k = block.k_end) {
        block.k_end = plan_.block_end(block.k, c_.depth());
        mark(block);
        pack(block, group);
        for (int64_t filter = first; filter < last; ++filter) add(block, group, filter, sums(filter - first));
      }
      for (int64_t filter = first; filter < last; ++filter) finish(block, group, filter, sums(filter - first));
      task += last - first;
    }
  }

 private:
  C* sums(int64_t index) const { return sums_ + index * plan_.sums_size; }

  // Which tiles of pixels meet the image in the taps of this block of the depth.
  void mark(const Block& block) {
    const int64_t channels = c_.source_channels;
    const int64_t first = c_.tap_major ? block.k / channels : 0;
    const int64_t last = c_.tap_major ? ceil_div(block.k_end, channels) : c_.taps();
    for (int64_t i = 0; i < plan_.tiles; ++i) met_[i] = false;
    for (int64_t tap = first; tap < last; ++tap) {
      int64_t top, bottom, left, right;
      c_.h.valid(tap / c_.w.taps, &top, &bottom);
      c_.w.valid(tap % c_.w.taps, &left, &right);
      Cursor at(c_, block.pixel);
      for (int64_t i = 0; i < block.pixel_end - block.pixel; ++i, at.advance(c_, 1)) {
        if (at.h >= top && at.h < bottom && at.w >= left && at.w < right) met_[i / plan_.unit] = true;
      }
    }
  }

  void pack(const Block& block, int64_t group) const {
    if (!c_.nhwc) return pack_lines(c_, source_, group, block, packed_, plan_.pitch);
    for (int64_t i = 0; i < plan_.tiles; ++i) {
      const int64_t pixel = block.pixel + i * kTileRows;
      const Block tile{pixel, smaller(pixel + kTileRows, block.pixel_end), block.k, block.k_end};
      if (met_[i]) pack_rows(c_, source_, group, tile, packed_ + i * kTileRows * plan_.pitch, plan_.pitch);
    }
  }

  // The weights of a block of filters in a block of the depth, from the first.
  const Storage* piece(const Block& block, int64_t group, int64_t filter) const {
    const int64_t channels = c_.source_channels;
    const Storage* w = w_ + group * c_.weight_group + filter * kTileColumns<C> * c_.weight_dest;
    return w + tap_offset(c_, block.k / channels) + block.k % channels * c_.weight_source;
  }

  void pack_piece(const Block& block, const Storage* w, int64_t count) const {
    constexpr int64_t lanes = kLanes<C>;
    for (int64_t j = 0; j < count; j += lanes) {
      pack_panel_run(c_, w + j * c_.weight_dest, block.k_end - block.k, smaller(lanes, count - j), piece_ + j);
    }
  }

  // Part `part` of `parts` of the weights that are packed next.
  void fetch_piece(const Block& block, const Storage* w, int64_t part, int64_t parts) const {
    constexpr int64_t line = 64 / int64_t(sizeof(Storage));
    const bool rows = c_.weight_dest != 1;
    const int64_t count = kTileColumns<C>, depth = block.k_end - block.k;
    const int64_t outer = rows ? count : depth, inner = rows ? depth : count;
    const int64_t step = rows ? c_.weight_dest : c_.weight_source;
    for (int64_t i = outer * part / parts; i < outer * (part + 1) / parts; ++i) {
      for (int64_t j = 0; j < inner; j += line) __builtin_prefetch(w + i * step + j, 0, 2);
    }
  }

  // The rows of a tile are pixels in nhwc, filters in nchw.
  void add(const Block& block, int64_t group, int64_t filter, C* sums) const {
    constexpr int64_t width = kTileColumns<C>;
    const int64_t pixels = block.pixel_end - block.pixel, depth = block.k_end - block.k;
    const int64_t others = c_.dest_channels - filter * (c_.nhwc ? width : kTileRows);
    const C* weights = piece_;
    if (w_ != nullptr) {
      pack_piece(block, piece(block, group, filter), smaller(width, others));
    } else {
      weights = filters_.at(c_, group, filter) + block.k * (c_.nhwc ? width : 1);
    }
    const bool fetches = w_ != nullptr && filter + 1 < plan_.filters;
    const Storage* next = fetches ? piece(block, group, filter + 1) : nullptr;
    TileCall<C> call{depth, packed_, plan_.pitch, weights, width, sums, width, block.k > 0};
    if (!c_.nhwc) call = {depth, weights, filters_.pitch, packed_, plan_.pitch, sums, width, block.k > 0};
    const int64_t tiles = ceil_div(pixels, plan_.unit);
    for (int64_t i = 0; i < tiles; ++i, call.out += kTileRows * width) {
      if (fetches) fetch_piece(block, next, i, tiles);
      const int64_t count = smaller(plan_.unit, pixels - i * plan_.unit);
      if (!met_[i]) {
        if (block.k == 0) zero_spilling(call.out, kTileRows * width);
      } else if (c_.nhwc) {
        call.a = packed_ + i * kTileRows * plan_.pitch;
        multiply_tile(count, smaller(width, others), call);
      } else {
        call.b = packed_ + i * width;
        multiply_tile(smaller(kTileRows, others), count, call);
      }
    }
  }

  void finish(const Block& block, int64_t group, int64_t filter, const C* sums) const {
    constexpr int64_t width = kTileColumns<C>;
    const int64_t first = filter * (c_.nhwc ? width : kTileRows), channel = group * c_.dest_channels + first;
    const Storage* bias = bias_ != nullptr ? bias_ + channel : nullptr;
    const int64_t pixels = block.pixel_end - block.pixel;
    if (c_.nhwc) {
      store_rows(c_, dest_ + channel, bias, block.pixel, pixels, smaller(width, c_.dest_channels - first), sums);
      return;
    }
    const int64_t rows = smaller(kTileRows, c_.dest_channels - first);
    for (int64_t i = 0; i < pixels; i += width, sums += kTileRows * width) {
      store_lines(c_, dest_ + channel * c_.dest.channel, bias, block.pixel + i, rows, smaller(width, pixels - i), sums);
    }
  }

  const Correlation& c_;
  const DeepPlan<Storage>& plan_;
  const Storage* source_;
  const Filters<C>& filters_;
  const Storage* w_;
  Storage* dest_;
  const Storage* bias_;
  C* packed_;
  C* sums_;
  C* piece_;
  bool met_[kDeepPixels / kTileRows + 1];
};

template <class Storage>
int32_t correlate_deep(const Correlation& c, const void* source, const Filters<compute_t<Storage>>& filters,
                       const void* w, void* dest, const void* bias, compute_t<Storage>* slabs, int64_t threads) {
  const DeepPlan<Storage> plan(c, threads);
  return parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t slab = begin; slab < end; ++slab) {
      Deep<Storage> work(c, plan, source, filters, w, dest, bias, slabs + slab * plan.slab_size);
      work.run(plan.tasks * slab / threads, plan.tasks * (slab + 1) / threads);
    }
  });
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

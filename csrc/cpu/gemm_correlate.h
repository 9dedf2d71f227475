// The forward pass and the input gradient: which of the forms of a product a correlation takes, and its filters made
// ready for it.
#pragma once
#include <cstdint>

#include "../common/parallel.h"
#include "gemm_band.h"
#include "gemm_blocks.h"
#include "gemm_deep.h"
#include "gemm_grid.h"
#include "gemm_narrow.h"
#include "gemm_store.h"
#include "gemm_thin.h"
#include "gemm_weights.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

// Filters as they lie, when they lie as pack_filter_rows would lay them but for the pitch.
template <class Storage>
bool filters_in_place(const Correlation& c) {
  const int64_t depth = c.depth();
  const bool dense = taps_are_dense(c) && c.weight_source == c.taps() && c.weight_dest == depth;
  return !c.nhwc && !c.tap_major && std::is_same_v<Storage, compute_t<Storage>> && dense &&
         depth * int64_t(sizeof(Storage)) % 2048 != 0 && tap_offset(c, 0) == 0;
}

enum class Form { thin, narrow, bands, grid, deep, blocks };

template <class Storage>
Form form_of(const Correlation& c) {
  using C = compute_t<Storage>;
  if (suits_thin<Storage>(c)) return Form::thin;
  if (suits_narrow<C>(c)) return Form::narrow;
  if (suits_bands(c)) return Form::bands;
  if (cut_channels<Storage>(c) < c.source_channels) return Form::blocks;
  if (suits_grid(c)) return Form::grid;
  return suits_deep<C>(c) ? Form::deep : Form::blocks;
}

// Elements that a thread works in.
template <class Storage>
int64_t correlate_slab(const Correlation& c, int64_t threads) {
  switch (form_of<Storage>(c)) {
    case Form::thin: return 0;
    case Form::narrow: return NarrowPlan<Storage>(c, threads).slab_size;
    case Form::bands: return BandPlan<Storage>(c, threads).slab_size;
    case Form::grid: return GridPlan<Storage>(c, threads).slab_size;
    case Form::deep:
    case Form::blocks: break;
  }
  // Which of the two it will be depends on how the filters lie, and workspace is asked for before that is known.
  const bool deep = suits_deep<compute_t<Storage>>(c) || suits_pieces<compute_t<Storage>>(c);
  return larger(blocks_slab<Storage>(c, threads), deep ? DeepPlan<Storage>(c, threads).slab_size : 0);
}

template <class Storage>
int64_t correlate_workspace(const Correlation& c, int64_t threads) {
  if (c.pixels() == 0 || c.taps() == 0) return 0;
  using C = compute_t<Storage>;
  return (round_up(packed_weight_size<C>(c), 64) + threads * correlate_slab<Storage>(c, threads)) * sizeof(C);
}

// `w` is packed already when `packed` says so.
template <class Storage>
int32_t correlate(const Correlation& c, const void* source, const void* w, bool packed, void* dest, const void* bias,
                  void* workspace, int64_t threads) {
  using C = compute_t<Storage>;
  if (c.pixels() == 0) return 0;
  if (c.taps() == 0) {
    return parallel_for(c.pixels(), 256, [&](int64_t begin, int64_t end) {
      store_zeros(c, static_cast<Storage*>(dest), begin, end);
    });
  }
  const Form form = form_of<Storage>(c);
  C* slabs = static_cast<C*>(workspace);
  Filters<C> filters{static_cast<const C*>(w), packed_pitch<C>(c.depth()), packed_block_size<C>(c)};
  const void* lying = nullptr;
  if (!packed && filters_in_place<Storage>(c)) {
    filters.pitch = c.weight_dest;
    filters.block = 0;
  } else if (!packed && (form == Form::blocks || (form == Form::deep && DeepPlan<Storage>(c, threads).piecewise))) {
    lying = w;  // packed as it is used
  } else if (!packed) {
    const int32_t error = pack_weights(c, static_cast<const Storage*>(w), slabs);
    if (error != 0) return error;
    filters.data = slabs;
    slabs += round_up(packed_weight_size<C>(c), 64);
  }
  switch (form) {
    case Form::thin:
      if constexpr (std::is_same_v<Storage, C>) return correlate_thin<Storage>(c, source, filters, dest, bias, threads);
      return 0;  // it is not for other types
    case Form::narrow: return correlate_narrow<Storage>(c, source, filters.data, dest, bias, slabs, threads);
    case Form::bands: return correlate_bands<Storage>(c, source, filters.data, dest, bias, slabs, threads);
    case Form::grid: {
      const int64_t group = filters.block == 0 ? c.weight_group : weight_blocks<C>(c) * filters.block;
      return correlate_grid<Storage>(c, source, filters.data, group, filters.pitch, dest, bias, slabs, threads);
    }
    case Form::deep: return correlate_deep<Storage>(c, source, filters, lying, dest, bias, slabs, threads);
    case Form::blocks: break;
  }
  return correlate_blocks<Storage>(c, source, filters, lying, dest, bias, slabs, threads);
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

// The Winograd convolution of either pass: transform the input, multiply point by point, transform back.
#pragma once
#include <cstdint>

#include "../common/parallel.h"
#include "../common/shares.h"
#include "winograd_input.h"
#include "winograd_output.h"
#include "winograd_weights.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace winograd {

template <class Storage, int m>
struct Correlating {
  using C = compute_t<Storage>;
  static constexpr int64_t width = kTileColumns<C>;
  const Plan<Storage, m>& plan;
  const Storage* source;
  const Storage* w;
  const C* filters;  // transformed before the call, or null
  Storage* dest;
  const Storage* bias;
  C* shared;
  C* slabs;

  C* slab(int64_t thread) const { return slabs + thread * plan.slab_size(); }
  // What follows the two large pieces of a slab.
  C* staged(int64_t thread) const {
    return slab(thread + 1) - plan.staged_size - plan.drained_size - plan.zeros_size;
  }
  InputTransform<Storage, m> input(int64_t thread) const {
    C* zeros = slab(thread + 1) - plan.zeros_size;
    for (int64_t k = 0; k < plan.zeros_size; ++k) zeros[k] = C(0);
    return {plan, source, staged(thread), zeros};
  }
  OutputTransform<Storage, m> output(int64_t thread) const {
    return {plan, source, w, dest, bias, staged(thread) + plan.staged_size};
  }

  // sums (+)= V * U for a block, channels [k, k_end) of a panel whose first is u's.
  void multiply(int64_t tiles, int64_t panel, const C* v, const C* u, int64_t u_step, int64_t k, int64_t k_end,
                C* sums) const {
    const int64_t columns = smaller(width, plan.shape.oc - panel * width);
    const int64_t parts = ceil_div(tiles, kTileRows);
    for (int64_t point = 0; point < plan.kPoints; ++point) {
      for (int64_t begin = k; begin < k_end; begin += plan.kDepth) {
        gemm::TileCall<C> call{smaller(plan.kDepth, k_end - begin), v + point * plan.v_step + begin, plan.pitch,
                               u + point * u_step + (begin - k) * width, width, sums + point * plan.s_step, width,
                               begin > 0};
        // Register tiles of like height: a low one does not keep the multipliers busy.
        for (int64_t part = 0; part < parts; ++part) {
          const int64_t rows = tiles * (part + 1) / parts - tiles * part / parts;
          gemm::multiply_tile(rows, columns, call);
          call.a += rows * plan.pitch;
          call.out += rows * width;
        }
      }
    }
  }

  int32_t transform_filters(C* to) const {
    const int64_t chunks = ceil_div(plan.shape.ic, plan.kDepth);
    return parallel_for(plan.panels * chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t panel = task / chunks, k = task % chunks * plan.kDepth;
        transform_panel<Storage, m>(plan.shape, w, panel * width, k, smaller(k + plan.kDepth, plan.shape.ic),
                                    to + panel * plan.u_size + k * width, plan.u_step);
      }
    });
  }

  int32_t run_blocks(int64_t threads) const {
    const C* u = filters;
    if (u == nullptr) {
      const int32_t error = transform_filters(shared);
      if (error != 0) return error;
      u = shared;
    }
    return for_each_share(plan.blocks, threads, [&](int64_t thread, Share& share) {
      const auto in = input(thread);
      const auto out = output(thread);
      C* v = slab(thread);
      C* sums = v + plan.v_size;
      for (int64_t block; share.next(&block);) {
        in.block(block, v);
        const int64_t tiles = plan.tiles_of(block);
        for (int64_t panel = 0; panel < plan.panels; ++panel) {
          multiply(tiles, panel, v, u + panel * plan.u_size, plan.u_step, 0, plan.shape.ic, sums);
          out.block(block, panel, sums);
        }
      }
    });
  }

  int32_t run_filters(int64_t threads) const {
    const int32_t error = for_each_share(plan.blocks, threads, [&](int64_t thread, Share& share) {
      const auto in = input(thread);
      for (int64_t block; share.next(&block);) in.block(block, shared + block * plan.v_size);
    });
    if (error != 0) return error;
    // Where panels are too few for the threads, each is shared by several, which divide the blocks.
    const int64_t shares = smaller(plan.blocks, ceil_div(threads, plan.panels)), tasks = plan.panels * shares;
    return for_each_share(tasks, threads, [&](int64_t thread, Share& share) {
      const auto out = output(thread);
      for (int64_t task; share.next(&task);) {
        const int64_t part = task % shares;
        panel_task(task / shares, plan.blocks * part / shares, plan.blocks * (part + 1) / shares, thread, out);
      }
    });
  }

  void panel_task(int64_t panel, int64_t block, int64_t block_end, int64_t thread,
                  const OutputTransform<Storage, m>& out) const {
    C* transformed = slab(thread);
    C* sums = transformed + plan.chunk_size;
    for (int64_t k = 0; k < plan.shape.ic; k += plan.kDepth) {
      const int64_t k_end = smaller(k + plan.kDepth, plan.shape.ic);
      const C* u = filters != nullptr ? filters + panel * plan.u_size + k * width : transformed;
      if (filters == nullptr) {
        transform_panel<Storage, m>(plan.shape, w, panel * width, k, k_end, transformed, plan.chunk_step);
      }
      for (int64_t index = block; index < block_end; ++index) {
        C* own = sums + (index - block) % plan.kept_sums * plan.s_size;
        multiply(plan.tiles_of(index), panel, shared + index * plan.v_size, u,
                 filters != nullptr ? plan.u_step : plan.chunk_step, k, k_end, own);
        if (k_end == plan.shape.ic) out.block(index, panel, own);
      }
    }
  }
};

template <class Storage, int m>
int32_t correlate(const gemm::Correlation& c, const void* source, const void* w, bool packed, void* dest,
                  const void* bias, void* workspace, int64_t threads) {
  using C = compute_t<Storage>;
  if (c.pixels() == 0) return 0;
  Plan<Storage, m> plan(c, threads);
  const C* filters = nullptr;
  if (packed) {
    filters = static_cast<const C*>(w);
    w = filters + plan.panels * plan.u_size;
  }
  C* shared = static_cast<C*>(workspace);
  const Correlating<Storage, m> work{plan,
                                     static_cast<const Storage*>(source),
                                     static_cast<const Storage*>(w),
                                     filters,
                                     static_cast<Storage*>(dest),
                                     static_cast<const Storage*>(bias),
                                     shared,
                                     shared + plan.shared_size()};
  return plan.filters_outer ? work.run_filters(threads) : work.run_blocks(threads);
}

// Packed filters are their transforms, then the filters themselves, [oc][ic][3][3], for tiles computed without.
template <class Storage, int m>
int64_t packed_bytes(const gemm::Correlation& c) {
  const Plan<Storage, m> plan(c, 1);
  return plan.panels * plan.u_size * sizeof(compute_t<Storage>) + 9 * plan.shape.oc * plan.shape.ic * sizeof(Storage);
}

template <class Storage, int m>
int32_t pack(const gemm::Correlation& c, const Storage* w, void* to) {
  using C = compute_t<Storage>;
  const Plan<Storage, m> plan(c, 1);
  const Shape& s = plan.shape;
  C* u = static_cast<C*>(to);
  for (int64_t i = 0; i < plan.panels * plan.u_size; ++i) u[i] = C(0);
  Storage* kept = reinterpret_cast<Storage*>(u + plan.panels * plan.u_size);
  for (int64_t dest = 0; dest < s.oc; ++dest) {
    for (int64_t channel = 0; channel < s.ic; ++channel) {
      const Storage* from = w + dest * s.weight_dest + channel * s.weight_source;
      for (int64_t tap = 0; tap < 9; ++tap) *kept++ = from[tap / 3 * s.weight_h + tap % 3 * s.weight_w];
    }
  }
  return Correlating<Storage, m>{plan, nullptr, w, nullptr, nullptr, nullptr, nullptr, nullptr}.transform_filters(u);
}

}  // namespace winograd
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

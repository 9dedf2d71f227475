// What the wgmma kernels are told of a problem: phases, tiles, shares of the sum and the workspace.
#pragma once
#include <algorithm>
#include <numeric>
#include <vector>

#include "conv_wgmma_correlate.h"
#include "conv_wgmma_grad_weight.h"
#include "conv_wgmma_passes.h"

namespace spatialconv {
namespace cuda {
namespace wgmma_conv {

constexpr int32_t kInvalidValue = 1;  // cudaErrorInvalidValue

inline int64_t taps_of(const Conv2d& p) { return p.kh * p.kw; }
inline int64_t weight_count(const Conv2d& p) { return p.oc * taps_of(p) * (p.ic / p.g); }

// Whether the weights lie as [oc][tap][ic of a group], as channels_last ones do.
inline bool weights_are_ordered(const Conv2d& p) {
  const int64_t channels = p.ic / p.g;
  return (p.w_stride[1] == 1 || channels == 1) && (p.w_stride[3] == channels || p.kw == 1) &&
         (p.w_stride[2] == p.kw * channels || p.kh == 1) && (p.w_stride[0] == taps_of(p) * channels || p.oc == 1);
}

// The copy engine reads 16 bytes at a time, and the kernels count pixels and weights in 32 bits.
inline bool within_limits(const Conv2d& p) {
  constexpr int64_t kMost = (int64_t{1} << 31) - 1024;
  const bool channels_last = (p.x_stride[1] == 1 || p.ic == 1) && (p.y_stride[1] == 1 || p.oc == 1);
  return channels_last && p.ic / p.g % 8 == 0 && p.n * p.oh * p.ow < kMost && p.n * p.ih * p.iw < kMost &&
         p.ic < kMost && p.oc < kMost && taps_of(p) < kMost / larger(p.ic, p.oc);
}

// Blocks step through work units in 32 bits.
inline bool countable(int64_t tiles, int64_t splits) { return tiles * splits < (int64_t{1} << 31) - 65536; }

// One axis of a phase of grad_input, or of forward, which has one phase.
struct AxisPlan {
  PhaseAxis axis;
  int64_t lower, offset;  // see Phase
};

inline AxisPlan forward_axis(int64_t out, int64_t kernel, int64_t padding, int64_t dilation) {
  return {{0, static_cast<int32_t>(out), 0, static_cast<int32_t>(kernel)}, -padding, dilation};
}

// The walk's last position, counted from the image's last.
inline int64_t upper_corner(const AxisPlan& plan, int64_t step, int64_t size) {
  return plan.lower + (plan.axis.count - 1) * step - (size - 1);
}

// Whether the copy engine can walk `size` source positions as the plan says: its fields are narrow.
inline bool walkable(const AxisPlan& plan, int64_t step, int64_t size) {
  const auto corner = [](int64_t position) { return -128 <= position && position <= 127; };
  return step <= 8 && corner(plan.lower) && corner(upper_corner(plan, step, size)) &&
         (plan.axis.taps - 1) * plan.offset <= 255;
}

// Input pixels first, first + stride, ... meet the taps k with first + padding - k * dilation a multiple of the stride,
// at grad_output's position of that quotient. Taps are read from the last to the first, as their positions rise.
inline AxisPlan phase_axis(int64_t first, int64_t in, int64_t kernel, int64_t stride, int64_t padding,
                           int64_t dilation) {
  const int64_t tap_step = stride / std::gcd(stride, dilation);
  AxisPlan plan{{static_cast<int32_t>(first), static_cast<int32_t>(ceil_div(in - first, stride)), 0, 0}, 0, 0};
  for (int64_t tap = 0; tap < smaller(kernel, tap_step); ++tap) {
    const int64_t position = first + padding - tap * dilation;
    if (position % stride != 0) continue;
    const int64_t taps = (kernel - 1 - tap) / tap_step + 1, last = tap + (taps - 1) * tap_step;
    plan.axis.first_tap = static_cast<int32_t>(last);
    plan.axis.taps = static_cast<int32_t>(taps);
    plan.lower = (first + padding - last * dilation) / stride;
    plan.offset = dilation / std::gcd(stride, dilation);
  }
  return plan;
}

struct PhasePlan {
  AxisPlan h, w;
  int64_t taps() const { return int64_t{h.axis.taps} * w.axis.taps; }
  int64_t pixels(const Conv2d& p) const { return p.n * h.axis.count * w.axis.count; }
};

// The phases that hold pixels, those with the most work first so that the last wave is short.
inline std::vector<PhasePlan> phases_of(const Conv2d& p, bool grad_input) {
  if (!grad_input) return {{forward_axis(p.oh, p.kh, p.ph, p.dh), forward_axis(p.ow, p.kw, p.pw, p.dw)}};
  std::vector<PhasePlan> phases;
  for (int64_t h = 0; h < smaller(p.sh, p.ih); ++h) {
    for (int64_t w = 0; w < smaller(p.sw, p.iw); ++w) {
      phases.push_back({phase_axis(h, p.ih, p.kh, p.sh, p.ph, p.dh), phase_axis(w, p.iw, p.kw, p.sw, p.pw, p.dw)});
    }
  }
  std::stable_sort(phases.begin(), phases.end(),
                   [](const PhasePlan& a, const PhasePlan& b) { return a.taps() > b.taps(); });
  return phases;
}

struct CorrelationPlan {
  bool possible = false;
  std::vector<PhasePlan> phases;
  Cover cover;
  int64_t result_count;    // elements
  int64_t ordered_bytes;   // of the workspace: weights in order
  int64_t partial_stride;  // floats from one share to the next
  int64_t workspace() const {
    if (!possible) return -1;
    return ordered_bytes + (cover.splits > 1 ? cover.splits * partial_stride * 4 : 0);
  }
};

inline int64_t ordered_bytes(const Conv2d& p) {
  return weights_are_ordered(p) ? 0 : round_up(weight_count(p) * 2, 256);
}

inline CorrelationPlan plan_correlation(const Conv2d& p, bool grad_input, int64_t multiprocessors) {
  CorrelationPlan plan;
  const int64_t channels = (grad_input ? p.ic : p.oc) / p.g, source = (grad_input ? p.oc : p.ic) / p.g;
  if (!within_limits(p) || source % 8 != 0 || (p.g > 1 && source % kDepth != 0)) return plan;
  plan.phases = phases_of(p, grad_input);
  plan.possible = true;
  int64_t row_tiles = 0, steps = 0;
  for (const PhasePlan& phase : plan.phases) {
    const bool reachable = grad_input ? walkable(phase.h, 1, p.oh) && walkable(phase.w, 1, p.ow)
                                      : walkable(phase.h, p.sh, p.ih) && walkable(phase.w, p.sw, p.iw);
    plan.possible = plan.possible && (phase.taps() == 0 || reachable);
    row_tiles += ceil_div(phase.pixels(p), kRows);
    steps += phase.taps() * ceil_div(source, kDepth);
  }
  const int64_t mean_steps = ceil_div(steps, static_cast<int64_t>(plan.phases.size()));
  plan.result_count = grad_input ? p.n * p.ih * p.iw * p.ic : p.n * p.oh * p.ow * p.oc;
  plan.partial_stride = round_up(plan.result_count, kSumPiece);
  plan.ordered_bytes = ordered_bytes(p);
  const auto tiles = [&](int64_t columns) { return row_tiles * p.g * ceil_div(channels, columns); };
  const bool one_launch = static_cast<int64_t>(plan.phases.size()) <= kMostPhases;
  plan.cover = choose_cover(tiles, mean_steps, plan.result_count, multiprocessors, one_launch);
  plan.possible = plan.possible && countable(tiles(plan.cover.columns), plan.cover.splits);
  return plan;
}

struct GradWeightPlan {
  bool possible = false;
  AxisPlan h, w;
  Cover cover;
  int64_t group_row_tiles, column_tiles, steps;
  int64_t partial_stride;
  int64_t workspace() const { return possible ? cover.splits * partial_stride * 4 : -1; }
};

inline GradWeightPlan plan_grad_weight(const Conv2d& p, int64_t multiprocessors) {
  GradWeightPlan plan;
  const bool whole_groups = p.g == 1 || (p.oc / p.g % 64 == 0 && p.ic / p.g % 64 == 0);
  if (!within_limits(p) || p.oc % 8 != 0 || !whole_groups) return plan;
  plan.h = forward_axis(p.oh, p.kh, p.ph, p.dh);
  plan.w = forward_axis(p.ow, p.kw, p.pw, p.dw);
  const int64_t boxes = taps_of(p) * ceil_div(p.ic / p.g, 64);
  plan.group_row_tiles = ceil_div(p.oc / p.g, kRows);
  plan.steps = ceil_div(p.n * p.oh * p.ow, kDepth);
  plan.partial_stride = round_up(weight_count(p), kSumPiece);
  const auto tiles = [&](int64_t columns) { return p.g * plan.group_row_tiles * ceil_div(boxes, columns / 64); };
  plan.cover = choose_cover(tiles, plan.steps, plan.partial_stride, multiprocessors, true);
  plan.column_tiles = ceil_div(boxes, plan.cover.columns / 64);
  plan.possible = walkable(plan.h, p.sh, p.ih) && walkable(plan.w, p.sw, p.iw) &&
                  countable(tiles(plan.cover.columns), plan.cover.splits);
  return plan;
}

}  // namespace wgmma_conv
}  // namespace cuda
}  // namespace spatialconv

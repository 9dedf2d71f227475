// The gradient of max pooling (a scatter-add by indices) and its derivative (a gather by the same indices). An index
// outside the plane is ignored, and so is whatever stands at the output of a window without input elements.
#pragma once
#include "../common/window.h"
#include "rows.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// A task is one plane (nchw) or a chunk of the channels of one image (nhwc).
struct PlanePlan {
  bool channels_last;
  int64_t chunk, chunks, tasks;
};

inline PlanePlan plane_plan(const Pool2d& p, int64_t threads) {
  PlanePlan plan;
  plan.channels_last = p.x_stride[1] == 1 && p.y_stride[1] == 1;
  plan.chunk = plan.channels_last ? p.c : 1;
  if (plan.channels_last) {
    const int64_t shares = ceil_div(positive_threads(threads), p.n);
    plan.chunk = smaller(p.c, round_up(ceil_div(p.c, shares), 32));
  }
  plan.chunks = ceil_div(p.c, plan.chunk);
  plan.tasks = p.n * plan.chunks;
  return plan;
}

// Where one plane or chunk begins in both tensors, and how many channels it has.
struct PlanePart {
  int64_t x, y, width;
};

inline PlanePart part_of(const Pool2d& p, const PlanePlan& plan, int64_t task) {
  const int64_t image = task / plan.chunks, channel = task % plan.chunks * plan.chunk;
  return {image * p.x_stride[0] + channel * p.x_stride[1], image * p.y_stride[0] + channel * p.y_stride[1],
          smaller(plan.chunk, p.c - channel)};
}

inline void mark_columns(const Pool2d& p, uint8_t* has_elements) {
  const Axis columns = column_axis(p);
  for (int64_t o = 0; o < p.ow; ++o) has_elements[o] = window_at(columns, o).count > 0;
}

template <class Storage>
constexpr bool kNeedsAccumulator = !std::is_same_v<Storage, compute_t<Storage>>;

template <class Storage>
int64_t scatter_slot(const Pool2d& p, const PlanePlan& plan) {
  const int64_t plane = kNeedsAccumulator<Storage> ? p.ih * p.iw * plan.chunk : 0;
  return lines_of<uint8_t>(p.ow) + lines_of<compute_t<Storage>>(plane);
}

// sums[index] += gradient for one row of outputs of one plane.
template <class Storage>
void scatter_row(const uint8_t* has_elements, uint64_t plane, int64_t n, const Storage* gradient, const int64_t* index,
                 compute_t<Storage>* sums) {
  for (int64_t ow = 0; ow < n; ++ow) {
    const uint64_t to = static_cast<uint64_t>(index[ow]);
    if (to < plane && has_elements[ow] != 0) sums[to] += widen(gradient[ow]);
  }
}

// sums[index * pixel + channel] += gradient, for one plane or chunk.
template <class Storage>
void scatter_part(const Pool2d& p, const PlanePlan& plan, const uint8_t* has_elements, int64_t width,
                  const Storage* gradient, const int64_t* index, compute_t<Storage>* sums, int64_t pixel) {
  const uint64_t plane = static_cast<uint64_t>(p.ih) * static_cast<uint64_t>(p.iw);
  const Axis rows = row_axis(p);
  for (int64_t oh = 0; oh < p.oh; ++oh) {
    if (window_at(rows, oh).count == 0) continue;
    const int64_t row = oh * p.y_stride[2];
    if (!plan.channels_last) {
      scatter_row(has_elements, plane, p.ow, gradient + row, index + row, sums);
      continue;
    }
    for (int64_t ow = 0; ow < p.ow; ++ow) {
      if (has_elements[ow] == 0) continue;
      const int64_t at = row + ow * p.y_stride[3];
      for (int64_t c = 0; c < width; ++c) {
        const uint64_t to = static_cast<uint64_t>(index[at + c]);
        if (to < plane) sums[static_cast<int64_t>(to) * pixel + c] += widen(gradient[at + c]);
      }
    }
  }
}

// Tasks [begin, end); `slot` has scatter_slot bytes.
template <class Storage>
void scatter_tasks(const Pool2d& p, const Buffers& buffers, const PlanePlan& plan, int64_t begin, int64_t end,
                   void* slot) {
  using C = compute_t<Storage>;
  const int64_t pixels = p.ih * p.iw;
  Carver carver{static_cast<char*>(slot)};
  uint8_t* has_elements = carver.take<uint8_t>(p.ow);
  mark_columns(p, has_elements);
  C* accumulator = kNeedsAccumulator<Storage> ? carver.take<C>(pixels * plan.chunk) : nullptr;
  for (int64_t task = begin; task < end; ++task) {
    const PlanePart part = part_of(p, plan, task);
    const Storage* gradient = static_cast<const Storage*>(buffers.y) + part.y;
    const int64_t* index = static_cast<const int64_t*>(buffers.aux) + part.y;
    Storage* out = static_cast<Storage*>(buffers.x) + part.x;
    const int64_t out_pixel = plan.channels_last ? p.x_stride[3] : 1;
    const bool dense = out_pixel == part.width;
    if constexpr (kNeedsAccumulator<Storage>) {
      std::memset(accumulator, 0, static_cast<size_t>(pixels * part.width) * sizeof(C));
      scatter_part(p, plan, has_elements, part.width, gradient, index, accumulator, part.width);
      if (dense) {
        narrow_row<Storage>(accumulator, pixels * part.width, out);
      } else {
        for (int64_t i = 0; i < pixels; ++i) {
          narrow_row<Storage>(accumulator + i * part.width, part.width, out + i * out_pixel);
        }
      }
    } else {
      if (dense) {
        std::memset(out, 0, static_cast<size_t>(pixels * part.width) * sizeof(C));
      } else {
        for (int64_t i = 0; i < pixels; ++i) {
          std::memset(out + i * out_pixel, 0, static_cast<size_t>(part.width) * sizeof(C));
        }
      }
      scatter_part(p, plan, has_elements, part.width, gradient, index, out, out_pixel);
    }
  }
}

template <class Storage>
int32_t max_pool_scatter(const Pool2d& p, const Buffers& buffers) {
  const PlanePlan plan = plane_plan(p, buffers.threads);
  const int64_t slot = scatter_slot<Storage>(p, plan);
  return for_each_slab(plan.tasks, buffers.threads, [&](int64_t slab, int64_t begin, int64_t end) {
    scatter_tasks<Storage>(p, buffers, plan, begin, end, static_cast<char*>(buffers.workspace) + slab * slot);
  });
}

template <class Storage>
int32_t max_pool_gather(const Pool2d& p, const Buffers& buffers) {
  const PlanePlan plan = plane_plan(p, buffers.threads);
  const int64_t slot = lines_of<uint8_t>(p.ow);
  const uint64_t plane = static_cast<uint64_t>(p.ih) * static_cast<uint64_t>(p.iw);
  const Axis rows = row_axis(p);
  return for_each_slab(plan.tasks, buffers.threads, [&](int64_t slab, int64_t begin, int64_t end) {
    uint8_t* has_elements = reinterpret_cast<uint8_t*>(static_cast<char*>(buffers.workspace) + slab * slot);
    mark_columns(p, has_elements);
    for (int64_t task = begin; task < end; ++task) {
      const PlanePart part = part_of(p, plan, task);
      const Storage* source = static_cast<const Storage*>(buffers.x) + part.x;
      const int64_t* index = static_cast<const int64_t*>(buffers.aux) + part.y;
      Storage* out = static_cast<Storage*>(buffers.y) + part.y;
      const int64_t pixel = plan.channels_last ? p.x_stride[3] : 1;
      for (int64_t oh = 0; oh < p.oh; ++oh) {
        const bool row_has_elements = window_at(rows, oh).count > 0;
        for (int64_t ow = 0; ow < p.ow; ++ow) {
          const bool any = row_has_elements && has_elements[ow] != 0;
          const int64_t at = oh * p.y_stride[2] + ow * p.y_stride[3];
          for (int64_t c = 0; c < part.width; ++c) {
            const uint64_t from = static_cast<uint64_t>(index[at + c]);
            out[at + c] = any && from < plane ? source[static_cast<int64_t>(from) * pixel + c] : Storage{};
          }
        }
      }
    }
  });
}

template <class Storage>
int64_t max_pool_scatter_workspace(const Pool2d& p, int64_t threads) {
  return scatter_slot<Storage>(p, plane_plan(p, threads)) * positive_threads(threads);
}

inline int64_t max_pool_gather_workspace(const Pool2d& p, int64_t threads) {
  return lines_of<uint8_t>(p.ow) * positive_threads(threads);
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

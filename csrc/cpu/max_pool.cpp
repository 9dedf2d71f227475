// Max pooling: the forward pass by rows, its gradient and second derivative by planes.
#include "kernel.h"
#include "max_pool_grad_pairs.h"
#include "max_pool_scatter.h"
#include "pool_pairs.h"
#include "pool_pixels.h"
#include "pool_rows.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

const Pool2d& pool(const void* problem) { return *static_cast<const Pool2d*>(problem); }

// Whether an index relative to the first row of a window fits the integer lanes that go with the values.
template <class Storage>
bool lanes_hold_index(const Pool2d& p) {
  if (sizeof(compute_t<Storage>) == 8) return true;
  return p.iw < INT32_MAX && largest_span(row_axis(p)) <= INT32_MAX / p.iw;
}

template <class Storage>
int32_t max_pool_one_by_one(const Pool2d& p, const Buffers& buffers) {
  using C = compute_t<Storage>;
  const Axis rows = row_axis(p), columns = column_axis(p);
  return parallel_for(p.n * p.c * p.oh, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t oh = task % p.oh, c = task / p.oh % p.c, n = task / p.oh / p.c;
      const Storage* x = static_cast<const Storage*>(buffers.x) + n * p.x_stride[0] + c * p.x_stride[1];
      const Window row = window_at(rows, oh);
      for (int64_t ow = 0; ow < p.ow; ++ow) {
        const Window column = window_at(columns, ow);
        C best = neutral<Reduce::max, C>();
        int64_t index = row.first * p.iw + column.first;
        for (int64_t i = 0; i < row.count; ++i) {
          for (int64_t j = 0; j < column.count; ++j) {
            const int64_t ih = row.first + i * row.step, iw = column.first + j * column.step;
            const C v = widen(x[ih * p.x_stride[2] + iw * p.x_stride[3]]);
            if (v > best || v != v) {
              best = v;
              index = ih * p.iw + iw;
            }
          }
        }
        const int64_t at = n * p.y_stride[0] + c * p.y_stride[1] + oh * p.y_stride[2] + ow * p.y_stride[3];
        static_cast<Storage*>(buffers.y)[at] = narrow<Storage>(best);
        static_cast<int64_t*>(buffers.aux)[at] = index;
      }
    }
  });
}

template <class Storage>
int32_t run_max_pool(const void* problem, const Buffers& buffers) {
  const Pool2d& p = pool(problem);
  const bool by_pixels = suits_pixels(p);
  if (p.indices == 0) {
    if (suits_pairs(p)) return pool_pairs<Reduce::max, Storage>(p, buffers);
    return by_pixels ? pool_pixels<Reduce::max, Storage>(p, buffers) : pool_by_rows<Reduce::max, Storage>(p, buffers);
  }
  if (!lanes_hold_index<Storage>(p)) return max_pool_one_by_one<Storage>(p, buffers);
  return by_pixels ? pool_pixels<Reduce::max_index, Storage>(p, buffers)
                   : pool_by_rows<Reduce::max_index, Storage>(p, buffers);
}

template <class Storage>
int64_t max_pool_workspace(const void* problem, int64_t threads) {
  const Pool2d& p = pool(problem);
  const bool indices = p.indices != 0;
  if (indices ? !lanes_hold_index<Storage>(p) : suits_pairs(p)) return 0;
  if (suits_pixels(p)) return pool_pixels_workspace<Storage>(p, threads);
  return indices ? pool_by_rows_workspace<Reduce::max_index, Storage>(p, threads)
                 : pool_by_rows_workspace<Reduce::max, Storage>(p, threads);
}

template <class Storage>
int32_t run_scatter(const void* problem, const Buffers& buffers) {
  const Pool2d& p = pool(problem);
  return suits_grad_pairs(p) ? max_pool_grad_pairs<Storage>(p, buffers) : max_pool_scatter<Storage>(p, buffers);
}
template <class Storage>
int64_t scatter_workspace(const void* problem, int64_t threads) {
  return max_pool_scatter_workspace<Storage>(pool(problem), threads);
}

template <class Storage>
int32_t run_gather(const void* problem, const Buffers& buffers) {
  return max_pool_gather<Storage>(pool(problem), buffers);
}
int64_t gather_workspace(const void* problem, int64_t threads) {
  return max_pool_gather_workspace(pool(problem), threads);
}

template <class Storage>
constexpr KernelEntry rows_entry(DType dtype) {
  return {"max_pool2d", "rows", dtype, run_max_pool<Storage>, max_pool_workspace<Storage>, nullptr, nullptr};
}
template <class Storage>
constexpr KernelEntry scatter_entry(DType dtype) {
  return {"max_pool2d_scatter", "planes", dtype, run_scatter<Storage>, scatter_workspace<Storage>, nullptr, nullptr};
}
template <class Storage>
constexpr KernelEntry gather_entry(DType dtype) {
  return {"max_pool2d_gather", "planes", dtype, run_gather<Storage>, gather_workspace, nullptr, nullptr};
}

constexpr KernelEntry kEntries[] = {
    rows_entry<float>(DType::f32),    rows_entry<double>(DType::f64),    rows_entry<bf16>(DType::bf16),
    rows_entry<f16>(DType::f16),      scatter_entry<float>(DType::f32),  scatter_entry<double>(DType::f64),
    scatter_entry<bf16>(DType::bf16), scatter_entry<f16>(DType::f16),    gather_entry<float>(DType::f32),
    gather_entry<double>(DType::f64), gather_entry<bf16>(DType::bf16),   gather_entry<f16>(DType::f16),
};

}  // namespace

extern const KernelTable max_pool_table;
const KernelTable max_pool_table = {kEntries, sizeof kEntries / sizeof kEntries[0]};

}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

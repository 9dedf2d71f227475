// Average pooling by rows, forward and backward; a single output column, 2 x 2 and disjoint windows have kernels apart.
#include "avg_pool_grad.h"
#include "avg_pool_spread.h"
#include "kernel.h"
#include "pool_pairs.h"
#include "pool_pixels.h"
#include "pool_rows.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

Pool2d pool(const void* problem) {
  Pool2d p = *static_cast<const Pool2d*>(problem);
  p.dh = p.dw = 1;
  return p;
}

// The sum of n consecutive elements, in four chains.
template <class Storage>
SC_INLINE vec<compute_t<Storage>> sum_run(const Storage* p, int64_t n) {
  using C = compute_t<Storage>;
  constexpr int64_t kL = kLanes<C>;
  vec<C> a = zero<C>(), b = a, c = a, d = a;
  int64_t i = 0;
  for (; i + 4 * kL <= n; i += 4 * kL) {
    a = a + load(p + i);
    b = b + load(p + i + kL);
    c = c + load(p + i + 2 * kL);
    d = d + load(p + i + 3 * kL);
  }
  for (; i + kL <= n; i += kL) a = a + load(p + i);
  if (i < n) b = b + load_n(p + i, n - i);
  return (a + b) + (c + d);
}

bool is_single_column(const Pool2d& p) { return p.ow == 1 && p.x_stride[3] == 1; }

// One output column, nchw: the rows of a window are long runs, one single run when it spans the plane's width.
template <class Storage>
int32_t avg_pool_single_column(const Pool2d& p, const Buffers& buffers) {
  using C = compute_t<Storage>;
  const Axis rows = row_axis(p), columns = column_axis(p);
  const Window column = window_at(columns, 0);
  const bool whole_rows = column.count == p.iw && p.x_stride[2] == p.iw, padded = p.include_pad != 0;
  const int64_t width = divisor_at(columns, padded, 0);
  const auto mean = [&](const Storage* plane, const Window& row, C divisor) {
    if (row.count <= 0 || column.count <= 0) return narrow<Storage>(C{0});
    const Storage* x = plane + row.first * p.x_stride[2] + column.first;
    vec<C> sum = zero<C>();
    if (whole_rows) {
      sum = sum_run(x, row.count * p.iw);
    } else {
      for (int64_t i = 0; i < row.count; ++i) sum = sum + sum_run(x + i * p.x_stride[2], column.count);
    }
    return narrow<Storage>(sum_of_lanes<C>(sum) / divisor);
  };
  return for_each_slab(p.n * p.c, buffers.threads, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t oh = 0; oh < p.oh; ++oh) {
      const Window row = window_at(rows, oh);
      const C divisor = static_cast<C>(p.divisor != 0 ? p.divisor : divisor_at(rows, padded, oh) * width);
      int64_t n = begin / p.c, c = begin % p.c;
      for (int64_t plane = begin; plane < end; ++plane) {
        const Storage* x = static_cast<const Storage*>(buffers.x) + n * p.x_stride[0] + c * p.x_stride[1];
        static_cast<Storage*>(buffers.y)[n * p.y_stride[0] + c * p.y_stride[1] + oh * p.y_stride[2]] =
            mean(x, row, divisor);
        if (++c == p.c) c = 0, ++n;
      }
    }
  });
}

template <class Storage>
int32_t run_avg_pool(const void* problem, const Buffers& buffers) {
  const Pool2d p = pool(problem);
  if (is_single_column(p)) return avg_pool_single_column<Storage>(p, buffers);
  if (suits_pairs(p)) return pool_pairs<Reduce::sum, Storage>(p, buffers);
  if (suits_pixels(p)) return pool_pixels<Reduce::sum, Storage>(p, buffers);
  return pool_by_rows<Reduce::sum, Storage>(p, buffers);
}
template <class Storage>
int64_t avg_pool_workspace(const void* problem, int64_t threads) {
  const Pool2d p = pool(problem);
  if (is_single_column(p) || suits_pairs(p)) return 0;
  if (suits_pixels(p)) return pool_pixels_workspace<Storage>(p, threads);
  return pool_by_rows_workspace<Reduce::sum, Storage>(p, threads);
}

template <class Storage>
int32_t run_avg_pool_grad(const void* problem, const Buffers& buffers) {
  const Pool2d p = without_adaptive(pool(problem));
  return suits_spread(p) ? avg_pool_spread<Storage>(p, buffers) : avg_pool_grad<Storage>(p, buffers);
}
template <class Storage>
int64_t avg_grad_workspace(const void* problem, int64_t threads) {
  const Pool2d p = without_adaptive(pool(problem));
  return suits_spread(p) ? avg_pool_spread_workspace<Storage>(p, threads)
                         : avg_pool_grad_workspace<Storage>(p, threads);
}

template <class Storage>
constexpr KernelEntry forward_entry(DType dtype) {
  return {"avg_pool2d", "rows", dtype, run_avg_pool<Storage>, avg_pool_workspace<Storage>, nullptr, nullptr};
}
template <class Storage>
constexpr KernelEntry grad_entry(DType dtype) {
  return {"avg_pool2d_grad_input", "rows", dtype, run_avg_pool_grad<Storage>, avg_grad_workspace<Storage>,
          nullptr, nullptr};
}

constexpr KernelEntry kEntries[] = {
    forward_entry<float>(DType::f32), forward_entry<double>(DType::f64), forward_entry<bf16>(DType::bf16),
    forward_entry<f16>(DType::f16),   grad_entry<float>(DType::f32),     grad_entry<double>(DType::f64),
    grad_entry<bf16>(DType::bf16),    grad_entry<f16>(DType::f16),
};

}  // namespace

extern const KernelTable avg_pool_table;
const KernelTable avg_pool_table = {kEntries, sizeof kEntries / sizeof kEntries[0]};

}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

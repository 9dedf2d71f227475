// Convolution as a product of two matrices that are never built, on plain arithmetic units: a block computes a tile of
// the result in registers, its operands pass through shared memory, and the next step's loads are in flight during
// the arithmetic of this one. Implicit GEMM (Chetlur et al., cuDNN, 2014), tiling as in Volkov and Demmel (2008).
// The three passes differ in what a row, a column and a term of the sum are: conv_simt_correlation.h and
// conv_simt_grad_weight.h say so.
#pragma once
#include <initializer_list>

#include "../common/geometry.h"
#include "conv_simt_operand.h"
#include "kernel.h"

namespace spatialconv {
namespace cuda {
namespace conv_simt {

constexpr int32_t kInvalidValue = 1;  // cudaErrorInvalidValue

// A tile of kRows x kColumns results. Sixteen columns serve groups of few channels, of which a tile of 64 would waste
// most: with `columns` channels in a group, a share of 1 - columns / round_up(columns, 16) is still computed in vain.
template <class Storage_, int kColumns_>
struct Tile {
  using Storage = Storage_;
  using Compute = compute_t<Storage>;
  static constexpr int kThreads = 128;
  static constexpr int kRun = kVectorWidth<Compute>;  // results of a thread that stand side by side
  static constexpr int kDepth = 16;                   // terms of the sum in one step
  static constexpr int kRows = 32 * kRun;
  static constexpr int kColumns = kColumns_;
  static constexpr int kThreadColumns = kColumns == 64 ? 2 * kRun : kRun;
  static constexpr int kColumnThreads = kColumns / kThreadColumns;
  static constexpr int kRowThreads = kThreads / kColumnThreads;
  static constexpr int kThreadRows = kRows / kRowThreads;
  static constexpr int kLeastBlocks = kColumns == 64 ? 1 : 4;  // at a time on a multiprocessor
};

// Most columns of a group for which narrow tiles are used.
constexpr int64_t kNarrowColumns = 32;

template <class T>
struct Shared {
  static constexpr int kPitchA = T::kRows + T::kRun, kPitchB = T::kColumns + T::kRun;
  alignas(16) typename T::Compute a[2][T::kDepth][kPitchA];
  alignas(16) typename T::Compute b[2][T::kDepth][kPitchB];
  Place depth_a[2][T::kDepth], depth_b[2][T::kDepth];
  Place row[T::kRows];
  int64_t result[T::kRows];  // where a row's results begin, or negative where there is no such row
};

// The registers of one thread: kThreadRows x kThreadColumns sums, in runs of neighbours.
template <class T>
struct Sums {
  using Compute = typename T::Compute;
  int row_thread, column_thread;
  Compute sum[T::kThreadRows][T::kThreadColumns];

  __device__ __forceinline__ explicit Sums(bool rows_side_by_side) {
    const int thread = threadIdx.x;
    row_thread = rows_side_by_side ? thread % T::kRowThreads : thread / T::kColumnThreads;
    column_thread = rows_side_by_side ? thread / T::kRowThreads : thread % T::kColumnThreads;
#pragma unroll
    for (int i = 0; i < T::kThreadRows; ++i) {
#pragma unroll
      for (int j = 0; j < T::kThreadColumns; ++j) sum[i][j] = 0;
    }
  }

  __device__ __forceinline__ int row_of(int i) const {
    return (i / T::kRun * T::kRowThreads + row_thread) * T::kRun + i % T::kRun;
  }
  __device__ __forceinline__ int column_of(int j) const {
    return (j / T::kRun * T::kColumnThreads + column_thread) * T::kRun + j % T::kRun;
  }

  __device__ __forceinline__ void multiply(const Compute (*a)[Shared<T>::kPitchA],
                                           const Compute (*b)[Shared<T>::kPitchB]) {
#pragma unroll 8
    for (int depth = 0; depth < T::kDepth; ++depth) {
      Vector<Compute, T::kRun> row[T::kThreadRows / T::kRun], column[T::kThreadColumns / T::kRun];
#pragma unroll
      for (int i = 0; i < T::kThreadRows; i += T::kRun) {
        row[i / T::kRun] = load_vector<Compute, T::kRun>(&a[depth][row_of(i)]);
      }
#pragma unroll
      for (int j = 0; j < T::kThreadColumns; j += T::kRun) {
        column[j / T::kRun] = load_vector<Compute, T::kRun>(&b[depth][column_of(j)]);
      }
#pragma unroll
      for (int i = 0; i < T::kThreadRows; ++i) {
#pragma unroll
        for (int j = 0; j < T::kThreadColumns; ++j) {
          sum[i][j] += row[i / T::kRun].value[i % T::kRun] * column[j / T::kRun].value[j % T::kRun];
        }
      }
    }
  }
};

// One instruction where the neighbours and the alignment allow it.
template <class Value, int kRun, class Compute>
__device__ __forceinline__ void store_run(Value* to, const Vector<Compute, kRun>& sums, int count) {
  if (count >= kRun && is_aligned(to, sizeof(Value) * kRun)) {
    Vector<Value, kRun> narrow;
#pragma unroll
    for (int i = 0; i < kRun; ++i) narrow.value[i] = from_compute<Value>(sums.value[i]);
    store_vector<Value, kRun>(to, narrow);
    return;
  }
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    if (i < count) to[i] = from_compute<Value>(sums.value[i]);
  }
}

template <class T, class Value, class Work>
__device__ __forceinline__ void store(const Sums<T>& sums, const Shared<T>& shared, const Work& work, Value* result) {
  using Compute = typename T::Compute;
  constexpr int kRun = T::kRun;
  Vector<Compute, kRun> run;
  if (work.column_stride == 1) {
#pragma unroll
    for (int i = 0; i < T::kThreadRows; ++i) {
      const int64_t row = shared.result[sums.row_of(i)];
#pragma unroll
      for (int j = 0; j < T::kThreadColumns; j += kRun) {
        const int count = work.columns - sums.column_of(j);
#pragma unroll
        for (int k = 0; k < kRun; ++k) run.value[k] = sums.sum[i][j + k];
        if (row >= 0 && count > 0) store_run<Value, kRun>(result + row + sums.column_of(j), run, count);
      }
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < T::kThreadRows; i += kRun) {
    const int64_t* rows = &shared.result[sums.row_of(i)];
    const int64_t first = rows[0];
    bool neighbours = first >= 0;
#pragma unroll
    for (int k = 1; k < kRun; ++k) neighbours = neighbours && rows[k] == first + k;
#pragma unroll
    for (int j = 0; j < T::kThreadColumns; ++j) {
      if (sums.column_of(j) >= work.columns) continue;
      Value* column = result + sums.column_of(j) * work.column_stride;
#pragma unroll
      for (int k = 0; k < kRun; ++k) run.value[k] = sums.sum[i + k][j];
      if (neighbours) {
        store_run<Value, kRun>(column + first, run, kRun);
        continue;
      }
#pragma unroll
      for (int k = 0; k < kRun; ++k) {
        if (rows[k] >= 0) column[rows[k]] = from_compute<Value>(run.value[k]);
      }
    }
  }
}

// `Work` is a block's share of the problem: its rows, columns and terms, and where they lie.
template <class T, class Work, Along kAlongA, Along kAlongB>
__global__ void __launch_bounds__(T::kThreads, T::kLeastBlocks) multiply_kernel(typename Work::Problem problem) {
  using Storage = typename T::Storage;
  SHARED_MEMORY(memory);
  Shared<T>& shared = *reinterpret_cast<Shared<T>*>(memory);
  const Work work(problem, blockIdx.x, T::kRows, T::kColumns);
  if (work.rows <= 0) return;
  const int thread = threadIdx.x;
  const auto place_depths = [&](int32_t step) {
    if (thread >= T::kDepth) return;
    work.place_depth(step * T::kDepth + thread, shared.depth_a[step % 2][thread], shared.depth_b[step % 2][thread]);
  };
  static_assert(T::kRows <= T::kThreads, "a thread places one row");
  if (thread < T::kRows) work.place_row(thread, shared.row[thread], shared.result[thread]);
  place_depths(0);
  place_depths(1);
  __syncthreads();

  Loader<Storage, T::kThreads, T::kDepth, T::kRows, Shared<T>::kPitchA, kAlongA> a(
      work.a, [&](int line) { return shared.row[line]; });
  Loader<Storage, T::kThreads, T::kDepth, T::kColumns, Shared<T>::kPitchB, kAlongB> b(
      work.b, [&](int line) { return work.place_column(line); });
  const int32_t steps = (work.depth + T::kDepth - 1) / T::kDepth;
  Sums<T> sums(work.column_stride != 1);
  if (steps > 0) {
    a.read(shared.depth_a[0]);
    b.read(shared.depth_b[0]);
    a.write(shared.a[0]);
    b.write(shared.b[0]);
  }
  __syncthreads();
  for (int32_t step = 0; step < steps; ++step) {
    const int now = step % 2, next = 1 - now;
    const bool more = step + 1 < steps;
    if (more) {
      a.read(shared.depth_a[next]);
      b.read(shared.depth_b[next]);
    }
    place_depths(step + 2);
    sums.multiply(shared.a[now], shared.b[now]);
    if (more) {
      a.write(shared.a[next]);
      b.write(shared.b[next]);
    }
    __syncthreads();
  }
  work.finish(sums, shared);
}

// Launches the kernel of the tile that suits the columns of a group.
template <class Storage, class Work, Along kAlongA, Along kAlongB>
int32_t multiply(const typename Work::Problem& problem, Stream stream) {
  const auto run = [&](auto tile) {
    using T = decltype(tile);
    const int64_t blocks = problem.blocks(T::kRows, T::kColumns);
    if (blocks > INT32_MAX) return kInvalidValue;
    return launch(multiply_kernel<T, Work, kAlongA, kAlongB>, dim3(static_cast<unsigned>(blocks)), dim3(T::kThreads),
                  sizeof(Shared<T>), stream, problem);
  };
  return problem.columns <= kNarrowColumns ? run(Tile<Storage, 16>{}) : run(Tile<Storage, 64>{});
}

// Whether every position of the convolution, padding and filter included, fits the kernels' integers: images may be of
// any size, their rows and columns, taken together, not.
inline bool fits(const Conv2d& p) {
  constexpr int64_t kPosition = 1 << 28, kTerms = 1 << 30;
  for (const int64_t size : {p.ih, p.iw, p.oh, p.ow, p.kh, p.kw, p.sh, p.sw, p.ph, p.pw, p.dh, p.dw}) {
    if (size > kPosition) return false;
  }
  return p.kh * p.dh <= kPosition && p.kw * p.dw <= kPosition && p.oh * p.sh <= kPosition &&
         p.ow * p.sw <= kPosition && p.ih * p.iw <= kTerms && p.oh * p.ow <= kTerms && p.ic <= kTerms &&
         p.oc <= kTerms && larger(p.ic, p.oc) / p.g <= kTerms / (p.kh * p.kw);
}

// An axis of a tensor: how many there are, and elements from one to the next.
struct AxisSteps {
  int64_t size, step;
};

// Whether vectors along a dense run of `run` values begin at multiples of their width wherever they are read.
template <class Storage>
bool reads_vectors(const void* base, int64_t run, std::initializer_list<AxisSteps> others) {
  constexpr int64_t kWidth = kVectorWidth<Storage>;
  if (run % kWidth != 0 || !is_aligned(base, 16)) return false;
  for (const AxisSteps& other : others) {
    if (other.size > 1 && other.step % kWidth != 0) return false;
  }
  return true;
}

// Whether each pixel of the result meets one tap, at its own place: neighbours of one are neighbours of the other.
inline bool keeps_place(const Conv2d& p) {
  return p.kh == 1 && p.kw == 1 && p.sh == 1 && p.sw == 1 && p.ph == 0 && p.pw == 0 && p.oh == p.ih && p.ow == p.iw;
}

struct Strides {
  int64_t image, channel, row, column;
};

inline Strides strides_of(const int64_t (&stride)[4]) { return {stride[0], stride[1], stride[2], stride[3]}; }

inline const Conv2d& conv(const void* problem) { return *static_cast<const Conv2d*>(problem); }

// None needed; -1 refuses a problem whose positions do not fit.
inline int64_t no_workspace(const void* problem, int64_t) { return fits(conv(problem)) ? 0 : -1; }

}  // namespace conv_simt
}  // namespace cuda
}  // namespace spatialconv

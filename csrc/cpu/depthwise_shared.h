// Depthwise convolution of one nchw plane with a large filter: several output rows share each load. The rows of the
// plane are staged in the compute type with zeros beside them and, with stride 2, even columns before odd ones; taps
// above and below the plane are left out.
#pragma once
#include "activation.h"
#include "rows.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// Rows of a block, so that its sums are as many as hide the latency of an FMA; of a filter whose size the compiler
// knows, also such that 7, 14, 28, ... rows are whole blocks or nearly.
template <int kTaps, int kVectors>
constexpr int kSharedRows = kTaps == 0 ? (kVectors == 1 ? 8 : 4) : (kVectors == 1 ? 7 : 5);
constexpr int kSharedVectors = kVectorRegisters >= 32 ? 4 : 2;
constexpr int kLeastSharedTaps = 8;

// A plane of which `height` rows are staged, `pitch` apart, odd columns `odd` behind even ones. Output row r is at
// `out` + r * out_pitch; its first tap reads staged row r * stride - top.
template <class C>
struct SharedPlane {
  const C* rows;
  int64_t pitch, odd, height, top;
  const C* weights;
  int64_t kh, kw;
  PlaneFinish<C> finish;
  int64_t out_rows, columns;
  C* out;
  int64_t out_pitch;
};

template <class C, int kRows, int kVectors>
using SharedSums = vec<C>[kRows][kVectors];

// One staged row for the output rows first <= r < last of the block; `weights` is the filter row that it meets for the
// last of them.
template <class C, int kVectors, int kRows, int first, int last>
SC_INLINE void share_row(const C* row, const C* weights, int64_t kw, SharedSums<C, kRows, kVectors>& sum) {
  _Pragma("GCC unroll 1")
  for (int64_t k = 0; k < kw; ++k) {
    vec<C> x[kVectors];
    SC_UNROLL for (int j = 0; j < kVectors; ++j) x[j] = load(row + k + j * kLanes<C>);
    SC_UNROLL for (int r = first; r < last; ++r) {
      const vec<C> weight = broadcast(weights[(last - 1 - r) * kw + k]);
      SC_UNROLL for (int j = 0; j < kVectors; ++j) sum[r][j] = fma(x[j], weight, sum[r][j]);
    }
  }
}

// The same for a filter whose width the compiler knows.
template <class C, int kTaps, int kStride, int kVectors, int kRows, int first, int last>
SC_INLINE void share_taps(const C* row, int64_t odd, const C* weights, SharedSums<C, kRows, kVectors>& sum) {
  SC_UNROLL for (int k = 0; k < kTaps; ++k) {
    const C* from = kStride == 1 ? row + k : row + k / 2 + (k % 2 != 0 ? odd : 0);
    vec<C> x[kVectors];
    SC_UNROLL for (int j = 0; j < kVectors; ++j) x[j] = load(from + j * kLanes<C>);
    SC_UNROLL for (int r = first; r < last; ++r) {
      const vec<C> weight = broadcast(weights[(last - 1 - r) * kStride * kTaps + k]);
      SC_UNROLL for (int j = 0; j < kVectors; ++j) sum[r][j] = fma(x[j], weight, sum[r][j]);
    }
  }
}

// Rows of the block's reach that only some of its output rows read: row i < kRows - 1 the first i + 1 of them, row
// kh + i all but the first i + 1.
template <class C, int kVectors, int kRows, bool kBelow, int i = 0>
SC_INLINE void share_border(const SharedPlane<C>& p, const C* rows, int64_t first,
                             SharedSums<C, kRows, kVectors>& sum) {
  if constexpr (i < kRows - 1) {
    const int64_t at = first + i + (kBelow ? p.kh : 0);
    if (at >= 0 && at < p.height) {
      const C* row = rows + at * p.pitch;
      if constexpr (kBelow) {
        share_row<C, kVectors, kRows, i + 1, kRows>(row, p.weights + (p.kh + i + 1 - kRows) * p.kw, p.kw, sum);
      } else {
        share_row<C, kVectors, kRows, 0, i + 1>(row, p.weights, p.kw, sum);
      }
    }
    share_border<C, kVectors, kRows, kBelow, i + 1>(p, rows, first, sum);
  }
}

// A filter of a size known to the compiler, which may have fewer rows than the block.
template <class C, int kVectors, int kRows, int kTaps, int kStride, int i = 0>
SC_INLINE void share_square(const SharedPlane<C>& p, const C* rows, int64_t first,
                             SharedSums<C, kRows, kVectors>& sum) {
  if constexpr (i < (kRows - 1) * kStride + kTaps) {
    if (first + i >= 0 && first + i < p.height) {
      constexpr int begin = i < kTaps ? 0 : (i - kTaps) / kStride + 1;
      constexpr int end = i / kStride < kRows ? i / kStride + 1 : kRows;
      if constexpr (begin < end) {
        share_taps<C, kTaps, kStride, kVectors, kRows, begin, end>(rows + (first + i) * p.pitch, p.odd,
                                                                   p.weights + (i - (end - 1) * kStride) * kTaps, sum);
      }
    }
    share_square<C, kVectors, kRows, kTaps, kStride, i + 1>(p, rows, first, sum);
  }
}

// kTaps 0: a filter of at least kLeastSharedTaps rows.
template <class C, int kTaps, int kStride, int kVectors, bool kActivated>
__attribute__((noinline)) void shared_block(const SharedPlane<C>& p, int64_t oh, int64_t ow) {
  constexpr int kL = kLanes<C>, kRows = kSharedRows<kTaps, kVectors>;
  vec<C> sum[kRows][kVectors];
  SC_UNROLL for (int r = 0; r < kRows; ++r) {
    SC_UNROLL for (int j = 0; j < kVectors; ++j) sum[r][j] = zero<C>();
  }
  const C* rows = p.rows + ow;
  const int64_t first = oh * kStride - p.top;
  if constexpr (kTaps > 0) {
    share_square<C, kVectors, kRows, kTaps, kStride>(p, rows, first, sum);
  } else {
    share_border<C, kVectors, kRows, false>(p, rows, first, sum);
    const int64_t begin = larger(kRows - 1, -first), end = smaller(p.kh, p.height - first);
    for (int64_t i = begin; i < end; ++i) {
      share_row<C, kVectors, kRows, 0, kRows>(rows + (first + i) * p.pitch, p.weights + (i + 1 - kRows) * p.kw, p.kw,
                                          sum);
    }
    share_border<C, kVectors, kRows, true>(p, rows, first, sum);
  }
  SC_UNROLL for (int r = 0; r < kRows; ++r) {
    SC_UNROLL for (int j = 0; j < kVectors; ++j) pin(sum[r][j]);
  }
  const vec<C> added = broadcast(p.finish.bias);
  if constexpr (kActivated) {
    SC_UNROLL for (int r = 0; r < kRows; ++r) {
      SC_UNROLL for (int j = 0; j < kVectors; ++j) sum[r][j] += added;
    }
    activate<C>(p.finish.activation, sum);
  }
  C* out = p.out + oh * p.out_pitch + ow;
  SC_UNROLL for (int r = 0; r < kRows; ++r) {
    if (oh + r >= p.out_rows) break;
    SC_UNROLL for (int j = 0; j < kVectors; ++j) {
      const int64_t left = p.columns - ow - j * kL;
      if (left > 0) store_n(out + r * p.out_pitch + j * kL, kActivated ? sum[r][j] : sum[r][j] + added, left);
    }
  }
}

template <class C, int kTaps, int kStride, int kVectors>
void shared_rows(const SharedPlane<C>& p, int64_t ow) {
  constexpr int64_t kRows = kSharedRows<kTaps, kVectors>;
  const auto run = p.finish.activation == Activation::none ? shared_block<C, kTaps, kStride, kVectors, false>
                                                           : shared_block<C, kTaps, kStride, kVectors, true>;
  for (int64_t r = 0; r < p.out_rows; r += kRows) run(p, smaller(r, larger(p.out_rows - kRows, 0)), ow);
}

template <class C, int kTaps, int kStride>
void shared_columns(const SharedPlane<C>& p, int64_t begin) {
  constexpr int64_t kL = kLanes<C>;
  for (int64_t c = begin; c < p.columns; c += kSharedVectors * kL) {
    switch (smaller(ceil_div(p.columns - c, kL), kSharedVectors)) {
      case 1: shared_rows<C, kTaps, kStride, 1>(p, c); break;
      case 2: shared_rows<C, kTaps, kStride, 2>(p, c); break;
#if SC_VECTOR_BYTES >= 64
      case 3: shared_rows<C, kTaps, kStride, 3>(p, c); break;
      default: shared_rows<C, kTaps, kStride, 4>(p, c); break;
#endif
    }
  }
}

// Columns from `begin` on.
template <class C>
void shared_plane(const SharedPlane<C>& p, int64_t stride, int64_t begin) {
  const bool square = p.kh == p.kw;
  if (stride == 2) return p.kh == 5 ? shared_columns<C, 5, 2>(p, begin) : shared_columns<C, 7, 2>(p, begin);
  if (square && p.kh == 5) return shared_columns<C, 5, 1>(p, begin);
  if (square && p.kh == 7) return shared_columns<C, 7, 1>(p, begin);
  shared_columns<C, 0, 1>(p, begin);
}

// Whether rows of `columns` outputs fill vectors better than one run over all staged rows does.
inline bool suits_shared_rows(const Conv2d& p, int64_t columns, int lanes) {
  const bool square = p.kh == p.kw && (p.kh == 5 || p.kh == 7);
  if (p.sh != p.sw || p.sh > 2 || p.dh != 1 || p.dw != 1) return false;
  if (!square && (p.sh == 2 || p.kh < kLeastSharedTaps)) return false;
  const int64_t filled = round_up(columns, lanes);
  return filled <= columns + (p.kw - 1) / p.sw || 4 * columns >= 3 * filled;
}

// Stages rows of a plane. The zeros beside them are written once, in the constructor: what a row spills past its end is
// zeros too, or is written over by the next.
template <class C>
class RowStage {
 public:
  // Of `rows` rows, of which windows of `kw` taps read what `columns` outputs need.
  RowStage(C* memory, int64_t rows, int64_t width, int64_t left, int64_t columns, int64_t kw, int64_t stride)
      : memory_(memory), pitch_(pitch(columns, kw, stride)), skipped_(larger(0, -left)), left_(larger(0, left)) {
    odd_ = stride == 1 ? 0 : pitch_ / 2;
    count_ = larger(0, smaller(width - skipped_, (columns - 1) * stride + kw - left_));
    std::memset(memory, 0, static_cast<size_t>(size(rows, columns, kw, stride)) * sizeof(C));
  }

  static int64_t size(int64_t rows, int64_t columns, int64_t kw, int64_t stride) {
    return rows * pitch(columns, kw, stride) + (kSharedVectors + 2) * kLanes<C>;
  }

  int64_t pitch() const { return pitch_; }
  int64_t odd() const { return odd_; }
  const C* rows() const { return memory_; }

  template <class Storage>
  void fill(const Storage* plane, int64_t row_stride, int64_t rows) {
    const int64_t count = count_, pitch = pitch_, odd = odd_;
    if (count == 0) return;
    const Storage* from = plane + skipped_;
    if (odd == 0) {
      C* to = memory_ + left_;
      for (int64_t r = 0; r < rows; ++r, from += row_stride, to += pitch) widen_row(from, count, to);
    } else {
      C* to = memory_ + left_ / 2;
      const int64_t even = left_ % 2 == 0 ? 0 : odd, behind = left_ % 2 == 0 ? odd : 1;
      for (int64_t r = 0; r < rows; ++r, from += row_stride, to += pitch) split(from, count, to + even, to + behind);
    }
  }

 private:
  static constexpr int64_t kL = kLanes<C>;

  // Even columns are a vector apart from odd ones, which their last vector would run into.
  static int64_t pitch(int64_t columns, int64_t kw, int64_t stride) {
    return stride == 1 ? columns + kw - 1 : 2 * (columns + kw / 2 + kL);
  }

  template <class Storage>
  static void split(const Storage* from, int64_t count, C* even, C* odd) {
    int64_t i = 0;
    vec<C> first, second;
    for (; i + 2 * kL <= count; i += 2 * kL) {
      split_pairs<C>(load(from + i), load(from + i + kL), first, second);
      store(even + i / 2, first);
      store(odd + i / 2, second);
    }
    if (i == count) return;
    const int64_t behind = count - i - kL;
    split_pairs<C>(load_tail(from + i, count - i), behind > 0 ? load_tail(from + i + kL, behind) : zero<C>(), first,
                   second);
    store(even + i / 2, first);
    store(odd + i / 2, second);
  }

  C* memory_;
  int64_t pitch_, odd_, skipped_, left_, count_;
};

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

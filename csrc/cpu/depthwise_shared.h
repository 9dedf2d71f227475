// Depthwise convolution of one nchw plane with stride 1 and a large filter: several output rows share each load. The
// plane's rows are staged in the compute type with zeros beside them; taps above and below the plane are left out.
#pragma once
#include "activation.h"
#include "rows.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// Rows of a block, so that its sums are as many as hide the latency of an FMA.
template <int kVectors>
constexpr int kSharedRows = kVectors == 1 ? 8 : 4;
constexpr int kSharedVectors = kVectorRegisters >= 32 ? 4 : 2;
constexpr int kLeastSharedTaps = 8;

// A plane of which `height` rows are staged, `pitch` apart. Output row r is at `out` + r * out_pitch; its first tap
// reads staged row r - top.
template <class C>
struct SharedPlane {
  const C* rows;
  int64_t pitch, height, top;
  const C* weights;
  int64_t kh, kw;
  PlaneFinish<C> finish;
  int64_t out_rows, columns;
  C* out;
  int64_t out_pitch;
};

// One staged row, which is row i of those that the block reads, for the output rows first <= r < last of the block.
template <class C, int kVectors, int first, int last>
SC_INLINE void share_row(const C* row, const C* weights, int64_t i, int64_t kw,
                         vec<C> (&sum)[kSharedRows<kVectors>][kVectors]) {
  const C* w = weights + (i - last + 1) * kw;
  _Pragma("GCC unroll 1")
  for (int64_t k = 0; k < kw; ++k) {
    vec<C> x[kVectors];
    SC_UNROLL for (int j = 0; j < kVectors; ++j) x[j] = load(row + k + j * kLanes<C>);
    SC_UNROLL for (int r = first; r < last; ++r) {
      const vec<C> weight = broadcast(w[(last - 1 - r) * kw + k]);
      SC_UNROLL for (int j = 0; j < kVectors; ++j) sum[r][j] = fma(x[j], weight, sum[r][j]);
    }
  }
}

// Rows of the block's reach that only some of its output rows read: row i < kRows - 1 the first i + 1 of them, row
// kh + i all but the first i + 1.
template <class C, int kVectors, bool kBelow, int i = 0>
SC_INLINE void share_border(const SharedPlane<C>& p, const C* rows, int64_t first,
                            vec<C> (&sum)[kSharedRows<kVectors>][kVectors]) {
  constexpr int kRows = kSharedRows<kVectors>;
  if constexpr (i < kRows - 1) {
    const int64_t at = first + i + (kBelow ? p.kh : 0);
    if (at >= 0 && at < p.height) {
      if constexpr (kBelow) {
        share_row<C, kVectors, i + 1, kRows>(rows + at * p.pitch, p.weights, p.kh + i, p.kw, sum);
      } else {
        share_row<C, kVectors, 0, i + 1>(rows + at * p.pitch, p.weights, i, p.kw, sum);
      }
    }
    share_border<C, kVectors, kBelow, i + 1>(p, rows, first, sum);
  }
}

// A filter of a size known to the compiler, which may have fewer rows than the block.
template <class C, int kVectors, int kTaps, int i = 0>
SC_INLINE void share_square(const SharedPlane<C>& p, const C* rows, int64_t first,
                            vec<C> (&sum)[kSharedRows<kVectors>][kVectors]) {
  constexpr int kRows = kSharedRows<kVectors>;
  if constexpr (i < kRows + kTaps - 1) {
    if (first + i >= 0 && first + i < p.height) {
      constexpr int begin = i < kTaps ? 0 : i - kTaps + 1, end = i < kRows ? i + 1 : kRows;
      share_row<C, kVectors, begin, end>(rows + (first + i) * p.pitch, p.weights, i, kTaps, sum);
    }
    share_square<C, kVectors, kTaps, i + 1>(p, rows, first, sum);
  }
}

// kTaps 0: a filter of at least kLeastSharedTaps rows.
template <class C, int kTaps, int kVectors, bool kActivated>
__attribute__((noinline)) void shared_block(const SharedPlane<C>& p, int64_t oh, int64_t ow) {
  constexpr int kL = kLanes<C>, kRows = kSharedRows<kVectors>;
  vec<C> sum[kRows][kVectors];
  SC_UNROLL for (int r = 0; r < kRows; ++r) {
    SC_UNROLL for (int j = 0; j < kVectors; ++j) sum[r][j] = zero<C>();
  }
  const C* rows = p.rows + ow;
  const int64_t first = oh - p.top;
  if constexpr (kTaps > 0) {
    share_square<C, kVectors, kTaps>(p, rows, first, sum);
  } else {
    share_border<C, kVectors, false>(p, rows, first, sum);
    const int64_t begin = larger(kRows - 1, -first), end = smaller(p.kh, p.height - first);
    for (int64_t i = begin; i < end; ++i) {
      share_row<C, kVectors, 0, kRows>(rows + (first + i) * p.pitch, p.weights, i, p.kw, sum);
    }
    share_border<C, kVectors, true>(p, rows, first, sum);
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

template <class C, int kTaps, int kVectors>
void shared_rows(const SharedPlane<C>& p, int64_t ow) {
  constexpr int64_t kRows = kSharedRows<kVectors>;
  const auto run = p.finish.activation == Activation::none ? shared_block<C, kTaps, kVectors, false>
                                                           : shared_block<C, kTaps, kVectors, true>;
  for (int64_t r = 0; r < p.out_rows; r += kRows) run(p, smaller(r, larger(p.out_rows - kRows, 0)), ow);
}

template <class C, int kTaps>
void shared_columns(const SharedPlane<C>& p) {
  constexpr int64_t kL = kLanes<C>;
  for (int64_t c = 0; c < p.columns; c += kSharedVectors * kL) {
    switch (smaller(ceil_div(p.columns - c, kL), kSharedVectors)) {
      case 1: shared_rows<C, kTaps, 1>(p, c); break;
      case 2: shared_rows<C, kTaps, 2>(p, c); break;
#if SC_VECTOR_BYTES >= 64
      case 3: shared_rows<C, kTaps, 3>(p, c); break;
      default: shared_rows<C, kTaps, 4>(p, c); break;
#endif
    }
  }
}

template <class C>
void shared_plane(const SharedPlane<C>& p) {
  if (p.kh == p.kw && p.kh == 5) return shared_columns<C, 5>(p);
  if (p.kh == p.kw && p.kh == 7) return shared_columns<C, 7>(p);
  shared_columns<C, 0>(p);
}

// Whether rows of `columns` outputs fill vectors better than one run over all staged rows does.
inline bool suits_shared_rows(const Conv2d& p, int64_t columns, int lanes) {
  if (p.sh != 1 || p.sw != 1 || p.dh != 1 || p.dw != 1) return false;
  if (!(p.kh == p.kw && (p.kh == 5 || p.kh == 7)) && p.kh < kLeastSharedTaps) return false;
  return round_up(columns, lanes) <= columns + p.kw - 1 || 4 * columns >= 3 * round_up(columns, lanes);
}

// Stages rows of a plane. The zeros beside them are written once, in the constructor: what a row spills past its end is
// zeros too, or is written over by the next.
template <class C>
class RowStage {
 public:
  // Of rows of `width` elements with `left` zeros before them, of which windows reach `reach` from the first.
  static int64_t size(int64_t rows, int64_t reach) { return rows * reach + (kSharedVectors + 2) * kLanes<C>; }

  RowStage(C* memory, int64_t rows, int64_t width, int64_t left, int64_t reach)
      : memory_(memory), pitch_(reach), skipped_(larger(0, -left)), left_(larger(0, left)) {
    count_ = larger(0, smaller(width - skipped_, reach - left_));
    std::memset(memory, 0, static_cast<size_t>(size(rows, reach)) * sizeof(C));
  }

  int64_t pitch() const { return pitch_; }
  const C* rows() const { return memory_; }

  template <class Storage>
  void fill(const Storage* plane, int64_t row_stride, int64_t rows) {
    if (count_ == 0) return;
    for (int64_t r = 0; r < rows; ++r) {
      widen_row(plane + r * row_stride + skipped_, count_, memory_ + r * pitch_ + left_);
    }
  }

 private:
  C* memory_;
  int64_t pitch_, skipped_, left_, count_;
};

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

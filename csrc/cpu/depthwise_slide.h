// Depthwise convolution in nhwc with a square filter of 3, 5 or 7 taps and stride 1: a filter row's weights and the
// sums of neighbouring pixels stay in registers while one pixel after the other is loaded once for all taps that read
// it. Sums come in the order of the taps, as everywhere.
#pragma once
#include "activation.h"
#include "rows.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

constexpr int kSlideColumns = 8;

// Outputs ow, ow + 1, ... of one row of outputs; source row r of the filter is at x + r * row_stride.
template <class C>
struct SlideBlock {
  const C* x;  // the pixel that the first tap reads for the first output
  int64_t row_stride, pixel, first_row, last_row;  // rows of the filter inside the image
  int64_t before, width;                           // pixels before x in the image's row, and of the whole row
  const C* zeros;
  const C* weights;  // [tap][weight_pitch]
  int64_t weight_pitch, channels;
  const C* bias;  // null: none
  Activation activation;
  C* out;
  int64_t out_step;
};

template <class C, int kTaps, int kColumns, bool kInside, bool kActivated>
__attribute__((noinline)) void slide_block(const SlideBlock<C>& block) {
  constexpr int kL = kLanes<C>;
  const SlideBlock<C> b = block;
  for (int64_t c = 0; c < b.channels; c += kL) {
    vec<C> sum[kColumns];
    SC_UNROLL for (int j = 0; j < kColumns; ++j) sum[j] = zero<C>();
    for (int64_t kh = b.first_row; kh < b.last_row; ++kh) {
      vec<C> w[kTaps];
      SC_UNROLL for (int k = 0; k < kTaps; ++k) w[k] = load(b.weights + (kh * kTaps + k) * b.weight_pitch + c);
      const C* x = b.x + kh * b.row_stride + c;
      SC_UNROLL for (int i = 0; i < kColumns + kTaps - 1; ++i, x += b.pixel) {
        const bool there = kInside || (b.before + i >= 0 && b.before + i < b.width);
        const vec<C> value = load(there ? x : b.zeros + c);
        SC_UNROLL for (int k = kTaps - 1; k >= 0; --k) {
          const int j = i - k;
          if (j >= 0 && j < kColumns) sum[j] = fma(value, w[k], sum[j]);
        }
      }
    }
    const vec<C> added = b.bias == nullptr ? zero<C>() : load(b.bias + c);
    if constexpr (kActivated) {
      SC_UNROLL for (int j = 0; j < kColumns; ++j) sum[j] += added;
      activate<C>(b.activation, sum);
    }
    SC_UNROLL for (int j = 0; j < kColumns; ++j) {
      store(b.out + j * b.out_step + c, kActivated || b.bias == nullptr ? sum[j] : sum[j] + added);
    }
  }
}

template <class C, int kTaps, int kColumns, bool kActivated>
void slide_columns(const SlideBlock<C>& b) {
  const bool inside = b.before >= 0 && b.before + kColumns + kTaps - 1 <= b.width;
  inside ? slide_block<C, kTaps, kColumns, true, kActivated>(b) : slide_block<C, kTaps, kColumns, false, kActivated>(b);
}

template <class C, int kTaps>
void slide_taps(const SlideBlock<C>& b, bool sevens) {
  if (b.activation == Activation::none) {
    sevens ? slide_columns<C, kTaps, 7, false>(b) : slide_columns<C, kTaps, kSlideColumns, false>(b);
  } else {
    sevens ? slide_columns<C, kTaps, 7, true>(b) : slide_columns<C, kTaps, kSlideColumns, true>(b);
  }
}

// Asks for the second-level cache for some pixels; any address will do.
template <class Storage>
void prefetch_pixels(const Storage* first, int64_t pixels, int64_t pixel, int64_t channels) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(Storage));
  for (int64_t i = 0; i < pixels; ++i, first += pixel) {
    for (int64_t c = 0; c < channels; c += kLine) __builtin_prefetch(first + c, 0, 2);
  }
}

// A row of outputs; `b` describes its first block. With `prefetches`, what the next row reads and writes is prefetched.
template <class C>
void slide_row(SlideBlock<C> b, int64_t taps, int64_t columns, bool prefetches) {
  const bool sevens = columns % 7 == 0;
  const int64_t step = sevens ? 7 : kSlideColumns;
  const SlideBlock<C> first = b;
  for (int64_t c = 0; c < columns; c += step) {
    // The last block overlaps the one before it.
    const int64_t ow = smaller(c, columns - step);
    b.x = first.x + ow * b.pixel;
    b.before = first.before + ow;
    b.out = first.out + ow * b.out_step;
    if (prefetches) {
      prefetch_pixels(b.x + b.last_row * b.row_stride, step, b.pixel, b.channels);
      prefetch_pixels(b.out + columns * b.out_step, step, b.out_step, b.channels);
    }
    taps == 3 ? slide_taps<C, 3>(b, sevens) : taps == 5 ? slide_taps<C, 5>(b, sevens) : slide_taps<C, 7>(b, sevens);
  }
}

template <class Storage>
bool suits_slide(const Conv2d& p, int64_t columns, int64_t chunk) {
  using C = compute_t<Storage>;
  const bool square = p.kh == p.kw && (p.kh == 3 || p.kh == 5 || p.kh == 7);
  return std::is_same_v<Storage, C> && kVectorRegisters >= 16 && p.ic == p.oc && square && p.sh == 1 && p.sw == 1 &&
         p.dh == 1 && p.dw == 1 && (columns % 7 == 0 || columns >= kSlideColumns) && p.ic % kLanes<C> == 0 &&
         chunk % kLanes<C> == 0;
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

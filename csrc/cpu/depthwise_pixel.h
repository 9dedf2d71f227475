// Depthwise convolution in nhwc: vectors along channels, a block of output columns in registers. Every output is a
// sum over a list of taps; a tap is a row of re-laid weights and, for each column, a pixel of the source, or zeros
// where the tap falls into the padding.
#pragma once
#include "rows.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// Fewer where loads of 16-bit floats are written out lane by lane.
constexpr int kPixelColumns = kVectorBytes == 16 ? 4 : 8;

// How channels of source and output correspond when an input channel has several output channels.
enum class Channels {
  paired,    // one each
  scattered, // the output's are `spread` apart (forward, one of the several at a time)
  gathered,  // the source's are `spread` apart (gradient of the input)
};

template <class Storage>
struct PixelBlock {
  const Storage* const* source;                 // of every tap, and of every column too unless `direct`
  const compute_t<Storage>* const* weights;     // of every tap
  int64_t taps, step, channels, spread;         // step: between the columns of a direct source
  const compute_t<Storage>* bias;               // null: none
  Storage* out;
  int64_t out_step;
  Activation activation = Activation::none;
};

template <class Storage, int kColumns, bool kDirect, Channels kChannels, bool kActivated, bool kWhole>
SC_INLINE void pixel_vector(const PixelBlock<Storage>& b, int64_t c, int64_t n) {
  using C = compute_t<Storage>;
  vec<C> sum[kColumns];
  SC_UNROLL
  for (int j = 0; j < kColumns; ++j) sum[j] = zero<C>();
  const int64_t from = kChannels == Channels::gathered ? c * b.spread : c;
  for (int64_t t = 0; t < b.taps; ++t) {
    const vec<C> w = load(b.weights[t] + c);
    SC_UNROLL
    for (int j = 0; j < kColumns; ++j) {
      const Storage* p = (kDirect ? b.source[t] + j * b.step : b.source[t * kColumns + j]) + from;
      if constexpr (kChannels == Channels::gathered) {
        sum[j] = fma(load_strided_n(p, b.spread, n), w, sum[j]);
      } else {
        sum[j] = fma(kWhole ? load(p) : load_tail(p, n), w, sum[j]);
      }
    }
  }
  if (b.bias != nullptr) {
    const vec<C> bias = load(b.bias + c);
    SC_UNROLL
    for (int j = 0; j < kColumns; ++j) sum[j] = sum[j] + bias;
  }
  if constexpr (kActivated) activate<C>(b.activation, sum);
  SC_UNROLL
  for (int j = 0; j < kColumns; ++j) {
    if constexpr (kChannels == Channels::scattered) {
      for (int64_t lane = 0; lane < n; ++lane) {
        b.out[j * b.out_step + (c + lane) * b.spread] = narrow<Storage>(sum[j][lane]);
      }
    } else if constexpr (kWhole) {
      store(b.out + j * b.out_step + c, sum[j]);
    } else {
      store_n(b.out + j * b.out_step + c, sum[j], n);
    }
  }
}

template <class Storage, int kColumns, bool kDirect, Channels kChannels, bool kActivated>
__attribute__((noinline)) void pixel_block(const PixelBlock<Storage>& block) {
  constexpr int64_t kL = kLanes<compute_t<Storage>>;
  const PixelBlock<Storage> b = block;
  int64_t c = 0;
  for (; c + kL <= b.channels; c += kL) pixel_vector<Storage, kColumns, kDirect, kChannels, kActivated, true>(b, c, kL);
  if (c < b.channels) {
    pixel_vector<Storage, kColumns, kDirect, kChannels, kActivated, false>(b, c, b.channels - c);
  }
}

// Whether evenly spaced pixels may do without a pointer each; where loads convert, the pointers cost nothing that
// shows.
template <class Storage, Channels kChannels>
constexpr bool kAllowsDirect = kChannels == Channels::paired && std::is_same_v<Storage, compute_t<Storage>>;

template <class Storage, bool kDirect, bool kActivated>
void run_paired_block(const PixelBlock<Storage>& b, int64_t columns) {
  switch (columns) {
    case 1: return pixel_block<Storage, 1, kDirect, Channels::paired, kActivated>(b);
    case 2: return pixel_block<Storage, 2, kDirect, Channels::paired, kActivated>(b);
    case 3: return pixel_block<Storage, 3, kDirect, Channels::paired, kActivated>(b);
#if SC_VECTOR_BYTES >= 32
    case 4: return pixel_block<Storage, 4, kDirect, Channels::paired, kActivated>(b);
    case 5: return pixel_block<Storage, 5, kDirect, Channels::paired, kActivated>(b);
    case 6: return pixel_block<Storage, 6, kDirect, Channels::paired, kActivated>(b);
    case 7: return pixel_block<Storage, 7, kDirect, Channels::paired, kActivated>(b);
#endif
    default: return pixel_block<Storage, kPixelColumns, kDirect, Channels::paired, kActivated>(b);
  }
}

template <class Storage, Channels kChannels, bool kActivated>
void run_block(const PixelBlock<Storage>& b, int64_t columns, bool direct) {
  if constexpr (kChannels != Channels::paired) {
    pixel_block<Storage, 1, false, kChannels, kActivated>(b);
  } else if constexpr (kAllowsDirect<Storage, kChannels>) {
    direct ? run_paired_block<Storage, true, kActivated>(b, columns)
           : run_paired_block<Storage, false, kActivated>(b, columns);
  } else {
    run_paired_block<Storage, false, kActivated>(b, columns);
  }
}

template <class Storage, Channels kChannels>
void run_pixel_block(const PixelBlock<Storage>& b, int64_t columns, bool direct) {
  if constexpr (kChannels != Channels::gathered) {
    if (b.activation != Activation::none) return run_block<Storage, kChannels, true>(b, columns, direct);
  }
  run_block<Storage, kChannels, false>(b, columns, direct);
}

// What the blocks of a row are described by: memory for the lists of a thread.
template <class Storage>
struct PixelTables {
  const Storage** source;
  const compute_t<Storage>** weights;
  Storage* zeros;
  compute_t<Storage>* bias;
  int64_t* taps;

  static int64_t bytes(const Conv2d& p) {
    const int64_t taps = p.kh * p.kw * (p.oc / p.ic);
    return lines_of<Storage*>(taps * kPixelColumns) + lines_of<Storage*>(taps) + lines_of<Storage>(p.oc + 64) +
           lines_of<compute_t<Storage>>(p.oc + 64) + lines_of<int64_t>(2 * (p.kh + p.kw));
  }
  PixelTables(const Conv2d& p, void* memory) {
    const int64_t count = p.kh * p.kw * (p.oc / p.ic);
    Carver carver{static_cast<char*>(memory)};
    source = carver.take<const Storage*>(count * kPixelColumns);
    weights = carver.take<const compute_t<Storage>*>(count);
    zeros = carver.take<Storage>(p.oc + 64);
    bias = carver.take<compute_t<Storage>>(p.oc + 64);
    taps = carver.take<int64_t>(2 * (p.kh + p.kw));
    std::memset(zeros, 0, static_cast<size_t>(p.oc + 64) * sizeof(Storage));
  }
};

// Columns a register block takes, so that blocks of one row are about equally wide.
inline int64_t block_columns(int64_t columns, Channels channels) {
  if (channels != Channels::paired) return 1;
  return ceil_div(columns, ceil_div(columns, kPixelColumns));
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

// Forward and grad_input of square filters without dilation. A thread computes a strip of neighbouring results in
// registers: each source value of the strip is loaded once for each tap across it and serves all taps along it. The
// strip runs along the row in channels_last, where a value is a vector of channels, and down the column otherwise,
// where neighbouring threads take neighbouring columns. grad_input gathers: strips begin where the stride's phase is 0,
// so which taps meet which result is known at compile time.
#pragma once
#include <type_traits>

#include "depthwise.h"

namespace spatialconv {
namespace cuda {
namespace depthwise {

enum class Pass { forward, grad_input, grad_weight };

template <class Storage_, int kVector_, int kTaps_, int kStride_, Pass kPass>
struct Strip {
  using Storage = Storage_;
  using Compute = compute_t<Storage>;
  using Values = Vector<Compute, kVector_>;
  static constexpr int kVector = kVector_, kTaps = kTaps_, kStride = kStride_;
  static constexpr bool kGradient = kPass == Pass::grad_input;
  static constexpr bool kChannelsLast = kVector > 1;
  // Long strips load less; how long they may be is a question of registers.
  static constexpr bool kRoom = !kChannelsLast || (kTaps == 7 && kPass != Pass::grad_weight);
  static constexpr int kLength = kStride == 1 && kRoom ? 8 : 4;
  static constexpr int kThreads = 128;
  static constexpr int kMostLanes = kChannelsLast ? 16 : 1;
  static constexpr int kLeastBlocks = kTaps == 3 ? 4 : kTaps == 5 ? 3 : 2;  // at a time on a multiprocessor
  // Source positions, relative to that of the strip's first result, that the strip meets.
  static constexpr int kFirst = kGradient ? -((kTaps - 1) / kStride) : 0;
  static constexpr int kEnd = kGradient ? (kLength - 1) / kStride + 1 : (kLength - 1) * kStride + kTaps;

  __host__ __device__ static constexpr int tap(int result, int source) {
    return kGradient ? result - kStride * source : source - kStride * result;
  }
};

template <class S>
__device__ __forceinline__ const Axis& along(const Problem& p) {
  return S::kChannelsLast ? p.w : p.h;
}
template <class S>
__device__ __forceinline__ const Axis& across(const Problem& p) {
  return S::kChannelsLast ? p.h : p.w;
}

// weights[tap][channel of the slab], a tap's place across the strip first.
template <class S>
__device__ __forceinline__ void load_weights(const Problem& p, const typename S::Storage* weight, int first_channel,
                                             int channels, typename S::Compute* weights) {
  constexpr int kCount = S::kTaps * S::kTaps;
  for (int i = threadIdx.x; i < channels * kCount; i += S::kThreads) {
    const int channel = i / kCount, tap = i % kCount;
    const int row = S::kChannelsLast ? tap / S::kTaps : tap % S::kTaps;
    const int column = S::kChannelsLast ? tap % S::kTaps : tap / S::kTaps;
    weights[tap * channels + channel] =
        first_channel + channel < p.channels
            ? to_compute(weight[(first_channel + channel) * p.weight_channel + row * p.weight_row +
                                column * p.weight_column])
            : typename S::Compute{};
  }
}

// The vector at a position of a line, zeros outside: no branch, so that the loads of a strip are in flight together.
template <class S>
__device__ __forceinline__ Vector<typename S::Storage, S::kVector> load_inside(const typename S::Storage* line,
                                                                               int64_t step, int32_t at, int32_t size) {
  Vector<typename S::Storage, S::kVector> loaded = {};
  if (static_cast<uint32_t>(at) < static_cast<uint32_t>(size)) {
    loaded = load_vector<typename S::Storage, S::kVector>(line + at * step);
  }
  return loaded;
}

// Adds what the taps in one line along the strip give; `source` points at position 0 of that line.
template <class S>
__device__ __forceinline__ void add_line(const typename S::Storage* source, const Axis& axis, int32_t first,
                                         const typename S::Values (&weight)[S::kTaps],
                                         typename S::Values (&sum)[S::kLength]) {
#pragma unroll
  for (int t = S::kFirst; t < S::kEnd; ++t) {
    const auto loaded = load_inside<S>(source, axis.source_step, first + t, axis.source);
#pragma unroll
    for (int j = 0; j < S::kLength; ++j) {
      constexpr int kTaps = S::kTaps;
      const int tap = S::tap(j, t);
      if (tap < 0 || tap >= kTaps) continue;
#pragma unroll
      for (int v = 0; v < S::kVector; ++v) {
        sum[j].value[v] += to_compute(loaded.value[v]) * weight[tap].value[v];
      }
    }
  }
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kLeastBlocks)
    strip_kernel(Problem p, Cover cover, const typename S::Storage* source, const typename S::Storage* weight,
                 const typename S::Storage* bias, typename S::Storage* result) {
  using Compute = typename S::Compute;
  using Values = typename S::Values;
  SHARED_MEMORY(memory);
  Compute* const weights = reinterpret_cast<Compute*>(memory);
  const int slab = blockIdx.x % cover.slabs, block = blockIdx.x / cover.slabs;
  const int slab_channels = cover.lanes * S::kVector, first_channel = slab * slab_channels;
  load_weights<S>(p, weight, first_channel, slab_channels, weights);
  __syncthreads();
  const int lane = threadIdx.x % cover.lanes, row = threadIdx.x / cover.lanes;
  const int channel = first_channel + lane * S::kVector;
  if (channel >= p.channels || row >= cover.rows) return;
  source += channel * p.source.channel;
  result += channel * p.result.channel;
  const Axis& strip_axis = along<S>(p);
  const Axis& cross_axis = across<S>(p);
  // The result's first strip begins so far before the image that the stride's phase is 0.
  const int32_t shift = S::kGradient ? strip_axis.padding % S::kStride : 0;
  const int32_t strips = (strip_axis.result + shift + S::kLength - 1) / S::kLength;
  const int32_t fast = S::kChannelsLast ? strips : cross_axis.result;
  const int32_t slow = S::kChannelsLast ? cross_axis.result : strips;

  const int64_t step = static_cast<int64_t>(cover.blocks) * cover.rows;
  for (int64_t unit = static_cast<int64_t>(block) * cover.rows + row; unit < cover.count; unit += step) {
    const Divided outer = divide(unit, fast);
    const Divided image = divide(outer.quotient, slow);
    const int32_t begin = (S::kChannelsLast ? outer.remainder : image.remainder) * S::kLength - shift;
    const int32_t cross = S::kChannelsLast ? image.remainder : outer.remainder;
    const int32_t first = S::kGradient ? (begin + strip_axis.padding) / S::kStride
                                       : begin * S::kStride - strip_axis.padding;
    Values sum[S::kLength] = {};
    const typename S::Storage* from = source + image.quotient * p.source.image;
#pragma unroll 1
    for (int tap = 0; tap < S::kTaps; ++tap) {
      int32_t at = S::kGradient ? cross + cross_axis.padding - tap : cross * S::kStride - cross_axis.padding + tap;
      if (S::kGradient) {
        if (at < 0 || at % S::kStride != 0) continue;
        at /= S::kStride;
      }
      if (static_cast<uint32_t>(at) >= static_cast<uint32_t>(cross_axis.source)) continue;
      Values line[S::kTaps];
#pragma unroll
      for (int i = 0; i < S::kTaps; ++i) {
        line[i] = load_vector<Compute, S::kVector>(weights + (tap * S::kTaps + i) * slab_channels + lane * S::kVector);
      }
      add_line<S>(from + at * cross_axis.source_step, strip_axis, first, line, sum);
    }
    typename S::Storage* to = result + image.quotient * p.result.image + cross * cross_axis.result_step;
    Values offset = {};
    if (bias != nullptr) {
#pragma unroll
      for (int v = 0; v < S::kVector; ++v) offset.value[v] = to_compute(bias[channel + v]);
    }
#pragma unroll
    for (int j = 0; j < S::kLength; ++j) {
      if (static_cast<uint32_t>(begin + j) >= static_cast<uint32_t>(strip_axis.result)) continue;
      Vector<typename S::Storage, S::kVector> narrow;
#pragma unroll
      for (int v = 0; v < S::kVector; ++v) {
        narrow.value[v] = from_compute<typename S::Storage>(sum[j].value[v] + offset.value[v]);
      }
      store_vector<typename S::Storage, S::kVector>(to + (begin + j) * strip_axis.result_step, narrow);
    }
  }
}

template <class S>
int32_t launch_strips(const Problem& p, const void* source, const void* weight, const void* bias, void* result,
                      int64_t multiprocessors, Stream stream) {
  constexpr int64_t kBlocksAtATime = 16;  // of a multiprocessor
  const Axis& strip_axis = S::kChannelsLast ? p.w : p.h;
  const Axis& cross_axis = S::kChannelsLast ? p.h : p.w;
  const int64_t shift = S::kGradient ? strip_axis.padding % S::kStride : 0;
  Cover cover;
  cover.lanes = lanes_for(ceil_div(p.channels, S::kVector), S::kMostLanes);
  cover.rows = S::kThreads / cover.lanes;
  cover.slabs = static_cast<int32_t>(ceil_div(p.channels, cover.lanes * S::kVector));
  cover.count = p.images * cross_axis.result * ceil_div(strip_axis.result + shift, S::kLength);
  const int64_t resident = larger(1, multiprocessors * kBlocksAtATime / cover.slabs);
  cover.blocks = static_cast<int32_t>(clamped(ceil_div(cover.count, cover.rows), 1, resident));
  const int64_t weight_count = static_cast<int64_t>(S::kTaps) * S::kTaps * cover.lanes * S::kVector;
  using Storage = typename S::Storage;
  return launch(strip_kernel<S>, dim3(static_cast<unsigned>(cover.slabs * cover.blocks)), dim3(S::kThreads),
                static_cast<size_t>(weight_count) * sizeof(typename S::Compute), stream, p, cover,
                static_cast<const Storage*>(source), static_cast<const Storage*>(weight),
                static_cast<const Storage*>(bias), static_cast<Storage*>(result));
}

// Calls run(Strip<...>) for the case of the problem. Returns false where there is none: those go to depthwise_any.h.
template <class Storage, Pass kPass, class Run>
bool with_strip(const Conv2d& p, const void* x, const void* y, const Run& run) {
  const bool channels_last = p.x_stride[1] == 1 && p.y_stride[1] == 1;
  const bool vectors = reads_vectors<Storage>(p, x, y);
  if (channels_last && !vectors) return false;
  const auto in_layout = [&](auto taps, auto stride) {
    if (vectors) {
      run(Strip<Storage, kVectorWidth<Storage>, decltype(taps)::value, decltype(stride)::value, kPass>{});
    } else {
      run(Strip<Storage, 1, decltype(taps)::value, decltype(stride)::value, kPass>{});
    }
    return true;
  };
  using One = std::integral_constant<int, 1>;
  using Two = std::integral_constant<int, 2>;
  if (square(p, 3, 1)) return in_layout(std::integral_constant<int, 3>{}, One{});
  if (square(p, 3, 2)) return in_layout(std::integral_constant<int, 3>{}, Two{});
  if (square(p, 5, 1)) return in_layout(std::integral_constant<int, 5>{}, One{});
  if (square(p, 5, 2)) return in_layout(std::integral_constant<int, 5>{}, Two{});
  if (square(p, 7, 1)) return in_layout(std::integral_constant<int, 7>{}, One{});
  return false;
}

}  // namespace depthwise
}  // namespace cuda
}  // namespace spatialconv

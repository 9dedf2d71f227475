// grad_weight of depthwise convolution. Every tap's sum runs over all pixels, so blocks share the pixels of a slab of
// channels, the threads of a block add theirs up in a fixed tree, and add_shares adds the blocks' sums in order: the
// same bits at every run. For square filters without dilation a thread holds the taps of one line of the filter and
// walks over strips of grad_output, of which each value serves all its taps from registers; for all others it holds one
// tap.
#pragma once
#include "add_shares.h"
#include "depthwise_strip.h"

namespace spatialconv {
namespace cuda {
namespace depthwise {

// Threads (tap, row, lane), the lane fastest, hold one vector of sums each. Adds those of all rows up into row 0's.
template <class Values, class Compute>
__device__ __forceinline__ void add_rows(Values& value, Values* exchange, int rows, int row, int step) {
  Values* const mine = exchange + threadIdx.x;
  *mine = value;
  __syncthreads();
  for (int left = rows; left > 1; left = (left + 1) / 2) {
    const int half = (left + 1) / 2;
    if (row + half < left) {
      const Values other = mine[half * step];
#pragma unroll
      for (int v = 0; v < static_cast<int>(sizeof(Values) / sizeof(Compute)); ++v) mine->value[v] += other.value[v];
    }
    __syncthreads();
  }
  value = *mine;
  __syncthreads();
}

// Where a block's sums go: the result itself, or its share of the workspace.
template <class Storage>
struct Target {
  Storage* result;
  compute_t<Storage>* partial;  // null where a block has all the pixels
  int64_t count;                // of a result

  __device__ __forceinline__ void put(int share, int64_t at, compute_t<Storage> value) const {
    if (partial == nullptr) {
      result[at] = from_compute<Storage>(value);
    } else {
      partial[share * count + at] = value;
    }
  }
};

// Threads of a block for each line of taps. Seven lines of seven taps need their registers.
template <class S>
constexpr int kLineThreads = S::kTaps == 7 ? 48 : 64;

template <class S>
using Loaded = Vector<typename S::Storage, S::kVector>;

template <class S>
__device__ __forceinline__ void add_product(const Loaded<S>& source, const Loaded<S>& given,
                                            typename S::Values& sum) {
#pragma unroll
  for (int v = 0; v < S::kVector; ++v) sum.value[v] += to_compute(source.value[v]) * to_compute(given.value[v]);
}

// Adds the products of the strip of grad_output at `begin` with the source it meets under each tap of a line. What lies
// beyond the last result takes no part, not even as a zero, which must not meet an infinite source.
template <class S>
__device__ __forceinline__ void add_strip(const typename S::Storage* source, const typename S::Storage* gradient,
                                          const Axis& axis, int32_t begin, typename S::Values (&sum)[S::kTaps]) {
  const int32_t first = begin * S::kStride - axis.padding;
  if (begin + S::kLength <= axis.result) {
    Loaded<S> given[S::kLength];
#pragma unroll
    for (int j = 0; j < S::kLength; ++j) {
      given[j] = load_vector<typename S::Storage, S::kVector>(gradient + (begin + j) * axis.result_step);
    }
#pragma unroll
    for (int t = 0; t < S::kEnd; ++t) {
      const Loaded<S> met = load_inside<S>(source, axis.source_step, first + t, axis.source);
#pragma unroll
      for (int j = 0; j < S::kLength; ++j) {
        const int tap = S::tap(j, t);
        if (tap >= 0 && tap < S::kTaps) add_product<S>(met, given[j], sum[tap]);
      }
    }
    return;
  }
#pragma unroll 1
  for (int32_t j = 0; begin + j < axis.result; ++j) {
    const auto given = load_vector<typename S::Storage, S::kVector>(gradient + (begin + j) * axis.result_step);
#pragma unroll
    for (int tap = 0; tap < S::kTaps; ++tap) {
      add_product<S>(load_inside<S>(source, axis.source_step, first + j * S::kStride + tap, axis.source), given,
                     sum[tap]);
    }
  }
}

// `Problem` is that of forward: its result is grad_output, its source the input.
template <class S>
__global__ void __launch_bounds__(kLineThreads<S>* S::kTaps, 1)
    grad_weight_strip_kernel(Problem p, Cover cover, const typename S::Storage* input,
                             const typename S::Storage* grad_output, Target<typename S::Storage> target) {
  using Compute = typename S::Compute;
  using Values = typename S::Values;
  SHARED_MEMORY(memory);
  Values* const exchange = reinterpret_cast<Values*>(memory);
  const int slab = blockIdx.x % cover.slabs, share = blockIdx.x / cover.slabs;
  const int line_threads = cover.lanes * cover.rows;
  const int cross_tap = threadIdx.x / line_threads, in_line = threadIdx.x % line_threads;
  const int lane = in_line % cover.lanes, row = in_line / cover.lanes;
  const int channel = (slab * cover.lanes + lane) * S::kVector;
  const bool works = channel < p.channels;
  const Axis& strip_axis = along<S>(p);
  const Axis& cross_axis = across<S>(p);
  const int32_t strips = (strip_axis.result + S::kLength - 1) / S::kLength;
  const int32_t fast = S::kChannelsLast ? strips : cross_axis.result;
  const int32_t slow = S::kChannelsLast ? cross_axis.result : strips;
  Values sum[S::kTaps] = {};
  const int64_t step = static_cast<int64_t>(cover.blocks) * cover.rows;
  for (int64_t unit = static_cast<int64_t>(share) * cover.rows + row; works && unit < cover.count; unit += step) {
    const Divided outer = divide(unit, fast);
    const Divided image = divide(outer.quotient, slow);
    const int32_t begin = (S::kChannelsLast ? outer.remainder : image.remainder) * S::kLength;
    const int32_t cross = S::kChannelsLast ? image.remainder : outer.remainder;
    const int32_t at = cross * S::kStride - cross_axis.padding + cross_tap;
    if (static_cast<uint32_t>(at) >= static_cast<uint32_t>(cross_axis.source)) continue;
    const typename S::Storage* from =
        input + image.quotient * p.source.image + channel * p.source.channel + at * cross_axis.source_step;
    const typename S::Storage* gradient = grad_output + image.quotient * p.result.image + channel * p.result.channel +
                                          cross * cross_axis.result_step;
    add_strip<S>(from, gradient, strip_axis, begin, sum);
  }
#pragma unroll
  for (int tap = 0; tap < S::kTaps; ++tap) {
    add_rows<Values, Compute>(sum[tap], exchange, cover.rows, row, cover.lanes);
    if (row != 0 || !works) continue;
    const int64_t kh = S::kChannelsLast ? cross_tap : tap, kw = S::kChannelsLast ? tap : cross_tap;
#pragma unroll
    for (int v = 0; v < S::kVector; ++v) {
      target.put(share, (channel + v) * p.weight_channel + kh * p.weight_row + kw * p.weight_column,
                 sum[tap].value[v]);
    }
  }
}

template <class Storage>
__global__ void __launch_bounds__(128)
    grad_weight_any_kernel(Problem p, Cover cover, const Storage* input, const Storage* grad_output,
                           Target<Storage> target) {
  using Compute = compute_t<Storage>;
  using Values = Vector<Compute, 1>;
  SHARED_MEMORY(memory);
  const int taps = p.h.kernel * p.w.kernel;
  const int64_t tap_block = blockIdx.x / cover.slabs;
  const int slab = blockIdx.x % cover.slabs, tap = tap_block % taps, share = static_cast<int>(tap_block / taps);
  const int kh = tap / p.w.kernel, kw = tap % p.w.kernel;
  const int lane = threadIdx.x % cover.lanes, row = threadIdx.x / cover.lanes;
  const int channel = slab * cover.lanes + lane;
  const bool works = channel < p.channels;
  const int64_t step = static_cast<int64_t>(cover.blocks) * cover.rows;
  Values sum = {};
  for (int64_t unit = static_cast<int64_t>(share) * cover.rows + row; works && unit < cover.count; unit += step) {
    const Divided line = divide(unit, p.w.result);
    const Divided image = divide(line.quotient, p.h.result);
    const int32_t h = image.remainder * p.h.stride - p.h.padding + kh * p.h.dilation;
    const int32_t w = line.remainder * p.w.stride - p.w.padding + kw * p.w.dilation;
    const bool inside = static_cast<uint32_t>(h) < static_cast<uint32_t>(p.h.source) &&
                        static_cast<uint32_t>(w) < static_cast<uint32_t>(p.w.source);
    if (!inside) continue;
    const int64_t from = image.quotient * p.source.image + channel / p.multiplier * p.source.channel +
                         h * p.h.source_step + w * p.w.source_step;
    const int64_t gradient = image.quotient * p.result.image + channel * p.result.channel +
                             image.remainder * p.h.result_step + line.remainder * p.w.result_step;
    sum.value[0] += to_compute(input[from]) * to_compute(grad_output[gradient]);
  }
  add_rows<Values, Compute>(sum, reinterpret_cast<Values*>(memory), cover.rows, row, cover.lanes);
  if (row != 0 || !works) return;
  target.put(share, channel * p.weight_channel + kh * p.weight_row + kw * p.weight_column, sum.value[0]);
}

// How the pixels are shared; the same on every device, so that the bits are.
inline int32_t share_count(int64_t slabs, int64_t count, int64_t rows) {
  constexpr int64_t kBlocks = 1024, kLeastUnits = 8;  // of a thread
  return static_cast<int32_t>(clamped(ceil_div(kBlocks, slabs), 1, larger(1, count / (rows * kLeastUnits))));
}

template <class S>
Cover strip_cover(const Problem& p) {
  const Axis& strip_axis = S::kChannelsLast ? p.w : p.h;
  const Axis& cross_axis = S::kChannelsLast ? p.h : p.w;
  Cover cover;
  cover.lanes = lanes_for(ceil_div(p.channels, S::kVector), S::kMostLanes);
  cover.rows = kLineThreads<S> / cover.lanes;
  cover.slabs = static_cast<int32_t>(ceil_div(p.channels, cover.lanes * S::kVector));
  cover.count = p.images * cross_axis.result * ceil_div(strip_axis.result, S::kLength);
  cover.blocks = share_count(cover.slabs, cover.count, cover.rows);
  return cover;
}

inline Cover any_cover(const Problem& p) {
  constexpr int64_t kThreads = 128, kMostLanes = 32;
  Cover cover;
  cover.lanes = p.channels_last ? lanes_for(p.channels, kMostLanes) : 1;
  cover.rows = static_cast<int32_t>(kThreads / cover.lanes);
  cover.slabs = static_cast<int32_t>(ceil_div(p.channels, cover.lanes));
  cover.count = p.images * p.h.result * p.w.result;
  cover.blocks = share_count(static_cast<int64_t>(cover.slabs) * p.h.kernel * p.w.kernel, cover.count, cover.rows);
  return cover;
}

template <class Storage>
Target<Storage> target_of(const Problem& p, const Cover& cover, const Buffers& buffers) {
  return {static_cast<Storage*>(buffers.w),
          cover.blocks > 1 ? static_cast<compute_t<Storage>*>(buffers.workspace) : nullptr,
          static_cast<int64_t>(p.channels) * p.h.kernel * p.w.kernel};
}

template <class Storage>
int32_t add_blocks(const Target<Storage>& target, const Cover& cover, Stream stream) {
  if (target.partial == nullptr) return 0;
  return add_shares<Storage>(target.partial, target.count, cover.blocks, target.result, stream);
}

template <class S>
int32_t launch_grad_weight_strips(const Problem& p, const Buffers& buffers, Stream stream) {
  using Storage = typename S::Storage;
  const Cover cover = strip_cover<S>(p);
  const Target<Storage> target = target_of<Storage>(p, cover, buffers);
  const int threads = cover.lanes * cover.rows * S::kTaps;
  const int32_t error =
      launch(grad_weight_strip_kernel<S>, dim3(static_cast<unsigned>(cover.slabs * cover.blocks)), dim3(threads),
             threads * sizeof(typename S::Values), stream, p, cover, static_cast<const Storage*>(buffers.x),
             static_cast<const Storage*>(buffers.y), target);
  return error != 0 ? error : add_blocks(target, cover, stream);
}

template <class Storage>
int32_t launch_grad_weight_any(const Problem& p, const Buffers& buffers, Stream stream) {
  const Cover cover = any_cover(p);
  const int64_t blocks = static_cast<int64_t>(cover.slabs) * p.h.kernel * p.w.kernel * cover.blocks;
  if (blocks > INT32_MAX) return kInvalidValue;
  const Target<Storage> target = target_of<Storage>(p, cover, buffers);
  const int threads = cover.lanes * cover.rows;
  const int32_t error = launch(grad_weight_any_kernel<Storage>, dim3(static_cast<unsigned>(blocks)), dim3(threads),
                               threads * sizeof(compute_t<Storage>), stream, p, cover,
                               static_cast<const Storage*>(buffers.x), static_cast<const Storage*>(buffers.y), target);
  return error != 0 ? error : add_blocks(target, cover, stream);
}

}  // namespace depthwise
}  // namespace cuda
}  // namespace spatialconv

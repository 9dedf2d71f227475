// Forward and grad_input of any filter, stride, dilation, multiplier and type: a thread computes one result.
#pragma once
#include "depthwise.h"

namespace spatialconv {
namespace cuda {
namespace depthwise {

constexpr int kAnyThreads = 128;

// The source position that result position `at` meets under a tap, or -1.
template <bool kGradient>
__device__ __forceinline__ int32_t met(const Axis& axis, int32_t at, int32_t tap) {
  int32_t source = kGradient ? at + axis.padding - tap * axis.dilation
                             : at * axis.stride - axis.padding + tap * axis.dilation;
  if (kGradient) {
    if (source < 0 || source % axis.stride != 0) return -1;
    source /= axis.stride;
  }
  return static_cast<uint32_t>(source) < static_cast<uint32_t>(axis.source) ? source : -1;
}

template <class Storage, bool kGradient>
__global__ void __launch_bounds__(kAnyThreads)
    any_kernel(Problem p, Cover cover, const Storage* source, const Storage* weight, const Storage* bias,
               Storage* result) {
  using Compute = compute_t<Storage>;
  const int slab = blockIdx.x % cover.slabs, block = blockIdx.x / cover.slabs;
  const int lane = threadIdx.x % cover.lanes, row = threadIdx.x / cover.lanes;
  const int channel = slab * cover.lanes + lane;
  if (channel >= p.channels || row >= cover.rows) return;
  // The filters of this channel, and the source channels they read: one and one, but for the gradient's multiplier.
  const int32_t filters = kGradient ? p.multiplier : 1;
  const int32_t first_filter = channel * filters;
  const int32_t first_source = kGradient ? first_filter : channel / p.multiplier;
  const int64_t step = static_cast<int64_t>(cover.blocks) * cover.rows;
  for (int64_t unit = static_cast<int64_t>(block) * cover.rows + row; unit < cover.count; unit += step) {
    const Divided line = divide(unit, p.w.result);
    const Divided image = divide(line.quotient, p.h.result);
    const int32_t h = image.remainder, w = line.remainder;
    const Storage* from = source + image.quotient * p.source.image;
    Compute sum = bias == nullptr ? Compute{} : to_compute(bias[channel]);
    for (int32_t filter = 0; filter < filters; ++filter) {
      const Storage* plane = from + (first_source + filter) * p.source.channel;
      const Storage* taps = weight + (first_filter + filter) * p.weight_channel;
      for (int32_t kh = 0; kh < p.h.kernel; ++kh) {
        const int32_t sh = met<kGradient>(p.h, h, kh);
        if (sh < 0) continue;
        for (int32_t kw = 0; kw < p.w.kernel; ++kw) {
          const int32_t sw = met<kGradient>(p.w, w, kw);
          if (sw < 0) continue;
          sum += to_compute(plane[sh * p.h.source_step + sw * p.w.source_step]) *
                 to_compute(taps[kh * p.weight_row + kw * p.weight_column]);
        }
      }
    }
    result[image.quotient * p.result.image + channel * p.result.channel + h * p.h.result_step +
           w * p.w.result_step] = from_compute<Storage>(sum);
  }
}

template <class Storage, bool kGradient>
int32_t launch_any(const Problem& p, const void* source, const void* weight, const void* bias, void* result,
                   int64_t multiprocessors, Stream stream) {
  constexpr int64_t kBlocksAtATime = 16, kMostLanes = 32;
  Cover cover;
  cover.lanes = p.channels_last ? lanes_for(p.channels, kMostLanes) : 1;
  cover.rows = kAnyThreads / cover.lanes;
  cover.slabs = static_cast<int32_t>(ceil_div(p.channels, cover.lanes));
  cover.count = p.images * p.h.result * p.w.result;
  const int64_t resident = larger(1, multiprocessors * kBlocksAtATime / cover.slabs);
  cover.blocks = static_cast<int32_t>(clamped(ceil_div(cover.count, cover.rows), 1, resident));
  return launch(any_kernel<Storage, kGradient>, dim3(static_cast<unsigned>(cover.slabs * cover.blocks)),
                dim3(kAnyThreads), 0, stream, p, cover, static_cast<const Storage*>(source),
                static_cast<const Storage*>(weight), static_cast<const Storage*>(bias), static_cast<Storage*>(result));
}

}  // namespace depthwise
}  // namespace cuda
}  // namespace spatialconv

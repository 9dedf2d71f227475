// Tensor maps: how the copy engine of sm_90 walks a dense tensor of 16-bit floats in global memory. The encoders of the
// driver are found at run time, so nothing links against libcuda. On a CPU a map is a plain struct, and encoding
// refuses what the driver refuses.
#pragma once
#include <cstdint>

#include "../common/problem.h"
#include "launch.h"

#ifdef __CUDACC__
#include <cuda.h>
#endif

namespace spatialconv {
namespace cuda {

// A dense tensor n,h,w,c read in columns of `pixels` pixels of `channels` channels. A column walks the positions
// lower + i * stride of each image, columns first, up to size - 1 + upper.
struct Im2colMap {
  int64_t n, h, w, c;
  int64_t lower_h, lower_w, upper_h, upper_w, stride_h, stride_w;
  int64_t channels, pixels;
};

// A dense tensor of up to 3 axes, the fastest first, read in boxes.
struct TiledMap {
  int64_t rank;
  int64_t size[3], box[3];
};

// Values in a row of shared memory: 128 bytes, the span of the swizzle.
constexpr int64_t kSwizzleSpan = 64;

#ifdef __CUDACC__

using TensorMap = CUtensorMap;

namespace tensor_map {

template <class Encoder>
Encoder driver_encoder(const char* name) {
  void* address = nullptr;
  cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
  const cudaError_t error = cudaGetDriverEntryPointByVersion(name, &address, 12000, cudaEnableDefault, &found);
#else
  const cudaError_t error = cudaGetDriverEntryPoint(name, &address, cudaEnableDefault, &found);
#endif
  return error == cudaSuccess && found == cudaDriverEntryPointSuccess ? reinterpret_cast<Encoder>(address) : nullptr;
}

inline CUtensorMapDataType data_type(DType dtype) {
  return dtype == DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
}

// The runtime numbers the errors that it shares with the driver alike.
inline int32_t as_error(CUresult result) { return static_cast<int32_t>(result); }

}  // namespace tensor_map

// Both return 0 or a cudaError_t.
inline int32_t encode(TensorMap& map, DType dtype, const void* address, const Im2colMap& m) {
  static const auto encoder =
      tensor_map::driver_encoder<decltype(&cuTensorMapEncodeIm2col)>("cuTensorMapEncodeIm2col");
  if (encoder == nullptr) return cudaErrorInsufficientDriver;
  const auto bytes = [](int64_t values) { return static_cast<cuuint64_t>(values * 2); };
  const cuuint64_t size[] = {cuuint64_t(m.c), cuuint64_t(m.w), cuuint64_t(m.h), cuuint64_t(m.n)};
  const cuuint64_t stride[] = {bytes(m.c), bytes(m.w * m.c), bytes(m.h * m.w * m.c)};
  const int lower[] = {int(m.lower_w), int(m.lower_h)}, upper[] = {int(m.upper_w), int(m.upper_h)};
  const cuuint32_t step[] = {1, cuuint32_t(m.stride_w), cuuint32_t(m.stride_h), 1};
  return tensor_map::as_error(encoder(&map, tensor_map::data_type(dtype), 4, const_cast<void*>(address), size, stride,
                                      lower, upper, cuuint32_t(m.channels), cuuint32_t(m.pixels), step,
                                      CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                      CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

inline int32_t encode(TensorMap& map, DType dtype, const void* address, const TiledMap& m) {
  static const auto encoder = tensor_map::driver_encoder<decltype(&cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled");
  if (encoder == nullptr) return cudaErrorInsufficientDriver;
  cuuint64_t size[3], stride[3];
  cuuint32_t box[3];
  const cuuint32_t step[] = {1, 1, 1};
  for (int64_t i = 0, values = 1; i < m.rank; ++i) {
    size[i] = cuuint64_t(m.size[i]);
    box[i] = cuuint32_t(m.box[i]);
    values *= m.size[i];
    stride[i] = cuuint64_t(values * 2);
  }
  return tensor_map::as_error(encoder(&map, tensor_map::data_type(dtype), cuuint32_t(m.rank),
                                      const_cast<void*>(address), size, stride, box, step,
                                      CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                      CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

#else

struct alignas(64) TensorMap {
  const uint16_t* values;
  Im2colMap im2col;
  TiledMap tiled;
};

namespace tensor_map {

constexpr int32_t kInvalidValue = 1;

inline bool within(int64_t value, int64_t low, int64_t high) { return low <= value && value <= high; }

inline bool rows_are_aligned(const void* address, int64_t row) {
  return reinterpret_cast<uintptr_t>(address) % 16 == 0 && row * 2 % 16 == 0;
}

}  // namespace tensor_map

inline int32_t encode(TensorMap& map, DType, const void* address, const Im2colMap& m) {
  using tensor_map::within;
  bool valid = tensor_map::rows_are_aligned(address, m.c) && within(m.channels, 1, kSwizzleSpan) &&
               within(m.pixels, 1, 1024) && within(m.stride_h, 1, 8) && within(m.stride_w, 1, 8);
  for (int64_t corner : {m.lower_h, m.lower_w, m.upper_h, m.upper_w}) valid = valid && within(corner, -128, 127);
  valid = valid && m.h + m.upper_h - m.lower_h > 0 && m.w + m.upper_w - m.lower_w > 0;
  for (int64_t size : {m.n, m.h, m.w, m.c}) valid = valid && within(size, 1, int64_t{1} << 32);
  map = TensorMap{static_cast<const uint16_t*>(address), m, {}};
  return valid ? 0 : tensor_map::kInvalidValue;
}

inline int32_t encode(TensorMap& map, DType, const void* address, const TiledMap& m) {
  bool valid = tensor_map::rows_are_aligned(address, m.size[0]) && m.box[0] <= kSwizzleSpan;
  for (int64_t i = 0; i < m.rank; ++i) {
    valid = valid && tensor_map::within(m.size[i], 1, int64_t{1} << 32) && tensor_map::within(m.box[i], 1, 256);
  }
  map = TensorMap{static_cast<const uint16_t*>(address), {}, m};
  return valid ? 0 : tensor_map::kInvalidValue;
}

#endif

}  // namespace cuda
}  // namespace spatialconv

// One way to launch a kernel, for a device under nvcc and for the emulator under a C++ compiler, which defines EMULATED.
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_runtime.h>

#include <mutex>
#include <set>
#include <tuple>
#include <utility>

// The dynamic shared memory of the block, as bytes.
#define SHARED_MEMORY(name) extern __shared__ __align__(1024) unsigned char name[]
#else
#define EMULATED 1
#include "emulator.h"
#define SHARED_MEMORY(name) unsigned char* const name = emulator::dynamic_shared()
#endif

namespace spatialconv {
namespace cuda {

#if defined(EMULATED)

using Stream = void*;

template <class... Parameters, class... Arguments>
int32_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Stream,
               const Arguments&... arguments) {
  return emulator::launch(grid, block, shared_bytes, [&] { kernel(arguments...); });
}

#else

using Stream = cudaStream_t;

// More shared memory than every device has must be asked for, once for every kernel and device.
inline cudaError_t allow_shared_memory(const void* kernel, size_t bytes) {
  constexpr size_t always_there = 48 * 1024;
  if (bytes <= always_there) return cudaSuccess;
  static std::mutex mutex;
  static std::set<std::pair<const void*, int>> asked;
  int device;
  if (const cudaError_t error = cudaGetDevice(&device)) return error;
  std::lock_guard<std::mutex> lock(mutex);
  if (asked.count({kernel, device}) != 0) return cudaSuccess;
  int most;
  if (const cudaError_t error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device)) {
    return error;
  }
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
  if (error == cudaSuccess) asked.insert({kernel, device});
  return error;
}

// Enqueues the kernel and returns 0 or a cudaError_t. Waits for nothing and allocates nothing on the device, so a stream
// that is being captured into a graph takes it.
template <class... Parameters, class... Arguments>
int32_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Stream stream,
               const Arguments&... arguments) {
  const void* function = reinterpret_cast<const void*>(kernel);
  cudaError_t error = allow_shared_memory(function, shared_bytes);
  if (error == cudaSuccess) {
    std::tuple<Parameters...> converted(arguments...);
    error = std::apply(
        [&](auto&... argument) {
          void* places[] = {const_cast<void*>(static_cast<const void*>(&argument))..., nullptr};
          return cudaLaunchKernel(function, grid, block, places, shared_bytes, stream);
        },
        converted);
  }
  if (error != cudaSuccess) cudaGetLastError();  // the caller reports it; the next call must not find it again
  return static_cast<int32_t>(error);
}

#endif

}  // namespace cuda
}  // namespace spatialconv

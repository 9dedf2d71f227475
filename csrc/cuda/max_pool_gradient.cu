// The gradient of max pooling, and its derivative.
#include "max_pool_gradient.h"

namespace spatialconv {
namespace cuda {
namespace {

using namespace pool;

template <class Storage, int kVector, class Index>
int32_t gather_gradients(const Problem& p, const Buffers& buffers, Stream stream) {
  const int64_t count = p.images * (p.channels / kVector) * p.h.in * p.w.in;
  return launch_units(scatter_kernel<Storage, kVector, Index>, count, stream, p,
                      static_cast<const Storage*>(buffers.y), static_cast<const Index*>(buffers.aux),
                      static_cast<Storage*>(buffers.x), static_cast<int32_t*>(buffers.workspace), count);
}

template <class Storage>
bool in_vectors(const Problem& p, const Buffers& buffers, int64_t width) {
  const int64_t bytes = width * static_cast<int64_t>(sizeof(Storage));
  return reads_vectors(p, width) && is_aligned(buffers.x, bytes) && is_aligned(buffers.y, bytes) &&
         is_aligned(buffers.aux, 16);
}

template <class Storage>
int32_t launch_scatter(const void* problem, const Buffers& buffers, Stream stream) {
  if (!fits(problem)) return kInvalidValue;
  const Problem p = problem_of(problem);
  if (p.offsets) {
    constexpr int kWidth = kVectorWidth<Storage>;
    return in_vectors<Storage>(p, buffers, kWidth) ? gather_gradients<Storage, kWidth, uint8_t>(p, buffers, stream)
                                                   : gather_gradients<Storage, 1, uint8_t>(p, buffers, stream);
  }
  // Two indices are 16 bytes already: wider vectors of values would spread a warp's loads of indices.
  constexpr int kPair = 2;
  constexpr int64_t kMostBlocks = 1024;
  const int64_t planes = p.images * p.channels;
  auto* const marks = static_cast<int32_t*>(buffers.workspace);
  if (const int32_t error = launch_units(clear_marks_kernel, planes, stream, marks, planes)) return error;
  const int32_t error = in_vectors<Storage>(p, buffers, kPair)
                            ? gather_gradients<Storage, kPair, int64_t>(p, buffers, stream)
                            : gather_gradients<Storage, 1, int64_t>(p, buffers, stream);
  if (error != 0) return error;
  return launch(scatter_marked_kernel<Storage>, dim3(static_cast<unsigned>(smaller(planes, kMostBlocks))),
                dim3(kThreads), 0, stream, p, static_cast<const Storage*>(buffers.y),
                static_cast<const int64_t*>(buffers.aux), static_cast<Storage*>(buffers.x), marks);
}

int64_t scatter_workspace(const void* problem, int64_t) {
  if (!fits(problem)) return -1;
  const Pool2d& p = pool2d(problem);
  return p.offsets != 0 ? 0 : p.n * p.c * static_cast<int64_t>(sizeof(int32_t));
}

template <class Storage>
int32_t launch_gather(const void* problem, const Buffers& buffers, Stream stream) {
  if (!fits(problem)) return kInvalidValue;
  const Problem p = problem_of(problem);
  const int64_t count = p.images * p.channels * p.h.out * p.w.out;
  const auto* x = static_cast<const Storage*>(buffers.x);
  auto* y = static_cast<Storage*>(buffers.y);
  if (p.offsets) {
    return launch_units(gather_kernel<Storage, uint8_t>, count, stream, p, x,
                        static_cast<const uint8_t*>(buffers.aux), y, count);
  }
  return launch_units(gather_kernel<Storage, int64_t>, count, stream, p, x, static_cast<const int64_t*>(buffers.aux),
                      y, count);
}

template <class Storage>
constexpr Entry scatter_entry() {
  return {"max_pool2d_scatter", "cuda_windows",   dtype_of<Storage>::value, 0,
          launch_scatter<Storage>, scatter_workspace};
}
template <class Storage>
constexpr Entry gather_entry() {
  return {"max_pool2d_gather", "cuda_windows", dtype_of<Storage>::value, 0, launch_gather<Storage>, no_workspace};
}

constexpr Entry kEntries[] = {
    scatter_entry<float>(), scatter_entry<double>(), scatter_entry<bf16>(), scatter_entry<f16>(),
    gather_entry<float>(),  gather_entry<double>(),  gather_entry<bf16>(),  gather_entry<f16>(),
};

}  // namespace

extern const Table max_pool_gradient_table;
const Table max_pool_gradient_table = {kEntries, sizeof kEntries / sizeof kEntries[0]};

}  // namespace cuda
}  // namespace spatialconv

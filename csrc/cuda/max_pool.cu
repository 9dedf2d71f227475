// Max pooling forward: NaN wins, and among equals the first of a window.
#include "pool_forward.h"

namespace spatialconv {
namespace cuda {
namespace {

using namespace pool;

template <class Storage>
struct MaxOutput {
  Storage* values;
  void* places;  // int64 indices into the plane, uint8 with offsets; null: not wanted
};

// The places cost an instruction for every element, so they are kept only where wanted.
template <class Storage, int kVector, bool kPlaces>
struct Max {
  using Compute = compute_t<Storage>;
  using Output = MaxOutput<Storage>;
  Vector<Storage, kVector> best;
  int32_t place[kPlaces ? kVector : 1];

  // Never better than anything.
  __device__ __forceinline__ static Vector<Storage, kVector> neutral() {
    Vector<Storage, kVector> lowest;
#pragma unroll
    for (int v = 0; v < kVector; ++v) lowest.value[v] = from_compute<Storage>(static_cast<Compute>(-INFINITY));
    return lowest;
  }

  __device__ __forceinline__ void start(int32_t first) {
    best = neutral();
#pragma unroll
    for (int v = 0; v < (kPlaces ? kVector : 0); ++v) place[v] = first;
  }

  __device__ __forceinline__ void take(const Vector<Storage, kVector>& seen, int32_t name) {
#pragma unroll
    for (int v = 0; v < kVector; ++v) {
      const Compute value = to_compute(seen.value[v]);
      if (value > to_compute(best.value[v]) || value != value) {
        best.value[v] = seen.value[v];
        if (kPlaces) place[v] = name;
      }
    }
  }

  template <class PlaceOf>
  __device__ __forceinline__ void finish(const Problem& p, const Output& output, int32_t, int32_t, int64_t at,
                                         const PlaceOf& place_of) const {
    store_vector<Storage, kVector>(output.values + at, best);
    if (!kPlaces) return;
    if (p.offsets) {
      Vector<uint8_t, kVector> offsets;
#pragma unroll
      for (int v = 0; v < kVector; ++v) offsets.value[v] = static_cast<uint8_t>(place_of(place[v]));
      store_vector<uint8_t, kVector>(static_cast<uint8_t*>(output.places) + at, offsets);
      return;
    }
    constexpr int kPair = kVector > 1 ? 2 : 1;  // 16 bytes
#pragma unroll
    for (int first = 0; first < kVector; first += kPair) {
      Vector<int64_t, kPair> indices;
#pragma unroll
      for (int i = 0; i < kPair; ++i) indices.value[i] = place_of(place[first + i]);
      store_vector<int64_t, kPair>(static_cast<int64_t*>(output.places) + at + first, indices);
    }
  }
};

template <class Storage, int kVector>
using MaxValue = Max<Storage, kVector, false>;
template <class Storage, int kVector>
using MaxPlace = Max<Storage, kVector, true>;

template <class Storage>
int32_t launch_max_pool(const void* problem, const Buffers& buffers, Stream stream) {
  if (!fits(problem)) return kInvalidValue;
  const Problem p = problem_of(problem);
  const MaxOutput<Storage> output{static_cast<Storage*>(buffers.y), buffers.aux};
  const bool vectors = reads_vectors(p, kVectorWidth<Storage>) && is_aligned(buffers.x, 16) &&
                       is_aligned(buffers.y, 16) && is_aligned(buffers.aux, 16);
  if (buffers.aux == nullptr) return launch_forward<Storage, MaxValue>(p, buffers.x, output, vectors, stream);
  return launch_forward<Storage, MaxPlace>(p, buffers.x, output, vectors, stream);
}

template <class Storage>
constexpr Entry entry() {
  return {"max_pool2d", "cuda_windows", dtype_of<Storage>::value, 0, launch_max_pool<Storage>, no_workspace};
}

constexpr Entry kEntries[] = {entry<float>(), entry<double>(), entry<bf16>(), entry<f16>()};

}  // namespace

extern const Table max_pool_table;
const Table max_pool_table = {kEntries, sizeof kEntries / sizeof kEntries[0]};

}  // namespace cuda
}  // namespace spatialconv

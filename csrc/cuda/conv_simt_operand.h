// An operand of the product on its way from global memory to shared memory. Element (line, depth) of the operand stands
// at the sum of two places, one for the line and one for the depth, or is zero where that sum lies outside of an image:
// pixels and taps of a convolution meet in this way, whichever of the two are the lines.
#pragma once
#include "number.h"
#include "vector.h"

namespace spatialconv {
namespace cuda {
namespace conv_simt {

struct alignas(16) Place {
  int64_t offset;  // in elements
  int32_t h, w;
};

// Of a place's h: outside of every image, with whatever it is summed. Positions stay below it in magnitude.
constexpr int32_t kNowhere = -(1 << 30);

template <class Storage>
struct Operand {
  const Storage* base;
  int32_t height, width;
  bool vectors;  // neighbours along the loader's direction stand side by side, aligned, inside or outside together
};

// Which way the operand's elements lie side by side.
enum class Along { lines, depth };

template <class Storage>
__device__ __forceinline__ bool inside(const Operand<Storage>& operand, const Place& line, const Place& depth) {
  return static_cast<uint32_t>(line.h + depth.h) < static_cast<uint32_t>(operand.height) &&
         static_cast<uint32_t>(line.w + depth.w) < static_cast<uint32_t>(operand.width);
}

// Moves kDepth x kLines elements: `read` holds them in registers, `write` puts them into shared memory.
template <class Storage, int kThreads, int kDepth, int kLines, int kPitch, Along kAlong>
class Loader {
  using Compute = compute_t<Storage>;
  static constexpr int kVector = kVectorWidth<Storage>;
  static constexpr int kVectors = kLines * kDepth / kVector;
  static constexpr int kTurns = (kVectors + kThreads - 1) / kThreads;
  static constexpr int kInRow = (kAlong == Along::depth ? kDepth : kLines) / kVector;
  static constexpr int kPlaces = kAlong == Along::depth ? kTurns : kVector;
  static_assert(kThreads % kInRow == 0, "a thread keeps its place in a row of vectors");

 public:
  using Row = Compute[kPitch];

  template <class PlaceOf>
  __device__ __forceinline__ Loader(const Operand<Storage>& operand, const PlaceOf& place_of_line)
      : operand_(operand), in_row_(threadIdx.x % kInRow), row_(threadIdx.x / kInRow) {
#pragma unroll
    for (int i = 0; i < kPlaces; ++i) {
      if (kAlong == Along::depth) {
        if (works(i)) places_[i] = place_of_line(row_of(i));
      } else {
        places_[i] = place_of_line(line_of(i));
      }
    }
  }

  __device__ __forceinline__ void read(const Place* depths) {
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      if (!works(turn)) continue;
      if (operand_.vectors) {
        const Place depth = depths[kAlong == Along::depth ? in_row_ * kVector : row_of(turn)];
        const Place line = places_[kAlong == Along::depth ? turn : 0];
        held_[turn] = inside(operand_, line, depth)
                          ? load_vector<Storage, kVector>(operand_.base + (line.offset + depth.offset))
                          : Vector<Storage, kVector>{};
        continue;
      }
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const Place depth = depths[kAlong == Along::depth ? in_row_ * kVector + i : row_of(turn)];
        const Place line = places_[kAlong == Along::depth ? turn : i];
        held_[turn].value[i] =
            inside(operand_, line, depth) ? operand_.base[line.offset + depth.offset] : Storage{};
      }
    }
  }

  __device__ __forceinline__ void write(Row* tile) const {
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      if (!works(turn)) continue;
      if (kAlong == Along::lines && operand_.vectors) {
        constexpr int kRun = kVectorWidth<Compute>;
#pragma unroll
        for (int first = 0; first < kVector; first += kRun) {
          Vector<Compute, kRun> run;
#pragma unroll
          for (int i = 0; i < kRun; ++i) run.value[i] = to_compute(held_[turn].value[first + i]);
          store_vector<Compute, kRun>(&tile[row_of(turn)][in_row_ * kVector + first], run);
        }
        continue;
      }
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const Compute value = to_compute(held_[turn].value[i]);
        if (kAlong == Along::depth) {
          tile[in_row_ * kVector + i][row_of(turn)] = value;
        } else {
          tile[row_of(turn)][line_of(i)] = value;
        }
      }
    }
  }

 private:
  __device__ __forceinline__ bool works(int turn) const {
    return kVectors % kThreads == 0 || static_cast<int>(threadIdx.x) + turn * kThreads < kVectors;
  }
  __device__ __forceinline__ int row_of(int turn) const { return row_ + turn * (kThreads / kInRow); }
  // Without vectors, neighbouring threads take neighbouring lines.
  __device__ __forceinline__ int line_of(int i) const {
    return operand_.vectors ? in_row_ * kVector + i : in_row_ + i * kInRow;
  }

  Operand<Storage> operand_;
  int in_row_, row_;
  Place places_[kPlaces];
  Vector<Storage, kVector> held_[kTurns];
};

}  // namespace conv_simt
}  // namespace cuda
}  // namespace spatialconv

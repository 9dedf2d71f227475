// What the mma kernels share: the tiles of the two operands in shared memory, and the warp-level product of a stage.
// Four warps stand two by two on a tile of results. A stage holds 64 bytes of the sum for each row and column, two
// instructions' worth. 16-byte chunks are permuted by exclusive or, so that no load of a fragment has a bank conflict
// (CUTLASS, "permuted shared memory layouts").
#pragma once
#include "ptx.h"

namespace spatialconv {
namespace cuda {
namespace mma_conv {

constexpr int kThreads = 128;
constexpr int kWarpsAcross = 2, kWarpsDown = 2;
constexpr int kStages = 4;
constexpr int kChunkBytes = 16;

template <class T>
constexpr int kDepth = 64 / sizeof(T);  // terms of the sum in a stage
template <class T>
constexpr int kVector = kChunkBytes / sizeof(T);
template <class T>
constexpr int kProduct = 32 / sizeof(T);  // terms of the sum in one instruction
template <class T>
constexpr int kProducts = kDepth<T> / kProduct<T>;

// A tile of kRows rows of the product's operand (columns, for the right one) that lie along the sum.
template <class T, int kRows>
struct SumMajor {
  static constexpr int kBytes = kRows * kDepth<T> * sizeof(T);
  static constexpr int kChunks = kDepth<T> / kVector<T>;  // of a line of the tile
  static constexpr int kLines = kRows;
  static constexpr int kLineBytes = kChunks * kChunkBytes;
  static constexpr int kPeriod = 8;  // lines after which the permutation repeats

  static __device__ __forceinline__ int place(int line, int chunk) {
    return line * kLineBytes + (chunk ^ (line >> 1 & 3)) * kChunkBytes;
  }

  // The fragment of the 16 rows from `row`, a multiple of kPeriod, as `multiply` wants its left operand.
  static __device__ __forceinline__ void load_left(uint32_t (&words)[4], const unsigned char* tile, int row,
                                                   int product) {
    const int lane = threadIdx.x % 32;
    load_matrices(words, tile + row * kLineBytes + place(lane % 16, product * 2 + lane / 16));
  }

  // The fragments of 16 columns as two right operands.
  static __device__ __forceinline__ void load_right(uint32_t (&words)[4], const unsigned char* tile, int column,
                                                    int product) {
    const int lane = threadIdx.x % 32;
    const int line = lane % 8 + lane / 16 * 8;
    load_matrices(words, tile + column * kLineBytes + place(line, product * 2 + lane / 8 % 2));
  }
};

// A tile whose lines are terms of the sum and lie along the kRows rows of the operand.
template <class T, int kRows>
struct RowMajor {
  static constexpr int kBytes = kRows * kDepth<T> * sizeof(T);
  static constexpr int kChunks = kRows / kVector<T>;
  static constexpr int kLines = kDepth<T>;
  static constexpr int kLineBytes = kChunks * kChunkBytes;
  static constexpr int kPeriod = sizeof(T) == 2 ? 8 : 4;

  static __device__ __forceinline__ int place(int line, int chunk) {
    const int crossed = sizeof(T) == 2 ? line & 7 : (line & 3) << 1;
    return line * kLineBytes + (chunk ^ crossed) * kChunkBytes;
  }

  static __device__ __forceinline__ void load_left(uint32_t (&words)[4], const unsigned char* tile, int row,
                                                   int product) {
    const int lane = threadIdx.x % 32;
    if constexpr (sizeof(T) == 2) {
      const unsigned char* lines = tile + product * kProduct<T> * kLineBytes;
      load_matrices_transposed(words, lines + place(lane % 8 + lane / 16 * 8, row / kVector<T> + lane / 8 % 2));
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) words[i] = word(tile, product * kProduct<T> + i / 2 * 4, row + i % 2 * 8);
    }
  }

  static __device__ __forceinline__ void load_right(uint32_t (&words)[4], const unsigned char* tile, int column,
                                                    int product) {
    const int lane = threadIdx.x % 32;
    if constexpr (sizeof(T) == 2) {
      const unsigned char* lines = tile + product * kProduct<T> * kLineBytes;
      load_matrices_transposed(words, lines + place(lane % 16, column / kVector<T> + lane / 16));
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) words[i] = word(tile, product * kProduct<T> + i % 2 * 4, column + i / 2 * 8);
    }
  }

 private:
  // No instruction transposes 32-bit elements: each lane takes its own word of four lines and eight rows.
  static __device__ __forceinline__ uint32_t word(const unsigned char* tile, int line, int row) {
    const int lane = threadIdx.x % 32, own = lane / 4;
    const unsigned char* lines = tile + line * kLineBytes;
    return load_word(lines + place(lane % 4, row / kVector<T> + own / kVector<T>) + own % kVector<T> * sizeof(T));
  }
};

template <class T>
__device__ __forceinline__ void round_operand(uint32_t (&words)[4]) {
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = round_to_tf32(words[i]);
  }
}

// The results that one warp holds of a tile of kRows x kColumns.
template <int kRows, int kColumns>
struct WarpTile {
  static constexpr int kHeight = kRows / kWarpsDown, kWidth = kColumns / kWarpsAcross;
  static constexpr int kDown = kHeight / 16, kAcross = kWidth / 8;  // instructions

  float sums[kDown][kAcross][4];

  static __device__ __forceinline__ int first_row() {
    return static_cast<int>(threadIdx.x) / 32 / kWarpsAcross * kHeight;
  }
  static __device__ __forceinline__ int first_column() {
    return static_cast<int>(threadIdx.x) / 32 % kWarpsAcross * kWidth;
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kDown; ++i)
#pragma unroll
      for (int j = 0; j < kAcross; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[i][j][e] = 0.0f;
  }

  // Adds the product of one stage's operands.
  template <class T, class Left, class Right>
  __device__ __forceinline__ void add_product(const unsigned char* left, const unsigned char* right) {
#pragma unroll
    for (int product = 0; product < kProducts<T>; ++product) {
      uint32_t a[kDown][4], b[kAcross / 2][4];
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
        Left::load_left(a[i], left, first_row() + i * 16, product);
        round_operand<T>(a[i]);
      }
#pragma unroll
      for (int j = 0; j < kAcross / 2; ++j) {
        Right::load_right(b[j], right, first_column() + j * 16, product);
        round_operand<T>(b[j]);
      }
#pragma unroll
      for (int i = 0; i < kDown; ++i)
#pragma unroll
        for (int j = 0; j < kAcross; ++j) multiply<T>(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
  }

  // Adds term(column) to the results of each column.
  template <class Term>
  __device__ __forceinline__ void add_to_columns(const Term& term) {
    const int column = first_column() + threadIdx.x % 4 * 2;
#pragma unroll
    for (int j = 0; j < kAcross; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float addend = term(column + j * 8 + e);
#pragma unroll
        for (int i = 0; i < kDown; ++i) {
          sums[i][j][e] += addend;
          sums[i][j][2 + e] += addend;
        }
      }
  }

  // Calls visit(row, column, first, second) for each pair of neighbouring results of this thread.
  template <class Visit>
  __device__ __forceinline__ void for_each_pair(const Visit& visit) const {
    const int row = first_row() + threadIdx.x % 32 / 4, column = first_column() + threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < kDown; ++i)
#pragma unroll
      for (int j = 0; j < kAcross; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          visit(row + i * 16 + half * 8, column + j * 8, sums[i][j][half * 2], sums[i][j][half * 2 + 1]);
        }
  }
};

// sums += the product of `steps` stages, kStages - 1 of which are under way while one is multiplied. `load(step,
// stage)` issues this thread's copies of a step into a stage.
template <class T, class Left, class Right, class Sums, class Load>
__device__ __forceinline__ void run_pipeline(Sums& sums, unsigned char* shared, int32_t steps, const Load& load) {
  constexpr int kStageBytes = Left::kBytes + Right::kBytes;
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < steps) load(stage, shared + stage * kStageBytes);
    copy_commit();
  }
  int reading = 0, writing = kStages - 1;
  for (int32_t step = 0; step < steps; ++step) {
    copy_wait<kStages - 2>();
    __syncthreads();  // this stage is there for every thread, and the one before it has been read by every thread
    if (step + kStages - 1 < steps) load(step + kStages - 1, shared + writing * kStageBytes);
    copy_commit();
    const unsigned char* stage = shared + reading * kStageBytes;
    sums.template add_product<T, Left, Right>(stage, stage + Left::kBytes);
    reading = reading + 1 == kStages ? 0 : reading + 1;
    writing = writing + 1 == kStages ? 0 : writing + 1;
  }
  copy_wait<0>();
  __syncthreads();
}

}  // namespace mma_conv
}  // namespace cuda
}  // namespace spatialconv

// The inner loops: 32 x 32 sums as 2 x 2 tiles, or by register vectors, over a run of depth.
#pragma once
#include <cstdint>
#include <type_traits>

#include "dots.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace dots {

constexpr int64_t kBlock = 2 * kRows;  // rows, columns and pitch of a block of sums

// sums[i][j] (+)= sum over k of a[i][k] * b[k][j], over `chunks` of kRowNumbers each. Rows of `a` lie `a_stride` bytes
// apart and are contiguous along k; `b` is tiles of 16 columns, in which row p holds, column by column, the pair of k =
// 2p and 2p + 1. The next 16 rows and the next 16 columns are `a_tile` and `b_tile` bytes further on.
struct Product {
  const char* a;
  const char* b;
  int64_t a_stride, a_tile, b_tile;
  int64_t chunks;
  float* sums;
  bool continues;  // onto what sums hold
};

template <int number>
using Tile = std::integral_constant<int, number>;

// body(tile, its sums) for the tiles of a block.
template <int rows, int columns, class Body>
SC_INLINE void for_each_sum(float* sums, const Body& body) {
  body(Tile<0>{}, sums);
  if constexpr (columns == 2) body(Tile<1>{}, sums + kRows);
  if constexpr (rows == 2) body(Tile<2>{}, sums + kRows * kBlock);
  if constexpr (rows == 2 && columns == 2) body(Tile<3>{}, sums + kRows * kBlock + kRows);
}

template <int rows, int columns, class Registers>
void multiply_tiles(Registers& tiles, const Product& product) {
  constexpr int64_t pitch = kBlock * sizeof(float);
  const char* a = product.a;
  const char* b = product.b;
  const int64_t a_stride = product.a_stride, a_tile = product.a_tile, b_tile = product.b_tile;
  const bool continues = product.continues;
  for_each_sum<rows, columns>(product.sums, [&](auto tile, float* sums) {
    if (continues) {
      tiles.template load<decltype(tile)::value>(sums, pitch);
    } else {
      tiles.template zero<decltype(tile)::value>();
    }
  });
  for (const char* const end = a + product.chunks * kRowBytes; a != end; a += kRowBytes, b += kTileBytes) {
    tiles.template load<4>(a, a_stride);
    tiles.template load<6>(b, kRowBytes);
    tiles.template dot<0, 4, 6>();
    if constexpr (columns == 2) {
      tiles.template load<7>(b + b_tile, kRowBytes);
      tiles.template dot<1, 4, 7>();
    }
    if constexpr (rows == 2) {
      tiles.template load<5>(a + a_tile, a_stride);
      tiles.template dot<2, 5, 6>();
    }
    if constexpr (rows == 2 && columns == 2) tiles.template dot<3, 5, 7>();
  }
  for_each_sum<rows, columns>(product.sums, [&](auto tile, float* sums) {
    tiles.template store<decltype(tile)::value>(sums, pitch);
  });
}

// Rows at a time: 8 x 2 sums hide the latency of two units, and 8 + 2 loads serve 16 products.
constexpr int64_t kVectorRows = 8;

template <int columns, class Vector>
void multiply_vectors(int64_t rows, const Product& product) {
  const int64_t a_stride = product.a_stride, b_tile = product.b_tile;
  for (int64_t first = 0; first < rows * kRows; first += kVectorRows) {
    const char* a = product.a + first / kRows * product.a_tile + first % kRows * a_stride;
    const char* b = product.b;
    float* out = product.sums + first * kBlock;
    typename Vector::Sums sums[kVectorRows][columns];
    SC_UNROLL for (int i = 0; i < kVectorRows; ++i) {
      SC_UNROLL for (int j = 0; j < columns; ++j) {
        sums[i][j] = product.continues ? Vector::load(out + i * kBlock + j * kRows) : Vector::zero();
      }
    }
    for (const char* const end = a + product.chunks * kRowBytes; a != end; a += 2 * sizeof(bf16), b += kRowBytes) {
      typename Vector::Pairs right[columns];
      SC_UNROLL for (int j = 0; j < columns; ++j) right[j] = Vector::pairs(b + j * b_tile);
      SC_UNROLL for (int i = 0; i < kVectorRows; ++i) {
        const typename Vector::Pairs left = Vector::broadcast(a + i * a_stride);
        SC_UNROLL for (int j = 0; j < columns; ++j) sums[i][j] = Vector::dot(sums[i][j], left, right[j]);
      }
    }
    SC_UNROLL for (int i = 0; i < kVectorRows; ++i) {
      SC_UNROLL for (int j = 0; j < columns; ++j) Vector::store(out + i * kBlock + j * kRows, sums[i][j]);
    }
  }
}

// What a thread multiplies with; `rows` and `columns` count tiles, 1 or 2.
template <class Registers>
struct TileUnit {
  Registers tiles;

  void multiply(int64_t rows, int64_t columns, const Product& product) {
    if (rows == 2) return columns == 2 ? multiply_tiles<2, 2>(tiles, product) : multiply_tiles<2, 1>(tiles, product);
    return columns == 2 ? multiply_tiles<1, 2>(tiles, product) : multiply_tiles<1, 1>(tiles, product);
  }
};

template <class Vector>
struct VectorUnit {
  void multiply(int64_t rows, int64_t columns, const Product& product) {
    return columns == 2 ? multiply_vectors<2, Vector>(rows, product) : multiply_vectors<1, Vector>(rows, product);
  }
};

}  // namespace dots
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

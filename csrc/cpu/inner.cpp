// 1x1 filters on few pixels: an output is the inner product of a filter with the channels of a pixel, and both are read
// where they lie. With few pixels a weight is used too seldom for packing it to pay; the smallest case, one pixel, is a
// matrix times a vector, bound by the one read of the matrix.
//
// Vectors run along the channels. A tile keeps kTileFilters x kTilePixels sums of vectors, or kColumnFilters of the
// pixels that are left over, whose lanes are added up at its end by transposes. kDepth channels of its filters stay in
// the first-level cache while kPixelBlock pixels pass.
#include "activation.h"
#include "inner_products.h"
#include "kernel.h"

#include "../common/geometry.h"
#include "../common/parallel.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

constexpr int64_t kFilterBlock = 32, kPixelBlock = 32;
constexpr int64_t kDepth = 1024;

template <class Storage>
class InnerProducts {
 public:
  using C = compute_t<Storage>;

  InnerProducts(const Conv2d& problem, const Buffers& buffers) : p_(problem), b_(buffers) {}

  int64_t blocks_per_group() const { return ceil_div(p_.oc / p_.g, kFilterBlock); }

  // All pixels of one block of filters.
  void run(int64_t block) const {
    const int64_t group = block / blocks_per_group(), channels = p_.oc / p_.g;
    const int64_t first = block % blocks_per_group() * kFilterBlock, filters = smaller(kFilterBlock, channels - first);
    const int64_t oc = group * channels + first, pixels = p_.n * p_.oh * p_.ow, depth = p_.ic / p_.g;
    const Storage* w = static_cast<const Storage*>(b_.w) + oc * p_.w_stride[0];
    C sums[kPixelBlock][kFilterBlock];
    for (int64_t pixel = 0; pixel < pixels; pixel += kPixelBlock) {
      const int64_t count = smaller(kPixelBlock, pixels - pixel);
      const int64_t tiled = count / kTilePixels * kTilePixels;
      int64_t k = 0;
      do {
        const Piece piece{w + k, filters, pixel, group * depth + k, smaller(kDepth, depth - k), k > 0};
        for (int64_t f = 0; f < filters; f += kTileFilters) {
          for (int64_t q = 0; q < tiled; q += kTilePixels) {
            fetch(piece, f + kTileFilters, q, tiled);
            tile<kTileFilters, kTilePixels>(piece, f, q, sums);
          }
        }
        for (int64_t q = tiled; q < count; ++q) {
          for (int64_t f = 0; f < filters; f += kColumnFilters) tile<kColumnFilters, 1>(piece, f, q, sums);
        }
        k += kDepth;
      } while (k < depth);
      for (int64_t q = 0; q < count; ++q) finish(pixel + q, oc, filters, sums[q]);
    }
  }

 private:
  // Some channels of a block of filters, and of the pixels from `pixel` on.
  struct Piece {
    const Storage* w;
    int64_t filters, pixel, channel, depth;
    bool accumulate;
  };

  // A part of the filters of the next tile, at pixel q of so many on this one: each filter comes from afar once, and the
  // processor does not see it coming.
  void fetch(const Piece& piece, int64_t f, int64_t q, int64_t tiled) const {
    const int64_t lines = ceil_div(piece.depth * static_cast<int64_t>(sizeof(Storage)), 64);
    const int64_t first = lines * q / tiled, last = lines * (q + kTilePixels) / tiled;
    for (int i = 0; i < kTileFilters; ++i) {
      const char* row = reinterpret_cast<const char*>(piece.w + (f + i) * p_.w_stride[0]);
      for (int64_t line = first; line < last; ++line) __builtin_prefetch(row + 64 * line);
    }
  }

  // A tile that reaches past the last filter computes that one again.
  template <int kFilters, int kPixels>
  void tile(const Piece& piece, int64_t f, int64_t q, C (&sums)[kPixelBlock][kFilterBlock]) const {
    const Storage* rows[kFilters];
    const Storage* columns[kPixels];
    for (int i = 0; i < kFilters; ++i) rows[i] = piece.w + smaller(f + i, piece.filters - 1) * p_.w_stride[0];
    for (int i = 0; i < kPixels; ++i) columns[i] = source(piece.pixel + q + i) + piece.channel;
    C products[kPixels * kFilters];
    multiply(rows, columns, piece.depth, products);
    for (int i = 0; i < kPixels; ++i) {
      for (int j = 0; j < kFilters; ++j) {
        C& sum = sums[q + i][f + j];
        sum = piece.accumulate ? sum + products[i * kFilters + j] : products[i * kFilters + j];
      }
    }
  }

  const Storage* source(int64_t pixel) const {
    const int64_t ow = pixel % p_.ow, row = pixel / p_.ow;
    return static_cast<const Storage*>(b_.x) + row / p_.oh * p_.x_stride[0] + row % p_.oh * p_.sh * p_.x_stride[2] +
           ow * p_.sw * p_.x_stride[3];
  }

  void finish(int64_t pixel, int64_t oc, int64_t filters, const C (&sums)[kFilterBlock]) const {
    constexpr int64_t lanes = kLanes<C>;
    const int64_t ow = pixel % p_.ow, row = pixel / p_.ow;
    Storage* out = static_cast<Storage*>(b_.y) + row / p_.oh * p_.y_stride[0] + row % p_.oh * p_.y_stride[2] +
                   ow * p_.y_stride[3] + oc;
    const Storage* bias = static_cast<const Storage*>(b_.aux);
    for (int64_t f = 0; f < filters; f += lanes) {
      vec<C> value = load_n(sums + f, filters - f);
      if (bias != nullptr) value += load_n(bias + oc + f, filters - f);
      activate<C>(p_.activation, value);
      store_n(out + f, value, filters - f);
    }
  }

  const Conv2d& p_;
  const Buffers& b_;
};

template <class Storage>
int32_t conv2d(const void* problem, const Buffers& buffers) {
  const Conv2d& p = *static_cast<const Conv2d*>(problem);
  const InnerProducts<Storage> products(p, buffers);
  const int64_t work = kFilterBlock * (p.ic / p.g) * p.n * p.oh * p.ow;
  const int64_t grain = grain_for(work, buffers.threads);
  return parallel_for(p.g * products.blocks_per_group(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) products.run(block);
  });
}

constexpr KernelEntry kEntries[] = {
    {"conv2d", "inner", DType::f32, conv2d<float>, nullptr, nullptr, nullptr},
    {"conv2d", "inner", DType::f64, conv2d<double>, nullptr, nullptr, nullptr},
    {"conv2d", "inner", DType::bf16, conv2d<bf16>, nullptr, nullptr, nullptr},
    {"conv2d", "inner", DType::f16, conv2d<f16>, nullptr, nullptr, nullptr},
};

}  // namespace

extern const KernelTable inner_table;
const KernelTable inner_table = {kEntries, sizeof kEntries / sizeof kEntries[0]};

}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

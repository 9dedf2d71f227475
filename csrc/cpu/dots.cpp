// Convolution of bfloat16 by instructions that multiply pairs of it and add in float: packed filters times staged
// blocks of the input, forward and input gradient. dots_plan.h says how it is cut, dots.h what the instructions are.
#include "kernel.h"

#include "dots_plan.h"
#include "dots_stage.h"
#include "dots_weights.h"
#include "gemm_store.h"

#include "../common/parallel.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

using namespace dots;

// One thread's share of a correlation.
template <class Unit>
class Correlating {
 public:
  Correlating(const Correlation& c, const Plan& plan, const bf16* source, const char* filters, bf16* dest,
              const bf16* bias, char* slab)
      : c_(c), plan_(plan), source_(source), filters_(filters), dest_(dest), bias_(bias), staged_(slab),
        sums_(reinterpret_cast<float*>(slab + plan.staged_bytes)) {}

  void run(int64_t begin, int64_t end) {
    int64_t held = -1;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t part = task / plan_.panels;
      group_ = part % c_.groups;
      pixel_ = part / c_.groups * plan_.pixels;
      pixel_end_ = smaller(pixel_ + plan_.pixels, c_.pixels());
      if (part != held) stage();
      held = part;
      multiply(task % plan_.panels);
    }
  }

 private:
  const bf16* source() const { return source_ + group_ * c_.source_channels * c_.source.channel; }

  void stage() {
    const auto fill = c_.nhwc ? stage_rows : stage_pairs;
    first_staged_ = plan_.first_staged(c_, pixel_, pixel_end_);
    fill(c_, plan_, source(), first_staged_, pixel_end_, staged_);
  }

  // The staged pixels times one block of filters.
  void multiply(int64_t panel) {
    const int64_t channels = smaller(kBlock, c_.dest_channels - panel * kBlock);
    for (int64_t depth = 0; depth < plan_.depth_tiles; depth += kDepthTiles) {
      const bool last = depth + kDepthTiles >= plan_.depth_tiles;
      float* sums = sums_;
      for (int64_t pixel = pixel_; pixel < pixel_end_; pixel += kBlock) {
        const int64_t pixels = smaller(kBlock, pixel_end_ - pixel);
        const int64_t pixel_tiles = ceil_div(pixels, kRows), channel_tiles = ceil_div(channels, kRows);
        const Product product = operands(panel, pixel, depth, sums);
        if (c_.nhwc) {
          unit_.multiply(pixel_tiles, channel_tiles, product);
        } else {
          unit_.multiply(channel_tiles, pixel_tiles, product);
        }
        if (last) store(panel, channels, pixel, pixels, sums);
        if (plan_.depth_tiles > kDepthTiles) sums += kBlock * kBlock;
      }
    }
  }

  Product operands(int64_t panel, int64_t pixel, int64_t depth, float* sums) const {
    const int64_t tile = group_ * filter_tiles(c_) + panel * (kBlock / kRows);
    const char* filters = filters_ + tile * filter_tile_bytes(c_);
    const char* pixels = staged_ + (pixel - first_staged_) / kRows * plan_.staged_tile;
    int64_t row_stride = plan_.row_stride;
    if (pixel < first_staged_) {
      pixels = reinterpret_cast<const char*>(source() + pixel * c_.source.column);
      row_stride = c_.source.column * int64_t(sizeof(bf16));
    }
    Product product;
    product.a = (c_.nhwc ? pixels : filters) + depth * kRowBytes;
    product.b = (c_.nhwc ? filters : pixels) + depth * kTileBytes;
    product.a_stride = row_stride;
    product.a_tile = kRows * row_stride;
    product.b_tile = plan_.pairs_tile;
    product.chunks = smaller(kDepthTiles, plan_.depth_tiles - depth);
    product.sums = sums;
    product.continues = depth > 0;
    return product;
  }

  void store(int64_t panel, int64_t channels, int64_t pixel, int64_t pixels, const float* sums) const {
    const int64_t channel = group_ * c_.dest_channels + panel * kBlock;
    const bf16* bias = bias_ == nullptr ? nullptr : bias_ + channel;
    if (!c_.nhwc) {
      return gemm::store_lines(c_, dest_ + channel * c_.dest.channel, bias, pixel, channels, pixels, sums, kBlock);
    }
    constexpr int64_t width = gemm::kTileColumns<float>;
    for (int64_t j = 0; j < channels; j += width) {
      gemm::store_rows(c_, dest_ + channel + j, bias == nullptr ? bias : bias + j, pixel, pixels,
                       smaller(width, channels - j), sums + j, kBlock);
    }
  }

  const Correlation& c_;
  const Plan& plan_;
  const bf16* source_;
  const char* filters_;
  bf16* dest_;
  const bf16* bias_;
  char* staged_;
  float* sums_;
  Unit unit_;
  int64_t group_ = 0, pixel_ = 0, pixel_end_ = 0, first_staged_ = 0;
};

int64_t correlate_workspace(const Correlation& c, int64_t threads) {
  if (c.pixels() == 0 || c.taps() == 0) return 0;
  return packed_filter_bytes(c) + threads * Plan(c, threads).slab_bytes;
}

// `w` is packed already when `packed` says so.
template <class Unit>
int32_t correlate(const Correlation& c, const void* source, const void* w, bool packed, void* dest, const void* bias,
                  void* workspace, int64_t threads) {
  if (c.pixels() == 0) return 0;
  if (c.taps() == 0) {
    return parallel_for(c.pixels(), 256, [&](int64_t begin, int64_t end) {
      gemm::store_zeros(c, static_cast<bf16*>(dest), begin, end);
    });
  }
  const Plan plan(c, threads);
  char* slabs = static_cast<char*>(workspace);
  const char* filters = static_cast<const char*>(w);
  if (!packed) {
    const int32_t error = pack_filters(c, static_cast<const bf16*>(w), slabs);
    if (error != 0) return error;
    filters = slabs;
    slabs += packed_filter_bytes(c);
  }
  return parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t slab = begin; slab < end; ++slab) {
      Correlating<Unit> share(c, plan, static_cast<const bf16*>(source), filters, static_cast<bf16*>(dest),
                              static_cast<const bf16*>(bias), slabs + slab * plan.slab_bytes);
      share.run(plan.tasks * slab / threads, plan.tasks * (slab + 1) / threads);
    }
  });
}

const Conv2d& as_conv(const void* problem) { return *static_cast<const Conv2d*>(problem); }

int64_t forward_packed_bytes(const void* problem) {
  return packed_filter_bytes(gemm::forward_correlation(as_conv(problem)));
}

int32_t forward_pack(const void* problem, const Buffers& b) {
  return pack_filters(gemm::forward_correlation(as_conv(problem)), static_cast<const bf16*>(b.w),
                      static_cast<char*>(b.workspace));
}

int64_t forward_workspace(const void* problem, int64_t threads) {
  return correlate_workspace(gemm::forward_correlation(as_conv(problem)), threads);
}

template <class Unit>
int32_t run_forward(const void* problem, const Buffers& b) {
  return correlate<Unit>(gemm::forward_correlation(as_conv(problem)), b.x, b.w, b.packed != 0, b.y, b.aux, b.workspace,
                         b.threads);
}

int64_t grad_input_workspace(const void* problem, int64_t threads) {
  const Conv2d& p = as_conv(problem);
  int64_t bytes = 0;
  for (int64_t phase = 0; phase < gemm::gradient_phases(p); ++phase) {
    bytes = larger(bytes, correlate_workspace(gemm::gradient_correlation(p, phase), threads));
  }
  return bytes;
}

template <class Unit>
int32_t run_grad_input(const void* problem, const Buffers& b) {
  const Conv2d& p = as_conv(problem);
  for (int64_t phase = 0; phase < gemm::gradient_phases(p); ++phase) {
    const int32_t error = correlate<Unit>(gemm::gradient_correlation(p, phase), b.y, b.w, false, b.x, nullptr,
                                          b.workspace, b.threads);
    if (error != 0) return error;
  }
  return 0;
}

template <class Unit>
constexpr KernelEntry forward_entry(const char* name) {
  return {"conv2d", name, DType::bf16, run_forward<Unit>, forward_workspace, forward_packed_bytes, forward_pack};
}
template <class Unit>
constexpr KernelEntry grad_input_entry(const char* name) {
  return {"conv2d_grad_input", name, DType::bf16, run_grad_input<Unit>, grad_input_workspace, nullptr, nullptr};
}

// Named by the instructions that they need, which no level has for certain.
const KernelEntry entries[] = {
    forward_entry<TileUnit<TileTwin>>("dots_amx_bf16_twin"),
    grad_input_entry<TileUnit<TileTwin>>("dots_amx_bf16_twin"),
    forward_entry<VectorUnit<VectorTwin>>("dots_avx512_bf16_twin"),
    grad_input_entry<VectorUnit<VectorTwin>>("dots_avx512_bf16_twin"),
#if defined(SC_DOTS)
    forward_entry<TileUnit<Tiles>>("dots_amx_bf16"),
    grad_input_entry<TileUnit<Tiles>>("dots_amx_bf16"),
    forward_entry<VectorUnit<Vectors>>("dots_avx512_bf16"),
    grad_input_entry<VectorUnit<Vectors>>("dots_avx512_bf16"),
#endif
};

}  // namespace

extern const KernelTable dots_table;
const KernelTable dots_table{entries, sizeof entries / sizeof entries[0]};

}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

// What the mma kernels are told of a problem: which operands are packed first, tiles, shares of the sum and the
// workspace.
#pragma once
#include <numeric>

#include "conv_mma_correlate.h"
#include "conv_mma_grad_weight.h"
#include "conv_mma_pack.h"
#include "conv_mma_shares.h"

namespace spatialconv {
namespace cuda {
namespace mma_conv {

constexpr int32_t kInvalidValue = 1;  // cudaErrorInvalidValue
constexpr int64_t kWorkspaceUnit = 256;

enum class Pass { forward, grad_input, grad_weight };

// One of the images of a problem: x, or y, which is grad_output in the gradients.
struct Image {
  int64_t n, groups, channels, h, w;  // channels of one group
  const int64_t* stride;
};

inline Image x_of(const Conv2d& p) { return {p.n, p.g, p.ic / p.g, p.ih, p.iw, p.x_stride}; }
inline Image y_of(const Conv2d& p) { return {p.n, p.g, p.oc / p.g, p.oh, p.ow, p.y_stride}; }
inline Image source_of(const Conv2d& p, Pass pass) { return pass == Pass::grad_input ? y_of(p) : x_of(p); }
inline Image result_of(const Conv2d& p, Pass pass) { return pass == Pass::grad_input ? x_of(p) : y_of(p); }

template <class T>
int64_t padded_channels(const Image& image) {
  return round_up(image.channels, kVector<T>);
}

inline bool channels_last(const Image& image) {
  const int64_t channels = image.groups * image.channels;
  return (image.stride[1] == 1 || channels == 1) && (image.stride[3] == channels || image.w == 1) &&
         (image.stride[2] == image.w * channels || image.h == 1) &&
         (image.stride[0] == image.h * image.w * channels || image.n == 1);
}

// From a pixel to the next; images are dense, so that rows follow on.
inline int64_t pixel_stride(const Image& image) { return image.w == 1 ? image.stride[2] : image.stride[3]; }

// Bytes of the workspace that an image needs before it can be loaded: none where it lies in whole chunks of channels.
template <class T>
int64_t packed_image_bytes(const Image& image) {
  if (channels_last(image) && image.channels % kVector<T> == 0) return 0;
  const int64_t count = image.n * image.h * image.w * image.groups * padded_channels<T>(image);
  return round_up(count * static_cast<int64_t>(sizeof(T)), kWorkspaceUnit);
}

template <class T>
Pack image_pack(const Image& image) {
  const int64_t padded = padded_channels<T>(image), pitch = image.groups * padded, pixels = image.h * image.w;
  Pack pack;
  pack.outer = image.n;
  pack.inner = image.groups;
  pack.rows = pixels;
  pack.channels = static_cast<int32_t>(image.channels);
  pack.padded = static_cast<int32_t>(padded);
  pack.from_outer = image.stride[0];
  pack.from_inner = image.channels * image.stride[1];
  pack.from_row = pixel_stride(image);
  pack.from_channel = image.stride[1];
  pack.to_outer = pixels * pitch;
  pack.to_inner = padded;
  pack.to_row = pitch;
  return pack;
}

// Weights as [group][result channel][tap][source channel, padded]: of forward as channels_last weights lie, of
// grad_input with the two kinds of channels exchanged.
inline int64_t tap_stride(const Conv2d& p) { return p.kw == 1 ? p.w_stride[2] : p.w_stride[3]; }

template <class T>
int64_t packed_weight_bytes(const Conv2d& p, Pass pass) {
  const int64_t taps = p.kh * p.kw, channels = p.ic / p.g, padded = padded_channels<T>(source_of(p, pass));
  const bool in_order = pass == Pass::forward && padded == channels && (p.w_stride[1] == 1 || channels == 1) &&
                        (tap_stride(p) == channels || taps == 1) && (p.w_stride[0] == taps * channels || p.oc == 1);
  if (in_order) return 0;
  const int64_t count = p.g * result_of(p, pass).channels * taps * padded;
  return round_up(count * static_cast<int64_t>(sizeof(T)), kWorkspaceUnit);
}

// The transposition runs between source channels and whatever the weights are contiguous along.
template <class T>
Pack weight_pack(const Conv2d& p, Pass pass) {
  const int64_t taps = p.kh * p.kw, ic = p.ic / p.g, oc = p.oc / p.g;
  Pack pack;
  pack.channels = static_cast<int32_t>(source_of(p, pass).channels);
  pack.padded = static_cast<int32_t>(padded_channels<T>(source_of(p, pass)));
  if (pass == Pass::forward) {
    pack.outer = p.oc;
    pack.inner = 1;
    pack.rows = taps;
    pack.from_outer = p.w_stride[0];
    pack.from_inner = 0;
    pack.from_row = tap_stride(p);
    pack.from_channel = p.w_stride[1];
    pack.to_outer = taps * pack.padded;
    pack.to_inner = 0;
    pack.to_row = pack.padded;
    return pack;
  }
  const bool taps_inside = p.w_stride[1] != 1;  // channel by channel, each with all its taps
  pack.outer = p.g;
  pack.inner = taps_inside ? ic : taps;
  pack.rows = taps_inside ? taps : ic;
  pack.from_outer = oc * p.w_stride[0];
  pack.from_inner = taps_inside ? p.w_stride[1] : tap_stride(p);
  pack.from_row = taps_inside ? tap_stride(p) : p.w_stride[1];
  pack.from_channel = p.w_stride[0];
  pack.to_outer = ic * taps * pack.padded;
  pack.to_inner = taps_inside ? taps * pack.padded : pack.padded;
  pack.to_row = taps_inside ? pack.padded : taps * pack.padded;
  if (taps_inside && p.w_stride[1] == taps * tap_stride(p)) {  // one long row
    pack.inner = 1;
    pack.rows = ic * taps;
  }
  return pack;
}

// A single tap's dilation is of no meaning, and may be anything.
inline int64_t dilation_of(int64_t kernel, int64_t dilation) { return kernel == 1 ? 1 : dilation; }

inline Axis axis_of(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  const auto narrow = [](int64_t value) { return static_cast<int32_t>(value); };
  dilation = dilation_of(kernel, dilation);
  return {narrow(in),      narrow(out),      narrow(kernel),
          narrow(stride),  narrow(padding),  narrow(dilation),
          narrow(stride / std::gcd(stride, dilation))};
}

// Whether the furthest coordinate along an axis, a stage's tail of taps past the last one included, fits 32 bits.
inline bool reach_fits(int64_t out, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation, int64_t most) {
  constexpr int64_t kTail = 16;
  return out * stride + (kernel + kTail) * dilation_of(kernel, dilation) + padding <= most;
}

// Whether 32-bit coordinates, counts and grids hold the problem; offsets into tensors are 64-bit.
template <class T>
bool within_limits(const Conv2d& p) {
  const int64_t most = (int64_t{1} << 30) - 1;
  const int64_t x_channels = padded_channels<T>(x_of(p)), y_channels = padded_channels<T>(y_of(p));
  const int64_t taps = p.kh * p.kw, channels = larger(x_channels, y_channels);
  const bool counts_fit = p.n * p.ih * p.iw <= most && p.n * p.oh * p.ow <= most && p.g * channels <= most &&
                          taps * channels <= most && x_channels * y_channels * taps <= most;
  const bool grids_fit = smaller(p.sh, p.ih) * smaller(p.sw, p.iw) <= 65535 && p.g <= 65535;
  return counts_fit && grids_fit && reach_fits(p.oh, p.kh, p.sh, p.ph, p.dh, most) &&
         reach_fits(p.ow, p.kw, p.sw, p.pw, p.dw, most);
}

// A tile takes `cost` for each step of the sum, in units of the largest one's; small tiles load more for a product. A
// block takes some steps' time to fill its pipeline and to store. Partial sums cost a launch and their way through
// memory.
struct Tile {
  int32_t rows, columns;
  double cost;
};
constexpr Tile kTiles[] = {{128, 128, 1.0}, {128, 64, 0.58}, {64, 64, 0.36}};
constexpr double kBlockSteps = 8, kShareSteps = 8, kStepsPerPartialSum = 1.2e-5;
constexpr int64_t kMostPartialBytes = int64_t{256} << 20, kLeastShare = 4;

// How blocks cover a product: its tile, and the shares that `steps` of the sum are cut into.
struct Cover {
  Tile tile;
  int32_t shares;
};

// The cover after which the multiprocessors' last wave ends first; shares are tried that fill whole waves.
// `tiles(tile)` counts tiles, `sums` the partial sums of one share.
template <class Tiles>
void improve_cover(const Tile& tile, const Tiles& tiles, int64_t steps, int64_t sums, int64_t multiprocessors,
                   bool always_partial, Cover* best, double* least) {
  constexpr int64_t kMostWaves = 4;
  const int64_t count = tiles(tile), most_bytes = kMostPartialBytes / (sums * static_cast<int64_t>(sizeof(float)));
  const int64_t most = clamped(smaller(most_bytes, steps / kLeastShare), 1, 1024);
  for (int64_t waves = 0; waves <= kMostWaves; ++waves) {
    const int64_t shares = clamped(waves * multiprocessors / count, 1, most);
    double cost = static_cast<double>(ceil_div(count * shares, multiprocessors)) *
                  (static_cast<double>(ceil_div(steps, shares)) + kBlockSteps) * tile.cost;
    if (shares > 1 || always_partial) cost += kShareSteps + static_cast<double>(shares * sums) * kStepsPerPartialSum;
    if (*least != 0 && cost >= *least) continue;
    *least = cost;
    *best = {tile, static_cast<int32_t>(shares)};
  }
}

// Phases of grad_input, one for each residue of the pixel modulo the stride; forward has one.
inline int64_t phases_of(const Conv2d& p, Pass pass) {
  return pass == Pass::grad_input ? smaller(p.sh, p.ih) * smaller(p.sw, p.iw) : 1;
}

// Pixels of the largest phase.
inline int64_t phase_pixels(const Conv2d& p, Pass pass) {
  return pass == Pass::grad_input ? p.n * ceil_div(p.ih, p.sh) * ceil_div(p.iw, p.sw) : p.n * p.oh * p.ow;
}

inline int64_t result_count(const Conv2d& p, Pass pass) {
  const Image result = result_of(p, pass);
  return result.n * result.h * result.w * result.groups * result.channels;
}

template <class T>
Cover plan_correlation(const Conv2d& p, Pass pass, int64_t multiprocessors) {
  const int64_t phases = phases_of(p, pass), pixels = phase_pixels(p, pass), channels = result_of(p, pass).channels;
  const int64_t terms = p.kh * p.kw * padded_channels<T>(source_of(p, pass)), sums = result_count(p, pass);
  const int64_t steps = ceil_div(ceil_div(terms, phases), kDepth<T>);
  const auto tiles = [&](const Tile& tile) {
    return ceil_div(pixels, tile.rows) * ceil_div(channels, tile.columns) * phases * p.g;
  };
  Cover best{};
  double least = 0;
  for (const Tile& tile : kTiles) improve_cover(tile, tiles, steps, sums, multiprocessors, false, &best, &least);
  return best;
}

// Always with partial sums, if only one share of them. Tiles are square.
template <class T>
Cover plan_grad_weight(const Conv2d& p, int64_t multiprocessors) {
  const int64_t rows = padded_channels<T>(y_of(p)), columns = p.kh * p.kw * padded_channels<T>(x_of(p));
  const int64_t steps = ceil_div(p.n * p.oh * p.ow, kDepth<T>), sums = p.g * rows * columns;
  const auto tiles = [&](const Tile& tile) {
    return p.g * ceil_div(rows, tile.rows) * ceil_div(columns, tile.columns);
  };
  Cover best{};
  double least = 0;
  for (const Tile& tile : kTiles) {
    if (tile.rows == tile.columns) improve_cover(tile, tiles, steps, sums, multiprocessors, true, &best, &least);
  }
  return best;
}

}  // namespace mma_conv
}  // namespace cuda
}  // namespace spatialconv

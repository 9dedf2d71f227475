// Forward and grad_input: rows are pixels of the result, columns its channels, terms the pairs of a tap and a channel
// of the source. grad_input with stride is one such correlation for every residue of the result's position modulo the
// stride, since the pixels of a residue meet the same taps; where none meets them they become zeros.
#pragma once
#include <numeric>
#include <utility>

#include "conv_simt.h"

namespace spatialconv {
namespace cuda {
namespace conv_simt {

// One axis. Result position residue + spacing * i meets taps first_tap + tap_step * j at source position
// source + source_step * i + source_tap_step * j, where first_tap and source follow from the residue.
struct CorrelationAxis {
  int32_t result, source, kernel;  // sizes
  int32_t residues, spacing, source_step;
  int32_t tap_step, source_tap_step;
  int32_t stride, padding, dilation;
  int32_t divisor, inverse;  // of stride and dilation; of dilation / divisor modulo stride / divisor
};

// The x of [0, modulus) with value * x = 1 modulo `modulus`, of which `value` holds no factor: Euclid's algorithm.
inline int64_t inverse_modulo(int64_t value, int64_t modulus) {
  int64_t before = modulus, now = value % modulus, factor_before = 0, factor = 1;
  while (now != 0) {
    const int64_t quotient = before / now;
    before -= quotient * now;
    std::swap(before, now);
    factor_before -= quotient * factor;
    std::swap(factor_before, factor);
  }
  return (factor_before % modulus + modulus) % modulus;
}

// The axis of forward, or of grad_input, whose result is the input of the convolution.
inline CorrelationAxis correlation_axis(bool gradient, int64_t in, int64_t out, int64_t kernel, int64_t stride,
                                        int64_t padding, int64_t dilation) {
  const auto narrow = [](int64_t value) { return static_cast<int32_t>(value); };
  const int64_t divisor = gradient ? std::gcd(stride, dilation) : 1;
  CorrelationAxis axis;
  axis.result = narrow(gradient ? in : out);
  axis.source = narrow(gradient ? out : in);
  axis.kernel = narrow(kernel);
  axis.residues = narrow(gradient ? smaller(stride, in) : 1);
  axis.spacing = narrow(gradient ? stride : 1);
  axis.source_step = narrow(gradient ? 1 : stride);
  axis.tap_step = narrow(gradient ? stride / divisor : 1);
  axis.source_tap_step = narrow(gradient ? -(dilation / divisor) : dilation);
  axis.stride = narrow(stride);
  axis.padding = narrow(padding);
  axis.dilation = narrow(dilation);
  axis.divisor = narrow(divisor);
  axis.inverse = narrow(gradient ? inverse_modulo(dilation / divisor, stride / divisor) : 0);
  return axis;
}

struct Residue {
  int32_t first, count;  // result positions
  int32_t first_tap, taps, source;
};

// grad_input: the first tap solves stride | residue + padding - tap * dilation.
template <bool kGradient>
__device__ __forceinline__ Residue residue_of(const CorrelationAxis& axis, int32_t residue) {
  if (!kGradient) return {0, axis.result, 0, axis.kernel, -axis.padding};
  Residue r{residue, (axis.result - residue + axis.stride - 1) / axis.stride, 0, 0, 0};
  const int32_t shifted = residue + axis.padding;
  if (shifted % axis.divisor != 0) return r;
  const int64_t share = shifted / axis.divisor;
  r.first_tap = static_cast<int32_t>(share % axis.tap_step * axis.inverse % axis.tap_step);
  if (r.first_tap >= axis.kernel) return r;
  r.taps = (axis.kernel - 1 - r.first_tap) / axis.tap_step + 1;
  r.source = static_cast<int32_t>((shifted - static_cast<int64_t>(r.first_tap) * axis.dilation) / axis.stride);
  return r;
}

template <class Storage>
struct CorrelationProblem {
  const Storage* source;
  const Storage* weight;
  const Storage* bias;  // null: none
  Storage* result;
  int64_t images;
  int32_t groups, channels, columns;  // channels of a group: of the source, of the result
  CorrelationAxis h, w;
  Strides source_stride, result_stride;
  int64_t weight_group, weight_channel, weight_column, weight_row_tap, weight_column_tap;
  bool tap_major;  // terms in the order (tap, channel), else (channel, tap)
  bool source_vectors, weight_vectors;

  // Every residue gets as many blocks as the first, which has the most pixels.
  int64_t row_tiles(int64_t tile) const {
    return ceil_div(images * ceil_div(h.result, h.spacing) * ceil_div(w.result, w.spacing), tile);
  }
  int64_t blocks(int64_t tile_rows, int64_t tile_columns) const {
    return row_tiles(tile_rows) * h.residues * w.residues * groups * ceil_div(columns, tile_columns);
  }
};

template <class Storage, bool kGradient>
struct CorrelationWork {
  using Problem = CorrelationProblem<Storage>;

  const Problem& p;
  Operand<Storage> a, b;
  int32_t rows, columns, depth;
  int64_t column_stride;

  // Columns fastest and then groups, whose tiles read the same source.
  __device__ __forceinline__ CorrelationWork(const Problem& problem, uint32_t block, int32_t tile_rows,
                                             int32_t tile_columns)
      : p(problem) {
    const uint32_t column_tiles = (p.columns + tile_columns - 1) / tile_columns;
    const uint32_t column_tile = block % column_tiles;
    block /= column_tiles;
    const uint32_t group = block % p.groups;
    block /= p.groups;
    const uint32_t residue = block % (p.h.residues * p.w.residues);
    const int64_t row_tile = block / (p.h.residues * p.w.residues);
    h_ = residue_of<kGradient>(p.h, residue / p.w.residues);
    w_ = residue_of<kGradient>(p.w, residue % p.w.residues);

    const int32_t pixels = h_.count * w_.count;
    const int64_t first_row = row_tile * tile_rows, rest = p.images * pixels - first_row;
    rows = static_cast<int32_t>(rest < tile_rows ? rest : tile_rows);
    const Divided start = divide(first_row, pixels);
    first_image_ = start.quotient;
    first_pixel_ = start.remainder;

    first_column_ = static_cast<int32_t>(group * p.columns + column_tile * tile_columns);
    columns = min(p.columns - static_cast<int32_t>(column_tile) * tile_columns, tile_columns);
    column_stride = p.result_stride.channel;
    taps_ = h_.taps * w_.taps;
    depth = taps_ * p.channels;
    const int64_t first_channel = static_cast<int64_t>(group) * p.channels;
    a = {p.source + first_channel * p.source_stride.channel, p.h.source, p.w.source, p.source_vectors};
    b = {p.weight + group * p.weight_group + column_tile * tile_columns * p.weight_column, 1, 1, p.weight_vectors};
  }

  __device__ __forceinline__ void place_row(int32_t row, Place& place, int64_t& result) const {
    place = {0, kNowhere, 0};
    result = -1;
    if (row >= rows) return;
    const uint32_t pixels = h_.count * w_.count, at = static_cast<uint32_t>(first_pixel_) + row;
    const int64_t image = first_image_ + at / pixels;
    const int32_t pixel = at % pixels, h = pixel / w_.count, w = pixel % w_.count;
    place.h = h * p.h.source_step + h_.source;
    place.w = w * p.w.source_step + w_.source;
    place.offset = image * p.source_stride.image + place.h * p.source_stride.row + place.w * p.source_stride.column;
    result = image * p.result_stride.image + (h_.first + static_cast<int64_t>(h) * p.h.spacing) * p.result_stride.row +
             (w_.first + static_cast<int64_t>(w) * p.w.spacing) * p.result_stride.column;
  }

  __device__ __forceinline__ Place place_column(int32_t column) const {
    return {column * p.weight_column, column < columns ? 0 : kNowhere, 0};
  }

  __device__ __forceinline__ void place_depth(int32_t term, Place& source, Place& weight) const {
    source = weight = {0, kNowhere, 0};
    if (term >= depth) return;
    const int32_t tap = p.tap_major ? term / p.channels : term % taps_;
    const int32_t channel = p.tap_major ? term % p.channels : term / taps_;
    const int32_t tap_h = tap / w_.taps, tap_w = tap % w_.taps;
    source.h = tap_h * p.h.source_tap_step;
    source.w = tap_w * p.w.source_tap_step;
    source.offset =
        channel * p.source_stride.channel + source.h * p.source_stride.row + source.w * p.source_stride.column;
    weight.h = 0;
    weight.offset = channel * p.weight_channel + (h_.first_tap + tap_h * p.h.tap_step) * p.weight_row_tap +
                    (w_.first_tap + tap_w * p.w.tap_step) * p.weight_column_tap;
  }

  template <class T>
  __device__ __forceinline__ void finish(Sums<T>& sums, const Shared<T>& shared) const {
    if (p.bias != nullptr) {
#pragma unroll
      for (int j = 0; j < T::kThreadColumns; ++j) {
        if (sums.column_of(j) >= columns) continue;
        const auto bias = to_compute(p.bias[first_column_ + sums.column_of(j)]);
#pragma unroll
        for (int i = 0; i < T::kThreadRows; ++i) sums.sum[i][j] += bias;
      }
    }
    store<T, Storage>(sums, shared, *this, p.result + first_column_ * p.result_stride.channel);
  }

 private:
  Residue h_, w_;
  int64_t first_image_;
  int32_t first_pixel_, first_column_, taps_;
};

// The problem of forward (kGradient false) or grad_input; `source` and `result` are the images it reads and writes.
template <class Storage, bool kGradient>
CorrelationProblem<Storage> correlation_problem(const Conv2d& p, const void* source, const void* weight,
                                                const void* bias, void* result) {
  CorrelationProblem<Storage> c;
  c.source = static_cast<const Storage*>(source);
  c.weight = static_cast<const Storage*>(weight);
  c.bias = static_cast<const Storage*>(bias);
  c.result = static_cast<Storage*>(result);
  c.images = p.n;
  c.groups = static_cast<int32_t>(p.g);
  const int64_t channels = (kGradient ? p.oc : p.ic) / p.g, columns = (kGradient ? p.ic : p.oc) / p.g;
  c.channels = static_cast<int32_t>(channels);
  c.columns = static_cast<int32_t>(columns);
  c.h = correlation_axis(kGradient, p.ih, p.oh, p.kh, p.sh, p.ph, p.dh);
  c.w = correlation_axis(kGradient, p.iw, p.ow, p.kw, p.sw, p.pw, p.dw);
  c.source_stride = strides_of(kGradient ? p.y_stride : p.x_stride);
  c.result_stride = strides_of(kGradient ? p.x_stride : p.y_stride);
  c.weight_group = p.oc / p.g * p.w_stride[0];
  c.weight_channel = p.w_stride[kGradient ? 0 : 1];
  c.weight_column = p.w_stride[kGradient ? 1 : 0];
  c.weight_row_tap = p.w_stride[2];
  c.weight_column_tap = p.w_stride[3];
  c.tap_major = kGradient || c.source_stride.channel == 1;

  const int64_t height = kGradient ? p.oh : p.ih, width = kGradient ? p.ow : p.iw, taps = p.kh * p.kw;
  const AxisSteps image{p.n, c.source_stride.image}, channel{channels * p.g, c.source_stride.channel};
  const AxisSteps row{height, c.source_stride.row}, column{width, c.source_stride.column};
  c.source_vectors = channel.step == 1
                         ? reads_vectors<Storage>(source, channels, {image, row, column})
                         : keeps_place(p) && column.step == 1 && (height == 1 || row.step == width) &&
                               reads_vectors<Storage>(source, height * width, {image, channel});
  const AxisSteps out{p.oc, p.w_stride[0]}, in{p.ic / p.g, p.w_stride[1]};
  const AxisSteps row_tap{p.kh, p.w_stride[2]}, column_tap{p.kw, p.w_stride[3]};
  if (kGradient || c.tap_major) {
    c.weight_vectors = in.step == 1 && reads_vectors<Storage>(weight, in.size, {out, row_tap, column_tap});
  } else {
    const bool dense = (p.kw == 1 || column_tap.step == 1) && (p.kh == 1 || row_tap.step == p.kw) && in.step == taps;
    c.weight_vectors = dense && reads_vectors<Storage>(weight, channels * taps, {out});
  }
  return c;
}

}  // namespace conv_simt
}  // namespace cuda
}  // namespace spatialconv

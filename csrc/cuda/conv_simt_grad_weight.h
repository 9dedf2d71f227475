// grad_weight: rows are the pairs of a tap and an input channel, columns the output channels, terms the pixels of
// grad_output. Pixels are many and results few, so blocks share a sum: each adds a range of pixels, and a second kernel
// adds the partial sums in order, which gives the same bits at every run.
#pragma once
#include "add_shares.h"
#include "conv_simt.h"

namespace spatialconv {
namespace cuda {
namespace conv_simt {

template <class Storage>
struct GradWeightProblem {
  using Compute = compute_t<Storage>;

  const Storage* input;
  const Storage* grad_output;
  Storage* result;
  Compute* partial;      // one result after another, or null where there is one share
  int64_t result_count;  // of all groups
  int64_t terms, share;  // pixels of all images, and those of one block
  int32_t groups, channels, columns, shares;
  int32_t ih, iw, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw;
  Strides input_stride, grad_output_stride;
  int64_t weight_column, weight_channel, weight_row_tap, weight_column_tap;
  bool tap_major;  // rows in the order (tap, channel), else (channel, tap): as the weight lies
  bool input_vectors, grad_output_vectors;

  int64_t rows() const { return static_cast<int64_t>(channels) * kh * kw; }
  int64_t tiles(int64_t tile_rows, int64_t tile_columns) const {
    return ceil_div(rows(), tile_rows) * groups * ceil_div(columns, tile_columns);
  }
  int64_t blocks(int64_t tile_rows, int64_t tile_columns) const { return tiles(tile_rows, tile_columns) * shares; }
};

template <class Storage>
struct GradWeightWork {
  using Problem = GradWeightProblem<Storage>;

  const Problem& p;
  Operand<Storage> a, b;
  int32_t rows, columns, depth;
  int64_t column_stride;

  __device__ __forceinline__ GradWeightWork(const Problem& problem, uint32_t block, int32_t tile_rows,
                                            int32_t tile_columns)
      : p(problem) {
    const uint32_t column_tiles = (p.columns + tile_columns - 1) / tile_columns;
    const uint32_t column_tile = block % column_tiles;
    block /= column_tiles;
    const uint32_t all_rows = p.channels * p.kh * p.kw, row_tiles = (all_rows + tile_rows - 1) / tile_rows;
    first_row_ = static_cast<int32_t>(block % row_tiles) * tile_rows;
    block /= row_tiles;
    const int64_t group = block % p.groups;
    share_ = block / p.groups;
    rows = min(static_cast<int32_t>(all_rows) - first_row_, tile_rows);
    first_column_ = group * p.columns + column_tile * tile_columns;
    columns = min(p.columns - static_cast<int32_t>(column_tile) * tile_columns, tile_columns);
    column_stride = p.weight_column;

    const int64_t first_term = share_ * p.share, rest = p.terms - first_term;
    depth = static_cast<int32_t>(rest < p.share ? rest : p.share);
    const Divided start = divide(first_term, p.oh * p.ow);
    first_image_ = start.quotient;
    first_pixel_ = start.remainder;
    a = {p.input + group * p.channels * p.input_stride.channel, p.ih, p.iw, p.input_vectors};
    b = {p.grad_output + first_column_ * p.grad_output_stride.channel, 1, 1, p.grad_output_vectors};
  }

  __device__ __forceinline__ void place_row(int32_t row, Place& place, int64_t& result) const {
    place = {0, kNowhere, 0};
    result = -1;
    if (row >= rows) return;
    const int32_t at = first_row_ + row, taps = p.kh * p.kw;
    const int32_t tap = p.tap_major ? at / p.channels : at % taps;
    const int32_t channel = p.tap_major ? at % p.channels : at / taps;
    const int32_t tap_h = tap / p.kw, tap_w = tap % p.kw;
    place.h = tap_h * p.dh;
    place.w = tap_w * p.dw;
    place.offset = channel * p.input_stride.channel + place.h * p.input_stride.row + place.w * p.input_stride.column;
    result = channel * p.weight_channel + tap_h * p.weight_row_tap + tap_w * p.weight_column_tap;
  }

  __device__ __forceinline__ Place place_column(int32_t column) const {
    return {column * p.grad_output_stride.channel, column < columns ? 0 : kNowhere, 0};
  }

  __device__ __forceinline__ void place_depth(int32_t term, Place& input, Place& grad_output) const {
    input = grad_output = {0, kNowhere, 0};
    if (term >= depth) return;
    const uint32_t pixels = p.oh * p.ow, at = static_cast<uint32_t>(first_pixel_) + term;
    const int64_t image = first_image_ + at / pixels;
    const int32_t pixel = at % pixels, h = pixel / p.ow, w = pixel % p.ow;
    input.h = h * p.sh - p.ph;
    input.w = w * p.sw - p.pw;
    input.offset = image * p.input_stride.image + input.h * p.input_stride.row + input.w * p.input_stride.column;
    grad_output.h = 0;
    grad_output.offset =
        image * p.grad_output_stride.image + h * p.grad_output_stride.row + w * p.grad_output_stride.column;
  }

  template <class T>
  __device__ __forceinline__ void finish(const Sums<T>& sums, const Shared<T>& shared) const {
    const int64_t begin = first_column_ * p.weight_column;
    if (p.partial == nullptr) {
      store<T, Storage>(sums, shared, *this, p.result + begin);
    } else {
      store<T, typename T::Compute>(sums, shared, *this, p.partial + (share_ * p.result_count + begin));
    }
  }

 private:
  int64_t first_image_, first_column_, share_;
  int32_t first_pixel_, first_row_;
};

// Enough blocks for every multiprocessor of a large device several times over, as long as each keeps a few hundred
// pixels to add; the same on every device, so that the bits are.
inline int64_t share_count(int64_t tiles, int64_t terms) {
  constexpr int64_t kBlocks = 512, kLeastTerms = 256, kMostTerms = 1 << 20;
  const int64_t wanted = smaller(ceil_div(kBlocks, tiles), ceil_div(terms, kLeastTerms));
  return larger(larger(1, wanted), ceil_div(terms, kMostTerms));
}

template <class Storage>
GradWeightProblem<Storage> grad_weight_problem(const Conv2d& p, const Buffers& buffers) {
  GradWeightProblem<Storage> c;
  c.input = static_cast<const Storage*>(buffers.x);
  c.grad_output = static_cast<const Storage*>(buffers.y);
  c.result = static_cast<Storage*>(buffers.w);
  const auto narrow = [](int64_t value) { return static_cast<int32_t>(value); };
  c.groups = narrow(p.g);
  c.channels = narrow(p.ic / p.g);
  c.columns = narrow(p.oc / p.g);
  c.ih = narrow(p.ih), c.iw = narrow(p.iw), c.oh = narrow(p.oh), c.ow = narrow(p.ow);
  c.kh = narrow(p.kh), c.kw = narrow(p.kw), c.sh = narrow(p.sh), c.sw = narrow(p.sw);
  c.ph = narrow(p.ph), c.pw = narrow(p.pw), c.dh = narrow(p.dh), c.dw = narrow(p.dw);
  c.input_stride = strides_of(p.x_stride);
  c.grad_output_stride = strides_of(p.y_stride);
  c.weight_column = p.w_stride[0];
  c.weight_channel = p.w_stride[1];
  c.weight_row_tap = p.w_stride[2];
  c.weight_column_tap = p.w_stride[3];
  const bool channels_last = p.x_stride[1] == 1 && p.y_stride[1] == 1;
  c.tap_major = channels_last;

  const AxisSteps image{p.n, p.x_stride[0]}, channel{p.ic, p.x_stride[1]};
  const AxisSteps row{p.ih, p.x_stride[2]}, column{p.iw, p.x_stride[3]};
  const AxisSteps out_image{p.n, p.y_stride[0]}, out_channel{p.oc, p.y_stride[1]};
  const AxisSteps out_row{p.oh, p.y_stride[2]}, out_column{p.ow, p.y_stride[3]};
  const auto dense_planes = [](const AxisSteps& r, const AxisSteps& c) {
    return (c.size == 1 || c.step == 1) && (r.size == 1 || r.step == c.size);
  };
  if (channels_last) {
    c.input_vectors = reads_vectors<Storage>(c.input, c.channels, {image, row, column});
    c.grad_output_vectors = reads_vectors<Storage>(c.grad_output, c.columns, {out_image, out_row, out_column});
  } else {
    c.input_vectors = keeps_place(p) && dense_planes(row, column) &&
                      reads_vectors<Storage>(c.input, p.ih * p.iw, {image, channel});
    c.grad_output_vectors = dense_planes(out_row, out_column) &&
                            reads_vectors<Storage>(c.grad_output, p.oh * p.ow, {out_image, out_channel});
  }

  using Narrow = Tile<Storage, 16>;
  using Wide = Tile<Storage, 64>;
  static_assert(Narrow::kRows == Wide::kRows && Narrow::kDepth == Wide::kDepth, "tiles differ in columns only");
  const int64_t tile_columns = c.columns <= kNarrowColumns ? Narrow::kColumns : Wide::kColumns;
  c.terms = p.n * p.oh * p.ow;
  c.result_count = p.oc * (p.ic / p.g) * p.kh * p.kw;
  const int64_t shares = share_count(c.tiles(Narrow::kRows, tile_columns), c.terms);
  c.share = round_up(ceil_div(c.terms, shares), Narrow::kDepth);
  c.shares = narrow(ceil_div(c.terms, c.share));
  c.partial = c.shares > 1 ? static_cast<compute_t<Storage>*>(buffers.workspace) : nullptr;
  return c;
}

}  // namespace conv_simt
}  // namespace cuda
}  // namespace spatialconv

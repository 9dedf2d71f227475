// The forward passes of pooling. What a window is reduced to is the Reducer's: it takes the elements of a window in
// row-major order, each with a number that tells it. Small square windows are reduced in strips of neighbouring
// outputs, so that an element is loaded once for all windows of the strip that share it: along the row in
// channels_last, down the column otherwise, where neighbouring threads take neighbouring columns.
#pragma once
#include <type_traits>

#include "pool.h"

namespace spatialconv {
namespace cuda {
namespace pool {

template <class Storage_, int kVector_, int kWindow_, int kStride_>
struct Strip {
  using Storage = Storage_;
  static constexpr int kVector = kVector_, kWindow = kWindow_, kStride = kStride_;
  static constexpr int kLength = 4;
  static constexpr int kReach = (kLength - 1) * kStride + kWindow;
};

template <class S, class Reducer>
__global__ void __launch_bounds__(kThreads)
    strip_kernel(Problem p, typename Reducer::Output output, const typename S::Storage* x, int64_t count) {
  using Storage = typename S::Storage;
  constexpr bool kChannelsLast = S::kVector > 1;
  const int32_t rows = kChannelsLast ? p.h.out : (p.h.out + S::kLength - 1) / S::kLength;
  const int32_t columns = kChannelsLast ? (p.w.out + S::kLength - 1) / S::kLength : p.w.out;
  for_each_unit(count, [&](int64_t unit) {
    const Position at = position_of<S::kVector>(p, unit, rows, columns);
    const int32_t oh = kChannelsLast ? at.row : at.row * S::kLength;
    const int32_t ow = kChannelsLast ? at.column * S::kLength : at.column;
    const int32_t h = oh * S::kStride - p.h.padding, w = ow * S::kStride - p.w.padding;
    const Storage* from = x + at.image * p.x_image + at.channel * p.x_channel;
    Reducer reducer[S::kLength];
#pragma unroll
    for (int j = 0; j < S::kLength; ++j) {
      const int32_t top = kChannelsLast ? h : h + j * S::kStride, left = kChannelsLast ? w + j * S::kStride : w;
      reducer[j].start((top < 0 ? -top : 0) * S::kWindow + (left < 0 ? -left : 0));
    }
    const auto take = [&](int row, int column) {  // relative to the first window
      const int32_t ih = h + row, iw = w + column;
      const bool inside = static_cast<uint32_t>(ih) < static_cast<uint32_t>(p.h.in) &&
                          static_cast<uint32_t>(iw) < static_cast<uint32_t>(p.w.in);
      // What lies outside changes nothing, without a branch: so the loads of a strip are in flight together.
      auto value = Reducer::neutral();
      if (inside) value = load_vector<Storage, S::kVector>(from + (ih * p.h.x_step + iw * p.w.x_step));
#pragma unroll
      for (int j = 0; j < S::kLength; ++j) {
        const int tap_row = kChannelsLast ? row : row - j * S::kStride;
        const int tap_column = kChannelsLast ? column - j * S::kStride : column;
        const int along = kChannelsLast ? tap_column : tap_row;
        if (along >= 0 && along < S::kWindow) reducer[j].take(value, tap_row * S::kWindow + tap_column);
      }
    };
#pragma unroll
    for (int row = 0; row < (kChannelsLast ? S::kWindow : S::kReach); ++row) {
#pragma unroll
      for (int column = 0; column < (kChannelsLast ? S::kReach : S::kWindow); ++column) take(row, column);
    }
#pragma unroll
    for (int j = 0; j < S::kLength; ++j) {
      const int32_t row = kChannelsLast ? oh : oh + j, column = kChannelsLast ? ow + j : ow;
      if (row >= p.h.out || column >= p.w.out) continue;
      reducer[j].finish(p, output, row, column,
                        at.image * p.y_image + at.channel * p.y_channel + row * p.h.y_step + column * p.w.y_step,
                        [&](int32_t tap) {
                          if (p.offsets) return tap;
                          const int32_t top = row * S::kStride - p.h.padding, left = column * S::kStride - p.w.padding;
                          return (top + tap / S::kWindow) * p.w.in + left + tap % S::kWindow;
                        });
    }
  });
}

template <class Storage, int kVector, class Reducer>
__global__ void __launch_bounds__(kThreads)
    window_kernel(Problem p, typename Reducer::Output output, const Storage* x, int64_t count) {
  for_each_unit(count, [&](int64_t unit) {
    const Position at = position_of<kVector>(p, unit, p.h.out, p.w.out);
    const Window row = window_at(p.h, at.row), column = window_at(p.w, at.column);
    const Storage* from = x + at.image * p.x_image + at.channel * p.x_channel;
    // An element is told by its tap in the window or its index in the plane, whichever is asked for.
    const bool empty = row.count == 0 || column.count == 0;
    const auto name_of = [&](int32_t i, int32_t j) {
      if (p.offsets) return empty ? 0 : (row.first_tap + i) * p.w.kernel + column.first_tap + j;
      return (row.first + i * row.step) * p.w.in + column.first + j * column.step;
    };
    Reducer reducer;
    reducer.start(name_of(0, 0));
    for (int32_t i = 0; i < row.count; ++i) {
      const Storage* line = from + (row.first + i * row.step) * p.h.x_step + column.first * p.w.x_step;
      for (int32_t j = 0; j < column.count; ++j) {
        reducer.take(load_vector<Storage, kVector>(line + j * column.step * p.w.x_step), name_of(i, j));
      }
    }
    reducer.finish(p, output, at.row, at.column,
                   at.image * p.y_image + at.channel * p.y_channel + at.row * p.h.y_step + at.column * p.w.y_step,
                   [](int32_t name) { return name; });
  });
}

// `Make<kVector>` is the reducer of vectors of that length. Windows of the sizes that networks pool by go to strips.
template <class Storage, template <class, int> class Make, class Output>
int32_t launch_forward(const Problem& p, const void* x, const Output& output, bool vectors, Stream stream) {
  constexpr int kWidth = kVectorWidth<Storage>;
  const auto* from = static_cast<const Storage*>(x);
  if constexpr (!std::is_same_v<Storage, double>) {
    const auto fixed = [&](int32_t window, int32_t stride) {
      const auto is = [&](const Axis& axis) {
        return !axis.adaptive && axis.kernel == window && axis.stride == stride && axis.dilation == 1 &&
               no_window_is_empty(axis);
      };
      return is(p.h) && is(p.w) && p.channels_last == vectors;
    };
    const auto run = [&](auto window, auto stride) {
      const auto strips = [&](auto vector) {
        using S = Strip<Storage, decltype(vector)::value, decltype(window)::value, decltype(stride)::value>;
        const int64_t rows = vectors ? p.h.out : ceil_div(p.h.out, S::kLength);
        const int64_t columns = vectors ? ceil_div(p.w.out, S::kLength) : p.w.out;
        const int64_t count = p.images * (p.channels / S::kVector) * rows * columns;
        return launch_units(strip_kernel<S, Make<Storage, S::kVector>>, count, stream, p, output, from, count);
      };
      return vectors ? strips(std::integral_constant<int, kWidth>{}) : strips(std::integral_constant<int, 1>{});
    };
    using One = std::integral_constant<int, 1>;
    using Two = std::integral_constant<int, 2>;
    using Three = std::integral_constant<int, 3>;
    if (fixed(2, 2)) return run(Two{}, Two{});
    if (fixed(3, 2)) return run(Three{}, Two{});
    if (fixed(3, 1)) return run(Three{}, One{});
  }
  const int64_t count = p.images * p.channels * p.h.out * p.w.out;
  if (vectors) {
    return launch_units(window_kernel<Storage, kWidth, Make<Storage, kWidth>>, count / kWidth, stream, p, output, from,
                        count / kWidth);
  }
  return launch_units(window_kernel<Storage, 1, Make<Storage, 1>>, count, stream, p, output, from, count);
}

}  // namespace pool
}  // namespace cuda
}  // namespace spatialconv

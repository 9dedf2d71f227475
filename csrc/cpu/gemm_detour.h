// nchw by way of nhwc: packing the values under many taps line by line costs more than transposing whole images twice.
// As many images as the last-level cache holds are transposed, go through the nhwc form, and their result is transposed
// back.
#pragma once
#include <cstdint>
#include <type_traits>

#include "../common/parallel.h"
#include "gemm_correlate.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace gemm {

constexpr int64_t kDetourBytes = 4 << 20;
constexpr int64_t kDetourColumns = 64;  // of a matrix, transposed by one thread at a time

// At most kLanes rows and columns: to[j * to_stride + i] = from[i * stride + j], nothing else touched.
template <class T>
SC_INLINE void transpose_part(const T* from, int64_t stride, int64_t rows, int64_t columns, T* to, int64_t to_stride) {
  constexpr int lanes = kLanes<T>;
  if (rows == lanes) {
    return transpose_piece(from, stride, rows, columns, [to, to_stride](int64_t j) { return to + j * to_stride; });
  }
  vec<T> square[lanes];
  for (int i = 0; i < lanes; ++i) square[i] = i < rows ? load_n(from + i * stride, columns) : zero<T>();
  transpose_square<T>(square);
  for (int64_t j = 0; j < columns; ++j) store_n(to + j * to_stride, square[j], rows);
}

// Matrices of rows x columns, one behind the other; full cache lines are written at a time.
template <class T>
int32_t transpose_images(int64_t images, int64_t rows, int64_t columns, const T* from, T* to) {
  constexpr int64_t lanes = kLanes<T>, line = larger(lanes, 64 / int64_t(sizeof(T)));
  const int64_t panels = ceil_div(columns, kDetourColumns);
  return parallel_for(images * panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / panels * rows * columns, first = task % panels * kDetourColumns;
      const int64_t last = smaller(first + kDetourColumns, columns);
      for (int64_t row = 0; row < rows; row += line) {
        for (int64_t j = first; j < last; j += lanes) {
          for (int64_t i = row; i < smaller(row + line, rows); i += lanes) {
            transpose_part(from + image + i * columns + j, columns, smaller(lanes, rows - i), smaller(lanes, last - j),
                           to + image + j * rows + i, rows);
          }
        }
      }
    }
  });
}

// The same convolution in nhwc, of as many images as are transposed together.
template <class T>
struct Detour {
  Conv2d problem;
  int64_t x_pixels, y_pixels, x_size, y_size;

  explicit Detour(const Conv2d& p) : problem(p), x_pixels(p.ih * p.iw), y_pixels(p.oh * p.ow) {
    const int64_t bytes = (p.ic * x_pixels + p.oc * y_pixels) * int64_t(sizeof(T));
    problem.n = clamped(kDetourBytes / larger(1, bytes), 1, p.n);
    const int64_t x_stride[4] = {p.ic * x_pixels, 1, p.ic * p.iw, p.ic};
    const int64_t y_stride[4] = {p.oc * y_pixels, 1, p.oc * p.ow, p.oc};
    for (int i = 0; i < 4; ++i) {
      problem.x_stride[i] = x_stride[i];
      problem.y_stride[i] = y_stride[i];
    }
    x_size = round_up(problem.n * x_stride[0], 64);
    y_size = round_up(problem.n * y_stride[0], 64);
  }
};

// Where many channels share what transposing costs, and many pixels what packing filters costs. A tap alone is packed
// without waste, and so are two by two without a stride. In the gradient of a dilated filter nchw leaves out more tiles
// that miss the image.
template <class Storage>
bool suits_detour(const Conv2d& p, bool forward) {
  if (!std::is_same_v<Storage, compute_t<Storage>> || is_nhwc(p) || p.g > 1) return false;
  if (p.ic < 16 || p.oc < 32 || p.n * p.oh * p.ow < 256) return false;
  if (p.sh * p.sw > 1) return p.kh * p.kw > 1;
  return larger(p.kh, p.kw) > 2 && (forward || (p.dh == 1 && p.dw == 1));
}

// `workspace` gives what a problem in nhwc needs.
template <class T, class Workspace>
int64_t detour_workspace(const Conv2d& p, const Workspace& workspace) {
  Detour<T> detour(p);
  int64_t bytes = workspace(detour.problem);
  const int64_t rest = p.n % detour.problem.n;
  if (rest > 0) {
    detour.problem.n = rest;
    bytes = larger(bytes, workspace(detour.problem));
  }
  return bytes + (detour.x_size + detour.y_size) * int64_t(sizeof(T));
}

// `run` does a problem in nhwc, from x to y when `forward`, else from y to x.
template <class T, class Run>
int32_t take_detour(const Conv2d& p, Buffers b, bool forward, const Run& run) {
  Detour<T> detour(p);
  T* x_planes = static_cast<T*>(b.x);
  T* y_planes = static_cast<T*>(b.y);
  T* x = static_cast<T*>(b.workspace);
  T* y = x + detour.x_size;
  b.workspace = y + detour.y_size;
  b.x = x;
  b.y = y;
  const int64_t together = detour.problem.n;
  int32_t error = 0;
  for (int64_t image = 0; image < p.n && error == 0; image += together) {
    const int64_t n = detour.problem.n = smaller(together, p.n - image);
    T* from = forward ? x_planes + image * p.ic * detour.x_pixels : y_planes + image * p.oc * detour.y_pixels;
    T* to = forward ? y_planes + image * p.oc * detour.y_pixels : x_planes + image * p.ic * detour.x_pixels;
    error = forward ? transpose_images(n, p.ic, detour.x_pixels, from, x)
                    : transpose_images(n, p.oc, detour.y_pixels, from, y);
    if (error == 0) error = run(detour.problem, b);
    if (error != 0) return error;
    error = forward ? transpose_images(n, detour.y_pixels, p.oc, y, to)
                    : transpose_images(n, detour.x_pixels, p.ic, x, to);
  }
  return error;
}

}  // namespace gemm
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

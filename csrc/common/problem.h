// The plain structs that cross the Python boundary: int64 fields only, mirrored field by field in
// spatialconv/backends/extension/structs.py. Names are oneDNN's letters with torch's dilation (1 = none).
#pragma once
#include <cstdint>

namespace spatialconv {

enum class DType : int64_t { f32 = 0, f64 = 1, bf16 = 2, f16 = 3 };

// Applied to the forward output, bias included; in the order of ACTIVATIONS in spatialconv/problem.py.
enum class Activation : int64_t { none = 0, relu = 1, relu6 = 2, hardswish = 3, silu = 4, gelu = 5 };

// y[n,oc,oh,ow] = sum over ic,kh,kw of w[oc,ic,kh,kw] * x[n, ic, oh*sh + kh*dh - ph, ow*sw + kw*dw - pw]; `ic` and `oc`
// count all groups together. Strides are in elements, in the order n,c,h,w for x and y and oc,ic/g,kh,kw for w.
// The same struct serves all three passes: y is the output forward and grad_output backward.
struct Conv2d {
  int64_t n, g, ic, ih, iw, oc, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw;
  Activation activation;  // read by kernels that apply it, none for the others
  int64_t accumulate;     // forward: y = activation(what y holds + the sums); read by gemm, 0 for the others
  int64_t x_stride[4], w_stride[4], y_stride[4];
};

// One window per output position. With `adaptive` the window is [floor(o*i/out), ceil((o+1)*i/out)) and the kernel,
// stride, padding and dilation fields are ignored. `divisor` 0 means none given. With `indices`, a max pooling also
// tells where the maxima stand. With `offsets`, where a maximum stands is a uint8, tap row * kw + tap column of its
// window, in place of an int64 index into the plane; a tap outside the input stands for nothing.
struct Pool2d {
  int64_t n, c, ih, iw, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw;
  int64_t adaptive, include_pad, divisor;
  int64_t indices, offsets;
  int64_t x_stride[4], y_stride[4];
};

// Everything a kernel touches. Tensors a pass does not use are null. `aux` is the bias of a convolution (contiguous,
// may be null) and the int64 indices of max pooling (strided as y, null when they are not wanted). The workspace is
// 64-byte aligned, holds what the kernel asked for and nothing meaningful. With `packed`, `w` is what the kernel's own
// `pack` wrote.
struct Buffers {
  void* x;
  void* w;
  void* y;
  void* aux;
  void* workspace;
  int64_t threads;
  int64_t packed;
};

}  // namespace spatialconv

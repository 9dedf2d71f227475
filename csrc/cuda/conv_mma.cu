// Convolution on the tensor cores of sm_80 and later by mma.sync: all passes, any geometry. 16-bit operands are exact,
// "cuda_mma_tf32" rounds float32 ones to tf32; sums are float32. Images that do not lie channels-last in whole chunks
// of 16 bytes, and weights that do not lie as the pass reads them, are packed into the workspace by a kernel of their
// own.
#include "conv_mma_plan.h"

namespace spatialconv {
namespace cuda {
namespace {

using namespace mma_conv;

const Conv2d& as_conv(const void* problem) { return *static_cast<const Conv2d*>(problem); }

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % kChunkBytes == 0; }

// Hands out the workspace front to back.
class Workspace {
 public:
  explicit Workspace(void* start) : next_(static_cast<unsigned char*>(start)) {}

  void* take(int64_t bytes) {
    void* taken = next_;
    next_ += bytes;
    return taken;
  }

 private:
  unsigned char* next_;
};

// Points *image at an operand that can be loaded, packed first where it has to be.
template <class T>
int32_t prepare_image(const Image& shape, const void* given, Workspace& workspace, Stream stream, const T** image) {
  *image = static_cast<const T*>(given);
  const int64_t bytes = packed_image_bytes<T>(shape);
  if (bytes == 0) return aligned(given) ? 0 : kInvalidValue;
  void* packed = workspace.take(bytes);
  *image = static_cast<const T*>(packed);
  return launch_pack<T>(image_pack<T>(shape), given, packed, stream);
}

template <class T>
int32_t prepare_weights(const Conv2d& p, Pass pass, const void* given, Workspace& workspace, Stream stream,
                        const T** weights) {
  *weights = static_cast<const T*>(given);
  const int64_t bytes = packed_weight_bytes<T>(p, pass);
  if (bytes == 0) return aligned(given) ? 0 : kInvalidValue;
  void* packed = workspace.take(bytes);
  *weights = static_cast<const T*>(packed);
  return launch_pack<T>(weight_pack<T>(p, pass), given, packed, stream);
}

int64_t partial_bytes(int64_t sums, int64_t shares) {
  return round_up(sums * shares * static_cast<int64_t>(sizeof(float)), kWorkspaceUnit);
}

int32_t narrow(int64_t value) { return static_cast<int32_t>(value); }

template <class T, Pass kPass>
int64_t correlation_workspace(const void* problem, int64_t multiprocessors) {
  const Conv2d& p = as_conv(problem);
  if (!within_limits<T>(p)) return -1;
  const int64_t shares = plan_correlation<T>(p, kPass, multiprocessors).shares;
  return packed_image_bytes<T>(source_of(p, kPass)) + packed_weight_bytes<T>(p, kPass) +
         (shares > 1 ? partial_bytes(result_count(p, kPass), shares) : 0);
}

template <class T>
struct CorrelationOperands {
  const T *source, *weights, *bias;
  T* result;
  float* partial;
};

template <class T, int kRows, int kColumns, int kBlocks>
int32_t launch_tiles(Correlation c, int64_t pixels, int64_t phases, const CorrelationOperands<T>& o, Stream stream) {
  c.column_tiles = narrow(ceil_div(c.result_channels, kColumns));
  const int64_t blocks = ceil_div(pixels, kRows) * c.column_tiles;
  if (blocks > INT32_MAX || phases * c.shares > 65535) return kInvalidValue;
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(phases * c.shares),
                  static_cast<unsigned>(c.groups));
  return launch(correlate<T, kRows, kColumns, kBlocks>, grid, dim3(kThreads),
                CorrelationTile<T, kRows, kColumns>::kSharedBytes, stream, c, o.source, o.weights, o.bias, o.result,
                o.partial);
}

// Partial sums of a correlation are dense with channels last.
ShareSum image_sum(const Image& image, int32_t shares) {
  ShareSum s;
  s.shares = shares;
  s.i = narrow(image.n), s.j = narrow(image.h * image.w), s.k = narrow(image.groups);
  s.channels = s.result_channels = narrow(image.channels);
  s.result_j = s.j;
  s.stride_i = image.stride[0], s.stride_j = pixel_stride(image);
  s.stride_k = image.channels * image.stride[1], s.stride_channel = image.stride[1];
  return s;
}

template <class T, Pass kPass>
int32_t run_correlation(const void* problem, const Buffers& b, Stream stream) {
  const Conv2d& p = as_conv(problem);
  if (!within_limits<T>(p)) return kInvalidValue;
  constexpr bool kGradInput = kPass == Pass::grad_input;
  const Image source = source_of(p, kPass), result = result_of(p, kPass);
  const Cover cover = plan_correlation<T>(p, kPass, b.threads);
  Workspace workspace(b.workspace);
  CorrelationOperands<T> o;
  const void* given = kGradInput ? b.y : b.x;
  if (const int32_t error = prepare_image<T>(source, given, workspace, stream, &o.source)) return error;
  if (const int32_t error = prepare_weights<T>(p, kPass, b.w, workspace, stream, &o.weights)) return error;
  o.result = static_cast<T*>(kGradInput ? b.x : b.y);
  o.bias = kGradInput ? nullptr : static_cast<const T*>(b.aux);
  o.partial = nullptr;

  Correlation c;
  c.grad_input = kGradInput;
  c.h = axis_of(p.ih, p.oh, p.kh, p.sh, p.ph, p.dh);
  c.w = axis_of(p.iw, p.ow, p.kw, p.sw, p.pw, p.dw);
  c.images = narrow(p.n);
  c.groups = narrow(p.g);
  c.source_channels = narrow(padded_channels<T>(source));
  c.result_channels = narrow(result.channels);
  c.shares = cover.shares;
  c.share_stride = result_count(p, kPass);
  for (int i = 0; i < 4; ++i) c.result_stride[i] = result.stride[i];
  c.whole_chunks = channels_last(result) && result.channels % kVector<T> == 0 && aligned(o.result);
  if (cover.shares > 1) {
    const int64_t channels = result.groups * result.channels;
    const int64_t dense[] = {result.h * result.w * channels, 1, result.w * channels, channels};
    for (int i = 0; i < 4; ++i) c.result_stride[i] = dense[i];
    o.partial = static_cast<float*>(workspace.take(partial_bytes(c.share_stride, c.shares)));
  }

  const int64_t pixels = phase_pixels(p, kPass), phases = phases_of(p, kPass);
  const int32_t error = cover.tile.columns == 128 ? launch_tiles<T, 128, 128, 2>(c, pixels, phases, o, stream)
                        : cover.tile.rows == 128  ? launch_tiles<T, 128, 64, 3>(c, pixels, phases, o, stream)
                                                  : launch_tiles<T, 64, 64, 4>(c, pixels, phases, o, stream);
  if (error != 0 || cover.shares == 1) return error;
  return launch_add_shares<T>(image_sum(result, c.shares), o.partial, o.bias, o.result, stream);
}

// Partial sums of grad_weight are [group][oc of the group, padded][tap][ic of the group, padded].
template <class T>
ShareSum weight_sum(const Conv2d& p, int32_t shares) {
  ShareSum s;
  s.shares = shares;
  s.i = narrow(p.g), s.j = narrow(padded_channels<T>(y_of(p))), s.k = narrow(p.kh * p.kw);
  s.channels = narrow(padded_channels<T>(x_of(p)));
  s.result_j = narrow(p.oc / p.g), s.result_channels = narrow(p.ic / p.g);
  s.stride_i = p.oc / p.g * p.w_stride[0], s.stride_j = p.w_stride[0];
  s.stride_k = tap_stride(p), s.stride_channel = p.w_stride[1];
  return s;
}

template <class T>
int64_t grad_weight_workspace(const void* problem, int64_t multiprocessors) {
  const Conv2d& p = as_conv(problem);
  if (!within_limits<T>(p)) return -1;
  const ShareSum sum = weight_sum<T>(p, plan_grad_weight<T>(p, multiprocessors).shares);
  return packed_image_bytes<T>(x_of(p)) + packed_image_bytes<T>(y_of(p)) + partial_bytes(sum.count(), sum.shares);
}

template <class T, int kSide, int kBlocks>
int32_t launch_shares(GradWeight g, int32_t shares, const T* x, const T* y, float* partial, Stream stream) {
  g.column_tiles = narrow(ceil_div(int64_t{g.kh} * g.kw * g.x_channels, kSide));
  const int64_t blocks = ceil_div(g.y_channels, kSide) * g.column_tiles;
  if (blocks > INT32_MAX) return kInvalidValue;
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(shares), static_cast<unsigned>(g.groups));
  return launch(grad_weight<T, kSide, kBlocks>, grid, dim3(kThreads), GradWeightTile<T, kSide>::kSharedBytes, stream, g,
                x, y, partial);
}

template <class T>
int32_t run_grad_weight(const void* problem, const Buffers& b, Stream stream) {
  const Conv2d& p = as_conv(problem);
  if (!within_limits<T>(p)) return kInvalidValue;
  const Cover cover = plan_grad_weight<T>(p, b.threads);
  const ShareSum sum = weight_sum<T>(p, cover.shares);
  Workspace workspace(b.workspace);
  const T* x;
  const T* y;
  if (const int32_t error = prepare_image<T>(x_of(p), b.x, workspace, stream, &x)) return error;
  if (const int32_t error = prepare_image<T>(y_of(p), b.y, workspace, stream, &y)) return error;
  float* partial = static_cast<float*>(workspace.take(partial_bytes(sum.count(), sum.shares)));

  GradWeight g;
  g.ih = narrow(p.ih), g.iw = narrow(p.iw), g.oh = narrow(p.oh), g.ow = narrow(p.ow);
  g.kh = narrow(p.kh), g.kw = narrow(p.kw), g.sh = narrow(p.sh), g.sw = narrow(p.sw);
  g.ph = narrow(p.ph), g.pw = narrow(p.pw);
  g.dh = narrow(dilation_of(p.kh, p.dh)), g.dw = narrow(dilation_of(p.kw, p.dw));
  g.pixels = narrow(p.n * p.oh * p.ow);
  g.groups = narrow(p.g);
  g.x_channels = sum.channels;
  g.y_channels = sum.j;
  g.share_stride = sum.count();
  g.shares = cover.shares;
  g.by_ow = Divisor(g.ow);
  g.by_oh = Divisor(g.oh);
  const int32_t error = cover.tile.rows == 128 ? launch_shares<T, 128, 2>(g, cover.shares, x, y, partial, stream)
                                               : launch_shares<T, 64, 4>(g, cover.shares, x, y, partial, stream);
  if (error != 0) return error;
  return launch_add_shares<T>(sum, partial, nullptr, static_cast<T*>(b.w), stream);
}

constexpr int32_t kLeastCapability = 80;

template <class T>
constexpr Entry forward_entry(const char* name) {
  return {"conv2d", name, dtype_of<T>::value, kLeastCapability, run_correlation<T, Pass::forward>,
          correlation_workspace<T, Pass::forward>};
}
template <class T>
constexpr Entry grad_input_entry(const char* name) {
  return {"conv2d_grad_input", name, dtype_of<T>::value, kLeastCapability, run_correlation<T, Pass::grad_input>,
          correlation_workspace<T, Pass::grad_input>};
}
template <class T>
constexpr Entry grad_weight_entry(const char* name) {
  return {"conv2d_grad_weight", name, dtype_of<T>::value, kLeastCapability, run_grad_weight<T>,
          grad_weight_workspace<T>};
}

const Entry entries[] = {
    forward_entry<bf16>("cuda_mma"),           grad_input_entry<bf16>("cuda_mma"),
    grad_weight_entry<bf16>("cuda_mma"),       forward_entry<f16>("cuda_mma"),
    grad_input_entry<f16>("cuda_mma"),         grad_weight_entry<f16>("cuda_mma"),
    forward_entry<float>("cuda_mma_tf32"),     grad_input_entry<float>("cuda_mma_tf32"),
    grad_weight_entry<float>("cuda_mma_tf32"),
};

}  // namespace

extern const Table conv_mma_table;
const Table conv_mma_table{entries, sizeof entries / sizeof entries[0]};

}  // namespace cuda
}  // namespace spatialconv

// Convolution of 16-bit floats on Hopper's tensor cores (wgmma), fed by its copy engine: all three passes,
// channels_last. grad_input reads forward's weights as they lie. Sums shared among blocks are added in a fixed order:
// same bits at every run.
#include "conv_wgmma_plan.h"

namespace spatialconv {
namespace cuda {
namespace {

using namespace wgmma_conv;

const Conv2d& as_conv(const void* problem) { return *static_cast<const Conv2d*>(problem); }

template <class T>
int32_t order(const Conv2d& p, const void* weights, T* ordered, Stream stream) {
  const int64_t pieces = weight_count(p) / 8;
  const WeightOrder o{pieces, static_cast<int32_t>(taps_of(p)), static_cast<int32_t>(p.kw),
                      static_cast<int32_t>(p.ic / p.g), {p.w_stride[0], p.w_stride[1], p.w_stride[2], p.w_stride[3]}};
  return launch(order_weights<T>, dim3(static_cast<unsigned>(ceil_div(pieces, kPassThreads))), dim3(kPassThreads), 0,
                stream, o, static_cast<const T*>(weights), ordered);
}

template <class T>
int32_t add(const PartialSum& sum, const float* partial, const void* bias, void* result, Stream stream) {
  const int64_t blocks = ceil_div(sum.count, int64_t{kPassThreads} * kSumPiece);
  return launch(add_partial<T>, dim3(static_cast<unsigned>(blocks)), dim3(kPassThreads), 0, stream, sum, partial,
                static_cast<const T*>(bias), static_cast<T*>(result));
}

unsigned blocks_for(int64_t units, int64_t multiprocessors) {
  return static_cast<unsigned>(smaller(units, larger(1, multiprocessors)));
}

template <class T, Major kWeights>
int32_t launch_correlation(const Correlation& c, int32_t columns, int64_t multiprocessors, Stream stream) {
  const dim3 grid(blocks_for(int64_t{c.tiles} * c.splits, multiprocessors)), block(kThreads);
  switch (columns) {
    case 64:
      return launch(correlate<T, 64, kWeights>, grid, block, shared_bytes<64>(), stream, c);
    case 128:
      return launch(correlate<T, 128, kWeights>, grid, block, shared_bytes<128>(), stream, c);
    default:
      return launch(correlate<T, 256, kWeights>, grid, block, shared_bytes<256>(), stream, c);
  }
}

// Encodes one phase and counts its tiles.
int32_t fill_phase(const Conv2d& p, DType dtype, bool grad_input, const PhasePlan& plan, const void* source,
                   Correlation& c, Phase& phase) {
  const int64_t row_tiles = ceil_div(plan.pixels(p), kRows);
  phase.h = plan.h.axis;
  phase.w = plan.w.axis;
  phase.lower_h = static_cast<int32_t>(plan.h.lower);
  phase.lower_w = static_cast<int32_t>(plan.w.lower);
  phase.offset_h = static_cast<int32_t>(plan.h.offset);
  phase.offset_w = static_cast<int32_t>(plan.w.offset);
  phase.row_tiles = static_cast<int32_t>(row_tiles);
  phase.first_tile = c.tiles;
  phase.tiles = static_cast<int32_t>(row_tiles * c.column_tiles);
  c.tiles += phase.tiles;
  if (plan.taps() == 0) return 0;
  const int64_t channels = grad_input ? p.oc : p.ic, h = grad_input ? p.oh : p.ih, w = grad_input ? p.ow : p.iw;
  const Im2colMap map{p.n,
                      h,
                      w,
                      channels,
                      plan.h.lower,
                      plan.w.lower,
                      upper_corner(plan.h, c.source_step_h, h),
                      upper_corner(plan.w, c.source_step_w, w),
                      c.source_step_h,
                      c.source_step_w,
                      kDepth,
                      kRows};
  return encode(phase.source, dtype, source, map);
}

template <class T, Major kWeights>
int32_t run_correlation(const Conv2d& p, const Buffers& b, Stream stream) {
  constexpr bool kGradInput = kWeights == Major::mn;
  constexpr DType kType = dtype_of<T>::value;
  const CorrelationPlan plan = plan_correlation(p, kGradInput, b.threads);
  if (!plan.possible) return kInvalidValue;
  char* workspace = static_cast<char*>(b.workspace);
  const void* weights = b.w;
  if (plan.ordered_bytes != 0) {
    if (const int32_t error = order(p, b.w, reinterpret_cast<T*>(workspace), stream)) return error;
    weights = workspace;
  }
  float* partial = reinterpret_cast<float*>(workspace + plan.ordered_bytes);
  void* result = kGradInput ? b.x : b.y;
  const void* source = kGradInput ? b.y : b.x;
  const void* bias = kGradInput ? nullptr : b.aux;
  const int64_t channels = kGradInput ? p.ic : p.oc, group_source = (kGradInput ? p.oc : p.ic) / p.g;

  Correlation c{};
  const TiledMap weight_map{
      3, {p.ic / p.g, taps_of(p), p.oc}, {kDepth, 1, kGradInput ? int64_t{kDepth} : plan.cover.columns}};
  if (const int32_t error = encode(c.weights, kType, weights, weight_map)) return error;
  c.result = result;
  c.bias = bias;
  c.partial = plan.cover.splits > 1 ? partial : nullptr;
  c.partial_count = plan.partial_stride;
  c.n = static_cast<int32_t>(p.n);
  c.height = static_cast<int32_t>(kGradInput ? p.ih : p.oh);
  c.width = static_cast<int32_t>(kGradInput ? p.iw : p.ow);
  c.channels = static_cast<int32_t>(channels);
  c.step_h = static_cast<int32_t>(kGradInput ? p.sh : 1);
  c.step_w = static_cast<int32_t>(kGradInput ? p.sw : 1);
  c.source_step_h = static_cast<int32_t>(kGradInput ? 1 : p.sh);
  c.source_step_w = static_cast<int32_t>(kGradInput ? 1 : p.sw);
  c.tap_step_h = static_cast<int32_t>(kGradInput ? -p.sh / std::gcd(p.sh, p.dh) : 1);
  c.tap_step_w = static_cast<int32_t>(kGradInput ? -p.sw / std::gcd(p.sw, p.dw) : 1);
  c.kw = static_cast<int32_t>(p.kw);
  c.group_source = static_cast<int32_t>(group_source);
  c.group_channels = static_cast<int32_t>(channels / p.g);
  c.chunks = static_cast<int32_t>(ceil_div(group_source, kDepth));
  c.group_tiles = static_cast<int32_t>(ceil_div(channels / p.g, plan.cover.columns));
  c.column_tiles = static_cast<int32_t>(p.g * c.group_tiles);
  c.splits = plan.cover.splits;

  const int64_t phases = static_cast<int64_t>(plan.phases.size());
  for (int64_t first = 0; first < phases; first += kMostPhases) {
    c.tiles = 0;
    for (int64_t i = first; i < smaller(first + kMostPhases, phases); ++i) {
      const int32_t error = fill_phase(p, kType, kGradInput, plan.phases[i], source, c, c.phase[i - first]);
      if (error != 0) return error;
    }
    if (const int32_t error = launch_correlation<T, kWeights>(c, plan.cover.columns, b.threads, stream)) return error;
  }
  if (plan.cover.splits == 1) return 0;
  const PartialSum sum{plan.result_count, plan.partial_stride, plan.cover.splits, 1, 1, static_cast<int32_t>(channels),
                       {},                true};
  return add<T>(sum, partial, bias, result, stream);
}

template <class T, Major kWeights>
int32_t run_correlation_of(const void* problem, const Buffers& buffers, Stream stream) {
  return run_correlation<T, kWeights>(as_conv(problem), buffers, stream);
}

template <bool kGradInput>
int64_t correlation_workspace(const void* problem, int64_t multiprocessors) {
  return plan_correlation(as_conv(problem), kGradInput, multiprocessors).workspace();
}

template <class T>
int32_t launch_grad_weight(const GradWeight& g, int32_t columns, int64_t multiprocessors, Stream stream) {
  const dim3 grid(blocks_for(int64_t{g.tiles} * g.splits, multiprocessors)), block(kThreads);
  switch (columns) {
    case 64:
      return launch(grad_weight<T, 64>, grid, block, shared_bytes<64>(), stream, g);
    case 128:
      return launch(grad_weight<T, 128>, grid, block, shared_bytes<128>(), stream, g);
    default:
      return launch(grad_weight<T, 256>, grid, block, shared_bytes<256>(), stream, g);
  }
}

template <class T>
int32_t run_grad_weight(const void* problem, const Buffers& b, Stream stream) {
  const Conv2d& p = as_conv(problem);
  constexpr DType kType = dtype_of<T>::value;
  const GradWeightPlan plan = plan_grad_weight(p, b.threads);
  if (!plan.possible) return kInvalidValue;
  GradWeight g{};
  const TiledMap pixels{2, {p.oc, p.n * p.oh * p.ow}, {kDepth, kDepth}};
  if (const int32_t error = encode(g.grad_output, kType, b.y, pixels)) return error;
  const Im2colMap input{p.n,
                        p.ih,
                        p.iw,
                        p.ic,
                        plan.h.lower,
                        plan.w.lower,
                        upper_corner(plan.h, p.sh, p.ih),
                        upper_corner(plan.w, p.sw, p.iw),
                        p.sh,
                        p.sw,
                        kDepth,
                        kDepth};
  if (const int32_t error = encode(g.input, kType, b.x, input)) return error;
  g.partial = static_cast<float*>(b.workspace);
  g.partial_count = plan.partial_stride;
  g.oh = static_cast<int32_t>(p.oh);
  g.ow = static_cast<int32_t>(p.ow);
  g.sh = static_cast<int32_t>(p.sh);
  g.sw = static_cast<int32_t>(p.sw);
  g.ph = static_cast<int32_t>(p.ph);
  g.pw = static_cast<int32_t>(p.pw);
  g.dh = static_cast<int32_t>(p.dh);
  g.dw = static_cast<int32_t>(p.dw);
  g.kw = static_cast<int32_t>(p.kw);
  g.taps = static_cast<int32_t>(taps_of(p));
  g.group_ic = static_cast<int32_t>(p.ic / p.g);
  g.group_oc = static_cast<int32_t>(p.oc / p.g);
  g.chunks = static_cast<int32_t>(ceil_div(p.ic / p.g, 64));
  g.group_row_tiles = static_cast<int32_t>(plan.group_row_tiles);
  g.column_tiles = static_cast<int32_t>(plan.column_tiles);
  g.tiles = static_cast<int32_t>(p.g * plan.group_row_tiles * plan.column_tiles);
  g.steps = static_cast<int32_t>(plan.steps);
  g.splits = plan.cover.splits;

  if (const int32_t error = launch_grad_weight<T>(g, plan.cover.columns, b.threads, stream)) return error;
  const PartialSum sum{weight_count(p),
                       plan.partial_stride,
                       plan.cover.splits,
                       g.taps,
                       g.kw,
                       g.group_ic,
                       {p.w_stride[0], p.w_stride[1], p.w_stride[2], p.w_stride[3]},
                       weights_are_ordered(p)};
  return add<T>(sum, g.partial, nullptr, b.w, stream);
}

int64_t grad_weight_workspace(const void* problem, int64_t multiprocessors) {
  return plan_grad_weight(as_conv(problem), multiprocessors).workspace();
}

constexpr const char* kName = "cuda_wgmma";

template <class T>
constexpr Entry forward_entry() {
  return {"conv2d", kName, dtype_of<T>::value, 90, run_correlation_of<T, Major::k>, correlation_workspace<false>};
}
template <class T>
constexpr Entry grad_input_entry() {
  return {"conv2d_grad_input", kName, dtype_of<T>::value, 90, run_correlation_of<T, Major::mn>,
          correlation_workspace<true>};
}
template <class T>
constexpr Entry grad_weight_entry() {
  return {"conv2d_grad_weight", kName, dtype_of<T>::value, 90, run_grad_weight<T>, grad_weight_workspace};
}

const Entry entries[] = {
    forward_entry<bf16>(),  grad_input_entry<bf16>(),  grad_weight_entry<bf16>(),
    forward_entry<f16>(), grad_input_entry<f16>(), grad_weight_entry<f16>(),
};

}  // namespace

extern const Table conv_wgmma_table;
const Table conv_wgmma_table{entries, sizeof entries / sizeof entries[0]};

}  // namespace cuda
}  // namespace spatialconv

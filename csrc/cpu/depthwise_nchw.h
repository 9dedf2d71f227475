// Depthwise convolution in nchw for every geometry, forward and the gradient of the input, both as stride-1 sums over
// staged planes. The gradient falls apart into one such sum for every residue of the input position modulo the stride.
#pragma once
#include "depthwise_plane.h"
#include "depthwise_window.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

template <class Compute>
struct ForwardPlan {
  Staging staging;
  int64_t band, bands, tasks, slot;

  ForwardPlan(const Conv2d& p, int64_t threads) {
    const int64_t row_halo = (p.kh - 1) * p.dh / p.sh, column_halo = (p.kw - 1) * p.dw / p.sw;
    const int64_t row_bytes = (p.ow + column_halo) * p.sh * p.sw * static_cast<int64_t>(sizeof(Compute));
    band = band_rows(p.n * p.oc, p.oh, row_bytes, row_halo, threads);
    bands = ceil_div(p.oh, band);
    tasks = p.n * p.oc * bands;
    staging = staging_of<Compute>(band, p.ow, row_halo, column_halo);
    const int64_t taps = p.kh * p.kw;
    slot = lines_of<int64_t>(taps) + lines_of<Compute>(taps) +
           lines_of<Compute>(staging.phase_size * p.sh * p.sw + kSlack<Compute>) +
           lines_of<Compute>(strided_row_size<Compute>(staging.pitch, p.sw)) + lines_of<Compute>(staging.phase_size);
  }
};

template <class Storage>
void forward_planes(const Conv2d& p, const Buffers& buffers, const ForwardPlan<compute_t<Storage>>& plan, char* memory,
                    int64_t begin, int64_t end) {
  using C = compute_t<Storage>;
  const Staging& staging = plan.staging;
  const int64_t taps = p.kh * p.kw;
  Carver carver{memory};
  int64_t* offsets = carver.take<int64_t>(taps);
  C* filter = carver.take<C>(taps);
  C* staged = carver.take<C>(staging.phase_size * p.sh * p.sw + kSlack<C>);
  C* padded = carver.take<C>(strided_row_size<C>(staging.pitch, p.sw));
  C* sums = carver.take<C>(staging.phase_size);
  for (int64_t t = 0; t < taps; ++t) {
    const int64_t down = t / p.kw * p.dh, right = t % p.kw * p.dw;
    offsets[t] = (down % p.sh * p.sw + right % p.sw) * staging.phase_size + down / p.sh * staging.pitch + right / p.sw;
  }
  const int64_t per_input = multiplier(p);
  int64_t staged_task = -1;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t band = task % plan.bands, oc = task / plan.bands % p.oc, n = task / plan.bands / p.oc;
    const int64_t ic = oc / per_input, first = band * plan.band, rows = smaller(plan.band, p.oh - first);
    const int64_t source = (n * p.ic + ic) * plan.bands + band;
    if (source != staged_task) {
      const Storage* x = static_cast<const Storage*>(buffers.x) + n * p.x_stride[0] + ic * p.x_stride[1];
      stage_plane(x, p.x_stride[2], p.ih, p.iw, p.sh, p.sw, first, p.ph, p.pw, staging, padded, staged);
      staged_task = source;
    }
    read_filter<Storage>(p, buffers.w, oc, filter);
    const C bias = buffers.aux == nullptr ? C{0} : widen(static_cast<const Storage*>(buffers.aux)[oc]);
    Storage* y = static_cast<Storage*>(buffers.y) + n * p.y_stride[0] + oc * p.y_stride[1] + first * p.y_stride[2];
    run_taps(staged, offsets, filter, taps, false, (rows - 1) * staging.pitch + p.ow, sums);
    const auto finish_rows = [&](auto activated) {
      const vec<C> added = broadcast(bias);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < p.ow; i += kLanes<C>) {
          vec<C> value = load(sums + r * staging.pitch + i) + added;
          if constexpr (decltype(activated)::value) activate<C>(p.activation, value);
          store_n(y + r * p.y_stride[2] + i, value, p.ow - i);
        }
      }
    };
    p.activation == Activation::none ? finish_rows(std::false_type{}) : finish_rows(std::true_type{});
  }
}

template <class Compute>
struct InputGradPlan {
  Staging staging;
  int64_t row_halo, column_halo;
  int64_t first_row, rows, first_column, columns;  // of every phase, in strides of the padded input
  int64_t band, bands, tasks, slot;

  InputGradPlan(const Conv2d& p, int64_t threads) {
    row_halo = (p.kh - 1) * p.dh / p.sh;
    column_halo = (p.kw - 1) * p.dw / p.sw;
    first_row = p.ph / p.sh;
    rows = (p.ih + p.ph - 1) / p.sh - first_row + 1;
    first_column = p.pw / p.sw;
    columns = (p.iw + p.pw - 1) / p.sw - first_column + 1;
    const int64_t row_bytes = (columns + column_halo) * (1 + p.sw) * static_cast<int64_t>(sizeof(Compute));
    band = band_rows(p.n * p.ic, rows, row_bytes, row_halo, threads);
    bands = ceil_div(rows, band);
    tasks = p.n * p.ic * bands;
    staging = staging_of<Compute>(band, columns, row_halo, column_halo);
    const int64_t taps = p.kh * p.kw;
    slot = 2 * lines_of<Compute>(taps) + lines_of<int64_t>(taps) + lines_of<Compute>(staging.phase_size) +
           lines_of<Compute>(staging.phase_size * p.sh * p.sw) +
           lines_of<Compute>(strided_row_size<Compute>(staging.pitch, p.sw));
  }
};

template <class Storage>
class InputGradPlanes {
 public:
  using C = compute_t<Storage>;
  using Plan = InputGradPlan<C>;

  InputGradPlanes(const Conv2d& problem, const Buffers& buffers, const Plan& plan, char* memory)
      : p_(problem), buffers_(buffers), plan_(plan) {
    const int64_t taps = p_.kh * p_.kw;
    Carver carver{memory};
    filter_ = carver.take<C>(taps);
    chosen_ = carver.take<C>(taps);
    offsets_ = carver.take<int64_t>(taps);
    staged_ = carver.take<C>(plan_.staging.phase_size);
    sums_ = carver.take<C>(plan_.staging.phase_size * p_.sh * p_.sw);
    merged_ = carver.take<C>(strided_row_size<C>(plan_.staging.pitch, p_.sw));
  }

  void run(int64_t task) {
    const int64_t band = task % plan_.bands, ic = task / plan_.bands % p_.ic, n = task / plan_.bands / p_.ic;
    const int64_t first = band * plan_.band, rows = smaller(plan_.band, plan_.rows - first);
    const int64_t per_input = multiplier(p_);
    Storage* x = static_cast<Storage*>(buffers_.x) + n * p_.x_stride[0] + ic * p_.x_stride[1];
    for (int64_t j = 0; j < per_input; ++j) {
      const int64_t oc = ic * per_input + j;
      const Storage* y = static_cast<const Storage*>(buffers_.y) + n * p_.y_stride[0] + oc * p_.y_stride[1];
      stage_plane(y, p_.y_stride[2], p_.oh, p_.ow, 1, 1, plan_.first_row + first, plan_.row_halo,
                  plan_.column_halo - plan_.first_column, plan_.staging, merged_, staged_);
      read_filter<Storage>(p_, buffers_.w, oc, filter_);
      for (int64_t row_phase = 0; row_phase < p_.sh; ++row_phase) {
        for (int64_t column_phase = 0; column_phase < p_.sw; ++column_phase) {
          run_phase(row_phase, column_phase, rows, j > 0);
        }
      }
    }
    write(first, rows, x);
  }

 private:
  C* phase(int64_t row_phase, int64_t column_phase) {
    return sums_ + (row_phase * p_.sw + column_phase) * plan_.staging.phase_size;
  }

  void run_phase(int64_t row_phase, int64_t column_phase, int64_t rows, bool accumulate) {
    int64_t taps = 0;
    for (int64_t kh = p_.kh - 1; kh >= 0; --kh) {
      if (kh * p_.dh % p_.sh != row_phase) continue;
      for (int64_t kw = p_.kw - 1; kw >= 0; --kw) {
        if (kw * p_.dw % p_.sw != column_phase) continue;
        offsets_[taps] = (plan_.row_halo - kh * p_.dh / p_.sh) * plan_.staging.pitch + plan_.column_halo -
                         kw * p_.dw / p_.sw;
        chosen_[taps++] = filter_[kh * p_.kw + kw];
      }
    }
    const int64_t n = (rows - 1) * plan_.staging.pitch + plan_.columns;
    run_taps(staged_, offsets_, chosen_, taps, accumulate, n, phase(row_phase, column_phase));
  }

  void write(int64_t first, int64_t rows, Storage* x) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t row_phase = 0; row_phase < p_.sh; ++row_phase) {
        const int64_t ih = (plan_.first_row + first + r) * p_.sh + row_phase - p_.ph;
        if (ih < 0 || ih >= p_.ih) continue;
        const C* row = phase(row_phase, 0) + r * plan_.staging.pitch;
        if (p_.sw > 1) {
          merge_row(row, plan_.staging.phase_size, p_.sw, plan_.columns, merged_);
          row = merged_ + p_.pw % p_.sw;
        }
        narrow_row(row, p_.iw, x + ih * p_.x_stride[2]);
      }
    }
  }

  const Conv2d& p_;
  const Buffers& buffers_;
  const Plan& plan_;
  C* filter_;
  C* chosen_;
  int64_t* offsets_;
  C* staged_;
  C* sums_;
  C* merged_;
};

template <class Storage>
int32_t depthwise_forward_nchw(const Conv2d& p, const Buffers& buffers) {
  const WindowPass<Storage> pass = forward_pass<Storage>(p, buffers);
  if (pass.method != Method::none) return run_windows(pass, buffers);
  const ForwardPlan<compute_t<Storage>> plan(p, buffers.threads);
  return for_each_slab(plan.tasks, buffers.threads, [&](int64_t slab, int64_t begin, int64_t end) {
    forward_planes<Storage>(p, buffers, plan, static_cast<char*>(buffers.workspace) + slab * plan.slot, begin, end);
  });
}

template <class Storage>
int64_t depthwise_forward_nchw_workspace(const Conv2d& p, int64_t threads) {
  const Buffers nothing{nullptr, nullptr, nullptr, nullptr, nullptr, threads, 0};
  const WindowPass<Storage> pass = forward_pass<Storage>(p, nothing);
  if (pass.method != Method::none) return pass.slot() * positive_threads(threads);
  return ForwardPlan<compute_t<Storage>>(p, threads).slot * positive_threads(threads);
}

template <class Storage>
int64_t depthwise_grad_input_nchw_workspace(const Conv2d& p, int64_t threads) {
  const Buffers nothing{nullptr, nullptr, nullptr, nullptr, nullptr, threads, 0};
  const WindowPass<Storage> pass = grad_input_pass<Storage>(p, nothing);
  if (pass.method != Method::none) return pass.slot() * positive_threads(threads);
  return InputGradPlan<compute_t<Storage>>(p, threads).slot * positive_threads(threads);
}

template <class Storage>
int32_t depthwise_grad_input_nchw(const Conv2d& p, const Buffers& buffers) {
  const WindowPass<Storage> pass = grad_input_pass<Storage>(p, buffers);
  if (pass.method != Method::none) return run_windows(pass, buffers);
  const InputGradPlan<compute_t<Storage>> plan(p, buffers.threads);
  return for_each_share(plan.tasks, buffers.threads, [&](int64_t slab, Share& share) {
    InputGradPlanes<Storage> planes(p, buffers, plan, static_cast<char*>(buffers.workspace) + slab * plan.slot);
    for (int64_t task; share.next(&task);) planes.run(task);
  });
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

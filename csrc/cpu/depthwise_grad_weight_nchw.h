// The gradient of depthwise weights in nchw: dot products of the shifted input with grad_output. 3 x 3 filters read
// both in place; else a channel's planes are staged with one pitch, so that a tap is one offset.
#pragma once
#include "depthwise_nine_dots.h"
#include "depthwise_plane.h"
#include "depthwise_window.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

constexpr int kDotTaps = 8;

template <class Compute, int kTaps>
__attribute__((noinline)) void dot_block(const Compute* plane, const int64_t* offsets, const Compute* gradient,
                                         int64_t n, Compute* sums) {
  constexpr int kL = kLanes<Compute>;
  vec<Compute> sum[kTaps];
  const Compute* shifted[kTaps];
  SC_UNROLL
  for (int t = 0; t < kTaps; ++t) {
    sum[t] = load(sums + t * kL);
    shifted[t] = plane + offsets[t];
  }
  for (int64_t q = 0; q < n; q += kL) {
    const vec<Compute> g = load(gradient + q);
    SC_UNROLL
    for (int t = 0; t < kTaps; ++t) sum[t] = fma(load(shifted[t] + q), g, sum[t]);
  }
  SC_UNROLL
  for (int t = 0; t < kTaps; ++t) store(sums + t * kL, sum[t]);
}

template <class Compute>
void dot_taps(const Compute* plane, const int64_t* offsets, int64_t taps, const Compute* gradient, int64_t n,
              Compute* sums) {
  constexpr int64_t kL = kLanes<Compute>;
  int64_t t = 0;
  for (; t + kDotTaps <= taps; t += kDotTaps) {
    dot_block<Compute, kDotTaps>(plane, offsets + t, gradient, n, sums + t * kL);
  }
  if (t + 4 <= taps) {
    dot_block<Compute, 4>(plane, offsets + t, gradient, n, sums + t * kL);
    t += 4;
  }
  for (; t < taps; ++t) dot_block<Compute, 1>(plane, offsets + t, gradient, n, sums + t * kL);
}

// An output channel and a share of the images are one task; shares matter only when there are fewer channels than
// threads.
template <class Compute>
struct WeightGradPlan {
  Staging staging;
  int64_t band, bands, shares, images, slot;

  WeightGradPlan(const Conv2d& p, int64_t threads) {
    const int64_t row_halo = (p.kh - 1) * p.dh / p.sh, column_halo = (p.kw - 1) * p.dw / p.sw;
    const int64_t row_bytes = (p.ow + column_halo) * (p.sh * p.sw + 1) * static_cast<int64_t>(sizeof(Compute));
    band = band_rows(p.n * p.oc, p.oh, row_bytes, row_halo, 1);
    bands = ceil_div(p.oh, band);
    staging = staging_of<Compute>(band, p.ow, row_halo, column_halo);
    shares = smaller(p.n, ceil_div(2 * positive_threads(threads), p.oc));
    images = ceil_div(p.n, shares);
    shares = ceil_div(p.n, images);
    const int64_t taps = p.kh * p.kw;
    slot = lines_of<int64_t>(taps) + lines_of<Compute>(staging.phase_size * p.sh * p.sw + kSlack<Compute>) +
           lines_of<Compute>(strided_row_size<Compute>(staging.pitch, p.sw)) + lines_of<Compute>(staging.phase_size) +
           lines_of<Compute>(taps * kLanes<Compute>);
  }
  int64_t partial_size(const Conv2d& p) const { return shares * p.oc * p.kh * p.kw; }
};

template <class Storage>
class WeightGradPlanes {
 public:
  using C = compute_t<Storage>;
  static constexpr int64_t kL = kLanes<C>;

  WeightGradPlanes(const Conv2d& problem, const Buffers& buffers, const WeightGradPlan<C>& plan, char* memory)
      : p_(problem), buffers_(buffers), plan_(plan), taps_(problem.kh * problem.kw) {
    const Staging& staging = plan_.staging;
    const int64_t staged_size = staging.phase_size * p_.sh * p_.sw + kSlack<C>;
    Carver carver{memory};
    offsets_ = carver.take<int64_t>(taps_);
    staged_ = carver.take<C>(staged_size);
    padded_ = carver.take<C>(strided_row_size<C>(staging.pitch, p_.sw));
    gradient_ = carver.take<C>(staging.phase_size);
    sums_ = carver.take<C>(taps_ * kL);
    // Vectors run past the staged rows; what they find there meets a zero gradient and has to be finite.
    std::memset(staged_, 0, static_cast<size_t>(staged_size) * sizeof(C));
    for (int64_t t = 0; t < taps_; ++t) {
      const int64_t down = t / p_.kw * p_.dh, right = t % p_.kw * p_.dw;
      offsets_[t] = (down % p_.sh * p_.sw + right % p_.sw) * staging.phase_size + down / p_.sh * staging.pitch +
                    right / p_.sw;
    }
  }

  void run(int64_t oc, int64_t share, C* out) {
    std::memset(sums_, 0, static_cast<size_t>(taps_ * kL) * sizeof(C));
    const int64_t ic = oc / multiplier(p_);
    for (int64_t n = share * plan_.images; n < smaller((share + 1) * plan_.images, p_.n); ++n) {
      const Storage* x = static_cast<const Storage*>(buffers_.x) + n * p_.x_stride[0] + ic * p_.x_stride[1];
      const Storage* y = static_cast<const Storage*>(buffers_.y) + n * p_.y_stride[0] + oc * p_.y_stride[1];
      for (int64_t first = 0; first < p_.oh; first += plan_.band) {
        const int64_t rows = smaller(plan_.band, p_.oh - first);
        stage_plane(x, p_.x_stride[2], p_.ih, p_.iw, p_.sh, p_.sw, first, p_.ph, p_.pw, plan_.staging, padded_,
                    staged_);
        for (int64_t r = 0; r < rows; ++r) {
          pad_row(y + (first + r) * p_.y_stride[2], p_.ow, 0, plan_.staging.pitch, C{0},
                  gradient_ + r * plan_.staging.pitch);
        }
        const int64_t n_positions = rows * plan_.staging.pitch;
        fill_row(gradient_ + n_positions, kL, C{0});
        dot_taps(staged_, offsets_, taps_, gradient_, n_positions, sums_);
      }
    }
    for (int64_t t = 0; t < taps_; ++t) {
      C total{0};
      for (int64_t lane = 0; lane < kL; ++lane) total += sums_[t * kL + lane];
      out[t] = total;
    }
  }

 private:
  const Conv2d& p_;
  const Buffers& buffers_;
  const WeightGradPlan<C>& plan_;
  const int64_t taps_;
  int64_t* offsets_;
  C* staged_;
  C* padded_;
  C* gradient_;
  C* sums_;
};

// One element without padding or neighbours in the sum.
template <class Storage>
compute_t<Storage> exact_weight_grad(const Conv2d& p, const Buffers& buffers, int64_t oc, int64_t kh, int64_t kw) {
  compute_t<Storage> sum{0};
  for (int64_t n = 0; n < p.n; ++n) {
    const Storage* x =
        static_cast<const Storage*>(buffers.x) + n * p.x_stride[0] + oc / multiplier(p) * p.x_stride[1];
    const Storage* y = static_cast<const Storage*>(buffers.y) + n * p.y_stride[0] + oc * p.y_stride[1];
    for (int64_t oh = 0; oh < p.oh; ++oh) {
      const int64_t ih = oh * p.sh - p.ph + kh * p.dh;
      if (ih < 0 || ih >= p.ih) continue;
      for (int64_t ow = 0; ow < p.ow; ++ow) {
        const int64_t iw = ow * p.sw - p.pw + kw * p.dw;
        if (iw < 0 || iw >= p.iw) continue;
        sum += widen(x[ih * p.x_stride[2] + iw * p.x_stride[3]]) * widen(y[oh * p.y_stride[2] + ow * p.y_stride[3]]);
      }
    }
  }
  return sum;
}

template <class Storage>
int32_t depthwise_grad_weight_nchw(const Conv2d& p, const Buffers& buffers) {
  using C = compute_t<Storage>;
  const WeightGradPlan<C> plan(p, buffers.threads);
  const int64_t taps = p.kh * p.kw;
  C* partial = static_cast<C*>(buffers.workspace);
  char* slots = static_cast<char*>(buffers.workspace) + lines_of<C>(plan.partial_size(p));
  const int32_t error =
      for_each_slab(p.oc * plan.shares, buffers.threads, [&](int64_t slab, int64_t begin, int64_t end) {
        // Where partial loads are written out lane by lane, narrow planes would be nothing but those.
        if constexpr (kMasksLoads<Storage>) {
          if (suits_nine_taps(p)) {
            for (int64_t task = begin; task < end; ++task) {
              const int64_t first = task % plan.shares * plan.images, last = smaller(first + plan.images, p.n);
              nine_weight_grad<Storage>(p, buffers, task / plan.shares, first, last, partial + task * taps);
            }
            return;
          }
        }
        WeightGradPlanes<Storage> planes(p, buffers, plan, slots + slab * plan.slot);
        for (int64_t task = begin; task < end; ++task) {
          planes.run(task / plan.shares, task % plan.shares, partial + task * taps);
        }
      });
  if (error != 0) return error;
  return parallel_for(p.oc, 64, [&](int64_t begin, int64_t end) {
    for (int64_t oc = begin; oc < end; ++oc) {
      Storage* w = static_cast<Storage*>(buffers.w) + oc * p.w_stride[0];
      const C* shares = partial + oc * plan.shares * taps;
      for (int64_t kh = 0, t = 0; kh < p.kh; ++kh) {
        for (int64_t kw = 0; kw < p.kw; ++kw, ++t) {
          C sum{0};
          for (int64_t share = 0; share < plan.shares; ++share) sum += shares[share * taps + t];
          // Padding meets every gradient and gaps between rows meet every input, as products with zero.
          if (sum - sum != C{0}) sum = exact_weight_grad<Storage>(p, buffers, oc, kh, kw);
          w[kh * p.w_stride[2] + kw * p.w_stride[3]] = narrow<Storage>(sum);
        }
      }
    }
  });
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

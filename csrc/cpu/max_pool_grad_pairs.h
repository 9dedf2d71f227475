// The gradient of max pooling by windows of 2 x 2 that tile the image, as a gather: every input element is the gradient
// of its window where that window's index is its position, else zero, and is written once. A plane or chunk with an
// index outside of its own window is done again as a scatter, which takes any.
#pragma once
#include "max_pool_scatter.h"
#include "pool_pairs.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// Those of nhwc, too, which pool_pairs.h leaves out.
inline bool suits_grad_pairs(const Pool2d& p) {
  if (p.adaptive || p.kh != 2 || p.kw != 2 || p.sh != 2 || p.sw != 2 || p.ph != 0 || p.pw != 0) return false;
  if (p.dh != 1 || p.dw != 1 || 2 * p.oh > p.ih || 2 * p.ow > p.iw) return false;
  return p.ow > 0 && p.oh > 0 && p.ih <= INT32_MAX / p.iw;
}

template <class Storage>
class MaxGradPairs {
 public:
  using C = compute_t<Storage>;
  using I = lane_int<C>;
  static constexpr int64_t kL = kLanes<C>;

  MaxGradPairs(const Pool2d& p, bool channels_last)
      : p_(p), pixel_(channels_last ? p.x_stride[3] : 1), channels_last_(channels_last) {}

  // Whether every index lies in its window; only then `out` is right.
  bool run(int64_t width, const Storage* gradient, const int64_t* index, Storage* out) {
    strays_ = ivec<C>{};
    width_ = width;
    for (int64_t oh = 0; oh < p_.oh; ++oh, out += 2 * p_.x_stride[2]) {
      const int64_t row = oh * p_.y_stride[2];
      if (channels_last_) {
        write_pixels(gradient + row, index + row, 2 * oh * p_.iw, out);
      } else {
        write_pairs(gradient + row, index + row, 2 * oh * p_.iw, out);
      }
      clear(out, 2 * p_.ow, p_.iw);
      clear(out + p_.x_stride[2], 2 * p_.ow, p_.iw);
    }
    for (int64_t ih = 2 * p_.oh; ih < p_.ih; ++ih, out += p_.x_stride[2]) clear(out, 0, p_.iw);
    I strays{0};
    for (int lane = 0; lane < kL; ++lane) strays |= strays_[lane];
    return strays == 0;
  }

 private:
  struct Four {
    vec<C> upper_left, upper_right, lower_left, lower_right;
  };

  void clear(Storage* row, int64_t begin, int64_t end) const {
    for (int64_t iw = begin; iw < end; ++iw) {
      std::memset(row + iw * pixel_, 0, static_cast<size_t>(width_) * sizeof(Storage));
    }
  }

  // What the elements of windows get whose first ones stand at `first`; lanes that no window has are masked out.
  SC_INLINE Four share(vec<C> gradient, const int64_t* index, ivec<C> first, ivec<C> lanes) {
    ivec<C> at, strays{};
    if constexpr (sizeof(C) == 8) {
      at = load_index<C>(index);
    } else {
      const float* words = reinterpret_cast<const float*>(index);
      vec<C> low, high;
      split_pairs<C>(load(words), load(words + kL), low, high);
      at = (ivec<C>)low;
      strays = (ivec<C>)high;
    }
    const I width = static_cast<I>(p_.iw);
    const ivec<C> from = at - first, bits = (ivec<C>)gradient;
    const ivec<C> a = from == I{0}, b = from == I{1}, c = from == width, d = from == width + I{1};
    strays_ |= (strays | ~(a | b | c | d)) & lanes;
    return {(vec<C>)(bits & a), (vec<C>)(bits & b), (vec<C>)(bits & c), (vec<C>)(bits & d)};
  }

  // The first n of less than a vector.
  SC_INLINE Four share_tail(const Storage* gradient, const int64_t* index, ivec<C> first, int64_t n) {
    int64_t staged[kL];
    std::memset(staged, 0, sizeof staged);
    std::memcpy(staged, index, static_cast<size_t>(n) * sizeof(int64_t));
    return share(load_tail(gradient, n), staged, first, lane_ < static_cast<I>(n));
  }

  void write_pairs(const Storage* gradient, const int64_t* index, int64_t base, Storage* upper) {
    Storage* lower = upper + p_.x_stride[2];
    const ivec<C> first = 2 * lane_ + static_cast<I>(base), every = ivec<C>{} - 1;
    vec<C> a, b;
    if (p_.ow < kL) {
      const Four part = share_tail(gradient, index, first, p_.ow);
      const int64_t n = 2 * p_.ow;
      merge_pairs<C>(part.upper_left, part.upper_right, a, b);
      store_n(upper, a, n);
      if (n > kL) store_n(upper + kL, b, n - kL);
      merge_pairs<C>(part.lower_left, part.lower_right, a, b);
      store_n(lower, a, n);
      if (n > kL) store_n(lower + kL, b, n - kL);
      return;
    }
    for (int64_t i = 0; i < p_.ow; i += kL) {
      const int64_t o = smaller(i, p_.ow - kL);  // the last vector overlaps the one before it
      const Four part = share(load(gradient + o), index + o, first + static_cast<I>(2 * o), every);
      merge_pairs<C>(part.upper_left, part.upper_right, a, b);
      store(upper + 2 * o, a);
      store(upper + 2 * o + kL, b);
      merge_pairs<C>(part.lower_left, part.lower_right, a, b);
      store(lower + 2 * o, a);
      store(lower + 2 * o + kL, b);
    }
  }

  void write_pixels(const Storage* gradient, const int64_t* index, int64_t base, Storage* upper) {
    const ivec<C> every = ivec<C>{} - 1;
    for (int64_t ow = 0; ow < p_.ow; ++ow, upper += 2 * pixel_, gradient += p_.y_stride[3], index += p_.y_stride[3]) {
      Storage* lower = upper + p_.x_stride[2];
      const ivec<C> first = ivec<C>{} + static_cast<I>(base + 2 * ow);
      int64_t c = 0;
      for (; c + kL <= width_; c += kL) {
        const Four part = share(load(gradient + c), index + c, first, every);
        store(upper + c, part.upper_left);
        store(upper + pixel_ + c, part.upper_right);
        store(lower + c, part.lower_left);
        store(lower + pixel_ + c, part.lower_right);
      }
      if (c == width_) continue;
      const int64_t n = width_ - c;
      const Four part = share_tail(gradient + c, index + c, first, n);
      store_n(upper + c, part.upper_left, n);
      store_n(upper + pixel_ + c, part.upper_right, n);
      store_n(lower + c, part.lower_left, n);
      store_n(lower + pixel_ + c, part.lower_right, n);
    }
  }

  static ivec<C> lane_numbers() {
    ivec<C> lane{};
    for (int i = 0; i < kL; ++i) lane[i] = i;
    return lane;
  }

  const Pool2d& p_;
  const int64_t pixel_;
  const bool channels_last_;
  const ivec<C> lane_ = lane_numbers();
  ivec<C> strays_{};
  int64_t width_ = 0;
};

// A task is one plane (nchw) or a chunk of the channels of one image (nhwc). The workspace is the scatter's.
template <class Storage>
int32_t max_pool_grad_pairs(const Pool2d& p, const Buffers& buffers) {
  const PlanePlan plan = plane_plan(p, buffers.threads);
  const int64_t slot = scatter_slot<Storage>(p, plan);
  return for_each_slab(plan.tasks, buffers.threads, [&](int64_t slab, int64_t begin, int64_t end) {
    MaxGradPairs<Storage> pairs(p, plan.channels_last);
    for (int64_t task = begin; task < end; ++task) {
      const PlanePart part = part_of(p, plan, task);
      const bool done = pairs.run(part.width, static_cast<const Storage*>(buffers.y) + part.y,
                                  static_cast<const int64_t*>(buffers.aux) + part.y,
                                  static_cast<Storage*>(buffers.x) + part.x);
      void* workspace = static_cast<char*>(buffers.workspace) + slab * slot;
      if (!done) scatter_tasks<Storage>(p, buffers, plan, task, task + 1, workspace);
    }
  });
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

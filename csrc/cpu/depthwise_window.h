#include <algorithm>
// Depthwise convolution in nchw by planes, where a window is cheap to slide: 3 x 3 filters read in place, and large
// filters of stride 1 whose output rows share loads. The gradient of the input at stride 1 is the same with the filter
// turned round; with 3 x 3 filters and stride 2 it is a method of its own.
#pragma once
#include "depthwise_nine.h"
#include "depthwise_nine_spread.h"
#include "depthwise_roll.h"
#include "depthwise_shared.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

inline int64_t multiplier(const Conv2d& p) { return p.oc / p.ic; }

// The filter of one output channel, taps in row-major order.
template <class Storage>
void read_filter(const Conv2d& p, const void* weight, int64_t oc, compute_t<Storage>* filter) {
  const Storage* w = static_cast<const Storage*>(weight) + oc * p.w_stride[0];
  for (int64_t kh = 0; kh < p.kh; ++kh) {
    for (int64_t kw = 0; kw < p.kw; ++kw) *filter++ = widen(w[kh * p.w_stride[2] + kw * p.w_stride[3]]);
  }
}

// Rows per band so that a staged band stays in the second-level cache and every thread gets bands.
inline int64_t band_rows(int64_t planes, int64_t rows, int64_t row_bytes, int64_t halo_rows, int64_t threads) {
  const int64_t budget = 256 * 1024 / larger(row_bytes, 1);
  int64_t band = larger(budget - halo_rows, larger(8, halo_rows / 2));
  const int64_t wanted = 2 * positive_threads(threads);
  if (planes < wanted) band = smaller(band, ceil_div(rows, ceil_div(wanted, planes)));
  band = clamped(band, 1, rows);
  return ceil_div(rows, ceil_div(rows, band));
}

enum class Method { none, nine, spread, shared };

// One correlation of every plane of `source` with a filter of its own, written to `dest`.
template <class Storage>
struct WindowPass {
  using C = compute_t<Storage>;
  Method method;
  const Conv2d& p;
  bool flipped;  // the gradient: source is y, dest is x
  int64_t channels, per_source, source_rows, source_columns, rows, columns, top, left;
  const int64_t* source_stride;
  const int64_t* dest_stride;
  const Storage* source;
  Storage* dest;
  NineWalk walk{};
  int64_t images = 1, groups = 0, band = 0, bands = 0;  // a task: a band of rows of the planes of some images

  bool in_place() const { return method == Method::nine || method == Method::spread; }

  int64_t stride() const { return flipped ? 1 : p.sh; }
  int64_t staged_rows() const { return smaller(source_rows, (band - 1) * stride() + p.kh); }
  int64_t slot() const {
    const int64_t filter = lines_of<C>(p.kh * p.kw);
    if (in_place()) return filter;
    return filter + lines_of<C>(RowStage<C>::size(staged_rows(), columns, p.kw, stride())) +
           (std::is_same_v<Storage, C> ? 0 : lines_of<C>(band * columns + kLanes<C>));
  }
};

template <class Storage>
void cut_tasks(WindowPass<Storage>& pass, int64_t threads) {
  const Conv2d& p = pass.p;
  if (pass.in_place()) {
    pass.walk = nine_walk<Storage>(p.n, p.oh, p.ow + p.sh * p.iw);
    if (pass.method == Method::spread) pass.walk.band *= 2;
    if (pass.channels >= 2 * positive_threads(threads)) pass.images = pass.walk.images;
    pass.band = nine_band(ceil_div(p.n, pass.images) * pass.channels, pass.rows, threads);
  } else {
    const int64_t step = pass.stride(), bytes = static_cast<int64_t>(sizeof(compute_t<Storage>));
    const int64_t row_bytes = (pass.columns * step + p.kw - 1) * step * bytes;
    pass.band = band_rows(p.n * pass.channels, pass.rows, row_bytes, (p.kh - 1) / step, threads);
  }
  pass.groups = ceil_div(p.n, pass.images);
  pass.bands = ceil_div(pass.rows, pass.band);
}

template <class Storage>
WindowPass<Storage> forward_pass(const Conv2d& p, const Buffers& buffers) {
  const Method method = suits_nine_taps(p)                                            ? Method::nine
                        : suits_shared_rows(p, p.ow, kLanes<compute_t<Storage>>) ? Method::shared
                                                                                      : Method::none;
  WindowPass<Storage> pass{method, p,    false, p.oc,       multiplier(p), p.ih, p.iw, p.oh, p.ow, p.ph,
                           p.pw,   p.x_stride, p.y_stride, static_cast<const Storage*>(buffers.x),
                           static_cast<Storage*>(buffers.y)};
  if (method != Method::none) cut_tasks(pass, buffers.threads);
  return pass;
}

template <class Storage>
WindowPass<Storage> grad_input_pass(const Conv2d& p, const Buffers& buffers) {
  const bool paired = multiplier(p) == 1, slides = paired && p.sh == 1 && p.sw == 1;
  // Where partial loads are written out lane by lane, narrow planes would be nothing but those.
  const Method method = paired && p.sh == 2 && kMasksLoads<Storage> && suits_nine_taps(p) ? Method::spread
                        : !slides                                                         ? Method::none
                        : suits_nine_taps(p)                                              ? Method::nine
                        : suits_shared_rows(p, p.iw, kLanes<compute_t<Storage>>)          ? Method::shared
                                                                                          : Method::none;
  const bool spread = method == Method::spread;
  WindowPass<Storage> pass{method, p, true, p.ic, 1, p.oh, p.ow, p.ih, p.iw,
                           spread ? p.ph : p.kh - 1 - p.ph, spread ? p.pw : p.kw - 1 - p.pw,
                           p.y_stride, p.x_stride, static_cast<const Storage*>(buffers.y),
                           static_cast<Storage*>(buffers.x)};
  if (method != Method::none) cut_tasks(pass, buffers.threads);
  return pass;
}

template <class C>
void run_plane(const SharedPlane<C>& p, int64_t stride) {
  const bool rolls = stride == 1 && p.kh == 5 && p.kw == 5;
  const int64_t begin = rolls ? roll_columns<C, 5>(p) : 0;
  shared_plane(p, stride, begin);
}

template <class Storage>
class WindowPlanes {
 public:
  using C = compute_t<Storage>;

  WindowPlanes(const WindowPass<Storage>& pass, const Buffers& buffers, char* memory)
      : pass_(pass), buffers_(buffers), carver_{memory} {
    filter_ = carver_.take<C>(pass.p.kh * pass.p.kw);
  }

  void in_place(Share& share) {
    const int64_t* from = pass_.source_stride;
    const int64_t* to = pass_.dest_stride;
    const NineWalk& walk = pass_.walk;
    const int64_t read_rows = pass_.method == Method::spread ? walk.band / 2 : walk.band * pass_.p.sh;
    const NinePlane plane{pass_.source_rows, pass_.source_columns, from[2], pass_.top, pass_.left, pass_.columns,
                          to[2], from[0], to[0], walk.whole ? from[1] : read_rows * from[2],
                          walk.whole ? to[1] : walk.band * to[2]};
    for (int64_t task; share.next(&task);) {
      const Part part = part_of(task);
      for (int64_t first = part.first; first < part.last; first += walk.band) {
        const int64_t last = smaller(first + walk.band, part.last);
        if (pass_.method == Method::nine) {
          const auto run = pass_.p.sh == 1 ? nine_taps<Storage, 1> : nine_taps<Storage, 2>;
          run(plane, part.source, weights_, part.finish, part.images, first, last, part.dest);
        } else if constexpr (kMasksLoads<Storage>) {
          nine_spread<Storage>(plane, part.source, weights_, part.images, first, last, part.dest);
        }
      }
    }
  }

  void shared(Share& share) {
    const int64_t stride = pass_.stride(), kw = pass_.p.kw;
    RowStage<C> stage(carver_.take<C>(RowStage<C>::size(pass_.staged_rows(), pass_.columns, kw, stride)),
                      pass_.staged_rows(), pass_.source_columns, pass_.left, pass_.columns, kw, stride);
    const Storage* staged = nullptr;
    int64_t staged_count = 0;
    for (int64_t task; share.next(&task);) {
      const Part part = part_of(task);
      const int64_t from = clamped(part.first * stride - pass_.top, 0, pass_.source_rows);
      const int64_t to = clamped((part.last - 1) * stride - pass_.top + pass_.p.kh, from, pass_.source_rows);
      const Storage* rows = part.source + from * pass_.source_stride[2];
      if (rows != staged || to - from != staged_count) stage.fill(rows, pass_.source_stride[2], to - from);
      staged = rows;
      staged_count = to - from;
      SharedPlane<C> plane{stage.rows(), stage.pitch(), stage.odd(), to - from,
                           pass_.top + from - part.first * stride, weights_, pass_.p.kh, kw, part.finish,
                           part.last - part.first, pass_.columns, nullptr, pass_.dest_stride[2]};
      Storage* out = part.dest + part.first * pass_.dest_stride[2];
      if constexpr (std::is_same_v<Storage, C>) {
        plane.out = out;
        run_plane(plane, stride);
      } else {
        Carver rest = carver_;
        plane.out = rest.take<C>(pass_.band * pass_.columns + kLanes<C>);  // narrow_row reads whole vectors
        plane.out_pitch = pass_.columns;
        run_plane(plane, stride);
        for (int64_t r = 0; r < plane.out_rows; ++r) {
          narrow_row(plane.out + r * pass_.columns, pass_.columns, out + r * pass_.dest_stride[2]);
        }
      }
    }
  }

 private:
  struct Part {
    const Storage* source;
    Storage* dest;
    int64_t images, first, last;
    PlaneFinish<C> finish;
  };

  // Tasks are asked for one after the other, but for leaps between ranges. Reads the filter of the task's planes, too.
  Part part_of(int64_t task) {
    if (task != task_ + 1) {
      n_ = task / pass_.bands / pass_.channels * pass_.images;
      channel_ = task / pass_.bands % pass_.channels;
      band_ = task % pass_.bands;
      weights_ = nullptr;
    } else if (++band_ == pass_.bands) {
      band_ = 0;
      if (++channel_ == pass_.channels) channel_ = 0, n_ += pass_.images;
    }
    task_ = task;
    if (band_ == 0 || weights_ == nullptr) read_weights();
    const bool biased = buffers_.aux != nullptr && !pass_.flipped;
    const int64_t source_channel = pass_.per_source == 1 ? channel_ : channel_ / pass_.per_source;
    return {pass_.source + n_ * pass_.source_stride[0] + source_channel * pass_.source_stride[1],
            pass_.dest + n_ * pass_.dest_stride[0] + channel_ * pass_.dest_stride[1],
            smaller(pass_.images, pass_.p.n - n_), band_ * pass_.band, smaller((band_ + 1) * pass_.band, pass_.rows),
            {biased ? widen(static_cast<const Storage*>(buffers_.aux)[channel_]) : C{0}, pass_.p.activation}};
  }

  void read_weights() {
    const Conv2d& p = pass_.p;
    const int64_t taps = p.kh * p.kw;
    if constexpr (std::is_same_v<Storage, C>) {
      if (!pass_.flipped && p.w_stride[3] == 1 && p.w_stride[2] == p.kw) {
        weights_ = static_cast<const C*>(buffers_.w) + channel_ * p.w_stride[0];
        return;
      }
    }
    read_filter<Storage>(p, buffers_.w, channel_, filter_);
    if (pass_.flipped && pass_.method != Method::spread) std::reverse(filter_, filter_ + taps);
    weights_ = filter_;
  }

  const WindowPass<Storage>& pass_;
  const Buffers& buffers_;
  Carver carver_;
  C* filter_;
  const C* weights_ = nullptr;
  int64_t task_ = -2, n_ = 0, channel_ = 0, band_ = 0;
};

template <class Storage>
int32_t run_windows(const WindowPass<Storage>& pass, const Buffers& buffers) {
  const int64_t tasks = pass.groups * pass.channels * pass.bands;
  return for_each_share(tasks, buffers.threads, [&](int64_t slab, Share& share) {
    WindowPlanes<Storage> planes(pass, buffers, static_cast<char*>(buffers.workspace) + slab * pass.slot());
    pass.in_place() ? planes.in_place(share) : planes.shared(share);
  });
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

// The gradient of average pooling by windows that share no elements: an input element is the gradient of its window
// over the divisor, or zero where it has none. A row of the result is computed once for each row of windows; the other
// rows of those windows, and in nhwc the other pixels, are copies.
#pragma once
#include "../common/window.h"
#include "rows.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// Adaptive windows that divide the input evenly are plain ones.
inline Pool2d without_adaptive(const Pool2d& problem) {
  Pool2d p = problem;
  if (p.adaptive == 0 || p.oh == 0 || p.ow == 0 || p.ih % p.oh != 0 || p.iw % p.ow != 0) return p;
  p.kh = p.sh = p.ih / p.oh;
  p.kw = p.sw = p.iw / p.ow;
  p.ph = p.pw = 0;
  p.include_pad = p.divisor = p.adaptive = 0;
  return p;
}

inline bool suits_spread(const Pool2d& p) { return p.adaptive == 0 && p.kh <= p.sh && p.kw <= p.sw; }

// The window that holds an input position, or -1.
inline int64_t window_of(const Axis& axis, int64_t i) {
  const int64_t o = (i + axis.padding) / axis.stride;
  return o < axis.out && (i + axis.padding) % axis.stride < axis.kernel ? o : -1;
}

// A task is a band of input rows of one plane (nchw) or of all channels of an image (nhwc).
template <class Storage>
class AvgSpread {
 public:
  using C = compute_t<Storage>;
  static constexpr int64_t kL = kLanes<C>;

  static int64_t bytes(const Pool2d& p) {
    return lines_of<int64_t>(p.ih) + lines_of<int64_t>(p.iw) + 2 * lines_of<C>(p.ow + kL) + lines_of<C>(row_size(p));
  }

  AvgSpread(const Pool2d& problem, bool channels_last, void* slot)
      : p_(problem), channels_last_(channels_last), rows_(row_axis(problem)), columns_(column_axis(problem)) {
    Carver carver{static_cast<char*>(slot)};
    row_window_ = carver.take<int64_t>(p_.ih);
    window_ = carver.take<int64_t>(p_.iw);
    divisor_ = carver.take<C>(p_.ow + kL);
    value_ = carver.take<C>(p_.ow + kL);
    row_ = carver.take<C>(row_size(p_));
    for (int64_t ih = 0; ih < p_.ih; ++ih) row_window_[ih] = window_of(rows_, ih);
    for (int64_t iw = 0; iw < p_.iw; ++iw) window_[iw] = window_of(columns_, iw);
    fill_row(divisor_, p_.ow, C{1});
    for (int64_t o = 0; o < p_.ow; ++o) {
      if (p_.divisor == 0) divisor_[o] = static_cast<C>(divisor_at(columns_, p_.include_pad != 0, o));
    }
  }

  void run(const Storage* gradient, Storage* out, int64_t begin, int64_t end) {
    int64_t written = -1;
    for (int64_t ih = begin; ih < end; ++ih) {
      Storage* row = out + ih * p_.x_stride[2];
      const int64_t oh = row_window_[ih];
      if (ih > begin && oh == written) {
        // The buffer rather than the row above: loads that straddle stores still under way wait for them.
        channels_last_ || oh < 0 ? copy_row(row - p_.x_stride[2], row) : narrow_row(row_, p_.iw, row);
      } else if (oh < 0) {
        clear_row(row);
      } else {
        const C divisor = static_cast<C>(p_.divisor != 0 ? p_.divisor : divisor_at(rows_, p_.include_pad != 0, oh));
        const Storage* from = gradient + oh * p_.y_stride[2];
        channels_last_ ? write_pixels(from, divisor, row) : write_columns(from, divisor, row);
      }
      written = oh;
    }
  }

 private:
  static int64_t row_size(const Pool2d& p) { return p.iw + 2 * kL + kSlack<C>; }
  int64_t pixel() const { return channels_last_ ? p_.x_stride[3] : 1; }
  int64_t channels() const { return channels_last_ ? p_.c : 1; }
  bool dense() const { return pixel() == channels(); }

  void copy_row(const Storage* from, Storage* to) const {
    if (dense()) {
      std::memcpy(to, from, static_cast<size_t>(p_.iw * channels()) * sizeof(Storage));
    } else {
      for (int64_t iw = 0; iw < p_.iw; ++iw) copy_pixel(from + iw * pixel(), to + iw * pixel());
    }
  }
  void clear_row(Storage* to) const {
    if (dense()) {
      std::memset(to, 0, static_cast<size_t>(p_.iw * channels()) * sizeof(Storage));
    } else {
      for (int64_t iw = 0; iw < p_.iw; ++iw) clear_pixel(to + iw * pixel());
    }
  }
  void copy_pixel(const Storage* from, Storage* to) const {
    std::memcpy(to, from, static_cast<size_t>(channels()) * sizeof(Storage));
  }
  void clear_pixel(Storage* to) const { std::memset(to, 0, static_cast<size_t>(channels()) * sizeof(Storage)); }

  void write_pixels(const Storage* gradient, C row_divisor, Storage* to) const {
    for (int64_t iw = 0; iw < p_.iw; ++iw, to += pixel()) {
      const int64_t ow = window_[iw];
      if (iw > 0 && ow == window_[iw - 1]) {
        copy_pixel(to - pixel(), to);
      } else if (ow < 0) {
        clear_pixel(to);
      } else {
        const Storage* from = gradient + ow * p_.y_stride[3];
        const vec<C> divisor = broadcast<C>(row_divisor * divisor_[ow]);
        int64_t c = 0;
        for (; c + kL <= p_.c; c += kL) store(to + c, load(from + c) / divisor);
        if (c < p_.c) store_n(to + c, load_tail(from + c, p_.c - c) / divisor, p_.c - c);
      }
    }
  }

  void write_columns(const Storage* gradient, C row_divisor, Storage* to) {
    const vec<C> row = broadcast(row_divisor);
    int64_t o = 0;
    for (; o + kL <= p_.ow; o += kL) store(value_ + o, load(gradient + o) / (row * load(divisor_ + o)));
    if (o < p_.ow) store(value_ + o, load_tail(gradient + o, p_.ow - o) / (row * load(divisor_ + o)));
    p_.kw == 2 && p_.sw == 2 && p_.pw == 0 ? spread_pairs() : spread_runs();
    narrow_row(row_, p_.iw, to);
  }

  void spread_pairs() {
    for (int64_t o = 0; o < p_.ow; o += kL) {
      vec<C> a, b;
      merge_pairs<C>(load(value_ + o), load(value_ + o), a, b);
      store(row_ + 2 * o, a);
      store(row_ + 2 * o + kL, b);
    }
    fill_row(row_ + 2 * p_.ow, p_.iw - 2 * p_.ow, C{0});
  }

  // Runs are written in whole vectors, each over what the one before wrote too much.
  void spread_runs() {
    int64_t at = 0;
    for (int64_t o = 0; o < p_.ow; ++o) {
      const Window window = window_at(columns_, o);
      if (window.count <= 0) continue;
      fill_row(row_ + at, window.first - at, C{0});
      fill_row(row_ + window.first, window.count, value_[o]);
      at = window.first + window.count;
    }
    fill_row(row_ + at, p_.iw - at, C{0});
  }

  const Pool2d& p_;
  const bool channels_last_;
  const Axis rows_, columns_;
  int64_t* row_window_;
  int64_t* window_;
  C* divisor_;
  C* value_;
  C* row_;
};

// nchw planes of a single window that covers them: a run of one value.
template <class Storage>
int32_t avg_pool_fill(const Pool2d& p, const Buffers& buffers) {
  using C = compute_t<Storage>;
  constexpr int64_t kL = kLanes<C>;
  const bool padded = p.include_pad != 0;
  const int64_t size = p.ih * p.iw;
  const C divisor = static_cast<C>(
      p.divisor != 0 ? p.divisor : divisor_at(row_axis(p), padded, 0) * divisor_at(column_axis(p), padded, 0));
  return for_each_slab(p.n * p.c, buffers.threads, [&](int64_t, int64_t begin, int64_t end) {
    int64_t n = begin / p.c, c = begin % p.c;
    for (int64_t plane = begin; plane < end; ++plane) {
      const Storage* y = static_cast<const Storage*>(buffers.y) + n * p.y_stride[0] + c * p.y_stride[1];
      Storage* x = static_cast<Storage*>(buffers.x) + n * p.x_stride[0] + c * p.x_stride[1];
      const vec<C> value = broadcast(widen(*y) / divisor);
      int64_t i = 0;
      for (; i + kL <= size; i += kL) store(x + i, value);
      if (i < size) store_n(x + i, value, size - i);
      if (++c == p.c) c = 0, ++n;
    }
  });
}

template <class Storage>
int32_t avg_pool_spread(const Pool2d& p, const Buffers& buffers) {
  const bool channels_last = p.x_stride[1] == 1 && p.y_stride[1] == 1;
  const bool one_window = p.oh == 1 && p.ow == 1 && window_at(row_axis(p), 0).count == p.ih &&
                          window_at(column_axis(p), 0).count == p.iw;
  if (!channels_last && one_window && p.x_stride[2] == p.iw) return avg_pool_fill<Storage>(p, buffers);
  const int64_t planes = channels_last ? p.n : p.n * p.c, wanted = 4 * positive_threads(buffers.threads);
  const int64_t band = ceil_div(p.ih, planes >= wanted ? 1 : smaller(p.ih, ceil_div(wanted, planes)));
  const int64_t bands = ceil_div(p.ih, band), slot = AvgSpread<Storage>::bytes(p);
  return for_each_slab(planes * bands, buffers.threads, [&](int64_t slab, int64_t begin, int64_t end) {
    AvgSpread<Storage> rows(p, channels_last, static_cast<char*>(buffers.workspace) + slab * slot);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t plane = task / bands, first = task % bands * band;
      const int64_t n = channels_last ? plane : plane / p.c, c = channels_last ? 0 : plane % p.c;
      rows.run(static_cast<const Storage*>(buffers.y) + n * p.y_stride[0] + c * p.y_stride[1],
               static_cast<Storage*>(buffers.x) + n * p.x_stride[0] + c * p.x_stride[1], first,
               smaller(first + band, p.ih));
    }
  });
}

template <class Storage>
int64_t avg_pool_spread_workspace(const Pool2d& p, int64_t threads) {
  return AvgSpread<Storage>::bytes(p) * positive_threads(threads);
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

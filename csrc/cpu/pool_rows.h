// Pooling as two one-dimensional reductions: every input row is first reduced along its columns to one value per
// output column, then the rows of a window are reduced to an output row. Overlapping windows share the first step.
// Taking rows and columns in ascending order keeps torch's choice among ties (the first) and among NaNs (the last).
// Windows of nchw that share no rows take the steps the other way round: their rows are joined, then there is one row
// to reduce along its columns.
#pragma once
#include "../common/window.h"
#include "pool_reduce.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// How one call is cut up. A task is one plane (nchw) or one chunk of the channels of an image (nhwc) and a band of
// its output rows. The last `ring` reduced rows are kept, a power of two; a reduced row has
// `pixels` runs of `width` values, each run padded to whole vectors.
struct PoolPlan {
  bool channels_last;
  int64_t chunk, chunks, pixels, width, padded, ring, band, bands, tasks;
  int64_t phase_pitch, phase_count;

  int64_t row_size() const { return pixels * padded; }
};

template <class Compute>
PoolPlan pool_plan(const Pool2d& p, int64_t threads) {
  constexpr int64_t kL = kLanes<Compute>;
  PoolPlan plan;
  plan.channels_last = p.x_stride[1] == 1 && p.y_stride[1] == 1;
  const int64_t span = largest_span(row_axis(p));
  for (plan.ring = 1; plan.ring < span;) plan.ring *= 2;
  plan.chunk = plan.chunks = 1;
  plan.phase_pitch = plan.phase_count = 0;
  int64_t planes = p.n * p.c;
  if (plan.channels_last) {
    const int64_t budget = 128 * 1024 / static_cast<int64_t>(sizeof(Compute));
    const int64_t fitting = budget / (span * p.ow) / kL * kL;
    plan.chunk = smaller(larger(fitting, 4 * kL), round_up(p.c, kL));
    const int64_t shares = ceil_div(positive_threads(threads), p.n * p.oh);
    plan.chunk = smaller(plan.chunk, round_up(ceil_div(p.c, shares), kL));
    plan.chunks = ceil_div(p.c, plan.chunk);
    planes = p.n * plan.chunks;
    plan.pixels = p.ow;
    plan.width = plan.chunk;
  } else {
    plan.pixels = 1;
    plan.width = p.ow;
    if (!p.adaptive) {
      plan.phase_count = p.ow + (p.kw - 1) * p.dw / p.sw;
      plan.phase_pitch = round_up(plan.phase_count, kL);
    }
  }
  plan.padded = round_up(plan.width, kL);
  const int64_t wanted = 4 * positive_threads(threads);
  plan.bands = planes >= wanted ? 1 : smaller(p.oh, ceil_div(wanted, planes));
  plan.band = ceil_div(p.oh, plan.bands);
  plan.bands = ceil_div(p.oh, plan.band);
  plan.tasks = planes * plan.bands;
  return plan;
}

// Whether the rows of a window are joined before its columns: no other window reads them, and there are enough of them.
template <Reduce kind>
bool joins_rows_first(const Pool2d& p, const PoolPlan& plan) {
  if (kind == Reduce::max_index || plan.channels_last || p.adaptive) return false;
  return p.kh >= 3 && p.sh > (p.kh - 1) * p.dh;
}

// What a slab keeps in its slot of the workspace.
template <Reduce kind, class Storage>
class PoolRows {
 public:
  using C = compute_t<Storage>;
  using I = lane_int<C>;
  static constexpr int64_t kL = kLanes<C>;

  static int64_t bytes(const Pool2d& p, const PoolPlan& plan) {
    return lines_of<Window>(p.ow) + lines_of<C>(p.ow + kL) + lines_of<I>(p.ow + kL) + lines_of<int64_t>(p.kw) +
           lines_of<const C*>(plan.ring) + lines_of<I>(plan.ring) + lines_of<C>(plan.ring * plan.row_size()) +
           (kind == Reduce::max_index ? lines_of<I>(plan.ring * plan.row_size()) : 0) +
           lines_of<C>(padded_row_size(p, plan)) + lines_of<C>(phases_size(p, plan)) +
           lines_of<lane_mask<C>>(masks_size(p, plan)) + lines_of<C>(joined_size(p, plan));
  }

  PoolRows(const Pool2d& problem, const PoolPlan& plan, void* slot)
      : p_(problem), plan_(plan), rows_(row_axis(problem)) {
    const Axis columns = column_axis(p_);
    Carver carver{static_cast<char*>(slot)};
    columns_ = carver.take<Window>(p_.ow);
    column_divisor_ = carver.take<C>(p_.ow + kL);
    first_column_ = carver.take<I>(p_.ow + kL);
    tap_offset_ = carver.take<int64_t>(p_.kw);
    row_ = carver.take<const C*>(plan_.ring);
    row_index_ = carver.take<I>(plan_.ring);
    ring_ = carver.take<C>(plan_.ring * plan_.row_size());
    ring_index_ = kind == Reduce::max_index ? carver.take<I>(plan_.ring * plan_.row_size()) : nullptr;
    padded_row_ = carver.take<C>(padded_row_size(p_, plan_));
    phases_ = carver.take<C>(phases_size(p_, plan_));
    masks_ = carver.take<lane_mask<C>>(masks_size(p_, plan_));
    joined_ = carver.take<C>(joined_size(p_, plan_));
    if (masks_size(p_, plan_) > 0) find_masks();
    for (int64_t o = 0; o < p_.ow; ++o) {
      columns_[o] = window_at(columns, o);
      first_column_[o] = static_cast<I>(columns_[o].first);
      column_divisor_[o] = C{1};
      if constexpr (kind == Reduce::sum) {
        if (p_.divisor == 0 && columns_[o].count > 0) {
          column_divisor_[o] = static_cast<C>(divisor_at(columns, p_.include_pad != 0, o));
        }
      }
    }
    fill_row(column_divisor_ + p_.ow, 1, C{1});
    if (!p_.adaptive && !plan_.channels_last) {
      for (int64_t k = 0; k < p_.kw; ++k) {
        tap_offset_[k] = (k * p_.dw % p_.sw) * plan_.phase_pitch + k * p_.dw / p_.sw;
      }
    }
  }

  void run(const Buffers& buffers, int64_t task) {
    const int64_t plane = task / plan_.bands, band = task % plan_.bands;
    int64_t image, channel;
    if (plan_.channels_last) {
      image = plane / plan_.chunks;
      channel = plane % plan_.chunks * plan_.chunk;
      valid_ = smaller(plan_.chunk, p_.c - channel);
    } else {
      image = plane / p_.c;
      channel = plane % p_.c;
      valid_ = p_.ow;
    }
    x_ = static_cast<const Storage*>(buffers.x) + image * p_.x_stride[0] + channel * p_.x_stride[1];
    const int64_t y_offset = image * p_.y_stride[0] + channel * p_.y_stride[1];
    const int64_t end = smaller((band + 1) * plan_.band, p_.oh);
    int64_t reduced = 0;
    for (int64_t o = band * plan_.band; o < end; ++o) {
      const Window window = window_at(rows_, o);
      if (joins_rows_first<kind>(p_, plan_)) {
        join_rows(window);
        reduce_row(static_cast<const C*>(joined_), ring_, ring_index_);
        row_[0] = ring_;
      } else {
        reduced = larger(reduced, earliest_tap(rows_, o));
        const int64_t stop = window.count > 0 ? window.first + (window.count - 1) * window.step + 1 : 0;
        for (; reduced < stop; ++reduced) reduce_columns(reduced);
        for (int64_t k = 0; k < window.count; ++k) {
          const int64_t slot = (window.first + k * window.step) & (plan_.ring - 1);
          row_[k] = ring_ + slot * plan_.row_size();
          row_index_[k] = static_cast<I>(k * window.step * p_.iw);
        }
      }
      C divisor{1};
      if constexpr (kind == Reduce::sum) {
        divisor = static_cast<C>(p_.divisor != 0 ? p_.divisor : divisor_at(rows_, p_.include_pad != 0, o));
        if (window.count == 0) divisor = C{1};
      }
      const int64_t at = y_offset + o * p_.y_stride[2];
      int64_t* index = buffers.aux == nullptr ? nullptr : static_cast<int64_t*>(buffers.aux) + at;
      reduce_rows(joins_rows_first<kind>(p_, plan_) ? Window{window.first, smaller(window.count, 1), 1} : window,
                  divisor, static_cast<Storage*>(buffers.y) + at, index);
    }
  }

 private:
  static int64_t padded_row_size(const Pool2d& p, const PoolPlan& plan) {
    return plan.phase_count == 0 ? 0 : strided_row_size<C>(plan.phase_count, p.sw);
  }
  static int64_t phases_size(const Pool2d& p, const PoolPlan& plan) {
    return plan.phase_count == 0 || p.sw == 1 ? 0 : plan.phase_pitch * p.sw + kSlack<C>;
  }

  // Rows of small windows that step by one or two columns are reduced where they lie.
  static bool reads_in_place(const Pool2d& p, const PoolPlan& plan) {
    return kMasksLoads<Storage> && !plan.channels_last && !p.adaptive && p.dw == 1 && p.sw <= 2 && p.kw <= 6;
  }
  // Loads of one vector of outputs: of every tap, or of both halves of every second one.
  static int64_t loads_of(const Pool2d& p) { return p.sw == 1 ? p.kw : round_up(p.kw, 2); }
  static int64_t masks_size(const Pool2d& p, const PoolPlan& plan) {
    return reads_in_place(p, plan) ? ceil_div(p.ow, kL) * loads_of(p) : 0;
  }
  // The first output of a vector; the last vector overlaps the one before it.
  int64_t vector_start(int64_t o) const { return smaller(o, larger(p_.ow - kL, 0)); }
  int64_t load_shift(int64_t i) const { return p_.sw == 1 ? i : i / 2 * 2 + i % 2 * kL; }

  void find_masks() {
    lane_mask<C>* mask = masks_;
    for (int64_t o = 0; o < p_.ow; o += kL) {
      for (int64_t i = 0; i < loads_of(p_); ++i) {
        const int64_t column = vector_start(o) * p_.sw - p_.pw + load_shift(i);
        *mask++ = lanes_between<C>(-column, p_.iw - column);
      }
    }
  }

  static int64_t joined_size(const Pool2d& p, const PoolPlan& plan) {
    return joins_rows_first<kind>(p, plan) ? p.iw + kL : 0;
  }

  template <bool kInside, class Source>
  SC_INLINE vec<C> value_at(const Source* p, lane_mask<C> mask) const {
    if constexpr (kInside) return load(p);
    if constexpr (kind == Reduce::sum) return load_masked(p, mask);
    return select<C>(mask, load_masked(p, mask), broadcast(neutral<kind, C>()));
  }

  template <int kStride, bool kInside, class Source>
  SC_INLINE void reduce_vector(const Source* source, const lane_mask<C>* mask, ivec<C> column, int64_t o, C* out,
                               I* out_index) {
    Running<kind, C> running{broadcast(neutral<kind, C>()), ivec<C>{}};
    if constexpr (kind == Reduce::max_index) running.index = load_index<C>(first_column_ + o);
    const Source* p = source + (o * kStride - p_.pw);
    for (int64_t k = 0; k < p_.kw; k += kStride) {
      if constexpr (kStride == 1) {
        running.take(value_at<kInside>(p + k, mask[k]), column + static_cast<I>(k));
      } else {
        vec<C> even, odd;
        split_pairs<C>(value_at<kInside>(p + k, mask[k]), value_at<kInside>(p + k + kL, mask[k + 1]), even, odd);
        running.take(even, column + static_cast<I>(k));
        if (k + 1 < p_.kw) running.take(odd, column + static_cast<I>(k + 1));
      }
    }
    store(out + o, running.value);
    if constexpr (kind == Reduce::max_index) store_index<C>(out_index + o, running.index);
  }

  template <int kStride, class Source>
  void reduce_in_place(const Source* source, C* out, I* out_index) {
    const int64_t loads = loads_of(p_), reach = load_shift(loads - 1) + kL;
    const lane_mask<C>* mask = masks_;
    ivec<C> first;
    for (int i = 0; i < kL; ++i) first[i] = static_cast<I>(i * kStride - p_.pw);
    for (int64_t i = 0; i < p_.ow; i += kL, mask += loads) {
      const int64_t o = vector_start(i), column = o * kStride - p_.pw;
      const ivec<C> columns = first + static_cast<I>(o * kStride);
      if (column >= 0 && column + reach <= p_.iw) {
        reduce_vector<kStride, true>(source, mask, columns, o, out, out_index);
      } else {
        reduce_vector<kStride, false>(source, mask, columns, o, out, out_index);
      }
    }
  }

  void reduce_columns(int64_t ih) {
    const int64_t slot = (ih & (plan_.ring - 1)) * plan_.row_size();
    C* out = ring_ + slot;
    I* out_index = ring_index_ == nullptr ? nullptr : ring_index_ + slot;
    const Storage* source = x_ + ih * p_.x_stride[2];
    if (plan_.channels_last) {
      reduce_pixels(source, out, out_index);
    } else if (p_.adaptive) {
      reduce_adaptive(source, out, out_index);
    } else {
      reduce_row(source, out, out_index);
    }
  }

  void join_rows(const Window& window) {
    const Storage* first = x_ + window.first * p_.x_stride[2];
    const int64_t step = window.step * p_.x_stride[2];
    for (int64_t i = 0; i < p_.iw; i += kL) {
      const int64_t n = p_.iw - i;
      Running<kind, C> running{broadcast(neutral<kind, C>()), ivec<C>{}};
      const Storage* p = first + i;
      for (int64_t k = 0; k < window.count; ++k, p += step) {
        running.take(n >= kL ? load(p) : load_tail(p, n), ivec<C>{});
      }
      store(joined_ + i, running.value);
    }
  }

  template <class Source>
  void reduce_row(const Source* source, C* out, I* out_index) {
    if (masks_size(p_, plan_) > 0) {
      p_.sw == 1 ? reduce_in_place<1>(source, out, out_index) : reduce_in_place<2>(source, out, out_index);
    } else {
      reduce_strided(source, out, out_index);
    }
  }

  void reduce_pixels(const Storage* source, C* out, I* out_index) {
    const int64_t pixel_stride = p_.x_stride[3];
    for (int64_t o = 0; o < p_.ow; ++o, out += plan_.padded) {
      const Window window = columns_[o];
      const Storage* first = source + window.first * pixel_stride;
      const int64_t step = window.step * pixel_stride;
      for (int64_t c = 0; c < valid_; c += kL) {
        const int64_t n = valid_ - c;
        Running<kind, C> running{broadcast(neutral<kind, C>()), ivec<C>{} + static_cast<I>(window.first)};
        const Storage* p = first + c;
        if (window.count > 0) running.value = n >= kL ? load(p) : load_n(p, n);
        for (int64_t k = 1; k < window.count; ++k) {
          p += step;
          const ivec<C> at = ivec<C>{} + static_cast<I>(window.first + k * window.step);
          running.take(n >= kL ? load(p) : load_n(p, n), at);
        }
        store(out + c, running.value);
        if constexpr (kind == Reduce::max_index) store_index<C>(out_index + o * plan_.padded + c, running.index);
      }
    }
  }

  void reduce_adaptive(const Storage* source, C* out, I* out_index) {
    for (int64_t o = 0; o < p_.ow; ++o) {
      const Window window = columns_[o];
      C best = widen(source[window.first]);
      int64_t at = window.first;
      for (int64_t i = window.first + 1; i < window.first + window.count; ++i) {
        const C v = widen(source[i]);
        if constexpr (kind == Reduce::sum) {
          best += v;
        } else if (v > best || v != v) {
          best = v;
          at = i;
        }
      }
      out[o] = best;
      if constexpr (kind == Reduce::max_index) out_index[o] = static_cast<I>(at);
    }
  }

  template <class Source>
  void reduce_strided(const Source* source, C* out, I* out_index) {
    const C* phases = padded_row_;
    pad_row(source, p_.iw, p_.pw, plan_.phase_count * p_.sw, neutral<kind, C>(), padded_row_);
    if (p_.sw > 1) {
      split_row(padded_row_, p_.sw, plan_.phase_count, phases_, plan_.phase_pitch);
      phases = phases_;
    }
    ivec<C> iota;
    for (int i = 0; i < kL; ++i) iota[i] = static_cast<I>(i * p_.sw - p_.pw);
    for (int64_t o = 0; o < p_.ow; o += kL) {
      Running<kind, C> running{broadcast(neutral<kind, C>()), ivec<C>{}};
      if constexpr (kind == Reduce::max_index) running.index = load_index<C>(first_column_ + o);
      const ivec<C> column = iota + static_cast<I>(o * p_.sw);
      for (int64_t k = 0; k < p_.kw; ++k) {
        running.take(load(phases + tap_offset_[k] + o), column + static_cast<I>(k * p_.dw));
      }
      store(out + o, running.value);
      if constexpr (kind == Reduce::max_index) store_index<C>(out_index + o, running.index);
    }
  }

  void reduce_rows(const Window& window, C divisor, Storage* y, int64_t* index) {
    const int64_t index_base = window.first * p_.iw;
    for (int64_t pixel = 0; pixel < plan_.pixels; ++pixel, y += p_.y_stride[3]) {
      for (int64_t i = 0; i < valid_; i += kL) {
        const int64_t at = pixel * plan_.padded + i;
        Running<kind, C> running{broadcast(neutral<kind, C>()), ivec<C>{}};
        if (window.count > 0) {
          running.value = load(row_[0] + at);
          if constexpr (kind == Reduce::max_index) running.index = reduced_index(0, at);
        } else if constexpr (kind == Reduce::max_index) {
          running.index = plan_.channels_last ? ivec<C>{} + first_column_[pixel] : load_index<C>(first_column_ + i);
        }
        for (int64_t k = 1; k < window.count; ++k) {
          ivec<C> from{};
          if constexpr (kind == Reduce::max_index) from = reduced_index(k, at);
          running.take(load(row_[k] + at), from);
        }
        if constexpr (kind == Reduce::sum) running.value = running.value / divisors(divisor, pixel, i);
        const int64_t n = valid_ - i;
        if (n >= kL) {
          store(y + i, running.value);
        } else {
          store_n(y + i, running.value, n);
        }
        if constexpr (kind == Reduce::max_index) {
          I lanes[kL];
          store_index<C>(lanes, running.index);
          int64_t* to = index + pixel * p_.y_stride[3] + i;
          if (n >= kL) {
            for (int64_t lane = 0; lane < kL; ++lane) to[lane] = index_base + lanes[lane];
          } else {
            for (int64_t lane = 0; lane < n; ++lane) to[lane] = index_base + lanes[lane];
          }
        }
      }
    }
  }

  // Indices are kept relative to the first row of the window, so a narrow lane holds them in planes of any size.
  SC_INLINE ivec<C> reduced_index(int64_t k, int64_t at) const {
    return load_index<C>(ring_index_ + (row_[k] - ring_) + at) + row_index_[k];
  }

  SC_INLINE vec<C> divisors(C row, int64_t pixel, int64_t i) const {
    if (plan_.channels_last) return broadcast<C>(row * column_divisor_[pixel]);
    return broadcast<C>(row) * load(column_divisor_ + i);
  }

  const Pool2d& p_;
  const PoolPlan& plan_;
  const Axis rows_;
  Window* columns_;
  C* column_divisor_;
  I* first_column_;
  int64_t* tap_offset_;
  const C** row_;
  I* row_index_;
  C* ring_;
  I* ring_index_;
  C* padded_row_;
  C* phases_;
  lane_mask<C>* masks_;
  C* joined_;
  const Storage* x_ = nullptr;
  int64_t valid_ = 0;
};

template <Reduce kind, class Storage>
int32_t pool_by_rows(const Pool2d& p, const Buffers& buffers) {
  const PoolPlan plan = pool_plan<compute_t<Storage>>(p, buffers.threads);
  const int64_t slot = PoolRows<kind, Storage>::bytes(p, plan);
  return for_each_share(plan.tasks, buffers.threads, [&](int64_t slab, Share& share) {
    PoolRows<kind, Storage> rows(p, plan, static_cast<char*>(buffers.workspace) + slab * slot);
    for (int64_t task; share.next(&task);) rows.run(buffers, task);
  });
}

template <Reduce kind, class Storage>
int64_t pool_by_rows_workspace(const Pool2d& p, int64_t threads) {
  const PoolPlan plan = pool_plan<compute_t<Storage>>(p, threads);
  return PoolRows<kind, Storage>::bytes(p, plan) * positive_threads(threads);
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

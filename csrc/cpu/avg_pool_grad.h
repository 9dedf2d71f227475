// The gradient of average pooling in gather form: an input element collects, from every window that contains it, that
// window's gradient over its divisor. Rows of windows are summed first, then columns. Dilation is always 1 here.
#pragma once
#include "../common/window.h"
#include "rows.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// The outputs [first, last) whose windows contain an input position; they are consecutive.
struct Readers {
  int64_t first, last;
};

inline void find_readers(const Axis& axis, Readers* readers) {
  for (int64_t i = 0; i < axis.in; ++i) readers[i] = {0, 0};
  for (int64_t o = 0; o < axis.out; ++o) {
    const Window window = window_at(axis, o);
    for (int64_t i = window.first; i < window.first + window.count; ++i) {
      if (readers[i].last == 0) readers[i].first = o;
      readers[i].last = o + 1;
    }
  }
}

// A task is one plane (nchw) or a chunk of the channels of an image (nhwc), and a band of its input rows.
struct AvgGradPlan {
  bool channels_last;
  int64_t chunk, chunks, pixels, width, padded, ring, band, bands, tasks;
  int64_t lead, phase_first, phase_count, phase_pitch;

  int64_t row_size() const { return pixels * padded; }
};

template <class Compute>
AvgGradPlan avg_grad_plan(const Pool2d& p, int64_t threads) {
  constexpr int64_t kL = kLanes<Compute>;
  AvgGradPlan plan;
  plan.channels_last = p.x_stride[1] == 1 && p.y_stride[1] == 1;
  plan.ring = p.adaptive ? smaller(p.oh, ceil_div(p.oh, p.ih) + 1) : smaller(p.oh, (p.kh - 1) / p.sh + 1);
  plan.chunk = plan.chunks = 1;
  plan.lead = plan.phase_first = plan.phase_count = plan.phase_pitch = 0;
  int64_t planes = p.n * p.c;
  if (plan.channels_last) {
    const int64_t budget = 128 * 1024 / static_cast<int64_t>(sizeof(Compute));
    plan.chunk = smaller(larger(budget / ((plan.ring + 1) * p.ow) / kL * kL, 4 * kL), round_up(p.c, kL));
    const int64_t shares = ceil_div(positive_threads(threads), p.n * p.ih);
    plan.chunk = smaller(plan.chunk, round_up(ceil_div(p.c, shares), kL));
    plan.chunks = ceil_div(p.c, plan.chunk);
    planes = p.n * plan.chunks;
    plan.pixels = p.ow;
    plan.width = plan.chunk;
  } else {
    plan.pixels = 1;
    plan.width = p.ow;
    if (!p.adaptive) {
      plan.lead = (p.kw - 1) / p.sw;
      plan.phase_first = p.pw / p.sw;
      plan.phase_count = (p.iw + p.pw - 1) / p.sw - plan.phase_first + 1;
      plan.phase_pitch = round_up(plan.phase_count, kL);
    }
  }
  plan.padded = round_up(plan.width, kL);
  const int64_t wanted = 4 * positive_threads(threads);
  plan.bands = planes >= wanted ? 1 : smaller(p.ih, ceil_div(wanted, planes));
  plan.band = ceil_div(p.ih, plan.bands);
  plan.bands = ceil_div(p.ih, plan.band);
  plan.tasks = planes * plan.bands;
  return plan;
}

template <class Storage>
class AvgGradRows {
 public:
  using C = compute_t<Storage>;
  static constexpr int64_t kL = kLanes<C>;

  static int64_t bytes(const Pool2d& p, const AvgGradPlan& plan) {
    return lines_of<Readers>(p.ih) + lines_of<Readers>(p.iw) + lines_of<C>(p.ow + kL) +
           lines_of<const C*>(plan.ring) + lines_of<C>((plan.ring + 1) * plan.row_size()) +
           lines_of<C>(windows_size(plan)) + lines_of<C>(plan.phase_pitch * p.sw + kSlack<C>) +
           lines_of<C>(output_size(p, plan));
  }

  AvgGradRows(const Pool2d& problem, const AvgGradPlan& plan, void* slot)
      : p_(problem), plan_(plan), rows_(row_axis(problem)) {
    const Axis columns = column_axis(p_);
    Carver carver{static_cast<char*>(slot)};
    row_readers_ = carver.take<Readers>(p_.ih);
    column_readers_ = carver.take<Readers>(p_.iw);
    column_divisor_ = carver.take<C>(p_.ow + kL);
    row_ = carver.take<const C*>(plan_.ring);
    ring_ = carver.take<C>((plan_.ring + 1) * plan_.row_size());
    windows_ = carver.take<C>(windows_size(plan_));
    phases_ = carver.take<C>(plan_.phase_pitch * p_.sw + kSlack<C>);
    output_ = carver.take<C>(output_size(p_, plan_));
    find_readers(rows_, row_readers_);
    find_readers(columns, column_readers_);
    fill_row(column_divisor_, p_.ow, C{1});
    for (int64_t o = 0; o < p_.ow; ++o) {
      if (p_.divisor == 0 && window_at(columns, o).count > 0) {
        column_divisor_[o] = static_cast<C>(divisor_at(columns, p_.include_pad != 0, o));
      }
    }
  }

  void run(const Buffers& buffers, int64_t task) {
    const int64_t plane = task / plan_.bands, band = task % plan_.bands;
    const int64_t image = plan_.channels_last ? plane / plan_.chunks : plane / p_.c;
    const int64_t channel = plan_.channels_last ? plane % plan_.chunks * plan_.chunk : plane % p_.c;
    valid_ = plan_.channels_last ? smaller(plan_.chunk, p_.c - channel) : p_.ow;
    const Storage* gradient =
        static_cast<const Storage*>(buffers.y) + image * p_.y_stride[0] + channel * p_.y_stride[1];
    Storage* out = static_cast<Storage*>(buffers.x) + image * p_.x_stride[0] + channel * p_.x_stride[1];
    const int64_t end = smaller((band + 1) * plan_.band, p_.ih);
    int64_t scaled = 0;
    Readers summed{0, 0};
    const C* sums = nullptr;
    for (int64_t ih = band * plan_.band; ih < end; ++ih) {
      const Readers readers = row_readers_[ih];
      if (sums == nullptr || readers.first != summed.first || readers.last != summed.last) {
        scaled = larger(scaled, readers.first);
        for (; scaled < readers.last; ++scaled) scale_row(gradient + scaled * p_.y_stride[2], scaled);
        sums = sum_rows(readers);
        summed = readers;
        if (!plan_.channels_last) spread_columns(sums);
      }
      write_row(sums, out + ih * p_.x_stride[2]);
    }
  }

 private:
  static int64_t windows_size(const AvgGradPlan& plan) {
    return plan.phase_count == 0 ? 0 : plan.lead + plan.phase_pitch + kSlack<C>;
  }
  static int64_t output_size(const Pool2d& p, const AvgGradPlan& plan) {
    return strided_row_size<C>(plan.phase_count, p.sw) + round_up(p.iw, kL) + kSlack<C>;
  }

  C* ring_row(int64_t oh) const { return ring_ + oh % plan_.ring * plan_.row_size(); }

  void scale_row(const Storage* gradient, int64_t oh) {
    const C row = static_cast<C>(p_.divisor != 0 ? p_.divisor : divisor_at(rows_, p_.include_pad != 0, oh));
    C* out = ring_row(oh);
    const int64_t whole = valid_ / kL * kL;
    for (int64_t pixel = 0; pixel < plan_.pixels; ++pixel, out += plan_.padded, gradient += p_.y_stride[3]) {
      const auto divisor = [&](int64_t i) {
        return plan_.channels_last ? broadcast<C>(row * column_divisor_[pixel])
                                   : broadcast<C>(row) * load(column_divisor_ + i);
      };
      for (int64_t i = 0; i < whole; i += kL) store(out + i, load(gradient + i) / divisor(i));
      if (whole < valid_) store(out + whole, load_tail(gradient + whole, valid_ - whole) / divisor(whole));
    }
  }

  const C* sum_rows(const Readers& readers) {
    const int64_t size = plan_.row_size();
    C* sums = ring_ + plan_.ring * size;
    if (readers.last - readers.first == 1) return ring_row(readers.first);
    if (readers.last <= readers.first) {
      fill_row(sums, size, C{0});
      return sums;
    }
    for (int64_t oh = readers.first; oh < readers.last; ++oh) row_[oh - readers.first] = ring_row(oh);
    add_runs(size, readers.last - readers.first, [&](int64_t row) { return row_[row]; },
             [&](int64_t i, vec<C> sum) { store(sums + i, sum); });
    return sums;
  }

  // put(i, the sum of run(0)[i..], ..., run(count - 1)[i..]) for a vector at every multiple i of kLanes below n.
  template <class Run, class Put>
  SC_INLINE static void add_runs(int64_t n, int64_t count, const Run& run, const Put& put) {
    constexpr int kAtOnce = 4;
    int64_t i = 0;
    for (; i + kAtOnce * kL <= n; i += kAtOnce * kL) {
      vec<C> sum[kAtOnce];
      const C* p = run(0) + i;
      SC_UNROLL for (int v = 0; v < kAtOnce; ++v) sum[v] = load(p + v * kL);
      for (int64_t k = 1; k < count; ++k) {
        p = run(k) + i;
        SC_UNROLL for (int v = 0; v < kAtOnce; ++v) sum[v] = sum[v] + load(p + v * kL);
      }
      SC_UNROLL for (int v = 0; v < kAtOnce; ++v) put(i + v * kL, sum[v]);
    }
    for (; i < n; i += kL) {
      vec<C> sum = load(run(0) + i);
      for (int64_t k = 1; k < count; ++k) sum = sum + load(run(k) + i);
      put(i, sum);
    }
  }

  // One row of the result, in output_ from position output_lead() on.
  void spread_columns(const C* sums) {
    if (p_.ow == 1) {
      const Window window = window_at(column_axis(p_), 0);
      fill_row(output_, window.first, C{0});
      fill_row(output_ + window.first, window.count, sums[0]);
      fill_row(output_ + window.first + window.count, p_.iw - window.first - window.count, C{0});
    } else if (p_.adaptive) {
      for (int64_t iw = 0; iw < p_.iw; ++iw) {
        const Readers readers = column_readers_[iw];
        C sum{0};
        for (int64_t ow = readers.first; ow < readers.last; ++ow) sum += sums[ow];
        output_[iw] = sum;
      }
    } else {
      spread_phases(sums);
    }
  }

  int64_t output_lead() const { return p_.ow == 1 || p_.adaptive ? 0 : p_.pw % p_.sw; }

  // The sum of the windows over each column, by phase of the stride.
  void spread_phases(const C* sums) {
    const int64_t origin = plan_.lead - plan_.phase_first;
    pad_row(sums, p_.ow, origin, plan_.lead + plan_.phase_count, C{0}, windows_);
    C* phases = p_.sw == 1 ? output_ : phases_;
    for (int64_t phase = 0; phase < p_.sw; ++phase) {
      const int64_t taps = phase < p_.kw ? (p_.kw - 1 - phase) / p_.sw + 1 : 0;
      for (int64_t i = 0; i < plan_.phase_count; i += kL) {
        vec<C> sum = zero<C>();
        for (int64_t t = taps - 1; t >= 0; --t) sum = sum + load(windows_ + plan_.lead - t + i);
        store(phases + phase * plan_.phase_pitch + i, sum);
      }
    }
    if (p_.sw > 1) merge_row(phases_, plan_.phase_pitch, p_.sw, plan_.phase_count, output_);
  }

  void write_row(const C* sums, Storage* out) {
    if (plan_.channels_last) return write_pixels(sums, out);
    narrow_row(output_ + output_lead(), p_.iw, out);
  }

  void write_pixels(const C* sums, Storage* out) {
    const int64_t whole = valid_ / kL * kL, pitch = plan_.padded;
    for (int64_t iw = 0; iw < p_.iw; ++iw, out += p_.x_stride[3]) {
      const int64_t first = column_readers_[iw].first, count = column_readers_[iw].last - first;
      if (count <= 0) {
        std::memset(out, 0, static_cast<size_t>(valid_) * sizeof(Storage));
        continue;
      }
      const C* from = sums + first * pitch;
      add_runs(whole, count, [&](int64_t k) { return from + k * pitch; },
               [&](int64_t c, vec<C> sum) { store(out + c, sum); });
      if (whole == valid_) continue;
      add_runs(kL, count, [&](int64_t k) { return from + k * pitch + whole; },
               [&](int64_t, vec<C> sum) { store_n(out + whole, sum, valid_ - whole); });
    }
  }

  const Pool2d& p_;
  const AvgGradPlan& plan_;
  const Axis rows_;
  Readers* row_readers_;
  Readers* column_readers_;
  C* column_divisor_;
  const C** row_;
  C* ring_;
  C* windows_;
  C* phases_;
  C* output_;
  int64_t valid_ = 0;
};

template <class Storage>
int32_t avg_pool_grad(const Pool2d& p, const Buffers& buffers) {
  const AvgGradPlan plan = avg_grad_plan<compute_t<Storage>>(p, buffers.threads);
  const int64_t slot = AvgGradRows<Storage>::bytes(p, plan);
  return for_each_share(plan.tasks, buffers.threads, [&](int64_t slab, Share& share) {
    AvgGradRows<Storage> rows(p, plan, static_cast<char*>(buffers.workspace) + slab * slot);
    for (int64_t task; share.next(&task);) rows.run(buffers, task);
  });
}

template <class Storage>
int64_t avg_pool_grad_workspace(const Pool2d& p, int64_t threads) {
  return AvgGradRows<Storage>::bytes(p, avg_grad_plan<compute_t<Storage>>(p, threads)) * positive_threads(threads);
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

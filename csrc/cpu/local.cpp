// Convolution with a filter of its own at every output position.
//
// A weight serves one position of every image and nothing else: with few images the one read of the weights is what the
// call costs. They lie position by position, [oh, ow, oc, ic/g, kh, kw], and each pass goes through them once from front
// to back. The window of a position is gathered from every image into one row of values, zeros for the padding, which
// stays in the cache and serves all the filters of the position; so vectors run along the taps in any layout of images.
//
//   forward      an output is the inner product of its filter and the window
//   grad_weight  the gradient of a filter is the sum over the images of their windows, each times its output's gradient
//   grad_input   the gradient of a window is the sum of the filters, each times its output's gradient; it is added to the
//                image where the window stands
//
// Every sum is in one order, whatever the number of threads. 16-bit floats are summed in float and rounded once.
#include "inner_products.h"
#include "kernel.h"
#include "rows.h"

namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

// Bytes of windows that share the second-level cache with the filters of a position.
constexpr int64_t kWindowBytes = 64 << 10;
// Weights up to this stay in the second-level cache from call to call.
constexpr int64_t kCachedBytes = 512 << 10;
// Multiply-adds that are worth another thread.
constexpr int64_t kThreadWork = 32768;

template <class Storage>
class Local {
 public:
  using C = compute_t<Storage>;
  static constexpr int64_t lanes = kLanes<C>;

  explicit Local(const Conv2d& problem)
      : p_(problem),
        depth_(p_.ic / p_.g),
        filters_(p_.oc / p_.g),
        taps_(depth_ * p_.kh * p_.kw),
        pitch_(round_up(taps_, 2 * lanes)),
        grads_(round_up(filters_, kRows)),
        fetches_(places() * filters_ * taps_ * static_cast<int64_t>(sizeof(Storage)) > kCachedBytes) {}

  int64_t places() const { return p_.oh * p_.ow * p_.g; }
  int64_t threads(int64_t wanted) const {
    return clamped(p_.n * places() * filters_ * taps_ / kThreadWork, 1, positive_threads(wanted));
  }
  // Images whose windows are held at a time.
  int64_t images() const {
    return smaller(p_.n, larger(kTilePixels, kWindowBytes / (pitch_ * static_cast<int64_t>(sizeof(C)))));
  }
  int64_t bands(int64_t threads) const { return smaller(p_.ih, ceil_div(threads, p_.g)); }

  // Elements of C that a thread needs: windows, and gradients of the outputs.
  int64_t forward_memory() const { return images() * pitch_; }
  int64_t grad_weight_memory() const { return p_.n * (pitch_ + grads_); }
  int64_t grad_input_memory() const { return images() * (pitch_ + grads_); }
  // Elements in which the input's gradient is added up where its own type is too narrow.
  int64_t sums() const { return std::is_same_v<Storage, C> ? 0 : p_.n * p_.ic * p_.ih * p_.iw; }

  void forward(const Buffers& b, int64_t begin, int64_t end, C* windows) const {
    const int64_t held = images();
    for (int64_t place = begin; place < end; ++place) {
      for (int64_t first = 0; first < p_.n; first += held) {
        const int64_t count = smaller(held, p_.n - first);
        gather(b, place, first, count, windows);
        for (int64_t f = 0; f < filters_; f += kColumnFilters) {
          if (first == 0) fetch(b, place * filters_ + f + kColumnFilters, kColumnFilters);
          int64_t image = 0;
          for (; image + kTilePixels <= count; image += kTilePixels) {
            for (int64_t part = f; part < smaller(f + kColumnFilters, filters_); part += kTileFilters) {
              tile<kTileFilters, kTilePixels>(b, place, part, first + image, windows + image * pitch_);
            }
          }
          for (; image < count; ++image) {
            tile<kColumnFilters, 1>(b, place, f, first + image, windows + image * pitch_);
          }
        }
      }
    }
  }

  void grad_weight(const Buffers& b, int64_t begin, int64_t end, C* windows) const {
    C* grads = windows + p_.n * pitch_;
    for (int64_t place = begin; place < end; ++place) {
      gather(b, place, 0, p_.n, windows);
      gather_grads(b, place, 0, p_.n, grads);
      Storage* w = static_cast<Storage*>(b.w) + place * filters_ * taps_;
      for (int64_t f = 0; f < filters_; f += kRows) {
        for (int64_t k = 0; k < taps_; k += 2 * lanes) outer_products(windows + k, grads + f, w, f, k);
      }
    }
  }

  // Rows [top, bottom) of a group's channels.
  void grad_input(const Buffers& b, int64_t group, int64_t top, int64_t bottom, C* windows, C* sums) const {
    const int64_t held = images();
    C* grads = windows + held * pitch_;
    for_each_run(group, top, bottom, [&](int64_t at, int64_t length) {
      for (int64_t i = 0; i < length; ++i) sums[at + i] = C{0};
    });
    const int64_t first_row = clamped(ceil_div(top + p_.ph - (p_.kh - 1) * p_.dh, p_.sh), 0, p_.oh);
    const int64_t last_row = clamped(ceil_div(bottom + p_.ph, p_.sh), 0, p_.oh);
    for (int64_t row = first_row * p_.ow; row < last_row * p_.ow; ++row) {
      const int64_t place = row * p_.g + group;
      const Storage* w = static_cast<const Storage*>(b.w) + place * filters_ * taps_;
      for (int64_t first = 0; first < p_.n; first += held) {
        const int64_t count = smaller(held, p_.n - first);
        gather_grads(b, place, first, count, grads);
        fill_row(windows, count * pitch_, C{0});
        for (int64_t f = 0; f < filters_; f += kRows) {
          if (first == 0) fetch(b, place * filters_ + f + kRows, kRows);
          const int64_t rows = smaller(kRows, filters_ - f);
          for (int64_t image = 0; image < count; ++image) {
            if (rows == kRows) {
              add_rows<kRows>(w + f * taps_, grads + image * grads_ + f, windows + image * pitch_);
            } else {
              for (int64_t r = 0; r < rows; ++r) {
                add_rows<1>(w + (f + r) * taps_, grads + image * grads_ + f + r, windows + image * pitch_);
              }
            }
          }
        }
        for (int64_t image = 0; image < count; ++image) {
          scatter(place, first + image, top, bottom, windows + image * pitch_, sums);
        }
      }
    }
    if constexpr (!std::is_same_v<Storage, C>) {
      for_each_run(group, top, bottom, [&](int64_t at, int64_t length) {
        narrow_row(sums + at, length, static_cast<Storage*>(b.x) + at);
      });
    }
  }

 private:
  static constexpr int kRows = 4;

  int64_t group_of(int64_t place) const { return place % p_.g; }
  // The filters that come next, in the order of memory: tiles read several of them side by side, and processors follow
  // one stream from memory better than many short ones.
  void fetch(const Buffers& b, int64_t filter, int64_t count) const {
    if (!fetches_) return;
    const char* from = reinterpret_cast<const char*>(static_cast<const Storage*>(b.w) + filter * taps_);
    for (int64_t at = 0; at < count * taps_ * static_cast<int64_t>(sizeof(Storage)); at += 64) {
      __builtin_prefetch(from + at);
    }
  }

  int64_t row_of(int64_t place) const { return place / p_.g / p_.ow; }
  int64_t column_of(int64_t place) const { return place / p_.g % p_.ow; }
  Lanes rows_inside(int64_t place) const {
    return lanes_inside(row_of(place) * p_.sh - p_.ph, p_.dh, p_.ih, p_.kh);
  }
  Lanes columns_inside(int64_t place) const {
    return lanes_inside(column_of(place) * p_.sw - p_.pw, p_.dw, p_.iw, p_.kw);
  }
  // Where the window's first tap lies in its image, inside it or not.
  int64_t corner(int64_t place) const {
    return group_of(place) * depth_ * p_.x_stride[1] + (row_of(place) * p_.sh - p_.ph) * p_.x_stride[2] +
           (column_of(place) * p_.sw - p_.pw) * p_.x_stride[3];
  }

  void gather(const Buffers& b, int64_t place, int64_t first, int64_t count, C* windows) const {
    const Lanes rows = rows_inside(place), columns = columns_inside(place);
    const int64_t step = p_.dw * p_.x_stride[3];
    const bool whole = columns.last - columns.first == p_.kw && rows.last - rows.first == p_.kh;
    for (int64_t image = 0; image < count; ++image) {
      C* window = windows + image * pitch_;
      const int64_t start = whole ? taps_ / lanes * lanes : 0;
      fill_row(window + start, pitch_ - start, C{0});
      const int64_t at = (first + image) * p_.x_stride[0] + corner(place);
      for (int64_t c = 0; c < depth_; ++c) {
        for (int64_t kh = rows.first; kh < rows.last; ++kh) {
          C* to = window + (c * p_.kh + kh) * p_.kw;
          const int64_t from = at + c * p_.x_stride[1] + kh * p_.dh * p_.x_stride[2];
          for (int64_t kw = columns.first; kw < columns.last; ++kw) {
            to[kw] = widen(static_cast<const Storage*>(b.x)[from + kw * step]);
          }
        }
      }
    }
  }

  // Adds a window's gradient to the rows [top, bottom) of its image.
  void scatter(int64_t place, int64_t image, int64_t top, int64_t bottom, const C* window, C* sums) const {
    const int64_t start = row_of(place) * p_.sh - p_.ph - top;
    const Lanes rows = lanes_inside(start, p_.dh, bottom - top, p_.kh), columns = columns_inside(place);
    const int64_t at = image * p_.x_stride[0] + corner(place), step = p_.dw * p_.x_stride[3];
    for (int64_t c = 0; c < depth_; ++c) {
      for (int64_t kh = rows.first; kh < rows.last; ++kh) {
        const C* from = window + (c * p_.kh + kh) * p_.kw;
        const int64_t to = at + c * p_.x_stride[1] + kh * p_.dh * p_.x_stride[2];
        for (int64_t kw = columns.first; kw < columns.last; ++kw) sums[to + kw * step] += from[kw];
      }
    }
  }

  int64_t output_at(int64_t place, int64_t image) const {
    return image * p_.y_stride[0] + group_of(place) * filters_ * p_.y_stride[1] + row_of(place) * p_.y_stride[2] +
           column_of(place) * p_.y_stride[3];
  }

  // grads[image * grads_ + filter], zeros behind the last filter.
  void gather_grads(const Buffers& b, int64_t place, int64_t first, int64_t count, C* grads) const {
    for (int64_t image = 0; image < count; ++image) {
      const Storage* from = static_cast<const Storage*>(b.y) + output_at(place, first + image);
      C* to = grads + image * grads_;
      for (int64_t f = 0; f < filters_; ++f) to[f] = widen(from[f * p_.y_stride[1]]);
      for (int64_t f = filters_; f < grads_; ++f) to[f] = C{0};
    }
  }

  // Outputs of kFilters filters from f on for kPixels images; a tile that reaches past the last filter computes that one
  // again.
  template <int kFilters, int kPixels>
  void tile(const Buffers& b, int64_t place, int64_t f, int64_t image, const C* windows) const {
    const Storage* w = static_cast<const Storage*>(b.w) + place * filters_ * taps_;
    const Storage* rows[kFilters];
    const C* columns[kPixels];
    for (int i = 0; i < kFilters; ++i) rows[i] = w + smaller(f + i, filters_ - 1) * taps_;
    for (int i = 0; i < kPixels; ++i) columns[i] = windows + i * pitch_;
    C products[kFilters * kPixels];
    multiply(rows, columns, taps_, products);
    const int64_t count = smaller(kFilters, filters_ - f);
    const Storage* bias = static_cast<const Storage*>(b.aux);
    for (int i = 0; i < kPixels; ++i) {
      Storage* out = static_cast<Storage*>(b.y) + output_at(place, image + i) + f * p_.y_stride[1];
      for (int64_t j = 0; j < count; ++j) {
        C value = products[i * kFilters + j];
        if (bias != nullptr) value += widen(bias[place * filters_ + f + j]);
        out[j * p_.y_stride[1]] = narrow<Storage>(value);
      }
    }
  }

  // Two vectors of taps, from k on, of the gradients of kRows filters from f on.
  void outer_products(const C* windows, const C* grads, Storage* w, int64_t f, int64_t k) const {
    vec<C> sum[kRows][2] = {};
    for (int64_t image = 0; image < p_.n; ++image) {
      const vec<C> low = load(windows + image * pitch_), high = load(windows + image * pitch_ + lanes);
      SC_UNROLL for (int r = 0; r < kRows; ++r) {
        const vec<C> grad = broadcast(grads[image * grads_ + r]);
        sum[r][0] = fma(grad, low, sum[r][0]);
        sum[r][1] = fma(grad, high, sum[r][1]);
      }
    }
    // Rows that the compiler can count, for sums that are addressed by a variable lie in memory.
    SC_UNROLL for (int r = 0; r < kRows; ++r) {
      if (f + r >= filters_) break;
      Storage* row = w + (f + r) * taps_ + k;
      if (k + 2 * lanes <= taps_) {
        store(row, sum[r][0]);
        store(row + lanes, sum[r][1]);
      } else {
        store_n(row, sum[r][0], taps_ - k);
        if (k + lanes < taps_) store_n(row + lanes, sum[r][1], taps_ - k - lanes);
      }
    }
  }

  // window += the sum of kCount filters that follow each other, each times its gradient.
  template <int kCount>
  void add_rows(const Storage* w, const C* grads, C* window) const {
    vec<C> grad[kCount];
    SC_UNROLL for (int r = 0; r < kCount; ++r) grad[r] = broadcast(grads[r]);
    int64_t k = 0;
    for (; k + lanes <= taps_; k += lanes) {
      vec<C> sum = load(window + k);
      SC_UNROLL for (int r = 0; r < kCount; ++r) sum = fma(grad[r], load(w + r * taps_ + k), sum);
      store(window + k, sum);
    }
    if (k < taps_) {
      vec<C> sum = load(window + k);
      SC_UNROLL for (int r = 0; r < kCount; ++r) sum = fma(grad[r], load_n(w + r * taps_ + k, taps_ - k), sum);
      store(window + k, sum);
    }
  }

  // body(offset, length): the runs of memory that rows [top, bottom) of a group's channels are in the images.
  template <class Body>
  void for_each_run(int64_t group, int64_t top, int64_t bottom, const Body& body) const {
    const bool nhwc = p_.x_stride[1] <= p_.x_stride[3];
    for (int64_t image = 0; image < p_.n; ++image) {
      const int64_t at = image * p_.x_stride[0] + group * depth_ * p_.x_stride[1] + top * p_.x_stride[2];
      const int64_t pixels = (bottom - top) * p_.iw;
      if (!nhwc) {
        for (int64_t c = 0; c < depth_; ++c) body(at + c * p_.x_stride[1], pixels);
      } else if (p_.g == 1) {
        body(at, pixels * depth_);
      } else {
        for (int64_t pixel = 0; pixel < pixels; ++pixel) body(at + pixel * p_.x_stride[3], depth_);
      }
    }
  }

  const Conv2d& p_;
  int64_t depth_, filters_, taps_, pitch_, grads_;
  bool fetches_;
};

template <class Storage>
int64_t slot_bytes(int64_t elements) {
  return lines_of<compute_t<Storage>>(elements);
}

template <class Storage>
int64_t conv2d_workspace(const void* problem, int64_t threads) {
  const Local<Storage> local(*static_cast<const Conv2d*>(problem));
  return smaller(local.threads(threads), local.places()) * slot_bytes<Storage>(local.forward_memory());
}

template <class Storage>
int32_t conv2d(const void* problem, const Buffers& buffers) {
  using C = compute_t<Storage>;
  const Local<Storage> local(*static_cast<const Conv2d*>(problem));
  const int64_t bytes = slot_bytes<Storage>(local.forward_memory());
  return for_each_slab(local.places(), local.threads(buffers.threads), [&](int64_t slab, int64_t begin, int64_t end) {
    local.forward(buffers, begin, end, reinterpret_cast<C*>(static_cast<char*>(buffers.workspace) + slab * bytes));
  });
}

template <class Storage>
int64_t grad_weight_workspace(const void* problem, int64_t threads) {
  const Local<Storage> local(*static_cast<const Conv2d*>(problem));
  return smaller(local.threads(threads), local.places()) * slot_bytes<Storage>(local.grad_weight_memory());
}

template <class Storage>
int32_t grad_weight(const void* problem, const Buffers& buffers) {
  using C = compute_t<Storage>;
  const Local<Storage> local(*static_cast<const Conv2d*>(problem));
  const int64_t bytes = slot_bytes<Storage>(local.grad_weight_memory());
  return for_each_slab(local.places(), local.threads(buffers.threads), [&](int64_t slab, int64_t begin, int64_t end) {
    local.grad_weight(buffers, begin, end, reinterpret_cast<C*>(static_cast<char*>(buffers.workspace) + slab * bytes));
  });
}

template <class Storage>
int64_t grad_input_workspace(const void* problem, int64_t threads) {
  const Conv2d& p = *static_cast<const Conv2d*>(problem);
  const Local<Storage> local(p);
  const int64_t used = local.threads(threads), slabs = smaller(used, p.g * local.bands(used));
  return slabs * slot_bytes<Storage>(local.grad_input_memory()) + slot_bytes<Storage>(local.sums());
}

template <class Storage>
int32_t grad_input(const void* problem, const Buffers& buffers) {
  using C = compute_t<Storage>;
  const Conv2d& p = *static_cast<const Conv2d*>(problem);
  const Local<Storage> local(p);
  const int64_t threads = local.threads(buffers.threads), bands = local.bands(threads);
  const int64_t bytes = slot_bytes<Storage>(local.grad_input_memory());
  char* slots = static_cast<char*>(buffers.workspace) + slot_bytes<Storage>(local.sums());
  C* sums = static_cast<C*>(local.sums() > 0 ? buffers.workspace : buffers.x);
  return for_each_slab(p.g * bands, threads, [&](int64_t slab, int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t band = task % bands;
      local.grad_input(buffers, task / bands, p.ih * band / bands, p.ih * (band + 1) / bands,
                       reinterpret_cast<C*>(slots + slab * bytes), sums);
    }
  });
}

template <class Storage, DType dtype>
constexpr KernelEntry kForward = {"local_conv2d", "local", dtype, conv2d<Storage>, conv2d_workspace<Storage>,
                                  nullptr,        nullptr};
template <class Storage, DType dtype>
constexpr KernelEntry kGradInput = {
    "local_conv2d_grad_input", "local", dtype, grad_input<Storage>, grad_input_workspace<Storage>, nullptr, nullptr};
template <class Storage, DType dtype>
constexpr KernelEntry kGradWeight = {
    "local_conv2d_grad_weight", "local", dtype, grad_weight<Storage>, grad_weight_workspace<Storage>, nullptr, nullptr};

constexpr KernelEntry kEntries[] = {
    kForward<float, DType::f32>,     kForward<double, DType::f64>,    kForward<bf16, DType::bf16>,
    kForward<f16, DType::f16>,       kGradInput<float, DType::f32>,   kGradInput<double, DType::f64>,
    kGradInput<bf16, DType::bf16>,   kGradInput<f16, DType::f16>,     kGradWeight<float, DType::f32>,
    kGradWeight<double, DType::f64>, kGradWeight<bf16, DType::bf16>,  kGradWeight<f16, DType::f16>,
};

}  // namespace

extern const KernelTable local_table;
const KernelTable local_table = {kEntries, sizeof kEntries / sizeof kEntries[0]};

}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

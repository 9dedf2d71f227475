// Runs problems that it reads, one a line, through the emulated kernels and compares with plain loops in double:
//   op kernel dtype multiprocessors aux words...
// where the words are those of a Conv2d or Pool2d and aux is 1 for a bias or for indices. Operands are small integers, so
// sums are exact and results equal bit by bit, averages excepted. Every tensor is an allocation of its own, of just its
// size, so that a sanitizer sees the first byte beside it.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <sstream>

#include "cuda/number.h"
#include "cuda/tables.h"
#include "plain.h"

using namespace spatialconv;
using cuda::Entry;
using plain::Values;

namespace {

const Entry* find(const std::string& op, const std::string& kernel, const std::string& dtype) {
  const char* names[] = {"f32", "f64", "bf16", "f16"};
  for (int64_t t = 0; t < cuda::table_count; ++t)
    for (int64_t k = 0; k < cuda::tables[t]->count; ++k) {
      const Entry& entry = cuda::tables[t]->entries[k];
      if (op == entry.op && kernel == entry.name && dtype == names[static_cast<int>(entry.dtype)]) return &entry;
    }
  return nullptr;
}

// Uninitialised memory of exactly the size, poisoned with NaN.
class Memory {
 public:
  explicit Memory(int64_t bytes) : bytes_(bytes) {
    if (posix_memalign(&data_, 64, static_cast<size_t>(std::max<int64_t>(bytes, 1))) != 0) std::abort();
    std::memset(data_, 0xFF, static_cast<size_t>(bytes));
  }
  ~Memory() { std::free(data_); }
  Memory(const Memory&) = delete;

  void* data() { return bytes_ == 0 ? nullptr : data_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_;
};

struct Random {
  uint64_t state = 1;
  double next() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<double>(static_cast<int64_t>(state >> 33) % 7 - 3);
  }
  Values values(int64_t count) {
    Values made(static_cast<size_t>(count));
    for (double& value : made) value = next();
    return made;
  }
};

template <class T>
T stored(double value) {
  return cuda::from_compute<T>(static_cast<cuda::compute_t<T>>(value));
}

template <class T>
void write(Memory& memory, const Values& values) {
  for (size_t i = 0; i < values.size(); ++i) static_cast<T*>(memory.data())[i] = stored<T>(values[i]);
}

template <class T>
bool equal(Memory& memory, const Values& expected, double tolerance) {
  for (size_t i = 0; i < expected.size(); ++i) {
    const double got = static_cast<double>(cuda::to_compute(static_cast<T*>(memory.data())[i]));
    const double right = static_cast<double>(cuda::to_compute(stored<T>(expected[i])));
    const bool same = got == right || (got != got && right != right);
    if (!same && !(std::abs(got - right) <= tolerance * std::max(1.0, std::abs(right)))) {
      std::printf("element %zu: %g, expected %g\n", i, got, right);
      return false;
    }
  }
  return true;
}

struct Line {
  std::string op, kernel, dtype, text;
  int64_t multiprocessors, aux;
};

int32_t launched(const Line& line, const void* problem, void* x, void* w, void* y, void* aux) {
  const Entry* entry = find(line.op, line.kernel, line.dtype);
  if (entry == nullptr) return -1;
  const int64_t bytes = entry->workspace == nullptr ? 0 : entry->workspace(problem, line.multiprocessors);
  if (bytes < 0) return -2;
  Memory workspace(bytes);
  return entry->launch(problem, Buffers{x, w, y, aux, workspace.data(), line.multiprocessors, 0}, nullptr);
}

template <class T>
bool run_conv(const Line& line, const Conv2d& p, Random& random) {
  const Values x = random.values(p.n * p.ic * p.ih * p.iw), w = random.values(p.oc * (p.ic / p.g) * p.kh * p.kw);
  const Values y = random.values(p.n * p.oc * p.oh * p.ow), bias = random.values(line.aux ? p.oc : 0);
  const Values expected = plain::convolution(line.op, p, x, w, y, bias);
  const int64_t size = sizeof(T);
  Memory xs(size * x.size()), ws(size * w.size()), ys(size * y.size()), biases(size * bias.size());
  Memory& result = line.op == "conv2d" ? ys : line.op == "conv2d_grad_input" ? xs : ws;
  if (&result != &xs) write<T>(xs, x);
  if (&result != &ws) write<T>(ws, w);
  if (&result != &ys) write<T>(ys, y);
  write<T>(biases, bias);
  const int32_t code = launched(line, &p, xs.data(), ws.data(), ys.data(), biases.data());
  if (code != 0) std::printf("error %d\n", code);
  return code == 0 && equal<T>(result, expected, 0.0);
}

template <class T>
bool run_pool(const Line& line, const Pool2d& p, Random& random) {
  const Values x = random.values(p.n * p.c * p.ih * p.iw), y = random.values(p.n * p.c * p.oh * p.ow);
  const Values chosen = random.values(static_cast<int64_t>(x.size()));
  const bool forward = line.op == "max_pool2d", indexed = line.op.rfind("max_pool2d_", 0) == 0;
  const Values& among = forward ? x : chosen;
  const Values expected = plain::pooling(line.op, p, among, x, y);
  const std::vector<int64_t> places = plain::maxima(p, among, y.size());
  const int64_t size = sizeof(T), width = p.offsets ? 1 : 8;
  const bool to_input = line.op == "max_pool2d_scatter" || line.op == "avg_pool2d_grad_input";
  Memory xs(size * x.size()), ys(size * y.size()), aux((indexed || line.aux) ? width * y.size() : 0);
  if (to_input) write<T>(ys, y);
  if (!to_input) write<T>(xs, x);
  for (size_t i = 0; indexed && i < places.size(); ++i) {
    // A window that holds nothing stands for nothing; its index may be any of the plane.
    if (p.offsets) static_cast<uint8_t*>(aux.data())[i] = static_cast<uint8_t>(std::max<int64_t>(places[i], 0));
    if (!p.offsets) static_cast<int64_t*>(aux.data())[i] = std::max<int64_t>(places[i], 0);
  }
  const int32_t code = launched(line, &p, xs.data(), nullptr, ys.data(), aux.data());
  if (code != 0) std::printf("error %d\n", code);
  if (code != 0) return false;
  for (size_t i = 0; forward && line.aux && i < places.size(); ++i) {
    const int64_t got = p.offsets ? static_cast<uint8_t*>(aux.data())[i] : static_cast<int64_t*>(aux.data())[i];
    if (places[i] >= 0 && got != places[i]) {
      std::printf("maximum %zu stands at %lld, expected %lld\n", i, static_cast<long long>(got),
                  static_cast<long long>(places[i]));
      return false;
    }
  }
  const double epsilon = line.dtype == "f64" ? 1e-13 : line.dtype == "f32" ? 1e-5 : line.dtype == "f16" ? 2e-3 : 1.6e-2;
  return equal<T>(to_input ? xs : ys, expected, line.op.rfind("avg", 0) == 0 ? epsilon : 0.0);
}

template <class T>
bool run_line(const Line& line, const std::vector<int64_t>& words, Random& random) {
  if (line.op.rfind("conv", 0) == 0) {
    Conv2d p;
    std::memcpy(&p, words.data(), sizeof p);
    return run_conv<T>(line, p, random);
  }
  Pool2d p;
  std::memcpy(&p, words.data(), sizeof p);
  return run_pool<T>(line, p, random);
}

bool run_text(const std::string& text, Random& random) {
  std::istringstream reader(text);
  Line line;
  line.text = text;
  reader >> line.op >> line.kernel >> line.dtype >> line.multiprocessors >> line.aux;
  std::vector<int64_t> words;
  for (int64_t word; reader >> word;) words.push_back(word);
  const size_t bytes = line.op.rfind("conv", 0) == 0 ? sizeof(Conv2d) : sizeof(Pool2d);
  if (words.size() * sizeof(int64_t) != bytes) {
    std::printf("expected %zu words\n", bytes / sizeof(int64_t));
    return false;
  }
  if (line.dtype == "f32") return run_line<float>(line, words, random);
  if (line.dtype == "f64") return run_line<double>(line, words, random);
  if (line.dtype == "bf16") return run_line<cuda::bf16>(line, words, random);
  return run_line<cuda::f16>(line, words, random);
}

}  // namespace

int main() {
  Random random;
  int ran = 0, wrong = 0;
  for (std::string text; std::getline(std::cin, text); ++ran)
    if (!run_text(text, random)) {
      std::printf("WRONG %s\n", text.c_str());
      ++wrong;
    }
  std::printf("%d ran, %d wrong\n", ran, wrong);
  return wrong == 0 ? 0 : 1;
}

// Runs CPU kernels on problems that it reads, one a line:
//   op kernel dtype threads roles bytes[4] words...
// where the words are those of a Conv2d or Pool2d; x, w, y and aux each have a size in bytes and a role: 'r' read from
// the file of operands (argv[1]), 'w' written and appended to the file of results (argv[2]), '-' not there. Every tensor
// is an allocation of its own, of just its size, so that a sanitizer sees the first byte beside it; what is not an operand
// is poisoned.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "common/parallel.h"
#include "common/problem.h"
#include "cpu/dispatch.h"

namespace spatialconv {

std::atomic<ParallelFor> g_parallel_for{nullptr};

namespace SPATIALCONV_ISA {
extern const IsaLevel isa_level;
}

}  // namespace spatialconv

using namespace spatialconv;

namespace {

int64_t g_threads = 1;

// torch_parallel_for's contract on threads of its own: as many shares as there are threads, none below the grain.
int32_t threaded_for(int64_t begin, int64_t end, int64_t grain, ParallelBody body, void* context) {
  const int64_t count = end - begin;
  const int64_t shares = std::max<int64_t>(std::min(g_threads, count / std::max<int64_t>(grain, 1)), 1);
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < shares; ++i)
    threads.emplace_back(body, begin + count * i / shares, begin + count * (i + 1) / shares, context);
  for (std::thread& thread : threads) thread.join();
  return 0;
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

  void* data() { return data_; }
  char* bytes() { return static_cast<char*>(data_); }
  int64_t size() const { return bytes_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_;
};

struct Line {
  std::string op, kernel, dtype, roles;
  int64_t threads;
  int64_t bytes[4];
  std::vector<int64_t> words;
};

Line parsed(const std::string& text) {
  std::istringstream reader(text);
  Line line;
  reader >> line.op >> line.kernel >> line.dtype >> line.threads >> line.roles;
  for (int64_t& bytes : line.bytes) reader >> bytes;
  for (int64_t word; reader >> word;) line.words.push_back(word);
  return line;
}

const KernelEntry* find(const Line& line) {
  const char* names[] = {"f32", "f64", "bf16", "f16"};
  const IsaLevel& level = SPATIALCONV_ISA::isa_level;
  for (int64_t t = 0; t < level.count; ++t)
    for (int64_t k = 0; k < level.tables[t]->count; ++k) {
      const KernelEntry& entry = level.tables[t]->entries[k];
      if (line.op == entry.op && line.kernel == entry.name && line.dtype == names[static_cast<int>(entry.dtype)])
        return &entry;
    }
  return nullptr;
}

using Tensors = std::vector<std::unique_ptr<Memory>>;

void* address(const Tensors& tensors, int index) {
  return tensors[static_cast<size_t>(index)] == nullptr ? nullptr : tensors[static_cast<size_t>(index)]->data();
}

int32_t call(const KernelEntry& entry, const Line& line, const Tensors& tensors, void* w, int64_t packed) {
  const void* problem = line.words.data();
  Memory workspace(entry.workspace == nullptr ? 0 : entry.workspace(problem, line.threads));
  return entry.run(problem, Buffers{address(tensors, 0), w, address(tensors, 2), address(tensors, 3),
                                    workspace.size() == 0 ? nullptr : workspace.data(), line.threads, packed});
}

// Once more from a packed weight, where the kernel has such a form: bit by bit the same.
bool same_when_packed(const KernelEntry& entry, const Line& line, const Tensors& tensors, const Memory& expected) {
  const int64_t bytes = entry.packed_bytes == nullptr ? 0 : entry.packed_bytes(line.words.data());
  if (bytes == 0) return true;
  Memory packed(bytes), before(expected.size());
  Memory& y = *tensors[2];
  std::swap_ranges(y.bytes(), y.bytes() + y.size(), before.bytes());
  if (entry.pack(line.words.data(), Buffers{nullptr, address(tensors, 1), nullptr, nullptr, packed.data(), line.threads, 0}))
    return false;
  return call(entry, line, tensors, packed.data(), 1) == 0 &&
         std::memcmp(y.data(), before.data(), static_cast<size_t>(y.size())) == 0;
}

bool run(const Line& line, std::istream& operands, std::ostream& results) {
  const KernelEntry* entry = find(line);
  if (entry == nullptr || line.roles.size() != 4) return false;
  Tensors tensors;
  for (int i = 0; i < 4; ++i) {
    const int64_t bytes = line.bytes[i];
    tensors.push_back(line.roles[static_cast<size_t>(i)] == '-' ? nullptr : std::make_unique<Memory>(bytes));
    if (line.roles[static_cast<size_t>(i)] == 'r') operands.read(tensors.back()->bytes(), bytes);
  }
  g_threads = line.threads;
  g_parallel_for = line.threads > 1 ? threaded_for : nullptr;
  bool right = operands.good() && call(*entry, line, tensors, address(tensors, 1), 0) == 0;
  if (right && line.op == "conv2d") right = same_when_packed(*entry, line, tensors, *tensors[2]);
  for (int i = 0; i < 4; ++i)
    if (line.roles[static_cast<size_t>(i)] == 'w') {
      Memory& written = *tensors[static_cast<size_t>(i)];
      results.write(written.bytes(), written.size());
    }
  return right;
}

}  // namespace

int main(int, char** arguments) {
  std::ifstream operands(arguments[1], std::ios::binary);
  std::ofstream results(arguments[2], std::ios::binary);
  int ran = 0, wrong = 0;
  for (std::string text; std::getline(std::cin, text); ++ran) {
    // A sanitizer ends the program inside a kernel: the last line read is the one that it speaks of.
    std::fprintf(stderr, "%s\n", text.c_str());
    if (!run(parsed(text), operands, results)) {
      std::printf("WRONG %s\n", text.c_str());
      ++wrong;
    }
  }
  std::printf("%d ran, %d wrong\n", ran, wrong);
  return wrong == 0 ? 0 : 1;
}

// Shares of lists of tasks, on threads of its own: every task is done once; and a thread that is held up in its first
// task until all others are done, which only ends if others take what it has left.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "common/shares.h"

namespace spatialconv {
std::atomic<ParallelFor> g_parallel_for{nullptr};
}

using namespace spatialconv;
using namespace spatialconv::SPATIALCONV_ISA;

namespace {

int32_t threaded_for(int64_t begin, int64_t end, int64_t, ParallelBody body, void* context) {
  std::vector<std::thread> threads;
  for (int64_t i = begin; i < end; ++i) threads.emplace_back(body, i, i + 1, context);
  for (std::thread& thread : threads) thread.join();
  return 0;
}

void fail(const char* what, int64_t tasks, int64_t threads) {
  std::printf("%s: %lld tasks, %lld threads\n", what, static_cast<long long>(tasks), static_cast<long long>(threads));
  std::exit(1);
}

// `held`: the thread that is held up, or -1.
void run(int64_t tasks, int64_t threads, int64_t held, bool one_by_one) {
  const std::unique_ptr<std::atomic<int>[]> done(new std::atomic<int>[tasks + 1]());
  std::atomic<int64_t> count{0};
  const auto finish = [&](int64_t task) {
    if (task < 0 || task >= tasks) fail("a task that there is not", tasks, threads);
    ++done[task];
    ++count;
  };
  for_each_share(tasks, threads, [&](int64_t slab, Share& share) {
    if (one_by_one) {
      for (int64_t task; share.next(&task);) finish(task);
      return;
    }
    for (int64_t begin, end; share.take(&begin, &end);) {
      if (begin >= end) fail("an empty range", tasks, threads);
      if (slab == held) {
        while (count.load() < tasks - (end - begin)) std::this_thread::yield();
      }
      for (int64_t task = begin; task < end; ++task) finish(task);
    }
  });
  for (int64_t task = 0; task < tasks; ++task) {
    if (done[task] != 1) fail("a task done not once", tasks, threads);
  }
}

}  // namespace

int main() {
  for (int64_t tasks : {0, 1, 2, 3, 7, 64, 1000, 4099}) {
    for (int64_t threads : {1, 2, 3, 8, 200}) {
      for (const bool pool : {false, true}) {
        g_parallel_for = pool ? threaded_for : nullptr;
        run(tasks, threads, -1, true);
        run(tasks, threads, pool ? 0 : -1, false);
        run(tasks, threads, pool ? threads - 1 : -1, false);
      }
    }
  }
  // More tasks than a word has units for: nothing is done with them but counting.
  g_parallel_for = threaded_for;
  for (const int64_t tasks : {(int64_t{1} << 31) + 5, (int64_t{1} << 40) + 123}) {
    std::atomic<int64_t> sum{0}, ranges{0};
    for_each_share(tasks, 3, [&](int64_t, Share& share) {
      for (int64_t begin, end; share.take(&begin, &end); ++ranges) sum += end - begin;
    });
    if (sum != tasks || ranges > 1000) fail("the sum of the ranges", tasks, 3);
  }
  std::puts("ok");
  return 0;
}

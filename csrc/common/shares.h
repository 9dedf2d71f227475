// A list of tasks shared out among threads: each begins with a contiguous part of it, so that it meets again the memory
// that it met in the kernel before; who has done its own takes half of what another has left. Work stealing: Blumofe
// and Leiserson, "Scheduling Multithreaded Computations by Work Stealing", 1999. A core that others keep busy, or one
// whose part is the longer, then does less and holds nobody up.
#pragma once
#include <atomic>
#include <cstdint>

#include "geometry.h"
#include "parallel.h"

// Internal linkage: a level's code stays in its own translation unit.
namespace spatialconv {
namespace SPATIALCONV_ISA {
namespace {

class Shares;

// What one thread does of the list.
class Share {
 public:
  Share(Shares& shares, int64_t index) : shares_(shares), index_(index) {}

  // Whether something was left to do; if so, the range of it. Half of what is the thread's own at a time: the other
  // half can be taken by others meanwhile.
  bool take(int64_t* begin, int64_t* end);

  // The same, one task at a time.
  bool next(int64_t* task) {
    if (at_ == end_ && !take(&at_, &end_)) return false;
    *task = at_++;
    return true;
  }

 private:
  Shares& shares_;
  const int64_t index_;
  int64_t at_ = 0, end_ = 0;
};

class Shares {
 public:
  static constexpr int64_t kMost = 128;  // threads

  Shares(int64_t tasks, int64_t threads) : tasks_(tasks), count_(threads), unit_(ceil_div(tasks, int64_t{1} << 31)) {
    const int64_t units = ceil_div(tasks, larger(unit_, 1));
    for (int64_t i = 0; i < count_; ++i) {
      left_[i].range.store(joined(units * i / count_, units * (i + 1) / count_), std::memory_order_relaxed);
    }
  }

 private:
  friend class Share;

  // Of one thread, alone in its cache line: the units that nobody has begun, as begin and end in one word.
  struct alignas(64) Left {
    std::atomic<uint64_t> range;
  };

  static uint64_t joined(uint64_t begin, uint64_t end) { return begin << 32 | end; }
  static int64_t begin_of(uint64_t range) { return static_cast<int64_t>(range >> 32); }
  static int64_t end_of(uint64_t range) { return static_cast<int64_t>(range & 0xffffffffu); }
  static int64_t size_of(uint64_t range) { return end_of(range) - begin_of(range); }

  // The order of memory is the pool's affair: nobody reads what another thread's task wrote before all have come back.
  bool exchanged(int64_t of, uint64_t& seen, uint64_t now) {
    return left_[of].range.compare_exchange_weak(seen, now, std::memory_order_relaxed);
  }

  // Half of a thread's own share, at its front; all of it where nobody else is.
  uint64_t own(int64_t index) {
    uint64_t seen = left_[index].range.load(std::memory_order_relaxed);
    while (size_of(seen) > 0) {
      const int64_t begin = begin_of(seen), middle = count_ == 1 ? end_of(seen) : begin + (size_of(seen) + 1) / 2;
      if (exchanged(index, seen, joined(middle, end_of(seen)))) return joined(begin, middle);
    }
    return 0;
  }

  // Half of the largest share, at its back: becomes the thread's own, which is empty, so that nobody else writes it.
  bool steal(int64_t index) {
#ifdef SPATIALCONV_FIXED_SHARES
    // For a race detector, which sees only what two threads really do: on a small list one would do all.
    return false;
#endif
    for (;;) {
      int64_t from = -1;
      uint64_t most = 0;
      for (int64_t i = 0; i < count_; ++i) {
        const uint64_t range = left_[i].range.load(std::memory_order_relaxed);
        if (size_of(range) > size_of(most)) from = i, most = range;
      }
      if (from < 0) return false;
      const int64_t middle = begin_of(most) + size_of(most) / 2;
      if (exchanged(from, most, joined(begin_of(most), middle))) {
        left_[index].range.store(joined(middle, end_of(most)), std::memory_order_relaxed);
        return true;
      }
    }
  }

  const int64_t tasks_, count_, unit_;
  Left left_[kMost];
};

inline bool Share::take(int64_t* begin, int64_t* end) {
  uint64_t range = shares_.own(index_);
  while (range == 0) {
    if (!shares_.steal(index_)) return false;
    range = shares_.own(index_);
  }
  *begin = Shares::begin_of(range) * shares_.unit_;
  *end = smaller(Shares::end_of(range) * shares_.unit_, shares_.tasks_);
  return true;
}

// body(slab, share), at most once for each slab below `threads`; together they take all of the tasks.
template <class Body>
int32_t for_each_share(int64_t tasks, int64_t threads, const Body& body) {
  if (tasks <= 0) return 0;
  const int64_t slabs = clamped(threads, 1, smaller(tasks, Shares::kMost));
  Shares shares(tasks, slabs);
  return parallel_for(slabs, 1, [&](int64_t begin, int64_t end) {
    for (int64_t slab = begin; slab < end; ++slab) {
      Share share(shares, slab);
      body(slab, share);
    }
  });
}

}  // namespace
}  // namespace SPATIALCONV_ISA
}  // namespace spatialconv

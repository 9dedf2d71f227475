// Threads of a CUDA block as fibers: stacks of their own, taken in turn on one thread of the operating system. A switch
// takes nanoseconds, so a block of hundreds of threads with barriers in its inner loop can be run, and always in the same
// order. AddressSanitizer and ThreadSanitizer are told of every switch; to ThreadSanitizer each fiber is a thread of
// its own that is ordered with the others only by `order_after` and `order_before`, so data races show without chance.
#pragma once
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define EMULATOR_UNWATCHED __attribute__((noinline, no_sanitize("thread")))
#else
#define EMULATOR_UNWATCHED
#endif

namespace emulator {

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "CUDA emulator: %s\n", what);
  std::abort();
}

// What was done before `order_before(place)` is seen by whoever calls `order_after(place)` later.
EMULATOR_UNWATCHED inline void order_before(void* place) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(place);
#else
  (void)place;
#endif
}

EMULATOR_UNWATCHED inline void order_after(void* place) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(place);
#else
  (void)place;
#endif
}

#if defined(__x86_64__)
// Saves the callee-saved registers on the old stack, whose top goes to *from, and takes those of the new one.
__attribute__((naked, noinline, no_sanitize("thread"), no_sanitize("address"))) inline void switch_stack(void**,
                                                                                                         void*) {
  asm volatile(
      "pushq %rbp\n\tpushq %rbx\n\tpushq %r12\n\tpushq %r13\n\tpushq %r14\n\tpushq %r15\n\t"
      "movq %rsp, (%rdi)\n\tmovq %rsi, %rsp\n\t"
      "popq %r15\n\tpopq %r14\n\tpopq %r13\n\tpopq %r12\n\tpopq %rbx\n\tpopq %rbp\n\tret");
}
#endif

class Fiber {
 public:
  static constexpr size_t stack_bytes = 256 * 1024;

  // The fiber that the calling thread already is: it has its stack.
  Fiber() {
#if defined(__SANITIZE_THREAD__)
    tsan_ = __tsan_get_current_fiber();
#endif
  }

  // A fiber with a stack below which lies a page that traps.
  explicit Fiber(void (*entry)()) : entry_(entry) {
    const size_t page = 4096;
    void* base = mmap(nullptr, stack_bytes + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) fail("no memory for the stacks of a block");
    stack_ = static_cast<char*>(base) + page;
    if (mprotect(stack_, stack_bytes, PROT_READ | PROT_WRITE) != 0) fail("no memory for the stacks of a block");
#if defined(__SANITIZE_THREAD__)
    tsan_ = __tsan_create_fiber(0);
#endif
  }

  Fiber(const Fiber&) = delete;

  ~Fiber() {
    if (stack_ == nullptr) return;
    munmap(stack_ - 4096, stack_bytes + 4096);
#if defined(__SANITIZE_THREAD__)
    __tsan_destroy_fiber(tsan_);
#endif
  }

  // Makes the next switch to this fiber enter its function from the start.
  void rewind() {
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(stack_, stack_bytes);
#endif
#if defined(__x86_64__)
    void** top = reinterpret_cast<void**>(stack_ + stack_bytes) - 1;  // 16-byte alignment as a call leaves it
    *top = nullptr;
    *--top = reinterpret_cast<void*>(entry_);
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    top_ = top;
#else
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_;
    context_.uc_stack.ss_size = stack_bytes;
    context_.uc_link = nullptr;
    makecontext(&context_, entry_, 0);
#endif
  }

  // Leaves this fiber, which must be the running one, for another. A `last` leave gives the stack up.
  EMULATOR_UNWATCHED void leave_for(Fiber& next, bool last = false) {
#if defined(__SANITIZE_ADDRESS__)
    next.previous_ = this;
    __sanitizer_start_switch_fiber(last ? nullptr : &fake_stack_, next.stack_base(), next.stack_size());
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(next.tsan_, __tsan_switch_to_fiber_no_sync);
#endif
    (void)last;
#if defined(__x86_64__)
    switch_stack(&top_, next.top_);
#else
    swapcontext(&context_, &next.context_);
#endif
    arrived();
  }

  // First thing on a stack that was just entered.
  EMULATOR_UNWATCHED void arrived() {
#if defined(__SANITIZE_ADDRESS__)
    const void* base;
    size_t size;
    __sanitizer_finish_switch_fiber(fake_stack_, &base, &size);
    fake_stack_ = nullptr;
    if (previous_ != nullptr && previous_->stack_ == nullptr) {
      previous_->host_base_ = base;
      previous_->host_size_ = size;
    }
#endif
  }

 private:
#if defined(__SANITIZE_ADDRESS__)
  const void* stack_base() const { return stack_ == nullptr ? host_base_ : stack_; }
  size_t stack_size() const { return stack_ == nullptr ? host_size_ : stack_bytes; }
  void* fake_stack_ = nullptr;
  Fiber* previous_ = nullptr;
  const void* host_base_ = nullptr;
  size_t host_size_ = 0;
#endif
#if defined(__SANITIZE_THREAD__)
  void* tsan_ = nullptr;
#endif
#if defined(__x86_64__)
  void* top_ = nullptr;
#else
  ucontext_t context_;
#endif
  char* stack_ = nullptr;
  void (*entry_)() = nullptr;
};

}  // namespace emulator

#include "fiber.h"

#include <pthread.h>

#include "races.h"

#ifdef SIM_ADDRESS
#include <sanitizer/common_interface_defs.h>
#else
static void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
static void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
#endif

namespace sim {

void Fiber::adopt() {
  pthread_attr_t attributes;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &stack_, &bytes_);
  pthread_attr_destroy(&attributes);
  identity_ = __tsan_get_current_fiber();
  started_ = true;
}

void Fiber::prepare(void (*entry)(), void* stack, size_t bytes, void* identity) {
  stack_ = stack;
  bytes_ = bytes;
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack;
  context_.uc_stack.ss_size = bytes;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
  identity_ = identity;
}

void Fiber::arrived() { __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr); }

// swapcontext makes a system call, to save the signal mask; _longjmp does not, and is five times as
// fast, but ThreadSanitizer takes it for a return to a caller.
void Fiber::leave_for(Fiber& other) {
  __sanitizer_start_switch_fiber(&fake_stack_, other.stack_, other.bytes_);
  switch_fiber(other.identity_);
#ifdef SIM_THREAD
  swapcontext(&context_, &other.context_);
#else
  if (_setjmp(registers_) == 0) {
    if (other.started_) _longjmp(other.registers_, 1);
    other.started_ = true;
    setcontext(&other.context_);
  }
#endif
  __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
}

void Fiber::pose_as(void* identity) { switch_fiber(identity); }
void Fiber::pose_as_itself() { switch_fiber(identity_); }

}  // namespace sim

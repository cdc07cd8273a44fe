// A thread of control that is left and resumed by hand.
#pragma once

#include <ucontext.h>

#include <csetjmp>
#include <cstddef>

namespace sim {

class Fiber {
 public:
  // The OS thread's own, which is running.
  void adopt();

  // One that will call entry, which must not return, on a stack of its own.
  void prepare(void (*entry)(), void* stack, size_t bytes, void* identity);

  // To be the first call of entry.
  static void arrived();

  // Leaves this fiber, which is running, for another.
  void leave_for(Fiber& other);

  // To ThreadSanitizer: is another fiber, until told to be itself again.
  void pose_as(void* identity);
  void pose_as_itself();

 private:
  ucontext_t context_;
  jmp_buf registers_;
  bool started_ = false;
  void* stack_ = nullptr;
  size_t bytes_ = 0;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  void* identity_ = nullptr;    // ThreadSanitizer's
};

}  // namespace sim

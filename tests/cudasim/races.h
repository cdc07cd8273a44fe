// What happens before what, told to ThreadSanitizer; elsewhere nothing.
//
// A CUDA thread is a "fiber" to it, that is, a thread which shares an OS thread with others. The
// scheduler is not instrumented and orders nothing by itself: a barrier is an order only because it
// says so here. An edge too many would hide a race.
#pragma once

#ifdef SIM_THREAD

extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}

#else

inline void* __tsan_get_current_fiber() { return nullptr; }
inline void* __tsan_create_fiber(unsigned) { return nullptr; }
inline void __tsan_switch_to_fiber(void*, unsigned) {}
inline void __tsan_acquire(void*) {}
inline void __tsan_release(void*) {}

#endif

namespace sim {

#ifdef SIM_THREAD
constexpr bool seeks_races = true;
#else
constexpr bool seeks_races = false;
#endif

// Everything before release() on a tag happens before everything after a later acquire() on it.
struct Tag {
  void release() { __tsan_release(this); }
  void acquire() { __tsan_acquire(this); }
  char address;
};

constexpr unsigned without_order = 1;
inline void switch_fiber(void* fiber) { __tsan_switch_to_fiber(fiber, without_order); }

}  // namespace sim

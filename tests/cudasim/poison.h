// Shared memory that nobody has written reads as NaN, or −1.
#pragma once

#include <cstring>

#include "launch.h"

namespace sim {

inline void poison(void* memory, size_t bytes) { std::memset(memory, 0xFF, bytes); }

// The static shared variables of this OS thread: all thread-local memory of the library that has
// the anchor.
void poison_thread_locals(Anchor);

}  // namespace sim

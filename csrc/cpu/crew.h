// A crew: the threads that run one kernel together, each the same code with its own rank.
#pragma once
#include <stdint.h>

namespace schuss {

// All members must arrive before any goes on. Spins briefly, then yields.
struct Barrier {
  int arrived = 0;
  unsigned phase = 0;  // wraps round
};

void wait_at(Barrier& barrier, int size);

struct Crew {
  int rank = 0, size = 1;
  Barrier* barrier = nullptr;
  void wait() const {
    if (size > 1) wait_at(*barrier, size);
  }
};

// Runs body(context, crew) on `size` threads, the caller's among them, and returns when all have
// returned. While another fit holds the pool, or when size is 1, body runs once, alone: kernels
// give the same bits for any size.
void run_crew(int size, void (*body)(void* context, Crew crew), void* context);

}  // namespace schuss

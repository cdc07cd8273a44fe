// A launch: what is asked for, and what all its blocks share.
#pragma once

#include <stdint.h>

namespace sim {

// In which order the threads of a block, and the blocks of a grid, come to run.
enum class Schedule : int {
  forward,
  reverse,
  priorities,  // drawn by chance, warps first, and strictly obeyed
  uniform,     // any thread that can run, each as likely
};

// As simulator.py fills it.
struct Configuration {
  unsigned grid[3], block[3];
  uint64_t shared;  // bytes of dynamic shared memory
  unsigned cluster;
  int cooperative;
  unsigned workers;  // clusters that run at once; all, if cooperative
  int schedule;
  uint64_t seed;
  double seconds;  // how long a thread may wait for another
};

inline uint64_t volume(const unsigned size[3]) { return uint64_t(size[0]) * size[1] * size[2]; }

constexpr unsigned message_size = 1024;

// Calls the kernel with its parameters, each an address.
using Body = void (*)(void** parameters);

// An address in the thread-local memory of the kernels' library.
using Anchor = void* (*)();

// Returns 0, or 1 with a message of at most message_size characters.
int launch(const Configuration&, Body, void** parameters, Anchor, char* message);

}  // namespace sim

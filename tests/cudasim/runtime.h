// What kernels, as the simulator compiles them, ask of the scheduler.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <source_location>

#include "vectors.h"

namespace sim {

// Where a kernel stands; every word that can find a fault is handed that of its caller.
using Location = std::source_location;

struct Ids {
  uint3 thread, block;
  dim3 block_size, grid_size;
  unsigned lane, cluster_rank, cluster_size;
};

// Of the CUDA thread that now runs on this OS thread. It stands in the runtime's library, so that
// the thread-local memory of the kernels' library holds nothing but shared variables.
#define SIM_THREAD_LOCAL constinit thread_local
extern SIM_THREAD_LOCAL __attribute__((tls_model("initial-exec"))) const Ids* ids;

// Ends the launch with a message; the calling thread never runs again.
[[noreturn]] void fail(Location, const char* format, ...) __attribute__((format(printf, 2, 3)));

enum class Vote { none, any, all, count };
int block_barrier(Vote, int predicate, const char* name, Location);
void cluster_barrier(Location);

// The lanes of mask meet. Each gets the value of the lane that it names as its source; or, with
// ballot, the set of lanes whose value is not 0; or nothing with order, but may then read what the
// others wrote before. Shuffles and votes promise no such order.
constexpr int ballot = -1, order = -2;
uint64_t exchange(unsigned mask, uint64_t value, int source, const char* name, Location);

// Lanes of the caller's warp that have not returned.
unsigned live_lanes();

void* dynamic_shared();
void* cluster_shared(void* own, int rank, Location);

// Lets the others go first; every word on which a kernel may wait for another thread calls it.
void yield(Location);

// Remembers what was read through the read-only cache; it is compared with later reads, and with
// the memory at the end of the launch.
void read_only(const void* address, const void* value, size_t size, Location);

// For ThreadSanitizer: what is read in between is ordered with nothing that the launch writes.
void begin_unordered_read();
void end_unordered_read();

// __threadfence, and the atomics that it orders.
void fence();
void before_atomic(void* address);

}  // namespace sim

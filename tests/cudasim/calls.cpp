// What runtime.h promises, each passed on to the block that runs on this OS thread.
#include <cstdarg>

#include "block.h"
#include "cluster.h"
#include "grid.h"

namespace sim {

void fail(Location where, const char* format, ...) {
  va_list values;
  va_start(values, format);
  block->launch.fail_with(&where, format, values);
  va_end(values);
  block->park();
}

int block_barrier(Vote vote, int predicate, const char* name, Location where) {
  return block->barrier(vote, predicate, name, where, false);
}

void cluster_barrier(Location where) {
  block->barrier(Vote::none, 0, "cluster_barrier", where, true);
}

uint64_t exchange(unsigned mask, uint64_t value, int source, const char* name, Location where) {
  return block->exchange({mask, value, source, name, where});
}

unsigned live_lanes() { return block->live_lanes(); }

void* dynamic_shared() { return block->cluster.shared(block->rank); }

void* cluster_shared(void* own, int rank, Location where) {
  const size_t offset = static_cast<char*>(own) - static_cast<char*>(dynamic_shared());
  if (offset >= block->launch.asked.shared)
    fail(where, "cluster_shared of an address outside dynamic shared memory");
  if (rank < 0 || unsigned(rank) >= block->cluster.size())
    fail(where, "cluster_shared of block %d in a cluster of %u", rank, block->cluster.size());
  return static_cast<char*>(block->cluster.shared(rank)) + offset;
}

void yield(Location where) { block->yield(where); }

void read_only(const void* address, const void* value, size_t size, Location where) {
  if (!block->read_only.same(address, value, size, where))
    fail(where, "__ldg of data that changed during the launch");
}

void begin_unordered_read() { block->begin_unordered_read(); }
void end_unordered_read() { block->end_unordered_read(); }
void fence() { block->fence(); }
void before_atomic(void* address) { block->before_atomic(address); }

}  // namespace sim

#include "cluster.h"

#include <sched.h>

#include <cstdlib>

#include "grid.h"

namespace sim {

// Of exactly the bytes asked for: AddressSanitizer watches what follows them.
static void* aligned(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 128, bytes)) std::abort();
  return memory;
}

Cluster::Cluster(Launch& launch, const std::vector<uint3>& indices) : launch_(launch) {
  for (const uint3& index : indices) {
    shared_.emplace_back(aligned(launch.asked.shared));
    blocks.push_back(std::make_unique<Block>(launch, *this, unsigned(blocks.size()), index));
  }
}

void Cluster::meet(Location where) {
  const unsigned meeting = meetings_;
  comes_.release();
  if (++arrived_ == size()) {
    comes_.acquire();
    goes_[meeting % 2].release();
    arrived_ = 0;
    ++meetings_;
    return;
  }
  while (meetings_ == meeting) {
    if (launch_.failed()) block->park();
    if (departed_ && meetings_ == meeting)
      fail(where, "cluster_barrier reached by only %u of %u blocks", arrived_.load(), size());
    sched_yield();
  }
  goes_[meeting % 2].acquire();
}

}  // namespace sim

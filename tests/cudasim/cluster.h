// A cluster: blocks that run at once, meet at barriers and reach each other's shared memory.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "block.h"
#include "races.h"

namespace sim {

class Cluster {
 public:
  // Of blocks whose indices are given.
  Cluster(Launch&, const std::vector<uint3>& indices);

  // Called by one thread of each block: returns when all have called it.
  void meet(Location);

  // A block has ended. True for the last one.
  bool depart() { return ++departed_ == size(); }

  void* shared(unsigned rank) { return shared_[rank].get(); }
  unsigned size() const { return unsigned(blocks.size()); }

  std::vector<std::unique_ptr<Block>> blocks;

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  Launch& launch_;
  std::vector<std::unique_ptr<void, Free>> shared_;
  std::atomic<unsigned> arrived_ = 0, meetings_ = 0, departed_ = 0;
  Tag comes_, goes_[2];
};

}  // namespace sim

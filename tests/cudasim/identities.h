// Whom ThreadSanitizer takes the CUDA threads of a launch for.
#pragma once

#include <mutex>
#include <vector>

#include "races.h"

namespace sim {

// One costs a millisecond to make and most of a megabyte to keep, so a launch leaves its own to the
// next. A finished block does not: the next block would seem to come after it. But where a grid has
// more threads than can be told apart, its blocks run in waves. Called by the launching thread
// only.
class Identities {
 public:
  void* take() {
    std::lock_guard guard(mutex_);
    if (spare_.empty()) spare_.push_back(__tsan_create_fiber(0));
    taken_.push_back(spare_.back());
    spare_.pop_back();
    return taken_.back();
  }

  bool enough_for(uint64_t more) const {
    return !seeks_races || taken_.empty() || taken_.size() + more <= most_told_apart;
  }

  void leave() {
    std::lock_guard guard(mutex_);
    spare_.insert(spare_.end(), taken_.begin(), taken_.end());
    taken_.clear();
  }

  ~Identities() { leave(); }

 private:
  static constexpr size_t most_told_apart = 2048;

  static inline std::mutex mutex_;
  static inline std::vector<void*> spare_;
  std::vector<void*> taken_;
};

}  // namespace sim

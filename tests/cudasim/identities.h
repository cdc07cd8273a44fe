// Whom ThreadSanitizer takes the CUDA threads of a launch for.
#pragma once

#include <mutex>
#include <vector>

#include "races.h"

namespace sim {

// One costs a millisecond to make, so a launch leaves its own to the next. A finished
// block does not: the next block would seem to come after it. Called by the launching thread only.
class Identities {
 public:
  void* take() {
    std::lock_guard guard(mutex_);
    if (spare_.empty()) spare_.push_back(__tsan_create_fiber(0));
    taken_.push_back(spare_.back());
    spare_.pop_back();
    return taken_.back();
  }

  ~Identities() {
    std::lock_guard guard(mutex_);
    spare_.insert(spare_.end(), taken_.begin(), taken_.end());
  }

 private:
  static inline std::mutex mutex_;
  static inline std::vector<void*> spare_;
  std::vector<void*> taken_;
};

}  // namespace sim

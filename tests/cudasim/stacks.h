// Memory for the stacks of a block's threads.
#pragma once

#include <cstddef>

namespace sim {

constexpr size_t stack_bytes = 256 << 10;  // of address space; few pages of it are touched

class Stacks {
 public:
  explicit Stacks(size_t threads);
  ~Stacks();
  Stacks(const Stacks&) = delete;

  void* of(size_t thread) const { return start_ + thread * stack_bytes; }

 private:
  size_t bytes_;
  char* start_ = nullptr;
};

}  // namespace sim

// The read-only cache, which no write of the launch reaches: whether it was read rightly.
//
// Nothing here calls memcmp or memcpy: ThreadSanitizer hears of every call of theirs, and would
// take the scheduler's accesses for the kernel's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <vector>

namespace sim {

class ReadOnly {
 public:
  // False if what was read before is not there any more.
  bool same(const void* address, const void* value, size_t size, std::source_location where) {
    if (lines_.empty()) lines_.resize(1024);
    Line& line = lines_[(reinterpret_cast<uintptr_t>(address) >> 2) % lines_.size()];
    if (line.address == address && line.size == size) return equal(line.value, value, size);
    if (!still(line)) return false;
    if (size > sizeof line.value) return true;
    line.address = address;
    line.size = size;
    line.where = where;
    for (size_t k = 0; k < size; k++) line.value[k] = static_cast<const char*>(value)[k];
    return true;
  }

  // Where something was read that is not there any more; null if all is.
  const std::source_location* stale() const {
    for (const Line& line : lines_)
      if (!still(line)) return &line.where;
    return nullptr;
  }

 private:
  struct Line {
    const void* address = nullptr;
    size_t size = 0;
    char value[16];
    std::source_location where;
  };

  static bool equal(const void* a, const void* b, size_t size) {
    for (size_t k = 0; k < size; k++)
      if (static_cast<const char*>(a)[k] != static_cast<const char*>(b)[k]) return false;
    return true;
  }

  static bool still(const Line& line) { return equal(line.value, line.address, line.size); }

  std::vector<Line> lines_;
};

}  // namespace sim

#include "stacks.h"

#include <sys/mman.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

namespace sim {

#ifdef SIM_THREAD

// To ThreadSanitizer, memory that was used before would still be the other threads'.
static char* spare(size_t) { return nullptr; }
static void keep(char* start, size_t bytes) { munmap(start, bytes); }

#else

// Of finished blocks. To touch new pages would take most of the time of a short kernel.
static std::mutex mutex;
static std::map<size_t, std::vector<char*>> kept;

static char* spare(size_t bytes) {
  std::lock_guard guard(mutex);
  std::vector<char*>& fitting = kept[bytes];
  if (fitting.empty()) return nullptr;
  char* start = fitting.back();
  fitting.pop_back();
  return start;
}

static void keep(char* start, size_t bytes) {
  std::lock_guard guard(mutex);
  kept[bytes].push_back(start);
}

#endif

Stacks::Stacks(size_t threads) : bytes_(threads * stack_bytes), start_(spare(bytes_)) {
  if (start_) return;
  void* made = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (made == MAP_FAILED) std::abort();
  start_ = static_cast<char*>(made);
}

Stacks::~Stacks() { keep(start_, bytes_); }

}  // namespace sim

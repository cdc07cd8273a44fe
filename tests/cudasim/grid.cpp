#include "grid.h"

#include <algorithm>
#include <cstdio>

#include "block.h"
#include "cluster.h"

namespace sim {

constexpr unsigned most_shared = 227 << 10, most_blocks = 8192, most_blocks_at_once = 1024;

Launch::Launch(const Configuration& asked, Body body, void** parameters, Anchor anchor,
               char* message)
    : asked(asked), anchor(anchor), body_(body), parameters_(parameters), message_(message) {}

// ---- Failing ----------------------------------------------------------------------------------

void Launch::fail_with(const Location* where, const char* format, va_list values) {
  if (failed_.exchange(true)) return;
  const int used =
      where ? snprintf(message_, message_size, "%s:%u: ", where->file_name(), where->line()) : 0;
  if (used < int(message_size)) vsnprintf(message_ + used, message_size - used, format, values);
}

void Launch::fail(const char* format, ...) {
  va_list values;
  va_start(values, format);
  fail_with(nullptr, format, values);
  va_end(values);
}

void Launch::fail(Location where, const char* format, ...) {
  va_list values;
  va_start(values, format);
  fail_with(&where, format, values);
  va_end(values);
}

// ---- Starting blocks --------------------------------------------------------------------------

bool Launch::possible() {
  const uint64_t threads = volume(asked.block), blocks = volume(asked.grid);
  if (threads < 1 || threads > most_threads)
    fail("%zu threads in a block; a block has 1 to %u", size_t(threads), most_threads);
  else if (blocks < 1 || blocks > most_blocks)
    fail("%zu blocks; the simulator runs 1 to %u", size_t(blocks), most_blocks);
  else if (asked.cooperative && blocks > most_blocks_at_once)
    fail("%zu blocks at once; the simulator runs up to %u", size_t(blocks), most_blocks_at_once);
  else if (asked.shared > most_shared)
    fail("%zu bytes of shared memory; a block has up to %u", size_t(asked.shared), most_shared);
  else if (asked.cluster < 1 || asked.cluster > 16 || asked.grid[0] % asked.cluster)
    fail("clusters of %u blocks in a grid of %u: not 1 to 16, or not a divisor", asked.cluster,
         asked.grid[0]);
  return !failed();
}

// Clusters are of blocks that follow one another along x.
std::vector<uint3> Launch::indices(unsigned cluster) const {
  std::vector<uint3> found;
  for (unsigned number = cluster * asked.cluster; number < (cluster + 1) * asked.cluster; number++)
    found.push_back({number % asked.grid[0], number / asked.grid[0] % asked.grid[1],
                     number / (asked.grid[0] * asked.grid[1])});
  return found;
}

// Each block has an OS thread that ran no other: ThreadSanitizer would take the order in which one
// thread runs two blocks for a promise. For the same reason no thread is joined before all are
// started; and running_, an atomic in code that is not instrumented, orders nothing.
bool Launch::run() {
  if (!possible()) return false;
  began.release();
  const unsigned clusters = unsigned(volume(asked.grid)) / asked.cluster;
  const unsigned at_once = asked.cooperative ? clusters : std::max(asked.workers, 1u);
  for (unsigned number : ranking(schedule(), clusters, 1, asked.seed)) {
    wait_for_less_than(at_once);
    if (failed()) break;
    if (!asked.cooperative && !identities.enough_for(asked.cluster * volume(asked.block))) {
      wait_for_less_than(1);
      identities.leave();
    }
    start(*clusters_.emplace_back(std::make_unique<Cluster>(*this, indices(number))));
  }
  for (std::thread& thread : threads_) thread.join();
  if (!failed()) check_read_only();
  return !failed();
}

void Launch::wait_for_less_than(unsigned clusters) {
  for (unsigned now; (now = running_) >= clusters;) running_.wait(now);
}

void Launch::start(Cluster& cluster) {
  ++running_;
  for (const auto& block : cluster.blocks) {
    threads_.emplace_back([this, &cluster, &block] {
      block->run();
      if (cluster.depart()) {
        --running_;
        running_.notify_one();
      }
    });
  }
}

void Launch::check_read_only() {
  for (const auto& cluster : clusters_)
    for (const auto& block : cluster->blocks)
      if (const Location* where = block->read_only.stale())
        return fail(*where, "__ldg of data that changed during the launch");
}

int launch(const Configuration& asked, Body body, void** parameters, Anchor anchor, char* message) {
  return Launch(asked, body, parameters, anchor, message).run() ? 0 : 1;
}

}  // namespace sim

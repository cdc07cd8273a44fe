// A block: its CUDA threads, each a fiber, take turns on one OS thread.
#pragma once

#include <vector>

#include "fiber.h"
#include "launch.h"
#include "races.h"
#include "read_only.h"
#include "runtime.h"
#include "turns.h"

namespace sim {

constexpr unsigned warp_size = 32, most_threads = 1024;

class Cluster;
class Launch;
class Stacks;

// What a lane asked for when it came to an exchange.
struct Request {
  unsigned mask = 0;
  uint64_t value;
  int source;
  const char* name;
  Location where;
};

struct Thread {
  void* identity;
  Fiber fiber;
  Ids ids;
  unsigned number;        // within the block
  unsigned barriers = 0;  // that it came to
  Request request;
  uint64_t answer;
  Tag comes, goes;         // of warp barriers
  void* atomic = nullptr;  // the last one it touched
  bool fenced = false;
};

// One passage of a block's threads through a barrier.
struct Passage {
  unsigned arrived = 0;
  int value;
  const char* name;
  Location where;
  Tag comes, goes;
};

class Block {
 public:
  Block(Launch&, Cluster&, unsigned rank, uint3 index);

  // Runs every thread to its end, on the calling OS thread.
  void run();

  // These are called by the thread that has its turn; runtime.h says what they do.
  int barrier(Vote, int predicate, const char* name, Location, bool of_cluster);
  uint64_t exchange(const Request&);
  unsigned live_lanes() const { return live_lanes_[running_->number / warp_size]; }
  void yield(Location);
  void begin_unordered_read() { running_->fiber.pose_as(unordered_); }
  void end_unordered_read() { running_->fiber.pose_as_itself(); }
  void fence();
  void before_atomic(void* address);

  // Gives up the turn for ever.
  [[noreturn]] void park();

  Launch& launch;
  Cluster& cluster;
  const unsigned rank;  // in the cluster
  ReadOnly read_only;

 private:
  static void entry();
  void prepare(Thread&, const Stacks&);
  void take_turns();
  void give_up_turn() { running_->fiber.leave_for(home_); }
  bool wake_yielding();
  void report_stuck() const;
  bool all_met(const Request&, unsigned warp) const;
  void answer(const Request&, unsigned warp);

  const uint3 index_;
  unsigned alive_;
  std::vector<Thread> threads_;
  Thread* running_ = nullptr;
  Fiber home_;
  Turns turns_;

  std::vector<Thread*> yielding_;
  Location yields_at_;
  double idle_since_ = 0;  // when the threads began to do nothing but yield

  Passage passages_[2];  // some threads may still leave one while others come to the next
  unsigned live_lanes_[most_threads / warp_size] = {};
  unsigned waiting_lanes_[most_threads / warp_size] = {};

  void* unordered_;  // whom the read-only cache reads as
  Tag poisoned_, ended_;
};

// Of this OS thread.
extern SIM_THREAD_LOCAL Block* block;

}  // namespace sim

#include "block.h"

#include <sched.h>

#include <chrono>

#include "cluster.h"
#include "grid.h"
#include "poison.h"
#include "stacks.h"

namespace sim {

SIM_THREAD_LOCAL const Ids* ids = nullptr;
SIM_THREAD_LOCAL Block* block = nullptr;

// ---- Turns ------------------------------------------------------------------------------------

Block::Block(Launch& launch, Cluster& cluster, unsigned rank, uint3 index)
    : launch(launch),
      cluster(cluster),
      rank(rank),
      index_(index),
      alive_(unsigned(volume(launch.asked.block))),
      threads_(alive_),
      turns_(launch.schedule(), alive_, warp_size, launch.seed(index)) {
  yielding_.reserve(alive_);  // for good: moving it later would look like a race
  unordered_ = launch.identities.take();
  for (Thread& thread : threads_) thread.identity = launch.identities.take();
}

void Block::run() {
  block = this;
  const Stacks stacks(threads_.size());
  poison_thread_locals(launch.anchor);
  poison(cluster.shared(rank), launch.asked.shared);
  poisoned_.release();
  home_.adopt();
  home_.pose_as(unordered_);
  launch.began.acquire();
  home_.pose_as_itself();
  for (Thread& thread : threads_) prepare(thread, stacks);
  take_turns();
  for (Thread& thread : threads_) {
    home_.pose_as(thread.identity);
    ended_.release();
  }
  home_.pose_as_itself();
  ended_.acquire();
  poison(cluster.shared(rank), launch.asked.shared);  // another block may come too late to it
  threads_ = {};
}

void Block::prepare(Thread& thread, const Stacks& stacks) {
  const unsigned* size = launch.asked.block;
  const unsigned* grid = launch.asked.grid;
  const unsigned number = &thread - threads_.data(), lane = number % warp_size;
  thread.number = number;
  thread.ids = {{number % size[0], number / size[0] % size[1], number / (size[0] * size[1])},
                index_,
                {size[0], size[1], size[2]},
                {grid[0], grid[1], grid[2]},
                lane,
                rank,
                launch.asked.cluster};
  thread.fiber.prepare(entry, stacks.of(number), stack_bytes, thread.identity);
  live_lanes_[number / warp_size] |= 1u << lane;
  turns_.add(number);
}

void Block::entry() {
  Fiber::arrived();
  block->launch.began.acquire();
  block->poisoned_.acquire();
  block->launch.call();
  Thread& thread = *block->running_;
  block->live_lanes_[thread.number / warp_size] &= ~(1u << thread.ids.lane);
  block->alive_--;
  block->idle_since_ = 0;
  block->park();
}

void Block::take_turns() {
  while (alive_ && !launch.failed()) {
    if (turns_.empty() && !wake_yielding()) return report_stuck();
    running_ = &threads_[turns_.take()];
    ids = &running_->ids;
    home_.leave_for(running_->fiber);
  }
}

void Block::park() {
  running_->fiber.leave_for(home_);
  __builtin_unreachable();
}

static double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void Block::yield(Location where) {
  yields_at_ = where;
  yielding_.push_back(running_);
  give_up_turn();
}

// Only those who yielded are left: lets other blocks run, and then them. False if there are none.
bool Block::wake_yielding() {
  const double now = seconds();
  if (!idle_since_) idle_since_ = now;
  if (now - idle_since_ > launch.asked.seconds)
    launch.fail(yields_at_, "waits for what has not come within %g seconds", launch.asked.seconds);
  sched_yield();
  for (Thread* thread : yielding_) turns_.add(thread->number);
  yielding_.clear();
  return !turns_.empty();
}

// Nobody can run: a barrier or an exchange that some thread never comes to.
void Block::report_stuck() const {
  for (unsigned warp = 0; warp * warp_size < threads_.size(); warp++) {
    if (const unsigned waiting = waiting_lanes_[warp]) {
      const Thread& first = threads_[warp * warp_size + std::countr_zero(waiting)];
      const Request& request = first.request;
      return launch.fail(request.where, "%s with mask %08x reached only by lanes %08x of warp %u",
                         request.name, request.mask, waiting & request.mask, warp);
    }
  }
  for (const Passage& passage : passages_)
    if (passage.arrived)
      return launch.fail(passage.where, "%s reached by only %u of %zu threads", passage.name,
                         passage.arrived, threads_.size());
}

// ---- Barriers ---------------------------------------------------------------------------------

static bool same_place(Location a, Location b) {
  return a.line() == b.line() && a.column() == b.column();
}

static int combine(Vote vote, int value, int predicate) {
  switch (vote) {
    case Vote::any:
      return value || predicate;
    case Vote::all:
      return value && predicate;
    case Vote::count:
      return value + (predicate != 0);
    default:
      return 0;
  }
}

// Every thread releases as it comes; only the last acquires that, and releases it to those who go.
// One tag for both would order a thread that runs ahead before one that has not come yet.
int Block::barrier(Vote vote, int predicate, const char* name, Location where, bool of_cluster) {
  Passage& passage = passages_[running_->barriers++ % 2];
  if (passage.arrived == 0) {
    passage.value = vote == Vote::all;
    passage.name = name;
    passage.where = where;
  } else if (!same_place(where, passage.where)) {
    fail(where, "%s, while other threads of the block wait in %s at line %u", name, passage.name,
         passage.where.line());
  }
  passage.value = combine(vote, passage.value, predicate);
  passage.comes.release();
  if (++passage.arrived == threads_.size()) {
    passage.comes.acquire();
    if (of_cluster) cluster.meet(where);
    passage.goes.release();
    passage.arrived = 0;
    for (Thread& thread : threads_) turns_.add(thread.number);
  }
  idle_since_ = 0;
  give_up_turn();
  passage.goes.acquire();
  return passage.value;
}

// ---- Exchanges within a warp ------------------------------------------------------------------

uint64_t Block::exchange(const Request& asked) {
  Thread& me = *running_;
  const unsigned warp = me.number / warp_size, bit = 1u << me.ids.lane;
  me.request = asked;
  if (const unsigned rest = threads_.size() - warp * warp_size; rest < warp_size)
    me.request.mask &= (1u << rest) - 1;  // the last warp of a block may be cut short
  if (!(me.request.mask & bit))
    fail(asked.where, "%s by lane %u, which its mask %08x leaves out", asked.name, me.ids.lane,
         asked.mask);
  if (asked.source == order) me.comes.release();
  waiting_lanes_[warp] |= bit;
  if (all_met(me.request, warp)) answer(me.request, warp);
  idle_since_ = 0;
  give_up_turn();
  if (asked.source == order) me.goes.acquire();
  return me.answer;
}

// A lane that waits with another mask does not count: it may have to meet others first.
bool Block::all_met(const Request& asked, unsigned warp) const {
  if (asked.mask & ~waiting_lanes_[warp]) return false;
  const Thread* lanes = &threads_[warp * warp_size];
  for (unsigned rest = asked.mask; rest; rest &= rest - 1)
    if (lanes[std::countr_zero(rest)].request.mask != asked.mask) return false;
  return true;
}

void Block::answer(const Request& asked, unsigned warp) {
  Thread* lanes = &threads_[warp * warp_size];
  unsigned voted = 0;
  for (unsigned rest = asked.mask; rest; rest &= rest - 1) {
    const unsigned lane = std::countr_zero(rest);
    const Request& other = lanes[lane].request;
    if (!same_place(other.where, asked.where))
      fail(asked.where, "%s, while lane %u waits in %s at line %u", asked.name, lane, other.name,
           other.where.line());
    if (asked.source == order) lanes[lane].comes.acquire();
    voted |= unsigned(other.value != 0) << lane;
  }
  for (unsigned rest = asked.mask; rest; rest &= rest - 1) {
    Thread& lane = lanes[std::countr_zero(rest)];
    const int source = lane.request.source;
    if (source >= 0 && !(asked.mask >> source & 1))
      fail(asked.where, "%s reads lane %d, which is not in mask %08x", asked.name, source,
           asked.mask);
    lane.answer = source >= 0 ? lanes[source].request.value : voted;
    if (source == order) lane.goes.release();
    turns_.add(lane.number);
  }
  waiting_lanes_[warp] &= ~asked.mask;
}

// ---- Fences -----------------------------------------------------------------------------------

// A fence orders the atomics around it: what the last one saw happened before what follows, and
// what came before is shown by the next ones.
void Block::fence() {
  Thread& me = *running_;
  if (me.atomic) __tsan_acquire(me.atomic);
  me.fenced = true;
}

void Block::before_atomic(void* address) {
  Thread& me = *running_;
  if (me.fenced) __tsan_release(address);
  me.atomic = address;
}

}  // namespace sim

// Whose turn it is.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "launch.h"

namespace sim {

// The numbers 0 to n - 1 in the order of a schedule; by chance, groups stay together.
inline std::vector<unsigned> ranking(Schedule schedule, unsigned n, unsigned group, uint64_t seed) {
  std::vector<unsigned> order(n);
  std::iota(order.begin(), order.end(), 0);
  if (schedule == Schedule::reverse) std::reverse(order.begin(), order.end());
  if (schedule == Schedule::priorities || schedule == Schedule::uniform) {
    std::mt19937_64 chance(seed);
    std::shuffle(order.begin(), order.end(), chance);
    std::vector<uint64_t> drawn((n + group - 1) / group);
    for (uint64_t& number : drawn) number = chance();
    std::stable_sort(order.begin(), order.end(),
                     [&](unsigned a, unsigned b) { return drawn[a / group] < drawn[b / group]; });
  }
  return order;
}

// The threads of a block that can run.
class Turns {
 public:
  Turns(Schedule schedule, unsigned threads, unsigned warp, uint64_t seed)
      : thread_(ranking(schedule, threads, warp, seed)),
        rank_(threads),
        ready_((threads + 63) / 64),
        uniform_(schedule == Schedule::uniform),
        chance_(seed) {
    for (unsigned rank = 0; rank < threads; rank++) rank_[thread_[rank]] = rank;
  }

  void add(unsigned thread) {
    ready_[rank_[thread] / 64] |= uint64_t(1) << rank_[thread] % 64;
    count_++;
  }

  bool empty() const { return count_ == 0; }

  // The first in the ranking, or any.
  unsigned take() {
    unsigned skip = uniform_ ? chance_() % count_ : 0, word = 0;
    for (unsigned here; skip >= (here = std::popcount(ready_[word])); word++) skip -= here;
    uint64_t rest = ready_[word];
    while (skip--) rest &= rest - 1;
    const unsigned bit = std::countr_zero(rest);
    ready_[word] ^= uint64_t(1) << bit;
    count_--;
    return thread_[64 * word + bit];
  }

 private:
  std::vector<unsigned> thread_, rank_;
  std::vector<uint64_t> ready_;
  unsigned count_ = 0;
  bool uniform_;
  std::minstd_rand chance_;
};

}  // namespace sim

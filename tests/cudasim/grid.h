// A launch under way: what its blocks share, and how they are started.
#pragma once

#include <atomic>
#include <cstdarg>
#include <memory>
#include <thread>
#include <vector>

#include "identities.h"
#include "launch.h"
#include "races.h"
#include "runtime.h"

namespace sim {

class Cluster;

class Launch {
 public:
  Launch(const Configuration&, Body, void** parameters, Anchor, char* message);

  // Runs every block; false if the launch failed.
  bool run();

  void call() const { body_(parameters_); }
  Schedule schedule() const { return Schedule(asked.schedule); }
  uint64_t seed(uint3 index) const {
    return asked.seed + 1009 * index.x + 9176 * index.y + index.z;
  }

  bool failed() const { return failed_.load(std::memory_order_relaxed); }

  // Of several messages the first stays.
  void fail(const char* format, ...) __attribute__((format(printf, 2, 3)));
  void fail(Location, const char* format, ...) __attribute__((format(printf, 3, 4)));
  void fail_with(const Location*, const char* format, va_list);

  const Configuration asked;
  const Anchor anchor;
  Identities identities;
  Tag began;

 private:
  bool possible();
  std::vector<uint3> indices(unsigned cluster) const;
  void wait_for_less_than(unsigned clusters);
  void start(Cluster&);
  void check_read_only();

  const Body body_;
  void** const parameters_;
  char* const message_;
  std::atomic<bool> failed_ = false;
  std::atomic<unsigned> running_ = 0;  // clusters
  std::vector<std::unique_ptr<Cluster>> clusters_;
  std::vector<std::thread> threads_;
};

}  // namespace sim

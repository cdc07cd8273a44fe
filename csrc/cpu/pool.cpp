// The thread pool behind run_crew. libgomp's hangs in a child forked after a parallel region; this
// one is made anew there.
#include <pthread.h>
#include <sched.h>

#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#include "crew.h"

namespace schuss {

void wait_at(Barrier& barrier, int size) {
  const unsigned phase = __atomic_load_n(&barrier.phase, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&barrier.arrived, 1, __ATOMIC_ACQ_REL) == size) {
    __atomic_store_n(&barrier.arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&barrier.phase, phase + 1, __ATOMIC_RELEASE);
    return;
  }
  int spins = 0;
  while (__atomic_load_n(&barrier.phase, __ATOMIC_ACQUIRE) == phase)
    if (spins < 4000)
      ++spins;
    else
      sched_yield();
}

namespace {

struct Pool {
  std::mutex holder;  // held by the fit that uses the pool

  std::mutex mutex;
  std::condition_variable wake, done;
  int members = 1;  // threads that exist, the caller's counted
  int size = 0;     // threads of the job at hand
  int running = 0;
  int64_t job = 0;
  void (*body)(void*, Crew) = nullptr;
  void* context = nullptr;
  Barrier barrier;

  void work(int rank) {
    int64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return job != seen && rank < size; });
      seen = job;
      lock.unlock();
      body(context, Crew{rank, size, &barrier});
      lock.lock();
      if (--running == 0) done.notify_one();
    }
  }

  void run(int wanted, void (*function)(void*, Crew), void* argument) {
    {
      std::lock_guard<std::mutex> lock(mutex);
      try {
        for (; members < wanted; ++members) std::thread(&Pool::work, this, members).detach();
      } catch (const std::system_error&) {  // no more threads to be had: those there are will do
        wanted = members;
      }
      body = function;
      context = argument;
      size = wanted;
      running = wanted - 1;
      ++job;
    }
    wake.notify_all();
    body(context, Crew{0, wanted, &barrier});
    std::unique_lock<std::mutex> lock(mutex);
    done.wait(lock, [&] { return running == 0; });
    size = 0;
  }
};

// Never freed: its threads may outlive static destructors, and a forked child leaves the parent's
// (whose threads it does not have, whose locks may be held) behind.
Pool* pool = nullptr;
std::mutex creation;

void renew_in_child() { pool = new Pool; }

Pool& the_pool() {
  std::lock_guard<std::mutex> lock(creation);
  if (!pool) {
    pool = new Pool;
    pthread_atfork([] { creation.lock(); }, [] { creation.unlock(); },
                   [] {
                     creation.unlock();
                     renew_in_child();
                   });
  }
  return *pool;
}

}  // namespace

void run_crew(int size, void (*body)(void*, Crew), void* context) {
  if (size > 1) {
    Pool& shared = the_pool();
    std::unique_lock<std::mutex> held(shared.holder, std::try_to_lock);
    if (held.owns_lock()) return shared.run(size, body, context);
  }
  body(context, Crew{});
}

}  // namespace schuss

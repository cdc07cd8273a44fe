// Kernels as C functions, for ctypes.
#pragma once

#include <stddef.h>

#include <utility>

#include "launch.h"

#define SIM_C extern "C" __attribute__((visibility("default")))

namespace sim {

template <auto kernel>
struct Kernel;

template <class... A, void (*kernel)(A...)>
struct Kernel<kernel> {
  template <size_t... I>
  static void unpack(void** parameters, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(parameters[I])...);
  }
  static void call(void** parameters) { unpack(parameters, std::index_sequence_for<A...>()); }

  static int sizes(size_t* bytes) {
    ((*bytes++ = sizeof(A)), ...);
    return sizeof...(A);
  }
};

inline void* anchor() {
  static thread_local char here;
  return &here;
}

}  // namespace sim

// The kernel is named last, because a template's arguments have commas of their own.
#define SIM_EXPORT(name, ...)                                                                      \
  SIM_C int sim_launch_##name(const sim::Configuration* asked, void** parameters, char* message) { \
    return sim::launch(*asked, sim::Kernel<&__VA_ARGS__>::call, parameters, sim::anchor, message); \
  }                                                                                                \
  SIM_C int sim_sizes_##name(size_t* bytes) { return sim::Kernel<&__VA_ARGS__>::sizes(bytes); }

// The twins of csrc/cuda/portable.cuh: what it spells in PTX, in C++.
#pragma once

#include "intrinsics.h"

#define SCHUSS_DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(sim::dynamic_shared())

namespace schuss {

SIM_FUNCTION uint32_t load_acquire(const uint32_t* p, SIM_WHERE) {
  sim::yield(where);  // kernels call it in a loop
  return std::atomic_ref<uint32_t>(*const_cast<uint32_t*>(p)).load(std::memory_order_acquire);
}

SIM_FUNCTION void add_release(uint32_t* p, uint32_t value) {
  std::atomic_ref<uint32_t>(*p).fetch_add(value, std::memory_order_release);
}

SIM_FUNCTION uint32_t exchange_add(uint32_t* p, uint32_t value) {
  return std::atomic_ref<uint32_t>(*p).fetch_add(value, std::memory_order_acq_rel);
}

inline float half_to_float(uint16_t bits) {
  const float sign = bits >> 15 ? -1.0f : 1.0f;
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 31) return sign * (fraction ? NAN : INFINITY);
  if (exponent == 0) return sign * ldexpf(float(fraction), -24);
  return sign * ldexpf(float(1024 + fraction), exponent - 25);
}

inline float bits_to_float(uint32_t bits) { return std::bit_cast<float>(bits); }

inline int cluster_rank() { return int(sim::ids->cluster_rank); }
inline int cluster_size() { return int(sim::ids->cluster_size); }
inline void cluster_barrier(SIM_WHERE) { sim::cluster_barrier(where); }

// Where another block of the cluster keeps what this block keeps at own, in dynamic shared memory.
template <class T>
T* cluster_shared(T* own, int rank, SIM_WHERE) {
  return static_cast<T*>(sim::cluster_shared(own, rank, where));
}

}  // namespace schuss

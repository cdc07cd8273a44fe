// The functions that CUDA brings along, as the programming guide defines them.
#pragma once

#include <math.h>

#include <atomic>
#include <bit>
#include <chrono>
#include <cstring>
#include <type_traits>

#include "words.h"

#define SIM_WHERE    sim::Location where = sim::Location::current()
#define SIM_FUNCTION inline __attribute__((always_inline))

// ---- Barriers ---------------------------------------------------------------------------------

inline void __syncthreads(SIM_WHERE) {
  sim::block_barrier(sim::Vote::none, 0, "__syncthreads", where);
}
inline int __syncthreads_or(int predicate, SIM_WHERE) {
  return sim::block_barrier(sim::Vote::any, predicate, "__syncthreads_or", where);
}
inline int __syncthreads_and(int predicate, SIM_WHERE) {
  return sim::block_barrier(sim::Vote::all, predicate, "__syncthreads_and", where);
}
inline int __syncthreads_count(int predicate, SIM_WHERE) {
  return sim::block_barrier(sim::Vote::count, predicate, "__syncthreads_count", where);
}
inline void __syncwarp(unsigned mask = ~0u, SIM_WHERE) {
  sim::exchange(mask, 0, sim::order, "__syncwarp", where);
}

inline void __threadfence() { sim::fence(); }
inline void __threadfence_block() { sim::fence(); }
inline void __nanosleep(unsigned, SIM_WHERE) { sim::yield(where); }
[[noreturn]] inline void __trap(SIM_WHERE) { sim::fail(where, "__trap"); }

// ---- Shuffles and votes -----------------------------------------------------------------------

namespace sim {

template <class T>
T shuffle(unsigned mask, T value, int source, const char* name, Location where) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = exchange(mask, bits, source, name, where);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// First lane of the caller's group of width lanes.
inline int group(int width) { return int(ids->lane) / width * width; }

// Combines the values of the lanes of mask.
template <class T, class Combine>
T reduce(unsigned mask, T value, Combine combine, const char* name, Location where) {
  T total = shuffle(mask, value, std::countr_zero(mask), name, where);
  for (unsigned rest = mask & (mask - 1); rest; rest &= rest - 1)
    total = combine(total, shuffle(mask, value, std::countr_zero(rest), name, where));
  return total;
}

}  // namespace sim

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, SIM_WHERE) {
  return sim::shuffle(mask, value, sim::group(width) + (lane & (width - 1)), "__shfl_sync", where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIM_WHERE) {
  const int own = sim::ids->lane, lane = own - int(delta);
  return sim::shuffle(mask, value, lane < sim::group(width) ? own : lane, "__shfl_up_sync", where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIM_WHERE) {
  const int own = sim::ids->lane, lane = own + int(delta), end = sim::group(width) + width;
  return sim::shuffle(mask, value, lane < end ? lane : own, "__shfl_down_sync", where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, SIM_WHERE) {
  const int own = sim::ids->lane, lane = own ^ bits, end = sim::group(width) + width;
  return sim::shuffle(mask, value, lane < end ? lane : own, "__shfl_xor_sync", where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, SIM_WHERE) {
  return unsigned(sim::exchange(mask, predicate != 0, sim::ballot, "__ballot_sync", where));
}
inline int __any_sync(unsigned mask, int predicate, SIM_WHERE) {
  return sim::exchange(mask, predicate != 0, sim::ballot, "__any_sync", where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SIM_WHERE) {
  return sim::exchange(mask, predicate == 0, sim::ballot, "__all_sync", where) == 0;
}
inline unsigned __activemask() { return sim::live_lanes(); }

template <class T>
unsigned __match_any_sync(unsigned mask, T value, SIM_WHERE) {
  unsigned same = 0;
  for (unsigned rest = mask; rest; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    same |= unsigned(sim::shuffle(mask, value, lane, "__match_any_sync", where) == value) << lane;
  }
  return same;
}

#define SIM_REDUCE(name, T, expression)                                                 \
  inline T name(unsigned mask, T value, SIM_WHERE) {                                    \
    return sim::reduce(mask, value, [](T a, T b) { return expression; }, #name, where); \
  }
SIM_REDUCE(__reduce_add_sync, int, int(unsigned(a) + unsigned(b)))
SIM_REDUCE(__reduce_add_sync, unsigned, a + b)
SIM_REDUCE(__reduce_min_sync, int, b < a ? b : a)
SIM_REDUCE(__reduce_min_sync, unsigned, b < a ? b : a)
SIM_REDUCE(__reduce_max_sync, int, a < b ? b : a)
SIM_REDUCE(__reduce_max_sync, unsigned, a < b ? b : a)
SIM_REDUCE(__reduce_and_sync, unsigned, a& b)
SIM_REDUCE(__reduce_or_sync, unsigned, a | b)
SIM_REDUCE(__reduce_xor_sync, unsigned, a ^ b)

// ---- Atomics: no order of their own, as in CUDA -----------------------------------------------

namespace sim {

template <class T>
using Same = std::type_identity_t<T>;  // the type of the address alone decides

// Replaces *p by change(*p) and returns what stood there.
template <class T, class Change>
SIM_FUNCTION T replace(T* p, Change change) {
  before_atomic(p);
  std::atomic_ref<T> cell(*p);
  T before = cell.load(std::memory_order_relaxed);
  while (!cell.compare_exchange_weak(before, change(before), std::memory_order_relaxed)) {
  }
  return before;
}

}  // namespace sim

#define SIM_ATOMIC(name, expression)                                    \
  template <class T>                                                    \
  SIM_FUNCTION T name(T* p, sim::Same<T> value) {                       \
    return sim::replace(p, [value](T old) -> T { return expression; }); \
  }
SIM_ATOMIC(atomicAdd, old + value)
SIM_ATOMIC(atomicSub, old - value)
SIM_ATOMIC(atomicExch, value)
SIM_ATOMIC(atomicMin, value < old ? value : old)
SIM_ATOMIC(atomicMax, old < value ? value : old)
SIM_ATOMIC(atomicAnd, old& value)
SIM_ATOMIC(atomicOr, old | value)
SIM_ATOMIC(atomicXor, old ^ value)
SIM_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
SIM_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)

template <class T>
SIM_FUNCTION T atomicCAS(T* p, sim::Same<T> expected, sim::Same<T> value, SIM_WHERE) {
  sim::before_atomic(p);
  const bool taken =
      std::atomic_ref<T>(*p).compare_exchange_strong(expected, value, std::memory_order_relaxed);
  if (!taken) sim::yield(where);  // who holds the lock may be a thread of this block
  return expected;
}

// ---- Loads and stores with a word on caching --------------------------------------------------

template <class T>
SIM_FUNCTION T __ldg(const T* p, SIM_WHERE) {
  sim::begin_unordered_read();
  const T value = *p;  // in registers: to ThreadSanitizer this is another thread
  sim::end_unordered_read();
  const T copy = value;
  sim::read_only(p, &copy, sizeof copy, where);
  return value;
}

#define SIM_LOAD(name)              \
  template <class T>                \
  SIM_FUNCTION T name(const T* p) { \
    return *p;                      \
  }
SIM_LOAD(__ldca)
SIM_LOAD(__ldcg)
SIM_LOAD(__ldcs)
SIM_LOAD(__ldlu)
SIM_LOAD(__ldcv)

#define SIM_STORE(name)                              \
  template <class T>                                 \
  SIM_FUNCTION void name(T* p, sim::Same<T> value) { \
    *p = value;                                      \
  }
SIM_STORE(__stwb)
SIM_STORE(__stcg)
SIM_STORE(__stcs)
SIM_STORE(__stwt)

// ---- Arithmetic -------------------------------------------------------------------------------

template <class A, class B>
constexpr auto min(A a, B b) {
  using C = std::common_type_t<A, B>;
  return C(b) < C(a) ? C(b) : C(a);
}
template <class A, class B>
constexpr auto max(A a, B b) {
  using C = std::common_type_t<A, B>;
  return C(a) < C(b) ? C(b) : C(a);
}

inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1 / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __drcp_rn(double a) { return 1 / a; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

inline int __float2int_rn(float x) { return int(rintf(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline int __double2int_rn(double x) { return int(rint(x)); }
inline int __double2int_rz(double x) { return int(x); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __double2float_rn(double x) { return float(x); }

inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline int __clzll(long long x) { return std::countl_zero((unsigned long long)(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; bit++) reversed |= (x >> bit & 1) << (31 - bit);
  return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __mulhi(int a, int b) { return int(int64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)(a)*b >> 64);
}

// Cycles of a clock of 1 GHz.
inline long long clock64() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

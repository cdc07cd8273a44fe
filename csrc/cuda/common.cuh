// What all kernels share: packs of 16 bytes, sums over a warp and a block, barriers.
#pragma once

#include "cuda/arguments.cuh"

namespace schuss {

#define SCHUSS_DEVICE __device__ __forceinline__

constexpr int block_threads = 256;
constexpr unsigned all_lanes = 0xffffffffu;

using namespace portable;  // the formulas

// The row at a place.
SCHUSS_DEVICE int64_t row_at(const Rows& rows, int64_t place) {
  if (rows.narrow) return rows.narrow[place];
  return rows.wide ? rows.wide[place] : rows.start + place;
}

// The `count` places from `first` on.
SCHUSS_DEVICE Rows places_within(const Rows& rows, int64_t first, int64_t count) {
  return {rows.narrow ? rows.narrow + first : nullptr, rows.wide ? rows.wide + first : nullptr,
          rows.start + first, count};
}

// ---- Packs: what a thread reads in one load ----

SCHUSS_DEVICE float widen(float x) { return x; }
SCHUSS_DEVICE double widen(double x) { return x; }
SCHUSS_DEVICE float widen(bfloat16 x) { return bits_to_float(uint32_t(x.bits) << 16); }
SCHUSS_DEVICE float widen(float16 x) { return half_to_float(x.bits); }

template <class S>
struct alignas(16) Pack {
  static constexpr int size = 16 / int(sizeof(S));
  S numbers[size];
};

template <class S>
SCHUSS_DEVICE Pack<S> load_pack(const S* p) {
  return *reinterpret_cast<const Pack<S>*>(p);
}

template <class S>
SCHUSS_DEVICE void store_pack(S* p, const Pack<S>& pack) {
  *reinterpret_cast<Pack<S>*>(p) = pack;
}

// Numbers that other blocks write during the launch: from the second-level cache, where all meet.
template <class T>
SCHUSS_DEVICE T load_shared_by_all(const T* p) {
  return __ldcg(p);
}

// 16 bytes of those, from where such a pack begins.
SCHUSS_DEVICE void load_pack_shared_by_all(const float* p, float* out) {
  const float4 v = __ldcg(reinterpret_cast<const float4*>(p));
  out[0] = v.x;
  out[1] = v.y;
  out[2] = v.z;
  out[3] = v.w;
}
SCHUSS_DEVICE void load_pack_shared_by_all(const double* p, double* out) {
  const double2 v = __ldcg(reinterpret_cast<const double2*>(p));
  out[0] = v.x;
  out[1] = v.y;
}

// ---- Sums in a fixed order ----

// Over the `Lanes` neighbours of a team, which begin at a multiple of it; all get it.
template <int Lanes, class T>
SCHUSS_DEVICE T team_sum(T v) {
#pragma unroll
  for (int apart = Lanes / 2; apart > 0; apart /= 2) v += __shfl_xor_sync(all_lanes, v, apart);
  return v;
}

// Over the block's threads; all get it. `room` is shared, one T for each warp.
template <class T>
SCHUSS_DEVICE T block_sum(T v, T* room) {
  v = team_sum<32>(v);
  __syncthreads();  // the room may hold an earlier sum that is still being read
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
  __syncthreads();
  T sum = 0;
  for (int warp = 0; warp < int(blockDim.x) / 32; ++warp) sum += room[warp];
  return sum;
}

// Over every `stride`-th of `count` numbers that other blocks wrote; all threads get it.
SCHUSS_DEVICE double sum_shared_by_all(const double* numbers, int64_t count, int stride,
                                       double* room) {
  double sum = 0;
  for (int64_t at = threadIdx.x; at < count; at += block_threads)
    sum += load_shared_by_all(numbers + at * stride);
  return block_sum(sum, room);
}

// ---- Blocks that wait for each other ----

// All blocks of a launch in which all are resident. `passed` counts the barriers.
struct GridBarrier {
  uint32_t* arrived;
  uint32_t passed = 0;

  SCHUSS_DEVICE void wait() {
    __syncthreads();
    if (threadIdx.x == 0) {
      ++passed;
      add_release(arrived, 1);
      while (load_acquire(arrived) < passed * gridDim.x) __nanosleep(20);
    }
    __syncthreads();
  }
};

// Whether this block is the last one that comes here; it sees what the others wrote before.
SCHUSS_DEVICE bool last_to_arrive(uint32_t* arrived) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) last = exchange_add(arrived, 1) == gridDim.x - 1;
  __syncthreads();
  if (last && threadIdx.x == 0) *arrived = 0;  // for the next launch
  return last;
}

}  // namespace schuss

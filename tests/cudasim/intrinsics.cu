// What CUDA defines, word by word; the test computes the same in NumPy. Blocks have 64 threads.
#include "cuda/portable.cuh"

constexpr unsigned everyone = 0xffffffff;

__device__ int own() { return int(blockIdx.x * blockDim.x + threadIdx.x); }
__device__ int lane() { return int(threadIdx.x % 32); }

// Row k of out.
template <class T>
__device__ void put(T* out, int k, T value) {
  out[k * blockDim.x + threadIdx.x] = value;
}

template <class T, int width>
__global__ void shuffles(const T* in, T* out) {
  const T v = in[threadIdx.x];
  put(out, 0, __shfl_sync(everyone, v, 5, width));
  put(out, 1, __shfl_sync(everyone, v, lane() + 3, width));
  put(out, 2, __shfl_up_sync(everyone, v, 3, width));
  put(out, 3, __shfl_down_sync(everyone, v, 3, width));
  put(out, 4, __shfl_xor_sync(everyone, v, 5, width));
}

// Even and odd lanes, apart.
__global__ void partial_masks(const int* in, int* out) {
  const int v = in[threadIdx.x];
  if (lane() % 2) {
    put(out, 0, __shfl_xor_sync(0xaaaaaaaa, v, 2));
    put(out, 1, int(__ballot_sync(0xaaaaaaaa, v % 3 == 0)));
    put(out, 2, int(__reduce_add_sync(0xaaaaaaaa, v)));
  } else {
    put(out, 0, __shfl_sync(0x55555555, v, 4));
    put(out, 1, int(__ballot_sync(0x55555555, v % 3 == 1)));
    put(out, 2, int(__reduce_max_sync(0x55555555, v)));
  }
}

__global__ void votes(const int* in, int* out) {
  const int v = in[threadIdx.x];
  put(out, 9, int(__activemask()));  // nobody has returned yet: all still meet below
  put(out, 0, int(__ballot_sync(everyone, v % 2)));
  put(out, 1, __any_sync(everyone, v == 40));
  put(out, 2, __all_sync(everyone, v < 32));
  put(out, 3, __syncthreads_or(v == 40));
  put(out, 4, __syncthreads_and(v < 32));
  put(out, 5, __syncthreads_count(v % 3 == 0));
  put(out, 6, int(__match_any_sync(everyone, v % 4)));
  put(out, 7, __reduce_min_sync(everyone, v));
  put(out, 8, int(__reduce_xor_sync(everyone, unsigned(v))));
}

// Each into a place of its own, by all threads of the grid.
template <class T>
__global__ void atomics(T* out) {
  const int i = own();
  atomicAdd(out, T(i));
  atomicMax(out + 1, T(i));
  atomicMin(out + 2, T(-i));
  atomicAdd(out + 3, atomicExch(out + 4, T(i)));  // in all, each number but the last
  T seen = 0, assumed;
  do {
    assumed = seen;
    seen = atomicCAS(out + 5, assumed, T(assumed + 2));
  } while (seen != assumed);
}

__global__ void integer_atomics(unsigned* out) {
  const unsigned i = own();
  atomicOr(out, 1u << i % 32);
  atomicAnd(out + 1, ~(1u << i % 16));
  atomicXor(out + 2, i);
  atomicInc(out + 3, 9);
  atomicDec(out + 4, 9);
  atomicSub(out + 5, i);
}

// Each thread draws a number; drawn counts how often each is.
__global__ void tickets(uint32_t* counter, uint32_t* drawn) {
  atomicAdd(drawn + schuss::exchange_add(counter, 1), 1);
}

__global__ void bits(const unsigned* in, int* out) {
  const unsigned v = in[threadIdx.x];
  put(out, 0, __popc(v));
  put(out, 1, __clz(int(v)));
  put(out, 2, __ffs(int(v)));
  put(out, 3, int(__brev(v)));
  put(out, 4, int(__umulhi(v, 0xdeadbeef)));
  put(out, 5, __float_as_int(__uint_as_float(v)));
  put(out, 6, int(__umul64hi((unsigned long long)v << 32, 0xdeadbeefull << 32)));
}

__global__ void halves(float* out) {
  for (int k = own(); k < 1 << 16; k += gridDim.x * blockDim.x)
    out[k] = schuss::half_to_float(uint16_t(k));
}

// Where each thread of a grid in three dimensions says that it stands, in the order of the grid.
__global__ void places(int* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = int(1000 * block + thread);
}

__global__ void clusters(int* out) {
  SCHUSS_DYNAMIC_SHARED(int, room);
  room[threadIdx.x] = own();
  schuss::cluster_barrier();
  int sum = 0;
  for (int rank = 0; rank < schuss::cluster_size(); ++rank)
    sum += schuss::cluster_shared(room, rank)[threadIdx.x];
  schuss::cluster_barrier();
  out[own()] = 1000 * schuss::cluster_rank() + sum;
}

// With an address or a block that is none of the cluster's.
template <int rank, bool outside>
__global__ void no_such_place(int* out) {
  SCHUSS_DYNAMIC_SHARED(int, room);
  *schuss::cluster_shared(outside ? out : room, rank) = 1;
}

__global__ void wrong_mask(int* out) { out[0] = __shfl_sync(0xfffffffe, 1, 1); }

__global__ void reads_outside_mask(int* out) {
  if (lane() < 16) out[0] = __shfl_sync(0xffff, 1, 16);
}

__global__ void traps(int* out) { __trap(); }

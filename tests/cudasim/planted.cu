// Kernels with a fault, and without it: what the simulator must find, and must let pass.
//
// Each runs in two blocks of 64 threads, which the test knows too. A comment "// name" stands on
// each line that a message about the fault in that kernel may name.
#include "cuda/portable.cuh"

constexpr int threads = 64;

__device__ int own() { return int(blockIdx.x * threads + threadIdx.x); }
__device__ int mirrored() { return threads - 1 - int(threadIdx.x); }

// out: the block's numbers in reverse.
template <bool fault>
__global__ void missing_barrier(const float* in, float* out, uint32_t*) {
  __shared__ float room[threads];
  room[threadIdx.x] = in[own()];  // missing_barrier
  if (!fault) __syncthreads();
  out[own()] = room[mirrored()];  // missing_barrier
}

// out: three times the mirrored number, and 0 + 1 + 2.
template <bool fault>
__global__ void missing_second_barrier(const float* in, float* out, uint32_t*) {
  __shared__ float room[threads];
  float sum = 0;
  for (int round = 0; round < 3; ++round) {
    room[threadIdx.x] = in[own()] + round;  // missing_second_barrier
    __syncthreads();
    sum += room[mirrored()];  // missing_second_barrier
    if (!fault) __syncthreads();
  }
  out[own()] = sum;
}

// out[0]: the sum of each block's first number.
template <bool fault>
__global__ void lost_update(const float* in, float* out, uint32_t*) {
  if (threadIdx.x > 0) return;
  if (fault)
    out[0] += in[own()];  // lost_update
  else
    atomicAdd(out, in[own()]);
}

// out: the mirrored number, in the first half of a block.
template <bool fault>
__global__ void early_return(const float* in, float* out, uint32_t*) {
  __shared__ float room[threads];
  const bool idle = threadIdx.x >= threads / 2;
  room[threadIdx.x] = in[own()];
  if (fault && idle) return;
  __syncthreads();  // early_return
  if (!idle) out[own()] = room[mirrored()];
}

// out: the number, and that of the lane eight away; in the first half of a warp.
template <bool fault>
__global__ void half_a_warp(const float* in, float* out, uint32_t*) {
  if (threadIdx.x % 32 >= 16) return;
  const float number = in[own()];
  out[own()] = number + __shfl_xor_sync(fault ? 0xffffffff : 0xffff, number, 8);  // half_a_warp
}

template <bool fault>
__global__ void two_collectives(const float* in, float* out, uint32_t*) {
  float number = in[own()];
  if (fault && threadIdx.x % 2)
    number += __shfl_xor_sync(0xffffffff, number, 1);  // two_collectives
  else
    number += __shfl_xor_sync(0xffffffff, number, 1);  // two_collectives
  out[own()] = number;
}

// Shuffles order nothing; only __syncwarp does.
template <bool fault>
__global__ void missing_warp_barrier(const float* in, float* out, uint32_t*) {
  __shared__ float room[threads];
  room[threadIdx.x] = in[own()];  // missing_warp_barrier
  if (fault)
    __shfl_sync(0xffffffff, 0, 0);
  else
    __syncwarp();
  out[own()] = room[threadIdx.x ^ 1];  // missing_warp_barrier
}

// The rest copy the numbers, most of them.

template <bool fault>
__global__ void global_overrun(const float* in, float* out, uint32_t*) {
  out[own() + fault] = in[own() + fault];  // global_overrun
}

template <bool fault>
__global__ void dynamic_overrun(const float* in, float* out, uint32_t*) {
  SCHUSS_DYNAMIC_SHARED(float, room);
  room[threadIdx.x + fault] = in[own()];  // dynamic_overrun
  out[own()] = room[threadIdx.x + fault];
}

template <bool fault>
__global__ void static_overrun(const float* in, float* out, uint32_t*) {
  __shared__ float room[threads];
  room[threadIdx.x + fault] = in[own()];  // static_overrun
  out[own()] = room[threadIdx.x + fault];
}

template <bool fault>
__global__ void misaligned(const float* in, float* out, uint32_t*) {
  const int pack = own() / 4 * 4;
  const float4 four = *reinterpret_cast<const float4*>(in + pack - (fault && pack));  // misaligned
  const float numbers[4] = {four.x, four.y, four.z, four.w};
  out[own()] = numbers[own() % 4];
}

// out: how many threads a block has, and the block's own number.
template <bool fault>
__global__ void uninitialised(const float* in, float* out, uint32_t*) {
  SCHUSS_DYNAMIC_SHARED(float, sum);
  __shared__ float count;
  if (threadIdx.x == 0) {
    sum[0] = blockIdx.x;
    if (!fault) count = 0;
  }
  __syncthreads();
  atomicAdd(&count, 1.0f);
  __syncthreads();
  out[own()] = count + sum[0];
}

template <bool fault>
__global__ void read_only_then_written(const float* in, float* out, uint32_t*) {
  const float number = fault ? __ldg(out + own()) : __ldg(in + own());  // read_only_then_written
  out[own()] = in[own()] + 0 * number;                                  // read_only_then_written
}

template <bool fault>
__global__ void written_then_read_only(const float* in, float* out, uint32_t*) {
  out[own()] = in[own()];                      // written_then_read_only
  if (fault) out[own()] = __ldg(out + own());  // written_then_read_only
}

// out: the mirrored number of the other block.
template <bool fault>
__global__ void missing_grid_barrier(const float* in, float* out, uint32_t* counter) {
  float* halfway = out + 2 * threads;
  halfway[own()] = in[own()];  // missing_grid_barrier
  __syncthreads();
  if (!fault && threadIdx.x == 0) {
    schuss::add_release(counter, 1);
    while (schuss::load_acquire(counter) < gridDim.x) __nanosleep(20);
  }
  __syncthreads();
  out[own()] = halfway[(1 - blockIdx.x) * threads + mirrored()];  // missing_grid_barrier
}

// out: as above, by shared memory. The second barrier keeps a block until the others have read.
template <bool first_fault, bool last_fault>
__device__ void swap_in_cluster(const float* in, float* out) {
  SCHUSS_DYNAMIC_SHARED(float, room);
  room[threadIdx.x] = in[own()];  // missing_cluster_barrier
  first_fault ? __syncthreads() : schuss::cluster_barrier();
  const float* other = schuss::cluster_shared(room, 1 - schuss::cluster_rank());
  out[own()] = other[mirrored()];  // missing_cluster_barrier missing_last_cluster_barrier
  if (!last_fault) schuss::cluster_barrier();
}
template <bool fault>
__global__ void missing_cluster_barrier(const float* in, float* out, uint32_t*) {
  swap_in_cluster<fault, false>(in, out);
}
template <bool fault>
__global__ void missing_last_cluster_barrier(const float* in, float* out, uint32_t*) {
  swap_in_cluster<false, fault>(in, out);
}

template <bool fault>
__global__ void lone_cluster_barrier(const float* in, float* out, uint32_t*) {
  out[own()] = in[own()];
  if (fault && blockIdx.x == 0) return;
  schuss::cluster_barrier();  // lone_cluster_barrier
}

template <bool fault>
__global__ void endless_wait(const float* in, float* out, uint32_t* counter) {
  const uint32_t all = gridDim.x * blockDim.x + fault;
  out[own()] = in[own()];
  schuss::add_release(counter, 1);
  while (schuss::load_acquire(counter) < all) __nanosleep(20);  // endless_wait
}

// What the machine itself can do, for bench/gpu.py: a launch, a wait of all blocks, a copy.
#include "cuda/common.cuh"

namespace schuss {

template <int Nothing>
__global__ void __launch_bounds__(block_threads) probe_launch(const int64_t nothing) {}

template <int Nothing>
__global__ void __launch_bounds__(block_threads)
    probe_barrier(uint32_t* arrived, const int64_t repeats) {
  GridBarrier barrier{arrived};
  for (int64_t k = 0; k < repeats; ++k) barrier.wait();
}

template <int Nothing>
__global__ void __launch_bounds__(block_threads)
    probe_copy(const float* from, float* to, const int64_t size) {
  const int64_t all = int64_t(gridDim.x) * block_threads * 4;
  for (int64_t j = (int64_t(blockIdx.x) * block_threads + threadIdx.x) * 4; j < size; j += all)
    store_pack(to + j, load_pack(from + j));
}

}  // namespace schuss

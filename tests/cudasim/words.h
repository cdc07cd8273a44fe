// The words that CUDA adds to C++: qualifiers and built-in variables.
#pragma once

#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __managed__
#define __grid_constant__
#define __forceinline__  inline __attribute__((always_inline))
#define __noinline__     __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __builtin_assume(condition)

// A block has an OS thread of its own, so what is local to the thread is shared by the block.
#define __shared__ static thread_local

#define threadIdx (sim::ids->thread)
#define blockIdx  (sim::ids->block)
#define blockDim  (sim::ids->block_size)
#define gridDim   (sim::ids->grid_size)

constexpr int warpSize = 32;

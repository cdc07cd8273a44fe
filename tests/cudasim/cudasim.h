// Included before a kernel's source, which then compiles as C++20 and runs on the CPU.
//
//   runtime.h     what kernels ask of the scheduler
//   vectors.h     vector types
//   words.h       qualifiers, built-in variables
//   intrinsics.h  barriers, shuffles, atomics, arithmetic
//   portable.h    twins of csrc/cuda/portable.cuh
//   export.h      kernels as C functions
#pragma once

#define SCHUSS_SIM

#include "export.h"
#include "portable.h"

// What the loops of optimizers are handed. Plain data.
#pragma once
#include <stdint.h>

#include "../optimizers.h"
#include "problem.h"

namespace schuss {

// Numbers of a tensor whose squares are summed at once; parts that threads take are whole ones.
constexpr int64_t tensor_tile = 1 << 14;

// One tensor: parameters, their gradient and up to three slots, each of `size` numbers.
struct Piece {
  void* param;
  const void* gradient;
  void* slot[3];
  int64_t size;
};

// How numbers of 16 bits are rounded: to the nearest, or by bits drawn from a seed.
struct Noise {
  bool drawn;
  uint32_t seed;
};

// The updates of csrc/optimizers.h, in the order of the tables.
constexpr const char* update_names[] = {"plain",   "momentum", "moments", "largest_moments",
                                        "squares", "lars",     "lamb",    "triad0",
                                        "triad1",  "triad2",   "triad3"};
constexpr int update_count = int(sizeof update_names / sizeof *update_names);

// One update. measure and ratio are null where no norms are needed.
struct UpdateKernels {
  int slots;
  void (*update)(const Piece&, int64_t begin, int64_t end, const StepConstants&, const Noise&);
  void (*measure)(const Piece&, int64_t begin, int64_t end, const StepConstants&, const Noise&,
                  double* sums);
  double (*ratio)(const StepConstants&, double weights, double direction);
};

// Those for tensors of one type.
struct TensorKernels {
  UpdateKernels updates[update_count];
  double (*squares)(const Piece&, int64_t begin, int64_t end);
};

struct OptimizerKernels {
  TensorKernels single, wide, bfloat16, float16;
};

}  // namespace schuss

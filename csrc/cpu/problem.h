// What the CPU kernels are handed: pointers, lengths and scalars. Plain data, no behaviour.
#pragma once
#include <stdint.h>

#include "crew.h"

namespace schuss {

// Rows of a tile: partial gradients are summed in T per tile, and tiles are combined in float64 in
// ascending order. A wave is the number of tiles whose partial sums are held at once.
constexpr int64_t tile_rows = 256;
constexpr int64_t wave_tiles = 64;

// The data and the loss. X is (n, d), rows contiguous.
template <class T>
struct Problem {
  const T* X;
  int64_t n, d;
  const T* y;
  const T* weight;  // null: every sample counts once
  const double* loss_parameters;
  bool fit_intercept;
};

// Which rows to visit, in order: 32-bit or 64-bit indices, or the range that begins at start. The
// first `count` are worked on; those up to `sight` follow them and may be prefetched.
struct Rows {
  const int32_t* narrow;
  const int64_t* wide;
  int64_t start, count, sight;
  int64_t operator[](int64_t k) const { return narrow ? narrow[k] : wide ? wide[k] : start + k; }
};

// The parameters and what the rule remembers of them. theta is (d + 1,), the intercept last.
template <class T>
struct State {
  T* theta;
  T* slot[2];
  double* average;   // running mean of theta, (d + 1,); null: not kept
  int64_t averaged;  // how many iterates it holds
};

// How a gradient becomes an update. constants is (steps, stride), stride 0 when they never change.
struct Update {
  const double* constants;
  int64_t stride;
  double l2, l1;
  double clip_norm;  // 0: no clipping
};

// What a run of steps returns: summed loss of its samples, norm of the last step's gradient.
struct Outcome {
  double loss, gradient_norm;
};

// Memory a kernel works in: see Scratch sizes in bindings.cpp.
template <class T>
struct Scratch {
  T* partial;     // (wave_tiles, d + 1): a partial gradient per tile of the wave
  double* total;  // (d + 1,)
  double* loss;   // (wave_tiles,)
};

// One instruction set's kernels for one scalar type, indexed by row of the table of formulas.
template <class T>
struct Kernels {
  static constexpr int most = 64;
  Outcome (*descend_samples[most])(const Problem<T>&, const Rows&, const Update&, State<T>&);
  void (*add_gradient[most])(const Problem<T>&, const Rows&, const T* theta, Scratch<T>&,
                             double* loss, Crew);
  double (*variance[most])(const Problem<T>&, const Rows&, const T* theta, double* loss,
                           double* gradient);
  double (*finish_step[most])(const Problem<T>&, const Update&, int64_t step, const T* gradient,
                              const double* total, int64_t count, bool want_norm, State<T>&);
  Outcome (*descend_batches)(const Kernels&, int loss, int rule, const Problem<T>&, const Rows&,
                             int64_t batch_size, const Update&, State<T>&, Scratch<T>&, Crew);
  void (*apply[most])(T* param, const T* gradient, T* slot0, T* slot1, int64_t size,
                      const double* constants, double decay);
  void (*margin)(const T* X, int64_t d, const Rows&, const T* theta, T* out);
  void (*reduce)(T* dst, const T* const* sources, int64_t count, int64_t size, double scale);
  void (*permute_narrow)(uint64_t n, const uint32_t* keys, int64_t start, int64_t stop, int32_t*);
  void (*permute_wide)(uint64_t n, const uint32_t* keys, int64_t start, int64_t stop, int64_t*);
  T (*sum_rows)(const T* X, int64_t d, const Rows&, int64_t ahead);
};

template <class T>
struct OutputKernels;  // outputs_problem.h

// One instruction set's measuring kernels, for the lab; flops are those of one round.
struct Ceilings {
  float (*multiply_add_single)(int64_t rounds);
  double (*multiply_add_wide)(int64_t rounds);
  int flops_single, flops_wide;
};

struct InstructionSet {
  const char* name;
  const Kernels<float>* single;
  const Kernels<double>* wide;
  const OutputKernels<float>* single_outputs;
  const OutputKernels<double>* wide_outputs;
  const Ceilings* ceilings;
};

namespace baseline {
extern const InstructionSet kernels;
}
namespace avx2 {
extern const InstructionSet kernels;
}
namespace avx512 {
extern const InstructionSet kernels;
}

}  // namespace schuss

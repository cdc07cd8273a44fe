// What the CPU kernels are handed: pointers, lengths and scalars. Plain data, no behaviour.
#pragma once
#include <stdint.h>

#include "../storage.h"
#include "crew.h"

namespace schuss {

// Rows of a tile: partial gradients are summed in T per tile, and tiles are combined in float64 in
// ascending order. A wave is the number of tiles whose partial sums are held at once.
constexpr int64_t tile_rows = 64;
constexpr int64_t wave_tiles = 64;

// The data and the loss. X is (n, d), rows contiguous.
template <class S>
struct Problem {
  const S* X;
  int64_t n, d;
  const Scalar<S>* y;
  const Scalar<S>* weight;  // null: every sample counts once
  const double* loss_parameters;
  bool fit_intercept;
};

// Inlined at once, also because g++ drops calls of a function that does nothing but prefetch. What
// stands here, outside the namespaces of the instruction sets, must not be left as a function: the
// linker would keep one set's for all.
#define SCHUSS_INLINE inline __attribute__((always_inline))

// Which rows to visit, in order: 32-bit or 64-bit indices, or the range that begins at start. The
// first `count` are worked on; those up to `sight` follow them and may be prefetched. A member of a
// crew that comes to place `end` goes on `skip` places further.
struct Rows {
  const int32_t* narrow;
  const int64_t* wide;
  int64_t start, count, sight;
  int64_t end = INT64_MAX, skip = 0;
  SCHUSS_INLINE int64_t operator[](int64_t k) const {
    return narrow ? narrow[k] : wide ? wide[k] : start + k;
  }

  // The `size` places from place `begin` on.
  SCHUSS_INLINE Rows part(int64_t begin, int64_t size) const {
    return {narrow ? narrow + begin : nullptr, wide ? wide + begin : nullptr, start + begin, size,
            sight - begin};
  }

  // The row so many places ahead; where there is none, the one at place k.
  SCHUSS_INLINE int64_t ahead(int64_t k, int64_t places) const {
    const int64_t place = k + places + (k + places < end ? 0 : skip);
    return (*this)[place < sight ? place : k];
  }
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

// A share of the d + 1 parameters: low <= j < high. Number d is the intercept.
struct Columns {
  int64_t d, low, high;
  bool fit_intercept;
};

// What a run of steps returns: summed loss of its samples, norm of the last step's gradient.
struct Outcome {
  double loss, gradient_norm;
};

// Numbers that a vector of d parameters takes in a kernel's own memory: whole cache lines.
constexpr int64_t padded(int64_t d) { return (d + 32) / 16 * 16; }

// Memory a kernel works in, each part at a cache line's begin.
template <class T>
struct Scratch {
  T* weights;     // (padded(d),)
  T* partial;     // (wave_tiles, padded(d)): a partial gradient per tile of the wave
  double* total;  // (d + 1,)
  double* loss;   // (wave_tiles,)
};

// One instruction set's loops over vectors of T, indexed by row of the table of rules.
template <class T>
struct VectorKernels {
  static constexpr int most = 64;
  // One update of the columns low <= j < high from a tile's own sum (tile) or, where that is null,
  // the combined one (total) over `count` rows, scaled by `factor`.
  void (*finish[most])(const Columns&, const Update&, int64_t step, const T* tile,
                       const double* total, int64_t count, double factor, State<T>&);
  // Norm of the mean gradient, L2 penalty and intercept included, of the same two.
  double (*norm)(const Update&, const T* tile, const double* total, int64_t count, const T* theta,
                 int64_t d);
  void (*apply[most])(T* param, const T* gradient, T* slot0, T* slot1, int64_t size,
                      const double* constants, double decay);
  void (*reduce)(T* dst, const T* const* sources, int64_t count, int64_t size, double scale);
};

// Losses and slopes of `count` rows at their margins, one loss's.
template <class T>
using WeighGroup = void (*)(const double* loss_parameters, const T* margin, const T* y, int count,
                            T* value, T* slope);

// One instruction set's loops over rows stored as S, indexed by row of the table of losses.
template <class S>
struct RowKernels {
  static constexpr int most = 64;
  using T = Scalar<S>;
  Outcome (*descend_samples[most])(const Problem<S>&, const Rows&, const Update&, State<T>&,
                                   Scratch<T>&);
  WeighGroup<T> weigh_group[most];
  double (*tile_gradient)(WeighGroup<T>, const Problem<S>&, const Rows&, int64_t begin, int64_t end,
                          const T* theta, T* gradient);
  double (*variance)(WeighGroup<T>, const Problem<S>&, const Rows&, const T* theta, double* loss,
                     double* gradient);
  void (*add_gradient)(const RowKernels&, int loss, const Problem<S>&, const Rows&, const T* theta,
                       Scratch<T>&, double* summed, Crew);
  Outcome (*descend_batches)(const RowKernels&, const VectorKernels<T>&, int loss, int rule,
                             const Problem<S>&, const Rows&, int64_t batch_size, const Update&,
                             State<T>&, Scratch<T>&, Crew);
  void (*margin)(const S* X, int64_t d, const Rows&, const T* theta, T* out);
  T (*sum_rows)(const S* X, int64_t d, const Rows&, int64_t ahead, int64_t near);
};

template <class T>
struct OutputKernels;     // outputs_problem.h
struct SparseSet;         // sparse_problem.h
struct ClassicSet;        // classic_problem.h
struct OptimizerKernels;  // optimizers_problem.h

// Buffers of as many blocks each, mixed by one pattern of `size` places that stands twice in a row.
// Place p of buffer b is row row[p + turned[b]] of its block number block[p + turned[b]].
template <class I>
struct Pattern {
  const I *block, *row;
  int64_t size;
  const I* starts;  // (buffers, blocks): first rows
  int64_t blocks;
  const int64_t* turned;
};

// One instruction set's measuring kernels, for the lab; flops are those of one round.
struct Ceilings {
  float (*multiply_add_single)(int64_t rounds);
  double (*multiply_add_wide)(int64_t rounds);
  int flops_single, flops_wide;
};

struct InstructionSet {
  const char* name;
  VectorKernels<float> single;
  VectorKernels<double> wide;
  RowKernels<float> single_rows;
  RowKernels<double> wide_rows;
  RowKernels<bfloat16> bfloat16_rows;
  RowKernels<float16> float16_rows;
  void (*permute_narrow)(uint64_t n, const uint32_t* keys, int64_t start, int64_t stop, int32_t*);
  void (*permute_wide)(uint64_t n, const uint32_t* keys, int64_t start, int64_t stop, int64_t*);
  void (*mix_narrow)(const Pattern<int32_t>&, int64_t start, int64_t stop, int32_t*);
  void (*mix_wide)(const Pattern<int64_t>&, int64_t start, int64_t stop, int64_t*);
  const OutputKernels<float>* single_outputs;
  const OutputKernels<double>* wide_outputs;
  const SparseSet* sparse;
  const ClassicSet* classic;
  const Ceilings* ceilings;
  const OptimizerKernels* optimizers;
};

namespace baseline {
extern const InstructionSet kernels;
extern const OptimizerKernels optimizer_kernels;
}
namespace avx2 {
extern const InstructionSet kernels;
extern const OptimizerKernels optimizer_kernels;
}
namespace avx512 {
extern const InstructionSet kernels;
extern const OptimizerKernels optimizer_kernels;
}

}  // namespace schuss

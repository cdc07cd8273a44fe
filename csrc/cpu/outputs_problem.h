// What the CPU kernels for several outputs are handed.
//
// Parameters, gradients and the rule's memory are *packed* there: a row of `width` for each feature
// and one for the intercept, (d + 1, width), outputs side by side. width is the number of outputs,
// rounded up to whole vectors; what stands beyond the outputs never counts.
#pragma once
#include "problem.h"

namespace schuss {

// The data and the loss. X is (n, d), rows contiguous.
template <class T>
struct OutputProblem {
  const T* X;
  int64_t n, d, outputs, width;
  const T* y;
  int64_t y_stride;  // entries of y for each row: the outputs, or 1 where it holds a class number
  const T* weight;   // null: every sample counts once
  const double* loss_parameters;
  bool fit_intercept;
};

// Rows whose margins are held at once.
constexpr int block_rows = 8;

// Memory a kernel works in.
template <class T>
struct OutputScratch {
  T* margins;     // (crew, 2 block_rows, width): of a block, and room to turn them
  T* partial;     // (wave_tiles, d + 1, width): a partial gradient per tile of the wave
  double* total;  // (d + 1, width)
  double* loss;   // (wave_tiles,)
};

// One instruction set's kernels for one scalar type. Losses are numbered through both tables of
// formulas: those of one margin, then those of several.
template <class T>
struct OutputKernels {
  static constexpr int most = 64;
  // Makes margins (count, width) of the rows from place s on weighted slopes, 0 beyond the outputs,
  // and adds the weighted losses to *total; turned is memory of the same size.
  using Weigh = void (*)(const OutputProblem<T>&, const Rows&, int64_t s, int count, T* margins,
                         T* turned, double* total);
  int64_t lanes;  // of a vector; width is a multiple
  Weigh weigh[most];
  Outcome (*descend_samples)(Weigh, const OutputProblem<T>&, const Rows&, const Update&, State<T>&,
                             T* margins);
  void (*add_gradient)(Weigh, const OutputProblem<T>&, const Rows&, const T* theta,
                       OutputScratch<T>&, double* loss, Crew);
  double (*second_moment)(Weigh, const OutputProblem<T>&, const Rows&, const T* theta, T* margins);
  double (*finish_step[most])(const OutputProblem<T>&, const Update&, int64_t step,
                              const T* gradient, const double* total, int64_t count, bool want_norm,
                              State<T>&);
  Outcome (*descend_batches)(const OutputKernels&, int loss, int rule, const OutputProblem<T>&,
                             const Rows&, int64_t batch_size, const Update&, State<T>&,
                             OutputScratch<T>&, Crew);
  void (*margin)(const OutputProblem<T>&, const Rows&, const T* theta, T* margins, T* out);
};

}  // namespace schuss

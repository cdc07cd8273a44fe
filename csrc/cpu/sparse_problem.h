// What the CPU kernels for sparse rows (CSR) are handed.
#pragma once
#include "problem.h"

namespace schuss {

// What is known of a sample beside its row.
template <class T>
struct Labels {
  const T* y;
  const T* weight;  // null: every sample counts once
  const double* loss_parameters;
  bool fit_intercept;
};

// The entries of row i are data[k] in column indices[k], begin(i) <= k < begin(i + 1). Columns of a
// row ascend, and none comes twice.
template <class T, class I>
struct SparseProblem : Labels<T> {
  const T* data;
  const I* indices;
  const int32_t* narrow;  // where rows begin, (n + 1,): one of the two
  const int64_t* wide;
  int64_t n, d;
  int64_t begin(int64_t i) const { return narrow ? narrow[i] : wide[i]; }
};

// Memory a kernel works in; null where its loop needs none of it.
template <class T>
struct SparseScratch {
  T* slopes;            // (wave_tiles * tile_rows,): of the rows of a wave
  double* loss;         // (wave_tiles,)
  double* total;        // (d + 1,): a summed gradient
  T* paid;              // (d,): what of the L1 penalty a weight has had
  double* sum;          // (d,): of a weight over the iterates, for the average
  double* counted;      // (d,): up to where that sum goes
  const int64_t* cuts;  // (pieces + 1,): columns at which threads divide the weights, 0 ... d
  int64_t pieces;
};

// What members of a crew that train at once find: of the updates looked at, how many saw a weight
// of their row changed between reading and writing it, and how many updates the others made
// meanwhile: the sum, and the most.
struct Meetings {
  int64_t looked_at, conflicts, delay, longest;
};

// Memory of asynchronous descent.
template <class T>
struct FreeScratch {
  const double* scales;  // (steps + 1,): products of the steps' decays up to each; all above 0
  int64_t next;          // place of the next rows that nobody has taken
  int64_t* done;         // (crew, 8): updates that each member has made, a cache line for each
  T* seen;               // (crew, width): weights as a row's margin found them
  int64_t width;         // entries of the longest row, rounded up to whole cache lines
  double* loss;          // (crew,)
  Meetings* meetings;    // (crew,)
};

// One instruction set's kernels for one type of data and one of indices. Losses are called through
// a table, once for a row: its entries cost far more.
template <class T, class I>
struct SparseKernels {
  static constexpr int most = 64;
  using Problem = SparseProblem<T, I>;
  // Adds the weighted loss of sample i to *total and returns its weighted slope.
  using Weigh = T (*)(const Labels<T>&, int64_t i, T margin, double* total);
  Weigh weigh[most];
  Outcome (*descend_samples)(Weigh, const Problem&, const Rows&, const Update&, State<T>&,
                             SparseScratch<T>&);
  Outcome (*descend_batches)(Weigh, const Problem&, const Rows&, int64_t batch_size, const Update&,
                             State<T>&, SparseScratch<T>&, Crew);
  Outcome (*descend_all)(Weigh, const VectorKernels<T>&, int rule, const Problem&, const Rows&,
                         int64_t batch_size, const Update&, State<T>&, SparseScratch<T>&, Crew);
  void (*descend_freely)(Weigh, const Problem&, const Rows&, const Update&, T* theta,
                         FreeScratch<T>&, Crew);
  void (*add_gradient)(Weigh, const Problem&, const Rows&, const T* theta, SparseScratch<T>&,
                       double* summed, Crew);
  double (*variance)(Weigh, const Problem&, const Rows&, const T* theta, double* loss,
                     double* gradient);
  void (*margin)(const Problem&, const Rows&, const T* theta, T* out);
};

// Those of one instruction set.
struct SparseSet {
  const SparseKernels<float, int32_t>* single_narrow;
  const SparseKernels<float, int64_t>* single_wide;
  const SparseKernels<double, int32_t>* wide_narrow;
  const SparseKernels<double, int64_t>* wide_wide;
};

}  // namespace schuss

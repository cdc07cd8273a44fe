// What the CPU kernels for the classic step are handed: scikit-learn's, on one weight vector or on
// several side by side, one for each class.
#pragma once
#include "sparse_problem.h"

namespace schuss {

// What a step is made of.
struct ClassicStep {
  const double* rates;  // (steps,), or (1,) with stride 0
  int64_t stride;
  double l2, l1;
  double intercept_decay;  // factor of the intercept's own steps
  double drift;            // slope of the intercept in the objective itself
  int passive;             // passive-aggressive steps take the place of rates: 1 or 2; 0: none
  double aggressiveness;   // the longest of the one, the inverse damping of the other
};

// The weight vectors, and what is remembered of them. Intercepts are added up in float64: where
// their steps are short, float32 would lose them.
template <class T>
struct ClassicState {
  T* coef;            // (outputs, d)
  double* intercept;  // (outputs,)
  int64_t outputs;
  const T* own;           // (outputs,): y holds classes, whose rows have this weight in their own
                          // output and the label 1, and -1 in the others; null: y holds labels
  const int64_t* active;  // (count,): outputs that are trained
  int64_t count;
  const double* factor;  // (outputs,): of the rates
  double* owed;          // (outputs,): sum of the L1 amounts so far
  T* paid;               // (outputs, d): what of it each weight has had, signed; null: no L1
  double* average;       // (outputs, d + 1): mean of the iterates, intercept last; null: not kept
  int64_t averaged;      // how many it holds
  double* loss;          // (outputs,): summed, without weights
};

// Memory a kernel works in. `width` is 1 for one output, else their number rounded up to whole
// packs: how far apart the weights of features lie where rows are sparse.
template <class T>
struct ClassicScratch {
  int64_t width;
  T *margins, *labels, *values, *slopes;     // (width,) each: of the outputs that are trained
  T *step, *scales, *inverse, *owed, *live;  // (width,) each: of all outputs, for sparse rows
  double *keep, *change, *scale, *span;      // (width,) each
  T* weights;   // dense: (outputs, padded(d)); sparse: (d, width), twice that wide with L1
  T* paid;      // dense, with L1: (outputs, padded(d))
  double* aux;  // sparse, with an average: (d, width)
};

// One instruction set's kernels.
template <class P, class T>
using ClassicDescend = void (*)(WeighGroup<T>, const P&, const Rows&, const ClassicStep&,
                                ClassicState<T>&, ClassicScratch<T>&);
template <class T, class I>
using ClassicSparse = ClassicDescend<SparseProblem<T, I>, T>;

struct ClassicSet {
  int64_t single_lanes, wide_lanes;  // of a pack
  ClassicDescend<Problem<float>, float> single;
  ClassicDescend<Problem<double>, double> wide;
  ClassicSparse<float, int32_t> single_narrow;
  ClassicSparse<float, int64_t> single_wide;
  ClassicSparse<double, int32_t> wide_narrow;
  ClassicSparse<double, int64_t> wide_wide;
};

}  // namespace schuss

// What kernels are handed: pointers, lengths and scalars, in structs passed by value. Plain data.
//
// schuss.backends.cuda.signatures reads the structs and the kernels' parameters from this text, so
// that what a launch passes is checked against what is declared here. It knows pointers, int32_t,
// int64_t and double.
#pragma once

#include "cuda/portable.cuh"
#include "formulas.h"
#include "storage.h"

namespace schuss {

// The data and the loss. X is (n, width): rows are padded with zeros to whole packs of 16 bytes, so
// that every row begins at such a boundary and no loop has a remainder. Vectors of parameters are
// padded alike: (width + 1,), the intercept last.
template <class S>
struct Problem {
  const S* X;
  const Scalar<S>* y;
  const Scalar<S>* weight;  // null: every sample counts once
  const double* loss_parameters;
  int64_t width;
  int32_t fit_intercept;
};

// Which rows to visit, in order: 32-bit or 64-bit indices, or the range that begins at start.
struct Rows {
  const int32_t* narrow;
  const int64_t* wide;
  int64_t start;
  int64_t count;
};

// Where a batch's sums go: (parts, columns), each over some tiles of rows, and (loss_parts, 2): the
// loss, and the squared norms of the samples' gradients where they are asked for.
struct Partials {
  double* sums;
  double* losses;
  int64_t rows_of_tile;  // of one team
  int64_t tiles_of_part;
  int64_t parts;
  int64_t loss_parts;
};

// How a gradient becomes an update. constants is (steps, stride), stride 0 when they never change.
struct Update {
  const double* constants;
  int64_t stride;
  double l2;
  double l1;
  double clip_norm;  // 0: no clipping
};

// The parameters and what the rule remembers of them, each (width + 1,).
template <class T>
struct State {
  T* theta;
  T* slot0;
  T* slot1;
  double* average;   // running mean of theta; null: not kept
  int64_t averaged;  // how many iterates it held before the segment
};

// What a run of steps leaves behind: (2,), summed loss of its samples and norm of the last step's
// gradient. squares has a number for every 32 columns, which the norm is made of; total has one for
// each column, the step's sum.
struct Outcome {
  double* results;
  double* squares;
  double* total;
  uint32_t* arrived;  // blocks that have come to a barrier, or to the end; 0 before a launch
};

}  // namespace schuss

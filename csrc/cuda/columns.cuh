// From the sums over parts to the step: what is done once for each column.
//
// Bytes: (parts + 1) columns of float64 read, and the parameters and slots read and written.
#pragma once

#include "cuda/common.cuh"

namespace schuss {

// Columns low <= j < high of the (outputs, width + 1) parameters, for the threads of a block. The
// last of each output is its intercept.
struct Columns {
  int64_t width, low, high;
  int32_t fit_intercept;

  SCHUSS_DEVICE bool is_intercept(int64_t j) const {
    return j == width || (j > width && (j + 1) % (width + 1) == 0);
  }
};

// Columns that a block adds up at once: eight threads share the parts of each. A constant, so that
// the order of no sum depends on how many blocks a GPU runs.
constexpr int columns_together = 32;

// Columns number `chunk` of those `all`.
SCHUSS_DEVICE Columns chunk_of(int64_t chunk, int64_t width, int64_t all, int32_t fit_intercept) {
  const int64_t low = chunk * columns_together, high = low + columns_together;
  return {width, low, high < all ? high : all, fit_intercept};
}

SCHUSS_DEVICE int64_t chunks_in(int64_t all) {
  return (all + columns_together - 1) / columns_together;
}

// Sums of a chunk's columns over the parts, of which each has `all` columns, to `total`.
SCHUSS_DEVICE void sum_columns(const Columns& columns, const Partials& partials, int64_t all,
                               double* total) {
  constexpr int groups = block_threads / columns_together;
  __shared__ double room[block_threads];
  const int column = int(threadIdx.x) % columns_together;
  const int64_t j = columns.low + column;
  double sum = 0;
  if (j < columns.high) {
#pragma unroll 8
    for (int64_t part = threadIdx.x / columns_together; part < partials.parts; part += groups)
      sum += load_shared_by_all(partials.sums + part * all + j);
  }
  room[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x < columns_together && j < columns.high) {
    for (int group = 1; group < groups; ++group) sum += room[group * columns_together + column];
    total[j] = sum;
  }
  __syncthreads();
}

// The batch's loss, by a whole block; all threads get it.
SCHUSS_DEVICE double loss_sum(const Partials& partials, double* room) {
  return sum_shared_by_all(partials.losses, partials.loss_parts, 2, room);
}

// The mean gradient of a column with the penalty's part.
template <class T>
SCHUSS_DEVICE T penalised(double total, double scale, T l2, T w, bool intercept) {
  return T(total * scale) + (intercept ? T(0) : l2 * w);
}

// This thread's share of the squared norm of the mean gradient, penalty included.
template <class T>
SCHUSS_DEVICE double squares_of_columns(const Columns& columns, const Update& update, int64_t count,
                                        const T* theta, const double* total) {
  double squares = 0;
  const double scale = 1.0 / double(count);
  for (int64_t j = columns.low + threadIdx.x; j < columns.high; j += block_threads) {
    const bool intercept = columns.is_intercept(j);
    if (intercept && !columns.fit_intercept) continue;
    const T w = load_shared_by_all(theta + j);
    const double g = double(penalised(total[j], scale, T(update.l2), w, intercept));
    squares += g * g;
  }
  return squares;
}

// What a gradient of this norm is multiplied by.
SCHUSS_DEVICE double clipping(double clip_norm, double norm) {
  return clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1.0;
}

// The rule of the intercept: as the others', but without decoupled weight decay, which is
// constant 1.
template <class Rule>
SCHUSS_DEVICE Rule undecayed(const double* constants) {
  double plain[Rule::constants];
  for (int k = 0; k < Rule::constants; ++k) plain[k] = k == 1 ? 1.0 : constants[k];
  return Rule(plain);
}

// Columns of the step's update by their sums; `factor` comes from clipping.
template <class Rule, class T>
SCHUSS_DEVICE void update_columns(const Columns& columns, const Update& update, int64_t step,
                                  int64_t count, double factor, const State<T>& state,
                                  const double* total) {
  const double* constants = update.constants + step * update.stride;
  const Rule rule(constants), plain = undecayed<Rule>(constants);
  const T l2 = T(update.l2 * factor), shrink = T(constants[0] * update.l1);
  const double scale = factor / double(count), part = 1.0 / double(state.averaged + step + 1);
  for (int64_t j = columns.low + threadIdx.x; j < columns.high; j += block_threads) {
    const bool intercept = columns.is_intercept(j);
    T w = load_shared_by_all(state.theta + j);
    if (!intercept || columns.fit_intercept) {
      const T g = penalised(total[j], scale, l2, w, intercept);
      T a = Rule::slots > 0 ? state.slot0[j] : T(0), b = Rule::slots > 1 ? state.slot1[j] : T(0);
      (intercept ? plain : rule).update(w, g, a, b);
      if (update.l1 > 0 && !intercept) w = shrink_towards_zero(w, shrink);
      state.theta[j] = w;
      if (Rule::slots > 0) state.slot0[j] = a;
      if (Rule::slots > 1) state.slot1[j] = b;
    }
    if (state.average) state.average[j] += (double(w) - state.average[j]) * part;
  }
}

}  // namespace schuss

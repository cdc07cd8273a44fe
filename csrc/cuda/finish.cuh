// From the sums over tiles to the step: what is done once for each column.
//
// Bytes: (tiles + 1) (width + 1) numbers read, and the parameters and slots read and written.
#pragma once

#include "cuda/common.cuh"

namespace schuss {

// Columns low <= j < high, of which number `width` is the intercept, by this block's threads.
struct Columns {
  int64_t width, low, high;
  int32_t fit_intercept;
};

// Sum of a column over the tiles, in ascending order.
template <class T>
SCHUSS_DEVICE double column_sum(const Partials<T>& partials, int64_t width, int64_t j) {
  double total = 0;
  const T* sum = partials.sums + j;
#pragma unroll 8
  for (int64_t tile = 0; tile < partials.tiles; ++tile, sum += width + 1)
    total += double(load_shared_by_all(sum));
  return total;
}

SCHUSS_DEVICE double tiles_sum(const double* losses, int64_t tiles) {
  double total = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) total += load_shared_by_all(losses + 2 * tile);
  return total;
}

// The mean gradient of a column with the penalty's part.
template <class T>
SCHUSS_DEVICE T penalised(double total, double scale, T l2, T w, bool intercept) {
  return T(total * scale) + (intercept ? T(0) : l2 * w);
}

// The rule of the intercept: as the others', but without decoupled weight decay, which is constant 1.
template <class Rule>
SCHUSS_DEVICE Rule undecayed(const double* constants) {
  double plain[Rule::constants];
  for (int k = 0; k < Rule::constants; ++k) plain[k] = k == 1 ? 1.0 : constants[k];
  return Rule(plain);
}

// Columns of the step's update. `total` gives each one's sum; `factor` comes from clipping.
template <class Rule, class T, class Total>
SCHUSS_DEVICE void update_columns(const Columns& columns, const Update& update, int64_t step,
                                  int64_t count, double factor, const State<T>& state,
                                  Total total) {
  const double* constants = update.constants + step * update.stride;
  const Rule rule(constants), plain = undecayed<Rule>(constants);
  const T l2 = T(update.l2 * factor), shrink = T(constants[0] * update.l1);
  const double scale = factor / double(count), part = 1.0 / double(state.averaged + step + 1);
  for (int64_t j = columns.low + threadIdx.x; j < columns.high; j += blockDim.x) {
    const bool intercept = j == columns.width;
    T w = load_shared_by_all(state.theta + j);
    if (!intercept || columns.fit_intercept) {
      const T g = penalised(total(j), scale, l2, w, intercept);
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

// This thread's share of the squared norm of the mean gradient, penalty included; totals are kept.
template <class T>
SCHUSS_DEVICE double squares_of_columns(const Columns& columns, const Update& update, int64_t count,
                                        const T* theta, const Partials<T>& partials,
                                        double* total) {
  double squares = 0;
  for (int64_t j = columns.low + threadIdx.x; j < columns.high; j += blockDim.x) {
    const bool intercept = j == columns.width;
    const double sum = column_sum(partials, columns.width, j);
    total[j] = sum;
    if (intercept && !columns.fit_intercept) continue;
    const double g = double(
        penalised(sum, 1.0 / double(count), T(update.l2), load_shared_by_all(theta + j), intercept));
    squares += g * g;
  }
  return squares;
}

// What a gradient of this norm is multiplied by.
SCHUSS_DEVICE double clipping(double clip_norm, double norm) {
  return clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1.0;
}

}  // namespace schuss

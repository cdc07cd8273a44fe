// The classic step: scikit-learn's per-sample loop, compiled once per instruction set like
// kernels.h.
//
// A row is read from memory once and then used by every weight vector, from the first-level cache.
// Margins of all come first and their losses side by side, so that no vector waits for another.
#pragma once
#include "classic_problem.h"
#include "sparse.h"

namespace schuss {
namespace SCHUSS_ISA {
namespace classic {

// Slopes are cut off here.
constexpr double largest_slope = 1e12;

// Moves a weight towards zero by what it still owes, and writes up what it has paid (Tsuruoka,
// Tsujii and Ananiadou 2009). Payments are signed: they are changes of the weight.
template <class T>
inline T pay(T w, T owed, T& paid) {
  const T from_above = larger(w - (owed + paid), T(0)),
          from_below = smaller(w + (owed - paid), T(0));
  const T now = w > T(0) ? from_above : w < T(0) ? from_below : w;
  paid += now - w;
  return now;
}

// ---- Rows: what a step does to one weight vector ----

// Dense rows: every weight takes part in every step.
template <class T>
struct DenseRows {
  const Problem<T>& problem;
  ClassicState<T>& state;
  int64_t d, ahead, near;

  DenseRows(const Problem<T>& p, const Rows& rows, ClassicState<T>& s, ClassicScratch<T>&)
      : problem(p),
        state(s),
        d(p.d),
        ahead(prefetch_distance<T>(d)),
        near(fetch_distance<T>(rows, d, longest_fetched)) {}

  void look_ahead(const Rows& rows, int64_t s) const {
    const int64_t next = rows.ahead(s, ahead);
    prefetch_label(problem, next);
    prefetch_row(problem.X + next * d, d);
    if (near) fetch_row(problem.X + rows.ahead(s, near) * d, d);
  }

  T margin(int64_t i, const T* w, int64_t) const { return dot(problem.X + i * d, w, d) + w[d]; }

  double squared_norm(int64_t i) const {
    const T* x = problem.X + i * d;
    double norm = 0;
    for (int64_t j = 0; j < d; ++j) norm += double(x[j]) * double(x[j]);
    return norm;
  }

  // w <- keep w + change x, then L1, then the average.
  void advance(int64_t i, T* __restrict w, int64_t k, double keep, double change) {
    const T* __restrict x = problem.X + i * d;
    const T factor = T(keep), step = T(change);
    if (state.paid) {
      const T owed = T(state.owed[k]);
      T* __restrict paid = state.paid + k * d;
      for (int64_t j = 0; j < d; ++j) w[j] = pay(factor * w[j] + step * x[j], owed, paid[j]);
    } else if (change != 0 || keep != 1) {
      for (int64_t j = 0; j < d; ++j) w[j] = factor * w[j] + step * x[j];
    }
    if (state.average) add_to_average(state.average + k * (d + 1), w, state.averaged, 0, d + 1);
  }

  void settle() {}
};

// Sparse rows: weight j is scale * v[j], and a step touches those of its entries alone.
template <class T, class I>
struct SparseRows {
  const SparseProblem<T, I>& problem;
  ClassicState<T>& state;
  ClassicScratch<T>& scratch;
  int64_t d, before;  // iterates in the average at the start

  SparseRows(const SparseProblem<T, I>& p, const Rows&, ClassicState<T>& s,
             ClassicScratch<T>& memory)
      : problem(p), state(s), scratch(memory), d(p.d), before(s.averaged) {
    for (int64_t k = 0; k < state.outputs; ++k) {
      scratch.scale[k] = 1;
      scratch.span[k] = 0;
    }
  }

  void look_ahead(const Rows& rows, int64_t s) const { sparse::look_ahead(problem, rows, s); }

  T margin(int64_t i, const T* v, int64_t k) const {
    const T sum = sparse::dot(problem.data, problem.indices, problem.begin(i), problem.begin(i + 1),
                              sparse::Plain<T>{v});
    return T(scratch.scale[k]) * sum + v[d];
  }

  double squared_norm(int64_t i) const {
    double norm = 0;
    for (int64_t q = problem.begin(i); q < problem.begin(i + 1); ++q)
      norm += double(problem.data[q]) * double(problem.data[q]);
    return norm;
  }

  // Iterates are counted by the sum of their scales: weight j has v[j] times that since it changed.
  void count(int64_t k, int64_t j, T v) {
    scratch.sum[k * d + j] += double(v) * (scratch.span[k] - scratch.counted[k * d + j]);
    scratch.counted[k * d + j] = scratch.span[k];
  }

  template <bool Soft, bool Averaged>
  void add(int64_t i, T* v, int64_t k, T step) {
    const T scale = T(scratch.scale[k]), inverse = T(1 / scratch.scale[k]);
    const T owed = T(state.owed[k]);
    for (int64_t q = problem.begin(i); q < problem.begin(i + 1); ++q) {
      SCHUSS_ONE_BY_ONE;
      const int64_t j = problem.indices[q];
      const T now = v[j] + step * problem.data[q];
      if (Averaged) count(k, j, v[j]);
      v[j] = Soft ? inverse * pay(scale * now, owed, state.paid[k * d + j]) : now;
    }
  }

  void advance(int64_t i, T* v, int64_t k, double keep, double change) {
    double& scale = scratch.scale[k];
    if (scale * keep < sparse::least_scale) {
      fold(v, k);
      for (int64_t j = 0; j < d; ++j) v[j] = T(keep * double(v[j]));
    } else {
      scale *= keep;
    }
    const T step = T(change / scale);
    if (state.paid)
      state.average ? add<true, true>(i, v, k, step) : add<true, false>(i, v, k, step);
    else if (change != 0)
      state.average ? add<false, true>(i, v, k, step) : add<false, false>(i, v, k, step);
    if (state.average) {
      scratch.span[k] += scale;
      add_to_average(state.average + k * (d + 1), v, state.averaged, d, d + 1);
    }
  }

  // The scale into the weights: weight j is v[j] from here on.
  void fold(T* v, int64_t k) {
    for (int64_t j = 0; j < d; ++j) {
      if (state.average) {
        count(k, j, v[j]);
        scratch.counted[k * d + j] = 0;
      }
      v[j] = T(scratch.scale[k] * double(v[j]));
    }
    scratch.scale[k] = 1;
    scratch.span[k] = 0;
  }

  void settle() {
    const double all = double(state.averaged);
    for (int64_t a = 0; a < state.count; ++a) {
      const int64_t k = state.active[a];
      fold(state.theta + k * (d + 1), k);
      if (!state.average || all == 0) continue;
      double* average = state.average + k * (d + 1);
      for (int64_t j = 0; j < d; ++j)
        average[j] = (average[j] * double(before) + scratch.sum[k * d + j]) / all;
    }
  }
};

// ---- The walk over the rows ----

// How long a step is: the rate, or what the row asks for (Crammer et al. 2006).
inline double length_of(const ClassicStep& step, double rate, double loss, double norm) {
  if (step.passive == 1) return smaller(step.aggressiveness, loss / norm);
  if (step.passive == 2) return loss / (norm + 0.5 / step.aggressiveness);
  return rate;
}

// The label of a row for output k, and its weight there.
template <class P, class T>
inline T label_of(const P& problem, const ClassicState<T>& state, int64_t i, int64_t k) {
  if (!state.own) return problem.y[i];
  return problem.y[i] == T(k) ? T(1) : T(-1);
}
template <class P, class T>
inline double weight_of(const P& problem, const ClassicState<T>& state, int64_t i, int64_t k) {
  const double weight = problem.weight ? double(problem.weight[i]) : 1;
  return state.own && problem.y[i] == T(k) ? weight * double(state.own[k]) : weight;
}

// Losses and slopes of a row for all outputs that are trained, in the order of the list.
template <class T, class P, class RowsInHand>
inline void weigh_row(WeighGroup<T> weigh, const P& problem, int64_t i, const RowsInHand& hand,
                      const ClassicStep& step, ClassicState<T>& state, ClassicScratch<T>& scratch) {
  for (int64_t a = 0; a < state.count; ++a) {
    const int64_t k = state.active[a];
    scratch.margins[a] = hand.margin(i, state.theta + k * (problem.d + 1), k);
    scratch.labels[a] = label_of(problem, state, i, k);
  }
  weigh(problem.loss_parameters, scratch.margins, scratch.labels, int(state.count), scratch.values,
        scratch.slopes);
  for (int64_t a = 0; a < state.count; ++a) {
    const int64_t k = state.active[a];
    const double b = double(state.theta[k * (problem.d + 1) + problem.d]);
    state.loss[k] += double(scratch.values[a]) + step.drift * b;
  }
}

template <class T, class P, class RowsInHand>
void descend(WeighGroup<T> weigh, const P& problem, const Rows& rows, const ClassicStep& step,
             ClassicState<T>& state, ClassicScratch<T>& scratch) {
  const int64_t d = problem.d;
  RowsInHand hand(problem, rows, state, scratch);
  for (int64_t s = 0; s < rows.count; ++s) {
    const int64_t i = rows[s];
    hand.look_ahead(rows, s);
    weigh_row(weigh, problem, i, hand, step, state, scratch);
    const double norm = step.passive ? hand.squared_norm(i) : 0;
    if (step.passive == 1 && norm == 0) continue;  // a row of zeros asks for nothing
    state.averaged += state.average != nullptr;
    for (int64_t a = 0; a < state.count; ++a) {
      const int64_t k = state.active[a];
      T* w = state.theta + k * (d + 1);
      const double rate = step.rates[s * step.stride] * state.factor[k];
      const double slope =
          smaller(larger(double(scratch.slopes[a]), -largest_slope), largest_slope);
      const double length = length_of(step, rate, double(scratch.values[a]), norm);
      const double change = -length * slope * weight_of(problem, state, i, k);
      state.owed[k] += rate * step.l1;
      if (problem.fit_intercept) w[d] += T((change - rate * step.drift) * step.intercept_decay);
      hand.advance(i, w, k, larger(1 - rate * step.l2, 0.0), change);
    }
  }
  hand.settle();
}

template <class T>
constexpr auto dense = descend<T, Problem<T>, DenseRows<T>>;
template <class T, class I>
constexpr auto csr = descend<T, SparseProblem<T, I>, SparseRows<T, I>>;

constexpr ClassicSet tables{dense<float>,        dense<double>,        csr<float, int32_t>,
                            csr<float, int64_t>, csr<double, int32_t>, csr<double, int64_t>};

}  // namespace classic
}  // namespace SCHUSS_ISA
}  // namespace schuss

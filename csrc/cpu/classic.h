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

// A product that is not fused with the sum it goes into: where intercepts come back to 0, as those
// of rows without entries do, what fusing keeps of the product's tail would be a sign.
SCHUSS_INLINE double rounded(double product) {
#if defined(__aarch64__)
  asm("" : "+w"(product));
#elif defined(__x86_64__)
  asm("" : "+x"(product));
#endif
  return product;
}

// Moves a weight, or a pack of them, towards zero by what it still owes, and writes up what it has
// paid (Tsuruoka, Tsujii and Ananiadou 2009). Payments are signed: they are changes of the weight.
// No branches: signs of weights are not to be foreseen.
template <class V>
inline V pay(V w, V owed, V& paid) {
  const V zero{};
  const V down = larger(owed + paid, zero), up = larger(owed - paid, zero);
  const V from_above = larger(larger(w, zero) - down, zero);
  const V from_below = smaller(smaller(w, zero) + up, zero);
  const V now = from_above + from_below;
  paid += now - w;
  return now;
}

// ---- Rows: what a step does to one weight vector ----

// Dense rows: every weight takes part in every step. Weights, and what they have paid, lie in
// padded memory, the tail's pack behind the whole ones: what one row stores, the next loads by the
// same packs, or it would wait for the store.
template <class T>
struct DenseRows {
  static constexpr int L = lanes<T>;
  const Problem<T>& problem;
  ClassicState<T>& state;
  ClassicScratch<T>& scratch;
  int64_t d, stride, ahead, near;
  Tail<T> tail;

  DenseRows(const Problem<T>& p, const Rows& rows, ClassicState<T>& s, ClassicScratch<T>& memory)
      : problem(p),
        state(s),
        scratch(memory),
        d(p.d),
        stride(padded(d)),
        ahead(prefetch_distance<T>(d)),
        near(fetch_distance<T>(rows, d, longest_fetched)),
        tail(d) {
    for (int64_t a = 0; a < state.count; ++a) {
      const int64_t k = state.active[a];
      copy_in(state.coef + k * d, scratch.weights + k * stride);
      if (state.paid) copy_in(state.paid + k * d, scratch.paid + k * stride);
    }
  }

  void copy_in(const T* from, T* to) const {
    for (int64_t j = 0; j < tail.begin; ++j) to[j] = from[j];
    if (tail.begin < d) store(to + tail.begin, load(from + tail.at, tail.part));
  }
  void copy_out(const T* from, T* to) const {
    for (int64_t j = 0; j < tail.begin; ++j) to[j] = from[j];
    for (int64_t j = tail.begin; j < d; ++j) to[j] = from[tail.place(j)];
  }

  SCHUSS_INLINE void look_ahead(const Rows& rows, int64_t s) const {
    const int64_t next = rows.ahead(s, ahead);
    prefetch_label(problem, next);
    prefetch_row(problem.X + next * d, d);
    if (near) fetch_row(problem.X + rows.ahead(s, near) * d, d);
  }

  void margins(int64_t i) const {
    for (int64_t a = 0; a < state.count; ++a) scratch.margins[a] = margin(i, state.active[a]);
  }

  T margin(int64_t i, int64_t k) const {
    const T *x = problem.X + i * d, *w = scratch.weights + k * stride;
    Pack<T> sums[4] = {in_first_lane(T(state.intercept[k]))};
    int64_t j = 0;
    for (; j + 4 * L <= d; j += 4 * L)
      for (int q = 0; q < 4; ++q)
        sums[q] = multiply_add(load(x + j + q * L), load(w + j + q * L), sums[q]);
    for (; j + L <= d; j += L) sums[1] = multiply_add(load(x + j), load(w + j), sums[1]);
    if (j < d) sums[2] = multiply_add(load(x + tail.at, tail.part), load(w + j), sums[2]);
    return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }

  double squared_norm(int64_t i) const {
    const T* x = problem.X + i * d;
    double norm = 0;
    for (int64_t j = 0; j < d; ++j) norm += double(x[j]) * double(x[j]);
    return norm;
  }

  template <bool Soft>
  void move(const T* x, T* w, T* paid, T keep, T step, T owed) const {
    const Pack<T> factor = all(keep), change = all(step), amount = all(owed);
    const auto one_pack = [&](int64_t j, Pack<T> row) {
      Pack<T> v = advance_pack<T>(load(w + j), row, factor, change);
      if (Soft) {
        Pack<T> so_far = load(paid + j);
        v = pay(v, amount, so_far);
        store(paid + j, so_far);
      }
      store(w + j, v);
    };
    int64_t j = 0;
    for (; j + L <= d; j += L) one_pack(j, load(x + j));
    if (j < d) one_pack(j, load(x + tail.at, tail.part));
  }

  // w <- keep w + change x, then L1, then the average.
  void advance(int64_t i) const {
    for (int64_t a = 0; a < state.count; ++a)
      advance_one(problem.X + i * d, state.active[a], scratch.keep[a], scratch.change[a]);
  }

  void advance_one(const T* x, int64_t k, double keep, double change) const {
    T *w = scratch.weights + k * stride, *paid = scratch.paid + k * stride;
    if (state.paid)
      move<true>(x, w, paid, T(keep), T(change), T(state.owed[k]));
    else if (change != 0 || keep != 1)
      move<false>(x, w, nullptr, T(keep), T(change), T(0));
    if (!state.average) return;
    double* average = state.average + k * (d + 1);
    const double part = 1 / double(state.averaged);
    add_to_average(average, w, state.averaged, 0, tail.begin);
    for (int64_t j = tail.begin; j < d; ++j)
      average[j] += (double(w[tail.place(j)]) - average[j]) * part;
  }

  void settle() {
    for (int64_t a = 0; a < state.count; ++a) {
      const int64_t k = state.active[a];
      copy_out(scratch.weights + k * stride, state.coef + k * d);
      if (state.paid) copy_out(scratch.paid + k * stride, state.paid + k * d);
    }
  }
};

// What is worked on together: the weights of a feature, one for each output, as packs; or the only
// one.
template <class V>
struct Lane {
  template <class T>
  static V get(const T* p) {
    return load(p);
  }
  template <class T>
  static void put(T* p, V v) {
    store(p, v);
  }
};
template <>
struct Lane<float> {
  static float get(const float* p) { return *p; }
  static void put(float* p, float v) { *p = v; }
};
template <>
struct Lane<double> {
  static double get(const double* p) { return *p; }
  static void put(double* p, double v) { *p = v; }
};

// Sparse rows: weight j is scale * v[j], and a step touches those of its entries alone. What is
// kept of a feature lies together, so that an entry finds it on one line: `width` weights, outputs
// side by side, and with L1 what each has paid. The sum of an output's iterates is span * v[j] -
// aux[j], with span the sum of their scales.
template <class T, class I, class V>
struct SparseRows {
  static constexpr int64_t L = int64_t(sizeof(V) / sizeof(T));
  const SparseProblem<T, I>& problem;
  ClassicState<T>& state;
  ClassicScratch<T>& scratch;
  int64_t d, width, stride, before;  // iterates in the average at the start

  SparseRows(const SparseProblem<T, I>& p, const Rows&, ClassicState<T>& s,
             ClassicScratch<T>& memory)
      : problem(p),
        state(s),
        scratch(memory),
        d(p.d),
        width(memory.width),
        stride(s.paid ? 2 * width : width),
        before(s.averaged) {
    for (int64_t k = 0; k < state.outputs; ++k) {
      scratch.scale[k] = 1;
      scratch.span[k] = 0;
      for (int64_t j = 0; j < d; ++j) {
        weight(j)[k] = state.coef[k * d + j];
        if (state.paid) weight(j)[width + k] = state.paid[k * d + j];
      }
    }
    for (int64_t a = 0; a < state.count; ++a) scratch.live[state.active[a]] = 1;
  }

  T* weight(int64_t j) const { return scratch.weights + j * stride; }

  SCHUSS_INLINE void look_ahead(const Rows& rows, int64_t s) const {
    sparse::look_ahead(problem, rows, s);
  }

  // Over the entries of row i, in partial sums that overlap.
  void margins(int64_t i) const {
    const int64_t begin = problem.begin(i), end = problem.begin(i + 1);
    for (int64_t q = 0; q < width; q += L) {
      V part[4] = {};
      int64_t e = begin;
      for (; e + 4 <= end; e += 4)
        for (int r = 0; r < 4; ++r) {
          SCHUSS_ONE_BY_ONE;
          part[r] += problem.data[e + r] * Lane<V>::get(weight(problem.indices[e + r]) + q);
        }
      for (; e < end; ++e)
        part[0] += problem.data[e] * Lane<V>::get(weight(problem.indices[e]) + q);
      Lane<V>::put(scratch.step + q, (part[0] + part[1]) + (part[2] + part[3]));
    }
    for (int64_t a = 0; a < state.count; ++a) {
      const int64_t k = state.active[a];
      scratch.margins[a] = T(scratch.scale[k]) * scratch.step[k] + T(state.intercept[k]);
    }
  }

  double squared_norm(int64_t i) const {
    double norm = 0;
    for (int64_t e = problem.begin(i); e < problem.begin(i + 1); ++e)
      norm += double(problem.data[e]) * double(problem.data[e]);
    return norm;
  }

  template <bool Soft, bool Averaged>
  void add(int64_t i) const {
    for (int64_t q = 0; q < width; q += L) add_to<Soft, Averaged>(i, q);
  }

  // The outputs from q on, one pack of them.
  template <bool Soft, bool Averaged>
  void add_to(int64_t i, int64_t q) const {
    const auto of = [q](const T* p) { return Lane<V>::get(p + q); };
    const V step = of(scratch.step), scale = of(scratch.scales), inverse = of(scratch.inverse);
    const V owed = of(scratch.owed), live = of(scratch.live), zero{};
    for (int64_t e = problem.begin(i), end = problem.begin(i + 1); e < end; ++e) {
      SCHUSS_ONE_BY_ONE;
      const int64_t j = problem.indices[e];
      T* w = weight(j) + q;
      const V v = Lane<V>::get(w);
      V now = v + problem.data[e] * step;
      if (Soft) {
        const V paid = Lane<V>::get(w + width);
        V so_far = paid;
        const V left = inverse * pay(V(scale * now), owed, so_far);
        if constexpr (L > 1) {
          now = live > zero ? left : v;
          so_far = live > zero ? so_far : paid;
        } else {
          now = left;
        }
        Lane<V>::put(w + width, so_far);
      }
      Lane<V>::put(w, now);
      if (Averaged) {
        T moved[L];
        Lane<V>::put(moved, now - v);
        double* aux = scratch.aux + j * width + q;
        for (int64_t l = 0; l < L; ++l) aux[l] += double(moved[l]) * scratch.span[q + l];
      }
    }
  }

  void advance(int64_t i) const {
    bool moved = false;
    for (int64_t k = 0; k < width; ++k) scratch.step[k] = 0;
    for (int64_t a = 0; a < state.count; ++a) {
      const int64_t k = state.active[a];
      shrink(k, scratch.keep[a]);
      scratch.step[k] = T(scratch.change[a] / scratch.scale[k]);
      scratch.scales[k] = T(scratch.scale[k]);
      scratch.inverse[k] = T(1 / scratch.scale[k]);
      scratch.owed[k] = T(state.owed[k]);
      moved |= scratch.change[a] != 0;
    }
    if (state.paid)
      state.average ? add<true, true>(i) : add<true, false>(i);
    else if (moved)
      state.average ? add<false, true>(i) : add<false, false>(i);
    for (int64_t a = 0; a < state.count; ++a)
      scratch.span[state.active[a]] += scratch.scale[state.active[a]];
  }

  void shrink(int64_t k, double keep) const {
    // The mean is a difference of numbers over the scale: it loses the digits that the scale has.
    if (scratch.scale[k] * keep >= (state.average ? 1e-3 : sparse::least_scale)) {
      scratch.scale[k] *= keep;
      return;
    }
    fold(k);
    for (int64_t j = 0; j < d; ++j) weight(j)[k] = T(keep * double(weight(j)[k]));
  }

  // The scale into the weights: weight j is v[j] from here on.
  void fold(int64_t k) const {
    for (int64_t j = 0; j < d; ++j) {
      T& v = weight(j)[k];
      if (state.average) scratch.aux[j * width + k] -= scratch.span[k] * double(v);
      v = T(scratch.scale[k] * double(v));
    }
    scratch.scale[k] = 1;
    scratch.span[k] = 0;
  }

  void settle() const {
    const double all = double(state.averaged);
    for (int64_t a = 0; a < state.count; ++a) {
      const int64_t k = state.active[a];
      fold(k);
      for (int64_t j = 0; j < d; ++j) {
        state.coef[k * d + j] = weight(j)[k];
        if (state.paid) state.paid[k * d + j] = weight(j)[width + k];
      }
      if (!state.average || all == 0) continue;
      double* average = state.average + k * (d + 1);
      for (int64_t j = 0; j < d; ++j)
        average[j] = (average[j] * double(before) - scratch.aux[j * width + k]) / all;
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
template <class T, class P>
inline void weigh_row(WeighGroup<T> weigh, const P& problem, int64_t i, const ClassicStep& step,
                      ClassicState<T>& state, ClassicScratch<T>& scratch) {
  for (int64_t a = 0; a < state.count; ++a)
    scratch.labels[a] = label_of(problem, state, i, state.active[a]);
  weigh(problem.loss_parameters, scratch.margins, scratch.labels, int(state.count), scratch.values,
        scratch.slopes);
  for (int64_t a = 0; a < state.count; ++a) {
    const int64_t k = state.active[a];
    state.loss[k] += double(scratch.values[a]) + step.drift * state.intercept[k];
  }
}

// What the a-th output's weights are to do, and its intercept's part of the step.
template <class T, class P>
inline void decide(const P& problem, int64_t i, int64_t a, double given, double norm,
                   const ClassicStep& step, ClassicState<T>& state, ClassicScratch<T>& scratch) {
  const int64_t k = state.active[a];
  const double rate = given * state.factor[k];
  const double slope = smaller(larger(double(scratch.slopes[a]), -largest_slope), largest_slope);
  const double length = length_of(step, rate, double(scratch.values[a]), norm);
  const double change = -length * slope * weight_of(problem, state, i, k);
  scratch.change[a] = change;
  scratch.keep[a] = larger(1 - rate * step.l2, 0.0);
  state.owed[k] += rate * step.l1;
  double& b = state.intercept[k];
  if (problem.fit_intercept) b += rounded((change - rate * step.drift) * step.intercept_decay);
  if (state.average) {
    double& mean = state.average[k * (problem.d + 1) + problem.d];
    mean += (b - mean) / double(state.averaged);
  }
}

template <class T, class P, class RowsInHand>
void descend(WeighGroup<T> weigh, const P& problem, const Rows& rows, const ClassicStep& step,
             ClassicState<T>& state, ClassicScratch<T>& scratch) {
  RowsInHand hand(problem, rows, state, scratch);
  for (int64_t s = 0; s < rows.count; ++s) {
    const int64_t i = rows[s];
    hand.look_ahead(rows, s);
    hand.margins(i);
    weigh_row(weigh, problem, i, step, state, scratch);
    const double norm = step.passive ? hand.squared_norm(i) : 0;
    if (step.passive == 1 && norm == 0) continue;  // a row of zeros asks for nothing
    state.averaged += state.average != nullptr;
    for (int64_t a = 0; a < state.count; ++a)
      decide(problem, i, a, step.rates[s * step.stride], norm, step, state, scratch);
    hand.advance(i);
  }
  hand.settle();
}

template <class T, class I>
void descend_sparse(WeighGroup<T> weigh, const SparseProblem<T, I>& problem, const Rows& rows,
                    const ClassicStep& step, ClassicState<T>& state, ClassicScratch<T>& scratch) {
  if (scratch.width == 1)
    descend<T, SparseProblem<T, I>, SparseRows<T, I, T>>(weigh, problem, rows, step, state,
                                                         scratch);
  else
    descend<T, SparseProblem<T, I>, SparseRows<T, I, Pack<T>>>(weigh, problem, rows, step, state,
                                                               scratch);
}

template <class T>
constexpr auto dense = descend<T, Problem<T>, DenseRows<T>>;
constexpr ClassicSet tables{lanes<float>,
                            lanes<double>,
                            dense<float>,
                            dense<double>,
                            descend_sparse<float, int32_t>,
                            descend_sparse<float, int64_t>,
                            descend_sparse<double, int32_t>,
                            descend_sparse<double, int64_t>};

}  // namespace classic
}  // namespace SCHUSS_ISA
}  // namespace schuss

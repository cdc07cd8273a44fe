// The CPU loops over sparse rows (CSR), compiled once per instruction set like kernels.h.
//
// A step goes over the entries of its rows and nothing else. What a penalty does to all weights at
// every step is put off until a weight is next looked at (docs/design/sparse.rst).
#pragma once
#include "kernels.h"
#include "sparse_problem.h"

namespace schuss {
namespace SCHUSS_ISA {
namespace sparse {

// ---- Weights whose penalties are put off ----

enum class Penalties { none_or_l2, l1, averaged };

// The scale is folded into the weights below this; v stays far from overflow.
constexpr double least_scale = 1e-9;

// Weight j is scale * v[j], with L1 scale * shrink_towards_zero(v[j], owed - paid[j]). L2 makes the
// scale smaller, L1 adds to what is owed. `low` and `high` bound the columns a crew member owns.
template <class T, Penalties kind>
struct Weights {
  static constexpr bool soft = kind == Penalties::l1, averaged = kind == Penalties::averaged;
  T *v, *paid;
  double *sum, *counted;
  int64_t low, high;
  double scale = 1, inverse = 1, owed = 0;
  T debt = 0;       // what is owed, rounded as it is paid: the parts of it add up to it
  double span = 0;  // sum of the scales of all iterates so far

  Weights(T* theta, const SparseScratch<T>& scratch, int64_t first, int64_t last)
      : v(theta),
        paid(scratch.paid),
        sum(scratch.sum),
        counted(scratch.counted),
        low(first),
        high(last) {}

  // Weight j over the scale.
  T at(int64_t j) const { return soft ? shrink_towards_zero(v[j], debt - paid[j]) : v[j]; }

  void add(int64_t j, T change) {
    if (averaged) {
      sum[j] += double(v[j]) * (span - counted[j]);
      counted[j] = span;
    }
    v[j] = at(j) + change;
    if (soft) paid[j] = debt;
  }

  // Brings the columns it owns to date: weight j is v[j] from here on.
  void settle() {
    for (int64_t j = low; j < high; ++j) {
      if (averaged) {
        sum[j] += double(v[j]) * (span - counted[j]);
        counted[j] = 0;
      }
      v[j] = T(scale * double(at(j)));
      if (soft) paid[j] = 0;
    }
    scale = inverse = 1;
    owed = debt = span = 0;
  }

  // The L2 penalty of one step, before its gradient is added in units of the scale.
  void decay(double keep) {
    if (scale * keep < least_scale) {  // also where a step is so long that weights change sign
      settle();
      for (int64_t j = low; j < high; ++j) v[j] = T(keep * double(v[j]));
    } else if (keep != 1) {
      scale *= keep;
      inverse = 1 / scale;
    }
  }

  // The L1 penalty, after it.
  void soften(double amount) {
    if (soft) debt = T(owed += amount * inverse);
    if (averaged) span += scale;
  }

  // The mean of the iterates into the average of those before them.
  void average(const State<T>& state, int64_t iterates) const {
    const double all = double(state.averaged), before = all - double(iterates);
    for (int64_t j = low; j < high; ++j)
      state.average[j] = (state.average[j] * before + sum[j]) / all;
  }
};

// ---- Shared primitives ----

// Numbers that lie apart are loaded and stored one by one: to pack them into vectors, as a compiler
// would, takes longer than what a vector saves.
#define SCHUSS_ONE_BY_ONE asm volatile("")

// Sum of the entries begin <= k < end times their weights over the scale, in partial sums that
// overlap.
template <class T, class I, class W>
SCHUSS_INLINE T dot(const T* data, const I* indices, int64_t begin, int64_t end, const W& weights) {
  T part[4] = {};
  int64_t k = begin;
  for (; k + 4 <= end; k += 4)
    for (int r = 0; r < 4; ++r) {
      SCHUSS_ONE_BY_ONE;
      part[r] += data[k + r] * weights.at(indices[k + r]);
    }
  for (; k < end; ++k) part[0] += data[k] * weights.at(indices[k]);
  return (part[0] + part[1]) + (part[2] + part[3]);
}

// Weights as they stand.
template <class T>
struct Plain {
  const T* w;
  T at(int64_t j) const { return w[j]; }
};

// First entry of begin <= k < end whose column is not below `column`.
template <class I>
inline int64_t first_from(const I* indices, int64_t begin, int64_t end, int64_t column) {
  while (begin < end) {
    const int64_t middle = begin + (end - begin) / 2;
    if (indices[middle] < column)
      begin = middle + 1;
    else
      end = middle;
  }
  return begin;
}

// The columns that a crew member owns.
template <class T>
inline void own_columns(const SparseScratch<T>& scratch, int64_t d, Crew crew, int64_t& low,
                        int64_t& high) {
  low = crew.size > 1 ? scratch.cuts[scratch.pieces * crew.rank / crew.size] : 0;
  high = crew.size > 1 ? scratch.cuts[scratch.pieces * (crew.rank + 1) / crew.size] : d;
}

// Calls visit(column, entry) for the entries of row i in the columns low <= j < high.
template <class T, class I, class Visit>
inline void for_entries(const SparseProblem<T, I>& problem, int64_t i, int64_t low, int64_t high,
                        Visit visit) {
  int64_t begin = problem.begin(i), end = problem.begin(i + 1);
  if (low > 0) begin = first_from(problem.indices, begin, end, low);
  if (high < problem.d) end = first_from(problem.indices, begin, end, high);
  for (int64_t k = begin; k < end; ++k) {
    SCHUSS_ONE_BY_ONE;
    visit(int64_t(problem.indices[k]), problem.data[k]);
  }
}

// What the processor is asked for ahead of its use: where a row begins; its entries, into the
// second-level cache, which has more room on the way to it; then from there into the first, so that
// the weights' places are known early.
template <class T, class I>
SCHUSS_INLINE void prefetch_begin(const SparseProblem<T, I>& problem, int64_t i) {
  if (problem.narrow)
    prefetch(problem.narrow + i);
  else
    prefetch(problem.wide + i);
  prefetch_label(problem, i);
}
template <class T, class I>
SCHUSS_INLINE void prefetch_entries(const SparseProblem<T, I>& problem, int64_t i) {
  const int64_t begin = problem.begin(i), count = problem.begin(i + 1) - begin;
  prefetch_row(problem.indices + begin, count);
  prefetch_row(problem.data + begin, count);
}
template <class T, class I>
SCHUSS_INLINE void fetch_entries(const SparseProblem<T, I>& problem, int64_t i) {
  const int64_t begin = problem.begin(i), count = problem.begin(i + 1) - begin;
  fetch_row(problem.indices + begin, count);
  fetch_row(problem.data + begin, count);
}

constexpr int64_t begins_ahead = 32, entries_ahead = 16, fetched_ahead = 2;  // rows

template <class T, class I>
SCHUSS_INLINE void look_ahead(const SparseProblem<T, I>& problem, const Rows& rows, int64_t s) {
  if (s + begins_ahead < rows.sight) prefetch_begin(problem, rows[s + begins_ahead]);
  if (s + entries_ahead < rows.sight) prefetch_entries(problem, rows[s + entries_ahead]);
  if (s + fetched_ahead < rows.sight) fetch_entries(problem, rows[s + fetched_ahead]);
}

template <class T, class Loss>
T weigh_one(const Labels<T>& labels, int64_t i, T margin, double* total) {
  return weigh(labels, Loss(labels.loss_parameters), i, margin, *total);
}

// ---- Per-sample descent ----

template <class T, class I, Penalties kind>
Outcome walk_rows(typename SparseKernels<T, I>::Weigh weigh, const SparseProblem<T, I>& problem,
                  const Rows& rows, const Update& update, State<T>& state,
                  SparseScratch<T>& scratch) {
  if (rows.count == 0) return {0, 0};
  const int64_t d = problem.d;
  Weights<T, kind> weights(state.theta, scratch, 0, d);
  T b = state.theta[d];
  double total = 0, norm = 0;
  for (int64_t s = 0; s < rows.count; ++s) {
    look_ahead(problem, rows, s);
    const int64_t i = rows[s], begin = problem.begin(i), end = problem.begin(i + 1);
    const T* data = problem.data;
    const I* indices = problem.indices;
    const T margin = T(weights.scale) * dot(data, indices, begin, end, weights) + b;
    const T slope = weigh(problem, i, margin, &total);
    if (s + 1 == rows.count) {
      weights.settle();
      for (int64_t j = 0; j < d; ++j) norm += double(weights.v[j]) * double(weights.v[j]);
      norm *= update.l2 * update.l2;
      for (int64_t k = begin; k < end; ++k) {
        const double g = double(slope * data[k]);
        norm += g * (g + 2 * update.l2 * double(weights.v[indices[k]]));
      }
      if (problem.fit_intercept) norm += double(slope) * double(slope);
    }
    const double rate = update.constants[s * update.stride];
    weights.decay(1 - rate * update.l2);
    const T change = T(-rate * weights.inverse) * slope;
    for (int64_t k = begin; k < end; ++k) {
      SCHUSS_ONE_BY_ONE;
      weights.add(indices[k], change * data[k]);
    }
    weights.soften(rate * update.l1);
    if (problem.fit_intercept) b -= T(rate) * slope;
    if (state.average) {
      state.theta[d] = b;
      add_to_average(state.average, state.theta, ++state.averaged, d, d + 1);
    }
  }
  weights.settle();
  if (weights.averaged) weights.average(state, rows.count);
  state.theta[d] = b;
  return {total, square_root(norm)};
}

template <class T, class I>
Outcome descend_samples(typename SparseKernels<T, I>::Weigh weigh,
                        const SparseProblem<T, I>& problem, const Rows& rows, const Update& update,
                        State<T>& state, SparseScratch<T>& scratch) {
  if (update.l1 > 0)
    return walk_rows<T, I, Penalties::l1>(weigh, problem, rows, update, state, scratch);
  if (state.average)
    return walk_rows<T, I, Penalties::averaged>(weigh, problem, rows, update, state, scratch);
  return walk_rows<T, I, Penalties::none_or_l2>(weigh, problem, rows, update, state, scratch);
}

// ---- Gradient ----
//
// Two passes over a wave of rows while their entries are in a cache: slopes, each row by itself;
// then the entries into the sum, each thread those of its own columns, row after row. So the order
// in which a column's numbers are added does not depend on the crew's size.

// Slopes of the rows from place `first` on into scratch.slopes, each member some tiles. The tiles'
// losses are added by rank 0 after the barrier.
template <class T, class I, class W>
inline void wave_slopes(typename SparseKernels<T, I>::Weigh weigh,
                        const SparseProblem<T, I>& problem, const Rows& rows, int64_t first,
                        int64_t count, const W& weights, T scale, T b, SparseScratch<T>& scratch,
                        double* summed, Crew crew) {
  const int64_t tiles = (count + tile_rows - 1) / tile_rows;
  const int64_t last = tiles * (crew.rank + 1) / crew.size;
  for (int64_t t = tiles * crew.rank / crew.size; t < last; ++t) {
    double loss = 0;
    for (int64_t s = t * tile_rows; s < smaller((t + 1) * tile_rows, count); ++s) {
      look_ahead(problem, rows, first + s);
      const int64_t i = rows[first + s];
      const T sum =
          dot(problem.data, problem.indices, problem.begin(i), problem.begin(i + 1), weights);
      scratch.slopes[s] = weigh(problem, i, scale * sum + b, &loss);
    }
    scratch.loss[t] = loss;
  }
  crew.wait();
  if (crew.rank == 0)
    for (int64_t t = 0; t < tiles; ++t) *summed += scratch.loss[t];
}

// Rows worked on at once: the entries of few stay in a near cache, several threads want many.
inline int64_t wave_rows(Crew crew) { return crew.size > 1 ? wave_tiles * tile_rows : tile_rows; }

// Adds the summed gradient of the rows to scratch.total and their summed loss to *summed.
template <class T, class I>
void add_gradient(typename SparseKernels<T, I>::Weigh weigh, const SparseProblem<T, I>& problem,
                  const Rows& rows, const T* theta, SparseScratch<T>& scratch, double* summed,
                  Crew crew) {
  const int64_t d = problem.d;
  int64_t low, high;
  own_columns(scratch, d, crew, low, high);
  double* total = scratch.total;
  for (int64_t first = 0; first < rows.count; first += wave_rows(crew)) {
    const int64_t count = smaller(wave_rows(crew), rows.count - first);
    wave_slopes(weigh, problem, rows, first, count, Plain<T>{theta}, T(1), theta[d], scratch,
                summed, crew);
    for (int64_t s = 0; s < count; ++s) {
      const T slope = scratch.slopes[s];
      for_entries(problem, rows[first + s], low, high,
                  [=](int64_t j, T x) { total[j] += double(slope * x); });
      if (crew.rank == 0 && problem.fit_intercept) total[d] += double(slope);
    }
    crew.wait();
  }
}

// Summed loss and gradient, and the summed squared norm of the samples' gradients.
template <class T, class I>
double variance(typename SparseKernels<T, I>::Weigh weigh, const SparseProblem<T, I>& problem,
                const Rows& rows, const T* theta, double* loss, double* gradient) {
  const int64_t d = problem.d;
  double second = 0;
  for (int64_t s = 0; s < rows.count; ++s) {
    look_ahead(problem, rows, s);
    const int64_t i = rows[s], begin = problem.begin(i), end = problem.begin(i + 1);
    const T margin = dot(problem.data, problem.indices, begin, end, Plain<T>{theta}) + theta[d];
    const double slope = double(weigh(problem, i, margin, loss));
    double norm = problem.fit_intercept ? 1 : 0;
    for (int64_t k = begin; k < end; ++k) {
      const double element = double(problem.data[k]);
      norm += element * element;
      gradient[problem.indices[k]] += slope * element;
    }
    if (problem.fit_intercept) gradient[d] += slope;
    second += slope * slope * norm;
  }
  return second;
}

template <class T, class I>
void margin(const SparseProblem<T, I>& problem, const Rows& rows, const T* theta, T* out) {
  for (int64_t s = 0; s < rows.count; ++s) {
    look_ahead(problem, rows, s);
    const int64_t i = rows[s];
    out[s] = dot(problem.data, problem.indices, problem.begin(i), problem.begin(i + 1),
                 Plain<T>{theta}) +
             theta[problem.d];
  }
}

// ---- Mini-batch descent by plain sgd ----
//
// Its update is linear in the slopes: entries go straight into the weights, and no gradient is
// formed but that of the last step, for its norm.

template <class T, class I, Penalties kind>
Outcome walk_batches(typename SparseKernels<T, I>::Weigh weigh, const SparseProblem<T, I>& problem,
                     const Rows& rows, int64_t batch_size, const Update& update, State<T>& state,
                     SparseScratch<T>& scratch, Crew crew) {
  const int64_t d = problem.d;
  int64_t low, high;
  own_columns(scratch, d, crew, low, high);
  Weights<T, kind> weights(state.theta, scratch, low, high);
  T b = state.theta[d];
  double summed = 0, norm = 0;
  int64_t averaged = state.averaged, steps = 0;
  crew.wait();  // all have read what rank 0 changes
  for (int64_t begin = 0; begin < rows.count; begin += batch_size, ++steps) {
    const int64_t count = smaller(batch_size, rows.count - begin);
    const double rate = update.constants[steps * update.stride];
    const Rows batch = rows.part(begin, count);
    double loss = 0;
    T bias = 0;
    wave_slopes(weigh, problem, batch, 0, count, weights, T(weights.scale), b, scratch, &loss,
                crew);
    summed += loss;
    for (int64_t s = 0; s < count; ++s) bias += scratch.slopes[s];
    if (begin + count == rows.count) {
      weights.settle();
      for (int64_t j = low; j < high; ++j)
        scratch.total[j] = double(count) * update.l2 * double(weights.v[j]);
      for (int64_t s = 0; s < count; ++s) {
        const T slope = scratch.slopes[s];
        for_entries(problem, batch[s], low, high,
                    [&](int64_t j, T x) { scratch.total[j] += double(slope * x); });
      }
      crew.wait();
      const double mean = 1.0 / double(count);
      for (int64_t j = 0; j < d; ++j) norm += scratch.total[j] * mean * scratch.total[j] * mean;
      if (problem.fit_intercept) norm += double(bias) * mean * double(bias) * mean;
    }
    weights.decay(1 - rate * update.l2);
    const T change = T(-rate * weights.inverse / double(count));
    for (int64_t s = 0; s < count; ++s) {
      const T part = change * scratch.slopes[s];
      for_entries(problem, batch[s], low, high, [&](int64_t j, T x) { weights.add(j, part * x); });
    }
    weights.soften(rate * update.l1);
    if (problem.fit_intercept) b -= T(rate / double(count)) * bias;
    if (state.average) {
      ++averaged;
      if (crew.rank == 0) {
        state.theta[d] = b;
        add_to_average(state.average, state.theta, averaged, d, d + 1);
      }
    }
    crew.wait();
  }
  weights.settle();
  if (crew.rank == 0) {
    state.theta[d] = b;
    state.averaged = averaged;
  }
  crew.wait();
  if (weights.averaged && steps > 0) weights.average(state, steps);
  crew.wait();
  return {summed, square_root(norm)};
}

template <class T, class I>
Outcome descend_batches(typename SparseKernels<T, I>::Weigh weigh,
                        const SparseProblem<T, I>& problem, const Rows& rows, int64_t batch_size,
                        const Update& update, State<T>& state, SparseScratch<T>& scratch,
                        Crew crew) {
  if (update.l1 > 0)
    return walk_batches<T, I, Penalties::l1>(weigh, problem, rows, batch_size, update, state,
                                             scratch, crew);
  if (state.average)
    return walk_batches<T, I, Penalties::averaged>(weigh, problem, rows, batch_size, update, state,
                                                   scratch, crew);
  return walk_batches<T, I, Penalties::none_or_l2>(weigh, problem, rows, batch_size, update, state,
                                                   scratch, crew);
}

// ---- Mini-batch descent by a rule that changes all weights at every step ----

template <class T, class I>
Outcome descend_all(typename SparseKernels<T, I>::Weigh weigh, const VectorKernels<T>& vectors,
                    int rule, const SparseProblem<T, I>& problem, const Rows& rows,
                    int64_t batch_size, const Update& update, State<T>& shared,
                    SparseScratch<T>& scratch, Crew crew) {
  const int64_t d = problem.d;
  State<T> state = shared;  // the count of averaged iterates is each member's own
  Columns columns{d, 0, 0, problem.fit_intercept};
  share(d, crew, columns.low, columns.high);
  Outcome outcome{0, 0};
  for (int64_t begin = 0, step = 0; begin < rows.count; begin += batch_size, ++step) {
    const int64_t count = smaller(batch_size, rows.count - begin);
    for (int64_t j = columns.low; j < columns.high; ++j) scratch.total[j] = 0;
    crew.wait();
    add_gradient(weigh, problem, rows.part(begin, count), state.theta, scratch, &outcome.loss,
                 crew);
    double factor = 1;
    if (update.clip_norm > 0 || begin + count == rows.count) {
      const double norm = vectors.norm(update, nullptr, scratch.total, count, state.theta, d);
      if (update.clip_norm > 0 && norm > update.clip_norm) factor = update.clip_norm / norm;
      outcome.gradient_norm = norm;
      crew.wait();
    }
    vectors.finish[rule](columns, update, step, nullptr, scratch.total, count, factor, state);
    if (state.average) ++state.averaged;
    crew.wait();
  }
  if (crew.rank == 0) shared.averaged = state.averaged;
  return outcome;
}

// ---- Asynchronous descent ----
//
// Each member takes rows that nobody has taken yet and changes the weights that all share, without
// a lock (Niu, Recht, Re, Wright, Hogwild!, 2011). An update of one weight may be lost where two
// meet. Weights are atomic in the relaxed sense, plain loads and stores to the processor. The scale
// of the L2 penalty is a function of the step alone, and so needs no sharing.

constexpr int64_t rows_taken = 64;  // at a time
constexpr int64_t look_every = 16;  // updates

template <class T>
struct Shared {
  T* v;
  T at(int64_t j) const {
    T value;
    __atomic_load(v + j, &value, __ATOMIC_RELAXED);
    return value;
  }
  void put(int64_t j, T value) { __atomic_store(v + j, &value, __ATOMIC_RELAXED); }
};

// Updates that the others have made.
template <class T>
inline int64_t made_by_others(const FreeScratch<T>& scratch, Crew crew) {
  int64_t made = 0;
  for (int r = 0; r < crew.size; ++r)
    if (r != crew.rank) made += __atomic_load_n(scratch.done + 8 * r, __ATOMIC_RELAXED);
  return made;
}

template <class T, class I>
void descend_freely(typename SparseKernels<T, I>::Weigh weigh, const SparseProblem<T, I>& problem,
                    const Rows& rows, const Update& update, T* theta, FreeScratch<T>& scratch,
                    Crew crew) {
  const int64_t d = problem.d;
  const T* data = problem.data;
  const I* indices = problem.indices;
  Shared<T> weights{theta};
  T* seen = scratch.seen + crew.rank * scratch.width;
  Meetings met{};
  double total = 0;
  int64_t made = 0;
  for (;;) {
    const int64_t first = __atomic_fetch_add(&scratch.next, rows_taken, __ATOMIC_RELAXED);
    if (first >= rows.count) break;
    for (int64_t s = first; s < smaller(first + rows_taken, rows.count); ++s) {
      look_ahead(problem, rows, s);
      const int64_t i = rows[s], begin = problem.begin(i), end = problem.begin(i + 1);
      const bool look = crew.size > 1 && s % look_every == 0;
      const int64_t before = look ? made_by_others(scratch, crew) : 0;
      if (look)
        for (int64_t k = begin; k < end; ++k) seen[k - begin] = weights.at(indices[k]);
      const T sum = dot(data, indices, begin, end, weights);
      const T slope = weigh(problem, i, T(scratch.scales[s]) * sum + weights.at(d), &total);
      const double rate = update.constants[s * update.stride];
      const T change = T(-rate * (1 / scratch.scales[s + 1])) * slope;
      bool conflict = false;
      for (int64_t k = begin; k < end; ++k) {
        SCHUSS_ONE_BY_ONE;
        const T w = weights.at(indices[k]);
        if (look) conflict |= w != seen[k - begin];
        weights.put(indices[k], w + change * data[k]);
      }
      if (problem.fit_intercept) weights.put(d, weights.at(d) - T(rate) * slope);
      if (look) {
        const int64_t delay = made_by_others(scratch, crew) - before;
        ++met.looked_at;
        met.conflicts += conflict;
        met.delay += delay;
        met.longest = larger(met.longest, delay);
      }
      __atomic_store_n(scratch.done + 8 * crew.rank, ++made, __ATOMIC_RELAXED);
    }
  }
  scratch.loss[crew.rank] = total;
  scratch.meetings[crew.rank] = met;
  crew.wait();
  int64_t low, high;
  share(d, crew, low, high);
  const double scale = scratch.scales[rows.count];
  if (scale != 1)
    for (int64_t j = low; j < smaller(high, d); ++j) theta[j] = T(scale * double(theta[j]));
}

// ---- The table ----

template <class T, class I, int Row>
constexpr void add_losses(SparseKernels<T, I>& table) {
  if constexpr (Row > 0) {
    table.weigh[Row - 1] = weigh_one<T, typename loss_row<T, Row - 1>::type>;
    add_losses<T, I, Row - 1>(table);
  }
}

// Evaluated by the compiler: nothing of an instruction set may run before it is chosen.
template <class T, class I>
constexpr SparseKernels<T, I> make_table() {
  static_assert(loss_count <= SparseKernels<T, I>::most, "raise most");
  SparseKernels<T, I> table{};
  add_losses<T, I, loss_count>(table);
  table.descend_samples = descend_samples<T, I>;
  table.descend_batches = descend_batches<T, I>;
  table.descend_all = descend_all<T, I>;
  table.descend_freely = descend_freely<T, I>;
  table.add_gradient = add_gradient<T, I>;
  table.variance = variance<T, I>;
  table.margin = margin<T, I>;
  return table;
}

constexpr SparseKernels<float, int32_t> single_narrow = make_table<float, int32_t>();
constexpr SparseKernels<float, int64_t> single_wide = make_table<float, int64_t>();
constexpr SparseKernels<double, int32_t> wide_narrow = make_table<double, int32_t>();
constexpr SparseKernels<double, int64_t> wide_wide = make_table<double, int64_t>();
constexpr SparseSet tables{&single_narrow, &single_wide, &wide_narrow, &wide_wide};

}  // namespace sparse
}  // namespace SCHUSS_ISA
}  // namespace schuss

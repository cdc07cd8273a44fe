// The loop skeletons for several outputs: matrix times matrix, beside those of kernels.h.
//
// A vector register holds the outputs of one row side by side. A block of rows shares each load of
// the weights; its slopes then stay in registers while the gradient passes by. So there is no sum
// across a register, whatever d, and a row of X is read once from memory and once from cache.
#pragma once
#include "../formulas.h"
#include "outputs_problem.h"

namespace schuss {
namespace SCHUSS_ISA {
namespace outputs {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

template <class T>
struct Vector {
  typedef T type __attribute__((vector_size(vector_bytes)));
  static constexpr int64_t lanes = vector_bytes / int64_t(sizeof(T));
};

template <class T>
inline typename Vector<T>::type load(const T* from) {
  typename Vector<T>::type value;
  __builtin_memcpy(&value, from, vector_bytes);
  return value;
}

template <class T>
inline void store(T* to, typename Vector<T>::type value) {
  __builtin_memcpy(to, &value, vector_bytes);
}

// Asks for a row, with its labels, that comes after those at hand: far enough ahead to cover the
// memory's latency, at most 16 rows or 16 KiB.
template <class T>
SCHUSS_INLINE void prefetch(const OutputProblem<T>& problem, const Rows& rows, int64_t s) {
  const int64_t bytes = problem.d * int64_t(sizeof(T));
  const int64_t ahead = smaller<int64_t>(16, 1 + 16384 / bytes);
  const int64_t i = rows.ahead(s, ahead);
  const char* row = reinterpret_cast<const char*>(problem.X + i * problem.d);
  for (int64_t k = 0; k < bytes; k += 64) __builtin_prefetch(row + k);
  const char* label = reinterpret_cast<const char*>(problem.y + i * problem.y_stride);
  for (int64_t k = 0; k < problem.y_stride * int64_t(sizeof(T)); k += 64)
    __builtin_prefetch(label + k);
}

// ---- Margins and gradient of a block of R rows ----

template <class T, int R>
inline void block_margins(const T* const* x, int64_t d, int64_t width, const T* __restrict w,
                          T* __restrict margins) {
  for (int64_t q = 0; q < width; q += Vector<T>::lanes) {
    typename Vector<T>::type sum[R];
    for (int r = 0; r < R; ++r) sum[r] = load(w + d * width + q);
    const T* row = w + q;
    for (int64_t j = 0; j < d; ++j, row += width) {
      const auto weights = load(row);
      for (int r = 0; r < R; ++r) sum[r] += x[r][j] * weights;
    }
    for (int r = 0; r < R; ++r) store(margins + r * width + q, sum[r]);
  }
}

// One row alone: partial sums over j, so that the additions overlap.
template <class T>
inline void row_margins(const T* __restrict x, int64_t d, int64_t width, const T* __restrict w,
                        T* __restrict margins) {
  constexpr int parts = 8;
  for (int64_t q = 0; q < width; q += Vector<T>::lanes) {
    typename Vector<T>::type sum[parts];
    sum[0] = load(w + d * width + q);
    for (int k = 1; k < parts; ++k) sum[k] = sum[0] - sum[0];
    const T* row = w + q;
    int64_t j = 0;
    for (; j + parts <= d; j += parts, row += parts * width)
      for (int k = 0; k < parts; ++k) sum[k] += x[j + k] * load(row + k * width);
    for (; j < d; ++j, row += width) sum[0] += x[j] * load(row);
    store(margins + q,
          ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7])));
  }
}

template <class T, int R>
inline void add_block(const T* const* x, int64_t d, int64_t width, const T* __restrict slopes,
                      T* __restrict gradient) {
  for (int64_t q = 0; q < width; q += Vector<T>::lanes) {
    typename Vector<T>::type slope[R];
    for (int r = 0; r < R; ++r) slope[r] = load(slopes + r * width + q);
    T* row = gradient + q;
    for (int64_t j = 0; j < d; ++j, row += width) {
      auto sum = load(row);
      for (int r = 0; r < R; ++r) sum += x[r][j] * slope[r];
      store(row, sum);
    }
    auto bias = load(row);
    for (int r = 0; r < R; ++r) bias += slope[r];
    store(row, bias);
  }
}

// ---- Losses ----

// A loss of one margin, summed over the outputs.
template <class T, class Loss>
void weigh_each(const OutputProblem<T>& problem, const Rows& rows, int64_t s, int count, T* margins,
                T*, double* total) {
  const Loss loss(problem.loss_parameters);
  for (int r = 0; r < count; ++r, margins += problem.width) {
    const int64_t i = rows[s + r];
    const T weight = problem.weight ? problem.weight[i] : T(1);
    const T* __restrict y = problem.y + i * problem.y_stride;
    T* __restrict m = margins;
    T value = 0;
    for (int64_t c = 0; c < problem.outputs; ++c) {
      value += loss.value(m[c], y[c]);
      m[c] = weight * loss.slope(m[c], y[c]);
    }
    for (int64_t c = problem.outputs; c < problem.width; ++c) m[c] = 0;
    *total += double(weight * value);
  }
}

// R rows: their margins are turned so that the rows stand side by side, and back.
template <class T, int R, class Loss>
inline void weigh_rows(const OutputProblem<T>& problem, const Loss& loss, const Rows& rows,
                       int64_t s, T* __restrict margins, T* __restrict turned, double* total) {
  const int64_t k = problem.outputs, width = problem.width;
  T y[R], value[R], weight[R];
  for (int r = 0; r < R; ++r) {
    y[r] = problem.y[rows[s + r]];
    weight[r] = problem.weight ? problem.weight[rows[s + r]] : T(1);
  }
  for (int64_t c = 0; c < k; ++c)
    for (int r = 0; r < R; ++r) turned[c * R + r] = margins[r * width + c];
  loss.template weigh<R>(turned, k, y, value);
  for (int r = 0; r < R; ++r) {
    T* __restrict slopes = margins + r * width;
    for (int64_t c = 0; c < k; ++c) slopes[c] = weight[r] * turned[c * R + r];
    for (int64_t c = k; c < width; ++c) slopes[c] = 0;
    *total += double(weight[r] * value[r]);
  }
}

// A loss of all margins.
template <class T, class Loss>
void weigh_together(const OutputProblem<T>& problem, const Rows& rows, int64_t s, int count,
                    T* margins, T* turned, double* total) {
  const Loss loss(problem.loss_parameters);
  int r = 0;
  for (; r + 8 <= count; r += 8)
    weigh_rows<T, 8>(problem, loss, rows, s + r, margins + r * problem.width, turned, total);
  for (; r + 4 <= count; r += 4)
    weigh_rows<T, 4>(problem, loss, rows, s + r, margins + r * problem.width, turned, total);
  for (; r < count; ++r)
    weigh_rows<T, 1>(problem, loss, rows, s + r, margins + r * problem.width, turned, total);
}

// ---- Gradient ----

// Works on count rows from place s on: margins, slopes, and their part of the gradient.
template <class T, int R>
inline void add_rows(typename OutputKernels<T>::Weigh weigh, const OutputProblem<T>& problem,
                     const Rows& rows, int64_t s, const T* w, T* margins, T* gradient,
                     double* total) {
  const T* x[R];
  for (int r = 0; r < R; ++r) {
    x[r] = problem.X + rows[s + r] * problem.d;
    prefetch(problem, rows, s + r);
  }
  if (R == 1)
    row_margins(x[0], problem.d, problem.width, w, margins);
  else
    block_margins<T, R>(x, problem.d, problem.width, w, margins);
  weigh(problem, rows, s, R, margins, margins + R * problem.width, total);
  add_block<T, R>(x, problem.d, problem.width, margins, gradient);
}

// The sum over the places begin <= s < end, in T; returns their loss.
template <class T>
double tile_gradient(typename OutputKernels<T>::Weigh weigh, const OutputProblem<T>& problem,
                     const Rows& rows, int64_t begin, int64_t end, const T* w, T* margins,
                     T* __restrict gradient) {
  const int64_t size = (problem.d + 1) * problem.width;
  double total = 0;
  for (int64_t j = 0; j < size; ++j) gradient[j] = 0;
  int64_t s = begin;
  for (; s + 8 <= end; s += 8)
    add_rows<T, 8>(weigh, problem, rows, s, w, margins, gradient, &total);
  if (s + 4 <= end) {
    add_rows<T, 4>(weigh, problem, rows, s, w, margins, gradient, &total);
    s += 4;
  }
  for (; s < end; ++s) add_rows<T, 1>(weigh, problem, rows, s, w, margins, gradient, &total);
  if (!problem.fit_intercept)
    for (int64_t j = size - problem.width; j < size; ++j) gradient[j] = 0;
  return total;
}

// Adds to scratch.total and *loss. Tiles go round the crew and are combined in ascending order, so
// the bits do not depend on the crew's size.
template <class T>
void add_gradient(typename OutputKernels<T>::Weigh weigh, const OutputProblem<T>& problem,
                  const Rows& rows, const T* theta, OutputScratch<T>& scratch, double* loss,
                  Crew crew) {
  const int64_t size = (problem.d + 1) * problem.width;
  const int64_t tiles = (rows.count + tile_rows - 1) / tile_rows;
  T* margins = scratch.margins + crew.rank * 2 * block_rows * problem.width;
  for (int64_t first = 0; first < tiles; first += wave_tiles) {
    const int64_t count = smaller(wave_tiles, tiles - first);
    for (int64_t t = crew.rank; t < count; t += crew.size) {
      const int64_t begin = (first + t) * tile_rows, end = smaller(begin + tile_rows, rows.count);
      scratch.loss[t] = tile_gradient(weigh, problem, rows, begin, end, theta, margins,
                                      scratch.partial + t * size);
    }
    crew.wait();
    const int64_t low = size * crew.rank / crew.size, high = size * (crew.rank + 1) / crew.size;
    for (int64_t t = 0; t < count; ++t) {
      const T* __restrict part = scratch.partial + t * size;
      double* __restrict total = scratch.total;
      for (int64_t j = low; j < high; ++j) total[j] += double(part[j]);
    }
    if (crew.rank == 0)
      for (int64_t t = 0; t < count; ++t) *loss += scratch.loss[t];
    crew.wait();
  }
}

// Summed squared norm of the samples' gradients: weight^2 |slopes|^2 (|x|^2 + 1).
template <class T>
double second_moment(typename OutputKernels<T>::Weigh weigh, const OutputProblem<T>& problem,
                     const Rows& rows, const T* theta, T* margins) {
  double second = 0, loss = 0;
  for (int64_t s = 0; s < rows.count; ++s) {
    const T* __restrict x = problem.X + rows[s] * problem.d;
    row_margins(x, problem.d, problem.width, theta, margins);
    weigh(problem, rows, s, 1, margins, margins + problem.width, &loss);
    double norm = problem.fit_intercept ? 1 : 0, squares = 0;
    for (int64_t j = 0; j < problem.d; ++j) norm += double(x[j]) * double(x[j]);
    for (int64_t c = 0; c < problem.outputs; ++c)
      squares += double(margins[c]) * double(margins[c]);
    second += squares * norm;
  }
  return second;
}

// ---- Descent ----

template <class T>
inline void add_to_average(State<T>& state, int64_t size) {
  const double part = 1.0 / double(++state.averaged);
  for (int64_t j = 0; j < size; ++j)
    state.average[j] += (double(state.theta[j]) - state.average[j]) * part;
}

// Per sample, one plain sgd step for every row: 4 k d flops and one pass over the weights for the
// margins, one for the update.
template <class T>
Outcome descend_samples(typename OutputKernels<T>::Weigh weigh, const OutputProblem<T>& problem,
                        const Rows& rows, const Update& update, State<T>& state, T* margins) {
  const int64_t d = problem.d, width = problem.width, size = d * width;
  T* __restrict w = state.theta;
  double total = 0, norm = 0;
  for (int64_t s = 0; s < rows.count; ++s) {
    const T* __restrict x = problem.X + rows[s] * d;
    prefetch(problem, rows, s);
    row_margins(x, d, width, w, margins);
    weigh(problem, rows, s, 1, margins, margins + problem.width, &total);
    if (s + 1 == rows.count) {
      for (int64_t c = 0; c < problem.outputs; ++c) {
        for (int64_t j = 0; j < d; ++j) {
          const double g = double(margins[c] * x[j]) + update.l2 * double(w[j * width + c]);
          norm += g * g;
        }
        if (problem.fit_intercept) norm += double(margins[c]) * double(margins[c]);
      }
    }
    const double rate = update.constants[s * update.stride];
    const T lr = T(rate), keep = T(1 - rate * update.l2);
    for (int64_t q = 0; q < width; q += Vector<T>::lanes) {
      const auto step = lr * load(margins + q);
      T* row = w + q;
      for (int64_t j = 0; j < d; ++j, row += width) store(row, keep * load(row) - x[j] * step);
      if (problem.fit_intercept) store(row, load(row) - step);
    }
    if (update.l1 > 0) {
      const T amount = T(rate * update.l1);
      for (int64_t j = 0; j < size; ++j) w[j] = shrink_towards_zero(w[j], amount);
    }
    if (state.average) add_to_average(state, size + width);
  }
  return {total, square_root(norm)};
}

// Turns a summed gradient over `count` rows into one update: mean, L2, clipping, rule, L1, average.
// Returns the norm of the gradient before clipping where asked for or needed, else 0.
template <class T, class Rule, class G>
double finish(const OutputProblem<T>& problem, const Update& update, int64_t step,
              const G* __restrict gradient, int64_t count, bool want_norm, State<T>& state) {
  const int64_t width = problem.width, coefs = problem.d * width, size = coefs + width;
  const double* constants = update.constants + step * update.stride;
  const double mean = 1.0 / double(count);
  T* __restrict w = state.theta;
  double norm = 0, factor = 1;
  if (want_norm || update.clip_norm > 0) {
    for (int64_t j = 0; j < size; j += width)
      for (int64_t c = 0; c < problem.outputs; ++c) {
        const double l2 = j < coefs ? update.l2 : 0;
        const double g = double(gradient[j + c]) * mean + l2 * double(w[j + c]);
        norm += g * g;
      }
    norm = square_root(norm);
    if (update.clip_norm > 0 && norm > update.clip_norm) factor = update.clip_norm / norm;
  }
  const Rule rule(constants);
  const G scale = G(mean * factor);
  const T l2 = T(update.l2 * factor);
  T none = 0;
  T* __restrict a = state.slot[0], * __restrict v = state.slot[1];
  for (int64_t j = 0; j < coefs; ++j)
    rule.update(w[j], T(gradient[j] * scale) + l2 * w[j], Rule::slots > 0 ? a[j] : none,
                Rule::slots > 1 ? v[j] : none);
  if (update.l1 > 0) {
    const T amount = T(constants[0] * update.l1);
    for (int64_t j = 0; j < coefs; ++j) w[j] = shrink_towards_zero(w[j], amount);
  }
  if (problem.fit_intercept) {
    double undecayed[Rule::constants];  // decoupled decay is constant 1
    for (int k = 0; k < Rule::constants; ++k) undecayed[k] = k == 1 ? 1 : constants[k];
    const Rule plain(undecayed);
    for (int64_t j = coefs; j < size; ++j)
      plain.update(w[j], T(gradient[j] * scale), Rule::slots > 0 ? a[j] : none,
                   Rule::slots > 1 ? v[j] : none);
  }
  if (state.average) add_to_average(state, size);
  return norm;
}

// A tile's own sum where the batch is one tile (gradient), the combined one otherwise (total).
template <class T, class Rule>
double finish_step(const OutputProblem<T>& problem, const Update& update, int64_t step,
                   const T* gradient, const double* total, int64_t count, bool want_norm,
                   State<T>& state) {
  return gradient ? finish<T, Rule>(problem, update, step, gradient, count, want_norm, state)
                  : finish<T, Rule>(problem, update, step, total, count, want_norm, state);
}

// Every member of the crew runs the same steps; rank 0 alone updates the parameters.
template <class T>
Outcome descend_batches(const OutputKernels<T>& kernels, int loss, int rule,
                        const OutputProblem<T>& problem, const Rows& rows, int64_t batch_size,
                        const Update& update, State<T>& state, OutputScratch<T>& scratch,
                        Crew crew) {
  const int64_t size = (problem.d + 1) * problem.width;
  Outcome outcome{0, 0};
  double summed = 0;
  for (int64_t begin = 0, step = 0; begin < rows.count; begin += batch_size, ++step) {
    const int64_t count = smaller(batch_size, rows.count - begin);
    const bool last = begin + count == rows.count, single = count <= tile_rows;
    const Rows batch = rows.part(begin, count);
    if (single) {  // one tile: rank 0 has it to itself, and no total is formed
      if (crew.rank == 0)
        summed += tile_gradient(kernels.weigh[loss], problem, batch, 0, count, state.theta,
                                scratch.margins, scratch.partial);
    } else {
      if (crew.rank == 0)
        for (int64_t j = 0; j < size; ++j) scratch.total[j] = 0;
      crew.wait();
      add_gradient(kernels.weigh[loss], problem, batch, state.theta, scratch, &summed, crew);
    }
    if (crew.rank == 0)
      outcome.gradient_norm =
          kernels.finish_step[rule](problem, update, step, single ? scratch.partial : nullptr,
                                    scratch.total, count, last, state);
    crew.wait();
  }
  outcome.loss = summed;
  return outcome;
}

// Decision values, (count, outputs).
template <class T>
void margin(const OutputProblem<T>& problem, const Rows& rows, const T* theta, T* margins, T* out) {
  for (int64_t s = 0; s < rows.count; ++s, out += problem.outputs) {
    row_margins(problem.X + rows[s] * problem.d, problem.d, problem.width, theta, margins);
    for (int64_t c = 0; c < problem.outputs; ++c) out[c] = margins[c];
  }
}

// ---- The table ----

template <class T, int Row>
constexpr void add_losses(OutputKernels<T>& table) {
  if constexpr (Row > 0) {
    using Loss = typename loss_row<T, Row - 1>::type;
    table.weigh[Row - 1] = weigh_each<T, Loss>;
    add_losses<T, Row - 1>(table);
  }
}

template <class T, int Row>
constexpr void add_vector_losses(OutputKernels<T>& table) {
  if constexpr (Row > 0) {
    using Loss = typename vector_loss_row<T, Row - 1>::type;
    table.weigh[loss_count + Row - 1] = weigh_together<T, Loss>;
    add_vector_losses<T, Row - 1>(table);
  }
}

template <class T, int Row>
constexpr void add_rules(OutputKernels<T>& table) {
  if constexpr (Row > 0) {
    using Rule = typename rule_row<T, Row - 1>::type;
    table.finish_step[Row - 1] = finish_step<T, Rule>;
    add_rules<T, Row - 1>(table);
  }
}

// Evaluated by the compiler: nothing of an instruction set may run before it is chosen.
template <class T>
constexpr OutputKernels<T> make_table() {
  constexpr int most = OutputKernels<T>::most;
  static_assert(loss_count + vector_loss_count <= most && rule_count <= most, "raise most");
  OutputKernels<T> table{};
  table.lanes = Vector<T>::lanes;
  add_losses<T, loss_count>(table);
  add_vector_losses<T, vector_loss_count>(table);
  add_rules<T, rule_count>(table);
  table.descend_samples = descend_samples<T>;
  table.descend_batches = descend_batches<T>;
  table.add_gradient = add_gradient<T>;
  table.second_moment = second_moment<T>;
  table.margin = margin<T>;
  return table;
}

constexpr OutputKernels<float> single_table = make_table<float>();
constexpr OutputKernels<double> wide_table = make_table<double>();

}  // namespace outputs
}  // namespace SCHUSS_ISA
}  // namespace schuss

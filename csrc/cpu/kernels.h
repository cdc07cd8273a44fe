// The CPU loop skeletons, compiled once per instruction set (the including file names it).
//
// Kernels take pointers, lengths and scalars; they do not allocate, print, draw random numbers or
// decide anything. Formulas come from formulas.h. No std:: here: an inline function of the standard
// library compiled with AVX-512 may be the one copy the linker keeps for every machine.
#pragma once
#include "../formulas.h"
#include "problem.h"

namespace schuss {
namespace SCHUSS_ISA {

// ---- Shared primitives ----

// x . w over d elements, in independent partial sums so that the additions overlap.
template <class T>
inline T dot(const T* __restrict x, const T* __restrict w, int64_t d) {
  constexpr int lanes = 4 * 64 / int(sizeof(T));
  T sum[lanes];
  T tail = 0;
  int64_t j = 0;
  if (d >= lanes) {
    for (int k = 0; k < lanes; ++k) sum[k] = 0;
    for (; j + lanes <= d; j += lanes)
      for (int k = 0; k < lanes; ++k) sum[k] += x[j + k] * w[j + k];
    for (int k = 0; k < lanes; ++k) tail += sum[k];
  }
  for (; j < d; ++j) tail += x[j] * w[j];
  return tail;
}

// Rows ahead to prefetch: far enough to cover the memory's latency, at most 16 rows or 8 KiB.
template <class T>
inline int64_t prefetch_distance(int64_t d) {
  const int64_t rows = 8192 / (d * int64_t(sizeof(T)) + 1);
  return rows < 1 ? 1 : rows > 16 ? 16 : rows;
}

template <class T>
inline void prefetch_row(const T* row, int64_t d) {
  const char* byte = reinterpret_cast<const char*>(row);
  for (int64_t k = 0; k < d * int64_t(sizeof(T)); k += 64) __builtin_prefetch(byte + k);
}

// Adds one sample's weighted loss to `total` and returns its weighted slope.
template <class T, class Loss>
inline T weigh(const Problem<T>& problem, const Loss& loss, int64_t i, T margin, double& total) {
  const T weight = problem.weight ? problem.weight[i] : T(1);
  total += double(weight * loss.value(margin, problem.y[i]));
  return weight * loss.slope(margin, problem.y[i]);
}

// One iterate into the running mean, in float64: the mean of many float32 iterates stalls.
template <class T>
inline void add_to_average(State<T>& state, int64_t d) {
  const double part = 1.0 / double(++state.averaged);
  for (int64_t j = 0; j <= d; ++j)
    state.average[j] += (double(state.theta[j]) - state.average[j]) * part;
}

// ---- Per-sample descent: one plain sgd step for every row ----
// Reads x once from memory and once from L1; 4d flops. Bound by the chain of one sample when d is
// small (dot, slope, update, dot ...), by memory when it is large.

template <class T, class Loss>
Outcome descend_samples(const Problem<T>& problem, const Rows& rows, const Update& update,
                        State<T>& state) {
  const Loss loss(problem.loss_parameters);
  const int64_t d = problem.d, ahead = prefetch_distance<T>(d);
  T* __restrict w = state.theta;
  T b = w[d];
  double total = 0, norm = 0;
  for (int64_t s = 0; s < rows.count; ++s) {
    const int64_t i = rows[s];
    const T* __restrict x = problem.X + i * d;
    if (s + ahead < rows.sight) prefetch_row(problem.X + rows[s + ahead] * d, d);

    const T slope = weigh(problem, loss, i, dot(x, w, d) + b, total);
    if (s + 1 == rows.count) {
      for (int64_t j = 0; j < d; ++j) {
        const double g = double(slope * x[j]) + update.l2 * double(w[j]);
        norm += g * g;
      }
      if (problem.fit_intercept) norm += double(slope) * double(slope);
    }

    const double rate = update.constants[s * update.stride];
    const T lr = T(rate), keep = T(1 - rate * update.l2), step = lr * slope;
    for (int64_t j = 0; j < d; ++j) w[j] = keep * w[j] - step * x[j];
    if (update.l1 > 0) {
      const T amount = T(rate * update.l1);
      for (int64_t j = 0; j < d; ++j) w[j] = shrink_towards_zero(w[j], amount);
    }
    if (problem.fit_intercept) b -= step;
    if (state.average) {
      w[d] = b;
      add_to_average(state, d);
    }
  }
  w[d] = b;
  return {total, square_root(norm)};
}

// ---- Gradient of a tile ----
//
// Four rows at a time: their margins, their slopes, then one pass over the gradient while the rows
// are in L1. Each row is read from memory once; 4d flops per row.

template <class T, class Loss>
double tile_gradient(const Problem<T>& problem, const Loss& loss, const Rows& rows, int64_t begin,
                     int64_t end, const T* __restrict w, T* __restrict gradient) {
  const int64_t d = problem.d, ahead = prefetch_distance<T>(d);
  double total = 0;
  T bias = 0;
  for (int64_t j = 0; j <= d; ++j) gradient[j] = 0;
  int64_t s = begin;
  for (; s + 4 <= end; s += 4) {
    const T* x[4];
    T slope[4];
    for (int k = 0; k < 4; ++k) {
      x[k] = problem.X + rows[s + k] * d;
      if (s + k + ahead < rows.sight) prefetch_row(problem.X + rows[s + k + ahead] * d, d);
    }
    const T* __restrict x0 = x[0], * __restrict x1 = x[1], * __restrict x2 = x[2], * __restrict x3 = x[3];
    T m0 = 0, m1 = 0, m2 = 0, m3 = 0;
    for (int64_t j = 0; j < d; ++j) {
      m0 += x0[j] * w[j];
      m1 += x1[j] * w[j];
      m2 += x2[j] * w[j];
      m3 += x3[j] * w[j];
    }
    const T margin[4] = {m0 + w[d], m1 + w[d], m2 + w[d], m3 + w[d]};
    for (int k = 0; k < 4; ++k) {
      slope[k] = weigh(problem, loss, rows[s + k], margin[k], total);
      bias += slope[k];
    }
    const T s0 = slope[0], s1 = slope[1], s2 = slope[2], s3 = slope[3];
    for (int64_t j = 0; j < d; ++j)
      gradient[j] += (s0 * x0[j] + s1 * x1[j]) + (s2 * x2[j] + s3 * x3[j]);
  }
  for (; s < end; ++s) {
    const int64_t i = rows[s];
    const T* __restrict x = problem.X + i * d;
    const T slope = weigh(problem, loss, i, dot(x, w, d) + w[d], total);
    bias += slope;
    for (int64_t j = 0; j < d; ++j) gradient[j] += slope * x[j];
  }
  gradient[d] = problem.fit_intercept ? bias : T(0);
  return total;
}

// Adds the summed gradient of the rows to scratch.total and their summed loss to *loss. Tiles go
// round the crew; the columns of their partial sums are then combined in ascending tile order, so
// the bits do not depend on the crew's size.
template <class T, class Loss>
void add_gradient(const Problem<T>& problem, const Rows& rows, const T* theta, Scratch<T>& scratch,
                  double* loss, Crew crew) {
  const Loss formula(problem.loss_parameters);
  const int64_t width = problem.d + 1, tiles = (rows.count + tile_rows - 1) / tile_rows;
  for (int64_t first = 0; first < tiles; first += wave_tiles) {
    const int64_t count = smaller(wave_tiles, tiles - first);
    for (int64_t t = crew.rank; t < count; t += crew.size) {
      const int64_t begin = (first + t) * tile_rows, end = smaller(begin + tile_rows, rows.count);
      scratch.loss[t] =
          tile_gradient(problem, formula, rows, begin, end, theta, scratch.partial + t * width);
    }
    crew.wait();
    const int64_t low = width * crew.rank / crew.size, high = width * (crew.rank + 1) / crew.size;
    for (int64_t t = 0; t < count; ++t) {
      const T* __restrict part = scratch.partial + t * width;
      double* __restrict total = scratch.total;
      for (int64_t j = low; j < high; ++j) total[j] += double(part[j]);
    }
    if (crew.rank == 0)
      for (int64_t t = 0; t < count; ++t) *loss += scratch.loss[t];
    crew.wait();
  }
}

// Summed loss and gradient as add_gradient has them, and the summed squared norm of the samples'
// gradients: weight^2 slope^2 (|x|^2 + 1), one multiply per element more.
template <class T, class Loss>
double variance(const Problem<T>& problem, const Rows& rows, const T* theta, double* loss,
                double* gradient) {
  const Loss formula(problem.loss_parameters);
  const int64_t d = problem.d;
  double second = 0;
  for (int64_t s = 0; s < rows.count; ++s) {
    const int64_t i = rows[s];
    const T* __restrict x = problem.X + i * d;
    const double slope = double(weigh(problem, formula, i, dot(x, theta, d) + theta[d], *loss));
    double norm = problem.fit_intercept ? 1 : 0;
    for (int64_t j = 0; j < d; ++j) {
      norm += double(x[j]) * double(x[j]);
      gradient[j] += slope * double(x[j]);
    }
    if (problem.fit_intercept) gradient[d] += slope;
    second += slope * slope * norm;
  }
  return second;
}

// ---- Mini-batch descent ----

// The constants of one step with decoupled decay taken out, for the intercept.
template <class Rule>
struct Undecayed {
  double constants[Rule::constants];
  explicit Undecayed(const double* c) {
    for (int k = 0; k < Rule::constants; ++k) constants[k] = c[k];
    if (Rule::constants > 1) constants[1] = 1;
  }
};

// Turns a summed gradient over `count` rows into one update: mean, L2, clipping, rule, L1, average.
// Returns the norm of the gradient before clipping where asked for or needed, else 0.
template <class T, class Rule, class G>
double finish(const Problem<T>& problem, const Update& update, int64_t step,
              const G* __restrict gradient, int64_t count, bool want_norm, State<T>& state) {
  const int64_t d = problem.d;
  const double* constants = update.constants + step * update.stride;
  const double mean = 1.0 / double(count);
  T* __restrict w = state.theta;
  double norm = 0, factor = 1;
  if (want_norm || update.clip_norm > 0) {
    for (int64_t j = 0; j <= d; ++j) {
      const double g = double(gradient[j]) * mean + (j < d ? update.l2 * double(w[j]) : 0);
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
  for (int64_t j = 0; j < d; ++j) {
    const T g = T(gradient[j] * scale) + l2 * w[j];
    rule.update(w[j], g, Rule::slots > 0 ? a[j] : none, Rule::slots > 1 ? v[j] : none);
  }
  if (update.l1 > 0) {
    const T amount = T(constants[0] * update.l1);
    for (int64_t j = 0; j < d; ++j) w[j] = shrink_towards_zero(w[j], amount);
  }
  if (problem.fit_intercept) {
    const Undecayed<Rule> undecayed(constants);
    const Rule plain(undecayed.constants);
    plain.update(w[d], T(gradient[d] * scale), Rule::slots > 0 ? a[d] : none,
                 Rule::slots > 1 ? v[d] : none);
  }
  if (state.average) add_to_average(state, d);
  return norm;
}

// A tile's own sum where the batch is one tile (gradient), the combined one otherwise (total).
template <class T, class Rule>
double finish_step(const Problem<T>& problem, const Update& update, int64_t step, const T* gradient,
                   const double* total, int64_t count, bool want_norm, State<T>& state) {
  return gradient ? finish<T, Rule>(problem, update, step, gradient, count, want_norm, state)
                  : finish<T, Rule>(problem, update, step, total, count, want_norm, state);
}

// Every member of the crew runs the same steps; rank 0 alone updates the parameters.
template <class T>
Outcome descend_batches(const Kernels<T>& kernels, int loss, int rule, const Problem<T>& problem,
                        const Rows& rows, int64_t batch_size, const Update& update, State<T>& state,
                        Scratch<T>& scratch, Crew crew) {
  const int64_t width = problem.d + 1;
  Outcome outcome{0, 0};
  double summed = 0;
  for (int64_t begin = 0, step = 0; begin < rows.count; begin += batch_size, ++step) {
    const int64_t count = smaller(batch_size, rows.count - begin);
    const bool last = begin + count == rows.count;
    const Rows batch{rows.narrow ? rows.narrow + begin : nullptr,
                     rows.wide ? rows.wide + begin : nullptr, rows.start + begin, count,
                     rows.count - begin};
    if (crew.rank == 0)
      for (int64_t j = 0; j < width; ++j) scratch.total[j] = 0;
    crew.wait();
    kernels.add_gradient[loss](problem, batch, state.theta, scratch, &summed, crew);
    if (crew.rank == 0) {
      const T* single = count <= tile_rows ? scratch.partial : nullptr;
      outcome.gradient_norm = kernels.finish_step[rule](problem, update, step, single,
                                                        scratch.total, count, last, state);
    }
    crew.wait();
  }
  outcome.loss = summed;
  return outcome;
}

// ---- The other verbs ----

// One rule step over one contiguous array of any shape, decay * param added to the gradient.
template <class T, class Rule>
void apply(T* __restrict param, const T* __restrict gradient, T* __restrict slot0,
           T* __restrict slot1, int64_t size, const double* constants, double decay) {
  const Rule rule(constants);
  const T l2 = T(decay);
  T none = 0;
  for (int64_t j = 0; j < size; ++j)
    rule.update(param[j], gradient[j] + l2 * param[j], Rule::slots > 0 ? slot0[j] : none,
                Rule::slots > 1 ? slot1[j] : none);
}

template <class T>
void margin(const T* X, int64_t d, const Rows& rows, const T* theta, T* out) {
  for (int64_t s = 0; s < rows.count; ++s) out[s] = dot(X + rows[s] * d, theta, d) + theta[d];
}

// dst = scale * (dst + source + source ...), in the order given; one pass over blocks in L1.
template <class T>
void reduce(T* __restrict dst, const T* const* sources, int64_t count, int64_t size, double scale) {
  constexpr int64_t block = 4096 / int64_t(sizeof(T));
  const T factor = T(scale);
  for (int64_t begin = 0; begin < size; begin += block) {
    const int64_t end = smaller(begin + block, size);
    for (int64_t k = 0; k < count; ++k) {
      const T* __restrict source = sources[k];
      for (int64_t j = begin; j < end; ++j) dst[j] += source[j];
    }
    for (int64_t j = begin; j < end; ++j) dst[j] *= factor;
  }
}

// Images of start <= i < stop. A block of positions goes through the network together, vectorised;
// those that landed beyond n are packed and go again.
template <class Word, class I>
void permute_in(const Bijection& image, int64_t start, int64_t stop, I* out) {
  constexpr int64_t block = 256;
  const Word n = Word(image.n);
  Word x[block];
  int32_t place[block];
  for (int64_t done = 0; done < stop - start; done += block, out += block) {
    int64_t count = smaller(block, stop - start - done);
    for (int64_t k = 0; k < count; ++k) {
      x[k] = Word(start + done + k);
      place[k] = int32_t(k);
    }
    while (count > 0) {
      for (int64_t k = 0; k < count; ++k) x[k] = image.encrypt(x[k]);
      int64_t walking = 0;
      for (int64_t k = 0; k < count; ++k) {
        const Word image_of = x[k];
        const int32_t where = place[k];
        out[where] = I(image_of);  // a walking one is overwritten later
        x[walking] = image_of;
        place[walking] = where;
        walking += image_of >= n;
      }
      count = walking;
    }
  }
}

template <class I>
void permute(uint64_t n, const uint32_t* keys, int64_t start, int64_t stop, I* out) {
  const Bijection image(n, keys);
  if (image.left_bits + image.right_bits < 32)
    permute_in<uint32_t>(image, start, stop, out);
  else
    permute_in<uint64_t>(image, start, stop, out);
}

// ---- The ceiling ----
//
// Reads the rows and does nothing with them but add: what any kernel is measured against.

template <class T>
T sum_rows(const T* X, int64_t d, const Rows& rows, int64_t ahead) {
  constexpr int lanes = 4 * 64 / int(sizeof(T));
  T sum[lanes], tail = 0;
  for (int k = 0; k < lanes; ++k) sum[k] = 0;
  for (int64_t s = 0; s < rows.count; ++s) {
    const T* __restrict x = X + rows[s] * d;
    if (s + ahead < rows.count) prefetch_row(X + rows[s + ahead] * d, d);
    int64_t j = 0;
    for (; j + lanes <= d; j += lanes)
      for (int k = 0; k < lanes; ++k) sum[k] += x[j + k];
    for (; j < d; ++j) tail += x[j];
  }
  for (int k = 0; k < lanes; ++k) tail += sum[k];
  return tail;
}

// ---- The table ----

template <class T, int Row>
struct AddLosses {
  static constexpr void to(Kernels<T>& table) {
    using Loss = typename loss_row<T, Row - 1>::type;
    table.descend_samples[Row - 1] = descend_samples<T, Loss>;
    table.add_gradient[Row - 1] = add_gradient<T, Loss>;
    table.variance[Row - 1] = variance<T, Loss>;
    AddLosses<T, Row - 1>::to(table);
  }
};
template <class T>
struct AddLosses<T, 0> {
  static constexpr void to(Kernels<T>&) {}
};

template <class T, int Row>
struct AddRules {
  static constexpr void to(Kernels<T>& table) {
    using Rule = typename rule_row<T, Row - 1>::type;
    table.finish_step[Row - 1] = finish_step<T, Rule>;
    table.apply[Row - 1] = apply<T, Rule>;
    AddRules<T, Row - 1>::to(table);
  }
};
template <class T>
struct AddRules<T, 0> {
  static constexpr void to(Kernels<T>&) {}
};

// Evaluated by the compiler: nothing of an instruction set may run before it is chosen.
template <class T>
constexpr Kernels<T> make_table() {
  static_assert(loss_count <= Kernels<T>::most && rule_count <= Kernels<T>::most, "raise most");
  Kernels<T> table{};
  AddLosses<T, loss_count>::to(table);
  AddRules<T, rule_count>::to(table);
  table.descend_batches = descend_batches<T>;
  table.margin = margin<T>;
  table.reduce = reduce<T>;
  table.permute_narrow = permute<int32_t>;
  table.permute_wide = permute<int64_t>;
  table.sum_rows = sum_rows<T>;
  return table;
}

constexpr Kernels<float> single_table = make_table<float>();
constexpr Kernels<double> wide_table = make_table<double>();

}  // namespace SCHUSS_ISA
}  // namespace schuss

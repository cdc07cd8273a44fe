// The CPU loop skeletons, compiled once per instruction set (the including file names it).
//
// Kernels take pointers, lengths and scalars; they do not allocate, print, draw random numbers or
// decide anything. Formulas come from formulas.h. No std:: here: an inline function of the standard
// library compiled with AVX-512 may be the one copy the linker keeps for every machine.
#pragma once
#include "../formulas.h"
#include "pack.h"
#include "problem.h"

namespace schuss {
namespace SCHUSS_ISA {

// ---- Shared primitives ----

// Packs of a row that fill a cache line.
template <class S>
constexpr int line_packs =
    64 / (lanes<Scalar<S>> * int(sizeof(S))) > 0 ? 64 / (lanes<Scalar<S>> * int(sizeof(S))) : 1;

// x . w over d elements, in independent partial sums so that the additions overlap.
template <class S, class T>
inline T dot(const S* x, const T* w, int64_t d) {
  constexpr int L = lanes<T>;
  Pack<T> part[4] = {};
  int64_t j = 0;
  for (; j + 4 * L <= d; j += 4 * L)
    for (int k = 0; k < 4; ++k)
      part[k] = multiply_add(load(x + j + k * L), load(w + j + k * L), part[k]);
  for (; j + L <= d; j += L) part[0] = multiply_add(load(x + j), load(w + j), part[0]);
  if (j < d) {
    const Tail<T> tail(d);
    part[1] = multiply_add(load(x + tail.at, tail.part), load(w + tail.at, tail.part), part[1]);
  }
  return sum((part[0] + part[1]) + (part[2] + part[3]));
}

// Rows ahead to ask memory for: some 16 KiB, at least 8 rows to cover the memory's latency, and at
// most 96, beyond which nothing is gained.
template <class S>
inline int64_t prefetch_distance(int64_t d) {
  const int64_t rows = 16384 / (d * int64_t(sizeof(S)) + 1);
  return rows < 8 ? 8 : rows > 96 ? 96 : rows;
}

// Rows ahead to fetch into the first-level cache, when they have come to the second: some 8 KiB, at
// most 10 rows. 0: none, of rows in a range and of those longer than so many bytes: the rows of a
// group are worked on from that cache up to the smaller length.
constexpr int64_t longest_fetched = 4096, longest_in_group = 1024;
template <class S>
inline int64_t fetch_distance(const Rows& rows, int64_t d, int64_t longest) {
  const int64_t bytes = d * int64_t(sizeof(S));
  if (bytes > longest || (!rows.narrow && !rows.wide)) return 0;
  return smaller<int64_t>(10, 8192 / bytes);
}

// Into the second-level cache: far more lines can be on their way there than to the first.
SCHUSS_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }

template <class S>
SCHUSS_INLINE void prefetch_row(const S* row, int64_t d) {
  const uintptr_t end = uintptr_t(row + d);
  for (uintptr_t p = uintptr_t(row) & ~uintptr_t(63); p < end; p += 64)
    prefetch(reinterpret_cast<const void*>(p));
}

// From there into the first-level cache.
template <class S>
SCHUSS_INLINE void fetch_row(const S* row, int64_t d) {
  const uintptr_t end = uintptr_t(row + d);
  for (uintptr_t p = uintptr_t(row) & ~uintptr_t(63); p < end; p += 64)
    __builtin_prefetch(reinterpret_cast<const void*>(p));
}

// The label and the weight of a row to come.
template <class P>
SCHUSS_INLINE void prefetch_label(const P& problem, int64_t i) {
  __builtin_prefetch(problem.y + i);
  if (problem.weight) __builtin_prefetch(problem.weight + i);
}

// The lines of a row of at most N packs. Where these are few, they are asked for without a branch
// on where the row begins: the last number lies on the line after them, or on one of them.
template <class S, int N>
struct Lines {
  static constexpr int count = N > 4 ? 1 : (N * pack_bytes + 63) / 64 + 1;
  int64_t d, place[count];
  explicit Lines(int64_t width) : d(width) {
    for (int k = 0; k < count; ++k)
      place[k] = smaller<int64_t>(k + 1 < count ? k * 64 / int(sizeof(S)) : d - 1, d - 1);
  }
  void to_second_level(const S* row) const {
    if (N > 4) return prefetch_row(row, d);
    for (int k = 0; k < count; ++k) prefetch(row + place[k]);
  }
  void to_first_level(const S* row) const {
    if (N > 4) return fetch_row(row, d);
    for (int k = 0; k < count; ++k) __builtin_prefetch(row + place[k]);
  }
};

// The rows at R places.
template <int R>
SCHUSS_INLINE void take(const Rows& rows, int64_t s, int64_t* row) {
  if (rows.narrow)
    for (int r = 0; r < R; ++r) row[r] = rows.narrow[s + r];
  else if (rows.wide)
    for (int r = 0; r < R; ++r) row[r] = rows.wide[s + r];
  else
    for (int r = 0; r < R; ++r) row[r] = rows.start + s + r;
}
// As Rows::ahead, for R places at once.
template <int R>
SCHUSS_INLINE void take_ahead(const Rows& rows, int64_t s, int64_t ahead, int64_t* row) {
  const bool own = s + R + ahead <= rows.end;
  const int64_t place = s + ahead + (own ? 0 : rows.skip);
  if (place + R <= rows.sight && (own || s + ahead >= rows.end))
    take<R>(rows, place, row);
  else
    for (int r = 0; r < R; ++r) row[r] = rows.ahead(s + r, ahead);
}

// Adds one sample's weighted loss to `total` and returns its weighted slope.
template <class P, class Loss, class T>
inline T weigh(const P& problem, const Loss& loss, int64_t i, T margin, double& total) {
  const T value = loss.value(margin, problem.y[i]), slope = loss.slope(margin, problem.y[i]);
  if (!problem.weight) {
    total += double(value);
    return slope;
  }
  total += double(problem.weight[i] * value);
  return problem.weight[i] * slope;
}

// Columns low <= j < high of the `averaged`-th iterate into the running mean, in float64: the mean
// of many float32 iterates stalls.
template <class T>
inline void add_to_average(double* average, const T* theta, int64_t averaged, int64_t low,
                           int64_t high) {
  const double part = 1.0 / double(averaged);
  for (int64_t j = low; j < high; ++j) average[j] += (double(theta[j]) - average[j]) * part;
}

// ---- Per-sample descent: one plain sgd step for every row ----
//
// The update by one row and the margin of the next go over the weights together: w is read and
// written once per row, each row read once from memory and once from L1; 5d flops. Bound by the
// chain margin, slope, w, margin when d is small, by memory when it is large.

// The update that a row has caused and the weights have not seen yet.
template <class T>
struct Pending {
  T keep = 1, step = 0, amount = 0;  // w <- soften(keep * w + step * x, amount)
};

template <class T>
inline Pack<T> advance_pack(Pack<T> w, Pack<T> x, Pack<T> keep, Pack<T> step) {
  return multiply_add(step, x, keep * w);
}

// The packs of a row of at most N, of which at least half are whole. Behind the whole ones stands
// the tail, and behind that stand empty ones.
template <class T, int N>
struct Packs {
  static constexpr int L = lanes<T>;
  int64_t at[N];
  Lanes<T> part[N];

  explicit Packs(int64_t d) {
    const Tail<T> tail(d);
    for (int k = 0; k < N; ++k) {
      const bool whole = (k + 1) * L <= d;
      at[k] = whole ? k * L : k * L == tail.begin ? tail.at : 0;
      part[k] = whole ? Lanes<T>(0, L) : k * L == tail.begin ? tail.part : Lanes<T>();
    }
  }
  template <class S>
  Pack<T> fetch(const S* row, int k) const {
    return 2 * (k + 1) <= N ? load(row + k * L) : load(row + at[k], part[k]);
  }
  // To at least N packs of memory: backwards, as a tail overlaps the whole pack before it.
  void put(const Pack<T>* v, T* memory) const {
    for (int k = N - 1; k >= 0; --k) store(memory + at[k], v[k]);
  }
};

// Rows of at most N packs: w and the row stay in registers.
template <class S, int N>
struct ShortRows {
  using T = Scalar<S>;
  static constexpr int L = lanes<T>;
  int64_t d;
  T* theta;
  Lines<S, N> lines;
  Packs<T, N> packs;
  Pack<T> w[N], x[N];

  ShortRows(int64_t width, T* parameters, T*, const S*)
      : d(width), theta(parameters), lines(width), packs(width) {
    for (int k = 0; k < N; ++k) {
      w[k] = packs.fetch(theta, k);
      x[k] = Pack<T>{};
    }
  }

  // The margin with the weights as they are after `p`. The chain from row to row runs through here:
  // its latency is kept short, by b as a start of the sum as well.
  T advance(const S* next, const S* soon, const S* upcoming, T b, const Pending<T>& p) {
    lines.to_second_level(upcoming);
    if (soon) lines.to_first_level(soon);
    const Pack<T> keep = all(p.keep), step = all(p.step);
    constexpr int chains = N < 4 ? N : 4;
    Pack<T> sums[chains] = {in_first_lane(b)};
    for (int k = 0; k < N; ++k) {
      const Pack<T> row = packs.fetch(next, k);
      w[k] = advance_pack<T>(w[k], x[k], keep, step);
      sums[k % chains] = multiply_add(w[k], row, sums[k % chains]);
      x[k] = row;
    }
    for (int k = 1; k < chains; k += 2) sums[k - 1] += sums[k];
    return sum(chains > 2 ? sums[0] + sums[2] : sums[0]);
  }

  void settle(const Pending<T>& p) {
    const Pack<T> keep = all(p.keep), step = all(p.step);
    for (int k = 0; k < N; ++k) w[k] = advance_pack<T>(w[k], x[k], keep, step);
    T number[N * L];
    packs.put(w, number);
    for (int64_t j = 0; j < d; ++j) theta[j] = number[j];
  }
};

// Rows of any length; w lies in padded memory of its own, the tail's pack behind the whole ones.
// Soft: with an L1 penalty.
template <class S, bool Soft>
struct LongRows {
  using T = Scalar<S>;
  static constexpr int L = lanes<T>;
  int64_t d;
  T* theta;
  T* w;
  const S* x;
  Tail<T> tail;

  LongRows(int64_t width, T* parameters, T* memory, const S* row)
      : d(width), theta(parameters), w(memory), x(row), tail(width) {
    for (int64_t j = 0; j < tail.begin; ++j) w[j] = theta[j];
    if (tail.begin < d) store(w + tail.begin, load(theta + tail.at, tail.part));
  }

  void one_pack(T* weights, Pack<T> row, Pack<T> next, const Pack<T>* p, Pack<T>& sums) {
    Pack<T> v = advance_pack<T>(load(weights), row, p[0], p[1]);
    if (Soft) v = shrink_towards_zero(v, p[2]);
    store(weights, v);
    sums = multiply_add(v, next, sums);
  }

  T advance(const S* next, const S* soon, const S* upcoming, T b, const Pending<T>& pending) {
    const Pack<T> p[3] = {all(pending.keep), all(pending.step), all(pending.amount)};
    Pack<T> sums[4] = {in_first_lane(b)};
    int64_t j = 0;
    for (; j + 4 * L <= d; j += 4 * L) {
      for (int k = 0; k < 4; ++k) {
        if (k % line_packs<S> == 0) prefetch(upcoming + j + k * L);
        if (k % line_packs<S> == 0 && soon) __builtin_prefetch(soon + j + k * L);
        one_pack(w + j + k * L, load(x + j + k * L), load(next + j + k * L), p, sums[k]);
      }
    }
    prefetch_row(upcoming + j, d - j);
    if (soon) fetch_row(soon + j, d - j);
    for (; j + L <= d; j += L) one_pack(w + j, load(x + j), load(next + j), p, sums[0]);
    if (j < d)
      one_pack(w + j, load(x + tail.at, tail.part), load(next + tail.at, tail.part), p,
               j ? sums[1] : sums[0]);  // a lone pack adds up as in ShortRows
    x = next;
    return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }

  void settle(const Pending<T>& pending) {
    advance(x, nullptr, x, 0, pending);
    for (int64_t j = 0; j < tail.begin; ++j) theta[j] = w[j];
    for (int64_t j = tail.begin; j < d; ++j) theta[j] = w[tail.place(j)];
  }
};

template <class S, class Loss, class RowsInHand, class T = Scalar<S>>
Outcome walk(const Problem<S>& problem, const Rows& rows, const Update& update, State<T>& state,
             Scratch<T>& scratch) {
  const Loss loss(problem.loss_parameters);
  const int64_t d = problem.d, ahead = prefetch_distance<S>(d);
  const int64_t near = fetch_distance<S>(rows, d, longest_fetched);
  if (rows.count == 0) return {0, 0};
  RowsInHand hand(d, state.theta, scratch.weights, problem.X + rows[0] * d);
  Pending<T> pending;
  T b = state.theta[d], slope = 0;
  double total = 0, norm = 0;
  const S* x = nullptr;
  for (int64_t s = 0; s < rows.count; ++s) {
    const int64_t i = rows[s], k = rows.ahead(s, ahead);
    x = problem.X + i * d;
    prefetch_label(problem, k);
    const S* soon = near ? problem.X + rows.ahead(s, near) * d : nullptr;
    const T margin = hand.advance(x, soon, problem.X + k * d, b, pending);
    slope = weigh(problem, loss, i, margin, total);
    const double rate = update.constants[s * update.stride];
    pending = {T(1 - rate * update.l2), T(-rate) * slope, T(rate * update.l1)};
    if (problem.fit_intercept) b += pending.step;
    if (state.average && s + 1 < rows.count) {
      hand.settle(pending);
      pending = {};
      state.theta[d] = b;
      add_to_average(state.average, state.theta, ++state.averaged, 0, d + 1);
    }
  }
  hand.settle({});  // the weights that the last gradient was taken at
  for (int64_t j = 0; j < d; ++j) {
    const double g = double(slope * value(x[j])) + update.l2 * double(state.theta[j]);
    norm += g * g;
  }
  if (problem.fit_intercept) norm += double(slope) * double(slope);
  hand.settle(pending);
  state.theta[d] = b;
  if (state.average) add_to_average(state.average, state.theta, ++state.averaged, 0, d + 1);
  return {total, square_root(norm)};
}

template <class S, class Loss, class T = Scalar<S>>
Outcome descend_samples(const Problem<S>& problem, const Rows& rows, const Update& update,
                        State<T>& state, Scratch<T>& scratch) {
  if (update.l1 > 0) return walk<S, Loss, LongRows<S, true>>(problem, rows, update, state, scratch);
  // 16-bit rows are worth their trouble where they are long.
  if constexpr (sizeof(S) == sizeof(T)) {
    const int64_t packs = (problem.d + lanes<T> - 1) / lanes<T>;
    if (packs <= most_packs && !state.average) {
      if (packs == 1) return walk<S, Loss, ShortRows<S, 1>>(problem, rows, update, state, scratch);
      if (packs == 2) return walk<S, Loss, ShortRows<S, 2>>(problem, rows, update, state, scratch);
      if (packs <= 4) return walk<S, Loss, ShortRows<S, 4>>(problem, rows, update, state, scratch);
      return walk<S, Loss, ShortRows<S, most_packs>>(problem, rows, update, state, scratch);
    }
  }
  return walk<S, Loss, LongRows<S, false>>(problem, rows, update, state, scratch);
}

// ---- Gradient of a tile ----
//
// A group of rows at a time: their margins, their slopes side by side, then one pass over the
// gradient while the rows are in L1. Each row is read from memory once; 4d flops per row.

// Margins of four rows, or of one, without the intercept. Where rows are long, the lines of as many
// rows to come are asked for on the way, row after row: the processor sees a stream in those that
// are neighbours.
template <class S, int R, bool Ask, class T>
inline void margins(const S* const* x, const S* const* upcoming, const T* w, int64_t d, T* margin) {
  constexpr int L = lanes<T>;
  Pack<T> sums[R] = {};
  int64_t j = 0;
  for (int part = 0; part < R; ++part) {
    const int64_t begin = j, end = d * (part + 1) / R / L * L;
    for (; j < end; j += L) {
      if (Ask)
        for (int r = 0; r < R; r += line_packs<S>)
          prefetch(upcoming[part] + (j - begin) * R + r * L);
      const Pack<T> v = load(w + j);
      for (int r = 0; r < R; ++r) sums[r] = multiply_add(load(x[r] + j), v, sums[r]);
    }
    if (Ask && (end - begin) * R < d)
      prefetch_row(upcoming[part] + (end - begin) * R, d - (end - begin) * R);
  }
  if (j < d) {
    const Tail<T> tail(d);
    const Pack<T> v = load(w + tail.at, tail.part);
    for (int r = 0; r < R; ++r) sums[r] = multiply_add(load(x[r] + tail.at, tail.part), v, sums[r]);
  }
  if (R == 4)
    sum_four(sums, margin);
  else
    for (int r = 0; r < R; ++r) margin[r] = sum(sums[r]);
}

// gradient += slope[0] x[0] + ... over R rows; gradient is padded, the tail's pack behind the whole
// ones.
template <class S, int R, class T>
inline void accumulate(const S* const* x, const T* slope, int64_t d, T* gradient) {
  constexpr int L = lanes<T>;
  Pack<T> factor[R];
  for (int r = 0; r < R; ++r) factor[r] = all(slope[r]);
  int64_t j = 0;
  for (; j + L <= d; j += L) {
    Pack<T> g = load(gradient + j);
    for (int r = 0; r < R; ++r) g = multiply_add(factor[r], load(x[r] + j), g);
    store(gradient + j, g);
  }
  if (j < d) {
    const Tail<T> tail(d);
    Pack<T> g = load(gradient + j);
    for (int r = 0; r < R; ++r) g = multiply_add(factor[r], load(x[r] + tail.at, tail.part), g);
    store(gradient + j, g);
  }
}

// Weights and gradient of rows of any length lie in memory.
template <class S>
struct LongTile {
  using T = Scalar<S>;
  int64_t d;
  const T* w;
  T* gradient;

  LongTile(int64_t width, const T* theta, T* sums) : d(width), w(theta), gradient(sums) {
    for (int64_t j = 0; j < padded(d); ++j) gradient[j] = 0;
  }

  bool grouped() const { return d * int64_t(sizeof(S)) <= longest_in_group; }

  // Of a group of short rows, half of those to come are asked for while margins are computed, half
  // while rows are added.
  template <int R, bool Fetch>
  void margins_of(const S* const* x, const S* const* soon, const S* const* upcoming,
                  T* margin) const {
    constexpr int some = R < 4 ? R : 4, now = R < 4 ? R : 2;
    for (int r = 0; r < R; r += some) {
      for (int k = r; Fetch && k < r + some; ++k) fetch_row(soon[k], d);
      if (grouped()) {
        for (int k = r; k < r + now; ++k) prefetch_row(upcoming[k], d);
        margins<S, some, false>(x + r, upcoming + r, w, d, margin + r);
      } else {
        margins<S, some, true>(x + r, upcoming + r, w, d, margin + r);
      }
    }
  }

  template <int R>
  void add(const S* const* x, const S* const* upcoming, const T* slope) {
    constexpr int some = R < 4 ? R : 4, later = R < 4 ? R : 2;
    for (int r = 0; r < R; r += some) {
      if (grouped())
        for (int k = r + later; k < r + some; ++k) prefetch_row(upcoming[k], d);
      accumulate<S, some>(x + r, slope + r, d, gradient);
    }
  }

  void finish() {
    const Tail<T> tail(d);
    for (int64_t j = tail.begin; j < d; ++j) gradient[j] = gradient[tail.place(j)];
  }
};

// Those of rows of at most N packs stay in registers.
template <class S, int N>
struct ShortTile {
  using T = Scalar<S>;
  static constexpr int L = lanes<T>, chains = N < 4 ? 4 / N : 1;
  int64_t d;
  T* gradient;
  Lines<S, N> lines;
  Packs<T, N> packs;
  Pack<T> w[N], sums[chains][N];

  ShortTile(int64_t width, const T* theta, T* target)
      : d(width), gradient(target), lines(width), packs(width) {
    for (int k = 0; k < N; ++k) {
      w[k] = packs.fetch(theta, k);
      for (int c = 0; c < chains; ++c) sums[c][k] = Pack<T>{};
    }
  }

  // Memory is asked while margins are computed, or where rows are longer, while they are added. In
  // a small group it is better to fetch all its rows first.
  static constexpr bool early = N <= 2;
  template <int R>
  static constexpr bool interleaved = !early || R > 4;

  bool grouped() const { return true; }

  template <int R, bool Fetch>
  void margins_of(const S* const* x, const S* const* soon, const S* const* upcoming,
                  T* margin) const {
    constexpr int some = R < 4 ? R : 4;
    for (int r = 0; r < R; r += some) {
      Pack<T> dots[some] = {};
      if (early && !interleaved<R>) {
        for (int q = 0; Fetch && q < some; ++q) lines.to_first_level(soon[r + q]);
        for (int q = 0; q < some; ++q) lines.to_second_level(upcoming[r + q]);
      }
      for (int q = 0; q < some; ++q) {
        if (Fetch && interleaved<R>) lines.to_first_level(soon[r + q]);
        if (early && interleaved<R>) lines.to_second_level(upcoming[r + q]);
        for (int k = 0; k < N; ++k) dots[q] = multiply_add(packs.fetch(x[r + q], k), w[k], dots[q]);
      }
      if (some == 4)
        sum_four(dots, margin + r);
      else
        for (int q = 0; q < some; ++q) margin[r + q] = sum(dots[q]);
    }
  }

  template <int R>
  void add(const S* const* x, const S* const* upcoming, const T* slope) {
    for (int r = 0; r < R; ++r) {
      if (!early) lines.to_second_level(upcoming[r]);
      for (int k = 0; k < N; ++k)
        sums[r % chains][k] =
            multiply_add(all(slope[r]), packs.fetch(x[r], k), sums[r % chains][k]);
    }
  }

  void finish() {
    for (int k = 0; k < N; ++k)
      for (int c = 1; c < chains; ++c) sums[0][k] += sums[c][k];
    packs.put(sums[0], gradient);
  }
};

template <int R>
struct Group {
  static constexpr int rows = R;
};

// A sum that R numbers at a time are added to, side by side where they fill packs.
template <class T>
struct Sum {
  Pack<T> packs{};
  T rest = 0;
  template <int R>
  void add(const T* v) {
    constexpr int L = lanes<T>;
    if (R % L == 0)
      for (int k = 0; k < R; k += L) packs += load(v + k);
    else
      for (int r = 0; r < R; ++r) rest += v[r];
  }
  T total() const { return sum(packs) + rest; }
};

// The most rows of a group.
constexpr int group_rows = 16;

// Losses and slopes of at most so many rows, side by side. A function of its own, so that the loops
// over rows are compiled once and not for each loss.
template <class T, class Loss>
void weigh_group(const double* loss_parameters, const T* __restrict margin, const T* __restrict y,
                 int count, T* __restrict value, T* __restrict slope) {
  const Loss loss(loss_parameters);
  for (int r = 0; r < count; ++r) {
    value[r] = loss.value(margin[r], y[r]);
    slope[r] = loss.slope(margin[r], y[r]);
  }
}

template <class S, class Tile, class T = Scalar<S>>
double sum_tile(WeighGroup<T> weigh, const Problem<S>& problem, const Rows& rows, int64_t begin,
                int64_t end, const T* theta, T* gradient) {
  const int64_t d = problem.d;
  const T b = theta[d];
  Tile tile(d, theta, gradient);
  const int64_t ahead = prefetch_distance<S>(d);
  const int64_t near = fetch_distance<S>(rows, d, longest_in_group);
  Sum<T> total, bias;
  int64_t s = begin;
  const auto group = [&](auto size) {
    constexpr int R = decltype(size)::rows;
    int64_t row[R], near_row[R], next[R];
    const S *x[R], *soon[R], *upcoming[R];
    T margin[R], y[R], weight[R], value[R], slope[R];
    take<R>(rows, s, row);
    take_ahead<R>(rows, s, ahead, next);
    bool fetch = false;
    if (near) {
      take_ahead<R>(rows, s, near, near_row);
      fetch = near_row[0] != row[0] + near;  // or the processor sees a stream
      for (int r = 0; r < R; ++r) soon[r] = problem.X + near_row[r] * d;
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      x[r] = problem.X + row[r] * d;
      upcoming[r] = problem.X + next[r] * d;
      y[r] = problem.y[row[r]];
      __builtin_prefetch(problem.y + next[r]);
    }
    if (fetch)
      tile.template margins_of<R, true>(x, soon, upcoming, margin);
    else
      tile.template margins_of<R, false>(x, soon, upcoming, margin);
    for (int r = 0; r < R; ++r) margin[r] += b;
    weigh(problem.loss_parameters, margin, y, R, value, slope);
    if (problem.weight) {
      for (int r = 0; r < R; ++r) {
        weight[r] = problem.weight[row[r]];
        __builtin_prefetch(problem.weight + next[r]);
      }
      for (int r = 0; r < R; ++r) value[r] *= weight[r];
      for (int r = 0; r < R; ++r) slope[r] *= weight[r];
    }
    total.template add<R>(value);
    bias.template add<R>(slope);
    tile.template add<R>(x, upcoming, slope);
    s += R;
  };
  if (tile.grouped())
    while (s + group_rows <= end) group(Group<group_rows>{});
  while (s + 4 <= end) group(Group<4>{});
  while (s < end) group(Group<1>{});
  tile.finish();
  gradient[d] = problem.fit_intercept ? bias.total() : T(0);
  return double(total.total());
}

template <class S, class T = Scalar<S>>
double tile_gradient(WeighGroup<T> weigh, const Problem<S>& problem, const Rows& rows,
                     int64_t begin, int64_t end, const T* theta, T* gradient) {
  if constexpr (sizeof(S) == sizeof(T)) {
    const int64_t packs = (problem.d + lanes<T> - 1) / lanes<T>;
    if (packs == 1)
      return sum_tile<S, ShortTile<S, 1>>(weigh, problem, rows, begin, end, theta, gradient);
    if (packs == 2)
      return sum_tile<S, ShortTile<S, 2>>(weigh, problem, rows, begin, end, theta, gradient);
    if (packs <= 4)
      return sum_tile<S, ShortTile<S, 4>>(weigh, problem, rows, begin, end, theta, gradient);
  }
  return sum_tile<S, LongTile<S>>(weigh, problem, rows, begin, end, theta, gradient);
}

// The rows as a member of the crew sees them whose run of tiles ends before tile `own_end`, in a
// wave that ends before tile `wave_end`: after its own it asks memory for its own of the next wave,
// or of the next batch, which is cut like this one.
inline Rows seen_by(Crew crew, Rows rows, int64_t own_end, int64_t wave_end) {
  if (crew.size == 1) return rows;
  const int64_t tiles = (rows.count + tile_rows - 1) / tile_rows;
  const bool more = wave_end < tiles;
  const int64_t count = smaller(wave_tiles, more ? tiles - wave_end : tiles);
  const int64_t begin = count * crew.rank / crew.size * tile_rows;
  rows.end = smaller(own_end * tile_rows, rows.count);
  rows.skip = (more ? wave_end * tile_rows : rows.count) + begin - rows.end;
  return rows;
}

// Sums the tiles of one wave, each member a run of them. Their losses are added by rank 0.
template <class S, class T>
inline void sum_wave(const RowKernels<S>& kernels, int loss, const Problem<S>& problem,
                     const Rows& batch, int64_t first, int64_t count, const T* theta,
                     Scratch<T>& scratch, double* summed, Crew crew) {
  const int64_t last = count * (crew.rank + 1) / crew.size;
  const Rows rows = seen_by(crew, batch, first + last, first + count);
  for (int64_t t = count * crew.rank / crew.size; t < last; ++t) {
    const int64_t begin = (first + t) * tile_rows, end = smaller(begin + tile_rows, rows.count);
    scratch.loss[t] = kernels.tile_gradient(kernels.weigh_group[loss], problem, rows, begin, end,
                                            theta, scratch.partial + t * padded(problem.d));
  }
  crew.wait();
  if (crew.rank == 0)
    for (int64_t t = 0; t < count; ++t) *summed += scratch.loss[t];
}

// Adds the wave's partial sums to the columns low <= j < high of the total, in ascending order of
// the tiles, so that the bits do not depend on the crew's size.
template <class T>
inline void combine_wave(Scratch<T>& scratch, int64_t d, int64_t count, int64_t low, int64_t high) {
  for (int64_t t = 0; t < count; ++t) {
    const T* __restrict part = scratch.partial + t * padded(d);
    double* __restrict total = scratch.total;
    for (int64_t j = low; j < high; ++j) total[j] += double(part[j]);
  }
}

// The crew member's share of the d + 1 columns, cut at cache lines.
inline void share(int64_t d, Crew crew, int64_t& low, int64_t& high) {
  const int64_t lines = (d + 16) / 16;
  low = lines * crew.rank / crew.size * 16;
  high = smaller(lines * (crew.rank + 1) / crew.size * 16, d + 1);
}

// Adds the summed gradient of the rows to scratch.total and their summed loss to *summed.
template <class S, class T = Scalar<S>>
void add_gradient(const RowKernels<S>& kernels, int loss, const Problem<S>& problem,
                  const Rows& rows, const T* theta, Scratch<T>& scratch, double* summed,
                  Crew crew) {
  const int64_t tiles = (rows.count + tile_rows - 1) / tile_rows;
  int64_t low, high;
  share(problem.d, crew, low, high);
  for (int64_t first = 0; first < tiles; first += wave_tiles) {
    const int64_t count = smaller(wave_tiles, tiles - first);
    sum_wave(kernels, loss, problem, rows, first, count, theta, scratch, summed, crew);
    combine_wave(scratch, problem.d, count, low, high);
    crew.wait();
  }
}

// Summed loss and gradient as add_gradient has them, and the summed squared norm of the samples'
// gradients: weight^2 slope^2 (|x|^2 + 1), one multiply per element more.
template <class S, class T = Scalar<S>>
double variance(WeighGroup<T> weigh, const Problem<S>& problem, const Rows& rows, const T* theta,
                double* loss, double* gradient) {
  const int64_t d = problem.d;
  double second = 0;
  for (int64_t s = 0; s < rows.count; ++s) {
    const int64_t i = rows[s];
    const S* __restrict x = problem.X + i * d;
    const T margin = dot(x, theta, d) + theta[d];
    T weight = problem.weight ? problem.weight[i] : T(1), part, derivative;
    weigh(problem.loss_parameters, &margin, problem.y + i, 1, &part, &derivative);
    *loss += double(weight * part);
    const double slope = double(weight * derivative);
    double norm = problem.fit_intercept ? 1 : 0;
    for (int64_t j = 0; j < d; ++j) {
      const double element = double(value(x[j]));
      norm += element * element;
      gradient[j] += slope * element;
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

// Columns of one update from a summed gradient over `count` rows: mean, L2, rule, L1, average.
template <class T, class Rule, class G>
void finish_columns(const Columns& columns, const Update& update, int64_t step,
                    const G* __restrict gradient, int64_t count, double factor, State<T>& state) {
  const int64_t d = columns.d, low = columns.low, high = smaller(columns.high, d);
  const double* constants = update.constants + step * update.stride;
  const Rule rule(constants);
  const G scale = G(factor / double(count));
  const T l2 = T(update.l2 * factor);
  T none = 0;
  T* __restrict w = state.theta;
  T* __restrict a = state.slot[0], * __restrict v = state.slot[1];
  for (int64_t j = low; j < high; ++j) {
    const T g = T(gradient[j] * scale) + l2 * w[j];
    rule.update(w[j], g, Rule::slots > 0 ? a[j] : none, Rule::slots > 1 ? v[j] : none);
  }
  if (update.l1 > 0) {
    const T amount = T(constants[0] * update.l1);
    for (int64_t j = low; j < high; ++j) w[j] = shrink_towards_zero(w[j], amount);
  }
  if (columns.fit_intercept && columns.high > d) {
    const Undecayed<Rule> undecayed(constants);
    const Rule plain(undecayed.constants);
    plain.update(w[d], T(gradient[d] * scale), Rule::slots > 0 ? a[d] : none,
                 Rule::slots > 1 ? v[d] : none);
  }
  if (state.average)
    add_to_average(state.average, state.theta, state.averaged + 1, low, columns.high);
}

template <class T, class Rule>
void finish(const Columns& columns, const Update& update, int64_t step, const T* tile,
            const double* total, int64_t count, double factor, State<T>& state) {
  if (tile)
    finish_columns<T, Rule>(columns, update, step, tile, count, factor, state);
  else
    finish_columns<T, Rule>(columns, update, step, total, count, factor, state);
}

template <class T, class G>
inline double mean_norm(const Update& update, const G* __restrict gradient, int64_t count,
                        const T* __restrict w, int64_t d) {
  const double mean = 1.0 / double(count), intercept = double(gradient[d]) * mean;
  double norm = intercept * intercept;
  for (int64_t j = 0; j < d; ++j) {
    const double g = double(gradient[j]) * mean + update.l2 * double(w[j]);
    norm += g * g;
  }
  return square_root(norm);
}

template <class T>
double step_norm(const Update& update, const T* tile, const double* total, int64_t count,
                 const T* theta, int64_t d) {
  return tile ? mean_norm(update, tile, count, theta, d)
              : mean_norm(update, total, count, theta, d);
}

// Every member of the crew runs the same steps, sums its tiles and updates its columns.
template <class S, class T = Scalar<S>>
Outcome descend_batches(const RowKernels<S>& kernels, const VectorKernels<T>& vectors, int loss,
                        int rule, const Problem<S>& problem, const Rows& rows, int64_t batch_size,
                        const Update& update, State<T>& shared, Scratch<T>& scratch, Crew crew) {
  const int64_t d = problem.d;
  State<T> state = shared;  // the count of averaged iterates is each member's own
  Columns columns{d, 0, 0, problem.fit_intercept};
  share(d, crew, columns.low, columns.high);
  Outcome outcome{0, 0};
  double summed = 0;
  for (int64_t begin = 0, step = 0; begin < rows.count; begin += batch_size, ++step) {
    const int64_t count = smaller(batch_size, rows.count - begin);
    const Rows batch = rows.part(begin, count);
    const int64_t tiles = (count + tile_rows - 1) / tile_rows;
    const T* tile = tiles == 1 ? scratch.partial : nullptr;
    if (!tile)
      for (int64_t j = columns.low; j < columns.high; ++j) scratch.total[j] = 0;
    for (int64_t first = 0; first < tiles; first += wave_tiles) {
      const int64_t wave = smaller(wave_tiles, tiles - first);
      sum_wave(kernels, loss, problem, batch, first, wave, state.theta, scratch, &summed, crew);
      if (!tile) combine_wave(scratch, d, wave, columns.low, columns.high);
      if (first + wave < tiles) crew.wait();
    }
    double factor = 1;
    if (update.clip_norm > 0 || begin + count == rows.count) {
      crew.wait();
      const double norm = vectors.norm(update, tile, scratch.total, count, state.theta, d);
      if (update.clip_norm > 0 && norm > update.clip_norm) factor = update.clip_norm / norm;
      outcome.gradient_norm = norm;
      crew.wait();
    }
    vectors.finish[rule](columns, update, step, tile, scratch.total, count, factor, state);
    if (state.average) ++state.averaged;
    crew.wait();
  }
  if (crew.rank == 0) shared.averaged = state.averaged;
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

template <class S, class T = Scalar<S>>
void margin(const S* X, int64_t d, const Rows& rows, const T* theta, T* out) {
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
  constexpr int64_t block = 1024, together = 16;
  const Word n = Word(image.n);
  Word x[block];
  int32_t place[block];
  for (int64_t done = 0; done < stop - start; done += block, out += block) {
    int64_t count = smaller(block, stop - start - done);
    for (int64_t k = 0; k < block; ++k) {
      x[k] = Word(uint64_t(start + done) + uint64_t(k));  // those beyond `stop` are not used
      place[k] = int32_t(k);
    }
    for (bool first = true; count > 0; first = false) {
      for (int64_t k = 0; k < count; k += together)
        for (int64_t q = k; q < k + together; ++q) x[q] = image.encrypt(x[q]);
      if (first)
        for (int64_t k = 0; k < count; ++k) out[k] = I(x[k]);
      else
        for (int64_t k = 0; k < count; ++k) out[place[k]] = I(x[k]);
      count = keep_beyond(n, count, x, place);
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

// Rows at places start <= p < stop, counted from the first buffer's begin.
template <class I>
void mix(const Pattern<I>& pattern, int64_t start, int64_t stop, I* __restrict out) {
  for (int64_t done = start; done < stop;) {
    const int64_t buffer = done / pattern.size;
    const int64_t count = smaller(stop, (buffer + 1) * pattern.size) - done;
    const int64_t first = done - buffer * pattern.size + pattern.turned[buffer];
    const I *block = pattern.block + first, *row = pattern.row + first;
    const I* starts = pattern.starts + buffer * pattern.blocks;
    for (int64_t k = 0; k < count; ++k) out[k] = starts[block[k]] + row[k];
    done += count;
    out += count;
  }
}

// ---- The ceiling ----
//
// Reads the rows and does nothing with them but add: what any kernel is measured against.

template <class S, class T = Scalar<S>>
T sum_rows(const S* X, int64_t d, const Rows& rows, int64_t ahead, int64_t near) {
  constexpr int L = lanes<T>;
  const Tail<T> tail(d);
  Pack<T> sums[4] = {};
  for (int64_t s = 0; s < rows.count; ++s) {
    const S* x = X + rows[s] * d;
    if (s + ahead < rows.count) prefetch_row(X + rows[s + ahead] * d, d);
    if (near && s + near < rows.count) fetch_row(X + rows[s + near] * d, d);
    int64_t j = 0;
    for (; j + 4 * L <= d; j += 4 * L)
      for (int k = 0; k < 4; ++k) sums[k] += load(x + j + k * L);
    for (; j + L <= d; j += L) sums[0] += load(x + j);
    if (j < d) sums[1] += load(x + tail.at, tail.part);
  }
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// ---- The tables ----
//
// Evaluated by the compiler: nothing of an instruction set may run before it is chosen.

template <class S, int Row>
struct AddLosses {
  static constexpr void to(RowKernels<S>& table) {
    using Loss = typename loss_row<Scalar<S>, Row - 1>::type;
    table.descend_samples[Row - 1] = descend_samples<S, Loss>;
    table.weigh_group[Row - 1] = weigh_group<Scalar<S>, Loss>;
    AddLosses<S, Row - 1>::to(table);
  }
};
template <class S>
struct AddLosses<S, 0> {
  static constexpr void to(RowKernels<S>&) {}
};

template <class T, int Row>
struct AddRules {
  static constexpr void to(VectorKernels<T>& table) {
    using Rule = typename rule_row<T, Row - 1>::type;
    table.finish[Row - 1] = finish<T, Rule>;
    table.apply[Row - 1] = apply<T, Rule>;
    AddRules<T, Row - 1>::to(table);
  }
};
template <class T>
struct AddRules<T, 0> {
  static constexpr void to(VectorKernels<T>&) {}
};

template <class S>
constexpr RowKernels<S> over_rows() {
  static_assert(loss_count <= RowKernels<S>::most, "raise most");
  RowKernels<S> table{};
  AddLosses<S, loss_count>::to(table);
  table.tile_gradient = tile_gradient<S>;
  table.variance = variance<S>;
  table.add_gradient = add_gradient<S>;
  table.descend_batches = descend_batches<S>;
  table.margin = margin<S>;
  table.sum_rows = sum_rows<S>;
  return table;
}

template <class T>
constexpr VectorKernels<T> over_vectors() {
  static_assert(rule_count <= VectorKernels<T>::most, "raise most");
  VectorKernels<T> table{};
  AddRules<T, rule_count>::to(table);
  table.norm = step_norm<T>;
  table.reduce = reduce<T>;
  return table;
}

constexpr InstructionSet make_set(const char* name, const OutputKernels<float>* single,
                                  const OutputKernels<double>* wide, const SparseSet* sparse,
                                  const ClassicSet* classic, const Ceilings* ceilings,
                                  const OptimizerKernels* optimizers) {
  return {name,
          over_vectors<float>(),
          over_vectors<double>(),
          over_rows<float>(),
          over_rows<double>(),
          over_rows<bfloat16>(),
          over_rows<float16>(),
          permute<int32_t>,
          permute<int64_t>,
          mix<int32_t>,
          mix<int64_t>,
          single,
          wide,
          sparse,
          classic,
          ceilings,
          optimizers};
}

}  // namespace SCHUSS_ISA
}  // namespace schuss

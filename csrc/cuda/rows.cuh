// Rows of X in the hands of a team of threads: their margin, and what they add to the gradient.
//
// A team of `Lanes` threads holds a row in registers while the margin and the gradient use it, so
// that each row is read once. Teams of a warp's part take short rows, whole blocks long ones.
#pragma once

#include "cuda/common.cuh"

namespace schuss {

// Rows of at most Lanes * Packs packs: the row, the weights and the sums stay in registers.
template <class S, int Lanes, int Packs>
struct HeldRows {
  using T = Scalar<S>;
  static constexpr int size = Pack<S>::size;
  static constexpr int lanes = Lanes;
  T w[Packs][size], x[Packs][size], sum[Packs][size];
  int64_t packs;  // of a row

  SCHUSS_DEVICE int lane() const { return int(threadIdx.x) % Lanes; }
  // Number of the pack in the row: neighbours in a team read neighbours in memory.
  SCHUSS_DEVICE int64_t at(int k) const { return lane() + k * Lanes; }

  SCHUSS_DEVICE HeldRows(int64_t width, const T* theta, double*) : packs(width / size) {
#pragma unroll
    for (int k = 0; k < Packs; ++k) {
      for (int q = 0; q < size; ++q) w[k][q] = sum[k][q] = x[k][q] = 0;
      if (at(k) < packs)
        for (int q = 0; q < size; q += Pack<T>::size)
          load_pack_shared_by_all(theta + at(k) * size + q, w[k] + q);
    }
  }

  // The row into registers, zeros where there is none, and its share of the margin.
  SCHUSS_DEVICE T take(const S* row, bool there) {
    Pack<S> read[Packs];
#pragma unroll
    for (int k = 0; k < Packs; ++k)  // all loads are under way before the first is used
      if (there && at(k) < packs) read[k] = load_pack(row + at(k) * size);
    T part = 0;
#pragma unroll
    for (int k = 0; k < Packs; ++k)
      for (int q = 0; q < size; ++q) {
        x[k][q] = there && at(k) < packs ? widen(read[k].numbers[q]) : T(0);
        part += x[k][q] * w[k][q];
      }
    return part;
  }
  SCHUSS_DEVICE T square() const {
    T part = 0;
    for (int k = 0; k < Packs; ++k)
      for (int q = 0; q < size; ++q) part += x[k][q] * x[k][q];
    return part;
  }
  SCHUSS_DEVICE void add(T slope) {
#pragma unroll
    for (int k = 0; k < Packs; ++k)
      for (int q = 0; q < size; ++q) sum[k][q] += slope * x[k][q];
  }
  // The weights go one step by the row in hand.
  SCHUSS_DEVICE void advance(T keep, T step) {
#pragma unroll
    for (int k = 0; k < Packs; ++k)
      for (int q = 0; q < size; ++q) w[k][q] = keep * w[k][q] - step * x[k][q];
  }
  // put(j, w) for each column in hand.
  template <class Put>
  SCHUSS_DEVICE void weights(Put put) const {
    for (int k = 0; k < Packs; ++k)
      for (int q = 0; q < size; ++q)
        if (at(k) < packs) put(at(k) * size + q, w[k][q]);
  }
  // put(j, sum) for each column in hand; the sums begin anew.
  template <class Put>
  SCHUSS_DEVICE void give(Put put) {
    for (int k = 0; k < Packs; ++k)
      for (int q = 0; q < size; ++q) {
        if (at(k) < packs) put(at(k) * size + q, sum[k][q]);
        sum[k][q] = 0;
      }
  }
};

// Longer rows, by a whole block: the row is read once from memory and once more, for the gradient,
// from the second-level cache; the sums are kept in the memory they go to, (width,) of 0 before.
template <class S, int Lanes>
struct HeldRows<S, Lanes, 0> {
  using T = Scalar<S>;
  static constexpr int size = Pack<S>::size;
  static constexpr int lanes = Lanes;
  static_assert(Lanes == block_threads, "the sums of a block's only team");
  int64_t packs;
  const T* w;
  double* sum;
  const S* x;

  SCHUSS_DEVICE HeldRows(int64_t width, const T* theta, double* sums)
      : packs(width / size), w(theta), sum(sums), x(nullptr) {}
  SCHUSS_DEVICE T take(const S* row, bool there) {
    x = row;
    T part = 0;
    for (int64_t p = threadIdx.x; there && p < packs; p += Lanes) {
      const Pack<S> read = load_pack(x + p * size);
      for (int q = 0; q < size; ++q)
        part += widen(read.numbers[q]) * load_shared_by_all(w + p * size + q);
    }
    return part;
  }
  SCHUSS_DEVICE T square() const {
    T part = 0;
    for (int64_t p = threadIdx.x; p < packs; p += Lanes) {
      const Pack<S> read = load_pack(x + p * size);
      for (int q = 0; q < size; ++q) part += widen(read.numbers[q]) * widen(read.numbers[q]);
    }
    return part;
  }
  // Each thread adds to the same numbers throughout, so that none waits for another.
  SCHUSS_DEVICE void add(T slope) {
    for (int64_t p = threadIdx.x; p < packs; p += Lanes) {
      const Pack<S> read = load_pack(x + p * size);
      for (int q = 0; q < size; ++q) sum[p * size + q] += double(slope * widen(read.numbers[q]));
    }
  }
  template <class Put>
  SCHUSS_DEVICE void give(Put) {}
};

// A sum over the team's threads; all get it.
template <int Lanes, class T>
SCHUSS_DEVICE T sum_of_team(T v) {
  if constexpr (Lanes <= 32) {
    return team_sum<Lanes>(v);
  } else {
    __shared__ T room[block_threads / 32];
    return block_sum(v, room);
  }
}

// x . w + intercept of the rows, by all teams of the launch in turn.
template <class InHand, class S, class T = Scalar<S>>
SCHUSS_DEVICE void margins(const S* X, int64_t width, const Rows& rows, const T* theta, T intercept,
                           T* out) {
  constexpr int lanes = InHand::lanes, teams = block_threads / lanes;
  InHand hand(width, theta, nullptr);
  const int64_t all = int64_t(gridDim.x) * teams;
  for (int64_t first = int64_t(blockIdx.x) * teams; first < rows.count; first += all) {
    const int64_t place = first + threadIdx.x / lanes;
    const bool there = place < rows.count;
    const int64_t i = there ? row_at(rows, place) : 0;
    const T sum = sum_of_team<lanes>(hand.take(X + i * width, there));
    if (there && threadIdx.x % lanes == 0) out[place] = sum + intercept;
  }
}

// What a team has summed over its rows beside the gradient's columns.
template <class T>
struct Scalars {
  T bias = 0;
  double loss = 0, squares = 0;
};

// The rows at places begin <= p < end, by the block's teams in turn: margin, loss, slope, and
// slope * x added to what is in hand.
template <class Loss, bool Norms, class S, class InHand, class T = Scalar<S>>
SCHUSS_DEVICE void sum_rows(const Problem<S>& problem, const Rows& rows, T intercept, int64_t begin,
                            int64_t end, InHand& hand, Scalars<T>& scalars) {
  constexpr int lanes = InHand::lanes, teams = block_threads / lanes;
  const Loss loss(problem.loss_parameters);
  int64_t place = begin + threadIdx.x / lanes;
  int64_t row = place < end ? row_at(rows, place) : 0;
  // All threads stay together to the last round: sums over teams are theirs in common.
  for (int64_t first = begin; first < end; first += teams, place += teams) {
    const bool there = place < end;
    const int64_t i = row;
    if (place + teams < end) row = row_at(rows, place + teams);  // while this row is on its way
    const T y = there ? problem.y[i] : T(0);
    const T margin =
        sum_of_team<lanes>(hand.take(problem.X + i * problem.width, there)) + intercept;
    const T square = Norms ? sum_of_team<lanes>(hand.square()) : T(0);
    if (!there) continue;
    const T weight = problem.weight ? problem.weight[i] : T(1);
    const T slope = weight * loss.slope(margin, y);
    scalars.loss += double(weight * loss.value(margin, y));
    scalars.bias += slope;
    if (Norms)
      scalars.squares += double(slope) * double(slope) * double(square + T(problem.fit_intercept));
    hand.add(slope);
  }
}

// What the block's teams have in hand, in their order, to the sums. `room` is (teams, width + 1).
template <class T, class InHand>
SCHUSS_DEVICE void add_teams(InHand& hand, T bias, int64_t width, T* room, double* sums) {
  constexpr int lanes = InHand::lanes, teams = block_threads / lanes;
  if constexpr (teams == 1) {
    hand.give([&](int64_t j, T sum) { sums[j] += double(sum); });
    if (threadIdx.x == 0) sums[width] += double(bias);
  } else {
    T* own = room + int(threadIdx.x) / lanes * (width + 1);
    hand.give([&](int64_t j, T sum) { own[j] = sum; });
    if (threadIdx.x % lanes == 0) own[width] = bias;
    __syncthreads();
    for (int64_t j = threadIdx.x; j <= width; j += block_threads) {
      T sum = 0;
      for (int team = 0; team < teams; ++team) sum += room[team * (width + 1) + j];
      sums[j] += double(sum);
    }
    __syncthreads();  // the room is free for the next tile
  }
}

// One part of a batch by one block: its tiles one after the other. `room` is shared memory of
// (teams, width + 1) T where there are several teams.
template <class Loss, bool Norms, class InHand, class S, class T = Scalar<S>>
SCHUSS_DEVICE void sum_part(const Problem<S>& problem, const Rows& rows, const T* theta,
                            const Partials& partials, int64_t part, unsigned char* room) {
  constexpr int lanes = InHand::lanes, teams = block_threads / lanes;
  __shared__ double apart[block_threads / 32];
  const int64_t tile = partials.rows_of_tile * teams, width = problem.width;
  const int64_t begin = part * partials.tiles_of_part * tile;
  const int64_t last = begin + partials.tiles_of_part * tile;
  const int64_t end = last < rows.count ? last : rows.count;
  double* sums = partials.sums + part * (width + 1);
  for (int64_t j = threadIdx.x; j <= width; j += block_threads) sums[j] = 0;
  __syncthreads();
  InHand hand(width, theta, sums);
  const T intercept = load_shared_by_all(theta + width);
  double loss = 0, squares = 0;
  for (int64_t first = begin; first < end; first += tile) {
    Scalars<T> scalars;
    const int64_t stop = first + tile < end ? first + tile : end;
    sum_rows<Loss, Norms>(problem, rows, intercept, first, stop, hand, scalars);
    add_teams(hand, scalars.bias, width, reinterpret_cast<T*>(room), sums);
    loss += scalars.loss;
    squares += scalars.squares;
  }
  const bool one = threadIdx.x % lanes == 0;  // all threads of a team have the same
  loss = block_sum(one ? loss : 0.0, apart);
  if (Norms) squares = block_sum(one ? squares : 0.0, apart);
  if (threadIdx.x == 0) {
    partials.losses[2 * part] = loss;
    partials.losses[2 * part + 1] = squares;
  }
}

}  // namespace schuss

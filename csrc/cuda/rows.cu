// Kernels over dense rows of one output: gradient, variance, one step, a run of steps, margins.
//
// Each reads a row once: width sizeof(S) bytes and 4 width flops for a gradient. What is written is
// (width + 1) numbers for each tile of up to 64 rows of each team of the block.
#include "cuda/columns.cuh"
#include "cuda/rows.cuh"

namespace schuss {

// The sums over every tile. Grid: a block for each tile.
template <class S, template <class> class Loss, int Lanes, int Packs, bool Norms>
__global__ void __launch_bounds__(block_threads)
    gradient(const Problem<S> problem, const Rows rows, const Scalar<S>* theta,
             const Partials<Scalar<S>> partials) {
  SCHUSS_DYNAMIC_SHARED(unsigned char, room);
  sum_tile<Loss<Scalar<S>>, Norms, HeldRows<S, Lanes, Packs>>(problem, rows, theta, partials,
                                                              blockIdx.x, room);
}

// One step by one block: of the whole step, so that the norm can be had before the update.
template <class Rule, class T>
SCHUSS_DEVICE void finish_step(const Columns& columns, const Update& update, int64_t step,
                               int64_t count, bool norm_wanted, const State<T>& state,
                               const Partials<T>& partials, const Outcome& outcome) {
  __shared__ double room[block_threads / 32];
  if (threadIdx.x == 0) outcome.results[0] += loss_sum(partials);
  if (!norm_wanted) {
    update_columns<Rule>(columns, update, step, count, 1.0, state,
                         [&](int64_t j) { return column_sum(partials, columns.width + 1, j); });
    return;
  }
  const double squares =
      squares_of_columns(columns, update, count, state.theta, outcome.total,
                         [&](int64_t j) { return column_sum(partials, columns.width + 1, j); });
  const double norm = sqrt(block_sum(squares, room));
  if (threadIdx.x == 0) outcome.results[1] = norm;
  update_columns<Rule>(columns, update, step, count, clipping(update.clip_norm, norm), state,
                       [&](int64_t j) { return outcome.total[j]; });
}

// One step in one kernel: the block that comes last finishes what all have summed.
template <class S, template <class> class Loss, template <class> class Rule, int Lanes, int Packs>
__global__ void __launch_bounds__(block_threads)
    step(const Problem<S> problem, const Rows rows, const Partials<Scalar<S>> partials,
         const Update update, const int64_t number, const int32_t norm_wanted,
         const State<Scalar<S>> state, const Outcome outcome) {
  SCHUSS_DYNAMIC_SHARED(unsigned char, room);
  sum_tile<Loss<Scalar<S>>, false, HeldRows<S, Lanes, Packs>>(problem, rows, state.theta, partials,
                                                              blockIdx.x, room);
  if (!last_to_arrive(outcome.arrived)) return;
  const Columns all{problem.width, 0, problem.width + 1, problem.fit_intercept};
  finish_step<Rule<Scalar<S>>>(all, update, number, rows.count, norm_wanted, state, partials,
                               outcome);
}

// A run of steps in one launch. All blocks are resident; each sums tiles, waits for the others, and
// finishes a share of the columns. The norm, where it is wanted, is one more wait.
template <class S, template <class> class Loss, template <class> class Rule, int Lanes, int Packs>
__global__ void __launch_bounds__(block_threads)
    descend(const Problem<S> problem, const Rows rows, const int64_t batch_size,
            const Partials<Scalar<S>> partials, const Update update, const State<Scalar<S>> state,
            const Outcome outcome) {
  using T = Scalar<S>;
  SCHUSS_DYNAMIC_SHARED(unsigned char, room);
  __shared__ double norm_room[block_threads / 32];
  constexpr int teams = block_threads / Lanes;
  const int64_t width = problem.width, share = (width + gridDim.x) / gridDim.x;
  const int64_t low = blockIdx.x * share;
  const int64_t high = low + share < width + 1 ? low + share : width + 1;
  const Columns columns{width, low, high, problem.fit_intercept};
  GridBarrier barrier{outcome.arrived};
  int64_t number = 0;
  for (int64_t begin = 0; begin < rows.count; begin += batch_size, ++number) {
    const int64_t left = rows.count - begin, count = left < batch_size ? left : batch_size;
    const bool last = left <= batch_size;
    const Rows batch{rows.narrow ? rows.narrow + begin : nullptr,
                     rows.wide ? rows.wide + begin : nullptr, rows.start + begin, count};
    Partials<T> sums = partials;
    sums.tiles = sums.loss_parts =
        (count + partials.rows_of_tile * teams - 1) / (partials.rows_of_tile * teams);
    for (int64_t tile = blockIdx.x; tile < sums.tiles; tile += gridDim.x)
      sum_tile<Loss<Scalar<S>>, false, HeldRows<S, Lanes, Packs>>(problem, batch, state.theta, sums,
                                                                  tile, room);
    barrier.wait();
    if (blockIdx.x == 0 && threadIdx.x == 0) outcome.results[0] += loss_sum(sums);
    if (update.clip_norm > 0 || last) {
      double squares =
          squares_of_columns(columns, update, count, state.theta, outcome.total,
                             [&](int64_t j) { return column_sum(sums, width + 1, j); });
      squares = block_sum(squares, norm_room);
      if (threadIdx.x == 0) outcome.squares[blockIdx.x] = squares;
      barrier.wait();
      double norm = 0;
      for (int k = 0; k < int(gridDim.x); ++k) norm += load_shared_by_all(outcome.squares + k);
      norm = sqrt(norm);
      if (last && blockIdx.x == 0 && threadIdx.x == 0) outcome.results[1] = norm;
      update_columns<Rule<T>>(columns, update, number, count, clipping(update.clip_norm, norm),
                              state, [&](int64_t j) { return outcome.total[j]; });
    } else {
      update_columns<Rule<T>>(columns, update, number, count, 1.0, state,
                              [&](int64_t j) { return column_sum(sums, width + 1, j); });
    }
    barrier.wait();
  }
}

// Margins of the rows, with or without the intercept. Grid: any; teams take rows in turn.
template <class S, int Lanes, int Packs>
__global__ void __launch_bounds__(block_threads)
    margin(const S* X, const int64_t width, const Rows rows, const Scalar<S>* theta,
           const int32_t with_intercept, Scalar<S>* out) {
  HeldRows<S, Lanes, Packs> hand(width, theta, nullptr);
  constexpr int teams = block_threads / Lanes;
  const int64_t all = int64_t(gridDim.x) * teams;
  for (int64_t first = int64_t(blockIdx.x) * teams; first < rows.count; first += all) {
    const int64_t place = first + threadIdx.x / Lanes;
    const bool there = place < rows.count;
    const int64_t i = there ? row_at(rows, place) : 0;
    const Scalar<S> sum = sum_of_team<Lanes>(hand.take(X + i * width, there));
    if (there && threadIdx.x % Lanes == 0) out[place] = with_intercept ? sum + theta[width] : sum;
  }
}

}  // namespace schuss

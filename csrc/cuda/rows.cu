// Kernels over dense rows of one output: gradient, one step, a run of steps, margins.
//
// A row is read once: width sizeof(S) bytes, and 4 width flops for a gradient.
#include "cuda/columns.cuh"
#include "cuda/rows.cuh"

namespace schuss {

// The sums over every part. Grid: a block for each.
template <class S, template <class> class Loss, int Lanes, int Packs, bool Norms>
__global__ void __launch_bounds__(block_threads)
    gradient(const Problem<S> problem, const Rows rows, const Scalar<S>* theta,
             const Partials partials) {
  SCHUSS_DYNAMIC_SHARED(unsigned char, room);
  sum_part<Loss<Scalar<S>>, Norms, HeldRows<S, Lanes, Packs>>(problem, rows, theta, partials,
                                                              blockIdx.x, room);
}

// One step in one kernel: the block that comes last finishes what all have summed.
template <class S, template <class> class Loss, template <class> class Rule, int Lanes, int Packs>
__global__ void __launch_bounds__(block_threads)
    step(const Problem<S> problem, const Rows rows, const Partials partials, const Update update,
         const int64_t number, const int32_t norm_wanted, const State<Scalar<S>> state,
         const Outcome outcome) {
  SCHUSS_DYNAMIC_SHARED(unsigned char, room);
  __shared__ double apart[block_threads / 32];
  sum_part<Loss<Scalar<S>>, false, HeldRows<S, Lanes, Packs>>(problem, rows, state.theta, partials,
                                                              blockIdx.x, room);
  if (!last_to_arrive(outcome.arrived)) return;
  const int64_t columns = problem.width + 1;
  for (int64_t chunk = 0; chunk < chunks_in(columns); ++chunk)
    sum_columns(chunk_of(chunk, problem.width, columns, problem.fit_intercept), partials, columns,
                outcome.total);
  const Columns all{problem.width, 0, columns, problem.fit_intercept};
  double norm = 0;
  if (norm_wanted) {
    norm = squares_of_columns(all, update, rows.count, state.theta, outcome.total);
    norm = sqrt(block_sum(norm, apart));
  }
  update_columns<Rule<Scalar<S>>>(all, update, number, rows.count, clipping(update.clip_norm, norm),
                                  state, outcome.total);
  const double loss = loss_sum(partials, apart);
  if (threadIdx.x != 0) return;
  outcome.results[0] += loss;
  outcome.results[1] = norm;
}

// A run of steps in one launch. All blocks are resident; each sums parts, waits for the others, and
// finishes a share of the columns. The norm, where it is wanted, is one more wait.
template <class S, template <class> class Loss, template <class> class Rule, int Lanes, int Packs>
__global__ void __launch_bounds__(block_threads)
    descend(const Problem<S> problem, const Rows rows, const int64_t batch_size,
            const Partials partials, const Update update, const State<Scalar<S>> state,
            const Outcome outcome) {
  SCHUSS_DYNAMIC_SHARED(unsigned char, room);
  __shared__ double apart[block_threads / 32];
  constexpr int teams = block_threads / Lanes;
  const int64_t width = problem.width, all = width + 1, chunks = chunks_in(all);
  const int64_t part_rows = partials.rows_of_tile * teams * partials.tiles_of_part;
  GridBarrier barrier{outcome.arrived};
  for (int64_t number = 0; number * batch_size < rows.count; ++number) {
    const int64_t left = rows.count - number * batch_size;
    const int64_t count = left < batch_size ? left : batch_size;
    const bool norm_wanted = update.clip_norm > 0 || left <= batch_size;
    const Rows batch = places_within(rows, number * batch_size, count);
    Partials sums = partials;
    sums.parts = sums.loss_parts = (count + part_rows - 1) / part_rows;
    for (int64_t part = blockIdx.x; part < sums.parts; part += gridDim.x)
      sum_part<Loss<Scalar<S>>, false, HeldRows<S, Lanes, Packs>>(problem, batch, state.theta, sums,
                                                                  part, room);
    barrier.wait();
    for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
      const Columns own = chunk_of(chunk, width, all, problem.fit_intercept);
      sum_columns(own, sums, all, outcome.total);
      if (!norm_wanted) continue;
      double squares = squares_of_columns(own, update, count, state.theta, outcome.total);
      squares = block_sum(squares, apart);
      if (threadIdx.x == 0) outcome.squares[chunk] = squares;
    }
    double norm = 0;
    if (norm_wanted) {
      barrier.wait();
      norm = sqrt(sum_shared_by_all(outcome.squares, chunks, 1, apart));
    }
    for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x)
      update_columns<Rule<Scalar<S>>>(chunk_of(chunk, width, all, problem.fit_intercept), update,
                                      number, count, clipping(update.clip_norm, norm), state,
                                      outcome.total);
    if (blockIdx.x == gridDim.x - 1) {  // which has the fewest columns
      const double loss = loss_sum(sums, apart);
      if (threadIdx.x == 0) {
        outcome.results[0] += loss;
        outcome.results[1] = norm;
      }
    }
    barrier.wait();
  }
}

// Margins of the rows. Grid: any.
template <class S, int Lanes, int Packs>
__global__ void __launch_bounds__(block_threads)
    margin(const S* X, const int64_t width, const Rows rows, const Scalar<S>* theta,
           Scalar<S>* out) {
  margins<HeldRows<S, Lanes, Packs>>(X, width, rows, theta, theta[width], out);
}

}  // namespace schuss

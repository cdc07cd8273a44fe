// Steps of several kernels: what follows the sums, over as many blocks as there are columns for.
#include "cuda/columns.cuh"

namespace schuss {

// The parameters: (outputs, width + 1), the intercept of each output last.
struct Model {
  int64_t width;
  int64_t outputs;
  int32_t fit_intercept;
};

SCHUSS_DEVICE Columns own_columns(const Model& model) {
  return chunk_of(blockIdx.x, model.width, model.outputs * (model.width + 1), model.fit_intercept);
}

// Each column's sum over the parts, and by the block that comes last the batch's loss and the norm
// of the mean gradient. Where there are no parts (null), the sums are in outcome.total already.
// Grid: a block for each chunk of columns.
template <class T>
__global__ void __launch_bounds__(block_threads)
    combine(const Partials partials, const Model model, const Update update, const int64_t count,
            const T* theta, const Outcome outcome) {
  __shared__ double apart[block_threads / 32];
  const Columns columns = own_columns(model);
  if (partials.sums)
    sum_columns(columns, partials, model.outputs * (model.width + 1), outcome.total);
  double squares = squares_of_columns(columns, update, count, theta, outcome.total);
  squares = block_sum(squares, apart);
  if (threadIdx.x == 0) outcome.squares[blockIdx.x] = squares;
  if (!last_to_arrive(outcome.arrived)) return;
  const double norm = sqrt(sum_shared_by_all(outcome.squares, gridDim.x, 1, apart));
  const double loss = loss_sum(partials, apart);
  if (threadIdx.x != 0) return;
  outcome.results[0] += loss;
  outcome.results[1] = norm;
}

// The update from the columns' sums, which are 0 afterwards, for those who add to them. Grid: as
// combine's, which has told the norm.
template <class T, template <class> class Rule>
__global__ void __launch_bounds__(block_threads)
    finish(const Model model, const Update update, const int64_t number, const int64_t count,
           const State<T> state, const Outcome outcome) {
  const Columns columns = own_columns(model);
  const double factor = clipping(update.clip_norm, outcome.results[1]);
  update_columns<Rule<T>>(columns, update, number, count, factor, state, outcome.total);
  for (int64_t j = columns.low + threadIdx.x; j < columns.high; j += block_threads)
    outcome.total[j] = 0;
}

}  // namespace schuss

// Steps over more sums than one block should finish: two kernels, over as many blocks as there are
// columns for.
#include "cuda/columns.cuh"

namespace schuss {

// The parameters: (outputs, width + 1), the intercept of each output last.
struct Model {
  int64_t width;
  int64_t outputs;
  int32_t fit_intercept;
};

// The columns of this block, of a grid that has a thread for each.
SCHUSS_DEVICE Columns own_columns(const Model& model) {
  const int64_t all = model.outputs * (model.width + 1), low = int64_t(blockIdx.x) * block_threads;
  return {model.width, low, low + block_threads < all ? low + block_threads : all,
          model.fit_intercept};
}

// Each column's sum over the tiles, and each block's share of the squared norm. Where there are no
// tiles (null), the sums are in outcome.total already.
template <class T>
__global__ void __launch_bounds__(block_threads)
    combine(const Partials<T> partials, const Model model, const Update update, const int64_t count,
            const T* theta, const Outcome outcome) {
  __shared__ double room[block_threads / 32];
  const Columns columns = own_columns(model);
  const int64_t all = model.outputs * (model.width + 1);
  const double squares = squares_of_columns(
      columns, update, count, theta, outcome.total,
      [&](int64_t j) { return partials.sums ? column_sum(partials, all, j) : outcome.total[j]; });
  const double sum = block_sum(squares, room);
  if (threadIdx.x == 0) outcome.squares[blockIdx.x] = sum;
}

// The update from the columns' sums; they are 0 afterwards, for those who add to them.
template <class T, template <class> class Rule>
__global__ void __launch_bounds__(block_threads)
    finish(const Partials<T> partials, const Model model, const Update update, const int64_t number,
           const int64_t count, const State<T> state, const Outcome outcome) {
  const Columns columns = own_columns(model);
  double norm = 0;
  for (int k = 0; k < int(gridDim.x); ++k) norm += outcome.squares[k];
  norm = sqrt(norm);
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    outcome.results[0] += loss_sum(partials);
    outcome.results[1] = norm;
  }
  update_columns<Rule<T>>(columns, update, number, count, clipping(update.clip_norm, norm), state,
                          [&](int64_t j) { return outcome.total[j]; });
  for (int64_t j = columns.low + threadIdx.x; j < columns.high; j += block_threads)
    outcome.total[j] = 0;
}

}  // namespace schuss

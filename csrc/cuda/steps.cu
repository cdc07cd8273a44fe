// Steps of several kernels: what follows the sums, over as many blocks as there are columns for.
#include "cuda/columns.cuh"

namespace schuss {

// The parameters: (outputs, width + 1), the intercept of each output last.
struct Model {
  int64_t width;
  int64_t outputs;
  int32_t fit_intercept;
};

constexpr int columns_of_block = 32;  // so that eight threads share the parts of each

SCHUSS_DEVICE Columns own_columns(const Model& model) {
  const int64_t all = model.outputs * (model.width + 1);
  const int64_t low = int64_t(blockIdx.x) * columns_of_block, high = low + columns_of_block;
  return {model.width, low, high < all ? high : all, model.fit_intercept};
}

// Each column's sum over the parts, and each block's share of the squared norm. Where there are no
// parts (null), the sums are in outcome.total already.
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
}

// The update from the columns' sums, which are 0 afterwards, for those who add to them.
template <class T, template <class> class Rule>
__global__ void __launch_bounds__(block_threads)
    finish(const Partials partials, const Model model, const Update update, const int64_t number,
           const int64_t count, const State<T> state, const Outcome outcome) {
  __shared__ double apart[block_threads / 32];
  const Columns columns = own_columns(model);
  double norm = 0;
  for (int k = threadIdx.x; k < int(gridDim.x); k += block_threads) norm += outcome.squares[k];
  norm = sqrt(block_sum(norm, apart));
  update_columns<Rule<T>>(columns, update, number, count, clipping(update.clip_norm, norm), state,
                          outcome.total);
  for (int64_t j = columns.low + threadIdx.x; j < columns.high; j += block_threads)
    outcome.total[j] = 0;
  if (blockIdx.x != 0 || threadIdx.x != 0) return;
  outcome.results[0] += loss_sum(partials);
  outcome.results[1] = norm;
}

}  // namespace schuss

// Kernels over dense rows of k outputs: margins, slopes in their place, and the gradient, each a
// pass over tiles of 64 by 64 numbers.
//
// Flops: 2 count k width for the margins and as many for the gradient; X is read twice for every 64
// outputs. theta is (k, width + 1), margins are (count, k).
#include "cuda/tiles.cuh"

namespace schuss {

// Margins of the rows. Grid: tiles of rows times tiles of outputs.
template <class S>
__global__ void __launch_bounds__(block_threads)
    outputs_margin(const S* X, const int64_t width, const int64_t k, const Rows rows,
                   const Scalar<S>* theta, Scalar<S>* out) {
  using T = Scalar<S>;
  __shared__ Panel<T> left, right;
  const int64_t tiles = (k + tile_side - 1) / tile_side;
  const int64_t first_row = blockIdx.x / tiles * tile_side,
                first_output = blockIdx.x % tiles * tile_side;
  Corner<T> corner;
  for (int64_t first = 0; first < width; first += tile_depth) {
    fill_panel(left, X, width, rows, first_row, first);
    for (int at = threadIdx.x; at < tile_side * tile_depth; at += block_threads) {
      const int r = at / tile_depth, j = at % tile_depth;
      const int64_t c = first_output + r;
      right[r][j] = first + j < width && c < k ? theta[c * (width + 1) + first + j] : T(0);
    }
    __syncthreads();
    corner.add(left, right);
    __syncthreads();
  }
  for (int a = 0; a < 4; ++a)
    for (int b = 0; b < 4; ++b) {
      const int64_t place = first_row + corner.down() + a, c = first_output + corner.across() + b;
      if (place < rows.count && c < k)
        out[place * k + c] = corner.sum[a][b] + theta[c * (width + 1) + width];
    }
}

// |x|^2 of the rows, and 1 for the intercept: a sample's squared gradient is that times the squares
// of its slopes. Grid: any.
template <class S>
__global__ void __launch_bounds__(block_threads)
    outputs_norms(const S* X, const int64_t width, const Rows rows, const int32_t fit_intercept,
                  double* out) {
  constexpr int warps = block_threads / 32;
  const int64_t all = int64_t(gridDim.x) * warps;
  for (int64_t place = int64_t(blockIdx.x) * warps + threadIdx.x / 32; place < rows.count;
       place += all) {
    const S* x = X + row_at(rows, place) * width;
    double own = 0;
    for (int64_t j = threadIdx.x % 32; j < width; j += 32)
      own += double(widen(x[j])) * double(widen(x[j]));
    own = team_sum<32>(own);
    if (threadIdx.x % 32 == 0) out[place] = own + fit_intercept;
  }
}

// A block's loss and squared gradients to their places.
SCHUSS_DEVICE void put_losses(double value, double squares, double* losses) {
  __shared__ double room[block_threads / 32];
  value = block_sum(value, room);
  squares = block_sum(squares, room);
  if (threadIdx.x != 0) return;
  losses[2 * blockIdx.x] = value;
  losses[2 * blockIdx.x + 1] = squares;
}

// Slopes in the margins' place, where each output has a loss and a column of y of its own. norms
// is null where they are not asked for; losses is (blocks, 2). Grid: any.
template <class T, template <class> class Loss>
__global__ void __launch_bounds__(block_threads)
    outputs_weigh(const T* y, const T* weight, const double* loss_parameters, const int64_t k,
                  const Rows rows, const double* norms, T* margins, double* losses) {
  const Loss<T> loss(loss_parameters);
  double value = 0, squares = 0;
  const int64_t all = int64_t(gridDim.x) * block_threads;
  for (int64_t at = int64_t(blockIdx.x) * block_threads + threadIdx.x; at < rows.count * k;
       at += all) {
    const int64_t i = row_at(rows, at / k);
    const T counts = weight ? weight[i] : T(1), margin = margins[at], label = y[i * k + at % k];
    value += double(counts * loss.value(margin, label));
    const T slope = margins[at] = counts * loss.slope(margin, label);
    if (norms) squares += double(slope) * double(slope) * norms[at / k];
  }
  put_losses(value, squares, losses);
}

// The same for a loss of all of a row's margins, whose y is a class's number.
template <class T, template <class> class Loss>
__global__ void __launch_bounds__(block_threads)
    outputs_weigh_together(const T* y, const T* weight, const double* loss_parameters,
                           const int64_t k, const Rows rows, const double* norms, T* margins,
                           double* losses) {
  const Loss<T> loss(loss_parameters);
  double value = 0, squares = 0;
  const int64_t all = int64_t(gridDim.x) * block_threads;
  for (int64_t place = int64_t(blockIdx.x) * block_threads + threadIdx.x; place < rows.count;
       place += all) {
    const int64_t i = row_at(rows, place);
    const T counts = weight ? weight[i] : T(1);
    T own;
    loss.template weigh<1>(margins + place * k, k, y + i, &own);
    value += double(counts * own);
    for (int64_t c = 0; c < k; ++c) {
      const T slope = margins[place * k + c] *= counts;
      if (norms) squares += double(slope) * double(slope) * norms[place];
    }
  }
  put_losses(value, squares, losses);
}

// The gradient's sums over slices of the rows, (slices, k, width + 1). Grid: slices times tiles of
// outputs times tiles of columns.
template <class S>
__global__ void __launch_bounds__(block_threads)
    outputs_gradient(const S* X, const int64_t width, const int64_t k, const Rows rows,
                     const Scalar<S>* slopes, const int64_t rows_of_slice, double* sums) {
  using T = Scalar<S>;
  __shared__ Panel<T> left, right;
  const int64_t across = (width + tile_side - 1) / tile_side,
                down = (k + tile_side - 1) / tile_side;
  const int64_t slice = blockIdx.x / (across * down);
  const int64_t first_output = blockIdx.x / across % down * tile_side,
                first_column = blockIdx.x % across * tile_side;
  const int64_t begin = slice * rows_of_slice;
  const int64_t end = begin + rows_of_slice < rows.count ? begin + rows_of_slice : rows.count;
  Corner<T> corner;
  T bias = 0;
  for (int64_t first = begin; first < end; first += tile_depth) {
    for (int at = threadIdx.x; at < tile_side * tile_depth; at += block_threads) {
      const int r = at % tile_side, j = at / tile_side;  // neighbours read neighbours
      const int64_t place = first + j, c = first_output + r, column = first_column + r;
      left[r][j] = place < end && c < k ? slopes[place * k + c] : T(0);
      right[r][j] =
          place < end && column < width ? widen(X[row_at(rows, place) * width + column]) : T(0);
    }
    __syncthreads();
    corner.add(left, right);
    if (first_column == 0 && threadIdx.x < tile_side)
      for (int j = 0; j < tile_depth; ++j) bias += left[threadIdx.x][j];
    __syncthreads();
  }
  double* out = sums + slice * k * (width + 1);
  for (int a = 0; a < 4; ++a)
    for (int b = 0; b < 4; ++b) {
      const int64_t c = first_output + corner.down() + a,
                    column = first_column + corner.across() + b;
      if (c < k && column < width) out[c * (width + 1) + column] = double(corner.sum[a][b]);
    }
  const int64_t c = first_output + threadIdx.x;
  if (first_column == 0 && threadIdx.x < tile_side && c < k)
    out[c * (width + 1) + width] = double(bias);
}

}  // namespace schuss

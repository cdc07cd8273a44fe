// Exact per-sample descent by blocks of k samples (w <- (1 - lr l2) w - lr slope(x . w + b, y) x).
//
// Within a block, the margins that a sample sees follow from those at the block's begin and from
// the products of its rows, K = X_b X_b^T: step i takes c_i = lr_i slope_i, and each later margin l
// becomes s_i q_l - c_i K_il with s_i = 1 - lr_i l2. The chain is then of scalars; all else is done
// by many threads at once. w at the block's end is
//   P(0, k) w - sum_j P(j, k) c_j x_j     with P(j, i) = s_{j+1} ... s_i,
// and the sum of the block's iterates is
//   (sum_i P(0, i)) w - sum_j R_j c_j x_j  with R_j = sum_{i >= j} P(j, i).
// Bytes per sample: width sizeof(S) three times, of which two come from the second-level cache;
// flops: 4 width + k width.
#include "cuda/tiles.cuh"

namespace schuss {

// Factors of a block's steps, each (k,), all functions of the learning rates and the penalty alone.
template <class T>
struct Chain {
  const T* rate;
  const T* keep;   // s_i
  const T* tail;   // P(j, k)
  const T* reach;  // R_j
  int64_t stride;  // from one block's to the next one's; 0 where all are the same
};

// What a block leaves behind: c is (k,), and the sum of the intercepts after its steps.
template <class T>
struct Block {
  T* margins;  // (k,), at the block's begin, without the intercept
  T* steps;    // c
  double* intercepts;
};

// K of several blocks of k samples. Grid: blocks of samples times tiles on and above the diagonal.
template <class S>
__global__ void __launch_bounds__(block_threads)
    gram(const S* X, const int64_t width, const Rows rows, const int64_t k, Scalar<S>* products) {
  using T = Scalar<S>;
  __shared__ Panel<T> left, right;
  const int sides = int(k / tile_side), tiles = sides * (sides + 1) / 2;
  const int64_t which = blockIdx.x / tiles;
  int down = 0, across = blockIdx.x % tiles;
  for (; across >= sides - down; ++down) across -= sides - down;
  across += down;

  Corner<T> corner;
  const int64_t up = which * k + down * tile_side, low = which * k + across * tile_side;
  for (int64_t first = 0; first < width; first += tile_depth) {
    fill_panel(left, X, width, rows, up, first);
    fill_panel(right, X, width, rows, low, first);
    __syncthreads();
    corner.add(left, right);
    __syncthreads();
  }
  T* out = products + which * k * k;
  for (int a = 0; a < 4; ++a)
    for (int b = 0; b < 4; ++b)
      out[(down * tile_side + corner.down() + a) * k + across * tile_side + corner.across() + b] =
          corner.sum[a][b];
}

// The chain of one block. Grid: one block of k threads; thread l has margin l. A warp takes its 32
// steps by shuffles, then all later threads take them together.
template <class T, template <class> class Loss>
__global__ void __launch_bounds__(block_threads)
    recur(const T* products, const T* y, const T* weight, const double* loss_parameters,
          const Rows rows, const int64_t number, const Chain<T> chain, const int32_t fit_intercept,
          T* theta, const int64_t width, const Block<T> block, double* loss_sum) {
  __shared__ T taken[32], kept[32], intercept_now;
  __shared__ double room[32];
  const int k = blockDim.x, l = threadIdx.x, lane = l % 32, warp = l / 32;
  const Loss<T> loss(loss_parameters);
  const int64_t place = number * k + l;
  const bool there = place < rows.count;
  const int64_t i = there ? row_at(rows, place) : 0;
  const T label = there ? y[i] : T(0), counts = !there ? T(0) : weight ? weight[i] : T(1);
  const int64_t at = number * chain.stride + l;
  const T rate = there ? chain.rate[at] * counts : T(0), keep = there ? chain.keep[at] : T(1);
  const T* K = products + number * int64_t(k) * k + l;
  T q = there ? block.margins[l] : T(0), b = theta[width], own = 0, seen = 0;
  double intercepts = 0;
  for (int turn = 0; turn < k / 32; ++turn) {
    if (warp == turn) {
      T product[32];
#pragma unroll
      for (int j = 0; j < 32; ++j) product[j] = j < lane ? K[int64_t(turn * 32 + j) * k] : T(0);
#pragma unroll
      for (int j = 0; j < 32; ++j) {
        // All lanes work out the step of lane j, as it were their own.
        const T margin = __shfl_sync(all_lanes, q, j) + b;
        const T step =
            __shfl_sync(all_lanes, rate, j) * loss.slope(margin, __shfl_sync(all_lanes, label, j));
        if (lane == j) {
          own = step;
          seen = margin;
        }
        const T shrunk = __shfl_sync(all_lanes, keep, j);
        if (lane > j) q = shrunk * q - step * product[j];
        if (fit_intercept) b -= step;
        if (number * k + turn * 32 + j < rows.count) intercepts += double(b);
      }
      taken[lane] = own;
      kept[lane] = keep;
      if (lane == 0) intercept_now = b;
    }
    __syncthreads();
    b = intercept_now;
    if (warp > turn)
      for (int j = 0; j < 32; ++j) q = kept[j] * q - taken[j] * K[int64_t(turn * 32 + j) * k];
    __syncthreads();
  }
  block.steps[l] = own;
  const double losses = block_sum(there ? double(counts * loss.value(seen, label)) : 0.0, room);
  const double sums = block_sum(lane == 0 ? intercepts : 0.0, room);
  if (l == 0) {
    theta[width] = b;
    *loss_sum += losses;
    *block.intercepts = sums;
  }
}

// The weights at the block's end, and the mean of the iterates. Grid: 8 packs of columns a block,
// in 32 groups of rows each.
template <class S>
__global__ void __launch_bounds__(block_threads)
    advance(const S* X, const int64_t width, const Rows rows, const int64_t number, const int64_t k,
            const Chain<Scalar<S>> chain, const Block<Scalar<S>> block, Scalar<S>* theta,
            double* average, const int64_t averaged) {
  using T = Scalar<S>;
  constexpr int size = Pack<S>::size, columns = 8, groups = block_threads / columns;
  __shared__ T last[groups][columns * size];
  __shared__ T mean[groups][columns * size];
  const int column = int(threadIdx.x) % columns, group = int(threadIdx.x) / columns;
  const int64_t pack = int64_t(blockIdx.x) * columns + column, base = number * k;
  const int64_t left = rows.count - base, count = left < k ? left : k;
  const int64_t at = number * chain.stride;
  T sum[size] = {}, sums[size] = {};
  if (pack * size < width)
    for (int64_t j = group; j < count; j += groups) {
      const Pack<S> x = load_pack(X + row_at(rows, base + j) * width + pack * size);
      const T step = block.steps[j], end = step * chain.tail[at + j],
              all = step * chain.reach[at + j];
      for (int q = 0; q < size; ++q) {
        sum[q] += end * widen(x.numbers[q]);
        sums[q] += all * widen(x.numbers[q]);
      }
    }
  for (int q = 0; q < size; ++q) {
    last[group][column * size + q] = sum[q];
    mean[group][column * size + q] = sums[q];
  }
  __syncthreads();
  // P(0, k) and the sum of P(0, i), by the first step's factors.
  const T keep = chain.keep[at], whole = keep * chain.tail[at], iterates = keep * chain.reach[at];
  const double share = 1.0 / double(averaged + count);
  for (int c = threadIdx.x; c < columns * size; c += block_threads) {
    const int64_t j = int64_t(blockIdx.x) * columns * size + c;
    if (j >= width) break;
    T down = 0, all = 0;
    for (int g = 0; g < groups; ++g) {
      down += last[g][c];
      all += mean[g][c];
    }
    const T w = theta[j];
    theta[j] = whole * w - down;
    if (average) {
      const double summed = double(iterates) * double(w) - double(all);
      average[j] += (summed - double(count) * average[j]) * share;
    }
  }
  if (average && blockIdx.x == 0 && threadIdx.x == 0)
    average[width] += (*block.intercepts - double(count) * average[width]) * share;
}

}  // namespace schuss

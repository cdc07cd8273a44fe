// Exact per-sample descent by blocks of k samples (w <- (1 - lr l2) w - lr slope(x . w + b, y) x).
//
// Within a block, the margins that a sample sees follow from those at the block's begin and from
// the products of its rows, K = X_b X_b^T: step i takes c_i = lr_i slope_i, and each later margin l
// becomes s_i q_l - c_i K_il with s_i = 1 - lr_i l2. The chain is then of scalars; all else is done
// by many threads at once. w at the block's end is
//   P(0, k) w - sum_j P(j, k) c_j x_j     with P(j, i) = s_{j+1} ... s_i,
// and the sum of the block's iterates is
//   (sum_i P(0, i)) w - sum_j R_j c_j x_j  with R_j = sum_{i >= j} P(j, i).
//
// Bytes per sample: the row five times for K, once for its margin and once for the weights, most
// from the second-level cache, and k numbers of K written and read; flops: 4 width + 5/4 k width.
// Bound by the chain of k steps, one after the other, up to some ten thousand columns.
#include "cuda/rows.cuh"
#include "cuda/tiles.cuh"

namespace schuss {

constexpr int k = block_threads;  // samples of a block: the chain has a thread for each

// Factors of the steps, (rows,) or those of one block, functions of learning rates and L2 alone.
template <class T>
struct Chain {
  const T* rate;
  const T* keep;   // s_i
  const T* tail;   // P(j, k)
  const T* reach;  // R_j
  int64_t stride;  // from one block's to the next one's; 0 where all are the same
};

// The parameters and what is kept of a block between the kernel's parts. theta is (width + 1,).
template <class T>
struct Walk {
  T* theta;
  double* average;     // running mean of theta; null: not kept
  int64_t averaged;    // how many iterates it held before
  T* margins;          // (k,), at the block's begin, without the intercept
  T* steps;            // (k,), c
  double* intercepts;  // sum of the intercepts after the block's steps
};

// K of every block. Grid: blocks of samples times the tiles on and above the diagonal.
template <class S>
__global__ void __launch_bounds__(block_threads)
    gram(const S* X, const int64_t width, const Rows rows, Scalar<S>* products) {
  using T = Scalar<S>;
  __shared__ Panel<T> left, right;
  constexpr int sides = k / tile_side, tiles = sides * (sides + 1) / 2;
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

// One sample of the chain, as its thread has it; nothing where there is none.
template <class T>
struct Sample {
  T label = 0, weight = 0, rate = 0, keep = 1;
  bool there;
  template <class S>
  SCHUSS_DEVICE Sample(const Problem<S>& problem, const Rows& rows, const Chain<T>& chain,
                       int64_t at)
      : there(int64_t(threadIdx.x) < rows.count) {
    if (!there) return;
    const int64_t i = row_at(rows, threadIdx.x);
    label = problem.y[i];
    weight = problem.weight ? problem.weight[i] : T(1);
    rate = chain.rate[at + threadIdx.x] * weight;
    keep = chain.keep[at + threadIdx.x];
  }
};

// What a warp has stepped, for the warps after it.
template <class T>
struct Steps {
  T taken[32], kept[32], intercept;
};

// The steps of samples 32 turn <= j < 32 turn + 32 by their own warp: all its lanes work out the
// step of lane j, as if it were theirs, and those after it go on from there.
template <class T, class Loss>
SCHUSS_DEVICE void step_warp(const Loss& loss, const Sample<T>& sample, const T* product, int turn,
                             int count, bool fit_intercept, T& q, T& b, T& seen, double& intercepts,
                             Steps<T>& steps) {
  const int lane = int(threadIdx.x) % 32;
  T own = 0;
#pragma unroll
  for (int j = 0; j < 32; ++j) {
    const T margin = __shfl_sync(all_lanes, q, j) + b;
    const T step = __shfl_sync(all_lanes, sample.rate, j) *
                   loss.slope(margin, __shfl_sync(all_lanes, sample.label, j));
    const T shrunk = __shfl_sync(all_lanes, sample.keep, j);
    if (lane == j) {
      own = step;
      seen = margin;
    }
    if (lane > j) q = shrunk * q - step * product[j];
    const bool there = turn * 32 + j < count;
    if (fit_intercept && there) b -= step;
    if (there) intercepts += double(b);
  }
  steps.taken[lane] = own;
  steps.kept[lane] = sample.keep;
  if (lane == 0) steps.intercept = b;
}

// The chain of one block, by the launch's first: a warp takes its 32 steps by shuffles, then all
// later threads take them together.
template <class Loss, class S, class T = Scalar<S>>
SCHUSS_DEVICE void run_chain(const Problem<S>& problem, const Rows& rows, const T* products,
                             const Chain<T>& chain, int64_t at, const Walk<T>& walk,
                             double* loss_sum) {
  __shared__ Steps<T> steps;
  __shared__ double apart[block_threads / 32];
  const Loss loss(problem.loss_parameters);
  const Sample<T> sample(problem, rows, chain, at);
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const T* K = products + threadIdx.x;
  T q = sample.there ? load_shared_by_all(walk.margins + threadIdx.x) : T(0), seen = 0, own = 0;
  T b = load_shared_by_all(walk.theta + problem.width);
  double intercepts = 0;
  for (int turn = 0; turn < k / 32; ++turn) {
    T product[32];  // on their way while the warps before this one step
    if (warp >= turn) {
#pragma unroll
      for (int j = 0; j < 32; ++j)
        product[j] = warp > turn || j < lane ? K[(turn * 32 + j) * k] : T(0);
    }
    if (warp == turn) {
      step_warp(loss, sample, product, turn, int(rows.count), problem.fit_intercept, q, b, seen,
                intercepts, steps);
      own = steps.taken[lane];
    }
    __syncthreads();
    b = steps.intercept;
    if (warp > turn)
      for (int j = 0; j < 32; ++j) q = steps.kept[j] * q - steps.taken[j] * K[(turn * 32 + j) * k];
    __syncthreads();
  }
  walk.steps[threadIdx.x] = own;
  const double value = sample.there ? double(sample.weight * loss.value(seen, sample.label)) : 0.0;
  const double losses = block_sum(value, apart);
  intercepts = block_sum(lane == 0 ? intercepts : 0.0, apart);
  if (threadIdx.x != 0) return;
  walk.theta[problem.width] = b;
  *walk.intercepts = intercepts;
  *loss_sum += losses;
}

constexpr int advance_packs = 8;  // packs of columns of a block, in 32 groups of rows each

// 8 packs of the weights at the block's end, and the mean of the iterates there.
template <class S, class T = Scalar<S>>
SCHUSS_DEVICE void advance(const Problem<S>& problem, const Rows& rows, const Chain<T>& chain,
                           int64_t at, const Walk<T>& walk, int64_t averaged, int64_t columns) {
  constexpr int size = Pack<S>::size, groups = block_threads / advance_packs;
  __shared__ T last[groups][advance_packs * size];
  __shared__ T mean[groups][advance_packs * size];
  const int column = int(threadIdx.x) % advance_packs, group = int(threadIdx.x) / advance_packs;
  const int64_t first = columns * advance_packs * size, own = first + column * size;
  T sum[size] = {}, sums[size] = {};
  if (own < problem.width)
    for (int64_t j = group; j < rows.count; j += groups) {
      const Pack<S> x = load_pack(problem.X + row_at(rows, j) * problem.width + own);
      const T step = load_shared_by_all(walk.steps + j);
      const T end = step * chain.tail[at + j], all = step * chain.reach[at + j];
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
  const double share = 1.0 / double(averaged + rows.count);
  const int64_t j = first + threadIdx.x;
  if (threadIdx.x < advance_packs * size && j < problem.width) {
    T down = 0, all = 0;
    for (int g = 0; g < groups; ++g) {
      down += last[g][threadIdx.x];
      all += mean[g][threadIdx.x];
    }
    const T w = load_shared_by_all(walk.theta + j);
    walk.theta[j] = whole * w - down;
    if (walk.average) {
      const double summed = double(iterates) * double(w) - double(all);
      walk.average[j] += (summed - double(rows.count) * walk.average[j]) * share;
    }
  }
  if (walk.average && columns == 0 && threadIdx.x == 0) {
    double* intercept = walk.average + problem.width;
    const double summed = load_shared_by_all(walk.intercepts);
    *intercept += (summed - double(rows.count) * *intercept) * share;
  }
  __syncthreads();  // the shared memory is free for the next columns
}

// All blocks of samples, one after the other: margins by all blocks of the launch, the chain by the
// first, the weights by all. All are resident.
template <class S, template <class> class Loss, int Lanes, int Packs>
__global__ void __launch_bounds__(block_threads)
    descend_samples(const Problem<S> problem, const Rows rows, const Scalar<S>* products,
                    const Chain<Scalar<S>> chain, const Walk<Scalar<S>> walk,
                    const Outcome outcome) {
  using T = Scalar<S>;
  const int64_t columns = advance_packs * Pack<S>::size;
  GridBarrier barrier{outcome.arrived};
  int64_t at = 0;
  for (int64_t done = 0; done < rows.count; done += k, at += chain.stride) {
    const Rows block = places_within(rows, done, rows.count - done < k ? rows.count - done : k);
    margins<HeldRows<S, Lanes, Packs>>(problem.X, problem.width, block, walk.theta, T(0),
                                       walk.margins);
    barrier.wait();
    if (blockIdx.x == 0)
      run_chain<Loss<T>>(problem, block, products + done * k, chain, at, walk, outcome.results);
    barrier.wait();
    for (int64_t c = blockIdx.x; c * columns < problem.width; c += gridDim.x)
      advance(problem, block, chain, at, walk, walk.averaged + done, c);
    barrier.wait();
  }
}

// The same row by row, in one block that holds the weights: the baseline. Each row waits for the
// one before it, its loads, two sums over the block, and the loss.
template <class S, template <class> class Loss, int Lanes, int Packs>
__global__ void __launch_bounds__(block_threads)
    descend_serially(const Problem<S> problem, const Rows rows, const Chain<Scalar<S>> chain,
                     Scalar<S>* theta, const Outcome outcome) {
  using T = Scalar<S>;
  static_assert(Lanes == block_threads, "one team");
  const Loss<T> loss(problem.loss_parameters);
  HeldRows<S, Lanes, Packs> hand(problem.width, theta, nullptr);
  T b = theta[problem.width];
  double losses = 0;
  for (int64_t place = 0; place < rows.count; ++place) {
    const int64_t i = row_at(rows, place), at = place * chain.stride;
    const T margin = sum_of_team<Lanes>(hand.take(problem.X + i * problem.width, true)) + b;
    const T weight = problem.weight ? problem.weight[i] : T(1), y = problem.y[i];
    const T step = chain.rate[at] * weight * loss.slope(margin, y);
    losses += double(weight * loss.value(margin, y));
    hand.advance(chain.keep[at], step);
    if (problem.fit_intercept) b -= step;
  }
  hand.weights([&](int64_t j, T w) { theta[j] = w; });
  if (threadIdx.x != 0) return;
  theta[problem.width] = b;
  outcome.results[0] += losses;
}

}  // namespace schuss

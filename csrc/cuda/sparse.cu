// Kernels over sparse rows (CSR): a warp takes a row.
//
// Per entry: the number, its column and the weight there are read, and a sum in float64 is added to
// by an atomic operation. The order of those additions is not fixed: sums may differ in their last
// digit from run to run.
#include "cuda/common.cuh"

namespace schuss {

template <class T>
struct SparseProblem {
  const T* data;
  const int32_t* indices;
  const int64_t* indptr;
  const T* y;
  const T* weight;  // null: every sample counts once
  const double* loss_parameters;
  int64_t d;
  int32_t fit_intercept;
};

constexpr int warps = block_threads / 32;

// x . w over the entries begin <= e < end, by a warp; all lanes get it.
template <class T>
SCHUSS_DEVICE T sparse_dot(const T* data, const int32_t* indices, int64_t begin, int64_t end,
                           const T* theta) {
  T part = 0;
  for (int64_t e = begin + threadIdx.x % 32; e < end; e += 32) part += data[e] * theta[indices[e]];
  return team_sum<32>(part);
}

// The rows' gradient is added to `total`, (d + 1,); losses is (blocks, 2): the summed loss, and the
// squared norms of the samples' gradients where they are asked for. Grid: any.
template <class T, template <class> class Loss, bool Norms>
__global__ void __launch_bounds__(block_threads)
    sparse_gradient(const SparseProblem<T> problem, const Rows rows, const T* theta, double* total,
                    double* losses) {
  __shared__ double room[warps];
  const Loss<T> loss(problem.loss_parameters);
  const int lane = int(threadIdx.x) % 32;
  double value = 0, squares = 0, bias = 0;
  const int64_t all = int64_t(gridDim.x) * warps;
  for (int64_t place = int64_t(blockIdx.x) * warps + threadIdx.x / 32; place < rows.count;
       place += all) {
    const int64_t i = row_at(rows, place);
    const int64_t begin = problem.indptr[i], end = problem.indptr[i + 1];
    const T margin =
        sparse_dot(problem.data, problem.indices, begin, end, theta) + theta[problem.d];
    const T weight = problem.weight ? problem.weight[i] : T(1), y = problem.y[i];
    const T slope = weight * loss.slope(margin, y);
    T square = 0;
    for (int64_t e = begin + lane; e < end; e += 32) {
      const T x = problem.data[e];
      square += x * x;
      if (slope != T(0)) atomicAdd(total + problem.indices[e], double(slope * x));
    }
    if (Norms) square = team_sum<32>(square) + T(problem.fit_intercept);
    if (lane != 0) continue;
    value += double(weight * loss.value(margin, y));
    bias += double(slope);
    squares += double(slope) * double(slope) * double(square);
  }
  value = block_sum(value, room);
  bias = block_sum(bias, room);
  if (Norms) squares = block_sum(squares, room);
  if (threadIdx.x == 0) {
    losses[2 * blockIdx.x] = value;
    losses[2 * blockIdx.x + 1] = squares;
    atomicAdd(total + problem.d, bias);
  }
}

template <class T>
__global__ void __launch_bounds__(block_threads)
    sparse_margin(const T* data, const int32_t* indices, const int64_t* indptr, const int64_t d,
                  const Rows rows, const T* theta, T* out) {
  const int64_t all = int64_t(gridDim.x) * warps;
  for (int64_t place = int64_t(blockIdx.x) * warps + threadIdx.x / 32; place < rows.count;
       place += all) {
    const int64_t i = row_at(rows, place);
    const T sum = sparse_dot(data, indices, indptr[i], indptr[i + 1], theta);
    if (threadIdx.x % 32 == 0) out[place] = sum + theta[d];
  }
}

}  // namespace schuss

// Kernels over vectors: one step of a rule over many arrays, the reduction, the index bijection.
//
// All are bound by memory: every number is read once and written once, 16 bytes at a time where
// the arrays begin at such a boundary.
#include "cuda/common.cuh"

namespace schuss {

// Numbers of an array that a block works on.
constexpr int chunk_numbers = 1 << 14;

// Many arrays as one list of chunks. addresses is (arrays, 4): parameter, gradient and two slots;
// sizes is (arrays,); first_chunk is (arrays + 1,), in the list of all.
struct Arrays {
  const int64_t* addresses;
  const int64_t* sizes;
  const int64_t* first_chunk;
  int64_t arrays;
};

// The array that a chunk belongs to.
SCHUSS_DEVICE int64_t array_of(const Arrays& all, int64_t chunk) {
  int64_t low = 0, high = all.arrays;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (all.first_chunk[middle] <= chunk ? low : high) = middle;
  }
  return low;
}

template <class T>
SCHUSS_DEVICE bool begins_a_pack(const T* p) {
  return reinterpret_cast<uint64_t>(p) % 16 == 0;
}

// One step of the rule over all arrays. Grid: a block for each chunk.
template <class T, template <class> class Rule>
__global__ void __launch_bounds__(block_threads)
    apply(const Arrays arrays, const double* constants, const double decay) {
  using R = Rule<T>;
  constexpr int size = Pack<T>::size;
  const int64_t chunk = blockIdx.x, which = array_of(arrays, chunk);
  const int64_t begin = (chunk - arrays.first_chunk[which]) * chunk_numbers;
  const int64_t left = arrays.sizes[which] - begin;
  const int64_t count = left < chunk_numbers ? left : chunk_numbers;
  const int64_t* address = arrays.addresses + 4 * which;
  T* w = reinterpret_cast<T*>(address[0]) + begin;
  const T* g = reinterpret_cast<const T*>(address[1]) + begin;
  T* a = R::slots > 0 ? reinterpret_cast<T*>(address[2]) + begin : nullptr;
  T* b = R::slots > 1 ? reinterpret_cast<T*>(address[3]) + begin : nullptr;
  const R rule(constants);
  const T coupled = T(decay);
  const auto advance = [&](T& p, T gradient, T& first, T& second) {
    rule.update(p, gradient + coupled * p, first, second);
  };
  const bool whole = begins_a_pack(w) && begins_a_pack(g) && begins_a_pack(a) && begins_a_pack(b);
  const int64_t packs = whole ? count / size : 0;
  for (int64_t p = threadIdx.x; p < packs; p += block_threads) {
    const int64_t j = p * size;
    Pack<T> weights = load_pack(w + j), first{}, second{};
    const Pack<T> gradients = load_pack(g + j);
    if (R::slots > 0) first = load_pack(a + j);
    if (R::slots > 1) second = load_pack(b + j);
    for (int q = 0; q < size; ++q)
      advance(weights.numbers[q], gradients.numbers[q], first.numbers[q], second.numbers[q]);
    store_pack(w + j, weights);
    if (R::slots > 0) store_pack(a + j, first);
    if (R::slots > 1) store_pack(b + j, second);
  }
  for (int64_t j = packs * size + threadIdx.x; j < count; j += block_threads) {
    T none = 0;
    advance(w[j], g[j], R::slots > 0 ? a[j] : none, R::slots > 1 ? b[j] : none);
  }
}

// dst = scale * (dst + source + source ...), in that order. sources is (count,), their addresses.
template <class T>
__global__ void __launch_bounds__(block_threads)
    reduce(T* dst, const int64_t* sources, const int64_t count, const int64_t size,
           const double scale) {
  constexpr int pack = Pack<T>::size;
  const int64_t all = int64_t(gridDim.x) * block_threads;
  const int64_t first = int64_t(blockIdx.x) * block_threads + threadIdx.x;
  bool whole = begins_a_pack(dst);
  for (int64_t k = 0; k < count; ++k) whole = whole && sources[k] % 16 == 0;
  const int64_t packs = whole ? size / pack : 0;
  for (int64_t p = first; p < packs; p += all) {
    Pack<T> sum = load_pack(dst + p * pack);
    for (int64_t k = 0; k < count; ++k) {
      const Pack<T> more = load_pack(reinterpret_cast<const T*>(sources[k]) + p * pack);
      for (int q = 0; q < pack; ++q) sum.numbers[q] += more.numbers[q];
    }
    for (int q = 0; q < pack; ++q) sum.numbers[q] *= T(scale);
    store_pack(dst + p * pack, sum);
  }
  for (int64_t j = packs * pack + first; j < size; j += all) {
    T sum = dst[j];
    for (int64_t k = 0; k < count; ++k) sum += reinterpret_cast<const T*>(sources[k])[j];
    dst[j] = T(scale) * sum;
  }
}

// The bijection of [0, n) at the places from `start` on. keys is (6,).
template <class I>
__global__ void __launch_bounds__(block_threads)
    permute(const int64_t n, const uint32_t* keys, const int64_t start, const int64_t count,
            I* out) {
  const Bijection image(n, keys);
  const int64_t all = int64_t(gridDim.x) * block_threads;
  for (int64_t k = int64_t(blockIdx.x) * block_threads + threadIdx.x; k < count; k += all)
    out[k] = I(image(start + k));
}

// Rows of buffers mixed by one pattern: (csrc/cpu/problem.h, Pattern).
template <class I>
struct Pattern {
  const I* block;
  const I* row;
  const I* starts;
  const int64_t* turned;
  int64_t size;
  int64_t blocks;
};

template <class I>
__global__ void __launch_bounds__(block_threads)
    mix(const Pattern<I> pattern, const int64_t start, const int64_t count, I* out) {
  const int64_t all = int64_t(gridDim.x) * block_threads;
  for (int64_t k = int64_t(blockIdx.x) * block_threads + threadIdx.x; k < count; k += all) {
    const int64_t buffer = (start + k) / pattern.size, place = (start + k) % pattern.size;
    const int64_t from = place + pattern.turned[buffer];
    out[k] = pattern.starts[buffer * pattern.blocks + pattern.block[from]] + pattern.row[from];
  }
}

}  // namespace schuss

// The loops of optimizers over tensors, compiled once per instruction set (the including file names
// it), without the flags that let sums be regrouped: updates are torch's to the last bit.
//
// A loop takes a part of one tensor. Parts begin at whole tiles, so that sums of squares, which are
// formed per tile, do not depend on who sums which.
#pragma once
#include "optimizers_problem.h"
#include "pack.h"

namespace schuss {
namespace SCHUSS_ISA {
namespace optimizers {

// ---- Numbers of 16 bits ----

// 32 bits that look drawn at random, of a place and a seed.
inline uint32_t noise(uint32_t seed, uint32_t place) {
  uint32_t x = place * 0x9E3779B1u ^ seed;
  x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
  x = (x ^ (x >> 13)) * 0xC2B2AE35u;
  return x ^ (x >> 16);
}

inline uint32_t bits_of(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

// Rounding to the nearest, or by drawn bits up or down with the probabilities that keep the mean.
inline bfloat16 rounded(float x, bool drawn, uint32_t draw, bfloat16) {
  const uint32_t bits = bits_of(x);
  const uint32_t more = drawn ? draw & 0xffff : 0x7fff + ((bits >> 16) & 1);
  const bool finite = (bits & 0x7fffffff) < 0x7f800000;
  const uint32_t quiet = (bits & 0x7fffffff) > 0x7f800000 ? 0x400000 : 0;
  return {uint16_t((finite ? bits + more : bits | quiet) >> 16)};
}

inline float16 rounded(float x, bool drawn, uint32_t draw, float16) {
  const uint32_t sign = bits_of(x) & 0x80000000, bits = bits_of(x) & 0x7fffffff;
  // Below 2^-14 the last place is 2^-24: adding 0.5 rounds there.
  const float small = float_of(bits), half = 0.5f;
  const float lifted = drawn ? small + float(draw & 0xffffff) * 0x1p-48f : small;
  const float floor_part = float(int(smaller(lifted, 1.0f) * 0x1p24f)) * 0x1p-24f;
  const uint32_t tiny = bits_of((drawn ? floor_part : small) + half) - bits_of(half);
  const uint32_t more = drawn ? draw & 0x1fff : 0xfff + ((bits >> 13) & 1);
  const uint32_t normal = (bits + more - (uint32_t(112) << 23)) >> 13;
  const uint32_t special = bits > 0x7f800000 ? 0x7e00 : 0x7c00;
  const uint32_t made = bits >= 0x7f800000  ? special
                        : bits < 0x38800000 ? tiny
                        : normal > 0x7c00   ? 0x7c00
                                            : normal;
  return {uint16_t(made | sign >> 16)};
}

// ---- One part of a tensor ----

// Parameters, gradients and slots of as many numbers, in the type that is computed with.
template <class T>
struct Part {
  T* param;
  const T* gradient;
  T* slot[3];
  int64_t size;
};

template <class T, class Update>
void update_part(const Part<T>& part, const Update& rule) {
  constexpr int slots = Update::slots;
  T* __restrict w = part.param;
  const T* __restrict g = part.gradient;
  T* __restrict a = part.slot[0], * __restrict b = part.slot[1], * __restrict c = part.slot[2];
  for (int64_t j = 0; j < part.size; ++j) {
    T none = 0, w1 = w[j], a1 = slots > 0 ? a[j] : none, b1 = slots > 1 ? b[j] : none,
      c1 = slots > 2 ? c[j] : none;
    rule.update(w1, g[j], a1, b1, c1);
    w[j] = w1;
    if (slots > 0) a[j] = a1;
    if (slots > 1) b[j] = b1;
    if (slots > 2) c[j] = c1;
  }
}

// Sums of squares in so many chains, added up in their order.
constexpr int chains = 8;
template <class Add>
inline void sum_in_chains(int64_t size, double* sums, int count, const Add& add) {
  double chain[2][chains] = {};
  int64_t j = 0;
  for (; j + chains <= size; j += chains)
    for (int k = 0; k < chains; ++k) add(j + k, chain[0][k], chain[1][k]);
  for (int k = 0; j < size; ++j, ++k) add(j, chain[0][k], chain[1][k]);
  for (int s = 0; s < count; ++s)
    for (int k = 0; k < chains; ++k) sums[s] += chain[s][k];
}

template <class T, class Update>
void measure_part(const Part<T>& part, const Update& rule, double* sums) {
  constexpr int slots = Update::slots;
  const T* __restrict w = part.param;
  const T* __restrict g = part.gradient;
  T* __restrict a = part.slot[0], * __restrict b = part.slot[1];
  sum_in_chains(part.size, sums, 2, [&](int64_t j, double& weights, double& direction) {
    T none = 0, a1 = slots > 0 ? a[j] : none, b1 = slots > 1 ? b[j] : none;
    rule.measure(w[j], g[j], a1, b1, weights, direction);
    if (slots > 0) a[j] = a1;
    if (slots > 1) b[j] = b1;
  });
}

// Calls work(part) for the numbers begin <= j < end of a tensor. Those of 16 bits are widened, a
// block at a time, and what may have changed is rounded back.
template <class S, class Update, class Work>
void over_part(const Piece& piece, int64_t begin, int64_t end, const Noise& noisy, bool params,
               const Work& work) {
  using T = Scalar<S>;
  S* param = static_cast<S*>(piece.param);
  const S* gradient = static_cast<const S*>(piece.gradient);
  S* slot[3];
  for (int k = 0; k < 3; ++k) slot[k] = static_cast<S*>(piece.slot[k]);
  if constexpr (sizeof(S) == sizeof(T)) {
    Part<T> part{param + begin, gradient + begin, {}, end - begin};
    for (int k = 0; k < Update::slots; ++k) part.slot[k] = slot[k] + begin;
    work(part);
  } else {
    constexpr int64_t block = 512;
    T w[block], g[block], memory[3][block];
    for (int64_t first = begin; first < end; first += block) {
      const int64_t size = smaller(block, end - first);
      for (int64_t j = 0; j < size; ++j) w[j] = value(param[first + j]);
      for (int64_t j = 0; j < size; ++j) g[j] = value(gradient[first + j]);
      for (int k = 0; k < Update::slots; ++k)
        for (int64_t j = 0; j < size; ++j) memory[k][j] = value(slot[k][first + j]);
      work(Part<T>{w, g, {memory[0], memory[1], memory[2]}, size});
      for (int k = params ? -1 : 0; k < Update::slots; ++k) {
        const T* from = k < 0 ? w : memory[k];
        S* to = (k < 0 ? param : slot[k]) + first;
        const uint32_t seed = noisy.seed + uint32_t(k + 2) * 0x632BE5ABu + uint32_t(first >> 32);
        for (int64_t j = 0; j < size; ++j)
          to[j] = rounded(from[j], noisy.drawn, noise(seed, uint32_t(first + j)), S{});
      }
    }
  }
}

template <class S, class Update>
void update(const Piece& piece, int64_t begin, int64_t end, const StepConstants& constants,
            const Noise& noisy) {
  const Update rule(constants);
  over_part<S, Update>(piece, begin, end, noisy, true,
                       [&](const Part<Scalar<S>>& part) { update_part(part, rule); });
}

template <class S, class Update>
void measure(const Piece& piece, int64_t begin, int64_t end, const StepConstants& constants,
             const Noise& noisy, double* sums) {
  const Update rule(constants);
  over_part<S, Update>(piece, begin, end, noisy, false,
                       [&](const Part<Scalar<S>>& part) { measure_part(part, rule, sums); });
}

// Sum of the squared gradients of a part.
template <class S>
double squares(const Piece& piece, int64_t begin, int64_t end) {
  const S* gradient = static_cast<const S*>(piece.gradient);
  double sum[1] = {0};
  sum_in_chains(end - begin, sum, 1, [&](int64_t j, double& total, double&) {
    double g;
    if constexpr (sizeof(S) == 2)
      g = double(value(gradient[begin + j]));
    else
      g = double(gradient[begin + j]);
    total += g * g;
  });
  return sum[0];
}

// ---- The tables ----

template <class S, class Update>
constexpr UpdateKernels row() {
  if constexpr (Update::by_norms)
    return {Update::slots, update<S, Update>, measure<S, Update>, Update::ratio};
  else
    return {Update::slots, update<S, Update>, nullptr, nullptr};
}

template <class S, template <class> class... Updates>
constexpr TensorKernels over_tensors() {
  static_assert(sizeof...(Updates) == update_count, "an update has no name, or a name no update");
  return {{row<S, Updates<Scalar<S>>>()...}, squares<S>};
}

template <class S>
constexpr TensorKernels all_updates() {
  return over_tensors<S, plain_step, momentum_step, moments_step, largest_moments_step,
                      squares_step, lars_step, lamb_step, triad_of_none, triad_of_one, triad_of_two,
                      triad_of_three>();
}

constexpr OptimizerKernels tables{all_updates<float>(), all_updates<double>(),
                                  all_updates<bfloat16>(), all_updates<float16>()};

}  // namespace optimizers
}  // namespace SCHUSS_ISA
}  // namespace schuss

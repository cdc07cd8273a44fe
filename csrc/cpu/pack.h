// A pack: as many numbers as one vector register holds, with the few operations the loops need.
//
// Loops are written once over packs, whatever the instruction set.
#pragma once
#include <stdint.h>

#include "problem.h"

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace schuss {
namespace SCHUSS_ISA {

#if defined(__AVX512F__)
constexpr int pack_bytes = 64;
constexpr int most_packs = 8;  // of a row that stays in registers beside the weights
#elif defined(__AVX2__)
constexpr int pack_bytes = 32;
constexpr int most_packs = 4;
#else
constexpr int pack_bytes = 16;
constexpr int most_packs = 4;
#endif

template <class T>
struct pack_type {};
template <>
struct pack_type<float> {
  typedef float type __attribute__((vector_size(pack_bytes)));
};
template <>
struct pack_type<double> {
  typedef double type __attribute__((vector_size(pack_bytes)));
};
template <class T>
using Pack = typename pack_type<T>::type;
template <class T>
constexpr int lanes = pack_bytes / int(sizeof(T));

template <class T>
inline Pack<T> load(const T* p) {
  Pack<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
inline void store(T* p, Pack<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}
template <class T>
inline Pack<T> all(T a) {
  return a - Pack<T>{};
}

template <class T>
inline int clamp_lanes(int64_t n) {
  return int(n < 0 ? 0 : n > lanes<T> ? lanes<T> : n);
}

// One stored number as the type that is computed with.
inline float value(float x) { return x; }
inline double value(double x) { return x; }
inline float float_of(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}
inline float value(bfloat16 x) { return float_of(uint32_t(x.bits) << 16); }
inline float value(float16 x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = uint32_t(x.bits & 0x7fff) << 13;
  if (rest >= 0x0f800000) return float_of(sign | rest | 0x7f800000);  // infinity, NaN
  return float_of(sign | 0x3f800000) * (float_of(rest) * 0x1p112f);   // the exponents' biases
}

// AddressSanitizer does not look at masked loads: builds with it read the numbers singly before.
template <class S>
inline void check_readable(const S* p, int count) {
#if defined(__SANITIZE_ADDRESS__)
  for (int k = 0; k < count; ++k) (void)*(const volatile char*)(p + k);
#else
  (void)p, (void)count;
#endif
}

#if defined(__AVX512F__)

// The lanes low <= l < high of a pack; memory is read for these alone.
template <class T>
struct Lanes {
  uint32_t mask;
  explicit Lanes(int64_t low = 0, int64_t high = 0)
      : mask((uint32_t(1) << clamp_lanes<T>(high)) - (uint32_t(1) << clamp_lanes<T>(low))) {}
  int low() const { return mask ? __builtin_ctz(mask) : 0; }
  int count() const { return __builtin_popcount(mask); }
};
inline Pack<float> load(const float* p, Lanes<float> f) {
  check_readable(p + f.low(), f.count());
  return (Pack<float>)_mm512_maskz_loadu_ps(__mmask16(f.mask), p);
}
inline Pack<double> load(const double* p, Lanes<double> f) {
  check_readable(p + f.low(), f.count());
  return (Pack<double>)_mm512_maskz_loadu_pd(__mmask8(f.mask), p);
}
inline Pack<float> load(const bfloat16* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
  return (Pack<float>)_mm512_slli_epi32(wide, 16);
}
inline Pack<float> load(const bfloat16* p, Lanes<float> f) {
  check_readable(p + f.low(), f.count());
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(__mmask16(f.mask), p));
  return (Pack<float>)_mm512_slli_epi32(wide, 16);
}
inline Pack<float> load(const float16* p) {
  return (Pack<float>)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256((const __m256i*)p));
}
inline Pack<float> load(const float16* p, Lanes<float> f) {
  check_readable(p + f.low(), f.count());
  return (Pack<float>)_mm512_maskz_cvtph_ps(0xffff, _mm256_maskz_loadu_epi16(__mmask16(f.mask), p));
}
inline Pack<float> multiply_add(Pack<float> a, Pack<float> b, Pack<float> c) {
  return (Pack<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
inline Pack<double> multiply_add(Pack<double> a, Pack<double> b, Pack<double> c) {
  return (Pack<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
inline float sum(Pack<float> v) { return _mm512_reduce_add_ps((__m512)v); }
inline double sum(Pack<double> v) { return _mm512_reduce_add_pd((__m512d)v); }

// The sums of four packs, by adding while transposing: a third of the work of four sums.
inline void sum_four(const Pack<float>* v, float* out) {
  const __m512 a = (__m512)v[0], b = (__m512)v[1], c = (__m512)v[2], d = (__m512)v[3];
  const __m512d ab = (__m512d)(_mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b));
  const __m512d cd = (__m512d)(_mm512_unpacklo_ps(c, d) + _mm512_unpackhi_ps(c, d));
  const __m512 abcd = (__m512)_mm512_unpacklo_pd(ab, cd) + (__m512)_mm512_unpackhi_pd(ab, cd);
  const __m256 half = _mm512_castps512_ps256(abcd) + _mm512_extractf32x8_ps(abcd, 1);
  _mm_storeu_ps(out, _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1));
}

#elif defined(__AVX2__)

template <class T>
struct Lanes {
  int begin, end;
  __m256i mask;
  explicit Lanes(int64_t low = 0, int64_t high = 0)
      : begin(clamp_lanes<T>(low)), end(clamp_lanes<T>(high)) {
    if (sizeof(T) == 4) {
      const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
      mask = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(begin), lane),
                                 _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lane));
    } else {
      const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
      mask = _mm256_andnot_si256(_mm256_cmpgt_epi64(_mm256_set1_epi64x(begin), lane),
                                 _mm256_cmpgt_epi64(_mm256_set1_epi64x(end), lane));
    }
  }
};
inline Pack<float> load(const float* p, Lanes<float> f) {
  check_readable(p + f.begin, f.end - f.begin);
  return (Pack<float>)_mm256_maskload_ps(p, f.mask);
}
inline Pack<double> load(const double* p, Lanes<double> f) {
  check_readable(p + f.begin, f.end - f.begin);
  return (Pack<double>)_mm256_maskload_pd(p, f.mask);
}
inline Pack<float> load(const bfloat16* p) {
  return (Pack<float>)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)),
                                        16);
}
inline Pack<float> load(const float16* p) {
  return (Pack<float>)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
}
inline Pack<float> multiply_add(Pack<float> a, Pack<float> b, Pack<float> c) {
  return (Pack<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
inline Pack<double> multiply_add(Pack<double> a, Pack<double> b, Pack<double> c) {
  return (Pack<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
inline float sum(Pack<float> v) {
  __m128 s = _mm256_castps256_ps128((__m256)v) + _mm256_extractf128_ps((__m256)v, 1);
  s += _mm_movehl_ps(s, s);
  return _mm_cvtss_f32(s + _mm_movehdup_ps(s));
}
inline double sum(Pack<double> v) {
  const __m128d s = _mm256_castpd256_pd128((__m256d)v) + _mm256_extractf128_pd((__m256d)v, 1);
  return _mm_cvtsd_f64(s + _mm_unpackhi_pd(s, s));
}
inline Pack<float> in_first_lane(float a) {
  const __m256i lane = _mm256_setr_epi32(-1, 0, 0, 0, 0, 0, 0, 0);
  return (Pack<float>)_mm256_and_ps(_mm256_set1_ps(a), _mm256_castsi256_ps(lane));
}
inline Pack<double> in_first_lane(double a) {
  const __m256i lane = _mm256_setr_epi64x(-1, 0, 0, 0);
  return (Pack<double>)_mm256_and_pd(_mm256_set1_pd(a), _mm256_castsi256_pd(lane));
}
inline void sum_four(const Pack<float>* v, float* out) {
  const __m256 ab = _mm256_hadd_ps((__m256)v[0], (__m256)v[1]);
  const __m256 cd = _mm256_hadd_ps((__m256)v[2], (__m256)v[3]);
  const __m256 abcd = _mm256_hadd_ps(ab, cd);
  _mm_storeu_ps(out, _mm256_castps256_ps128(abcd) + _mm256_extractf128_ps(abcd, 1));
}

#else

template <class T>
struct Lanes {
  int begin, end;
  explicit Lanes(int64_t low = 0, int64_t high = 0)
      : begin(clamp_lanes<T>(low)), end(clamp_lanes<T>(high)) {}
};
template <class T>
inline Pack<T> load_partial(const T* p, Lanes<T> f) {
  if (f.begin == 0 && f.end == lanes<T>) return load(p);
  Pack<T> v{};
  for (int k = 0; k < lanes<T>; ++k)
    if (k >= f.begin && k < f.end) v[k] = p[k];
  return v;
}
inline Pack<float> load(const float* p, Lanes<float> f) { return load_partial(p, f); }
inline Pack<double> load(const double* p, Lanes<double> f) { return load_partial(p, f); }
inline Pack<float> load(const bfloat16* p) {
  return Pack<float>{value(p[0]), value(p[1]), value(p[2]), value(p[3])};
}
inline Pack<float> load(const float16* p) {
  return Pack<float>{value(p[0]), value(p[1]), value(p[2]), value(p[3])};
}
inline Pack<float> multiply_add(Pack<float> a, Pack<float> b, Pack<float> c) { return a * b + c; }
inline Pack<double> multiply_add(Pack<double> a, Pack<double> b, Pack<double> c) {
  return a * b + c;
}
inline float sum(Pack<float> v) { return (v[0] + v[2]) + (v[1] + v[3]); }
inline double sum(Pack<double> v) { return v[0] + v[1]; }
inline void sum_four(const Pack<float>* v, float* out) {
  for (int k = 0; k < 4; ++k) out[k] = sum(v[k]);
}

#endif

#if defined(__AVX512F__) || !defined(__AVX2__)
// A number in the first lane, zeros in the others. (With AVX2, the compiler's choice for this is an
// instruction that valgrind does not know.)
template <class T>
inline Pack<T> in_first_lane(T a) {
  return Pack<T>{a};
}
#endif

#if !defined(__AVX512F__)
// No masked loads of 16-bit numbers here: lane by lane.
template <class S>
inline Pack<float> load_narrow(const S* p, Lanes<float> f) {
  Pack<float> v{};
  for (int k = 0; k < lanes<float>; ++k)
    if (k >= f.begin && k < f.end) v[k] = value(p[k]);
  return v;
}
inline Pack<float> load(const bfloat16* p, Lanes<float> f) { return load_narrow(p, f); }
inline Pack<float> load(const float16* p, Lanes<float> f) { return load_narrow(p, f); }
#endif

inline void sum_four(const Pack<double>* v, double* out) {
  for (int k = 0; k < 4; ++k) out[k] = sum(v[k]);
}

// Of `count` numbers and their places, moves those that are n or more to the front; how many.
template <class Word>
inline int64_t keep_beyond(Word n, int64_t count, Word* x, int32_t* place) {
  int64_t kept = 0;
  for (int64_t k = 0; k < count; ++k) {
    const Word number = x[k];
    const int32_t where = place[k];
    x[kept] = number;
    place[kept] = where;
    kept += number >= n;
  }
  return kept;
}
#if defined(__AVX512F__)
// Whole packs are read and written.
inline int64_t keep_beyond(uint32_t n, int64_t count, uint32_t* x, int32_t* place) {
  const __m512i least = _mm512_set1_epi32(int(n));
  int64_t kept = 0;
  for (int64_t k = 0; k < count; k += 16) {
    const __m512i number = _mm512_loadu_si512(x + k), where = _mm512_loadu_si512(place + k);
    const __mmask16 beyond =
        _mm512_mask_cmpge_epu32_mask(__mmask16(Lanes<float>(0, count - k).mask), number, least);
    _mm512_storeu_si512(x + kept, _mm512_maskz_compress_epi32(beyond, number));
    _mm512_storeu_si512(place + kept, _mm512_maskz_compress_epi32(beyond, where));
    kept += __builtin_popcount(beyond);
  }
  return kept;
}
#endif

// What a row of d columns has beyond whole packs: the last lanes of the pack that ends where the
// row does. A masked load also waits for the lines of lanes that it leaves out; this one touches
// none on which there is nothing of the row. A row shorter than a pack has the first lanes of one.
template <class T>
struct Tail {
  int64_t begin;  // the tail's first column
  int64_t at;     // the pack's
  Lanes<T> part;
  explicit Tail(int64_t d)
      : begin(d - d % lanes<T>), at(d < lanes<T> ? 0 : d - lanes<T>), part(begin - at, d - at) {}

  // Where its column j is found in memory that holds the tail's pack behind the whole ones.
  int64_t place(int64_t j) const { return begin + j - at; }
};

}  // namespace SCHUSS_ISA
}  // namespace schuss

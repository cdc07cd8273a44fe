// Formulas: losses, update rules, penalties and the index bijection, as scalar mathematics.
//
// Freestanding C++17: g++, clang and NVRTC compile it, without a header of their own. Each formula
// stands a second time in Python (src/schuss/formulas); tests hold the two against each other.
//
// Everything lives in a namespace named by SCHUSS_ISA, because a template compiled for two
// instruction sets under one name is one symbol after linking.
//
// To add a loss, write one SCHUSS_LOSS struct (SCHUSS_VECTOR_LOSS for one of several margins),
// named like its Python row; to add a rule, one SCHUSS_RULE struct, named like its Python formula.
// Nothing else lists them.
#pragma once

#ifndef SCHUSS_ISA
#define SCHUSS_ISA portable
#endif

#ifdef __CUDACC__
#define SCHUSS_FN __device__ __forceinline__
#else
#define SCHUSS_FN inline
#endif

namespace schuss {
namespace SCHUSS_ISA {

#ifdef __CUDACC__
SCHUSS_FN float exponential(float x) { return expf(x); }
SCHUSS_FN double exponential(double x) { return exp(x); }
SCHUSS_FN float log_one_plus(float x) { return log1pf(x); }
SCHUSS_FN double log_one_plus(double x) { return log1p(x); }
SCHUSS_FN float logarithm(float x) { return logf(x); }
SCHUSS_FN double logarithm(double x) { return log(x); }
SCHUSS_FN float square_root(float x) { return sqrtf(x); }
SCHUSS_FN double square_root(double x) { return sqrt(x); }
#else
SCHUSS_FN float exponential(float x) { return __builtin_expf(x); }
SCHUSS_FN double exponential(double x) { return __builtin_exp(x); }
SCHUSS_FN float log_one_plus(float x) { return __builtin_log1pf(x); }
SCHUSS_FN double log_one_plus(double x) { return __builtin_log1p(x); }
SCHUSS_FN float logarithm(float x) { return __builtin_logf(x); }
SCHUSS_FN double logarithm(double x) { return __builtin_log(x); }
SCHUSS_FN float square_root(float x) { return __builtin_sqrtf(x); }
SCHUSS_FN double square_root(double x) { return __builtin_sqrt(x); }
#endif

// Both keep a NaN in their first argument.
template <class T>
SCHUSS_FN T smaller(T a, T b) {
  return b < a ? b : a;
}
template <class T>
SCHUSS_FN T larger(T a, T b) {
  return a < b ? b : a;
}
template <class T>
SCHUSS_FN T magnitude(T a) {
  return a < T(0) ? -a : a;
}
template <class T>
SCHUSS_FN T sign(T a) {
  return T(a > T(0)) - T(a < T(0));
}

// bounded_exponential(x, twos) is exp(x) and twos is x / ln(2), which a caller may have sooner. On
// CPUs it ends at the exponents of normal numbers, and a loop over it becomes vectors, which a call
// of the library's function does not.
constexpr double one_over_ln2 = 1.4426950408889634;
#ifdef __CUDACC__
template <class T>
SCHUSS_FN T bounded_exponential(T x, T) {
  return exponential(x);
}
#else
// The nearest whole number. Rounded as such where the processor can: a conversion to an integer and
// back takes three times as long, and the next row waits for it.
#if defined(__SSE4_1__) || defined(__aarch64__)
SCHUSS_FN float nearest(float x) { return __builtin_rintf(x); }
SCHUSS_FN double nearest(double x) { return __builtin_rint(x); }
#else
SCHUSS_FN float nearest(float x) { return float(int(x < 0 ? x - 0.5f : x + 0.5f)); }
SCHUSS_FN double nearest(double x) { return double(int(x < 0 ? x - 0.5 : x + 0.5)); }
#endif

// exp(x) = 2^n exp(r) with |r| <= ln(2) / 2 and the Taylor series of exp(r), its terms taken in
// pairs: per sample, the next row waits for the slope. What n ln(2) loses by rounding is as much as
// a margin of x's size has lost already.
SCHUSS_FN float bounded_exponential(float x, float twos) {
  const float most = smaller(twos, 125.5f);
  const float whole = nearest(most > -125.5f ? most : -125.5f);  // also where x is none
  const float r = smaller(larger(x, -87.0f), 87.0f) - whole * 0.693147181f;
  const float r2 = r * r, low = (1 + r) + r2 * (0.5f + 1.0f / 6 * r);
  const float high = (1.0f / 24 + 1.0f / 120 * r) + r2 * (1.0f / 720 + 1.0f / 5040 * r);
  const float sum = low + r2 * r2 * high;
  const int bits = (int(whole) + 127) << 23;
  float power;
  __builtin_memcpy(&power, &bits, sizeof power);
  return sum * power;
}
SCHUSS_FN double bounded_exponential(double x, double twos) {
  const double most = smaller(twos, 1021.4);
  const double whole = nearest(most > -1021.4 ? most : -1021.4);
  const double r = smaller(larger(x, -708.0), 708.0) - whole * 0.6931471805599453;
  const double r2 = r * r, r4 = r2 * r2;
  const double low = (1 + r) + r2 * (0.5 + 1.0 / 6 * r);
  const double middle = (1.0 / 24 + 1.0 / 120 * r) + r2 * (1.0 / 720 + 1.0 / 5040 * r);
  const double high = (1.0 / 40320 + 1.0 / 362880 * r) + r2 * (1.0 / 3628800 + 1.0 / 39916800 * r);
  const double highest = 1.0 / 479001600 + 1.0 / 6227020800 * r;
  const double sum = (low + r4 * middle) + r4 * r4 * (high + r4 * highest);
  const long long bits = (long long)(int(whole) + 1023) << 52;
  double power;
  __builtin_memcpy(&power, &bits, sizeof power);
  return sum * power;
}
#endif

// log(1 + e) for 0 <= e <= 1, by the series of 2 artanh(s) with s = e / (2 + e) <= 1/3; likewise
// without a call.
#ifdef __CUDACC__
template <class T>
SCHUSS_FN T log_one_plus_odds(T e) {
  return log_one_plus(e);
}
#else
template <class T>
SCHUSS_FN T log_one_plus_odds(T e) {
  constexpr int terms = sizeof(T) == 4 ? 8 : 17;  // 3^-(2 terms) is below the last digit
  const T s = e / (T(2) + e), square = s * s;
  T sum = T(1) / T(2 * terms - 1);
  for (int k = terms - 2; k >= 0; --k) sum = sum * square + T(1) / T(2 * k + 1);
  return T(2) * s * sum;
}
#endif

// ---- Tables: kernels on CPUs find a formula by its row, those on GPUs by its name ----

#ifdef __CUDACC__  // NVRTC has no __COUNTER__
#define SCHUSS_TABLE(TABLE)
#define SCHUSS_ROW(TABLE, NAME) \
  template <class T>            \
  struct NAME
#define SCHUSS_COUNT(TABLE)
#else
#define SCHUSS_TABLE(TABLE)   \
  template <class T, int Row> \
  struct TABLE##_row;         \
  constexpr int first_##TABLE = __COUNTER__ + 1;
#define SCHUSS_ROW(TABLE, NAME)                           \
  template <class T>                                      \
  struct NAME;                                            \
  template <class T>                                      \
  struct TABLE##_row<T, __COUNTER__ - first_##TABLE> {    \
    using type = NAME<T>;                                 \
    static constexpr const char* name() { return #NAME; } \
  };                                                      \
  template <class T>                                      \
  struct NAME
#define SCHUSS_COUNT(TABLE) constexpr int TABLE##_count = __COUNTER__ - first_##TABLE;
#endif
#define SCHUSS_LOSS(NAME)        SCHUSS_ROW(loss, NAME)
#define SCHUSS_VECTOR_LOSS(NAME) SCHUSS_ROW(vector_loss, NAME)
#define SCHUSS_RULE(NAME)        SCHUSS_ROW(rule, NAME)

// ---- Losses: value and slope (derivative in the margin) of one sample ----
//
// Binary labels are -1 and +1. The constructor takes the parameters in their declared order.

SCHUSS_TABLE(loss)

SCHUSS_LOSS(squared_error) {
  SCHUSS_FN explicit squared_error(const double*) {}
  SCHUSS_FN T value(T margin, T y) const { return T(0.5) * (margin - y) * (margin - y); }
  SCHUSS_FN T slope(T margin, T y) const { return margin - y; }
};

SCHUSS_LOSS(mse) {
  SCHUSS_FN explicit mse(const double*) {}
  SCHUSS_FN T value(T margin, T y) const { return (margin - y) * (margin - y); }
  SCHUSS_FN T slope(T margin, T y) const { return T(2) * (margin - y); }
};

SCHUSS_LOSS(huber) {
  T epsilon;
  SCHUSS_FN explicit huber(const double* p) : epsilon(T(p[0])) {}
  SCHUSS_FN T value(T margin, T y) const {
    const T distance = magnitude(margin - y), near = smaller(distance, epsilon);
    return near * (distance - T(0.5) * near);
  }
  SCHUSS_FN T slope(T margin, T y) const { return smaller(larger(margin - y, -epsilon), epsilon); }
};

SCHUSS_LOSS(epsilon_insensitive) {
  T epsilon;
  SCHUSS_FN explicit epsilon_insensitive(const double* p) : epsilon(T(p[0])) {}
  SCHUSS_FN T value(T margin, T y) const { return larger(magnitude(margin - y) - epsilon, T(0)); }
  SCHUSS_FN T slope(T margin, T y) const {
    return magnitude(margin - y) > epsilon ? sign(margin - y) : T(0);
  }
};

SCHUSS_LOSS(squared_epsilon_insensitive) {
  T epsilon;
  SCHUSS_FN explicit squared_epsilon_insensitive(const double* p) : epsilon(T(p[0])) {}
  SCHUSS_FN T excess(T margin, T y) const { return larger(magnitude(margin - y) - epsilon, T(0)); }
  SCHUSS_FN T value(T margin, T y) const { return excess(margin, y) * excess(margin, y); }
  SCHUSS_FN T slope(T margin, T y) const { return T(2) * sign(margin - y) * excess(margin, y); }
};

SCHUSS_LOSS(hinge) {
  SCHUSS_FN explicit hinge(const double*) {}
  SCHUSS_FN T value(T margin, T y) const { return larger(T(1) - y * margin, T(0)); }
  SCHUSS_FN T slope(T margin, T y) const { return y * margin <= T(1) ? -y : T(0); }
};

SCHUSS_LOSS(squared_hinge) {
  SCHUSS_FN explicit squared_hinge(const double*) {}
  SCHUSS_FN T shortfall(T margin, T y) const { return larger(T(1) - y * margin, T(0)); }
  SCHUSS_FN T value(T margin, T y) const { return shortfall(margin, y) * shortfall(margin, y); }
  SCHUSS_FN T slope(T margin, T y) const { return T(-2) * y * shortfall(margin, y); }
};

SCHUSS_LOSS(log_loss) {  // without a branch on the margin's sign
  SCHUSS_FN explicit log_loss(const double*) {}
  SCHUSS_FN T odds(T margin, T y) const {  // exp(y m)
    return bounded_exponential(y * margin, margin * (y * T(one_over_ln2)));
  }
  SCHUSS_FN T value(T margin, T y) const {  // log(1 + exp(-y m)) by exp(-|y m|), which is <= 1
    const T e = odds(margin, y);
    return larger(-y * margin, T(0)) + log_one_plus_odds(smaller(e, T(1) / e));
  }
  SCHUSS_FN T slope(T margin, T y) const { return -y / (T(1) + odds(margin, y)); }
};

SCHUSS_LOSS(modified_huber) {
  SCHUSS_FN explicit modified_huber(const double*) {}
  SCHUSS_FN T shortfall(T margin, T y) const { return larger(T(1) - y * margin, T(0)); }
  SCHUSS_FN T value(T margin, T y) const {
    const T h = shortfall(margin, y), near = smaller(h, T(2));
    return near * (T(2) * h - near);
  }
  SCHUSS_FN T slope(T margin, T y) const { return T(-2) * y * smaller(shortfall(margin, y), T(2)); }
};

SCHUSS_LOSS(perceptron) {
  // slope -y at margin 0, so that training can leave the origin
  SCHUSS_FN explicit perceptron(const double*) {}
  SCHUSS_FN T value(T margin, T y) const { return larger(-y * margin, T(0)); }
  SCHUSS_FN T slope(T margin, T y) const { return y * margin <= T(0) ? -y : T(0); }
};

SCHUSS_LOSS(quantile) {
  T q;
  SCHUSS_FN explicit quantile(const double* p) : q(T(p[0])) {}
  SCHUSS_FN T value(T margin, T y) const {
    return larger(q * (y - margin), (q - T(1)) * (y - margin));
  }
  SCHUSS_FN T slope(T margin, T y) const { return T(margin > y) * (T(1) - q) - T(margin < y) * q; }
};

SCHUSS_LOSS(poisson) {
  SCHUSS_FN explicit poisson(const double*) {}
  SCHUSS_FN T value(T margin, T y) const { return exponential(margin) - y * margin; }
  SCHUSS_FN T slope(T margin, T y) const { return exponential(margin) - y; }
};

// New losses go above this line.
SCHUSS_COUNT(loss)

// ---- Losses of several margins: value and slopes of R samples side by side ----
//
// weigh takes the margins, (k, R), and puts the slopes in their place; y[r] is the number of the
// class. Loops over r are of constant length and independent: they become vectors.

SCHUSS_TABLE(vector_loss)

SCHUSS_VECTOR_LOSS(multinomial) {
  T smoothing;
  SCHUSS_FN explicit multinomial(const double* p) : smoothing(T(p[0])) {}
  template <int R>
  SCHUSS_FN void weigh(T * m, long long k, const T* y, T* value) const {
    const T own = T(1) - smoothing, even = smoothing / T(k);
    T top[R], total[R], expected[R];
    for (int r = 0; r < R; ++r) {
      top[r] = m[r];
      total[r] = expected[r] = 0;
    }
    for (long long c = 1; c < k; ++c)
      for (int r = 0; r < R; ++r) top[r] = larger(top[r], m[c * R + r]);
    for (long long c = 0; c < k; ++c)
      for (int r = 0; r < R; ++r) {
        const T below = m[c * R + r] - top[r],
                odds = bounded_exponential(below, below * T(one_over_ln2));
        expected[r] += ((y[r] == T(c) ? own : T(0)) + even) * below;
        total[r] += odds;
        m[c * R + r] = odds;
      }
    for (int r = 0; r < R; ++r) {
      value[r] = logarithm(total[r]) - expected[r];
      total[r] = T(1) / total[r];
    }
    for (long long c = 0; c < k; ++c)
      for (int r = 0; r < R; ++r)
        m[c * R + r] = m[c * R + r] * total[r] - ((y[r] == T(c) ? own : T(0)) + even);
  }
};

// New losses of several margins go above this line.
SCHUSS_COUNT(vector_loss)

// ---- Rules: one weight, its gradient and its memory slots to the new weight and slots ----
//
// The constructor takes the step's constants; constant 1, where there is one, is the factor of
// decoupled weight decay, which the intercept is spared.

SCHUSS_TABLE(rule)

SCHUSS_RULE(sgd) {
  static constexpr int slots = 0, constants = 1;
  T lr;
  SCHUSS_FN explicit sgd(const double* c) : lr(T(c[0])) {}
  SCHUSS_FN void update(T& w, T g, T&, T&) const { w -= lr * g; }
};

SCHUSS_RULE(momentum) {
  static constexpr int slots = 1, constants = 5;
  T lr, mu, keep, nesterov;
  SCHUSS_FN explicit momentum(const double* c)
      : lr(T(c[0])), mu(T(c[2])), keep(T(c[3])), nesterov(T(c[4])) {}
  SCHUSS_FN void update(T& w, T g, T& v, T&) const {
    v = mu * v + keep * g;
    w -= lr * (nesterov * (g + mu * v) + (T(1) - nesterov) * v);
  }
};

SCHUSS_RULE(moments) {  // adam, adamw
  static constexpr int slots = 2, constants = 7;
  T shrink, gain1, gain2, rate, root_scale, eps;
  SCHUSS_FN explicit moments(const double* c)
      : shrink(T(c[1])),
        gain1(T(c[2])),
        gain2(T(c[3])),
        rate(T(c[4])),
        root_scale(T(c[5])),
        eps(T(c[6])) {}
  SCHUSS_FN void update(T& w, T g, T& m, T& v) const {
    m += gain1 * (g - m);
    v += gain2 * (g * g - v);
    w = shrink * w - rate * m / (square_root(v) * root_scale + eps);
  }
};

SCHUSS_RULE(adagrad) {
  static constexpr int slots = 1, constants = 3;
  T lr, eps;
  SCHUSS_FN explicit adagrad(const double* c) : lr(T(c[0])), eps(T(c[2])) {}
  SCHUSS_FN void update(T& w, T g, T& s, T&) const {
    s += g * g;
    w -= lr * g / (square_root(s) + eps);
  }
};

// New rules go above this line.
SCHUSS_COUNT(rule)

// ---- Penalty ----

// Proximal step of amount * |w|: move towards zero by amount, stop there.
template <class T>
SCHUSS_FN T shrink_towards_zero(T w, T amount) {
  return w - smaller(larger(w, -amount), amount);
}

// ---- The index bijection: a keyed permutation of [0, n) without memory ----
//
// A Feistel network over the power-of-two domain of at least 2^8 points that holds n, applied
// again until the result lies below n (cycle walking). Bit-same in Python.

constexpr int bijection_rounds = 6;

struct Bijection {
  unsigned long long n;
  int left_bits, right_bits;
  unsigned int keys[bijection_rounds];

  SCHUSS_FN Bijection(unsigned long long size, const unsigned int* round_keys) : n(size) {
    int bits = 8;
    while (bits < 64 && ((size - 1) >> bits) != 0) ++bits;
    left_bits = bits / 2;
    right_bits = bits - left_bits;
    for (int r = 0; r < bijection_rounds; ++r) keys[r] = round_keys[r];
  }

  // One pass through the network. Word holds the domain: 32 bits while n is below 2^32.
  template <class Word>
  SCHUSS_FN Word encrypt(Word x) const {
    unsigned int left = (unsigned int)(x >> right_bits);
    unsigned int right = (unsigned int)(x & ((Word(1) << right_bits) - 1));
    for (int r = 0; r < bijection_rounds; ++r) {
      // The halves change places, and so do their widths.
      const int width = r % 2 == 0 ? left_bits : right_bits;
      unsigned int mixed = (right ^ keys[r]) * 0x9E3779B1u;
      mixed = (mixed ^ (mixed >> 15)) * 0x85EBCA77u;
      const unsigned int next = left ^ (mixed >> (32 - width));
      left = right;
      right = next;
    }
    return (Word(left) << right_bits) | right;
  }

  SCHUSS_FN unsigned long long operator()(unsigned long long i) const {
    do i = encrypt(i);
    while (i >= n);
    return i;
  }
};

}  // namespace SCHUSS_ISA
}  // namespace schuss

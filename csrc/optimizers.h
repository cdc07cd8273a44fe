// Updates of optimizers as torch.optim computes them: operation for operation, rounded where it
// rounds, so that results are the same bits. (csrc/formulas.h has the rules of schuss.fit, whose
// operations are fewer.) Compiled without contraction of products and sums; where torch fuses
// them, so does multiply_add.
//
// Freestanding C++17, in a namespace for each instruction set, as formulas.h.
//
// An update is a struct made of the step's constants. update(w, g, a, b, c) takes one parameter,
// its gradient and its memory slots to their new values.
#pragma once

#include "formulas.h"

namespace schuss {

// What a step is made of, for one tensor. Numbers that an update does not read are 0.
struct StepConstants {
  static constexpr int count = 12;
  double factor;       // of the gradient: its sign, and what it is scaled by
  double decay;        // of the parameter, added to the gradient or, in LAMB, to the direction
  double shrink;       // of the parameter, before the step
  double rate;         // minus the learning rate
  double first;        // momentum: of the slot; moments: 1 - beta1
  double second;       // momentum: of the gradient; moments: beta2
  double third;        // momentum: of the slot in Nesterov's step; moments: 1 - beta2
  double first_scale;  // LAMB: of the first moment, to remove its bias
  double root_scale;   // what the root of the second moment is divided by
  double eps;
  double trust;  // LARS, LAMB: of the ratio of norms; 0: no ratio
  double ratio;  // of those norms, once they are known
};

namespace SCHUSS_ISA {

// a * b + c, rounded once where the processor can, which is where torch does so as well.
#if defined(__FMA__) || defined(__aarch64__) || defined(__CUDACC__)
SCHUSS_FN float multiply_add(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
SCHUSS_FN double multiply_add(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
SCHUSS_FN float multiply_add(float a, float b, float c) { return a * b + c; }
SCHUSS_FN double multiply_add(double a, double b, double c) { return a * b + c; }
#endif

// What all updates begin with.
template <class T>
struct Gradient {
  T factor, decay;
  SCHUSS_FN explicit Gradient(const StepConstants& c) : factor(T(c.factor)), decay(T(c.decay)) {}
  SCHUSS_FN T operator()(T w, T g) const {
    g = factor * g;
    return decay == T(0) ? g : multiply_add(w, decay, g);
  }
};

template <class T>
struct plain_step {
  static constexpr bool by_norms = false;
  static constexpr int slots = 0;
  Gradient<T> gradient;
  T rate;
  SCHUSS_FN explicit plain_step(const StepConstants& c) : gradient(c), rate(T(c.rate)) {}
  SCHUSS_FN void update(T& w, T g, T&, T&, T&) const { w = multiply_add(gradient(w, g), rate, w); }
};

template <class T>
struct momentum_step {
  static constexpr bool by_norms = false;
  static constexpr int slots = 1;
  Gradient<T> gradient;
  T rate, hold, gain, ahead;
  SCHUSS_FN explicit momentum_step(const StepConstants& c)
      : gradient(c), rate(T(c.rate)), hold(T(c.first)), gain(T(c.second)), ahead(T(c.third)) {}
  SCHUSS_FN void update(T& w, T g, T& v, T&, T&) const {
    g = gradient(w, g);
    v = multiply_add(g, gain, v * hold);
    const T direction = ahead == T(0) ? v : multiply_add(v, ahead, g);
    w = multiply_add(direction, rate, w);
  }
};

// The running moments of Adam, and its direction.
template <class T>
struct Moments {
  T gain, beta2, gain2, root_scale, eps;
  SCHUSS_FN explicit Moments(const StepConstants& c)
      : gain(T(c.first)),
        beta2(T(c.second)),
        gain2(T(c.third)),
        root_scale(T(c.root_scale)),
        eps(T(c.eps)) {}
  SCHUSS_FN void take(T g, T& m, T& v) const {
    const T apart = g - m;  // from the nearer end, as torch's lerp
    m = gain < T(0.5) ? multiply_add(gain, apart, m) : multiply_add(gain - T(1), apart, g);
    v = multiply_add(gain2 * g, g, v * beta2);
  }
  SCHUSS_FN T divisor(T v) const { return square_root(v) / root_scale + eps; }
};

template <class T>
struct moments_step {  // Adam, AdamW
  static constexpr bool by_norms = false;
  static constexpr int slots = 2;
  Gradient<T> gradient;
  Moments<T> moments;
  T rate, shrink;
  SCHUSS_FN explicit moments_step(const StepConstants& c)
      : gradient(c), moments(c), rate(T(c.rate)), shrink(T(c.shrink)) {}
  SCHUSS_FN void update(T& w, T g, T& m, T& v, T&) const {
    g = gradient(w, g);
    moments.take(g, m, v);
    w = w * shrink + rate * m / moments.divisor(v);
  }
};

template <class T>
struct largest_moments_step {  // the same with amsgrad
  static constexpr bool by_norms = false;
  static constexpr int slots = 3;
  moments_step<T> base;
  SCHUSS_FN explicit largest_moments_step(const StepConstants& c) : base(c) {}
  SCHUSS_FN void update(T& w, T g, T& m, T& v, T& top) const {
    g = base.gradient(w, g);
    base.moments.take(g, m, v);
    top = v <= top ? top : top == top ? v : top;  // keeps a NaN
    w = w * base.shrink + base.rate * m / base.moments.divisor(top);
  }
};

template <class T>
struct squares_step {  // Adagrad
  static constexpr bool by_norms = false;
  static constexpr int slots = 1;
  Gradient<T> gradient;
  T rate, eps;
  SCHUSS_FN explicit squares_step(const StepConstants& c)
      : gradient(c), rate(T(c.rate)), eps(T(c.eps)) {}
  SCHUSS_FN void update(T& w, T g, T& s, T&, T&) const {
    g = gradient(w, g);
    s = multiply_add(g, g, s);
    w = w + rate * g / (square_root(s) + eps);
  }
};

// What the lab holds the others against: the same numbers read and written, with one product and
// one sum for each that is written.
template <class T, int Slots>
struct triad {
  static constexpr bool by_norms = false;
  static constexpr int slots = Slots;
  T rate;
  SCHUSS_FN explicit triad(const StepConstants& c) : rate(T(c.rate)) {}
  SCHUSS_FN void update(T& w, T g, T& a, T& b, T& c) const {
    w = multiply_add(g, rate, w);
    a = multiply_add(g, rate, a);
    b = multiply_add(g, rate, b);
    c = multiply_add(g, rate, c);
  }
};
template <class T>
using triad_of_none = triad<T, 0>;
template <class T>
using triad_of_one = triad<T, 1>;
template <class T>
using triad_of_two = triad<T, 2>;
template <class T>
using triad_of_three = triad<T, 3>;

// ---- Updates whose length goes by the tensor's norms ----
//
// measure takes the slots as far as the norms need it, and adds squares to two sums; update does
// the rest once constants.ratio is known.

// The ratio of norms times the trust; 1 where one of them is 0, so that such a tensor moves at all.
SCHUSS_FN double trust_ratio(double trust, double weights, double direction) {
  return trust > 0 && weights > 0 && direction > 0 ? trust * weights / direction : 1.0;
}

template <class T>
struct lars_step {
  static constexpr bool by_norms = true;
  static constexpr int slots = 1;
  Gradient<T> gradient;
  T factor, rate, hold;
  SCHUSS_FN explicit lars_step(const StepConstants& c)
      : gradient(c), factor(T(c.factor)), rate(T(c.rate * c.ratio)), hold(T(c.first)) {}
  SCHUSS_FN void measure(T w, T g, T&, T&, double& weights, double& direction) const {
    g = factor * g;
    weights += double(w) * double(w);
    direction += double(g) * double(g);
  }
  SCHUSS_FN static double ratio(const StepConstants& c, double weights, double direction) {
    const double length = square_root(weights);
    const double divisor = square_root(direction) + c.decay * length + c.eps;
    return trust_ratio(c.trust, length, direction > 0 ? divisor : 0.0);
  }
  SCHUSS_FN void update(T& w, T g, T& v, T&, T&) const {
    v = hold * v - rate * gradient(w, g);
    w = w - v;
  }
};

template <class T>
struct lamb_step {
  static constexpr bool by_norms = true;
  static constexpr int slots = 2;
  Moments<T> moments;
  T factor, decay, rate, first_scale;
  SCHUSS_FN explicit lamb_step(const StepConstants& c)
      : moments(c),
        factor(T(c.factor)),
        decay(T(c.decay)),
        rate(T(c.rate * c.ratio)),
        first_scale(T(c.first_scale)) {}
  SCHUSS_FN T direction(T w, T m, T v) const {
    return first_scale * m / moments.divisor(v) + decay * w;
  }
  SCHUSS_FN void measure(T w, T g, T& m, T& v, double& weights, double& length) const {
    moments.take(factor * g, m, v);
    const T r = direction(w, m, v);
    weights += double(w) * double(w);
    length += double(r) * double(r);
  }
  SCHUSS_FN static double ratio(const StepConstants& c, double weights, double direction) {
    return trust_ratio(c.trust, square_root(weights), square_root(direction));
  }
  SCHUSS_FN void update(T& w, T, T& m, T& v, T&) const { w += rate * direction(w, m, v); }
};

}  // namespace SCHUSS_ISA
}  // namespace schuss

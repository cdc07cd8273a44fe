// What rows may be stored as: float, double, or 16 bits that are widened to float as they are read.
//
// Freestanding C++17, as formulas.h. Types alone: what is compiled for one instruction set or
// another stands in a namespace of its own.
#pragma once

namespace schuss {

struct bfloat16 {
  unsigned short bits;
};
struct float16 {
  unsigned short bits;
};

// The type that is computed with.
template <class S>
struct scalar_type {
  using type = S;
};
template <>
struct scalar_type<bfloat16> {
  using type = float;
};
template <>
struct scalar_type<float16> {
  using type = float;
};
template <class S>
using Scalar = typename scalar_type<S>::type;

}  // namespace schuss

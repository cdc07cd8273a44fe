// What the machine itself can do, for the lab: the arithmetic's peak and the cost of coordination.
// Compiled once per instruction set, like kernels.h; nothing here trains anything.
#pragma once
#include "problem.h"

namespace schuss {
namespace SCHUSS_ISA {

#if defined(__AVX512F__)
constexpr int register_bytes = 64;
#elif defined(__AVX__)
constexpr int register_bytes = 32;
#else
constexpr int register_bytes = 16;
#endif

// Independent chains: latency (4) times units (2), and some to spare. All fit the register file.
constexpr int chains = 12;

// Multiplies and adds in registers, 2 * chains * lanes flops per round; returns what keeps it
// alive.
template <class T>
T multiply_add(int64_t rounds) {
  typedef T Register __attribute__((vector_size(register_bytes)));
  constexpr int lanes = register_bytes / int(sizeof(T));
  // Volatile: were the starts known to be alike, one chain would be computed for all.
  volatile T start[chains + 2];
  for (int k = 0; k < chains + 2; ++k) start[k] = T(0.5);
  const Register none = {}, factor = none + start[chains], term = none + start[chains + 1];
  Register a0 = none + start[0];
  Register a1 = none + start[1];
  Register a2 = none + start[2];
  Register a3 = none + start[3];
  Register a4 = none + start[4];
  Register a5 = none + start[5];
  Register a6 = none + start[6];
  Register a7 = none + start[7];
  Register a8 = none + start[8];
  Register a9 = none + start[9];
  Register a10 = none + start[10];
  Register a11 = none + start[11];
  for (int64_t k = 0; k < rounds; ++k) {
    a0 = a0 * factor + term;
    a1 = a1 * factor + term;
    a2 = a2 * factor + term;
    a3 = a3 * factor + term;
    a4 = a4 * factor + term;
    a5 = a5 * factor + term;
    a6 = a6 * factor + term;
    a7 = a7 * factor + term;
    a8 = a8 * factor + term;
    a9 = a9 * factor + term;
    a10 = a10 * factor + term;
    a11 = a11 * factor + term;
  }
  const Register sum =
      ((a0 + a1) + (a2 + a3)) + ((a4 + a5) + (a6 + a7)) + ((a8 + a9) + (a10 + a11));
  T total = 0;
  for (int k = 0; k < lanes; ++k) total += sum[k];
  return total;
}

constexpr Ceilings ceilings_table{multiply_add<float>, multiply_add<double>,
                                  2 * chains * register_bytes / 4, 2 * chains * register_bytes / 8};

}  // namespace SCHUSS_ISA
}  // namespace schuss

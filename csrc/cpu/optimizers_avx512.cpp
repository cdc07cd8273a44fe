// The optimizers' loops for machines with AVX-512.
#define SCHUSS_ISA avx512
#include "optimizers.h"

namespace schuss {
namespace avx512 {
extern constexpr OptimizerKernels optimizer_kernels = optimizers::tables;
}  // namespace avx512
}  // namespace schuss

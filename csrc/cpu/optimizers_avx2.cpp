// The optimizers' loops for machines with AVX2 and FMA.
#define SCHUSS_ISA avx2
#include "optimizers.h"

namespace schuss {
namespace avx2 {
extern constexpr OptimizerKernels optimizer_kernels = optimizers::tables;
}  // namespace avx2
}  // namespace schuss

// The optimizers' loops for every machine.
#define SCHUSS_ISA baseline
#include "optimizers.h"

namespace schuss {
namespace baseline {
extern constexpr OptimizerKernels optimizer_kernels = optimizers::tables;
}  // namespace baseline
}  // namespace schuss

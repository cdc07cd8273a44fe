// The kernels for machines with AVX2 and FMA.
#define SCHUSS_ISA avx2
#include "ceilings.h"
#include "kernels.h"
#include "outputs.h"

namespace schuss {
namespace avx2 {
extern const InstructionSet kernels{
    "avx2",         &single_table, &wide_table, &outputs::single_table, &outputs::wide_table,
    &ceilings_table};
}  // namespace avx2
}  // namespace schuss

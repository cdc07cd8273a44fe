// The kernels for machines with AVX-512 (F, BW, DQ, VL).
#define SCHUSS_ISA avx512
#include "ceilings.h"
#include "kernels.h"
#include "outputs.h"

namespace schuss {
namespace avx512 {
extern const InstructionSet kernels{
    "avx512",       &single_table, &wide_table, &outputs::single_table, &outputs::wide_table,
    &ceilings_table};
}  // namespace avx512
}  // namespace schuss

// The kernels for machines with AVX-512 (F, BW, DQ, VL).
#define SCHUSS_ISA avx512
#include "ceilings.h"
#include "classic.h"
#include "kernels.h"
#include "outputs.h"
#include "sparse.h"

namespace schuss {
namespace avx512 {
extern constexpr InstructionSet kernels =
    make_set("avx512", &outputs::single_table, &outputs::wide_table, &sparse::tables,
             &classic::tables, &ceilings_table, &optimizer_kernels);
}  // namespace avx512
}  // namespace schuss

// The kernels for machines with AVX2 and FMA.
#define SCHUSS_ISA avx2
#include "ceilings.h"
#include "classic.h"
#include "kernels.h"
#include "outputs.h"
#include "sparse.h"

namespace schuss {
namespace avx2 {
extern constexpr InstructionSet kernels =
    make_set("avx2", &outputs::single_table, &outputs::wide_table, &sparse::tables,
             &classic::tables, &ceilings_table, &optimizer_kernels);
}  // namespace avx2
}  // namespace schuss

// The kernels for every machine.
#define SCHUSS_ISA baseline
#include "ceilings.h"
#include "classic.h"
#include "kernels.h"
#include "outputs.h"
#include "sparse.h"

namespace schuss {
namespace baseline {
#ifdef __aarch64__
constexpr const char* baseline_name = "neon";
#else
constexpr const char* baseline_name = "baseline";
#endif
extern constexpr InstructionSet kernels =
    make_set(baseline_name, &outputs::single_table, &outputs::wide_table, &sparse::tables,
             &classic::tables, &ceilings_table, &optimizer_kernels);
}  // namespace baseline
}  // namespace schuss

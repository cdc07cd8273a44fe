// What the compiler's checks of bounds and of alignment call, and the form in which they do it.
#include "block.h"
#include "grid.h"

#define SIM_CHECK extern "C" __attribute__((visibility("default"))) void

struct Place {
  const char* file;
  unsigned line, column;
};
struct Type {
  uint16_t kind, info;
  char name[1];
};
struct OutOfBounds {
  Place where;
  const Type *array, *index;
};
struct Mismatch {
  Place where;
  const Type* type;
  unsigned char log_alignment, kind;
};

SIM_CHECK __ubsan_handle_out_of_bounds(const OutOfBounds* found, intptr_t index) {
  sim::block->launch.fail("%s:%u: index %zd is outside an array of type %s", found->where.file,
                          found->where.line, index, found->array->name);
  sim::block->park();
}

SIM_CHECK __ubsan_handle_type_mismatch_v1(const Mismatch* found, uintptr_t address) {
  sim::block->launch.fail("%s:%u: address %#zx is not aligned to the %d bytes of type %s",
                          found->where.file, found->where.line, address, 1 << found->log_alignment,
                          found->type->name);
  sim::block->park();
}

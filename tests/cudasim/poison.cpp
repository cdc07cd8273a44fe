#include "poison.h"

#include <link.h>

namespace sim {

static int poison_if_it_holds(dl_phdr_info* library, size_t, void* anchor) {
  char* const start = static_cast<char*>(library->dlpi_tls_data);  // null until first used
  if (!start) return 0;
  for (int k = 0; k < library->dlpi_phnum; k++) {
    const auto& part = library->dlpi_phdr[k];
    if (part.p_type == PT_TLS && anchor >= start && anchor < start + part.p_memsz) {
      poison(start, part.p_memsz);
      return 1;
    }
  }
  return 0;
}

void poison_thread_locals(Anchor anchor) { dl_iterate_phdr(poison_if_it_holds, anchor()); }

}  // namespace sim

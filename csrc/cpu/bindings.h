// What the files of the extension module share.
#pragma once
#include <pybind11/pybind11.h>

#include "problem.h"

namespace schuss {

// The instruction set whose kernels are used.
const InstructionSet& chosen_set();

// Adds the functions of bindings_ceilings.cpp to the module.
void add_ceilings(pybind11::module_& m);

}  // namespace schuss

// What Python passes: arrays checked and viewed as the structs that kernels are handed.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "../formulas.h"
#include "problem.h"

namespace schuss {

namespace py = pybind11;

// Lets other Python threads run while it lives. When the interpreter ends meanwhile, CPython ends
// the thread that asks for its lock again, by unwinding: a destructor that may not throw, as that
// of py::gil_scoped_release, would end the process instead.
class Unlocked {
 public:
  Unlocked() : state(PyEval_SaveThread()) {}
  ~Unlocked() noexcept(false) { PyEval_RestoreThread(state); }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* state;
};

// The instruction set in use.
extern const InstructionSet* chosen;

// The verbs for several outputs: bindings_outputs.cpp.
void add_output_verbs(py::module_& m);

// The verbs for sparse rows: bindings_sparse.cpp.
void add_sparse_verbs(py::module_& m);

// The verb of the classic step: bindings_classic.cpp.
void add_classic_verbs(py::module_& m);

// The optimizers' loops: bindings_optimizers.cpp.
void add_optimizers(py::module_& m);

// Tensors of other libraries: bindings_tensors.cpp.
void add_tensors(py::module_& m);

// What the lab measures of the machine: bindings_ceilings.cpp.
void add_ceilings(py::module_& m);

// ---- Arrays ----

// Pointer to a C-contiguous array's data after checking type and size; null for an empty array.
template <class T>
const T* view(const py::array& array, int64_t size, const char* name) {
  if (!py::isinstance<py::array_t<T>>(array) || !(array.flags() & py::array::c_style))
    throw std::invalid_argument(std::string(name) + ": wrong dtype or not C-contiguous");
  if (array.size() != size)
    throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(size) +
                                " elements, got " + std::to_string(array.size()));
  return static_cast<const T*>(array.data());
}

// Rows as they are stored; 16-bit numbers come as their bits.
template <class S>
struct element_type {
  using type = S;
};
template <>
struct element_type<bfloat16> {
  using type = uint16_t;
};
template <>
struct element_type<float16> {
  using type = uint16_t;
};
template <class S>
const S* view_rows(const py::array& X) {
  if (X.ndim() != 2) throw std::invalid_argument("X: expected two dimensions");
  return reinterpret_cast<const S*>(view<typename element_type<S>::type>(X, X.size(), "X"));
}

template <class T>
const T* optional_view(const py::array& array, int64_t size, const char* name) {
  return array.size() == 0 ? nullptr : view<T>(array, size, name);
}

template <class T>
T* target(py::array& array, int64_t size, const char* name) {
  view<T>(array, size, name);
  if (!array.writeable()) throw std::invalid_argument(std::string(name) + ": read-only");
  return static_cast<T*>(array.mutable_data());
}

template <class T>
T* optional_target(py::array& array, int64_t size, const char* name) {
  return array.size() == 0 ? nullptr : target<T>(array, size, name);
}

// Indices, or a pair (start, count) for a range.
inline Rows rows_of(const py::object& rows) {
  if (py::isinstance<py::tuple>(rows)) {
    const auto range = rows.cast<std::pair<int64_t, int64_t>>();
    return {nullptr, nullptr, range.first, range.second, range.second};
  }
  const auto index = rows.cast<py::array>();
  const int64_t count = index.size();
  if (py::isinstance<py::array_t<int32_t>>(index))
    return {view<int32_t>(index, count, "rows"), nullptr, 0, count, count};
  return {nullptr, view<int64_t>(index, count, "rows"), 0, count, count};
}

inline int row_number(int row, int count, const char* name) {
  if (row < 0 || row >= count) throw std::out_of_range(std::string(name) + ": no such row");
  return row;
}

// What a rule reads: constants per step and memory slots.
struct Needs {
  int constants, slots;
};

template <int Row = portable::rule_count - 1>
Needs needs_of(int rule) {
  using Rule = typename portable::rule_row<double, Row>::type;
  if (rule == Row) return {Rule::constants, Rule::slots};
  if constexpr (Row > 0) return needs_of<Row - 1>(rule);
  throw std::out_of_range("rule: no such row");
}

// The data and loss of one call, held as Python objects and viewed as a Problem.
struct Data {
  py::array X, y, weight, loss_parameters;
  int loss;
  bool fit_intercept;
  int64_t outputs;

  template <class S, class T = Scalar<S>>
  Problem<S> view_as() const {
    const S* rows = view_rows<S>(X);
    const int64_t n = X.shape(0), d = X.shape(1);
    return {rows,
            n,
            d,
            view<T>(y, n, "y"),
            optional_view<T>(weight, n, "weight"),
            view<double>(loss_parameters, loss_parameters.size(), "loss_parameters"),
            fit_intercept};
  }
};

struct Parameters {
  py::array theta, slots, average;
  int64_t averaged;

  template <class T>
  State<T> view_as(int64_t width, int needed_slots) {
    const int64_t count = slots.size() / width;
    if (count < needed_slots) throw std::invalid_argument("slots: fewer than the rule needs");
    T* slot = optional_target<T>(slots, count * width, "slots");
    return {target<T>(theta, width, "theta"),
            {count > 0 ? slot : nullptr, count > 1 ? slot + width : nullptr},
            optional_target<double>(average, width, "average"),
            averaged};
  }
};

struct Steps {
  py::array constants;
  double l2, l1, clip_norm;

  Update view_as(int64_t steps, int columns) const {
    if (constants.ndim() != 2 || (constants.shape(0) != 1 && constants.shape(0) < steps) ||
        constants.shape(1) < columns)
      throw std::invalid_argument("constants: expected (1 or n_steps, n_constants)");
    return {view<double>(constants, constants.size(), "constants"),
            constants.shape(0) == 1 ? 0 : int64_t(constants.shape(1)), l2, l1, clip_norm};
  }
};

}  // namespace schuss

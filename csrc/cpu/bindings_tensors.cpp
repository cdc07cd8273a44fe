// Bindings for tensors of other libraries: where they lie.
#include <algorithm>
#include <cstring>

#include "tensor_table.h"

namespace schuss {
namespace {

// The part of DLPack's table of functions (version 1) that is used: dlpack.h of the project dmlc.
struct TensorView {
  void* data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};
struct ExchangeTable {
  uint32_t major, minor;
  ExchangeTable* previous;
  void *allocate, *managed_from_object, *managed_to_object;
  int (*view_from_object)(void* object, TensorView* out);
};

const ExchangeTable* exchange_table(const py::capsule& capsule) {
  auto* table = static_cast<ExchangeTable*>(capsule.get_pointer());
  while (table && table->major != 1) table = table->previous;
  return table;
}

bool contiguous(const TensorView& tensor) {
  int64_t stride = 1;
  for (int32_t k = tensor.ndim - 1; k >= 0; --k) {
    if (tensor.shape[k] != 1 && tensor.strides[k] != stride) return false;
    stride *= tensor.shape[k];
  }
  return true;
}

// A tensor as kernels take it. Type: 0 float32, 1 float64, 2 bfloat16, 3 float16; -1: anything
// else, also a tensor of another class than those accepted, on another device, or with gaps, or
// without numbers.
struct Numbers {
  int64_t address = 0, size = 0;
  int32_t type = -1;
};

// A library of tensors: its table of functions, and the classes that are nothing but numbers.
struct Library {
  const ExchangeTable* table;
  const py::tuple& classes;

  Library(const py::capsule& capsule, const py::tuple& accepted)
      : table(exchange_table(capsule)), classes(accepted) {}
  bool known() const { return table && table->view_from_object; }
  bool accepts(PyObject* object) const {
    for (const py::handle one : classes)
      if (reinterpret_cast<PyObject*>(Py_TYPE(object)) == one.ptr()) return true;
    return false;
  }
};

Numbers numbers_of(const Library& library, PyObject* object, TensorView& tensor) {
  Numbers numbers;
  if (!library.accepts(object)) return numbers;
  if (library.table->view_from_object(object, &tensor) != 0) {
    PyErr_Clear();
    return numbers;
  }
  constexpr int on_cpu = 1, of_floats = 2, of_bfloats = 4;
  if (tensor.device_type != on_cpu || tensor.lanes != 1 || !contiguous(tensor)) return numbers;
  if (tensor.code == of_floats)
    numbers.type = tensor.bits == 32 ? 0 : tensor.bits == 64 ? 1 : tensor.bits == 16 ? 3 : -1;
  else if (tensor.code == of_bfloats && tensor.bits == 16)
    numbers.type = 2;
  numbers.size = 1;
  for (int32_t j = 0; j < tensor.ndim; ++j) numbers.size *= tensor.shape[j];
  numbers.address = reinterpret_cast<int64_t>(tensor.data) + int64_t(tensor.byte_offset);
  if (!tensor.data && numbers.size > 0) numbers.type = -1;
  return numbers;
}

// Asks memory for what a tensor's object points to first: its own part in torch.
void ask_for(const Library& library, PyObject* object) {
  if (!library.accepts(object)) return;
  const char* own;
  std::memcpy(&own, reinterpret_cast<const char*>(object) + sizeof(PyObject), sizeof own);
  for (int line = 0; line < 4; ++line) __builtin_prefetch(own + 64 * line);
}

// Asks memory for what will be read of a tensor some places further on in a list.
void look_ahead(const py::list& tensors, py::ssize_t k, const Library& library) {
  constexpr py::ssize_t far = 24, near = 12;
  const auto n = py::ssize_t(tensors.size());
  if (k + far < n) __builtin_prefetch(PyList_GET_ITEM(tensors.ptr(), k + far));
  if (k + near < n) ask_for(library, PyList_GET_ITEM(tensors.ptr(), k + near));
}

bool of_one_shape(const TensorView& a, const TensorView& b) {
  return a.ndim == b.ndim && std::equal(a.shape, a.shape + a.ndim, b.shape);
}

// Columns of as many tensors, side by side: addresses (n, columns), sizes and types of each row,
// and the type that all rows have, or -1. A row whose tensors are not alike has type -1. None where
// the tensors' library has another table.
py::object describe(const py::capsule& capsule, const std::vector<py::list>& columns,
                    const py::tuple& accepted) {
  const Library library(capsule, accepted);
  if (!library.known()) return py::none();
  const auto n = py::ssize_t(columns.at(0).size()), width = py::ssize_t(columns.size());
  py::array_t<int64_t> addresses({n, width}), sizes(n);
  py::array_t<int32_t> types(n);
  int64_t *address = addresses.mutable_data(), *size = sizes.mutable_data();
  int32_t* type = types.mutable_data();
  for (const py::list& column : columns)
    if (py::ssize_t(column.size()) != n) throw std::invalid_argument("columns: of unequal length");
  int32_t all = -1;
  for (py::ssize_t k = 0; k < n; ++k) {
    TensorView first{}, tensor{};
    for (py::ssize_t c = 0; c < width; ++c) {
      look_ahead(columns[size_t(c)], k, library);
      PyObject* object = PyList_GET_ITEM(columns[size_t(c)].ptr(), k);
      const Numbers own = numbers_of(library, object, c == 0 ? first : tensor);
      address[k * width + c] = own.address;
      if (c == 0) {
        size[k] = own.size;
        type[k] = own.type;
      } else if (own.type != type[k] || type[k] < 0 || !of_one_shape(first, tensor)) {
        type[k] = -1;
      }
    }
    all = k == 0 || all == type[k] ? type[k] : -1;
  }
  return py::make_tuple(addresses, sizes, types, all);
}

// ---- A group of an optimizer, looked at in one go ----

// Walks through a dict of parameters' states. They stand there in the order of their first steps,
// most often that of the groups; to ask for one takes torch's hash of a tensor, which is Python.
struct StateWalk {
  py::dict states;
  py::ssize_t place = 0;

  py::object state_of(PyObject* param) {
    PyObject *key, *state;
    py::ssize_t next = place;
    if (PyDict_Next(states.ptr(), &next, &key, &state) && key == param)
      place = next;
    else if (!(state = PyDict_GetItemWithError(states.ptr(), param)) && PyErr_Occurred())
      throw py::error_already_set();
    return py::reinterpret_borrow<py::object>(state);
  }
};

// The parameters of a group with all that belongs to them, in so far as all is as it is most often:
// dense gradients and slots of one type that lie without gaps, and counters of steps.
class Survey {
 public:
  std::unique_ptr<TensorTable> table = std::make_unique<TensorTable>();
  std::unique_ptr<StepCounters> counters;

  // keys are those of the slots in a state and, where steps are counted, of their counter.
  Survey(const Library& torch, StateWalk& states, const py::tuple& keys, bool counts)
      : library(torch), walk(states), names(keys) {
    table->slots = int(keys.size()) - int(counts);
    if (counts) counters = std::make_unique<StepCounters>();
  }

  // Looks at a block of parameters after the other, thrice: memory is asked for what the next look
  // reads. False where something is unusual. Anything that Python is asked may let other threads
  // run, so that all that is looked at is held.
  bool look(const py::list& params) {
    const auto n = size_t(params.size());
    if (n == 0 || table->slots > most_slots) return false;
    table->pieces.reserve(n);
    table->held.reserve(n * size_t(2 + table->slots));
    for (size_t begin = 0; begin < n; begin += block) {
      const size_t count = std::min(block, n - begin);
      for (size_t k = 0; k < count; ++k)
        if (begin + k >= size_t(params.size()) || !take(rows[k], params[begin + k])) return false;
      for (size_t k = 0; k < count; ++k)
        if (!take_state(rows[k])) return false;
      for (size_t k = 0; k < count; ++k)
        if (!add(rows[k])) return false;
    }
    return true;
  }

 private:
  static constexpr size_t block = 32;
  static constexpr int most_slots = 3;
  struct Row {
    py::object state, tensors[2 + most_slots], counter;
  };

  const Library& library;
  StateWalk& walk;
  const py::tuple& names;
  Row rows[block];

  bool take(Row& row, py::object param) {
    if (!library.accepts(param.ptr())) return false;
    static PyObject* const name = PyUnicode_InternFromString("grad");
    row.tensors[1] = checked(PyObject_GetAttr(param.ptr(), name));
    if (!library.accepts(row.tensors[1].ptr())) return false;
    ask_for(library, row.tensors[1].ptr());
    if (names.size() > 0) row.state = walk.state_of(param.ptr());
    row.tensors[0] = std::move(param);
    return names.size() == 0 || (row.state && PyDict_Check(row.state.ptr()));
  }

  bool take_state(Row& row) {
    for (size_t k = 0; k < names.size(); ++k) {
      PyObject* tensor = PyDict_GetItemWithError(row.state.ptr(), names[k].ptr());
      if (!tensor && PyErr_Occurred()) throw py::error_already_set();
      if (!tensor || !library.accepts(tensor)) return false;
      ask_for(library, tensor);
      const bool slot = int(k) < table->slots;
      (slot ? row.tensors[2 + k] : row.counter) = py::reinterpret_borrow<py::object>(tensor);
    }
    return true;
  }

  bool add(Row& row) {
    // Before any view, which another thread's change of the tensor would leave behind.
    for (int k = 0; k < 2 + table->slots; ++k)
      if (negated(row.tensors[k])) return false;
    TensorView first{}, other{};
    int64_t addresses[2 + most_slots];
    int64_t size = 0;
    for (int k = 0; k < 2 + table->slots; ++k) {
      TensorView& tensor = k == 0 ? first : other;
      const Numbers own = numbers_of(library, row.tensors[k].ptr(), tensor);
      if (table->type < 0) table->type = own.type;
      if (own.type < 0 || own.type != table->type || (k > 0 && !of_one_shape(first, tensor)))
        return false;
      addresses[k] = own.address;
      size = own.size;
    }
    table->add(addresses, size);
    for (int k = 0; k < 2 + table->slots; ++k) table->held.push_back(std::move(row.tensors[k]));
    return !counters || add_counter(row, other);
  }

  bool add_counter(Row& row, TensorView& tensor) {
    const Numbers own = numbers_of(library, row.counter.ptr(), tensor);
    if (counters->type < 0) counters->type = own.type;
    if (own.type < 0 || own.type > 1 || own.type != counters->type || own.size != 1) return false;
    counters->addresses.push_back(own.address);
    counters->held.push_back(std::move(row.counter));
    return true;
  }

  // Whether a tensor's numbers lie in memory with the other sign.
  static bool negated(const py::object& tensor) {
    static PyObject* const name = PyUnicode_InternFromString("is_neg");
    return checked(PyObject_CallMethodNoArgs(tensor.ptr(), name)).ptr() != Py_False;
  }

  static py::object checked(PyObject* made) {
    if (!made) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(made);
  }
};

// (table, counters or None), or None where anything is unusual.
py::object survey(const py::capsule& capsule, const py::tuple& accepted, const py::list& params,
                  StateWalk& walk, const py::tuple& keys, bool counts) {
  const Library library(capsule, accepted);
  if (!library.known()) return py::none();
  Survey found(library, walk, keys, counts);
  if (!found.look(params)) return py::none();
  return py::make_tuple(std::move(found.table), std::move(found.counters));
}

}  // namespace

void add_tensors(py::module_& m) {
  py::class_<StateWalk>(m, "StateWalk").def(py::init<py::dict>());
  m.def("describe", describe);
  m.def("survey", survey);
}

}  // namespace schuss

// Bindings for tensors of other libraries: where they lie, and the gathering of their rows.
#include <algorithm>
#include <cstring>

#include "arguments.h"

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

Numbers numbers_of(const ExchangeTable& table, PyObject* object,
                   const std::vector<PyObject*>& classes, TensorView& tensor) {
  Numbers numbers;
  bool known = false;
  for (const PyObject* one : classes)
    known = known || reinterpret_cast<PyObject*>(Py_TYPE(object)) == one;
  if (!known) return numbers;
  if (table.view_from_object(object, &tensor) != 0) {
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

// Asks memory for what will be read of a tensor some places further on in a list: its object, and
// what that points to first (a tensor's own part in torch).
void look_ahead(const py::list& tensors, py::ssize_t k, const std::vector<PyObject*>& classes) {
  constexpr py::ssize_t far = 24, near = 12;
  const auto n = py::ssize_t(tensors.size());
  if (k + far < n) __builtin_prefetch(PyList_GET_ITEM(tensors.ptr(), k + far));
  if (k + near >= n) return;
  PyObject* object = PyList_GET_ITEM(tensors.ptr(), k + near);
  if (std::find(classes.begin(), classes.end(), (PyObject*)Py_TYPE(object)) == classes.end())
    return;
  const char* own;
  std::memcpy(&own, reinterpret_cast<const char*>(object) + sizeof(PyObject), sizeof own);
  for (int line = 0; line < 4; ++line) __builtin_prefetch(own + 64 * line);
}

bool of_one_shape(const TensorView& a, const TensorView& b) {
  return a.ndim == b.ndim && std::equal(a.shape, a.shape + a.ndim, b.shape);
}

// Columns of as many tensors, side by side: addresses (n, columns), sizes and types of each row,
// and the type that all rows have, or -1. A row whose tensors are not alike has type -1. None where
// the tensors' library has another table.
py::object describe(const py::capsule& capsule, const std::vector<py::list>& columns,
                    const py::tuple& accepted) {
  const ExchangeTable* table = exchange_table(capsule);
  if (!table || !table->view_from_object) return py::none();
  std::vector<PyObject*> classes;
  for (const py::handle one : accepted) classes.push_back(one.ptr());
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
      look_ahead(columns[size_t(c)], k, classes);
      PyObject* object = PyList_GET_ITEM(columns[size_t(c)].ptr(), k);
      const Numbers own = numbers_of(*table, object, classes, c == 0 ? first : tensor);
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

// ---- Rows ----

// Bytes ahead to ask memory for, and the fewest rows: what covers the memory's latency.
constexpr int64_t bytes_ahead = 16384, rows_ahead = 8;

template <class I>
void gather_rows(const char* source, int64_t n, int64_t size, const I* rows, int64_t count,
                 int64_t sight, char* out) {
  const int64_t ahead = std::max(rows_ahead, bytes_ahead / size);
  for (int64_t k = 0; k < sight; ++k)
    if (rows[k] < 0 || rows[k] >= n) throw std::out_of_range("rows: one beyond the tensor");
  const auto ask = [&](int64_t place) {
    const char* row = source + int64_t(rows[place]) * size;
    for (int64_t at = 0; at < size; at += 64) __builtin_prefetch(row + at);
    __builtin_prefetch(row + size - 1);
  };
  for (int64_t k = 0; k < std::min(ahead, sight); ++k) ask(k);
  for (int64_t k = 0; k < count; ++k) {
    if (k + ahead < sight) ask(k + ahead);
    std::memcpy(out + k * size, source + int64_t(rows[k]) * size, size_t(size));
  }
}

// Copies `count` rows of `size` bytes each to `out`. Those that follow in `rows` come next, and are
// asked for.
void gather(int64_t source, int64_t n, int64_t size, const py::array& rows, int64_t count,
            int64_t out) {
  const int64_t sight = rows.size();
  if (size < 1 || count < 0 || count > sight)
    throw std::invalid_argument("count: expected at most as many as there are rows");
  const bool narrow = py::isinstance<py::array_t<int32_t>>(rows);
  const int32_t* few = narrow ? view<int32_t>(rows, sight, "rows") : nullptr;
  const int64_t* many = narrow ? nullptr : view<int64_t>(rows, sight, "rows");
  const auto* from = reinterpret_cast<const char*>(source);
  auto* to = reinterpret_cast<char*>(out);
  Unlocked unlocked;
  if (narrow)
    gather_rows(from, n, size, few, count, sight, to);
  else
    gather_rows(from, n, size, many, count, sight, to);
}

}  // namespace

void add_tensors(py::module_& m) {
  m.def("describe", describe);
  m.def("gather", gather);
}

}  // namespace schuss

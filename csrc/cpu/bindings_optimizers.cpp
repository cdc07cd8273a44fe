// Bindings of the optimizers' loops: tensors come as the addresses of their numbers.
#include <algorithm>

#include "arguments.h"
#include "optimizers_problem.h"

namespace schuss {
namespace {

const TensorKernels& kernels_for(const std::string& dtype) {
  const OptimizerKernels& set = *chosen->optimizers;
  if (dtype == "float32") return set.single;
  if (dtype == "float64") return set.wide;
  if (dtype == "bfloat16") return set.bfloat16;
  if (dtype == "float16") return set.float16;
  throw std::invalid_argument("dtype: no kernel for " + dtype);
}

// addresses is (n, columns): of parameters, of gradients, of each slot. Held by the caller.
std::vector<Piece> pieces_of(const py::array& addresses, const py::array& sizes) {
  if (addresses.ndim() != 2 || addresses.shape(1) < 2 || addresses.shape(1) > 5)
    throw std::invalid_argument("addresses: expected shape (n, 2 to 5)");
  const int64_t n = addresses.shape(0), columns = addresses.shape(1);
  const int64_t* address = view<int64_t>(addresses, n * columns, "addresses");
  const int64_t* size = view<int64_t>(sizes, n, "sizes");
  std::vector<Piece> pieces(size_t(n), Piece{});
  for (int64_t k = 0; k < n; ++k, address += columns) {
    Piece& piece = pieces[size_t(k)];
    piece.param = reinterpret_cast<void*>(address[0]);
    piece.gradient = reinterpret_cast<const void*>(address[1]);
    for (int64_t s = 2; s < columns; ++s) piece.slot[s - 2] = reinterpret_cast<void*>(address[s]);
    piece.size = size[k];
  }
  return pieces;
}

// The tiles of all tensors in a row, shared by a crew: each member takes those that begin in its
// share of the numbers.
struct Tiles {
  const std::vector<Piece>& pieces;
  std::vector<int64_t> numbers, tiles;  // before each piece

  explicit Tiles(const std::vector<Piece>& all) : pieces(all), numbers{0}, tiles{0} {
    for (const Piece& piece : pieces) {
      numbers.push_back(numbers.back() + piece.size);
      tiles.push_back(tiles.back() + (piece.size + tensor_tile - 1) / tensor_tile);
    }
  }

  // Calls work(piece, begin, end) for runs of a member's tiles.
  template <class Work>
  void share(int rank, int size, const Work& work) const {
    const int64_t low = numbers.back() * rank / size, high = numbers.back() * (rank + 1) / size;
    size_t k = size_t(std::upper_bound(numbers.begin(), numbers.end(), low) - numbers.begin()) - 1;
    for (; k < pieces.size() && numbers[k] < high; ++k) {
      const int64_t begin = beyond(low - numbers[k]), end = beyond(high - numbers[k]);
      if (begin < std::min(end, pieces[k].size)) work(k, begin, std::min(end, pieces[k].size));
    }
  }

  // The first tile's begin at this place of a tensor or after it.
  static int64_t beyond(int64_t place) {
    return place <= 0 ? 0 : (place + tensor_tile - 1) / tensor_tile * tensor_tile;
  }
};

void check_crew(int threads) {
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1");
}

struct Step {
  const UpdateKernels& kernels;
  const Tiles& tiles;
  const StepConstants* constants;
  const int32_t* which;
  Noise noise;
  std::vector<double> sums;  // two for each tile
  std::vector<double> ratios;

  Noise noise_of(size_t piece) const {
    return {noise.drawn, (noise.seed + uint32_t(piece)) * 0x9E3779B1u};
  }

  void measure(Crew crew) {
    tiles.share(crew.rank, crew.size, [&](size_t k, int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; at += tensor_tile) {
        double* sum = &sums[size_t(2 * (tiles.tiles[k] + at / tensor_tile))];
        kernels.measure(tiles.pieces[k], at, std::min(at + tensor_tile, end), constants[which[k]],
                        noise_of(k), sum);
      }
    });
    crew.wait();
    if (crew.rank == 0)
      for (size_t k = 0; k < ratios.size(); ++k) {
        double weights = 0, direction = 0;
        for (int64_t t = tiles.tiles[k]; t < tiles.tiles[k + 1]; ++t) {
          weights += sums[size_t(2 * t)];
          direction += sums[size_t(2 * t + 1)];
        }
        ratios[k] = kernels.ratio(constants[which[k]], weights, direction);
      }
    crew.wait();
  }

  void run(Crew crew) {
    if (kernels.measure) measure(crew);
    tiles.share(crew.rank, crew.size, [&](size_t k, int64_t begin, int64_t end) {
      StepConstants own = constants[which[k]];
      if (kernels.measure) own.ratio = ratios[k];
      kernels.update(tiles.pieces[k], begin, end, own, noise_of(k));
    });
  }
};

// One step of an update over all tensors. constants is (rows, StepConstants::count), which[k] the
// row of tensor k. draw: the seed of stochastic rounding, or None.
void optimize(int update, const std::string& dtype, const py::array& addresses,
              const py::array& sizes, const py::array& constants, const py::array& which,
              const py::object& draw, int threads) {
  check_crew(threads);
  const UpdateKernels& kernels =
      kernels_for(dtype).updates[row_number(update, update_count, "update")];
  const std::vector<Piece> pieces = pieces_of(addresses, sizes);
  if (addresses.shape(1) < 2 + kernels.slots) throw std::invalid_argument("addresses: too few");
  if (constants.ndim() != 2 || constants.shape(1) != StepConstants::count)
    throw std::invalid_argument("constants: expected shape (rows, StepConstants::count)");
  const double* rows = view<double>(constants, constants.size(), "constants");
  const int32_t* row = view<int32_t>(which, int64_t(pieces.size()), "which");
  for (size_t k = 0; k < pieces.size(); ++k) row_number(row[k], int(constants.shape(0)), "which");
  const Noise noise{!draw.is_none(), draw.is_none() ? 0 : draw.cast<uint32_t>()};
  static_assert(sizeof(StepConstants) == StepConstants::count * sizeof(double), "numbers alone");
  const auto* steps = reinterpret_cast<const StepConstants*>(rows);
  py::gil_scoped_release release;
  const Tiles tiles(pieces);
  Step step{kernels, tiles, steps, row, noise, {}, {}};
  if (kernels.measure) {
    step.sums.assign(size_t(2 * tiles.tiles.back()), 0.0);
    step.ratios.assign(pieces.size(), 1.0);
  }
  run_crew(
      threads, [](void* context, Crew crew) { static_cast<Step*>(context)->run(crew); }, &step);
}

// The sum of all squared gradients, tile by tile, added up in their order.
double squared_norm(const std::string& dtype, const py::array& addresses, const py::array& sizes,
                    int threads) {
  check_crew(threads);
  const TensorKernels& kernels = kernels_for(dtype);
  const std::vector<Piece> pieces = pieces_of(addresses, sizes);
  py::gil_scoped_release release;
  const Tiles tiles(pieces);
  struct Job {
    const TensorKernels& kernels;
    const Tiles& tiles;
    std::vector<double> sums;
  } job{kernels, tiles, std::vector<double>(size_t(tiles.tiles.back()), 0.0)};
  run_crew(
      threads,
      [](void* context, Crew crew) {
        Job& job = *static_cast<Job*>(context);
        job.tiles.share(crew.rank, crew.size, [&](size_t k, int64_t begin, int64_t end) {
          for (int64_t at = begin; at < end; at += tensor_tile)
            job.sums[size_t(job.tiles.tiles[k] + at / tensor_tile)] =
                job.kernels.squares(job.tiles.pieces[k], at, std::min(at + tensor_tile, end));
        });
      },
      &job);
  double total = 0;
  for (const double sum : job.sums) total += sum;
  return total;
}

// ---- What tensors are ----

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
// else, also a tensor of another class than those accepted, on another device, or with gaps.
struct Numbers {
  int64_t address = 0, size = 0;
  int32_t type = -1;
};

Numbers numbers_of(const ExchangeTable& table, PyObject* object,
                   const std::vector<PyObject*>& classes) {
  Numbers numbers;
  TensorView tensor;
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
  return numbers;
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
    for (py::ssize_t c = 0; c < width; ++c) {
      const Numbers own = numbers_of(*table, PyList_GET_ITEM(columns[size_t(c)].ptr(), k), classes);
      address[k * width + c] = own.address;
      if (c == 0) {
        size[k] = own.size;
        type[k] = own.type;
      } else if (own.size != size[k] || own.type != type[k]) {
        type[k] = -1;
      }
    }
    all = k == 0 || all == type[k] ? type[k] : -1;
  }
  return py::make_tuple(addresses, sizes, types, all);
}

// Adds 1 to the numbers at these addresses and returns what they are then.
template <class T>
py::array_t<double> count_up(const py::array& addresses) {
  const int64_t n = addresses.size();
  const int64_t* address = view<int64_t>(addresses, n, "addresses");
  py::array_t<double> counted(static_cast<py::ssize_t>(n));
  double* out = counted.mutable_data();
  for (int64_t k = 0; k < n; ++k) out[k] = double(*reinterpret_cast<T*>(address[k]) += T(1));
  return counted;
}

}  // namespace

void add_optimizers(py::module_& m) {
  m.def("optimize", optimize);
  m.def("squared_norm", squared_norm);
  m.def("describe", describe);
  m.def("count_up_float32", count_up<float>);
  m.def("count_up_float64", count_up<double>);
  m.def("updates",
        [] { return std::vector<std::string>(update_names, update_names + update_count); });
}

}  // namespace schuss

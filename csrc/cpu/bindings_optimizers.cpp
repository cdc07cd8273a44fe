// Bindings of the optimizers' loops.
#include <algorithm>
#include <array>

#include "tensor_table.h"

namespace schuss {
namespace {

const TensorKernels& kernels_for(const TensorTable& table) {
  const OptimizerKernels& set = *chosen->optimizers;
  const TensorKernels* kernels[] = {&set.single, &set.wide, &set.bfloat16, &set.float16};
  return *kernels[table.type];
}

// addresses is (n, columns): of parameters, of gradients, of each slot.
std::unique_ptr<TensorTable> table_of(const std::string& dtype, const py::array& addresses,
                                      const py::array& sizes, const py::object& held) {
  const auto* found = std::find(std::begin(tensor_types), std::end(tensor_types), dtype);
  if (found == std::end(tensor_types)) throw std::invalid_argument("dtype: no kernel for " + dtype);
  if (addresses.ndim() != 2 || addresses.shape(1) < 2 || addresses.shape(1) > 5)
    throw std::invalid_argument("addresses: expected shape (n, 2 to 5)");
  const int64_t n = addresses.shape(0), columns = addresses.shape(1);
  const int64_t* address = view<int64_t>(addresses, n * columns, "addresses");
  const int64_t* size = view<int64_t>(sizes, n, "sizes");
  auto table = std::make_unique<TensorTable>();
  table->type = int(found - tensor_types);
  table->slots = int(columns) - 2;
  table->held.push_back(held);
  for (int64_t k = 0; k < n; ++k) table->add(address + k * columns, size[k]);
  return table;
}

// Calls work(piece, begin, end) for runs of the tiles of a member of a crew, which takes those that
// begin in its share of the numbers.
template <class Work>
void share(const TensorTable& table, Crew crew, const Work& work) {
  // The first tile's begin at this place of a tensor or after it.
  const auto beyond = [](int64_t place) {
    return place <= 0 ? 0 : (place + tensor_tile - 1) / tensor_tile * tensor_tile;
  };
  const auto& numbers = table.numbers;
  const int64_t low = numbers.back() * crew.rank / crew.size;
  const int64_t high = numbers.back() * (crew.rank + 1) / crew.size;
  size_t k = size_t(std::upper_bound(numbers.begin(), numbers.end(), low) - numbers.begin()) - 1;
  for (; k < table.pieces.size() && numbers[k] < high; ++k) {
    const int64_t begin = beyond(low - numbers[k]);
    const int64_t end = std::min(beyond(high - numbers[k]), table.pieces[k].size);
    if (begin < end) work(k, begin, end);
  }
}

void check_crew(int threads) {
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1");
}

struct Step {
  const UpdateKernels& kernels;
  const TensorTable& table;
  const StepConstants* constants;
  const int32_t* which;  // null: all tensors have the first constants
  Noise noise;
  std::vector<double> sums;  // two for each tile
  std::vector<double> ratios;

  const StepConstants& constants_of(size_t piece) const {
    return constants[which ? which[piece] : 0];
  }

  Noise noise_of(size_t piece) const {
    return {noise.drawn, (noise.seed + uint32_t(piece)) * 0x9E3779B1u};
  }

  void measure(Crew crew) {
    share(table, crew, [&](size_t k, int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; at += tensor_tile) {
        double* sum = &sums[size_t(2 * (table.tiles[k] + at / tensor_tile))];
        kernels.measure(table.pieces[k], at, std::min(at + tensor_tile, end), constants_of(k),
                        noise_of(k), sum);
      }
    });
    crew.wait();
    if (crew.rank == 0)
      for (size_t k = 0; k < ratios.size(); ++k) {
        double weights = 0, direction = 0;
        for (int64_t t = table.tiles[k]; t < table.tiles[k + 1]; ++t) {
          weights += sums[size_t(2 * t)];
          direction += sums[size_t(2 * t + 1)];
        }
        ratios[k] = kernels.ratio(constants_of(k), weights, direction);
      }
    crew.wait();
  }

  void run(Crew crew) {
    if (kernels.measure) measure(crew);
    share(table, crew, [&](size_t k, int64_t begin, int64_t end) {
      StepConstants own = constants_of(k);
      if (kernels.measure) own.ratio = ratios[k];
      kernels.update(table.pieces[k], begin, end, own, noise_of(k));
    });
  }
};

// One step of an update over all tensors. which[k] is the row of constants of tensor k; None: all
// have the first. draw: the seed of stochastic rounding, or None.
void optimize(const TensorTable& table, int update,
              const std::vector<std::array<double, StepConstants::count>>& constants,
              const std::optional<py::array>& which, std::optional<uint32_t> draw, int threads) {
  check_crew(threads);
  const UpdateKernels& kernels =
      kernels_for(table).updates[row_number(update, update_count, "update")];
  if (table.slots < kernels.slots) throw std::invalid_argument("addresses: too few");
  const auto n = int64_t(table.pieces.size());
  const int32_t* row = which ? view<int32_t>(*which, n, "which") : nullptr;
  for (int64_t k = 0; k < (row ? n : 1); ++k)
    row_number(row ? row[k] : 0, int(constants.size()), "which");
  static_assert(sizeof(StepConstants) == sizeof constants[0], "numbers alone");
  const auto* steps = reinterpret_cast<const StepConstants*>(constants.data());
  Unlocked unlocked;
  Step step{kernels, table, steps, row, {draw.has_value(), draw.value_or(0)}, {}, {}};
  if (kernels.measure) {
    step.sums.assign(size_t(2 * table.tiles.back()), 0.0);
    step.ratios.assign(table.pieces.size(), 1.0);
  }
  run_crew(
      threads, [](void* context, Crew crew) { static_cast<Step*>(context)->run(crew); }, &step);
}

// The sum of all squared gradients, tile by tile, added up in their order.
double squared_norm(const TensorTable& table, int threads) {
  check_crew(threads);
  Unlocked unlocked;
  struct Job {
    const TensorKernels& kernels;
    const TensorTable& table;
    std::vector<double> sums;
  } job{kernels_for(table), table, std::vector<double>(size_t(table.tiles.back()), 0.0)};
  run_crew(
      threads,
      [](void* context, Crew crew) {
        Job& job = *static_cast<Job*>(context);
        share(job.table, crew, [&](size_t k, int64_t begin, int64_t end) {
          for (int64_t at = begin; at < end; at += tensor_tile)
            job.sums[size_t(job.table.tiles[k] + at / tensor_tile)] =
                job.kernels.squares(job.table.pieces[k], at, std::min(at + tensor_tile, end));
        });
      },
      &job);
  double total = 0;
  for (const double sum : job.sums) total += sum;
  return total;
}

std::unique_ptr<StepCounters> counters_of(int type, const py::array& addresses,
                                          const py::object& held) {
  const int64_t n = addresses.size();
  const int64_t* address = view<int64_t>(addresses, n, "addresses");
  return std::make_unique<StepCounters>(StepCounters{
      row_number(type, 2, "type"), std::vector<int64_t>(address, address + n), {held}});
}

// Adds 1 to each.
template <class T>
void count(const StepCounters& counters, double* counted) {
  for (const int64_t address : counters.addresses)
    *counted++ = double(*reinterpret_cast<T*>(address) += T(1));
}

// Adds 1 to each and returns what they are then: a number where all are alike, else an array.
py::object count_up(const StepCounters& counters) {
  std::vector<double> counted(counters.addresses.size());
  (counters.type == 0 ? count<float> : count<double>)(counters, counted.data());
  if (counted.empty() || std::adjacent_find(counted.begin(), counted.end(),
                                            std::not_equal_to<double>()) != counted.end())
    return py::array_t<double>(py::ssize_t(counted.size()), counted.data());
  return py::float_(counted[0]);
}

}  // namespace

void add_optimizers(py::module_& m) {
  py::class_<TensorTable>(m, "TensorTable")
      .def(py::init(&table_of))
      .def_property_readonly("dtype", [](const TensorTable& t) { return tensor_types[t.type]; })
      .def_property_readonly("numbers", [](const TensorTable& t) { return t.numbers.back(); })
      .def("optimize", optimize)
      .def("squared_norm", squared_norm);
  py::class_<StepCounters>(m, "StepCounters").def(py::init(&counters_of)).def("count_up", count_up);
  m.def("updates",
        [] { return std::vector<std::string>(update_names, update_names + update_count); });
}

}  // namespace schuss

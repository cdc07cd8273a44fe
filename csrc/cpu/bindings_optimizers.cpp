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
  Unlocked unlocked;
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
  Unlocked unlocked;
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
  m.def("count_up_float32", count_up<float>);
  m.def("count_up_float64", count_up<double>);
  m.def("updates",
        [] { return std::vector<std::string>(update_names, update_names + update_count); });
}

}  // namespace schuss

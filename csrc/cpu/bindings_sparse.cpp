// The verbs for sparse rows (CSR).
#include <algorithm>

#include "arguments.h"
#include "matrix.h"

namespace schuss {

namespace {

template <class T, class I>
const SparseKernels<T, I>& kernels() {
  const SparseSet& set = *chosen->sparse;
  if constexpr (sizeof(T) == 4 && sizeof(I) == 4) return *set.single_narrow;
  if constexpr (sizeof(T) == 4 && sizeof(I) == 8) return *set.single_wide;
  if constexpr (sizeof(T) == 8 && sizeof(I) == 4) return *set.wide_narrow;
  if constexpr (sizeof(T) == 8 && sizeof(I) == 8) return *set.wide_wide;
}

template <class T>
const VectorKernels<T>& vectors() {
  if constexpr (sizeof(T) == 4)
    return chosen->single;
  else
    return chosen->wide;
}

// Columns that divide the entries evenly among threads, by a sample of them.
std::vector<int64_t> cuts_of(const Matrix& matrix, int threads) {
  const int64_t entries = matrix.indices.size(), d = matrix.columns;
  std::vector<int64_t> sample;
  if (threads > 1) {
    const int64_t stride = std::max(int64_t(1), entries / 4096);
    const auto narrow = py::isinstance<py::array_t<int32_t>>(matrix.indices);
    const void* data = matrix.indices.data();
    for (int64_t k = 0; k < entries; k += stride)
      sample.push_back(narrow ? static_cast<const int32_t*>(data)[k]
                              : static_cast<const int64_t*>(data)[k]);
    std::sort(sample.begin(), sample.end());
  }
  std::vector<int64_t> cuts(size_t(threads) + 1, d);
  cuts[0] = 0;
  for (size_t k = 1; k < size_t(threads);
       ++k) {  // at a cache line, so that no two threads share it
    if (!sample.empty()) cuts[k] = sample[sample.size() * k / size_t(threads)] / 16 * 16;
    cuts[k] = std::max(cuts[k], cuts[k - 1]);
  }
  return cuts;
}

template <class T>
struct Workspace {
  std::vector<T> slopes, paid;
  std::vector<double> loss, total, sum, counted;
  std::vector<int64_t> cuts;

  Workspace(const Matrix& matrix, int64_t rows, int threads)
      : slopes(size_t(rows)),
        loss(size_t(rows / tile_rows + 1)),
        cuts(cuts_of(matrix, std::max(1, threads))) {}

  // What putting penalties off takes for d weights.
  void put_off(int64_t d, bool soft, bool averaged) {
    if (soft) paid.resize(size_t(d));
    if (averaged) {
      sum.resize(size_t(d));
      counted.resize(size_t(d));
    }
  }

  SparseScratch<T> scratch() {
    return {slopes.data(), loss.data(),    total.data(), paid.data(),
            sum.data(),    counted.data(), cuts.data(),  int64_t(cuts.size()) - 1};
  }
};

template <class T>
std::pair<double, double> descend_samples(const SparseData& data, const py::object& rows,
                                          const Steps& steps, Parameters& parameters) {
  return with_index(data.matrix, [&](auto index) {
    using I = decltype(index);
    const auto problem = data.view_as<T, I>();
    const Rows order = rows_of(rows);
    const Update update = steps.view_as(order.count, 1);
    auto state = parameters.view_as<T>(problem.d + 1, 0);
    Workspace<T> workspace(data.matrix, 0, 1);
    workspace.put_off(problem.d, update.l1 > 0, state.average != nullptr);
    auto scratch = workspace.scratch();
    Outcome outcome;
    {
      Unlocked unlocked;
      const auto& table = kernels<T, I>();
      outcome =
          table.descend_samples(table.weigh[data.loss], problem, order, update, state, scratch);
    }
    parameters.averaged = state.averaged;
    return std::pair<double, double>{outcome.loss, outcome.gradient_norm};
  });
}

// Runs body(crew) on a crew and returns what rank 0's returned.
template <class Result, class Body>
Result with_crew(int threads, Body body) {
  struct Job {
    Body& body;
    Result result;
  } job{body, {}};
  Unlocked unlocked;
  run_crew(
      threads,
      [](void* context, Crew crew) {
        Job& job = *static_cast<Job*>(context);
        const Result result = job.body(crew);
        if (crew.rank == 0) job.result = result;
      },
      &job);
  return job.result;
}

// `all`: the step goes over all weights, whatever the batch's rows hold.
template <class T>
std::pair<double, double> descend_batches(const SparseData& data, const py::object& rows,
                                          int64_t batch_size, int rule, const Steps& steps,
                                          Parameters& parameters, bool all, int threads) {
  if (batch_size < 1) throw std::invalid_argument("batch_size: expected at least 1");
  return with_index(data.matrix, [&](auto index) {
    using I = decltype(index);
    const auto problem = data.view_as<T, I>();
    const Rows order = rows_of(rows);
    const Needs needs = needs_of(rule);
    const Update update =
        steps.view_as((order.count + batch_size - 1) / batch_size, needs.constants);
    auto state = parameters.view_as<T>(problem.d + 1, needs.slots);
    const int64_t wave = wave_tiles * tile_rows;
    Workspace<T> workspace(data.matrix, all ? wave : std::min(batch_size, order.count), threads);
    workspace.total.resize(size_t(problem.d + 1));
    if (!all) workspace.put_off(problem.d, update.l1 > 0, state.average != nullptr);
    auto scratch = workspace.scratch();
    const auto& table = kernels<T, I>();
    const auto weigh = table.weigh[data.loss];
    const auto outcome = with_crew<Outcome>(threads, [&](Crew crew) {
      return all ? table.descend_all(weigh, vectors<T>(), rule, problem, order, batch_size, update,
                                     state, scratch, crew)
                 : table.descend_batches(weigh, problem, order, batch_size, update, state, scratch,
                                         crew);
    });
    parameters.averaged = state.averaged;
    return std::pair<double, double>{outcome.loss, outcome.gradient_norm};
  });
}

// Returns the summed loss, and of the updates that were looked at: how many, how many met
// another's, and how many updates others made meanwhile, in sum and at most.
template <class T>
py::tuple descend_freely(const SparseData& data, const py::object& rows, const Steps& steps,
                         py::array theta, const py::array& scales, int threads) {
  return with_index(data.matrix, [&](auto index) {
    using I = decltype(index);
    const auto problem = data.view_as<T, I>();
    const Rows order = rows_of(rows);
    const Update update = steps.view_as(order.count, 1);
    T* parameters = target<T>(theta, problem.d + 1, "theta");
    int64_t longest = 0;
    if (threads > 1)
      for (int64_t i = 0; i < problem.n; ++i)
        longest = std::max(longest, problem.begin(i + 1) - problem.begin(i));
    const int64_t crew = std::max(1, threads), width = (longest + 31) / 16 * 16;
    std::vector<int64_t> done(size_t(8 * crew));
    std::vector<T> seen(size_t(crew * width));
    std::vector<double> loss(size_t(crew), 0.0);
    std::vector<Meetings> meetings(size_t(crew), Meetings{});
    FreeScratch<T> scratch{view<double>(scales, order.count + 1, "scales"),
                           0,
                           done.data(),
                           seen.data(),
                           width,
                           loss.data(),
                           meetings.data()};
    const auto& table = kernels<T, I>();
    with_crew<int>(threads, [&](Crew crew) {
      table.descend_freely(table.weigh[data.loss], problem, order, update, parameters, scratch,
                           crew);
      return 0;
    });
    double summed = 0;
    Meetings all{};
    for (int64_t r = 0; r < crew; ++r) {
      const Meetings& one = meetings[size_t(r)];
      summed += loss[size_t(r)];
      all = {all.looked_at + one.looked_at, all.conflicts + one.conflicts, all.delay + one.delay,
             std::max(all.longest, one.longest)};
    }
    return py::make_tuple(summed, all.looked_at, all.conflicts, all.delay, all.longest);
  });
}

// Adds to `total` (d + 1,) and returns the summed loss.
template <class T>
double add_gradient(const SparseData& data, const py::object& rows, const py::array& theta,
                    py::array total, int threads) {
  return with_index(data.matrix, [&](auto index) {
    using I = decltype(index);
    const auto problem = data.view_as<T, I>();
    const Rows order = rows_of(rows);
    const T* parameters = view<T>(theta, problem.d + 1, "theta");
    Workspace<T> workspace(data.matrix, wave_tiles * tile_rows, threads);
    auto scratch = workspace.scratch();
    scratch.total = target<double>(total, problem.d + 1, "total");
    const auto& table = kernels<T, I>();
    return with_crew<double>(threads, [&](Crew crew) {
      double summed = 0;
      table.add_gradient(table.weigh[data.loss], problem, order, parameters, scratch, &summed,
                         crew);
      return summed;
    });
  });
}

// One update from a gradient summed over `count` rows.
template <class T>
double finish_step(bool fit_intercept, const py::array& total, int64_t count, int rule,
                   const Steps& steps, Parameters& parameters) {
  const int64_t d = total.size() - 1;
  const Needs needs = needs_of(rule);
  const Update update = steps.view_as(1, needs.constants);
  auto state = parameters.view_as<T>(d + 1, needs.slots);
  const double* sum = view<double>(total, d + 1, "total");
  const double norm = vectors<T>().norm(update, nullptr, sum, count, state.theta, d);
  const bool clipped = update.clip_norm > 0 && norm > update.clip_norm;
  vectors<T>().finish[rule]({d, 0, d + 1, fit_intercept}, update, 0, nullptr, sum, count,
                            clipped ? update.clip_norm / norm : 1.0, state);
  parameters.averaged = state.averaged + (state.average ? 1 : 0);
  return norm;
}

template <class T>
std::pair<double, double> variance(const SparseData& data, const py::object& rows,
                                   const py::array& theta, py::array gradient) {
  return with_index(data.matrix, [&](auto index) {
    using I = decltype(index);
    const auto problem = data.view_as<T, I>();
    const Rows order = rows_of(rows);
    const T* parameters = view<T>(theta, problem.d + 1, "theta");
    double* sum = target<double>(gradient, problem.d + 1, "gradient");
    const auto& table = kernels<T, I>();
    Unlocked unlocked;
    double loss = 0;
    const double second =
        table.variance(table.weigh[data.loss], problem, order, parameters, &loss, sum);
    return std::pair<double, double>{loss, second};
  });
}

template <class T>
void margin(const Matrix& matrix, const py::object& rows, const py::array& theta, py::array out) {
  with_index(matrix, [&](auto index) {
    using I = decltype(index);
    const auto problem = matrix.view_as<T, I>();
    const Rows order = rows_of(rows);
    const T* parameters = view<T>(theta, problem.d + 1, "theta");
    T* result = target<T>(out, order.count, "out");
    Unlocked unlocked;
    kernels<T, I>().margin(problem, order, parameters, result);
  });
}

template <class T>
void add_verbs(py::module_& m, const std::string& suffix) {
  m.def(("sparse_descend_samples_" + suffix).c_str(), descend_samples<T>);
  m.def(("sparse_descend_batches_" + suffix).c_str(), descend_batches<T>);
  m.def(("sparse_descend_freely_" + suffix).c_str(), descend_freely<T>);
  m.def(("sparse_add_gradient_" + suffix).c_str(), add_gradient<T>);
  m.def(("sparse_finish_step_" + suffix).c_str(), finish_step<T>);
  m.def(("sparse_variance_" + suffix).c_str(), variance<T>);
  m.def(("sparse_margin_" + suffix).c_str(), margin<T>);
}

}  // namespace

void add_sparse_verbs(py::module_& m) {
  py::class_<Matrix>(m, "Matrix").def(py::init<py::array, py::array, py::array, int64_t>());
  py::class_<SparseData>(m, "SparseData")
      .def(py::init<Matrix, py::array, py::array, py::array, int, bool>());
  add_verbs<float>(m, "float32");
  add_verbs<double>(m, "float64");
}

}  // namespace schuss

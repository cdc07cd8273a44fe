// The verbs for several outputs. They take parameters as they stand in Python, a row of (d + 1) for
// each output, and hand them to the kernels packed (outputs_problem.h).
#include "arguments.h"
#include "outputs_problem.h"

namespace schuss {

namespace {

template <class T>
const OutputKernels<T>& kernels();
template <>
const OutputKernels<float>& kernels<float>() {
  return *chosen->single_outputs;
}
template <>
const OutputKernels<double>& kernels<double>() {
  return *chosen->wide_outputs;
}

constexpr int all_losses = portable::loss_count + portable::vector_loss_count;

template <class T>
OutputProblem<T> problem_of(const Data& data) {
  if (data.X.ndim() != 2) throw std::invalid_argument("X: expected two dimensions");
  const int64_t outputs = data.outputs;
  if (outputs < 1) throw std::invalid_argument("outputs: expected at least 1");
  row_number(data.loss, all_losses, "loss");
  const int64_t n = data.X.shape(0), d = data.X.shape(1);
  const int64_t y_stride = data.loss < portable::loss_count ? outputs : 1;
  const int64_t lanes = kernels<T>().lanes, width = (outputs + lanes - 1) / lanes * lanes;
  return {view<T>(data.X, n * d, "X"),
          n,
          d,
          outputs,
          width,
          view<T>(data.y, n * y_stride, "y"),
          y_stride,
          optional_view<T>(data.weight, n, "weight"),
          view<double>(data.loss_parameters, data.loss_parameters.size(), "loss_parameters"),
          data.fit_intercept};
}

// Zeros that begin at a cache line, so that no vector spans two.
template <class T>
struct Lines {
  std::vector<T> memory;
  T* data;
  explicit Lines(int64_t size) : memory(size_t(size) + 64 / sizeof(T)) {
    const auto offset = reinterpret_cast<uintptr_t>(memory.data()) % 64;
    data = memory.data() + (64 - offset) % 64 / sizeof(T);
  }
  Lines(const Lines&) = delete;
};

template <class T, class P>
void pack(const OutputProblem<P>& problem, const T* rows, T* packed) {
  for (int64_t c = 0; c < problem.outputs; ++c)
    for (int64_t j = 0; j <= problem.d; ++j)
      packed[j * problem.width + c] = rows[c * (problem.d + 1) + j];
}

template <class T, class P>
void unpack(const OutputProblem<P>& problem, const T* packed, T* rows) {
  for (int64_t c = 0; c < problem.outputs; ++c)
    for (int64_t j = 0; j <= problem.d; ++j)
      rows[c * (problem.d + 1) + j] = packed[j * problem.width + c];
}

// A packed copy of the state, and the way back.
template <class T>
struct PackedState {
  const OutputProblem<T>& problem;
  State<T> rows, packed;
  Lines<T> parameters;
  Lines<double> average;

  PackedState(const OutputProblem<T>& p, State<T> state)
      : problem(p), rows(state), packed(state), parameters(3 * size()), average(size()) {
    packed.theta = parameters.data;
    pack(p, rows.theta, packed.theta);
    for (int k = 0; k < 2; ++k)
      if (rows.slot[k]) {
        packed.slot[k] = parameters.data + (k + 1) * size();
        pack(p, rows.slot[k], packed.slot[k]);
      }
    if (rows.average) {
      packed.average = average.data;
      pack(p, rows.average, packed.average);
    }
  }

  void write_back() {
    unpack(problem, packed.theta, rows.theta);
    for (int k = 0; k < 2; ++k)
      if (rows.slot[k]) unpack(problem, packed.slot[k], rows.slot[k]);
    if (rows.average) unpack(problem, packed.average, rows.average);
  }

  int64_t size() const { return (problem.d + 1) * problem.width; }
};

template <class T>
struct Workspace {
  Lines<T> margins, partial;
  Lines<double> total, loss;
  OutputScratch<T> scratch;

  Workspace(const OutputProblem<T>& problem, int64_t rows, int threads)
      : margins(std::max(1, threads) * 2 * block_rows * problem.width),
        partial(tiles(rows) * (problem.d + 1) * problem.width),
        total((problem.d + 1) * problem.width),
        loss(tiles(rows)),
        scratch{margins.data, partial.data, total.data, loss.data} {}

  static int64_t tiles(int64_t rows) {
    return std::min(wave_tiles, (rows + tile_rows - 1) / tile_rows);
  }
};

template <class T>
std::pair<double, double> descend_samples(const Data& data, const py::object& rows,
                                          const Steps& steps, Parameters& parameters) {
  const auto problem = problem_of<T>(data);
  const Rows order = rows_of(rows);
  const Update update = steps.view_as(order.count, 1);
  PackedState<T> state(problem, parameters.view_as<T>(problem.outputs * (problem.d + 1), 0));
  Workspace<T> workspace(problem, 1, 1);
  Outcome outcome;
  {
    Unlocked unlocked;
    const OutputKernels<T>& table = kernels<T>();
    outcome = table.descend_samples(table.weigh[data.loss], problem, order, update, state.packed,
                                    workspace.scratch.margins);
  }
  state.write_back();
  parameters.averaged = state.packed.averaged;
  return {outcome.loss, outcome.gradient_norm};
}

template <class T>
std::pair<double, double> descend_batches(const Data& data, const py::object& rows,
                                          int64_t batch_size, int rule, const Steps& steps,
                                          Parameters& parameters, int threads) {
  if (batch_size < 1) throw std::invalid_argument("batch_size: expected at least 1");
  const auto problem = problem_of<T>(data);
  const Rows order = rows_of(rows);
  const Needs needs = needs_of(rule);
  const Update update = steps.view_as((order.count + batch_size - 1) / batch_size, needs.constants);
  PackedState<T> state(problem,
                       parameters.view_as<T>(problem.outputs * (problem.d + 1), needs.slots));
  Workspace<T> workspace(problem, std::min(batch_size, order.count), threads);
  struct Job {
    const OutputProblem<T>& problem;
    const Rows& rows;
    const Update& update;
    State<T>& state;
    OutputScratch<T>& scratch;
    int64_t batch_size;
    int loss, rule;
    Outcome outcome;
  } job{problem, order, update, state.packed, workspace.scratch, batch_size, data.loss, rule, {}};
  {
    Unlocked unlocked;
    run_crew(
        threads,
        [](void* context, Crew crew) {
          Job& job = *static_cast<Job*>(context);
          const OutputKernels<T>& table = kernels<T>();
          const Outcome outcome =
              table.descend_batches(table, job.loss, job.rule, job.problem, job.rows,
                                    job.batch_size, job.update, job.state, job.scratch, crew);
          if (crew.rank == 0) job.outcome = outcome;
        },
        &job);
  }
  state.write_back();
  parameters.averaged = state.packed.averaged;
  return {job.outcome.loss, job.outcome.gradient_norm};
}

// Adds to `total`, (outputs, d + 1), and returns the summed loss.
template <class T>
double add_gradient(const Data& data, const py::object& rows, const py::array& theta,
                    py::array total, int threads) {
  const auto problem = problem_of<T>(data);
  const Rows order = rows_of(rows);
  const int64_t size = problem.outputs * (problem.d + 1);
  Lines<T> parameters((problem.d + 1) * problem.width);
  pack(problem, view<T>(theta, size, "theta"), parameters.data);
  double* sum = target<double>(total, size, "total");
  Workspace<T> workspace(problem, order.count, threads);
  pack(problem, sum, workspace.scratch.total);
  struct Job {
    const OutputProblem<T>& problem;
    const Rows& rows;
    const T* theta;
    OutputScratch<T>& scratch;
    int loss;
    double summed;
  } job{problem, order, parameters.data, workspace.scratch, data.loss, 0};
  {
    Unlocked unlocked;
    run_crew(
        threads,
        [](void* context, Crew crew) {
          Job& job = *static_cast<Job*>(context);
          const OutputKernels<T>& table = kernels<T>();
          double summed = 0;
          table.add_gradient(table.weigh[job.loss], job.problem, job.rows, job.theta, job.scratch,
                             &summed, crew);
          if (crew.rank == 0) job.summed = summed;
        },
        &job);
  }
  unpack(problem, workspace.scratch.total, sum);
  return job.summed;
}

// One update from a gradient summed over `count` rows.
template <class T>
double finish_step(const Data& data, const py::array& total, int64_t count, int rule,
                   const Steps& steps, int64_t step, Parameters& parameters) {
  const auto problem = problem_of<T>(data);
  const Needs needs = needs_of(rule);
  const Update update = steps.view_as(step + 1, needs.constants);
  const int64_t size = problem.outputs * (problem.d + 1);
  PackedState<T> state(problem, parameters.view_as<T>(size, needs.slots));
  Lines<double> sum((problem.d + 1) * problem.width);
  pack(problem, view<double>(total, size, "total"), sum.data);
  std::vector<T> tile;  // a batch of one tile is finished in T, as descend_batches does it
  if (count <= tile_rows) tile.assign(sum.data, sum.data + (problem.d + 1) * problem.width);
  const double norm =
      kernels<T>().finish_step[rule](problem, update, step, tile.empty() ? nullptr : tile.data(),
                                     sum.data, count, true, state.packed);
  state.write_back();
  parameters.averaged = state.packed.averaged;
  return norm;
}

// Loss and gradient as add_gradient has them, and the summed squared norm of the samples'
// gradients.
template <class T>
std::pair<double, double> variance(const Data& data, const py::object& rows, const py::array& theta,
                                   py::array gradient) {
  const double loss = add_gradient<T>(data, rows, theta, gradient, 1);
  const auto problem = problem_of<T>(data);
  const Rows order = rows_of(rows);
  Lines<T> parameters((problem.d + 1) * problem.width), margins(2 * problem.width);
  pack(problem, view<T>(theta, problem.outputs * (problem.d + 1), "theta"), parameters.data);
  Unlocked unlocked;
  const OutputKernels<T>& table = kernels<T>();
  const double second =
      table.second_moment(table.weigh[data.loss], problem, order, parameters.data, margins.data);
  return {loss, second};
}

// Decision values into `out`, (count, outputs); theta holds d + 1 parameters for each output.
template <class T>
void margin(const py::array& X, const py::object& rows, const py::array& theta, py::array out) {
  if (X.ndim() != 2) throw std::invalid_argument("X: expected two dimensions");
  const int64_t n = X.shape(0), d = X.shape(1), outputs = theta.size() / (d + 1);
  if (outputs < 1) throw std::invalid_argument("theta: fewer than X has columns");
  const int64_t lanes = kernels<T>().lanes, width = (outputs + lanes - 1) / lanes * lanes;
  const OutputProblem<T> problem{
      view<T>(X, n * d, "X"), n, d, outputs, width, nullptr, 0, nullptr, nullptr, true};
  const Rows order = rows_of(rows);
  Lines<T> parameters((d + 1) * width), margins(width);
  pack(problem, view<T>(theta, outputs * (d + 1), "theta"), parameters.data);
  T* result = target<T>(out, order.count * outputs, "out");
  Unlocked unlocked;
  kernels<T>().margin(problem, order, parameters.data, margins.data, result);
}

template <int Row>
void add_names(std::vector<std::string>& names) {
  if constexpr (Row > 0) {
    add_names<Row - 1>(names);
    names.push_back(portable::vector_loss_row<double, Row - 1>::name());
  }
}

template <class T>
void add_verbs(py::module_& m, const std::string& suffix) {
  m.def(("outputs_descend_samples_" + suffix).c_str(), descend_samples<T>);
  m.def(("outputs_descend_batches_" + suffix).c_str(), descend_batches<T>);
  m.def(("outputs_add_gradient_" + suffix).c_str(), add_gradient<T>);
  m.def(("outputs_finish_step_" + suffix).c_str(), finish_step<T>);
  m.def(("outputs_variance_" + suffix).c_str(), variance<T>);
  m.def(("outputs_margin_" + suffix).c_str(), margin<T>);
}

}  // namespace

void add_output_verbs(py::module_& m) {
  add_verbs<float>(m, "float32");
  add_verbs<double>(m, "float64");
  m.def("vector_losses", [] {
    std::vector<std::string> names;
    add_names<portable::vector_loss_count>(names);
    return names;
  });
}

}  // namespace schuss

// The extension module schuss._native: checks sizes and types, releases the GIL, calls a kernel.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "arguments.h"

using namespace schuss;

namespace schuss {
const InstructionSet* chosen = nullptr;
}

namespace {

// ---- Instruction sets ----

std::vector<const InstructionSet*> supported_sets() {
  std::vector<const InstructionSet*> sets{&baseline::kernels};
#ifdef SCHUSS_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    sets.push_back(&avx2::kernels);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && sets.size() == 2)
    sets.push_back(&avx512::kernels);
#endif
  return sets;
}

void use_instruction_set(const std::string& name) {
  std::string known;
  for (const InstructionSet* set : supported_sets()) {
    if (name == set->name) {
      chosen = set;
      return;
    }
    known += std::string(known.empty() ? "" : ", ") + set->name;
  }
  throw std::invalid_argument("SCHUSS_CPU='" + name + "': this machine can run " + known + ".");
}

template <class T>
const VectorKernels<T>& vectors();
template <>
const VectorKernels<float>& vectors<float>() {
  return chosen->single;
}
template <>
const VectorKernels<double>& vectors<double>() {
  return chosen->wide;
}

template <class S>
const RowKernels<S>& kernels();
template <>
const RowKernels<float>& kernels<float>() {
  return chosen->single_rows;
}
template <>
const RowKernels<double>& kernels<double>() {
  return chosen->wide_rows;
}
template <>
const RowKernels<bfloat16>& kernels<bfloat16>() {
  return chosen->bfloat16_rows;
}
template <>
const RowKernels<float16>& kernels<float16>() {
  return chosen->float16_rows;
}

// A vector at a cache line's begin, so that threads that write neighbouring parts share no line.
template <class T>
struct Aligned {
  std::unique_ptr<T, decltype(&std::free)> memory;
  explicit Aligned(int64_t size)
      : memory(static_cast<T*>(
                   std::aligned_alloc(64, size_t(size * int64_t(sizeof(T)) + 63) / 64 * 64)),
               &std::free) {
    if (!memory) throw std::bad_alloc();
    std::fill_n(memory.get(), size, T(0));
  }
};

template <class T>
struct Workspace {
  int64_t tiles;
  Aligned<T> weights, partial;
  Aligned<double> total, loss;
  Scratch<T> scratch;

  Workspace(int64_t rows, int64_t d)
      : tiles(std::max(int64_t(1), std::min(wave_tiles, (rows + tile_rows - 1) / tile_rows))),
        weights(padded(d)),
        partial(tiles * padded(d)),
        total(d + 1),
        loss(tiles),
        scratch{weights.memory.get(), partial.memory.get(), total.memory.get(), loss.memory.get()} {
  }
};

// ---- Verbs ----

template <class S>
std::pair<double, double> descend_samples(const Data& data, const py::object& rows,
                                          const Steps& steps, Parameters& parameters) {
  using T = Scalar<S>;
  const auto problem = data.view_as<S>();
  const Rows order = rows_of(rows);
  const Update update = steps.view_as(order.count, 1);
  auto state = parameters.view_as<T>(problem.d + 1, 0);
  Workspace<T> workspace(1, problem.d);
  Outcome outcome;
  {
    Unlocked unlocked;
    outcome = kernels<S>().descend_samples[row_number(data.loss, portable::loss_count, "loss")](
        problem, order, update, state, workspace.scratch);
  }
  parameters.averaged = state.averaged;
  return {outcome.loss, outcome.gradient_norm};
}

template <class S>
std::pair<double, double> descend_batches(const Data& data, const py::object& rows,
                                          int64_t batch_size, int rule, const Steps& steps,
                                          Parameters& parameters, int threads) {
  using T = Scalar<S>;
  if (batch_size < 1) throw std::invalid_argument("batch_size: expected at least 1");
  const auto problem = data.view_as<S>();
  const Rows order = rows_of(rows);
  const Needs needs = needs_of(rule);
  const Update update = steps.view_as((order.count + batch_size - 1) / batch_size, needs.constants);
  auto state = parameters.view_as<T>(problem.d + 1, needs.slots);
  Workspace<T> workspace(std::min(batch_size, order.count), problem.d);
  row_number(data.loss, portable::loss_count, "loss");
  struct Job {
    const Problem<S>& problem;
    const Rows& rows;
    const Update& update;
    State<T>& state;
    Scratch<T>& scratch;
    int64_t batch_size;
    int loss, rule;
    Outcome outcome;
  } job{problem, order, update, state, workspace.scratch, batch_size, data.loss, rule, {}};
  {
    Unlocked unlocked;
    run_crew(
        threads,
        [](void* context, Crew crew) {
          Job& job = *static_cast<Job*>(context);
          const RowKernels<S>& table = kernels<S>();
          const Outcome outcome =
              table.descend_batches(table, vectors<T>(), job.loss, job.rule, job.problem, job.rows,
                                    job.batch_size, job.update, job.state, job.scratch, crew);
          if (crew.rank == 0) job.outcome = outcome;
        },
        &job);
  }
  parameters.averaged = state.averaged;
  return {job.outcome.loss, job.outcome.gradient_norm};
}

// Adds to `total` (d + 1,) and returns the summed loss.
template <class S>
double add_gradient(const Data& data, const py::object& rows, const py::array& theta,
                    py::array total, int threads) {
  using T = Scalar<S>;
  const auto problem = data.view_as<S>();
  const Rows order = rows_of(rows);
  const T* parameters = view<T>(theta, problem.d + 1, "theta");
  Workspace<T> workspace(order.count, problem.d);
  workspace.scratch.total = target<double>(total, problem.d + 1, "total");
  row_number(data.loss, portable::loss_count, "loss");
  struct Job {
    const Problem<S>& problem;
    const Rows& rows;
    const T* theta;
    Scratch<T>& scratch;
    int loss;
    double summed;
  } job{problem, order, parameters, workspace.scratch, data.loss, 0};
  {
    Unlocked unlocked;
    run_crew(
        threads,
        [](void* context, Crew crew) {
          Job& job = *static_cast<Job*>(context);
          const RowKernels<S>& table = kernels<S>();
          double summed = 0;
          table.add_gradient(table, job.loss, job.problem, job.rows, job.theta, job.scratch,
                             &summed, crew);
          if (crew.rank == 0) job.summed = summed;
        },
        &job);
  }
  return job.summed;
}

// One update from a gradient summed over `count` rows.
template <class T>
double finish_step(const Data& data, const py::array& total, int64_t count, int rule,
                   const Steps& steps, int64_t step, Parameters& parameters) {
  const int64_t d = total.size() - 1;
  const Needs needs = needs_of(rule);
  const Update update = steps.view_as(step + 1, needs.constants);
  auto state = parameters.view_as<T>(d + 1, needs.slots);
  const double* sum = view<double>(total, d + 1, "total");
  std::vector<T> tile;  // a batch of one tile is finished in T, as descend_batches does it
  if (count <= tile_rows) tile.assign(sum, sum + d + 1);
  const T* single = tile.empty() ? nullptr : tile.data();
  const double norm = vectors<T>().norm(update, single, sum, count, state.theta, d);
  const bool clipped = update.clip_norm > 0 && norm > update.clip_norm;
  vectors<T>().finish[rule]({d, 0, d + 1, data.fit_intercept}, update, step, single, sum, count,
                            clipped ? update.clip_norm / norm : 1.0, state);
  parameters.averaged = state.averaged + (state.average ? 1 : 0);
  return norm;
}

template <class S>
std::pair<double, double> variance(const Data& data, const py::object& rows, const py::array& theta,
                                   py::array gradient) {
  const auto problem = data.view_as<S>();
  const Rows order = rows_of(rows);
  const auto* parameters = view<Scalar<S>>(theta, problem.d + 1, "theta");
  double* sum = target<double>(gradient, problem.d + 1, "gradient");
  double loss = 0, second;
  const int row = row_number(data.loss, portable::loss_count, "loss");
  {
    Unlocked unlocked;
    const RowKernels<S>& table = kernels<S>();
    second = table.variance(table.weigh_group[row], problem, order, parameters, &loss, sum);
  }
  return {loss, second};
}

template <class S>
void margin(const py::array& X, const py::object& rows, const py::array& theta, py::array out) {
  const S* matrix = view_rows<S>(X);
  const int64_t d = X.shape(1);
  const Rows order = rows_of(rows);
  const auto* parameters = view<Scalar<S>>(theta, d + 1, "theta");
  auto* result = target<Scalar<S>>(out, order.count, "out");
  Unlocked unlocked;
  kernels<S>().margin(matrix, d, order, parameters, result);
}

template <class T>
void apply(int rule, std::vector<py::array> params, const std::vector<py::array>& gradients,
           std::vector<std::vector<py::array>> slots, const py::array& constants, double decay) {
  const Needs needs = needs_of(rule);
  if (constants.size() < needs.constants) throw std::invalid_argument("constants: too few");
  const double* scalars = view<double>(constants, constants.size(), "constants");
  struct Piece {
    T* param;
    const T* gradient;
    T* slot[2];
    int64_t size;
  };
  std::vector<Piece> pieces;
  for (size_t k = 0; k < params.size(); ++k) {
    const int64_t size = params[k].size();
    Piece piece{target<T>(params[k], size, "param"),
                view<T>(gradients.at(k), size, "gradient"),
                {nullptr, nullptr},
                size};
    if (int(slots.at(k).size()) < needs.slots) throw std::invalid_argument("slots: too few");
    for (size_t s = 0; s < slots[k].size() && s < 2; ++s)
      piece.slot[s] = target<T>(slots[k][s], size, "slot");
    pieces.push_back(piece);
  }
  Unlocked unlocked;
  for (const Piece& p : pieces)
    vectors<T>().apply[rule](p.param, p.gradient, p.slot[0], p.slot[1], p.size, scalars, decay);
}

template <class T>
void reduce(py::array dst, const std::vector<py::array>& sources, double scale) {
  const int64_t size = dst.size();
  T* result = target<T>(dst, size, "dst");
  std::vector<const T*> inputs;
  for (const py::array& source : sources) inputs.push_back(view<T>(source, size, "source"));
  Unlocked unlocked;
  vectors<T>().reduce(result, inputs.data(), int64_t(inputs.size()), size, scale);
}

// Each member of the crew makes a run of the places.
template <class I>
void permute(uint64_t n, const py::array& keys, int64_t start, py::array out, int threads) {
  const uint32_t* round_keys = view<uint32_t>(keys, portable::bijection_rounds, "keys");
  const int64_t stop = start + out.size();
  if (n < 1 || start < 0 || uint64_t(stop) > n) throw std::out_of_range("permute: range beyond n");
  struct Job {
    uint64_t n;
    const uint32_t* keys;
    int64_t start, count;
    I* out;
  } job{n, round_keys, start, out.size(), target<I>(out, out.size(), "out")};
  Unlocked unlocked;
  run_crew(
      threads,
      [](void* context, Crew crew) {
        const Job& j = *static_cast<Job*>(context);
        const int64_t low = j.count * crew.rank / crew.size;
        const int64_t high = j.count * (crew.rank + 1) / crew.size;
        if constexpr (sizeof(I) == 4)
          chosen->permute_narrow(j.n, j.keys, j.start + low, j.start + high, j.out + low);
        else
          chosen->permute_wide(j.n, j.keys, j.start + low, j.start + high, j.out + low);
      },
      &job);
}

template <class I>
void mix(const py::array& block, const py::array& row, const py::array& starts,
         const py::array& turned, int64_t start, py::array out) {
  if (starts.ndim() != 2) throw std::invalid_argument("starts: expected two dimensions");
  const int64_t buffers = starts.shape(0), size = block.size() / 2, stop = start + out.size();
  if (size < 1 || start < 0 || stop > buffers * size)
    throw std::out_of_range("mix: range beyond the buffers");
  const Pattern<I> pattern{view<I>(block, 2 * size, "block"),
                           view<I>(row, 2 * size, "row"),
                           size,
                           view<I>(starts, starts.size(), "starts"),
                           int64_t(starts.shape(1)),
                           view<int64_t>(turned, buffers, "turned")};
  I* result = target<I>(out, out.size(), "out");
  Unlocked unlocked;
  if constexpr (sizeof(I) == 4)
    chosen->mix_narrow(pattern, start, stop, result);
  else
    chosen->mix_wide(pattern, start, stop, result);
}

// ---- Names ----

template <int Row>
void add_losses(std::vector<std::string>& names) {
  if constexpr (Row > 0) {
    add_losses<Row - 1>(names);
    names.push_back(portable::loss_row<double, Row - 1>::name());
  }
}

template <int Row>
void add_rules(std::vector<std::string>& names) {
  if constexpr (Row > 0) {
    add_rules<Row - 1>(names);
    names.push_back(portable::rule_row<double, Row - 1>::name());
  }
}

py::dict cpu_features() {
  py::dict features;
#ifdef SCHUSS_X86
  __builtin_cpu_init();
#define SCHUSS_FEATURE(NAME) features[NAME] = bool(__builtin_cpu_supports(NAME))
  SCHUSS_FEATURE("sse4.2");
  SCHUSS_FEATURE("avx");
  SCHUSS_FEATURE("avx2");
  SCHUSS_FEATURE("fma");
  SCHUSS_FEATURE("avx512f");
  SCHUSS_FEATURE("avx512bw");
  SCHUSS_FEATURE("avx512dq");
  SCHUSS_FEATURE("avx512vl");
#undef SCHUSS_FEATURE
#else
  features["neon"] = true;
#endif
  return features;
}

py::dict build_info() {
  py::dict info;
#ifdef __clang__
  info["compiler"] = "clang++ " __clang_version__;
#else
  info["compiler"] = "g++ " __VERSION__;
#endif
#ifdef SCHUSS_KERNEL_FLAGS
  info["flags"] = SCHUSS_KERNEL_FLAGS;
#endif
  return info;
}

template <class S>
void add_row_verbs(py::module_& m, const std::string& suffix) {
  m.def(("descend_samples_" + suffix).c_str(), descend_samples<S>);
  m.def(("descend_batches_" + suffix).c_str(), descend_batches<S>);
  m.def(("add_gradient_" + suffix).c_str(), add_gradient<S>);
  m.def(("variance_" + suffix).c_str(), variance<S>);
  m.def(("margin_" + suffix).c_str(), margin<S>);
}

template <class T>
void add_vector_verbs(py::module_& m, const std::string& suffix) {
  m.def(("finish_step_" + suffix).c_str(), finish_step<T>);
  m.def(("apply_" + suffix).c_str(), apply<T>);
  m.def(("reduce_" + suffix).c_str(), reduce<T>);
}

}  // namespace

PYBIND11_MODULE(_native, m, py::mod_gil_not_used()) {
  m.doc() = "Compiled kernels of schuss.";
  const char* wanted = std::getenv("SCHUSS_CPU");
  if (wanted && *wanted)
    use_instruction_set(wanted);
  else
    chosen = supported_sets().back();

  py::class_<Data>(m, "Data").def(
      py::init<py::array, py::array, py::array, py::array, int, bool, int64_t>());
  py::class_<Parameters>(m, "Parameters")
      .def(py::init<py::array, py::array, py::array, int64_t>())
      .def_readonly("averaged", &Parameters::averaged);
  py::class_<Steps>(m, "Steps").def(py::init<py::array, double, double, double>());

  add_row_verbs<float>(m, "float32");
  add_row_verbs<double>(m, "float64");
  add_row_verbs<bfloat16>(m, "bfloat16");
  add_row_verbs<float16>(m, "float16");
  add_vector_verbs<float>(m, "float32");
  add_vector_verbs<double>(m, "float64");
  add_output_verbs(m);
  add_sparse_verbs(m);
  add_classic_verbs(m);
  add_optimizers(m);
  add_tensors(m);
  m.def("permute_int32", permute<int32_t>);
  m.def("permute_int64", permute<int64_t>);
  m.def("mix_int32", mix<int32_t>);
  m.def("mix_int64", mix<int64_t>);
  add_ceilings(m);

  m.def("losses", [] {
    std::vector<std::string> names;
    add_losses<portable::loss_count>(names);
    return names;
  });
  m.def("rules", [] {
    std::vector<std::string> names;
    add_rules<portable::rule_count>(names);
    return names;
  });
  m.def("instruction_set", [] { return std::string(chosen->name); });
  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (const InstructionSet* set : supported_sets()) names.push_back(set->name);
    return names;
  });
  m.def("use_instruction_set", use_instruction_set);
  m.def("cpu_features", cpu_features);
  m.def("build_info", build_info);
}

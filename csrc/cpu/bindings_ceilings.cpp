// Bindings of what the lab measures of the machine: see ceilings.h.
#include "arguments.h"

namespace schuss {
namespace {

// Sums of the crew's shares, one cache line apart.
constexpr int apart = 16;

void check_threads(int threads) {
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1");
}

// Sum of the rows, each member of the crew taking an equal run of them. Throws when fewer threads
// came than were asked for: a ceiling of fewer cores would flatter every kernel.
template <class T>
double sum_rows_with(const py::array_t<T, py::array::c_style>& X, const py::object& rows,
                     int64_t ahead, int64_t near, int threads, const RowKernels<T>& kernels) {
  check_threads(threads);
  if (X.ndim() != 2) throw std::invalid_argument("X: expected two dimensions");
  const Rows order = rows_of(rows);
  struct Job {
    const T* X;
    int64_t d, ahead, near;
    Rows rows;
    const RowKernels<T>& kernels;
    std::vector<double> sums;
    int size;
  } job{X.data(), int64_t(X.shape(1)), ahead, near, order, kernels, {}, 0};
  job.sums.assign(size_t(threads) * apart, 0.0);
  {
    Unlocked unlocked;
    run_crew(
        threads,
        [](void* context, Crew crew) {
          Job& job = *static_cast<Job*>(context);
          const int64_t low = job.rows.count * crew.rank / crew.size;
          const int64_t count = job.rows.count * (crew.rank + 1) / crew.size - low;
          const Rows share{job.rows.narrow ? job.rows.narrow + low : nullptr,
                           job.rows.wide ? job.rows.wide + low : nullptr, job.rows.start + low,
                           count, count};
          job.sums[size_t(crew.rank) * apart] =
              double(job.kernels.sum_rows(job.X, job.d, share, job.ahead, job.near));
          if (crew.rank == 0) job.size = crew.size;
        },
        &job);
  }
  if (job.size < threads) throw std::runtime_error("the thread pool is in use by another fit");
  double total = 0;
  for (int k = 0; k < threads; ++k) total += job.sums[size_t(k) * apart];
  return total;
}

double sum_rows_float32(const py::array_t<float, py::array::c_style>& X, const py::object& rows,
                        int64_t ahead, int64_t near, int threads) {
  return sum_rows_with<float>(X, rows, ahead, near, threads, chosen->single_rows);
}

double sum_rows_float64(const py::array_t<double, py::array::c_style>& X, const py::object& rows,
                        int64_t ahead, int64_t near, int threads) {
  return sum_rows_with<double>(X, rows, ahead, near, threads, chosen->wide_rows);
}

// Flops done: `rounds` of them on each of `threads` cores.
double multiply_add(const std::string& dtype, int64_t rounds, int threads) {
  check_threads(threads);
  struct Job {
    bool single;
    int64_t rounds;
    int size;
  } job{dtype == "float32", rounds, 0};
  {
    Unlocked unlocked;
    run_crew(
        threads,
        [](void* context, Crew crew) {
          Job& job = *static_cast<Job*>(context);
          const Ceilings& table = *chosen->ceilings;
          volatile double kept = job.single ? double(table.multiply_add_single(job.rounds))
                                            : table.multiply_add_wide(job.rounds);
          (void)kept;
          if (crew.rank == 0) job.size = crew.size;
        },
        &job);
  }
  const Ceilings& table = *chosen->ceilings;
  const int flops = job.single ? table.flops_single : table.flops_wide;
  return double(flops) * double(rounds) * job.size;
}

// `times` empty jobs for the pool: what a call that shares its work pays at least.
void fork_join(int threads, int64_t times) {
  check_threads(threads);
  Unlocked unlocked;
  for (int64_t k = 0; k < times; ++k) run_crew(threads, [](void*, Crew) {}, nullptr);
}

// `times` meetings of a crew within one job: a step of several threads has three of them.
void meet(int threads, int64_t times) {
  check_threads(threads);
  Unlocked unlocked;
  run_crew(
      threads,
      [](void* context, Crew crew) {
        for (int64_t k = *static_cast<int64_t*>(context); k > 0; --k) crew.wait();
      },
      &times);
}

}  // namespace

void add_ceilings(py::module_& m) {
  m.def("sum_rows_with_float32", sum_rows_float32);
  m.def("sum_rows_with_float64", sum_rows_float64);
  m.def("multiply_add", multiply_add);
  m.def("fork_join", fork_join);
  m.def("meet", meet);
}

}  // namespace schuss

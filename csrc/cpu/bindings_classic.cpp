// The verb of the classic step, on dense and on sparse rows.
#include "classic_problem.h"
#include "matrix.h"

namespace schuss {

namespace {

struct Classic {
  py::array rates;
  double l2, l1, intercept_decay, drift;
  int passive;
  double aggressiveness;

  ClassicStep view_as(int64_t steps) const {
    if (rates.size() != 1 && rates.size() < steps)
      throw std::invalid_argument("rates: expected 1 or one for each step");
    return {view<double>(rates, rates.size(), "rates"),
            rates.size() == 1 ? 0 : 1,
            l2,
            l1,
            intercept_decay,
            drift,
            passive,
            aggressiveness};
  }
};

struct Walk {
  py::array theta, own, active, factor, owed, paid, average, loss;
  int64_t averaged;

  template <class T>
  ClassicState<T> view_as(int64_t d) {
    const int64_t outputs = theta.size() / (d + 1);
    const int64_t* trained = view<int64_t>(active, active.size(), "active");
    for (int64_t a = 0; a < active.size(); ++a)
      if (trained[a] < 0 || trained[a] >= outputs)
        throw std::out_of_range("active: no such output");
    const T* weights = optional_view<T>(own, outputs, "own");
    if (!weights && outputs != 1) throw std::invalid_argument("own: expected one for each output");
    return {target<T>(theta, outputs * (d + 1), "theta"),
            outputs,
            weights,
            trained,
            active.size(),
            view<double>(factor, outputs, "factor"),
            target<double>(owed, outputs, "owed"),
            optional_target<T>(paid, outputs * d, "paid"),
            optional_target<double>(average, outputs * (d + 1), "average"),
            averaged,
            target<double>(loss, outputs, "loss")};
  }
};

template <class T>
struct Workspace {
  std::vector<T> rows;
  std::vector<double> scales, sums;
  int64_t outputs;

  explicit Workspace(int64_t count) : rows(size_t(4 * count)), outputs(count) {}

  // What sparse rows take beside that.
  void put_off(int64_t d, bool averaged) {
    scales.resize(size_t(2 * outputs));
    if (averaged) sums.resize(size_t(2 * outputs * d));
  }

  ClassicScratch<T> scratch() {
    T* row = rows.data();
    return {
        row,           row + outputs,           row + 2 * outputs, row + 3 * outputs,
        scales.data(), scales.data() + outputs, sums.data(),       sums.data() + sums.size() / 2};
  }
};

template <class T>
WeighGroup<T> weigh_of(int loss) {
  const int row = row_number(loss, portable::loss_count, "loss");
  if constexpr (sizeof(T) == 4)
    return chosen->single_rows.weigh_group[row];
  else
    return chosen->wide_rows.weigh_group[row];
}

template <class T, class I>
ClassicSparse<T, I> kernel_for() {
  const ClassicSet& set = *chosen->classic;
  if constexpr (sizeof(T) == 4 && sizeof(I) == 4) return set.single_narrow;
  if constexpr (sizeof(T) == 4 && sizeof(I) == 8) return set.single_wide;
  if constexpr (sizeof(T) == 8 && sizeof(I) == 4) return set.wide_narrow;
  if constexpr (sizeof(T) == 8 && sizeof(I) == 8) return set.wide_wide;
}

template <class T, class P>
void descend(ClassicDescend<P, T> kernel, WeighGroup<T> weigh, const P& problem,
             const py::object& rows, const Classic& classic, Walk& walk, Workspace<T>& workspace,
             ClassicState<T>& state) {
  const Rows order = rows_of(rows);
  const ClassicStep step = classic.view_as(order.count);
  auto scratch = workspace.scratch();
  {
    py::gil_scoped_release release;
    kernel(weigh, problem, order, step, state, scratch);
  }
  walk.averaged = state.averaged;
}

template <class T>
void descend_dense(const Data& data, const py::object& rows, const Classic& classic, Walk& walk) {
  const auto problem = data.view_as<T>();
  auto state = walk.view_as<T>(problem.d);
  Workspace<T> workspace(state.outputs);
  ClassicDescend<Problem<T>, T> kernel;
  if constexpr (sizeof(T) == 4)
    kernel = chosen->classic->single;
  else
    kernel = chosen->classic->wide;
  descend(kernel, weigh_of<T>(data.loss), problem, rows, classic, walk, workspace, state);
}

template <class T>
void descend_sparse(const SparseData& data, const py::object& rows, const Classic& classic,
                    Walk& walk) {
  with_index(data.matrix, [&](auto index) {
    using I = decltype(index);
    const auto problem = data.view_as<T, I>();
    auto state = walk.view_as<T>(problem.d);
    Workspace<T> workspace(state.outputs);
    workspace.put_off(problem.d, state.average != nullptr);
    descend(kernel_for<T, I>(), weigh_of<T>(data.loss), problem, rows, classic, walk, workspace,
            state);
  });
}

}  // namespace

void add_classic_verbs(py::module_& m) {
  py::class_<Classic>(m, "Classic")
      .def(py::init<py::array, double, double, double, double, int, double>());
  py::class_<Walk>(m, "Walk")
      .def(py::init<py::array, py::array, py::array, py::array, py::array, py::array, py::array,
                    py::array, int64_t>())
      .def_readonly("averaged", &Walk::averaged);
  m.def("classic_descend_float32", descend_dense<float>);
  m.def("classic_descend_float64", descend_dense<double>);
  m.def("classic_sparse_descend_float32", descend_sparse<float>);
  m.def("classic_sparse_descend_float64", descend_sparse<double>);
}

}  // namespace schuss

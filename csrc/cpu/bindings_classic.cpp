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
  py::array coef, intercept, own, active, factor, owed, paid, average, loss;
  int64_t averaged;

  template <class T>
  ClassicState<T> view_as(int64_t d) {
    const int64_t outputs = intercept.size();
    const int64_t* trained = view<int64_t>(active, active.size(), "active");
    for (int64_t a = 0; a < active.size(); ++a)
      if (trained[a] < 0 || trained[a] >= outputs)
        throw std::out_of_range("active: no such output");
    const T* weights = optional_view<T>(own, outputs, "own");
    if (!weights && outputs != 1) throw std::invalid_argument("own: expected one for each output");
    return {target<T>(coef, outputs * d, "coef"),
            target<double>(intercept, outputs, "intercept"),
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

// The memory, each part at a cache line's begin.
template <class T>
struct Workspace {
  int64_t outputs, width, line;
  std::vector<T> numbers;
  std::vector<double> doubles;
  int64_t weights, paid, aux;  // how many

  explicit Workspace(const ClassicState<T>& state, int64_t d, bool sparse)
      : outputs(state.outputs) {
    const ClassicSet& set = *chosen->classic;
    const int64_t lanes = sizeof(T) == 4 ? set.single_lanes : set.wide_lanes;
    width = outputs == 1 ? 1 : (outputs + lanes - 1) / lanes * lanes;
    line = (width + 15) / 16 * 16;
    weights = sparse ? d * width * (state.paid ? 2 : 1) : outputs * padded(d);
    paid = !sparse && state.paid ? outputs * padded(d) : 0;
    aux = sparse && state.average ? d * width : 0;
    numbers.resize(size_t(9 * line + weights + paid + 16));
    doubles.resize(size_t(4 * line + aux));
  }

  ClassicScratch<T> scratch() {
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(numbers.data()) + 63) & ~uintptr_t(63);
    T* n = reinterpret_cast<T*>(begin);
    double* x = doubles.data();
    T* w = n + 9 * line;
    return {width,
            n,
            n + line,
            n + 2 * line,
            n + 3 * line,
            n + 4 * line,
            n + 5 * line,
            n + 6 * line,
            n + 7 * line,
            n + 8 * line,
            x,
            x + line,
            x + 2 * line,
            x + 3 * line,
            w,
            w + weights,
            x + 4 * line};
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
    Unlocked unlocked;
    kernel(weigh, problem, order, step, state, scratch);
  }
  walk.averaged = state.averaged;
}

template <class T>
void descend_dense(const Data& data, const py::object& rows, const Classic& classic, Walk& walk) {
  const auto problem = data.view_as<T>();
  auto state = walk.view_as<T>(problem.d);
  Workspace<T> workspace(state, problem.d, false);
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
    Workspace<T> workspace(state, problem.d, true);
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
                    py::array, py::array, int64_t>())
      .def_readonly("averaged", &Walk::averaged);
  m.def("classic_descend_float32", descend_dense<float>);
  m.def("classic_descend_float64", descend_dense<double>);
  m.def("classic_sparse_descend_float32", descend_sparse<float>);
  m.def("classic_sparse_descend_float64", descend_sparse<double>);
}

}  // namespace schuss

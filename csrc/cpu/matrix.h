// Sparse rows as Python passes them.
#pragma once
#include "arguments.h"
#include "sparse_problem.h"

namespace schuss {

// The matrix of one call; what it holds was checked when it came from the user.
struct Matrix {
  py::array data, indices, indptr;
  int64_t columns;

  template <class T, class I>
  SparseProblem<T, I> view_as() const {
    const int64_t n = indptr.size() - 1, entries = indices.size();
    if (n < 0) throw std::invalid_argument("indptr: expected at least one element");
    const bool narrow = py::isinstance<py::array_t<int32_t>>(indptr);
    SparseProblem<T, I> problem{};
    problem.data = view<T>(data, entries, "data");
    problem.indices = view<I>(indices, entries, "indices");
    problem.narrow = narrow ? view<int32_t>(indptr, n + 1, "indptr") : nullptr;
    problem.wide = narrow ? nullptr : view<int64_t>(indptr, n + 1, "indptr");
    problem.n = n;
    problem.d = columns;
    return problem;
  }
};

// The data and loss of one call.
struct SparseData {
  Matrix matrix;
  py::array y, weight, loss_parameters;
  int loss;
  bool fit_intercept;

  template <class T, class I>
  SparseProblem<T, I> view_as() const {
    auto problem = matrix.view_as<T, I>();
    row_number(loss, portable::loss_count, "loss");
    problem.y = view<T>(y, problem.n, "y");
    problem.weight = optional_view<T>(weight, problem.n, "weight");
    problem.loss_parameters =
        view<double>(loss_parameters, loss_parameters.size(), "loss_parameters");
    problem.fit_intercept = fit_intercept;
    return problem;
  }
};

// Calls the function with a number of the matrix's index type.
template <class Function>
auto with_index(const Matrix& matrix, Function function) {
  return py::isinstance<py::array_t<int32_t>>(matrix.indices) ? function(int32_t{})
                                                              : function(int64_t{});
}

}  // namespace schuss

r"""How large a learning rate the data can bear, measured on a sample of rows.

The objective's curvature along any direction is at most :math:`L = c\,\lambda_{\max}(X^T X / n) +
\alpha_2`, with c the loss's bound on its second derivative; one sample's at most
:math:`L_{\max} = c \max_i \|x_i\|^2 + \alpha_2`. For batches of B of n rows drawn without
replacement, expected smoothness interpolates between them:

.. math:: L_B = \frac{n(B-1)}{B(n-1)} L + \frac{n-B}{B(n-1)} L_{\max}

Gradient descent with a constant rate is stable up to :math:`2 / L_B`.

References
----------
R. M. Gower et al., SGD: General Analysis and Improved Rates, ICML 2019 (expected smoothness).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from schuss.backends.protocol import Backend, Problem
from schuss.formulas import losses
from schuss.formulas.bijection import draw, permute, round_keys

__all__ = ["Curvature", "measure", "measure_spread"]

SAMPLE_ELEMENTS = 2_000_000
SAMPLE_ROWS = 4096
POWER_ITERATIONS = 20
LEAST_ENTRIES = 8  # of a sparse column, for a notion of its scale
LEAST_ITERATIONS = 8  # the largest direction may have to grow from a small part of the first


@dataclasses.dataclass(frozen=True)
class Curvature:
    """Largest curvature of the mean loss and of one sample's loss.

    Attributes
    ----------
    mean, sample : float
        L and L_max above.
    n : int
        Training rows.
    """

    mean: float
    sample: float
    n: int

    def of_batch(self, batch_size: int) -> float:
        """L_B for a batch size."""
        n, b = self.n, min(batch_size, self.n)
        if n == 1:
            return self.sample
        if b == n:
            return self.mean
        full, single = n * (b - 1) / (b * (n - 1)), (n - b) / (b * (n - 1))
        return full * self.mean + single * self.sample

    def limit(self, batch_size: int) -> float:
        """Largest stable learning rate of plain gradient descent."""
        bound = self.of_batch(batch_size)
        return 2 / bound if bound > 0 else float("inf")


def sample_rows(rows: np.ndarray | None, n: int, n_features: int) -> np.ndarray:
    """A fixed pseudo-random sample of the training rows, bounded in memory."""
    size = min(n, SAMPLE_ROWS, max(16, SAMPLE_ELEMENTS // n_features))
    chosen = permute(n, round_keys(0), 0, size)
    picked: np.ndarray = np.sort(chosen if rows is None else rows[chosen])
    return picked


def measure(
    backend: Backend,
    problem: Problem,
    rows: np.ndarray | None,
    n: int,
    l2: float,
    frequency: np.ndarray | None = None,
) -> Curvature:
    """Measure the curvature on a sample: power iterations by the gradient of a squared error.

    ``frequency`` says how often the order visits each row per epoch; None: once. The bound holds
    for several outputs as for one: they share X, and the Hessian in the margins is bounded.
    """
    sample = sample_rows(rows, n, problem.row_elements)
    bound = problem.loss.curvature_bound(problem.y[sample])
    weight = problem.sample_weight
    visited = weight
    if frequency is not None:
        visited = (frequency if weight is None else frequency * weight).astype(problem.dtype)
    square = Problem(
        problem.X,
        np.zeros(problem.X.shape[0], problem.dtype),
        visited,
        losses.squared_error(),
        fit_intercept=problem.fit_intercept,
    )
    # Any regular direction (all ones, say) is orthogonal to the largest one of some common X.
    direction = (draw(round_keys(0, 1), 0, problem.n_features + 1) - 0.5).astype(problem.dtype)
    direction[-1] *= problem.fit_intercept
    largest = 0.0
    for k in range(POWER_ITERATIONS):
        direction /= max(float(np.linalg.norm(direction.astype(np.float64))), 1e-30)
        _, product = backend.gradient(square, direction, sample)
        product /= sample.size
        with np.errstate(over="ignore", invalid="ignore"):  # X may be too large: looked at below
            grown = float(np.linalg.norm(product))
        if not np.isfinite(grown):
            largest = float("inf")
            break
        settled = k >= LEAST_ITERATIONS and abs(grown - largest) <= 1e-3 * grown
        if not grown > 0 or settled:
            largest = max(largest, grown)
            break
        largest, direction = grown, product.astype(problem.dtype)
    norms = squared_norms(problem, sample) + problem.fit_intercept
    if weight is not None:
        norms *= weight[sample]
    if frequency is not None:
        norms[frequency[sample] == 0] = 0
    return Curvature(bound * largest + l2, bound * float(norms.max()) + l2, n)


def squared_norms(problem: Problem, rows: np.ndarray) -> np.ndarray:
    """Squared norm of each of the rows, in float64."""
    if problem.is_sparse:
        return np.asarray(problem.X.take(rows).squared_norms())
    with np.errstate(over="ignore"):
        picked = problem.X[rows].astype(problem.dtype, copy=False)
        return np.einsum("ij,ij->i", picked, picked, dtype=np.float64)


def measure_spread(problem: Problem, rows: np.ndarray | None, n: int) -> float:
    """Ratio of the largest to the smallest standard deviation among columns that vary.

    Of sparse columns, the root mean square of their entries: how rare a column is, is no scale.
    """
    sample = sample_rows(rows, n, problem.row_elements)
    if problem.is_sparse:
        return sparse_spread(problem.X.take(sample))
    columns = problem.X[sample].astype(problem.dtype, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        spread = columns.std(axis=0, dtype=np.float64)
    # A constant column varies by the rounding of its mean.
    varying = spread[spread > 1e-12 * np.abs(columns[0].astype(np.float64))]
    if not varying.size or not np.isfinite(varying).all():
        return 1.0
    return float(varying.max() / varying.min())


def sparse_spread(X: Any) -> float:
    """Ratio of the largest to the smallest size of entries, among columns that have several."""
    columns, place, counts = np.unique(X.indices, return_inverse=True, return_counts=True)
    squares = np.bincount(place, X.data.astype(np.float64) ** 2, minlength=columns.size)
    known = (counts >= LEAST_ENTRIES) & (squares > 0)
    if not known.any():
        return 1.0
    size = np.sqrt(squares[known] / counts[known])
    return float(size.max() / size.min())

"""Data to measure on: larger than any cache by default."""

from __future__ import annotations

import numpy as np

from schuss.formulas.losses import Loss

__all__ = ["ELEMENTS", "make", "safe_rate"]

ELEMENTS = 100_000_000  # n * d; 400 MB in float32
_ROWS_AT_ONCE = 1 << 16


def make(
    d: int, elements: int, dtype: str, loss: Loss, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal X with n * d = ``elements``, and y of a noisy linear model.

    y is the model's value for a loss of real targets, its sign for one of two classes, a Poisson
    count for one of counts.
    """
    n = max(1, elements // d)
    rng = np.random.default_rng(seed)
    X = np.empty((n, d), dtype)
    drawn = np.float64 if X.dtype == np.float64 else np.float32
    for start in range(0, n, _ROWS_AT_ONCE):  # no second copy of X in memory
        part = X[start : start + _ROWS_AT_ONCE]
        part[:] = rng.standard_normal(part.shape, drawn)
    w = rng.standard_normal(d).astype(dtype)
    margin = X @ w + rng.standard_normal(n).astype(dtype)
    if loss.domain == "binary":
        y = np.where(margin >= 0, 1, -1)
    elif loss.domain == "nonnegative":
        y = rng.poisson(np.exp(margin / np.sqrt(d) / 2))
    else:
        y = margin
    return X, y.astype(dtype)


def safe_rate(X: np.ndarray, loss: Loss) -> float:
    """A learning rate at which no row's own step overshoots: training stays finite throughout."""
    longest = 1.0
    for start in range(0, X.shape[0], _ROWS_AT_ONCE):
        part = X[start : start + _ROWS_AT_ONCE].astype(np.float64)
        longest = max(longest, float(np.einsum("ij,ij->i", part, part).max()))
    curved = 100 if loss.domain == "nonnegative" else 1  # the slope of poisson grows without bound
    return 0.1 / (longest + 1) / curved

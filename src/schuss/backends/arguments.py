"""What Numba kernels are handed: named tuples, so that a pointer comes with what it means."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Data", "Parameters", "Updates", "Visit"]


class Data(NamedTuple):
    """The rows and the loss.

    Attributes
    ----------
    X : ndarray, shape (n_samples, n_features)
    y : ndarray, shape (n_samples,)
    weight : ndarray, shape (n_samples,), or empty
        Empty: every sample counts once.
    loss : int
        Number of the loss in the kernels' table.
    p : ndarray
        Its parameters, in X's dtype.
    fit_intercept : bool
    """

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    loss: int
    p: np.ndarray
    fit_intercept: bool


class Visit(NamedTuple):
    """Which rows, in order: indices, or the range from ``start`` where ``rows`` is empty."""

    rows: np.ndarray
    start: int
    n_rows: int


class Updates(NamedTuple):
    """How a gradient becomes an update; ``constants`` has a row per step, or one for all."""

    rule: int
    constants: np.ndarray
    l2: float
    l1: float
    clip_norm: float


class Parameters(NamedTuple):
    """theta (n_features + 1,), the rule's slots, and the average (empty: none is kept)."""

    theta: np.ndarray
    slots: np.ndarray
    average: np.ndarray
    averaged: Any

"""What Numba kernels are handed: named tuples, so that a pointer comes with what it means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from schuss.formulas.losses import LOSSES, VECTOR_LOSSES
from schuss.formulas.rules import FORMULAS as RULES

__all__ = ["Classic", "Data", "Formulas", "Parameters", "SparseData", "Updates", "Visit", "Walk"]


class Formulas(NamedTuple):
    """The functions that one set of kernels is compiled for.

    Attributes
    ----------
    values, slopes : tuple of callable
        Functions of (margin, y, p), by number of the loss.
    rules : tuple of callable
        Functions of (w, g, a, b, c), by number of the rule.
    digest : str
        Of all they were made from.
    cache : bool
        Whether Numba may keep the compiled kernels on disk.
    vectors : tuple of callable
        Functions of (margins, y, p, slopes), for the losses of several margins.
    """

    values: tuple[Callable[..., Any], ...]
    slopes: tuple[Callable[..., Any], ...]
    rules: tuple[Callable[..., Any], ...]
    digest: str = ""
    cache: bool = False
    vectors: tuple[Callable[..., Any], ...] = ()

    @classmethod
    def builtin(cls) -> Formulas:
        """The tables as they stand."""
        values = tuple(row.value for row in LOSSES)
        slopes = tuple(row.slope for row in LOSSES)
        vectors = tuple(row.weigh for row in VECTOR_LOSSES)  # type: ignore[attr-defined]
        return cls(values, slopes, tuple(RULES.values()), vectors=vectors)


class Data(NamedTuple):
    """The rows and the loss.

    Attributes
    ----------
    X : ndarray, shape (n_samples, n_features)
    y : ndarray, shape (n_samples,); (n_samples, n_outputs) or (n_samples, 1) for several outputs
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


class SparseData(NamedTuple):
    """Sparse rows and the loss: as ``Data``, with the arrays of CSR in place of X."""

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
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
    """theta (n_outputs * (n_features + 1),), the slots, and the average (empty: none is kept)."""

    theta: np.ndarray
    slots: np.ndarray
    average: np.ndarray
    averaged: Any


class Classic(NamedTuple):
    """What a classic step is made of; ``rates`` has one per step, or one for all."""

    rates: np.ndarray
    l2: float
    l1: float
    intercept_decay: float
    drift: float
    passive: int
    aggressiveness: float


class Walk(NamedTuple):
    """The weight vectors of classic steps, as in ``ClassicState``, and where their losses go."""

    coef: np.ndarray
    intercept: np.ndarray
    own: np.ndarray
    active: np.ndarray
    factor: np.ndarray
    owed: np.ndarray
    paid: np.ndarray
    average: np.ndarray
    loss: np.ndarray

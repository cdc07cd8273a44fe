"""Sparse rows of many columns, of which few hold entries: those alone are trained.

The others' weights stay what they were, but for the factor of an L2 penalty, which is the same for
all of them. An epoch then costs what the entries cost, and not the columns: of hashed texts, there
are a million.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from schuss.data.sparse import CSR
from schuss.sklearn.training import Average, Outcome

__all__ = ["Columns"]

# Below so many columns, or with more than half of them used, nothing is gained.
MANY = 1 << 12

Score = Callable[[np.ndarray, float], float]


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns that are trained.

    Attributes
    ----------
    used : ndarray of int64, or None
        Those that hold entries, ascending; None: all.
    width : int
        How many there are.
    witness : bool
        Whether a column without entries, whose weight begins as 1, follows those: it ends as the
        factor that the weights of all such columns have got.
    """

    used: np.ndarray | None
    width: int
    witness: bool = False

    @classmethod
    def of(
        cls, model: Any, X: Any, start: np.ndarray, average: Average | None, max_iter: int
    ) -> Columns:
        """Those for a training that begins with ``start``, (n_outputs, n_features + 1)."""
        width = start.shape[1] - 1
        everything = cls(None, width)
        # Who follows a training is shown the whole model.
        followed = bool(model.callbacks) or model._watch is not None
        if not isinstance(X, CSR) or width < MANY or followed:
            return everything
        counts = np.bincount(X.indices, minlength=width)
        used = np.flatnonzero(counts)
        if 2 * used.size > width:
            return everything
        unused = counts == 0
        if average is not None and average.theta[:, :-1][:, unused].any():
            return everything
        if not start[:, :-1][:, unused].any():
            return cls(used, width)
        # The witness is part of the penalty, by which longer trainings may stop.
        return cls(used, width, witness=True) if max_iter == 1 and average is None else everything

    def rows(self, X: Any) -> Any:
        """The rows with these columns alone."""
        if self.used is None:
            return X
        places = np.zeros(self.width, X.indices.dtype)
        places[self.used] = np.arange(self.used.size)
        shape = (X.shape[0], self.used.size + self.witness)
        return dataclasses.replace(X, indices=places[X.indices], shape=shape)

    def kept(self, theta: np.ndarray) -> np.ndarray:
        """Weight vectors with these columns alone, the intercepts last."""
        if self.used is None:
            return theta
        ones = np.ones((len(theta), int(self.witness)), theta.dtype)
        return np.hstack([theta[:, self.used], ones, theta[:, -1:]])

    def mean(self, average: Average | None) -> Average | None:
        """The mean of the iterates, likewise."""
        return None if average is None else average.of(self.kept(average.theta))

    def put_mean(self, mean: Average | None, average: Average | None) -> None:
        """Bring it to where it belongs."""
        if self.used is None or mean is None or average is None:
            return
        average.theta[:, self.used] = mean.theta[:, :-1]
        average.theta[:, -1] = mean.theta[:, -1]

    def score(self, score: Score | None) -> Score | None:
        """The same score of weights of these columns alone."""
        if self.used is None or score is None:
            return score
        used, coef = self.used, np.zeros(self.width)

        def scored(own: np.ndarray, intercept: float) -> float:
            coef[used] = own[: used.size]
            return score(coef.astype(own.dtype, copy=False), intercept)

        return scored

    def whole(self, made: Sequence[Outcome], start: np.ndarray) -> list[Outcome]:
        """What was trained, with the columns that were not."""
        if self.used is None:
            return list(made)
        return [
            dataclasses.replace(one, theta=self._spread(one.theta, theta))
            for one, theta in zip(made, start, strict=True)
        ]

    def _spread(self, own: np.ndarray, theta: np.ndarray) -> np.ndarray:
        assert self.used is not None
        whole = theta * own[-2] if self.witness else theta.copy()
        whole[self.used] = own[: self.used.size]
        whole[-1] = own[-1]
        return whole

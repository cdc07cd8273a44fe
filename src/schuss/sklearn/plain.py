"""Which rows need none of the checks of everything else that X might be.

scikit-learn's methods take all others: they give the same numbers, and the errors.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["SHORT", "finite", "labelled", "plain"]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

# Numbers of a part that is trained in milliseconds. What is saved is nothing to larger ones, and
# Ctrl-C has to end those.
SHORT = 1 << 20


# Up to so many numbers, BLAS works on the caller's thread.
FEW = 10_000


def plain(model: Any, X: Any) -> bool:
    """Whether X is an array of numbers as wide as a model that was fitted to such."""
    if type(X) is not np.ndarray or X.ndim != 2 or X.dtype not in FLOATS or not X.shape[0]:
        return False
    learnt = vars(model)
    fitted = type(learnt.get("coef_")) is np.ndarray and "feature_names_in_" not in learnt
    return fitted and X.shape[1] == learnt.get("n_features_in_")


def finite(X: np.ndarray) -> bool:
    """Whether all numbers are finite, and no sum of them overflows."""
    # The sum of squares is the quicker one; it takes numbers that lie side by side. Of more of
    # them, BLAS may give it to threads, which cost more than they save.
    if X.size <= FEW and X.flags.forc and math.isfinite(np.vdot(flat := X.ravel("K"), flat)):
        return True
    with np.errstate(all="ignore"):
        return bool(np.isfinite(X.sum()))


def labelled(X: np.ndarray, y: Any, kinds: str) -> bool:
    """Whether y is an array of a label for each row, of one of these kinds of dtype."""
    fits = type(y) is np.ndarray and y.dtype.kind in kinds and y.shape == X.shape[:1]
    return fits and (y.dtype.kind != "f" or finite(y))

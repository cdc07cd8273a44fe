"""What our estimators share beside the training: the methods in which they go beyond scikit-learn.

A mixin, to stand before scikit-learn's class among the bases.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schuss.sklearn.options import departs

__all__ = ["Surface"]


class Surface:
    """Methods of scikit-learn's SGD classes, as ours have them."""

    def _fit(self, *args: Any, sample_weight: Any = None, **given: Any) -> Any:
        if departs(self):
            sample_weight = with_mean_one(sample_weight)
        return super()._fit(*args, sample_weight=sample_weight, **given)  # type: ignore[misc]


def with_mean_one(sample_weight: Any) -> Any:
    """The weights over their mean, so that in a full batch a row of weight 2 is two rows."""
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight)
    total = weights.sum() if weights.dtype.kind in "fiub" else 0.0
    # What is no weight is for scikit-learn's checks to refuse.
    return weights * (weights.size / total) if np.isfinite(total) and total > 0 else sample_weight

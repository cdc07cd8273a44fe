"""What our estimators share beside the training: where they go beyond scikit-learn's methods.

A mixin, to stand before scikit-learn's class among the bases.
"""

from __future__ import annotations

import copy
import difflib
import re
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils._param_validation import InvalidParameterError, StrOptions

from schuss.sklearn.calls import apart
from schuss.sklearn.inputs import readable
from schuss.sklearn.notebook import trained
from schuss.sklearn.options import departs
from schuss.sklearn.watching import CallbackSupportMixin, Watch, is_watched

__all__ = ["Surface"]


class Surface(CallbackSupportMixin):
    """Methods of scikit-learn's SGD classes, as ours have them."""

    def _fit(self, X: Any, *y: Any, sample_weight: Any = None, **given: Any) -> Any:
        data = self._readable(X, *y)
        watch = Watch(self, *data, sample_weight=sample_weight) if is_watched(self) else None
        # scikit-learn's loop would write into the arrays of the caller.
        given |= {name: copy.copy(given[name]) for name in given if name.endswith("_init")}
        weights = with_mean_one(sample_weight) if departs(self) else sample_weight
        with apart(self, watch) as model:
            super(Surface, model)._fit(*data, sample_weight=weights, **given)
        if watch is not None:
            watch.end()
        return self

    def partial_fit(self, X: Any, *y: Any, **given: Any) -> Any:
        """As scikit-learn's, of data as they are given."""
        data = self._readable(X, *y)
        with apart(self) as model:
            super(Surface, model).partial_fit(*data, **given)
        return self

    def _readable(self, X: Any, *y: Any) -> list[Any]:
        """The data as scikit-learn's checks can judge them."""
        labels = [readable(each, "y", dates=is_classifier(self)) for each in y]
        return [readable(X, "X"), *labels]

    def _html_repr(self) -> str:
        """scikit-learn's diagram for notebooks, and below it what the training came to."""
        return str(super()._html_repr()) + trained(self)

    def _validate_params(self) -> None:
        try:
            super()._validate_params()
        except InvalidParameterError as error:
            near = near_option(self, str(error))
            if near is None:
                raise
            raise InvalidParameterError(f"{error} Did you mean {near!r}?") from None


def with_mean_one(sample_weight: Any) -> Any:
    """The weights over their mean, so that in a full batch a row of weight 2 is two rows."""
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight)
    total = weights.sum() if weights.dtype.kind in "fiub" else 0.0
    # What is no weight is for scikit-learn's checks to refuse.
    return weights * (weights.size / total) if np.isfinite(total) and total > 0 else sample_weight


def near_option(model: Any, message: str) -> str | None:
    """The accepted text nearest to the one that scikit-learn's check refused."""
    found = re.match(r"The '(\w+)' parameter", message)
    name = found[1] if found else ""
    accepted = model._parameter_constraints.get(name, [])
    options = [text for each in accepted if isinstance(each, StrOptions) for text in each.options]
    near = difflib.get_close_matches(str(getattr(model, name, "")), options, n=1)
    return near[0] if near else None

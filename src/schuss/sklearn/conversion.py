"""Between scikit-learn's classes and ours: scripts that stay as they are, and fitted models."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn import linear_model
from sklearn.base import is_classifier

from schuss.errors import InvalidArgument, InvalidType
from schuss.sklearn.calls import learnt
from schuss.sklearn.estimators import SGDClassifier, SGDRegressor
from schuss.sklearn.oneclass import SGDOneClassSVM

__all__ = ["from_sklearn", "patch", "to_sklearn", "unpatch"]

PAIRS = {
    linear_model.SGDRegressor: SGDRegressor,
    linear_model.SGDClassifier: SGDClassifier,
    linear_model.SGDOneClassSVM: SGDOneClassSVM,
}
THEIRS = {own: theirs for theirs, own in PAIRS.items()}


def patch() -> None:
    """Put our classes in the place of scikit-learn's, for scripts that import those afterwards.

    Examples
    --------
    >>> import schuss.sklearn
    >>> schuss.sklearn.patch()
    >>> from sklearn.linear_model import SGDClassifier
    >>> SGDClassifier.__module__.split(".")[0]
    'schuss'
    >>> schuss.sklearn.unpatch()
    """
    for own in PAIRS.values():
        setattr(linear_model, own.__name__, own)


def unpatch() -> None:
    """Put scikit-learn's classes back in their place."""
    for theirs in PAIRS:
        setattr(linear_model, theirs.__name__, theirs)


def from_sklearn(model: Any) -> Any:
    """Our estimator with the parameters of scikit-learn's, and what it has learnt.

    Parameters
    ----------
    model : SGDRegressor, SGDClassifier or SGDOneClassSVM of sklearn.linear_model

    Raises
    ------
    schuss.errors.InvalidType
        For anything else.

    Examples
    --------
    >>> from sklearn.linear_model import SGDRegressor
    >>> import schuss.sklearn
    >>> schuss.sklearn.from_sklearn(SGDRegressor(alpha=0.1)).get_params()["alpha"]
    0.1
    """
    if type(model) not in PAIRS:
        names = " or ".join(row.__name__ for row in PAIRS)
        raise InvalidType(
            f"model={model!r}: expected scikit-learn's {names}; got {type(model).__name__}."
        )
    return _as(PAIRS[type(model)], model)


def to_sklearn(model: Any) -> Any:
    """scikit-learn's estimator with the parameters of ours, and what it has learnt.

    Parameters
    ----------
    model : SGDRegressor, SGDClassifier or SGDOneClassSVM of schuss.sklearn

    Raises
    ------
    schuss.errors.InvalidType
        For anything else.
    schuss.errors.InvalidArgument
        For a multinomial model, or one of several outputs: scikit-learn has none.

    Examples
    --------
    >>> import schuss.sklearn
    >>> made = schuss.sklearn.to_sklearn(schuss.sklearn.SGDRegressor(alpha=0.1))
    >>> type(made).__module__.split(".")[0], made.alpha
    ('sklearn', 0.1)
    """
    if type(model) not in THEIRS:
        names = " or ".join(row.__name__ for row in THEIRS)
        raise InvalidType(
            f"model={model!r}: expected {names} of schuss.sklearn; got {type(model).__name__}."
        )
    n_outputs = np.size(getattr(model, "intercept_", 0.0))
    together = getattr(model, "multi_class", "ovr") == "multinomial"
    if together or (n_outputs > 1 and not is_classifier(model)):
        raise InvalidArgument(
            "model: scikit-learn's classes have no multinomial loss and one output only; expected "
            "multi_class='ovr', and one column of targets."
        )
    return _as(THEIRS[type(model)], model)


def _as(kind: Any, model: Any) -> Any:
    """A copy of the model as an object of another class of the pair."""
    known = kind().get_params()
    made = kind(**{name: value for name, value in model.get_params().items() if name in known})
    kept = learnt(model)
    if kind in PAIRS:
        for name in ("backend_", "history_", "_averaged", "_memory", "_skl_callbacks"):
            kept.pop(name, None)
    for name, value in copy.deepcopy(kept).items():
        setattr(made, name, value)
    return made

"""Drop-in faces of scikit-learn's SGD estimators: change one import and it is faster.

>>> import numpy as np
>>> from schuss.sklearn import SGDClassifier
>>> X = np.random.default_rng(0).normal(size=(1000, 5))
>>> model = SGDClassifier(loss="log_loss", random_state=0).fit(X, X[:, 0] > 0)
>>> model.score(X, X[:, 0] > 0) > 0.9
True
"""

from __future__ import annotations

from schuss.errors import MissingPackage

try:
    from schuss.sklearn.conversion import from_sklearn, patch, to_sklearn, unpatch
    from schuss.sklearn.estimators import SGDClassifier, SGDRegressor
    from schuss.sklearn.oneclass import SGDOneClassSVM
    from schuss.sklearn.onnx import register_onnx
except ModuleNotFoundError as error:
    if error.name != "sklearn":
        raise
    raise MissingPackage(
        "schuss.sklearn needs scikit-learn 1.8 or newer: pip install '.[sklearn]' from a clone of "
        "schuss"
    ) from error

__all__ = [
    "SGDClassifier",
    "SGDOneClassSVM",
    "SGDRegressor",
    "from_sklearn",
    "patch",
    "register_onnx",
    "to_sklearn",
    "unpatch",
]

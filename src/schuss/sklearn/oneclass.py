"""SGDOneClassSVM: scikit-learn's interface over schuss's kernels."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np
from sklearn import linear_model
from sklearn.utils import check_random_state

from schuss.checks import with_near_names
from schuss.sklearn.attributes import MAX_INT, keep, start_of, weights_of
from schuss.sklearn.inputs import in_dtype, readable
from schuss.sklearn.options import ENGINE, remember
from schuss.sklearn.parts import go_on
from schuss.sklearn.plain import finite, plain, ready
from schuss.sklearn.rowwise import Setting, train

__all__ = ["SGDOneClassSVM"]


class SGDOneClassSVM(linear_model.SGDOneClassSVM):
    r"""scikit-learn's ``SGDOneClassSVM``, trained by schuss's kernels.

    Minimises :math:`\tfrac{\nu}{2}\|w\|^2 - \nu\rho + \frac1n\sum_i\max(0, \rho - x_i \cdot w)`.

    Parameters
    ----------
    nu, fit_intercept, ..., average
        As in ``sklearn.linear_model.SGDOneClassSVM``.
    backend : {"auto", "native", "jit", "reference"}, default="auto"
        What trains; "auto" takes native, else jit.
    threads : int, optional
        Most threads to use.
    intercept_decay : "auto" or float, default="auto"
        Factor of the offset's own steps, in (0, 1]; "auto": as in scikit-learn, 0.01 on sparse
        rows, else 1.

    Attributes
    ----------
    backend_ : str
        What trained.
    history_ : History
        As of :class:`SGDRegressor`.

    Notes
    -----
    Further attributes are scikit-learn's. ``docs/sklearn.rst`` lists where results differ.

    References
    ----------
    B. Schoelkopf et al., Estimating the Support of a High-Dimensional Distribution, Neural
    Computation 13 (2001).

    Examples
    --------
    >>> import numpy as np
    >>> from schuss.sklearn import SGDOneClassSVM
    >>> X = np.array([[-1, -1], [-2, -1], [1, 1], [2, 1]])
    >>> model = SGDOneClassSVM(random_state=42, tol=None).fit(X)
    >>> model.predict([[4, 4]])
    array([1], dtype=int32)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **linear_model.SGDOneClassSVM._parameter_constraints,
        **ENGINE,
    }

    offset_: np.ndarray

    @with_near_names
    def __init__(
        self,
        nu: float = 0.5,
        fit_intercept: bool = True,
        max_iter: int = 1000,
        tol: float | None = 1e-3,
        shuffle: bool = True,
        verbose: int = 0,
        random_state: Any = None,
        learning_rate: str = "optimal",
        eta0: float = 0.01,
        power_t: float = 0.5,
        warm_start: bool = False,
        average: bool | int = False,
        *,
        backend: str = "auto",
        threads: int | None = None,
        intercept_decay: str | float = "auto",
    ) -> None:
        super().__init__(
            nu=nu,
            fit_intercept=fit_intercept,
            max_iter=max_iter,
            tol=tol,
            shuffle=shuffle,
            verbose=verbose,
            random_state=random_state,
            learning_rate=learning_rate,
            eta0=eta0,
            power_t=power_t,
            warm_start=warm_start,
            average=average,
        )
        self.backend = backend
        self.threads = threads
        self.intercept_decay = intercept_decay

    def _fit(self, X: Any, *args: Any, **given: Any) -> Any:
        # scikit-learn's checks would let these pass, or write into them.
        starts = {name: copy.copy(given.pop(name, None)) for name in ("coef_init", "offset_init")}
        return super()._fit(readable(X, "X"), *args, **starts, **given)

    def _partial_fit(self, X: Any, *args: Any, **given: Any) -> Any:
        return super()._partial_fit(readable(X, "X"), *args, **given)

    def _fit_one_class(
        self,
        X: Any,
        alpha: float,
        sample_weight: np.ndarray,
        learning_rate: str,
        max_iter: int,
    ) -> None:
        X, sample_weight = in_dtype(self, X, sample_weight)
        seed = check_random_state(self.random_state).randint(0, MAX_INT)
        nobody = np.zeros(X.shape[0], dtype=bool)
        setting = Setting.of_data(self, X, nobody, alpha, max_iter, seed, drift=alpha)
        y = np.ones(X.shape[0], dtype=X.dtype)
        # What is trained is the intercept 1 - offset, an attribute for that time alone.
        self.intercept_ = 1 - self.offset_
        try:
            start, mean = start_of(self, X.dtype)
            made = train(self, setting, y, weights_of(sample_weight), start, mean)
            remember(self, made)
            keep(self, made, mean)
            self.offset_ = 1 - self.intercept_
        finally:
            del self.intercept_

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """As scikit-learn's: one epoch over these rows."""
        if sample_weight is not None or not ready(self, X):
            return super().partial_fit(X, y, sample_weight)
        ones = np.ones(X.shape[0], X.dtype)
        self.offset_ = 1 - go_on(self, X, ones, self.nu, 1 - self.offset_, drift=self.nu)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """As scikit-learn's: signed distances, positive for inliers."""
        if not (plain(self, X) and finite(X)):
            return super().decision_function(readable(X, "X"))
        return (X @ self.coef_.T - self.offset_).ravel()

"""SGDOneClassSVM: scikit-learn's interface over schuss's kernels."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn import linear_model
from sklearn.utils import check_random_state

from schuss.checks import with_near_names
from schuss.sklearn.attributes import MAX_INT, keep, start_of, weights_of
from schuss.sklearn.inputs import in_dtype, readable
from schuss.sklearn.options import SHARED, remember
from schuss.sklearn.parts import go_on, plan_for
from schuss.sklearn.plain import finite, plain
from schuss.sklearn.rowwise import Setting, train
from schuss.sklearn.surface import Surface

__all__ = ["SGDOneClassSVM"]


class SGDOneClassSVM(Surface, linear_model.SGDOneClassSVM):
    r"""scikit-learn's ``SGDOneClassSVM``, trained by schuss's kernels.

    Minimises :math:`\tfrac{\nu}{2}\|w\|^2 - \nu\rho + \frac1n\sum_i\max(0, \rho - x_i \cdot w)`.

    Parameters
    ----------
    nu, fit_intercept, ..., average
        As in ``sklearn.linear_model.SGDOneClassSVM``.
    dtype : {"auto", "float32", "float64"}, default="auto"
        What is computed in; "auto" takes float32 for float32 data, else float64. A model that goes
        on keeps its own.
    callbacks : callable or sequence of callables, default=()
        Called after each epoch as :func:`schuss.fit` does, with 1 - offset for the intercept;
        returning True stops the training.
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
        **SHARED,
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
        dtype: str = "auto",
        callbacks: Any = (),
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
        self.dtype = dtype
        self.callbacks = callbacks
        self.backend = backend
        self.threads = threads
        self.intercept_decay = intercept_decay

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
        start, average = start_of(self, X.dtype)
        made = train(self, setting, y, weights_of(sample_weight), start, average)
        remember(self, made)
        keep(self, made, average)
        self.offset_ = 1 - self.intercept_
        del self.intercept_

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """As scikit-learn's: one epoch over these rows."""
        plan = plan_for(self, X) if sample_weight is None else None
        if plan is None:
            return super().partial_fit(X, sample_weight=sample_weight)
        ones = np.ones(X.shape[0], X.dtype)
        self.offset_ = 1 - go_on(self, plan, X, ones, 1 - self.offset_)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """As scikit-learn's: signed distances, positive for inliers."""
        if not (plain(self, X) and finite(X)):
            return super().decision_function(readable(X, "X"))
        return (X @ self.coef_.T - self.offset_).ravel()

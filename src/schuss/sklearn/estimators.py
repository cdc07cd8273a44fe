"""SGDRegressor and SGDClassifier: scikit-learn's interface over schuss's kernels.

The classes are scikit-learn's own, down to their checks and attributes; what is replaced is how the
weights are trained.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import sklearn
from sklearn import linear_model
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.extmath import softmax
from sklearn.utils.metaestimators import available_if
from sklearn.utils.parallel import Parallel, delayed

from schuss.checks import with_near_names
from schuss.data.order import Order
from schuss.errors import MissingPackage
from schuss.formulas.rules import Rule
from schuss.signals import served
from schuss.sklearn.attributes import MAX_INT, keep, start_of, weights_of
from schuss.sklearn.classic import ClassicTraining
from schuss.sklearn.columns import Columns
from schuss.sklearn.inputs import in_dtype, readable
from schuss.sklearn.options import CONSTRAINTS, departs, is_multinomial, journal_of, remember
from schuss.sklearn.outputs import (
    fit_outputs,
    outputs_of,
    score_of,
    signs_of,
    train_classes,
    train_jointly,
)
from schuss.sklearn.parts import go_on, plan_for
from schuss.sklearn.plain import finite, labelled, plain
from schuss.sklearn.rowwise import Setting, train
from schuss.sklearn.surface import Surface

# What is replaced are methods that have these arguments from then on.
if tuple(int(part) for part in sklearn.__version__.split(".")[:2]) < (1, 8):
    raise MissingPackage(
        f"schuss.sklearn needs scikit-learn 1.8 or newer, found {sklearn.__version__}: "
        "pip install '.[sklearn]' from a clone of schuss"
    )

__all__ = ["SGDClassifier", "SGDRegressor"]


class SGDRegressor(Surface, linear_model.SGDRegressor):
    """scikit-learn's ``SGDRegressor``, trained by schuss's kernels.

    Targets of several columns train an output for each: ``coef_`` has shape (n_outputs,
    n_features) then.

    Parameters
    ----------
    loss, penalty, alpha, ..., average
        As in ``sklearn.linear_model.SGDRegressor``.
    batch_size : int or "full", default=1
        Rows of a step: the mean of their gradients makes one update. More than there are, and
        "full", take all.
    rule : str or Rule, default="sgd"
        How a gradient becomes an update: a name, a text form such as "sgd(momentum=0.9)", or an
        object of ``schuss.rules``.
    order : str or Order, optional
        Which row is visited when: a name, a text form, or an object of ``schuss.orders``. By
        default as ``shuffle`` says.
    dtype : {"auto", "float32", "float64"}, default="auto"
        What is computed in; "auto" takes float32 for float32 data, else float64. A model that goes
        on keeps its own.
    clip_norm : float, optional
        Largest norm of a step's gradient; longer ones are scaled.
    callbacks : callable or sequence of callables, default=()
        Called after each epoch as :func:`schuss.fit` does; returning True stops the training.
    backend : {"auto", "native", "jit", "reference"}, default="auto"
        What trains; "auto" takes native, else jit.
    threads : int, optional
        Most threads to use.
    intercept_decay : "auto" or float, default="auto"
        Factor of the intercept's own steps, in (0, 1]; "auto": as in scikit-learn, 0.01 on sparse
        rows, else 1. For scikit-learn's steps alone.

    Attributes
    ----------
    backend_ : str
        What trained.
    history_ : History
        A row for each epoch: ``epoch``, ``updates``, ``samples``, ``train_loss`` (mean over the
        rows, each as its turn came, without the penalty), ``validation_score`` (NaN without
        ``early_stopping``), ``learning_rate``, ``seconds`` and ``samples_per_second``.

    Notes
    -----
    Further attributes are scikit-learn's. ``docs/sklearn.rst`` lists where results differ.

    References
    ----------
    L. Bottou, Stochastic Gradient Descent Tricks, in: Neural Networks: Tricks of the Trade (2012).

    Examples
    --------
    >>> import numpy as np
    >>> from schuss.sklearn import SGDRegressor
    >>> X = np.random.default_rng(0).normal(size=(1000, 3))
    >>> SGDRegressor(random_state=0).fit(X, X @ [1.0, 2.0, 3.0]).coef_.round(1)
    array([1., 2., 3.])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **linear_model.SGDRegressor._parameter_constraints,
        **CONSTRAINTS,
    }

    intercept_: np.ndarray

    @with_near_names
    def __init__(
        self,
        loss: str = "squared_error",
        *,
        penalty: str | None = "l2",
        alpha: float = 0.0001,
        l1_ratio: float = 0.15,
        fit_intercept: bool = True,
        max_iter: int = 1000,
        tol: float | None = 1e-3,
        shuffle: bool = True,
        verbose: int = 0,
        epsilon: float = 0.1,
        random_state: Any = None,
        learning_rate: str = "invscaling",
        eta0: float = 0.01,
        power_t: float = 0.25,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        warm_start: bool = False,
        average: bool | int = False,
        batch_size: int | str = 1,
        rule: str | Rule = "sgd",
        order: str | Order | None = None,
        dtype: str = "auto",
        clip_norm: float | None = None,
        callbacks: Any = (),
        backend: str = "auto",
        threads: int | None = None,
        intercept_decay: str | float = "auto",
    ) -> None:
        super().__init__(
            loss=loss,
            penalty=penalty,
            alpha=alpha,
            l1_ratio=l1_ratio,
            fit_intercept=fit_intercept,
            max_iter=max_iter,
            tol=tol,
            shuffle=shuffle,
            verbose=verbose,
            epsilon=epsilon,
            random_state=random_state,
            learning_rate=learning_rate,
            eta0=eta0,
            power_t=power_t,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            warm_start=warm_start,
            average=average,
        )
        self.batch_size = batch_size
        self.rule = rule
        self.order = order
        self.dtype = dtype
        self.clip_norm = clip_norm
        self.callbacks = callbacks
        self.backend = backend
        self.threads = threads
        self.intercept_decay = intercept_decay

    def _partial_fit(self, X: Any, y: Any, *args: Any, **given: Any) -> Any:
        if outputs_of(y) == 1 and np.size(getattr(self, "intercept_", 0.0)) == 1:
            return super()._partial_fit(X, y, *args, **given)
        return fit_outputs(self, X, y, *args, **given)

    def predict(self, X: Any) -> np.ndarray:
        """Predict targets.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples,) or (n_samples, n_outputs)
        """
        margins = self._decision_function(X if plain(self, X) else readable(X, "X"))
        n_outputs = self.intercept_.size
        return margins.reshape(-1, n_outputs) if n_outputs > 1 else margins

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _fit_regressor(
        self,
        X: Any,
        y: np.ndarray,
        alpha: float,
        loss: str,
        learning_rate: str,
        sample_weight: np.ndarray,
        max_iter: int,
    ) -> None:
        if not hasattr(self, "t_"):
            self.t_ = 1.0
        X, y, sample_weight = in_dtype(self, X, y, sample_weight)
        if departs(self):
            train_jointly(self, X, y, y, sample_weight=sample_weight, max_iter=max_iter)
            return
        held_out = self._make_validation_split(y, sample_mask=sample_weight > 0)
        score = self._make_validation_score_cb(held_out, X, y, sample_weight)
        seed = check_random_state(self.random_state).randint(0, MAX_INT)
        setting = Setting.of_data(self, X, held_out, alpha, max_iter, seed)
        start, average = start_of(self, X.dtype)
        made = train(self, setting, y, weights_of(sample_weight), start, average, score)
        remember(self, made)
        keep(self, made, average)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """As scikit-learn's: one epoch over these rows."""
        plan = plan_for(self, X) if sample_weight is None else None
        if plan is None or not labelled(X, y, "fiub") or self.intercept_.size > 1:
            return super().partial_fit(X, y, sample_weight=sample_weight)
        y = np.ascontiguousarray(y, X.dtype)
        self.intercept_ = go_on(self, plan, X, y, self.intercept_)
        return self

    def _decision_function(self, X: Any) -> np.ndarray:
        if not (plain(self, X) and finite(X)):
            return super()._decision_function(X)
        return (X @ self.coef_.T + self.intercept_).ravel()


class SGDClassifier(Surface, linear_model.SGDClassifier):
    """scikit-learn's ``SGDClassifier``, trained by schuss's kernels.

    More than two classes are trained one against the rest, all in one pass over the rows (with
    ``n_jobs`` each job takes a share of the classes), or together by one loss.

    Parameters
    ----------
    loss, penalty, alpha, ..., average
        As in ``sklearn.linear_model.SGDClassifier``.
    batch_size : int or "full", default=1
        Rows of a step: the mean of their gradients makes one update. More than there are, and
        "full", take all.
    rule : str or Rule, default="sgd"
        How a gradient becomes an update: a name, a text form such as "sgd(momentum=0.9)", or an
        object of ``schuss.rules``.
    order : str or Order, optional
        Which row is visited when: a name, a text form, or an object of ``schuss.orders``. By
        default as ``shuffle`` says.
    dtype : {"auto", "float32", "float64"}, default="auto"
        What is computed in; "auto" takes float32 for float32 data, else float64. A model that goes
        on keeps its own.
    clip_norm : float, optional
        Largest norm of a step's gradient; longer ones are scaled.
    callbacks : callable or sequence of callables, default=()
        Called after each epoch as :func:`schuss.fit` does; returning True stops the training.
    multi_class : {"ovr", "multinomial"}, default="ovr"
        How more than two classes are trained: each against the rest, or all together by the
        multinomial loss, which needs ``loss="log_loss"``.
    backend : {"auto", "native", "jit", "reference"}, default="auto"
        What trains; "auto" takes native, else jit.
    threads : int, optional
        Most threads to use.
    intercept_decay : "auto" or float, default="auto"
        Factor of the intercept's own steps, in (0, 1]; "auto": as in scikit-learn, 0.01 on sparse
        rows, else 1. For scikit-learn's steps alone.

    Attributes
    ----------
    backend_ : str
        As of :class:`SGDRegressor`.
    history_ : History
        As of :class:`SGDRegressor`; of classes trained one by one, the mean of their losses.

    Notes
    -----
    Further attributes are scikit-learn's. ``docs/sklearn.rst`` lists where results differ.

    References
    ----------
    L. Bottou, Stochastic Gradient Descent Tricks, in: Neural Networks: Tricks of the Trade (2012).

    Examples
    --------
    >>> import numpy as np
    >>> from schuss.sklearn import SGDClassifier
    >>> X = np.random.default_rng(0).normal(size=(1000, 3))
    >>> y = np.where(X[:, 0] > 0, "yes", "no")
    >>> SGDClassifier(random_state=0).fit(X, y).score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **linear_model.SGDClassifier._parameter_constraints,
        **CONSTRAINTS,
        "multi_class": [StrOptions({"ovr", "multinomial"})],
    }

    intercept_: np.ndarray

    @with_near_names
    def __init__(
        self,
        loss: str = "hinge",
        *,
        penalty: str | None = "l2",
        alpha: float = 0.0001,
        l1_ratio: float = 0.15,
        fit_intercept: bool = True,
        max_iter: int = 1000,
        tol: float | None = 1e-3,
        shuffle: bool = True,
        verbose: int = 0,
        epsilon: float = 0.1,
        n_jobs: int | None = None,
        random_state: Any = None,
        learning_rate: str = "optimal",
        eta0: float = 0.01,
        power_t: float = 0.5,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        class_weight: Any = None,
        warm_start: bool = False,
        average: bool | int = False,
        batch_size: int | str = 1,
        rule: str | Rule = "sgd",
        order: str | Order | None = None,
        dtype: str = "auto",
        clip_norm: float | None = None,
        callbacks: Any = (),
        multi_class: str = "ovr",
        backend: str = "auto",
        threads: int | None = None,
        intercept_decay: str | float = "auto",
    ) -> None:
        super().__init__(
            loss=loss,
            penalty=penalty,
            alpha=alpha,
            l1_ratio=l1_ratio,
            fit_intercept=fit_intercept,
            max_iter=max_iter,
            tol=tol,
            shuffle=shuffle,
            verbose=verbose,
            epsilon=epsilon,
            n_jobs=n_jobs,
            random_state=random_state,
            learning_rate=learning_rate,
            eta0=eta0,
            power_t=power_t,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            class_weight=class_weight,
            warm_start=warm_start,
            average=average,
        )
        self.batch_size = batch_size
        self.rule = rule
        self.order = order
        self.dtype = dtype
        self.clip_norm = clip_norm
        self.callbacks = callbacks
        self.multi_class = multi_class
        self.backend = backend
        self.threads = threads
        self.intercept_decay = intercept_decay

    @available_if(linear_model.SGDClassifier._check_proba)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class, for ``loss="log_loss"`` or "modified_huber".

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples, n_classes)
            The softmax of the margins with ``multi_class="multinomial"``, else as scikit-learn's.
        """
        if is_multinomial(self):
            return softmax(self.decision_function(X))
        return super().predict_proba(X)

    def decision_function(self, X: Any) -> np.ndarray:
        """Margins: positive ones mean the second of two classes, the largest wins of more.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples,) or (n_samples, n_classes)
        """
        if not (plain(self, X) and finite(X)):
            return super().decision_function(readable(X, "X"))
        scores = X @ self.coef_.T + self.intercept_
        return scores.ravel() if scores.shape[1] == 1 else scores

    def _fit_binary(
        self,
        X: Any,
        y: np.ndarray,
        alpha: float,
        sample_weight: np.ndarray,
        learning_rate: str,
        max_iter: int,
    ) -> None:
        X, sample_weight = in_dtype(self, X, sample_weight)
        if departs(self):
            train_classes(self, X, y, sample_weight=sample_weight, max_iter=max_iter)
            return
        numbers = np.searchsorted(self.classes_, y)
        signs = signs_of(numbers, 1, X.dtype)
        random_state = check_random_state(self.random_state)
        held_out = self._make_validation_split(signs, sample_mask=sample_weight > 0)
        score = score_of(self, held_out, X, signs, sample_weight)
        setting = Setting.of_data(self, X, held_out, alpha, max_iter, random_state.randint(MAX_INT))
        weights = weights_of(sample_weight, self._expanded_class_weight[numbers])
        start, average = start_of(self, X.dtype)
        made = train(self, setting, signs, weights, start, average, score)
        remember(self, made)
        keep(self, made, average)

    def _fit_multiclass(
        self,
        X: Any,
        y: np.ndarray,
        alpha: float,
        learning_rate: str,
        sample_weight: np.ndarray,
        max_iter: int,
    ) -> None:
        from joblib import effective_n_jobs  # which scikit-learn depends on

        X, sample_weight = in_dtype(self, X, sample_weight)
        if departs(self):
            train_classes(self, X, y, sample_weight=sample_weight, max_iter=max_iter)
            return
        held_out = self._make_validation_split(y, sample_mask=sample_weight > 0)
        # One order for all classes; as many seeds are drawn as scikit-learn draws.
        classes = range(len(self.classes_))
        seed = check_random_state(self.random_state).randint(MAX_INT, size=len(classes))[0]
        setting = Setting.of_data(self, X, held_out, alpha, max_iter, int(seed))
        numbers, scores = np.searchsorted(self.classes_, y), None
        if self.early_stopping:
            signs = (signs_of(numbers, k, X.dtype) for k in classes)
            scores = [score_of(self, held_out, X, one, sample_weight) for one in signs]
        start, average = start_of(self, X.dtype)
        columns = Columns.of(self, setting.rows, start, average, max_iter)
        setting = replace(setting, rows=columns.rows(setting.rows))
        training = ClassicTraining(
            **setting.of(self, numbers.astype(X.dtype), weights_of(sample_weight)),
            step=setting.recipe.step,
            own=self._expanded_class_weight.astype(X.dtype),
            scores=scores and [columns.score(score) for score in scores],
        )
        mean = columns.mean(average)
        jobs = min(effective_n_jobs(self.n_jobs), len(classes))
        journals = [journal_of(self, setting.n_rows, k) for k in classes]
        given = (columns.kept(start), int(self.t_) - 1, max_iter, journals, mean)
        with served(self._asked, terminate=False):
            shares = Parallel(n_jobs=jobs, verbose=self.verbose, require="sharedmem")(
                delayed(training.run_all)(*given, share) for share in np.array_split(classes, jobs)
            )
        columns.put_mean(mean, average)
        made = columns.whole([outcome for share in shares for outcome in share], start)
        remember(self, made, together=True)
        keep(self, made, average)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        """As scikit-learn's: one epoch over these rows."""
        plan = plan_for(self, X) if sample_weight is None else None
        codes = None if plan is None else self._codes(X, y, classes)
        if plan is None or codes is None:
            return super().partial_fit(X, y, classes=classes, sample_weight=sample_weight)
        several = len(self.classes_) > 2
        labels = codes if several else 2 * codes - 1
        own = np.ones(len(self.classes_), X.dtype) if several else None
        self.intercept_ = go_on(self, plan, X, labels.astype(X.dtype), self.intercept_, own)
        return self

    def _codes(self, X: Any, y: Any, classes: Any) -> np.ndarray | None:
        """Numbers of the rows' classes; None where y has to be looked at first."""
        if not labelled(X, y, "fiubU"):
            return None
        if classes is not None and not np.array_equal(classes, self.classes_):
            return None
        codes = np.searchsorted(self.classes_, y)
        return codes if (self.classes_.take(codes, mode="clip") == y).all() else None

    def predict(self, X: Any) -> np.ndarray:
        """As scikit-learn's: the class of each row."""
        if not plain(self, X):
            return super().predict(X)
        scores = self.decision_function(X)
        one = scores.ndim == 1
        return self.classes_[(scores > 0).astype(np.intp) if one else scores.argmax(axis=1)]

    def _make_validation_split(self, y: np.ndarray, sample_mask: np.ndarray) -> np.ndarray:
        """As scikit-learn's, but with room for a row of each class."""
        n, classes = y.size, np.unique(y).size
        if not self.early_stopping or self.validation_fraction * n > classes - 1:
            return super()._make_validation_split(y, sample_mask)
        roomy = copy.copy(self)
        roomy.validation_fraction = (classes - 0.5) / n
        return super(SGDClassifier, roomy)._make_validation_split(y, sample_mask)

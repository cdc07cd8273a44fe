"""SGDRegressor and SGDClassifier: scikit-learn's interface over schuss's kernels.

The classes are scikit-learn's own, down to their checks and attributes; what is replaced is how the
weights are trained. What the kernels have no loop for yet (:class:`LeftOut`) is trained by
scikit-learn's loop, and the attribute ``backend_`` says so.
"""

from __future__ import annotations

import copy
import logging
from typing import Any, ClassVar

import numpy as np
import sklearn
from sklearn import linear_model
from sklearn.base import is_classifier
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.extmath import softmax
from sklearn.utils.metaestimators import available_if
from sklearn.utils.parallel import Parallel, delayed

from schuss.backends import Backend, Problem, choose
from schuss.checks import check_callbacks
from schuss.data.order import Order
from schuss.data.sparse import as_rows, is_sparse
from schuss.errors import InvalidArgument, InvalidType, MissingPackage
from schuss.formulas.penalties import Penalty
from schuss.formulas.rules import Rule
from schuss.sklearn.attributes import keep, weights_of
from schuss.sklearn.inputs import in_dtype, readable
from schuss.sklearn.options import (
    CONSTRAINTS,
    departs,
    is_multinomial,
    journal_of,
    loss_of,
    remember,
)
from schuss.sklearn.outputs import fit_outputs, outputs_of, train_classes, train_jointly
from schuss.sklearn.surface import Surface, with_near_names
from schuss.sklearn.training import Average, LeftOut, Outcome, Training, schedule_of

# What is replaced are methods that have these arguments from then on.
if tuple(int(part) for part in sklearn.__version__.split(".")[:2]) < (1, 8):
    raise MissingPackage(
        f"schuss.sklearn needs scikit-learn 1.8 or newer, found {sklearn.__version__}: "
        "pip install '.[sklearn]' from a clone of schuss"
    )

__all__ = ["SGDClassifier", "SGDRegressor", "from_sklearn", "patch", "to_sklearn", "unpatch"]

log = logging.getLogger("schuss")

MAX_INT = np.iinfo(np.int32).max


def engine_of(model: Any, X: Any) -> Backend:
    """The backend that trains, also by its name in ``backend_``.

    Raises
    ------
    LeftOut
        If the kernels have no loop for what the model asks for.
    """
    if model.penalty not in (None, "l2"):
        raise LeftOut(f"penalty={model.penalty!r}")
    if model.learning_rate in ("pa1", "pa2"):
        raise LeftOut(f"learning_rate={model.learning_rate!r}")
    if is_sparse(X) and model.fit_intercept:
        raise LeftOut("the intercept of sparse rows, which learns more slowly there")
    if model.learning_rate == "invscaling" and model.power_t < 0:
        raise LeftOut(f"power_t={model.power_t}")
    rate = schedule_of(model.learning_rate, model.eta0, model.power_t, model.alpha)(model.t_ - 1)
    if rate * model.alpha > 1:
        raise LeftOut(f"a learning rate above 1/alpha: {rate:.3g}")
    engine = choose(model.backend, loss_of(model), model.threads)
    model.backend_ = engine.name
    return engine


def leave_to_sklearn(model: Any, reason: LeftOut) -> None:
    """Say that scikit-learn's loop trains; a backend asked for by name refuses that."""
    if model.backend != "auto":
        raise InvalidArgument(
            f"backend={model.backend!r} does not train {reason}; backend='auto' leaves it to "
            "scikit-learn's loop."
        ) from None
    if check_callbacks(model.callbacks):
        raise InvalidArgument(
            f"callbacks: scikit-learn's loop trains {reason} and calls none; expected ()."
        ) from None
    log.info("%s: trained by scikit-learn's loop (%s)", type(model).__name__, reason)
    vars(model).pop("history_", None)
    model.backend_ = "scikit-learn"


def theta_of(model: Any, name: str, row: int = 0) -> np.ndarray:
    """Coefficients and intercept of the attributes of that name, those of one class."""
    coef, intercept = (getattr(model, name.format(part)) for part in ("coef", "intercept"))
    return np.append(np.atleast_2d(coef)[row], np.atleast_1d(intercept)[row])


def train(
    model: Any,
    engine: Backend,
    rows: Any,
    y: np.ndarray,
    weights: np.ndarray | None,
    start: np.ndarray,
    mean: np.ndarray | None,
    max_iter: int,
    held_out: np.ndarray,
    score: Any,
    seed: int,
    row: int = 0,
) -> Outcome:
    """Train one weight vector, and the mean of its iterates in ``mean``, as the model says."""
    if weights is not None and score is None and model.tol is not None:
        raise LeftOut("weights, which the stopping criterion does not know")
    problem = Problem(
        rows,
        y,
        weights,
        loss_of(model),
        Penalty(l2=model.alpha if model.penalty == "l2" else 0.0),
        bool(model.fit_intercept),
    )
    training = Training(
        engine,
        problem,
        np.flatnonzero(~held_out) if held_out.any() else None,
        schedule_of(model.learning_rate, model.eta0, model.power_t, model.alpha),
        model.learning_rate == "adaptive",
        model.shuffle,
        seed,
        int(model.n_iter_no_change),
        -np.inf if model.tol is None else model.tol,
        score,
    )
    average = None if mean is None else Average(int(model.average), mean)
    journal = journal_of(model, int((~held_out).sum()), row)
    return training.run(start.astype(y.dtype), int(model.t_) - 1, max_iter, journal, average)


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
        What trains; "auto" takes native, else jit, and leaves to scikit-learn's loop what they do
        not train. A backend asked for by name refuses that.
    threads : int, optional
        Most threads to use.

    Attributes
    ----------
    backend_ : str
        What trained; "scikit-learn" where its loop did: L1 and elastic-net penalties,
        passive-aggressive steps, sparse rows with an intercept, weights with ``tol`` and without
        ``early_stopping``, losses that overflow.
    history_ : History
        A row for each epoch: ``epoch``, ``updates``, ``samples``, ``train_loss`` (mean over the
        rows, each as its turn came, without the penalty), ``validation_score`` (NaN without
        ``early_stopping``), ``learning_rate``, ``seconds`` and ``samples_per_second``. Absent
        where scikit-learn's loop trained.

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
        margins = super().predict(readable(X, "X"))
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
        try:
            self._train(engine_of(self, X), X, y, sample_weight, max_iter)
        except LeftOut as reason:
            leave_to_sklearn(self, reason)
            super()._fit_regressor(X, y, alpha, loss, learning_rate, sample_weight, max_iter)

    def _train(
        self, engine: Backend, X: Any, y: np.ndarray, sample_weight: np.ndarray, max_iter: int
    ) -> None:
        held_out = self._make_validation_split(y, sample_mask=sample_weight > 0)
        score = self._make_validation_score_cb(held_out, X, y, sample_weight)
        seed = check_random_state(self.random_state).randint(0, MAX_INT)
        start = theta_of(self, "_standard_{}" if self.average else "{}_")
        mean = theta_of(self, "_average_{}").astype(np.float64) if self.average else None
        weights = weights_of(sample_weight)
        rows = as_rows(X, X.dtype)
        made = train(self, engine, rows, y, weights, start, mean, max_iter, held_out, score, seed)
        remember(self, [made])
        keep(self, [made], [mean])


class SGDClassifier(Surface, linear_model.SGDClassifier):
    """scikit-learn's ``SGDClassifier``, trained by schuss's kernels.

    More than two classes are trained one against the rest, ``n_jobs`` of them at a time, or all
    together.

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
        What trains; "auto" takes native, else jit, and leaves to scikit-learn's loop what they do
        not train. A backend asked for by name refuses that.
    threads : int, optional
        Most threads to use.

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
        return super().decision_function(readable(X, "X"))

    def _fit_binary(self, X: Any, y: np.ndarray, **given: Any) -> None:
        X, given["sample_weight"] = in_dtype(self, X, given["sample_weight"])
        if departs(self):
            train_classes(self, X, y, **given)
            return
        try:
            engine = engine_of(self, X)
            rows = as_rows(X, X.dtype)
            made, mean = self._one_class(engine, rows, X, y, 1, None, self.random_state, **given)
            remember(self, [made])
            keep(self, [made], [mean])
        except LeftOut as reason:
            leave_to_sklearn(self, reason)
            super()._fit_binary(X, y, **given)

    def _fit_multiclass(self, X: Any, y: np.ndarray, **given: Any) -> None:
        X, given["sample_weight"] = in_dtype(self, X, given["sample_weight"])
        if departs(self):
            train_classes(self, X, y, **given)
            return
        try:
            self._train_classes(engine_of(self, X), X, y, **given)
        except LeftOut as reason:
            leave_to_sklearn(self, reason)
            super()._fit_multiclass(X, y, **given)

    def _train_classes(self, engine: Backend, X: Any, y: np.ndarray, **given: Any) -> None:
        weights, rows = given["sample_weight"], as_rows(X, X.dtype)
        held_out = self._make_validation_split(y, sample_mask=weights > 0)
        # Drawn before the threads start, so that the draws do not depend on them.
        seeds = check_random_state(self.random_state).randint(MAX_INT, size=len(self.classes_))
        trained = Parallel(n_jobs=self.n_jobs, verbose=self.verbose, require="sharedmem")(
            delayed(self._one_class)(engine, rows, X, y, k, held_out, seed, **given)
            for k, seed in enumerate(seeds)
        )
        made, means = zip(*trained, strict=True)
        remember(self, made)
        keep(self, made, means)

    def _one_class(
        self,
        engine: Backend,
        rows: Any,
        X: Any,
        y: np.ndarray,
        k: int,
        held_out: np.ndarray | None,
        random_state: Any,
        *,
        sample_weight: np.ndarray,
        max_iter: int,
        **_: Any,
    ) -> tuple[Outcome, np.ndarray | None]:
        """Train class ``k`` against the others on ``rows`` of X: outcome, and the mean if kept."""
        binary = len(self.classes_) == 2
        signs = np.where(y == self.classes_[k], 1, -1).astype(X.dtype)
        if held_out is None:
            held_out = self._make_validation_split(signs, sample_mask=sample_weight > 0)
        score = self._make_validation_score_cb(
            held_out, X, signs, sample_weight, classes=np.array([-1, 1], dtype=X.dtype)
        )
        seed = check_random_state(random_state).randint(MAX_INT)
        others = self._expanded_class_weight[0] if binary else 1.0
        per_row = np.where(signs > 0, self._expanded_class_weight[k], others)
        row = 0 if binary else k
        start = theta_of(self, "_standard_{}" if self.average else "{}_", row)
        mean = theta_of(self, "_average_{}", row).astype(np.float64) if self.average else None
        weights = weights_of(sample_weight, per_row)
        made = train(
            self, engine, rows, signs, weights, start, mean, max_iter, held_out, score, seed, row
        )
        return made, mean


# ---- Between scikit-learn's classes and ours ----

PAIRS = {
    linear_model.SGDRegressor: SGDRegressor,
    linear_model.SGDClassifier: SGDClassifier,
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
    model : SGDRegressor or SGDClassifier of sklearn.linear_model

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
    model : SGDRegressor or SGDClassifier of schuss.sklearn

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
    if is_multinomial(model) or (n_outputs > 1 and not is_classifier(model)):
        raise InvalidArgument(
            "model: scikit-learn's classes have no multinomial loss and one output only; expected "
            "multi_class='ovr', and one column of targets."
        )
    return _as(THEIRS[type(model)], model)


def _as(kind: Any, model: Any) -> Any:
    """A copy of the model as an object of another class of the pair."""
    known = kind().get_params()
    made = kind(**{name: value for name, value in model.get_params().items() if name in known})
    learnt = {k: v for k, v in vars(model).items() if k.endswith("_") or k.startswith("_")}
    if kind in PAIRS:
        for name in ("backend_", "history_", "_memory"):
            learnt.pop(name, None)
    for name, value in copy.deepcopy(learnt).items():
        setattr(made, name, value)
    return made

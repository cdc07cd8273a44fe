"""SGDRegressor and SGDClassifier: scikit-learn's interface over schuss's kernels.

The classes are scikit-learn's own, down to their checks and attributes; what is replaced is how the
weights are trained. What the kernels have no loop for yet (:class:`LeftOut`) is trained by
scikit-learn's loop, and the attribute ``backend_`` says so.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import sklearn
from sklearn import linear_model
from sklearn.base import is_classifier
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.parallel import Parallel, delayed

from schuss.backends import Backend, Problem, choose
from schuss.data.sparse import as_rows, is_sparse
from schuss.errors import InvalidArgument, InvalidType, MissingPackage
from schuss.formulas import losses
from schuss.formulas.losses import Loss
from schuss.formulas.penalties import Penalty
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
CONSTRAINTS: dict[str, list[Any]] = {
    "backend": [StrOptions({"auto", "native", "jit", "reference"})],
    "threads": [Interval(Integral, 1, None, closed="left"), None],
}


def loss_of(model: Any) -> Loss:
    """Schuss's loss of the estimator's ``loss`` and ``epsilon``."""
    row: Any = losses.LOSSES.rows[model.loss]
    loss: Loss = row(model.epsilon) if "epsilon" in row.__dataclass_fields__ else row()
    return loss


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
    log.info("%s: trained by scikit-learn's loop (%s)", type(model).__name__, reason)
    model.backend_ = "scikit-learn"


def weights_of(sample_weight: np.ndarray, per_row: Any = 1.0) -> np.ndarray | None:
    """Weights of the rows; None where all are 1."""
    weights = (sample_weight * per_row).astype(sample_weight.dtype)
    return None if (weights == 1).all() else weights


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
        model.verbose,
    )
    average = None if mean is None else Average(int(model.average), mean)
    return training.run(start.astype(y.dtype), int(model.t_) - 1, max_iter, average)


def keep(model: Any, made: Sequence[Outcome], means: Sequence[np.ndarray | None]) -> None:
    """Make attributes of what was trained: one weight vector, or one for each class."""

    def parts(thetas: Any) -> tuple[np.ndarray, np.ndarray]:
        theta = np.stack(thetas).astype(made[0].theta.dtype)
        coef, intercept = theta[:, :-1].copy(), theta[:, -1].copy()
        return (coef if is_classifier(model) else coef[0]), intercept

    model.n_iter_ = max(one.epochs for one in made)
    model.t_ += max(one.updates for one in made)
    model.coef_, model.intercept_ = parts([one.theta for one in made])
    if model.average:
        model._standard_coef, model._standard_intercept = model.coef_, model.intercept_
        model._average_coef, model._average_intercept = parts(means)
        if model.average <= model.t_ - 1:
            model.coef_, model.intercept_ = model._average_coef, model._average_intercept


class SGDRegressor(linear_model.SGDRegressor):
    """scikit-learn's ``SGDRegressor``, trained by schuss's kernels.

    Parameters
    ----------
    loss, penalty, alpha, ..., average
        As in ``sklearn.linear_model.SGDRegressor``.
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
        self.backend = backend
        self.threads = threads

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
        keep(self, [made], [mean])


class SGDClassifier(linear_model.SGDClassifier):
    """scikit-learn's ``SGDClassifier``, trained by schuss's kernels.

    More than two classes are trained one against the rest, ``n_jobs`` of them at a time.

    Parameters
    ----------
    loss, penalty, alpha, ..., average
        As in ``sklearn.linear_model.SGDClassifier``.
    backend : {"auto", "native", "jit", "reference"}, default="auto"
        What trains; "auto" takes native, else jit, and leaves to scikit-learn's loop what they do
        not train. A backend asked for by name refuses that.
    threads : int, optional
        Most threads to use.

    Attributes
    ----------
    backend_ : str
        As of :class:`SGDRegressor`.

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
    }

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
        self.backend = backend
        self.threads = threads

    def _fit_binary(self, X: Any, y: np.ndarray, **given: Any) -> None:
        try:
            engine = engine_of(self, X)
            rows = as_rows(X, X.dtype)
            made, mean = self._one_class(engine, rows, X, y, 1, None, self.random_state, **given)
            keep(self, [made], [mean])
        except LeftOut as reason:
            leave_to_sklearn(self, reason)
            super()._fit_binary(X, y, **given)

    def _fit_multiclass(self, X: Any, y: np.ndarray, **given: Any) -> None:
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
        keep(self, *zip(*trained, strict=True))

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
            self, engine, rows, signs, weights, start, mean, max_iter, held_out, score, seed
        )
        return made, mean


# ---- Between scikit-learn's classes and ours ----

PAIRS = {row.__base__: row for row in (SGDRegressor, SGDClassifier)}


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
    for own in PAIRS.values():
        setattr(linear_model, own.__name__, own.__base__)


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

    Examples
    --------
    >>> import schuss.sklearn
    >>> made = schuss.sklearn.to_sklearn(schuss.sklearn.SGDRegressor(alpha=0.1))
    >>> type(made).__module__.split(".")[0], made.alpha
    ('sklearn', 0.1)
    """
    if type(model) not in PAIRS.values():
        names = " or ".join(row.__name__ for row in PAIRS.values())
        raise InvalidType(
            f"model={model!r}: expected {names} of schuss.sklearn; got {type(model).__name__}."
        )
    return _as(type(model).__base__, model)


def _as(kind: Any, model: Any) -> Any:
    """A copy of the model as an object of another class of the pair."""
    known = kind().get_params()
    made = kind(**{name: value for name, value in model.get_params().items() if name in known})
    learnt = {k: v for k, v in vars(model).items() if k.endswith("_") or k.startswith("_")}
    if kind in PAIRS:
        learnt.pop("backend_", None)
    for name, value in copy.deepcopy(learnt).items():
        setattr(made, name, value)
    return made

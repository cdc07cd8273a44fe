"""What ``fit`` returns: a linear model, its history, and how it came about."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from schuss.data import container
from schuss.data.arrays import as_array, as_targets
from schuss.data.sparse import CSR, as_rows
from schuss.errors import DataError, InvalidArgument, UnknownCategoryWarning
from schuss.formulas import losses
from schuss.formulas.losses import Loss
from schuss.history import History, plain_columns

__all__ = ["Result", "load"]


@dataclasses.dataclass(eq=False)
class Result:
    """A fitted linear model.

    Attributes
    ----------
    coef : ndarray, shape (n_features,) or (n_outputs, n_features)
    intercept : float, or ndarray of shape (n_outputs,)
    classes : ndarray of shape (n_classes,), or None
        Labels in sorted order; None for regression. With one margin, a positive one means the
        second of two; with one for each class, the largest wins.
    loss : Loss
    history : History
    stop_reason : str
        "epochs", "updates", "time_limit", "tol", "gtol", "callback" or "interrupted".
    backend : str
        Name of the backend that ran.
    config : dict
        The run's settings in their text forms.
    preprocessing : dict or None
        How raw columns become the matrix the coefficients belong to (standardized, one-hot
        encoded, filled), in a model that ``schuss train`` made; kept with the model.
        :meth:`margin`, :meth:`predict` and :meth:`score` then take raw columns and apply it. None
        for a model of :func:`schuss.fit`, whose X is the matrix itself.

    asynchrony : dict or None
        What the threads of ``fit(asynchronous=True)`` found, at every sixteenth update:
        ``conflict_rate``, the part of the updates during which another thread changed a weight of
        the same row, between its reading and its writing; ``mean_staleness`` and
        ``max_staleness``, the updates that other threads completed meanwhile; ``observed``, how
        many updates were looked at, and the number of ``threads``.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> y = np.where(X @ [1.0, -1.0] > 0, "up", "down")
    >>> result = schuss.fit(X, y, loss="log_loss")
    >>> result.classes
    array(['down', 'up'], dtype='<U4')
    >>> result.predict([[2.0, -2.0], [-2.0, 2.0]])
    array(['up', 'down'], dtype='<U4')
    """

    coef: np.ndarray
    intercept: Any
    classes: np.ndarray | None
    loss: Loss
    history: History
    stop_reason: str = "epochs"
    backend: str = ""
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    preprocessing: dict[str, Any] | None = None
    asynchrony: dict[str, Any] | None = None

    @property
    def n_features(self) -> int:
        """Columns of X."""
        return int(self.coef.shape[-1])

    def __repr__(self) -> str:
        what = f"{self.n_features} features"
        if self.classes is not None:
            what += f", {len(self.classes)} classes"
        elif self.coef.ndim == 2:
            what += f", {self.coef.shape[0]} outputs"
        return (
            f"Result({self.loss}, {what}, backend={self.backend!r}, "
            f"stop_reason={self.stop_reason!r}, {self.history!r})"
        )

    def margin(self, X: Any) -> np.ndarray:
        """Decision values, shape (n_samples,) or (n_samples, n_outputs).

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
            For a model with `preprocessing`, the raw columns: a pandas or polars DataFrame or a
            dict of columns, by name and in any order, or an array with the columns in the order of
            training.

        Raises
        ------
        schuss.errors.DataError
            X has other columns than the model was trained on; a missing one is named.
        """
        X = as_rows(X if self.preprocessing is None else self._encoded(X), self.coef.dtype)
        if X.shape[1] != self.n_features:
            raise DataError(
                f"X: has {X.shape[1]} columns, the model was trained on {self.n_features}."
            )
        intercept = np.asarray(self.intercept, self.coef.dtype)
        if isinstance(X, CSR):
            products = np.stack([X.times(w) for w in np.atleast_2d(self.coef)], axis=1)
            margin = (products + intercept).astype(self.coef.dtype)
            return margin if self.coef.ndim == 2 else margin[:, 0]
        return np.asarray(X @ self.coef.T + intercept)

    def _encoded(self, X: Any) -> np.ndarray:
        """The matrix that the stored preprocessing makes of raw columns."""
        from schuss.data.frames import as_table
        from schuss.data.preprocess import Encoder

        def say(message: str) -> None:
            warnings.warn(message, UnknownCategoryWarning, stacklevel=4)

        assert self.preprocessing is not None
        encoder = Encoder.from_dict(self.preprocessing)
        return encoder.encode(as_table(X, encoder), dtype=self.coef.dtype, say=say)

    def predict(self, X: Any) -> np.ndarray:
        """Predicted targets, (n_samples,) or (n_samples, n_outputs), or class labels, (n_samples,).

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Raw columns where the model has `preprocessing`, see :meth:`margin`.
        """
        margin = self.margin(X)
        if self.classes is None:
            return self.loss.predict(margin)
        if margin.ndim == 1:
            return self.classes[(margin > 0).astype(int)]
        return self.classes[margin.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        r"""Probability of each class, float64 of shape (n_samples, n_classes).

        The softmax of the margins for "multinomial"; :math:`1 / (1 + e^{-m})` and its complement
        for "log_loss". For models of each class against the rest, the k probabilities that these
        give, scaled to sum to 1.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Raw columns where the model has `preprocessing`, see :meth:`margin`.

        Raises
        ------
        schuss.errors.InvalidArgument
            The loss is another one, whose margins are no probabilities.

        Examples
        --------
        >>> import schuss
        >>> result = schuss.fit([[0.0], [1.0], [2.0]], ["a", "b", "c"], loss="multinomial")
        >>> result.predict_proba([[1.0]]).sum().round(6)
        np.float64(1.0)
        """
        if self.loss.name not in ("log_loss", "multinomial") or not self.loss.builtin:
            raise InvalidArgument(
                f"loss={self.loss.name!r} has no probabilities; train with 'log_loss' or "
                "'multinomial', or use margin."
            )
        margin = np.asarray(self.margin(X), dtype=np.float64)
        if self.loss.name == "multinomial":
            odds = np.exp(margin - margin.max(axis=1, keepdims=True))
            softmax: np.ndarray = odds / odds.sum(axis=1, keepdims=True)
            return softmax
        with np.errstate(over="ignore"):
            positive = 1 / (1 + np.exp(-margin))
        if positive.ndim == 1:
            return np.column_stack([1 - positive, positive])
        total = positive.sum(axis=1, keepdims=True)
        equal = np.full_like(positive, 1 / positive.shape[1])
        return np.divide(positive, total, out=equal, where=total > 0)

    def score(self, X: Any, y: Any) -> float:
        """Coefficient of determination R2 (the mean over outputs), or accuracy for a classifier.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Raw columns where the model has `preprocessing`, see :meth:`margin`.
        y : array-like, shape (n_samples,) or (n_samples, n_outputs)
        """
        predicted, y = self.predict(X), as_array(y, "y")
        if y.shape != predicted.shape:
            outputs = f" and the model {predicted.shape[1]} outputs" if predicted.ndim == 2 else ""
            raise DataError(f"y: has shape {y.shape} but X has {predicted.shape[0]} rows{outputs}.")
        if self.classes is not None:
            known = set(self.classes.tolist())
            strange = [label for label in y.tolist() if label not in known]
            if strange:
                raise DataError(
                    f"y: label {strange[0]!r} is not among the classes {self.classes.tolist()}."
                )
            return float(np.mean(predicted == y))
        y = as_targets(y, y.shape[0], np.dtype(np.float64), "real", self.loss.name)
        columns = zip(np.atleast_2d(y.T), np.atleast_2d(predicted.T), strict=True)
        return float(np.mean([_determination(*column) for column in columns]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to an ``.npz`` file, without pickle; :func:`schuss.load` reads it.

        Parameters
        ----------
        path : str or path
            Its name ends in ``.npz``. Written beside and renamed, so that it is never half-written.
        """
        if not os.fspath(path).lower().endswith(".npz"):
            raise InvalidArgument(f"path={str(path)!r}: the file's name must end in .npz.")
        if not self.loss.builtin:
            raise InvalidArgument(
                f"loss={self.loss.name!r} is a function of yours and cannot be stored; "
                "keep coef and intercept yourself."
            )
        arrays = {"coef": self.coef, "intercept": np.asarray(self.intercept)}
        if self.classes is not None:
            arrays["classes"] = _storable(self.classes)
        header = {
            "loss": str(self.loss),
            "stop_reason": self.stop_reason,
            "backend": self.backend,
            "config": self.config,
            "preprocessing": self.preprocessing,
            "asynchrony": self.asynchrony,
            "history": plain_columns(self.history.to_dict()),
        }
        try:
            header = json.loads(json.dumps(header))
        except TypeError as error:
            raise InvalidArgument(f"preprocessing: cannot be stored as JSON ({error}).") from None
        container.check_writable(path, "path")
        container.write(path, "model", arrays, header)

    @classmethod
    def one_against_rest(cls, results: Sequence[Result], classes: Any) -> Result:
        """One classifier of k classes from k binary ones; the largest margin wins.

        Its history and settings are those of the first.

        Parameters
        ----------
        results : sequence of Result
            The k-th was trained on class k (positive) against all others.
        classes : array-like, shape (k,)
        """
        classes = np.asarray(classes)
        if len(results) != classes.size or not results:
            raise InvalidArgument(
                f"classes: {classes.size} classes for {len(results)} results; expected as many."
            )
        widths = sorted({result.n_features for result in results})
        if len(widths) > 1:
            raise InvalidArgument(f"results: have different numbers of features, {widths}.")
        first = results[0]
        if any(result.preprocessing != first.preprocessing for result in results):
            raise InvalidArgument("results: were trained with different preprocessing.")
        return cls(
            coef=np.stack([r.coef for r in results]),
            intercept=np.array([r.intercept for r in results], dtype=first.coef.dtype),
            classes=classes,
            loss=first.loss,
            history=first.history,
            stop_reason=first.stop_reason,
            backend=first.backend,
            config=first.config,
            preprocessing=first.preprocessing,
        )


def _determination(y: np.ndarray, predicted: np.ndarray) -> float:
    """R2 of one output."""
    spread = float(((y - y.mean()) ** 2).sum())
    error = float(((y - predicted) ** 2).sum())
    if spread == 0:
        return 1.0 if error == 0 else 0.0
    return 1.0 - error / spread


def _storable(classes: np.ndarray) -> np.ndarray:
    """Class labels as an array that needs no pickle."""
    if classes.dtype.kind not in "OT":
        return classes
    if all(isinstance(label, str) for label in classes):
        return classes.astype(np.str_)
    raise InvalidArgument(
        f"classes: labels of type {type(classes[0]).__name__} cannot be stored; use text or "
        "numbers."
    )


def load(path: str | os.PathLike[str]) -> Result:
    """Read a model that :meth:`Result.save` or ``schuss train --output`` wrote.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    Result
        A model of ``schuss train`` takes raw columns, as they stand in a data file: it standardizes
        and encodes them as it did for training.

    Raises
    ------
    schuss.errors.DataError
        If the file is missing, damaged, or not a model.

    Examples
    --------
    >>> import numpy as np, schuss, tempfile, os
    >>> X = np.eye(4)
    >>> path = os.path.join(tempfile.mkdtemp(), "model.npz")
    >>> schuss.fit(X, [0, 1, 0, 1], loss="log_loss").save(path)
    >>> schuss.load(path).classes
    array([0, 1])
    """
    arrays, header = container.read(path, "model")
    intercept = arrays["intercept"]
    return Result(
        coef=arrays["coef"],
        intercept=intercept if intercept.ndim else intercept.item(),
        classes=arrays.get("classes"),
        loss=losses.get(header["loss"]),
        history=History.from_dict(header["history"]),
        stop_reason=header["stop_reason"],
        backend=header["backend"],
        config=header["config"],
        preprocessing=header["preprocessing"],
        asynchrony=header.get("asynchrony"),
    )

r"""Losses: one row each, with value, slope and the labels it accepts.

A loss maps a margin :math:`m = x \cdot w + b` and a label :math:`y` to a number; its *slope* is the
derivative with respect to the margin, so that a sample's gradient is slope times x. Both functions
take ``(margin, y, p)`` with ``p`` the row's parameters as a sequence, and hold no branches: NumPy
runs them on arrays, Numba compiles them for scalars.

A :class:`VectorLoss` maps the k margins of a sample to one number and to k slopes; such losses
stand in a table of their own.

To add a loss, write one class here; every backend, test and page picks it up (for the native and
CUDA backends write the struct of the same name in ``csrc/formulas.h``).
"""

from __future__ import annotations

import dataclasses
from collections import ChainMap
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, TypeVar, dataclass_transform

import numpy as np

from schuss.errors import InvalidArgument
from schuss.formulas.spec import Spec, Table, check_number, digest_of, parameter

__all__ = [
    "Loss",
    "custom",
    "epsilon_insensitive",
    "get",
    "hinge",
    "huber",
    "log_loss",
    "modified_huber",
    "mse",
    "multinomial",
    "names",
    "perceptron",
    "poisson",
    "quantile",
    "squared_epsilon_insensitive",
    "squared_error",
    "squared_hinge",
]

DOMAINS = {
    "real": "any finite number",
    "binary": "exactly two label values",
    "nonnegative": "numbers >= 0",
    "classes": "two or more label values",
}


@dataclasses.dataclass(frozen=True, repr=False)
class Loss(Spec):
    """Base of all losses.

    Attributes
    ----------
    domain : {"real", "binary", "nonnegative", "classes"}
        Labels it accepts; binary labels are -1 and +1 inside, those of several classes their
        numbers from 0 on.
    curvature : float
        Upper bound of the second derivative in the margin. For piecewise linear losses, which have
        none, the scale that takes its place when a learning rate is chosen.

    Examples
    --------
    >>> import schuss
    >>> loss = schuss.losses.get("log_loss")
    >>> loss.domain, loss.curvature
    ('binary', 0.25)
    >>> loss.derivative([-1.0, 0.0, 1.0], 1.0).round(3)
    array([-0.731, -0.5  , -0.269])
    """

    family: ClassVar[str] = "losses"
    domain: ClassVar[str] = "real"
    curvature: ClassVar[float] = 1.0

    value: ClassVar[Callable[..., Any]]
    slope: ClassVar[Callable[..., Any]]

    @cached_property
    def parameters(self) -> tuple[float, ...]:
        """The parameters in declared order, as the kernels receive them."""
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    @property
    def builtin(self) -> bool:
        """Whether the loss stands in the table (and not only in the user's program)."""
        return _ROWS.rows.get(self.name) is type(self)

    def curvature_bound(self, y: np.ndarray) -> float:
        """Upper bound of the second derivative in the margin.

        Parameters
        ----------
        y : ndarray, shape (n_samples,)
            The labels over which it has to hold.
        """
        del y
        return self.curvature

    def predict(self, margin: np.ndarray) -> np.ndarray:
        """Prediction in the label's unit: the margin itself, or its inverse link.

        Parameters
        ----------
        margin : ndarray
            Decision values, any shape.
        """
        return margin

    def __call__(self, margin: Any, y: Any) -> Any:
        """Loss of each margin, elementwise.

        Parameters
        ----------
        margin, y : array-like
            Decision values, and labels as they are inside (-1 and +1 for binary losses); shapes
            that broadcast.
        """
        return type(self).value(np.asarray(margin), np.asarray(y), self.parameters)

    def derivative(self, margin: Any, y: Any) -> Any:
        """Slope (derivative in the margin) at each margin, elementwise.

        Parameters
        ----------
        margin, y : array-like
            As for the loss itself.
        """
        return type(self).slope(np.asarray(margin), np.asarray(y), self.parameters)


class VectorLoss(Loss):
    """Base of losses of k margins at once; ``weigh`` takes the place of value and slope.

    ``weigh(margins, y, p, slopes)`` returns the value and writes the k slopes; ``margins[c]`` is
    the margin of class c, one number or an array with one for each sample. ``slopes`` is laid out
    likewise, and may be the margins' own memory.
    """

    domain = "classes"

    weigh: ClassVar[Callable[..., Any]]

    def __call__(self, margin: Any, y: Any) -> Any:
        """Loss of each sample.

        Parameters
        ----------
        margin : array-like, shape (..., k)
        y : array-like, shape (...)
            Numbers of the classes, 0 ... k - 1.
        """
        return self._weigh(margin, y)[0]

    def derivative(self, margin: Any, y: Any) -> Any:
        """Slopes of each sample, in the shape of the margins.

        Parameters
        ----------
        margin, y : array-like
            As for the loss itself.
        """
        return self._weigh(margin, y)[1]

    def _weigh(self, margin: Any, y: Any) -> tuple[Any, np.ndarray]:
        margins = np.moveaxis(np.asarray(margin), -1, 0)
        slopes = np.empty(margins.shape, np.result_type(margins, np.float32))
        value = type(self).weigh(margins, np.asarray(y), self.parameters, slopes)
        return value, np.moveaxis(slopes, 0, -1)


LOSSES: Table[Loss] = Table("loss", Loss)
VECTOR_LOSSES: Table[Loss] = Table("loss", VectorLoss)
# Both, to look a name up in; what is added to one of them is found here.
_ROWS: Table[Loss] = Table("loss", Loss)
_ROWS.rows = ChainMap(VECTOR_LOSSES.rows, LOSSES.rows)  # type: ignore[assignment]


R = TypeVar("R", bound=Loss)


@dataclass_transform(frozen_default=True, field_specifiers=(parameter, dataclasses.field))
def row(cls: type[R]) -> type[R]:
    """Make a class a row of the table of losses."""
    return LOSSES.add(dataclasses.dataclass(frozen=True, repr=False)(cls))


@dataclass_transform(frozen_default=True, field_specifiers=(parameter, dataclasses.field))
def vector_row(cls: type[R]) -> type[R]:
    """Make a class a row of the table of losses of several margins."""
    return VECTOR_LOSSES.add(dataclasses.dataclass(frozen=True, repr=False)(cls))


@row
class squared_error(Loss):
    r"""Half the squared residual, :math:`\tfrac12 (m - y)^2`.

    Examples
    --------
    >>> import schuss
    >>> float(schuss.losses.squared_error()(3.0, 1.0))
    2.0
    """

    @staticmethod
    def value(margin, y, p):  # type: ignore[no-untyped-def]
        residual = margin - y
        return 0.5 * residual * residual

    @staticmethod
    def slope(margin, y, p):  # type: ignore[no-untyped-def]
        return margin - y


@row
class mse(Loss):
    r"""Squared residual, :math:`(m - y)^2`, as torch's ``MSELoss`` has it.

    Examples
    --------
    >>> import schuss
    >>> float(schuss.losses.mse()(3.0, 1.0))
    4.0
    """

    curvature = 2.0

    @staticmethod
    def value(margin, y, p):  # type: ignore[no-untyped-def]
        residual = margin - y
        return residual * residual

    @staticmethod
    def slope(margin, y, p):  # type: ignore[no-untyped-def]
        return 2 * (margin - y)


@row
class huber(Loss):
    r"""Quadratic up to ``epsilon``, linear beyond: robust to outliers.

    .. math:: c\,(|r| - \tfrac12 c), \quad c = \min(|r|, \epsilon), \quad r = m - y

    Parameters
    ----------
    epsilon : float, default=1.35
        Residual from which on the loss grows linearly; > 0, in the unit of y.

    References
    ----------
    P. J. Huber, Robust Estimation of a Location Parameter, Ann. Math. Statist. 35 (1964).

    Examples
    --------
    >>> import schuss
    >>> schuss.losses.huber(epsilon=1.0)([0.5, 3.0], 0.0)
    array([0.125, 2.5  ])
    """

    epsilon: float = parameter(default=1.35, over=0)

    @staticmethod
    def value(margin, y, p):  # type: ignore[no-untyped-def]
        distance = np.abs(margin - y)
        near = np.minimum(distance, p[0])
        return near * (distance - 0.5 * near)

    @staticmethod
    def slope(margin, y, p):  # type: ignore[no-untyped-def]
        return np.minimum(np.maximum(margin - y, -p[0]), p[0])


@row
class epsilon_insensitive(Loss):
    r"""Absolute residual beyond a dead zone, :math:`\max(0, |m - y| - \epsilon)`.

    Parameters
    ----------
    epsilon : float, default=0.1
        Half width of the zone without loss; >= 0, in the unit of y.

    References
    ----------
    V. Vapnik, The Nature of Statistical Learning Theory (1995).

    Examples
    --------
    >>> import schuss
    >>> schuss.losses.epsilon_insensitive(epsilon=0.5)([0.25, 2.0], 0.0)
    array([0. , 1.5])
    """

    epsilon: float = parameter(default=0.1, at_least=0)

    @staticmethod
    def value(margin, y, p):  # type: ignore[no-untyped-def]
        return np.maximum(np.abs(margin - y) - p[0], 0)

    @staticmethod
    def slope(margin, y, p):  # type: ignore[no-untyped-def]
        residual = margin - y
        return np.sign(residual) * (np.abs(residual) > p[0])


@row
class squared_epsilon_insensitive(Loss):
    r"""Squared residual beyond a dead zone, :math:`\max(0, |m - y| - \epsilon)^2`.

    Parameters
    ----------
    epsilon : float, default=0.1
        Half width of the zone without loss; >= 0, in the unit of y.

    References
    ----------
    V. Vapnik, The Nature of Statistical Learning Theory (1995).

    Examples
    --------
    >>> import schuss
    >>> schuss.losses.squared_epsilon_insensitive(epsilon=0.5)([0.25, 2.5], 0.0)
    array([0., 4.])
    """

    epsilon: float = parameter(default=0.1, at_least=0)
    curvature = 2.0

    @staticmethod
    def value(margin, y, p):  # type: ignore[no-untyped-def]
        excess = np.maximum(np.abs(margin - y) - p[0], 0)
        return excess * excess

    @staticmethod
    def slope(margin, y, p):  # type: ignore[no-untyped-def]
        residual = margin - y
        return 2 * np.sign(residual) * np.maximum(np.abs(residual) - p[0], 0)


@row
class hinge(Loss):
    r"""Linear support vector machine, :math:`\max(0, 1 - y m)`.

    References
    ----------
    C. Cortes, V. Vapnik, Support-Vector Networks, Machine Learning 20 (1995).

    Examples
    --------
    >>> import schuss
    >>> schuss.losses.hinge()([2.0, -1.0], 1.0)
    array([0., 2.])
    """

    domain = "binary"

    @staticmethod
    def value(margin, y, p):  # type: ignore[no-untyped-def]
        return np.maximum(1 - y * margin, 0)

    @staticmethod
    def slope(margin, y, p):  # type: ignore[no-untyped-def]
        return -y * (y * margin <= 1)


@row
class squared_hinge(Loss):
    r"""Squared hinge, :math:`\max(0, 1 - y m)^2`.

    Examples
    --------
    >>> import schuss
    >>> schuss.losses.squared_hinge()([2.0, -1.0], 1.0)
    array([0., 4.])
    """

    domain = "binary"
    curvature = 2.0

    @staticmethod
    def value(margin, y, p):  # type: ignore[no-untyped-def]
        short = np.maximum(1 - y * margin, 0)
        return short * short

    @staticmethod
    def slope(margin, y, p):  # type: ignore[no-untyped-def]
        return -2 * y * np.maximum(1 - y * margin, 0)


@row
class log_loss(Loss):
    r"""Logistic regression, :math:`\log(1 + e^{-y m})`.

    Both functions work with :math:`e^{-|m|}`, which neither overflows nor loses digits.

    Examples
    --------
    >>> import schuss
    >>> float(schuss.losses.log_loss()(0.0, 1.0).round(6))
    0.693147
    """

    domain = "binary"
    curvature = 0.25

    @staticmethod
    def value(margin, y, p):  # type: ignore[no-untyped-def]
        z = y * margin
        return np.maximum(-z, 0) + np.log1p(np.exp(-np.abs(z)))

    @staticmethod
    def slope(margin, y, p):  # type: ignore[no-untyped-def]
        z = y * margin
        e = np.exp(-np.abs(z))
        return -y * ((z >= 0) * e + (z < 0)) / (1 + e)


@row
class modified_huber(Loss):
    r"""Squared hinge that turns linear at :math:`y m < -1`: robust to mislabelled samples.

    .. math:: c\,(2h - c), \quad h = \max(0, 1 - y m), \quad c = \min(h, 2)

    References
    ----------
    T. Zhang, Solving Large Scale Linear Prediction Problems Using SGD, ICML 2004.

    Examples
    --------
    >>> import schuss
    >>> schuss.losses.modified_huber()([0.0, -3.0], 1.0)
    array([ 1., 12.])
    """

    domain = "binary"
    curvature = 2.0

    @staticmethod
    def value(margin, y, p):  # type: ignore[no-untyped-def]
        short = np.maximum(1 - y * margin, 0)
        near = np.minimum(short, 2)
        return near * (2 * short - near)

    @staticmethod
    def slope(margin, y, p):  # type: ignore[no-untyped-def]
        short = np.maximum(1 - y * margin, 0)
        return -2 * y * np.minimum(short, 2)


@row
class perceptron(Loss):
    r"""Rosenblatt's perceptron, :math:`\max(0, -y m)`.

    The slope at margin 0 is -y, so that training can leave the origin.

    References
    ----------
    F. Rosenblatt, The Perceptron, Psychological Review 65 (1958).

    Examples
    --------
    >>> import schuss
    >>> schuss.losses.perceptron()([2.0, -1.5], 1.0)
    array([0. , 1.5])
    """

    domain = "binary"

    @staticmethod
    def value(margin, y, p):  # type: ignore[no-untyped-def]
        return np.maximum(-y * margin, 0)

    @staticmethod
    def slope(margin, y, p):  # type: ignore[no-untyped-def]
        return -y * (y * margin <= 0)


@row
class quantile(Loss):
    r"""Pinball loss; its minimiser is the conditional ``q``-quantile of y.

    .. math:: \max(q\,(y - m),\ (q - 1)(y - m))

    Parameters
    ----------
    q : float, default=0.5
        Quantile, between 0 and 1.

    References
    ----------
    R. Koenker, G. Bassett, Regression Quantiles, Econometrica 46 (1978).

    Examples
    --------
    >>> import schuss
    >>> schuss.losses.quantile(q=0.75)([0.0, 2.0], 1.0)
    array([0.75, 0.25])
    """

    q: float = parameter(default=0.5, over=0, under=1)

    @staticmethod
    def value(margin, y, p):  # type: ignore[no-untyped-def]
        residual = y - margin
        return np.maximum(p[0] * residual, (p[0] - 1) * residual)

    @staticmethod
    def slope(margin, y, p):  # type: ignore[no-untyped-def]
        return (margin > y) * (1 - p[0]) - (margin < y) * p[0]


@row
class poisson(Loss):
    r"""Poisson regression with log link, :math:`e^m - y m`: half the deviance up to a constant.

    Predictions are :math:`e^m`, the expected count.

    Examples
    --------
    >>> import schuss
    >>> float(schuss.losses.poisson()(0.0, 2.0))
    1.0
    """

    domain = "nonnegative"

    @staticmethod
    def value(margin, y, p):  # type: ignore[no-untyped-def]
        return np.exp(margin) - y * margin

    @staticmethod
    def slope(margin, y, p):  # type: ignore[no-untyped-def]
        return np.exp(margin) - y

    def curvature_bound(self, y: np.ndarray) -> float:
        """Largest label: the second derivative is the expected count itself."""
        return max(1.0, float(np.max(y, initial=0.0)))

    def predict(self, margin: np.ndarray) -> np.ndarray:
        """Expected count, exp(margin)."""
        return np.exp(margin)


@vector_row
class multinomial(VectorLoss):
    r"""Softmax cross-entropy over k classes, :math:`\log \sum_c e^{m_c} - \sum_c q_c m_c`.

    Here q is the label as a distribution: :math:`1 - s + s/k` for the sample's own class and
    :math:`s/k` for the others, s the ``label_smoothing``. The slopes are the softmax of the margins
    less q. There is one row of coefficients for each class, also where there are two.

    Parameters
    ----------
    label_smoothing : float, default=0.0
        Share of the label that is spread evenly over all classes; 0 <= s < 1.

    References
    ----------
    C. Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016 (label
    smoothing).

    Examples
    --------
    >>> import schuss
    >>> loss = schuss.losses.multinomial()
    >>> float(loss([0.0, 0.0, 0.0, 0.0], 2).round(6))
    1.386294
    >>> loss.derivative([0.0, 0.0, 0.0, 0.0], 2)
    array([ 0.25,  0.25, -0.75,  0.25])
    """

    label_smoothing: float = parameter(default=0.0, at_least=0, under=1)
    # Of the softmax's Jacobian, diag(p) - p p^T: its largest eigenvalue is at most 1/2.
    curvature = 0.5

    @staticmethod
    def weigh(margins, y, p, slopes):  # type: ignore[no-untyped-def]
        k = len(margins)
        top = margins[0]
        for c in range(1, k):
            top = np.maximum(top, margins[c])
        total = top - top
        expected = top - top
        for c in range(k):
            m = margins[c] - top
            expected = expected + ((1 - p[0]) * (y == c) + p[0] / k) * m
            slopes[c] = np.exp(m)
            total = total + slopes[c]
        for c in range(k):
            slopes[c] = slopes[c] / total - ((1 - p[0]) * (y == c) + p[0] / k)
        return np.log(total) - expected


@dataclasses.dataclass(frozen=True, repr=False)
class _Custom(Loss):
    """A loss made of two functions of the user's; see :func:`custom`."""

    functions: tuple[Callable[..., Any], Callable[..., Any]]
    label: str
    accepts: str
    bound: float

    @property
    def name(self) -> str:
        return self.label

    @property
    def domain(self) -> str:  # type: ignore[override]
        return self.accepts

    @property
    def curvature(self) -> float:  # type: ignore[override]
        return self.bound

    @cached_property
    def parameters(self) -> tuple[float, ...]:
        return ()

    def __call__(self, margin: Any, y: Any) -> Any:
        return self.functions[0](np.asarray(margin), np.asarray(y))

    def derivative(self, margin: Any, y: Any) -> Any:
        return self.functions[1](np.asarray(margin), np.asarray(y))

    @property
    def identity(self) -> str:
        return f"{self.label} {digest_of(*self.functions)}"

    def __str__(self) -> str:
        return self.label

    def __repr__(self) -> str:
        value, slope = (getattr(f, "__name__", repr(f)) for f in self.functions)
        return (
            f"schuss.losses.custom({value}, {slope}, name={self.label!r}, "
            f"domain={self.accepts!r}, curvature={self.bound!r})"
        )


def custom(
    value: Callable[..., Any],
    slope: Callable[..., Any],
    *,
    name: str = "custom",
    domain: str = "real",
    curvature: float = 1.0,
) -> Loss:
    r"""Make a loss of two functions of your own; it runs on the reference and jit backends.

    Parameters
    ----------
    value, slope : callable
        Functions of ``(margin, y)``: the loss, and its derivative in the margin. They must work
        elementwise on NumPy arrays, and Numba must be able to compile them for scalars; they may
        already be compiled with ``numba.njit``.
    name : str, default="custom"
        Shown in messages and histories.
    domain : {"real", "binary", "nonnegative"}, default="real"
        Labels the loss accepts; binary labels arrive as -1 and +1.
    curvature : float, default=1.0
        Upper bound of the second derivative, used by ``learning_rate="auto"``.

    Returns
    -------
    Loss

    Raises
    ------
    schuss.errors.InvalidArgument
        If ``domain`` is unknown, ``curvature`` is not positive, or a function is not callable.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> log_cosh = schuss.losses.custom(  # written so that it does not overflow
    ...     lambda m, y: np.logaddexp(m - y, y - m) - np.log(2.0),
    ...     lambda m, y: np.tanh(m - y), name="log_cosh")
    >>> log_cosh.derivative(0.0, 0.0)
    np.float64(0.0)
    """
    accepted = [known for known in DOMAINS if known != "classes"]
    if domain not in accepted:
        raise InvalidArgument(f"domain={domain!r}: expected one of {', '.join(accepted)}.")
    for label, function in (("value", value), ("slope", slope)):
        if not callable(function):
            raise InvalidArgument(f"{label}={function!r}: expected a function of (margin, y).")
    bound = check_number("curvature", curvature, {">": 0.0})
    return _Custom((value, slope), name, domain, bound)


get = _ROWS.get
names = _ROWS.names

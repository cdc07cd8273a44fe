r"""Schedules: the learning rate of every step, as a function of the step's number.

A schedule maps an array of step numbers, counted from 0, to an array of learning rates. Kernels
receive the values and know nothing of schedules.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, dataclass_transform

import numpy as np

from schuss.errors import InvalidArgument, InvalidType
from schuss.formulas.spec import Spec, Table, check_number, digest_of, parameter

__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "cosine_restarts",
    "cyclic",
    "exponential",
    "get",
    "inverse_sqrt",
    "inverse_time",
    "invscaling",
    "linear_scaling",
    "names",
    "one_cycle",
    "optimal",
    "per_epoch",
    "power",
    "sqrt_scaling",
    "step_decay",
    "warmup",
]


@dataclasses.dataclass(frozen=True, repr=False)
class Schedule(Spec):
    """Base of all schedules: call it with step numbers, get learning rates.

    Examples
    --------
    >>> import schuss
    >>> schedule = schuss.schedules.get("warmup(0, 2, then=cosine(1, steps=4))")
    >>> schedule([0, 1, 2, 4, 6])
    array([0. , 0.5, 1. , 0.5, 0. ])
    """

    family: ClassVar[str] = "schedules"

    def __call__(self, step: Any) -> np.ndarray:
        """Learning rates of the steps.

        Parameters
        ----------
        step : array-like of int
            Numbers of the steps, counted from 0, any shape.

        Returns
        -------
        ndarray of float64, in the shape of ``step``
        """
        t = np.asarray(step, dtype=np.float64)
        rates = np.asarray(self.rate(t), dtype=np.float64)
        return rates if rates.shape == t.shape else np.broadcast_to(rates, t.shape)

    def rate(self, t: np.ndarray) -> Any:
        """Learning rate at each step; what a schedule of your own defines.

        Parameters
        ----------
        t : ndarray of float64
            Numbers of the steps, counted from 0, any shape.
        """
        raise NotImplementedError

    def bind(self, steps_per_epoch: int) -> Schedule:
        """The schedule in steps, where it was given in epochs.

        Parameters
        ----------
        steps_per_epoch : int
            Updates that make an epoch.
        """
        del steps_per_epoch
        return self

    @property
    def is_constant(self) -> bool:
        """Whether all steps have one rate."""
        return False

    @property
    def trusted(self) -> bool:
        """Whether it holds no function of the user's, whose values need looking at."""
        return True


SCHEDULES: Table[Schedule] = Table("learning_rate", Schedule, "auto", "a number")


R = TypeVar("R", bound=Schedule)


@dataclass_transform(frozen_default=True, field_specifiers=(parameter, dataclasses.field))
def row(cls: type[R]) -> type[R]:
    """Make a class a row of the table of schedules."""
    return SCHEDULES.add(dataclasses.dataclass(frozen=True, repr=False)(cls))


@row
class constant(Schedule):
    """The same rate at every step.

    Parameters
    ----------
    lr : float
        Learning rate, > 0.

    Examples
    --------
    >>> import schuss
    >>> schuss.schedules.constant(0.1)([0, 100])
    array([0.1, 0.1])
    """

    lr: float = parameter(over=0)

    @property
    def is_constant(self) -> bool:
        return True

    def rate(self, t: np.ndarray) -> Any:
        return self.lr


@row
class step_decay(Schedule):
    r"""Multiplied by ``factor`` after every ``every`` steps: :math:`\eta\,f^{\lfloor t/s \rfloor}`.

    Parameters
    ----------
    lr : float
        First learning rate, > 0.
    every : int
        Steps between two cuts, >= 1.
    factor : float, default=0.1
        Factor of each cut, in (0, 1].

    Examples
    --------
    >>> import schuss
    >>> schuss.schedules.step_decay(1.0, every=10, factor=0.5)([0, 9, 10, 20])
    array([1.  , 1.  , 0.5 , 0.25])
    """

    lr: float = parameter(over=0)
    every: int = parameter(at_least=1)
    factor: float = parameter(default=0.1, over=0, at_most=1)

    def rate(self, t: np.ndarray) -> Any:
        return self.lr * self.factor ** np.floor(t / self.every)


@row
class exponential(Schedule):
    r"""Exponential decay, :math:`\eta\,f^{t/s}`.

    Parameters
    ----------
    lr : float
        First learning rate, > 0.
    factor : float
        Factor over ``steps`` steps, in (0, 1].
    steps : int, default=1
        Steps over which the factor applies once, >= 1.

    Examples
    --------
    >>> import schuss
    >>> schuss.schedules.exponential(1.0, 0.5, steps=10)([0, 10, 20])
    array([1.  , 0.5 , 0.25])
    """

    lr: float = parameter(over=0)
    factor: float = parameter(over=0, at_most=1)
    steps: int = parameter(default=1, at_least=1)

    def rate(self, t: np.ndarray) -> Any:
        return self.lr * self.factor ** (t / self.steps)


@row
class inverse_time(Schedule):
    r"""Inverse of time, :math:`\eta / (1 + \gamma t)`; satisfies Robbins and Monro's conditions.

    Parameters
    ----------
    lr : float
        First learning rate, > 0.
    decay : float
        :math:`\gamma`, per step, >= 0.

    References
    ----------
    H. Robbins, S. Monro, A Stochastic Approximation Method, Ann. Math. Statist. 22 (1951).

    Examples
    --------
    >>> import schuss
    >>> schuss.schedules.inverse_time(1.0, decay=0.5)([0, 2])
    array([1. , 0.5])
    """

    lr: float = parameter(over=0)
    decay: float = parameter(at_least=0)

    def rate(self, t: np.ndarray) -> Any:
        return self.lr / (1 + self.decay * t)


@row
class inverse_sqrt(Schedule):
    r"""Inverse square root of time, :math:`\eta \sqrt{s / (s + t)}`.

    Its squares do not have a finite sum, so it does not satisfy Robbins and Monro's second
    condition; :class:`power` with an exponent between 1/2 and 1 does.

    Parameters
    ----------
    lr : float
        First learning rate, > 0.
    timescale : float, default=1.0
        s, the number of steps over which the rate stays near its start; > 0.

    Examples
    --------
    >>> import schuss
    >>> schuss.schedules.inverse_sqrt(1.0)([0, 3])
    array([1. , 0.5])
    """

    lr: float = parameter(over=0)
    timescale: float = parameter(default=1.0, over=0)

    def rate(self, t: np.ndarray) -> Any:
        return self.lr * np.sqrt(self.timescale / (self.timescale + t))


@row
class power(Schedule):
    r"""Power of time, :math:`\eta / (1 + t)^p`.

    Robbins and Monro's conditions hold for :math:`\tfrac12 < p \le 1`.

    Parameters
    ----------
    lr : float
        First learning rate, > 0.
    exponent : float, default=0.75
        p, >= 0.

    References
    ----------
    H. Robbins, S. Monro, A Stochastic Approximation Method, Ann. Math. Statist. 22 (1951).

    Examples
    --------
    >>> import schuss
    >>> schuss.schedules.power(1.0, exponent=1.0)([0, 1, 3])
    array([1.  , 0.5 , 0.25])
    """

    lr: float = parameter(over=0)
    exponent: float = parameter(default=0.75, at_least=0)

    def rate(self, t: np.ndarray) -> Any:
        return self.lr * (1 + t) ** -self.exponent


@row
class invscaling(Schedule):
    r"""scikit-learn's inverse scaling, :math:`\eta_0 / (1 + t)^p`.

    Parameters
    ----------
    eta0 : float, default=0.01
        First learning rate, > 0.
    power_t : float, default=0.25
        p, >= 0.

    Examples
    --------
    >>> import schuss
    >>> schuss.schedules.invscaling(0.1, power_t=0.5)([0, 3])
    array([0.1 , 0.05])
    """

    eta0: float = parameter(default=0.01, over=0)
    power_t: float = parameter(default=0.25, at_least=0)

    def rate(self, t: np.ndarray) -> Any:
        return self.eta0 * (1 + t) ** -self.power_t


@row
class optimal(Schedule):
    r"""Bottou's schedule for strongly convex problems, :math:`1 / (\alpha (t_0 + t))`.

    :math:`t_0 = \alpha^{-3/4}`, so that the first rate suits weights of a typical size, as in
    scikit-learn.

    Parameters
    ----------
    alpha : float
        Strength of the L2 penalty, > 0.

    References
    ----------
    L. Bottou, Stochastic Gradient Descent Tricks, in Neural Networks: Tricks of the Trade (2012).

    Examples
    --------
    >>> import schuss
    >>> schuss.schedules.optimal(1e-4)([0]).round(6)
    array([10.])
    """

    alpha: float = parameter(over=0)

    def rate(self, t: np.ndarray) -> Any:
        return 1 / (self.alpha * (self.alpha**-0.75 + t))


def _half_cosine(fraction: np.ndarray) -> np.ndarray:
    """From 1 at 0 to 0 at 1."""
    return 0.5 * (1 + np.cos(math.pi * fraction))


@row
class cosine(Schedule):
    r"""Half a cosine from ``lr`` down to ``final`` over ``steps`` steps, constant afterwards.

    .. math:: \eta_f + \tfrac12 (\eta - \eta_f)(1 + \cos(\pi\, \min(t / s, 1)))

    Parameters
    ----------
    lr : float
        First learning rate, > 0.
    steps : int
        Length of the descent, >= 1.
    final : float, default=0.0
        Learning rate at its end, >= 0.

    References
    ----------
    I. Loshchilov, F. Hutter, SGDR, ICLR 2017.

    Examples
    --------
    >>> import schuss
    >>> schuss.schedules.cosine(0.1, steps=1000)([0, 500, 1000])
    array([0.1 , 0.05, 0.  ])
    """

    lr: float = parameter(over=0)
    steps: int = parameter(at_least=1)
    final: float = parameter(default=0.0, at_least=0)

    def rate(self, t: np.ndarray) -> Any:
        return self.final + (self.lr - self.final) * _half_cosine(np.minimum(t / self.steps, 1))


@row
class cosine_restarts(Schedule):
    """Cosine descents one after the other, each ``factor`` times as long as the last.

    Parameters
    ----------
    lr : float
        Learning rate at each start, > 0.
    steps : int
        Length of the first descent, >= 1.
    factor : float, default=1.0
        Growth of the length, >= 1.
    final : float, default=0.0
        Learning rate at each end, >= 0.

    References
    ----------
    I. Loshchilov, F. Hutter, SGDR, ICLR 2017.

    Examples
    --------
    >>> import schuss
    >>> schuss.schedules.cosine_restarts(0.1, steps=10, factor=2.0)([0, 5, 10, 20, 30])
    array([0.1 , 0.05, 0.1 , 0.05, 0.1 ])
    """

    lr: float = parameter(over=0)
    steps: int = parameter(at_least=1)
    factor: float = parameter(default=1.0, at_least=1)
    final: float = parameter(default=0.0, at_least=0)

    def rate(self, t: np.ndarray) -> Any:
        if self.factor == 1:
            fraction = (t % self.steps) / self.steps
        else:
            # Descent k begins at steps * (factor**k - 1) / (factor - 1); the small addition keeps
            # the first step of a descent from being rounded into the one before.
            grown = t * (self.factor - 1) / self.steps + 1
            k = np.floor(np.log(grown) / math.log(self.factor) + 1e-12)
            start = self.steps * (self.factor**k - 1) / (self.factor - 1)
            fraction = np.maximum(t - start, 0) / (self.steps * self.factor**k)
        return self.final + (self.lr - self.final) * _half_cosine(fraction)


@row
class warmup(Schedule):
    """Linear from ``start`` to the first rate of ``then`` over ``steps`` steps, then ``then``.

    Parameters
    ----------
    start : float
        Learning rate of the first step, >= 0.
    steps : int
        Length of the rise, >= 1.
    then : Schedule, str or float
        What follows; its own steps count from the end of the rise.

    References
    ----------
    P. Goyal et al., Accurate, Large Minibatch SGD, arXiv:1706.02677.

    Examples
    --------
    >>> import schuss
    >>> schuss.schedules.warmup(0.0, 10, then=0.1)([0, 5, 10, 20])
    array([0.  , 0.05, 0.1 , 0.1 ])
    """

    start: float = parameter(at_least=0)
    steps: int = parameter(at_least=1)
    then: Any = dataclasses.field()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "then", get(self.then))

    @property
    def trusted(self) -> bool:
        return bool(self.then.trusted)

    @property
    def identity(self) -> str:
        return f"{self} {self.then.identity}"

    def bind(self, steps_per_epoch: int) -> Schedule:
        return warmup(self.start, self.steps, self.then.bind(steps_per_epoch))

    def rate(self, t: np.ndarray) -> Any:
        peak = float(self.then(0))
        rise = self.start + (peak - self.start) * t / self.steps
        return np.where(t < self.steps, rise, self.then(np.maximum(t - self.steps, 0)))


@row
class cyclic(Schedule):
    """Up and down between two rates, ``steps`` steps each way.

    Parameters
    ----------
    low, high : float
        Bounds of the learning rate, 0 <= low < high.
    steps : int
        Length of the way up, and of the way down; >= 1.
    mode : {"triangular", "triangular2", "cosine"}, default="triangular"
        Straight lines; straight lines with the amplitude halved every cycle; half cosines.

    References
    ----------
    L. N. Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017.

    Examples
    --------
    >>> import schuss
    >>> schuss.schedules.cyclic(0.0, 1.0, steps=10)([0, 5, 10, 15, 20])
    array([0. , 0.5, 1. , 0.5, 0. ])
    """

    low: float = parameter(at_least=0)
    high: float = parameter(over=0)
    steps: int = parameter(at_least=1)
    mode: str = parameter(default="triangular", choices=("triangular", "triangular2", "cosine"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low < self.high:
            raise InvalidArgument(f"cyclic(low={self.low}, high={self.high}): needs low < high.")

    def rate(self, t: np.ndarray) -> Any:
        height = 1 - np.abs(t / self.steps % 2 - 1)
        if self.mode == "cosine":
            height = 1 - _half_cosine(height)
        if self.mode == "triangular2":
            height = height * 0.5 ** np.floor(t / (2 * self.steps))
        return self.low + (self.high - self.low) * height


@row
class one_cycle(Schedule):
    """One rise to ``peak`` and one long fall, both half cosines, over ``steps`` steps.

    Parameters
    ----------
    peak : float
        Largest learning rate, > 0.
    steps : int
        Length of the whole cycle, >= 2.
    rise : float, default=0.3
        Part of the steps on the way up, in (0, 1).
    start_factor : float, default=25.0
        The first rate is peak / start_factor; >= 1.
    final_factor : float, default=10000.0
        The last rate is the first one / final_factor; >= 1.

    References
    ----------
    L. N. Smith, N. Topin, Super-Convergence, arXiv:1708.07120.

    Examples
    --------
    >>> import schuss
    >>> schuss.schedules.one_cycle(1.0, steps=11, rise=0.5)([0, 5]).round(3)
    array([0.04, 1.  ])
    """

    peak: float = parameter(over=0)
    steps: int = parameter(at_least=2)
    rise: float = parameter(default=0.3, over=0, under=1)
    start_factor: float = parameter(default=25.0, at_least=1)
    final_factor: float = parameter(default=1e4, at_least=1)

    def rate(self, t: np.ndarray) -> Any:
        last = self.steps - 1
        top = self.rise * last
        first, final = self.peak / self.start_factor, self.peak / self.start_factor
        final /= self.final_factor
        up = self.peak + (first - self.peak) * _half_cosine(np.minimum(t / top, 1))
        fall = np.clip((t - top) / (last - top), 0, 1)
        down = final + (self.peak - final) * _half_cosine(fall)
        return np.where(t < top, up, down)


@row
class per_epoch(Schedule):
    """A schedule whose time is counted in whole epochs.

    Parameters
    ----------
    schedule : Schedule, str, float or callable
        Rates as a function of the epoch's number, counted from 0.
    steps_per_epoch : int, default=0
        Updates that make an epoch; 0: :func:`schuss.fit` fills it in.

    Examples
    --------
    >>> import schuss
    >>> by_epoch = schuss.schedules.per_epoch(schuss.schedules.step_decay(1.0, every=1, factor=0.5))
    >>> by_epoch.bind(steps_per_epoch=100)([0, 99, 100, 250])
    array([1.  , 1.  , 0.5 , 0.25])
    """

    schedule: Any = dataclasses.field()
    steps_per_epoch: int = parameter(default=0, at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "schedule", get(self.schedule))

    @property
    def trusted(self) -> bool:
        return bool(self.schedule.trusted)

    @property
    def identity(self) -> str:
        return f"{self} {self.schedule.identity}"

    def bind(self, steps_per_epoch: int) -> Schedule:
        if self.steps_per_epoch:
            return self
        return per_epoch(self.schedule, steps_per_epoch)

    def rate(self, t: np.ndarray) -> Any:
        if not self.steps_per_epoch:
            raise InvalidArgument(
                "per_epoch(...): not bound to a number of steps per epoch; fit does so, or call "
                "bind(steps_per_epoch)."
            )
        return self.schedule(np.floor(t / self.steps_per_epoch))


@dataclasses.dataclass(frozen=True, repr=False)
class _Function(Schedule):
    """A function of the user's, from step numbers to rates."""

    function: Callable[[np.ndarray], Any]

    def rate(self, t: np.ndarray) -> Any:
        return self.function(t)

    @property
    def trusted(self) -> bool:
        return False

    @property
    def identity(self) -> str:
        return f"{self} {digest_of(self.function)}"

    def __str__(self) -> str:
        return getattr(self.function, "__qualname__", "function")

    def __repr__(self) -> str:
        return str(self)


def get(value: Any) -> Schedule:
    """Return the schedule that a number, a name, a text form or a function stands for.

    Parameters
    ----------
    value : float, str, Schedule or callable
        A constant rate > 0, a text form such as ``"cosine(0.1, steps=1000)"``, a schedule, or a
        function from an array of step numbers to an array of rates.

    Returns
    -------
    Schedule

    Raises
    ------
    schuss.errors.InvalidArgument
        If the number is not > 0, or the text cannot be read.
    schuss.errors.InvalidType
        If ``value`` is none of these.

    Examples
    --------
    >>> import schuss
    >>> str(schuss.schedules.get(0.1))
    'constant(lr=0.1)'
    >>> schuss.schedules.get(lambda step: 1 / (1 + step))([0, 1, 3])
    array([1.  , 0.5 , 0.25])
    """
    if isinstance(value, (Schedule, type)):
        return SCHEDULES.get(value)
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return SCHEDULES.get(value)
        return get(number)
    if callable(value):
        return _Function(value)
    if isinstance(value, (bool, complex)) or value is None or not np.isscalar(value):
        raise InvalidType(
            f"learning_rate={value!r}: expected a number > 0, 'auto', a name or text form, a "
            "schedule, or a function of the step numbers."
        )
    return constant(check_number("learning_rate", value, {">": 0.0}))


names = SCHEDULES.names


def linear_scaling(lr: float, base_batch: int, batch: int) -> float:
    """Learning rate for another batch size, proportional to it.

    Parameters
    ----------
    lr : float
        Rate that suits ``base_batch``.
    base_batch, batch : int
        Batch sizes, >= 1.

    References
    ----------
    P. Goyal et al., Accurate, Large Minibatch SGD, arXiv:1706.02677.

    Examples
    --------
    >>> import schuss
    >>> schuss.schedules.linear_scaling(0.1, base_batch=256, batch=1024)
    0.4
    """
    return _scaled(lr, base_batch, batch, 1.0)


def sqrt_scaling(lr: float, base_batch: int, batch: int) -> float:
    """Learning rate for another batch size, proportional to its square root.

    Parameters
    ----------
    lr : float
        Rate that suits ``base_batch``.
    base_batch, batch : int
        Batch sizes, >= 1.

    References
    ----------
    A. Krizhevsky, One weird trick for parallelizing convolutional neural networks,
    arXiv:1404.5997.

    Examples
    --------
    >>> import schuss
    >>> schuss.schedules.sqrt_scaling(0.1, base_batch=256, batch=1024)
    0.2
    """
    return _scaled(lr, base_batch, batch, 0.5)


def _scaled(lr: float, base_batch: int, batch: int, exponent: float) -> float:
    check_number("lr", lr, {">": 0.0})
    check_number("base_batch", base_batch, {">=": 1}, integer=True)
    check_number("batch", batch, {">=": 1}, integer=True)
    return float(lr * (batch / base_batch) ** exponent)

r"""Rules: how a gradient becomes an update.

A rule is a row with two pure functions. ``constants(step, lr)`` turns the numbers of the steps and
their learning rates into the scalars each step needs, in float64, so that powers and square roots
of hyper-parameters are taken once per step and are the same on every backend. ``update(w, g, a, b,
c)`` maps one weight, its gradient, its (up to two) memory slots and the step's constants to the
new weight and slots; it holds no branches, so NumPy runs it on arrays and Numba compiles it.

Column 0 of the constants is the learning rate. Column 1, where there is one, is the factor of
decoupled weight decay; kernels set it to 1 for the intercept, which never decays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, dataclass_transform

import numpy as np

from schuss.errors import InvalidArgument, InvalidType
from schuss.formulas.spec import Spec, Table, check_number, parameter

__all__ = ["Rule", "adagrad", "adam", "adamw", "get", "names", "sgd"]


@dataclasses.dataclass(frozen=True, repr=False)
class Rule(Spec):
    """Base of all rules.

    Attributes
    ----------
    formula : str
        Name of the update formula, shared with ``csrc/formulas.h``.
    slots : tuple of float
        Initial value of each memory slot; its length is the number of slots.
    coupled_decay : float
        Weight decay that is added to the gradient, like an L2 penalty.
    proximal : bool
        Whether an L1 penalty can be applied as a proximal step after the update.
    default_learning_rate : float or None
        What ``learning_rate="auto"`` takes; None: measured on the data.

    Examples
    --------
    >>> import schuss
    >>> rule = schuss.rules.get("adam")
    >>> rule.formula, rule.slots, rule.proximal
    ('moments', (0.0, 0.0), False)
    """

    family: ClassVar[str] = "rules"
    proximal: ClassVar[bool] = False
    slots: ClassVar[tuple[float, ...]] = ()
    default_learning_rate: ClassVar[float | None] = None

    update: ClassVar[Callable[..., Any]]

    @property
    def formula(self) -> str:
        """Name of the update formula, shared with ``csrc/formulas.h``."""
        return self.name

    @property
    def coupled_decay(self) -> float:
        """Weight decay that is added to the gradient, like an L2 penalty."""
        return 0.0

    def constants(self, step: np.ndarray, lr: np.ndarray) -> np.ndarray:
        """Scalars of each step, shape (n_steps, n_constants), float64.

        Parameters
        ----------
        step : ndarray of int64, shape (n_steps,)
            Numbers of the steps, counted from 0.
        lr : ndarray of float64, shape (n_steps,)
            Their learning rates.
        """
        raise NotImplementedError


RULES: Table[Rule] = Table("rule", Rule)
FORMULAS: dict[str, Callable[..., Any]] = {}


R = TypeVar("R", bound=Rule)


@dataclass_transform(frozen_default=True, field_specifiers=(parameter, dataclasses.field))
def row(cls: type[R]) -> type[R]:
    """Make a class a row of the table of rules."""
    made = RULES.add(dataclasses.dataclass(frozen=True, repr=False)(cls))
    FORMULAS.setdefault(made.__name__, made.update)
    return made


def formula(function: Callable[..., Any]) -> Callable[..., Any]:
    """Register an update formula that more than one rule, or a rule at times, uses."""
    FORMULAS[function.__name__] = function
    return function


def _stack(*columns: Any) -> np.ndarray:
    return np.stack(np.broadcast_arrays(*columns), axis=-1).astype(np.float64)


@formula
def momentum(w, g, a, b, c):  # type: ignore[no-untyped-def]
    """Momentum as torch has it; c = (lr, 1, momentum, 1 - dampening, nesterov)."""
    v = c[2] * a + c[3] * g
    return w - c[0] * (c[4] * (g + c[2] * v) + (1 - c[4]) * v), v, b


@row
class sgd(Rule):
    r"""Gradient descent, with optional momentum as torch defines it.

    .. math:: v \leftarrow \mu v + (1 - \tau) g, \qquad w \leftarrow w - \eta v

    The first step takes :math:`v = g`; Nesterov's variant uses :math:`g + \mu v` in place of v.

    Parameters
    ----------
    momentum : float, default=0.0
        :math:`\mu`, in [0, 1).
    dampening : float, default=0.0
        :math:`\tau`, in [0, 1].
    nesterov : bool, default=False
        Needs momentum > 0 and dampening 0.
    weight_decay : float, default=0.0
        Added to the gradient as weight_decay * w; the intercept is spared.

    References
    ----------
    I. Sutskever et al., On the importance of initialization and momentum, ICML 2013.

    Examples
    --------
    >>> import schuss
    >>> schuss.rules.sgd(momentum=0.9, nesterov=True).formula
    'momentum'
    """

    momentum: float = parameter(default=0.0, at_least=0, under=1)
    dampening: float = parameter(default=0.0, at_least=0, at_most=1)
    nesterov: bool = False
    weight_decay: float = parameter(default=0.0, at_least=0)
    proximal = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise InvalidArgument(
                f"sgd(nesterov=True): needs momentum > 0 and dampening 0, got "
                f"momentum={self.momentum}, dampening={self.dampening}."
            )

    @property
    def formula(self) -> str:
        return "momentum" if self.momentum else "sgd"

    @property
    def slots(self) -> tuple[float, ...]:  # type: ignore[override]
        return (0.0,) if self.momentum else ()

    @property
    def coupled_decay(self) -> float:
        return self.weight_decay

    def constants(self, step: np.ndarray, lr: np.ndarray) -> np.ndarray:
        if not self.momentum:
            return lr[:, None]
        keep = np.where(step == 0, 1.0, 1.0 - self.dampening)
        return _stack(lr, 1.0, self.momentum, keep, float(self.nesterov))

    @staticmethod
    def update(w, g, a, b, c):  # type: ignore[no-untyped-def]
        return w - c[0] * g, a, b


@formula
def moments(w, g, a, b, c):  # type: ignore[no-untyped-def]
    """Adam; c = (lr, shrink, 1 - beta1, 1 - beta2, lr / bias1, 1 / sqrt(bias2), eps)."""
    m = a + c[2] * (g - a)
    v = b + c[3] * (g * g - b)
    return c[1] * w - c[4] * m / (np.sqrt(v) * c[5] + c[6]), m, v


@dataclasses.dataclass(frozen=True, repr=False)
class _Adam(Rule):
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = parameter(default=1e-8, over=0)

    slots = (0.0, 0.0)
    default_learning_rate = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            pair = tuple(self.betas)
        except TypeError:
            pair = ()
        if len(pair) != 2:
            raise InvalidType(f"{self.name}(betas={self.betas!r}): expected two numbers.")
        limits = {">=": 0.0, "<": 1.0}
        checked = tuple(check_number(f"{self.name}(betas=...): beta", x, limits) for x in pair)
        object.__setattr__(self, "betas", checked)

    @property
    def formula(self) -> str:
        return "moments"

    def _shrink(self, lr: np.ndarray) -> Any:
        return 1.0

    def constants(self, step: np.ndarray, lr: np.ndarray) -> np.ndarray:
        beta1, beta2 = self.betas
        t = step + 1.0
        bias1, bias2 = 1 - beta1**t, 1 - beta2**t
        return _stack(
            lr, self._shrink(lr), 1 - beta1, 1 - beta2, lr / bias1, 1 / np.sqrt(bias2), self.eps
        )

    update = staticmethod(moments)


@row
class adam(_Adam):
    r"""Adam: steps scaled by running moments of the gradient.

    .. math::
        m \leftarrow \beta_1 m + (1-\beta_1) g, \quad v \leftarrow \beta_2 v + (1-\beta_2) g^2,
        \quad w \leftarrow w - \eta\, \hat m / (\sqrt{\hat v} + \epsilon)

    Parameters
    ----------
    betas : tuple of two floats, default=(0.9, 0.999)
        Decay of the first and second moment, each in [0, 1).
    eps : float, default=1e-8
        Added to the root of the second moment; > 0.
    weight_decay : float, default=0.0
        Added to the gradient as weight_decay * w; the intercept is spared.

    References
    ----------
    D. P. Kingma, J. Ba, Adam: A Method for Stochastic Optimization, ICLR 2015.

    Examples
    --------
    >>> import schuss
    >>> schuss.rules.get("adam(betas=(0.8, 0.99))").betas
    (0.8, 0.99)
    """

    weight_decay: float = parameter(default=0.0, at_least=0)

    @property
    def coupled_decay(self) -> float:
        return self.weight_decay


@row
class adamw(_Adam):
    r"""Adam with decoupled weight decay, :math:`w \leftarrow (1 - \eta\lambda) w - \dots`.

    Parameters
    ----------
    betas : tuple of two floats, default=(0.9, 0.999)
        Decay of the first and second moment, each in [0, 1).
    eps : float, default=1e-8
        Added to the root of the second moment; > 0.
    weight_decay : float, default=0.01
        :math:`\lambda`; the intercept is spared.

    References
    ----------
    I. Loshchilov, F. Hutter, Decoupled Weight Decay Regularization, ICLR 2019.

    Examples
    --------
    >>> import schuss
    >>> schuss.rules.adamw(weight_decay=0.1).weight_decay
    0.1
    """

    weight_decay: float = parameter(default=0.01, at_least=0)

    def _shrink(self, lr: np.ndarray) -> Any:
        return 1.0 - lr * self.weight_decay


@row
class adagrad(Rule):
    r"""AdaGrad: each weight's step shrinks with the squares of its own gradients.

    .. math:: s \leftarrow s + g^2, \qquad w \leftarrow w - \eta_t\, g / (\sqrt{s} + \epsilon),
        \qquad \eta_t = \eta / (1 + t\,\mathrm{lr\_decay})

    Parameters
    ----------
    lr_decay : float, default=0.0
        Decay of the learning rate per step, t counted from 0; >= 0.
    weight_decay : float, default=0.0
        Added to the gradient as weight_decay * w; the intercept is spared.
    initial_accumulator_value : float, default=0.0
        Start of s; >= 0.
    eps : float, default=1e-10
        Added to the root; > 0.

    References
    ----------
    J. Duchi, E. Hazan, Y. Singer, Adaptive Subgradient Methods, JMLR 12 (2011).

    Examples
    --------
    >>> import schuss
    >>> schuss.rules.adagrad(initial_accumulator_value=0.1).slots
    (0.1,)
    """

    lr_decay: float = parameter(default=0.0, at_least=0)
    weight_decay: float = parameter(default=0.0, at_least=0)
    initial_accumulator_value: float = parameter(default=0.0, at_least=0)
    eps: float = parameter(default=1e-10, over=0)

    default_learning_rate = 0.1

    @property
    def slots(self) -> tuple[float, ...]:  # type: ignore[override]
        return (self.initial_accumulator_value,)

    @property
    def coupled_decay(self) -> float:
        return self.weight_decay

    def constants(self, step: np.ndarray, lr: np.ndarray) -> np.ndarray:
        return _stack(lr / (1 + step * self.lr_decay), 1.0, self.eps)

    @staticmethod
    def update(w, g, a, b, c):  # type: ignore[no-untyped-def]
        s = a + g * g
        return w - c[0] * g / (np.sqrt(s) + c[2]), s, b


# The adam rows share one formula under its own name.
for _name in ("adam", "adamw"):
    del FORMULAS[_name]

get = RULES.get
names = RULES.names

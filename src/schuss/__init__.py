"""schuss: stochastic gradient descent at the speed of the hardware.

>>> import numpy as np, schuss
>>> X = np.random.default_rng(0).normal(size=(1000, 3))
>>> result = schuss.fit(X, X @ [1.0, 2.0, 3.0], batch_size=32, epochs=20)
>>> result.coef.round(2)
array([1., 2., 3.])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from schuss._version import __version__

if TYPE_CHECKING:
    from schuss import backends, data, errors, lab, losses, orders, rules, schedules
    from schuss.history import History
    from schuss.info import show_versions
    from schuss.minimization import minimize
    from schuss.result import Result, load
    from schuss.train import batches, fit, gradient

__all__ = [
    "History",
    "Result",
    "__version__",
    "backends",
    "batches",
    "data",
    "errors",
    "fit",
    "gradient",
    "lab",
    "load",
    "losses",
    "minimize",
    "orders",
    "rules",
    "schedules",
    "show_versions",
]

# Where each public name lives; loaded when first asked for, so that ``import schuss`` is quick.
_HOMES = {
    "History": "schuss.history",
    "Result": "schuss.result",
    "batches": "schuss.train",
    "fit": "schuss.train",
    "gradient": "schuss.train",
    "load": "schuss.result",
    "minimize": "schuss.minimization",
    "show_versions": "schuss.info",
}
_ROOMS = ("backends", "data", "errors", "lab", "losses", "orders", "rules", "schedules")


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _ROOMS:
        value = import_module(f"schuss.{name}")
    else:
        raise AttributeError(f"module 'schuss' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

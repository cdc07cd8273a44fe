r"""The penalty: :math:`\alpha(\rho\|w\|_1 + \tfrac{1-\rho}{2}\|w\|^2)`, never on the intercept.

The L2 part joins the gradient; the L1 part is a proximal step after the update, so that weights
become exactly zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Penalty", "shrink_towards_zero"]


@dataclass(frozen=True)
class Penalty:
    r"""Strengths of the two parts.

    Attributes
    ----------
    l2, l1 : float
        Factors of :math:`\tfrac12\|w\|^2` and of :math:`\|w\|_1`; >= 0.
    """

    l2: float = 0.0
    l1: float = 0.0

    @classmethod
    def elastic_net(cls, alpha: float, l1_ratio: float) -> Penalty:
        """Split ``alpha`` between the two parts as scikit-learn does."""
        return cls(l2=alpha * (1.0 - l1_ratio), l1=alpha * l1_ratio)

    def __call__(self, coef: np.ndarray) -> float:
        """Value for the coefficients ``coef``, any shape."""
        w = np.asarray(coef, dtype=np.float64)
        return float(0.5 * self.l2 * np.sum(w * w) + self.l1 * np.sum(np.abs(w)))


def shrink_towards_zero(w, amount):  # type: ignore[no-untyped-def]
    """Proximal step of ``amount * |w|``: move towards zero by ``amount``, stop there."""
    return w - np.minimum(np.maximum(w, -amount), amount)

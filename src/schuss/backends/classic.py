"""The classic step: what scikit-learn's per-sample loop does with a row, as data.

One weight vector is trained, or several side by side in one pass over the rows, one for each class
against the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["ClassicState", "ClassicStep"]


@dataclass(frozen=True)
class ClassicStep:
    """What a step is made of beside the problem's loss and penalty.

    The L1 part of the penalty is cumulative: a weight pays what all steps so far have asked for
    when a row touches it, so weights that no row touches keep their values. The L2 factor of a step
    is never negative. Slopes are cut off at 1e12.

    Attributes
    ----------
    intercept_decay : float
        Factor of the intercept's own steps.
    drift : float
        Slope of the intercept in the objective itself, and its factor there.
    passive : {0, 1, 2}
        1, 2: passive-aggressive steps I, II, whose length the row's loss and norm give; 0: rates.
    aggressiveness : float
        The longest step of I; half the inverse of what damps II.

    References
    ----------
    Y. Tsuruoka, J. Tsujii, S. Ananiadou, Stochastic Gradient Descent Training for L1-regularized
    Log-linear Models with Cumulative Penalty, ACL 2009.

    K. Crammer et al., Online Passive-Aggressive Algorithms, JMLR 7 (2006).
    """

    intercept_decay: float = 1.0
    drift: float = 0.0
    passive: int = 0
    aggressiveness: float = 1.0


@dataclass
class ClassicState:
    """The weight vectors, and what is remembered of them. Kernels change it.

    Attributes
    ----------
    coef : ndarray of X's dtype, shape (n_outputs, n_features)
    intercept : ndarray of float64, shape (n_outputs,)
        Added up in float64: where its steps are short, float32 would lose them.
    own : ndarray of X's dtype, shape (n_outputs,), or None
        Where y holds classes: the weight of a class's rows in their own output, where their label
        is +1; it is -1 in the others. None: y holds the labels of one output.
    active : ndarray of int64, shape (n_active,)
        The outputs that are trained.
    factor : ndarray of float64, shape (n_outputs,)
        Of the learning rates.
    owed : ndarray of float64, shape (n_outputs,)
        L1 amounts of all steps so far.
    paid : ndarray of X's dtype, shape (n_outputs, n_features), or (n_outputs, 0) without L1
        What of them each weight has had, as the change that it was.
    average : ndarray of float64, shape (n_outputs, n_features + 1), or None
        Mean of the iterates, the intercept last.
    averaged : int
        How many it holds.
    """

    coef: np.ndarray
    intercept: np.ndarray
    own: np.ndarray | None
    active: np.ndarray
    factor: np.ndarray
    owed: np.ndarray
    paid: np.ndarray
    average: np.ndarray | None = None
    averaged: int = 0

    @classmethod
    def start(
        cls,
        theta: np.ndarray,
        own: np.ndarray | None = None,
        soft: bool = False,
        average: np.ndarray | None = None,
    ) -> ClassicState:
        """State before the first step, with all outputs active; arrays are copied.

        ``theta`` is (n_outputs, n_features + 1), the intercept last. ``soft`` says whether there is
        an L1 penalty.
        """
        outputs, width = theta.shape
        paid = np.zeros((outputs, (width - 1) * soft), theta.dtype)
        mean = None if average is None else average.copy()
        return cls(
            theta[:, :-1].copy(),
            theta[:, -1].astype(np.float64),
            own,
            np.arange(outputs),
            np.ones(outputs),
            np.zeros(outputs),
            paid,
            mean,
        )

    def theta(self, k: int) -> np.ndarray:
        """Coefficients and intercept of one output, in the coefficients' dtype."""
        return np.append(self.coef[k], self.coef.dtype.type(self.intercept[k]))

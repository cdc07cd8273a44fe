"""Textbook loops: what every backend is held to.

Float64, one sample at a time, with plain branches. Written from the equations, not from the code:
nothing of ``schuss`` is imported here. A loss is a function of (margin, y, *parameters) that
returns value and slope; a rule is a function that returns the new weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log, log1p, sqrt

import numpy as np

# ---- losses --------------------------------------------------------------------------------


def squared_error(m, y):
    return (m - y) ** 2 / 2, m - y


def mse(m, y):
    return (m - y) ** 2, 2 * (m - y)


def huber(m, y, epsilon):
    r = m - y
    if abs(r) <= epsilon:
        return r**2 / 2, r
    return epsilon * abs(r) - epsilon**2 / 2, epsilon if r > 0 else -epsilon


def epsilon_insensitive(m, y, epsilon):
    r = m - y
    if abs(r) <= epsilon:
        return 0.0, 0.0
    return abs(r) - epsilon, 1.0 if r > 0 else -1.0


def squared_epsilon_insensitive(m, y, epsilon):
    value, direction = epsilon_insensitive(m, y, epsilon)
    return value**2, 2 * value * direction


def hinge(m, y):
    if y * m <= 1:
        return 1 - y * m, -y
    return 0.0, 0.0


def squared_hinge(m, y):
    value, direction = hinge(m, y)
    return value**2, 2 * value * direction


def log_loss(m, y):
    z = y * m
    if z > 0:
        return log1p(exp(-z)), -y * exp(-z) / (1 + exp(-z))
    return -z + log1p(exp(z)), -y / (1 + exp(z))


def modified_huber(m, y):
    if y * m < -1:
        return -4 * y * m, -4 * y
    return squared_hinge(m, y)


def perceptron(m, y):
    if y * m <= 0:
        return -y * m, -y
    return 0.0, 0.0


def quantile(m, y, q):
    if m > y:
        return (1 - q) * (m - y), 1 - q
    if m < y:
        return q * (y - m), -q
    return 0.0, 0.0


def poisson(m, y):
    return exp(m) - y * m, exp(m) - y


LOSSES: dict[str, Callable[..., tuple[float, float]]] = {
    f.__name__: f
    for f in (
        squared_error,
        mse,
        huber,
        epsilon_insensitive,
        squared_epsilon_insensitive,
        hinge,
        squared_hinge,
        log_loss,
        modified_huber,
        perceptron,
        quantile,
        poisson,
    )
}

# ---- rules ---------------------------------------------------------------------------------
# ``t`` counts steps from 0, ``memory`` is a dict that lasts over the run, ``decayed`` is 1 for the
# coefficients and 0 for the intercept.


def sgd(
    w, g, lr, t, memory, decayed, momentum=0.0, dampening=0.0, nesterov=False, weight_decay=0.0
):
    if momentum == 0:
        return w - lr * g
    if t == 0:
        memory["v"] = g
    else:
        memory["v"] = momentum * memory["v"] + (1 - dampening) * g
    if nesterov:
        return w - lr * (g + momentum * memory["v"])
    return w - lr * memory["v"]


def adam(w, g, lr, t, memory, decayed, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    memory["m"] = betas[0] * memory.get("m", 0 * w) + (1 - betas[0]) * g
    memory["v"] = betas[1] * memory.get("v", 0 * w) + (1 - betas[1]) * g**2
    m_hat = memory["m"] / (1 - betas[0] ** (t + 1))
    v_hat = memory["v"] / (1 - betas[1] ** (t + 1))
    return w - lr * m_hat / (np.sqrt(v_hat) + eps)


def adamw(w, g, lr, t, memory, decayed, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
    w = w - lr * weight_decay * decayed * w
    return adam(w, g, lr, t, memory, decayed, betas, eps)


def adagrad(
    w,
    g,
    lr,
    t,
    memory,
    decayed,
    lr_decay=0.0,
    weight_decay=0.0,
    initial_accumulator_value=0.0,
    eps=1e-10,
):
    memory["s"] = memory.get("s", 0 * w + initial_accumulator_value) + g**2
    return w - lr / (1 + t * lr_decay) * g / (np.sqrt(memory["s"]) + eps)


RULES: dict[str, Callable[..., np.ndarray]] = {f.__name__: f for f in (sgd, adam, adamw, adagrad)}
DECOUPLED = {"adamw"}  # their decay is no part of the gradient

# ---- descent -------------------------------------------------------------------------------


@dataclass
class Run:
    """What a descent ends with. ``theta`` and ``average`` are (d + 1,), the intercept last."""

    theta: np.ndarray
    average: np.ndarray
    loss: float  # summed over all visits, each at the parameters before its step
    norm: float  # of the last step's gradient, before clipping
    kink: float  # largest change of a slope within a hair's breadth of a visited margin


def batches(rows: Sequence[int], batch_size: int) -> list[Sequence[int]]:
    """Cut the rows into batches; the last takes what is left."""
    return [rows[k : k + batch_size] for k in range(0, len(rows), batch_size)]


def descend(
    X: np.ndarray,
    y: np.ndarray,
    loss: Callable[[float, float], tuple[float, float]],
    rule: str,
    steps: Sequence[Sequence[int]],
    learning_rates: Sequence[float],
    theta: np.ndarray,
    *,
    options: dict[str, float] | None = None,
    l2: float = 0.0,
    l1: float = 0.0,
    weight: np.ndarray | None = None,
    clip_norm: float = 0.0,
    intercept: bool = True,
) -> Run:
    """Gradient descent over the batches ``steps``: per sample, mini-batch or batch."""
    d, w, options, memory = X.shape[1], theta.astype(float), options or {}, {}
    decayed = np.append(np.ones(d), 0.0)
    decay = l2 + (0 if rule in DECOUPLED else options.get("weight_decay", 0))
    run = Run(w, np.zeros(d + 1), 0.0, 0.0, 0.0)
    for t, (batch, lr) in enumerate(zip(steps, learning_rates, strict=True)):
        g = np.zeros(d + 1)
        for i in batch:
            margin = X[i] @ w[:d] + w[d]
            value, slope = loss(margin, y[i])
            jump = loss(margin + 1e-5, y[i])[1] - loss(margin - 1e-5, y[i])[1]
            run.kink = max(run.kink, abs(jump))
            scale = 1.0 if weight is None else weight[i]
            run.loss += scale * value
            g[:d] += scale * slope * X[i]
            g[d] += scale * slope if intercept else 0.0
        g = g / len(batch) + decay * decayed * w
        run.norm = sqrt(sum(g**2))
        if clip_norm and run.norm > clip_norm:
            g = g * clip_norm / run.norm
        w = RULES[rule](w, g, lr, t, memory, decayed, **options)
        for j in range(d):
            if abs(w[j]) <= lr * l1:
                w[j] = 0.0
            elif l1:
                w[j] -= lr * l1 if w[j] > 0 else -lr * l1
        run.average += (w - run.average) / (t + 1)
    run.theta = w
    return run


# ---- several outputs -----------------------------------------------------------------------


def multinomial(margins, label, label_smoothing):
    """Cross entropy of the softmax with the smoothed label: value and k slopes."""
    k = len(margins)
    top = max(margins)
    odds = [exp(m - top) for m in margins]
    value, slopes = 0.0, []
    for c in range(k):
        q = label_smoothing / k + (1 - label_smoothing if c == label else 0)
        value -= q * (margins[c] - top - log(sum(odds)))
        slopes.append(odds[c] / sum(odds) - q)
    return value, slopes


VECTOR_LOSSES: dict[str, Callable[..., tuple[float, list[float]]]] = {"multinomial": multinomial}


def each_output(loss: Callable[[float, float], tuple[float, float]]):
    """A loss of one margin as one of k: summed over the outputs."""

    def summed(margins, targets):
        pairs = [loss(m, y) for m, y in zip(margins, targets, strict=True)]
        return sum(value for value, _ in pairs), [slope for _, slope in pairs]

    return summed


def descend_outputs(
    X: np.ndarray,
    y: np.ndarray,
    loss: Callable[..., tuple[float, list[float]]],
    rule: str,
    steps: Sequence[Sequence[int]],
    learning_rates: Sequence[float],
    theta: np.ndarray,
    *,
    options: dict[str, float] | None = None,
    l2: float = 0.0,
    l1: float = 0.0,
    weight: np.ndarray | None = None,
    clip_norm: float = 0.0,
    intercept: bool = True,
) -> Run:
    """As ``descend``, for k outputs: theta is (k, d + 1), loss a function of k margins and y[i]."""
    (k, d), w, options, memory = (len(theta), X.shape[1]), theta.astype(float), options or {}, {}
    decayed = np.ones((k, d + 1))
    decayed[:, d] = 0
    decay = l2 + (0 if rule in DECOUPLED else options.get("weight_decay", 0))
    run = Run(w, np.zeros((k, d + 1)), 0.0, 0.0, 0.0)
    for t, (batch, lr) in enumerate(zip(steps, learning_rates, strict=True)):
        g = np.zeros((k, d + 1))
        for i in batch:
            margins = [X[i] @ w[c, :d] + w[c, d] for c in range(k)]
            value, slopes = loss(margins, y[i])
            for c in range(k):  # as far as one margin moves alone
                low, high = list(margins), list(margins)
                low[c], high[c] = low[c] - 1e-5, high[c] + 1e-5
                jump = loss(high, y[i])[1][c] - loss(low, y[i])[1][c]
                run.kink = max(run.kink, abs(jump))
            scale = 1.0 if weight is None else weight[i]
            run.loss += scale * value
            for c in range(k):
                g[c, :d] += scale * slopes[c] * X[i]
                g[c, d] += scale * slopes[c] if intercept else 0.0
        g = g / len(batch) + decay * decayed * w
        run.norm = sqrt((g**2).sum())
        if clip_norm and run.norm > clip_norm:
            g = g * clip_norm / run.norm
        w = RULES[rule](w, g, lr, t, memory, decayed, **options)
        if l1:
            shrunk = np.sign(w) * np.maximum(np.abs(w) - lr * l1, 0)
            w[:, :d] = shrunk[:, :d]
        run.average += (w - run.average) / (t + 1)
    run.theta = w
    return run


# ---- the classic step ----------------------------------------------------------------------


def descend_classic(
    X: np.ndarray,
    y: np.ndarray,
    loss: Callable[[float, float], tuple[float, float]],
    rows: Sequence[int],
    learning_rates: Sequence[float],
    theta: np.ndarray,
    *,
    touched: np.ndarray | None = None,
    l2: float = 0.0,
    l1: float = 0.0,
    weight: np.ndarray | None = None,
    intercept: bool = True,
    intercept_decay: float = 1.0,
    drift: float = 0.0,
    passive: int = 0,
    aggressiveness: float = 1.0,
) -> Run:
    """scikit-learn's loop for one weight vector; ``touched`` says which entries a row stores."""
    d, w = X.shape[1], theta.astype(float)
    owed, paid, averaged = 0.0, np.zeros(d), 0
    run = Run(w, np.zeros(d + 1), 0.0, 0.0, 0.0)
    for i, lr in zip(rows, learning_rates, strict=True):
        margin = X[i] @ w[:d] + w[d]
        value, slope = loss(margin, y[i])
        jump = loss(margin + 1e-5, y[i])[1] - loss(margin - 1e-5, y[i])[1]
        run.kink = max(run.kink, abs(jump))
        run.loss += value + drift * w[d]
        length, norm = lr, sum(X[i] ** 2)
        if passive == 1:
            if norm == 0:
                continue
            length = min(aggressiveness, value / norm)
        elif passive == 2:
            length = value / (norm + 1 / (2 * aggressiveness))
        slope = max(-1e12, min(1e12, slope))
        change = -length * slope * (1.0 if weight is None else weight[i])
        w[:d] *= max(0.0, 1 - lr * l2)
        w[:d] += change * X[i]
        if intercept:
            w[d] += intercept_decay * (change - lr * drift)
        owed += lr * l1
        for j in range(d):
            if l1 and (touched is None or touched[i, j]):
                before = w[j]
                if before > 0:
                    w[j] = max(0.0, before - (owed + paid[j]))
                elif before < 0:
                    w[j] = min(0.0, before + (owed - paid[j]))
                paid[j] += w[j] - before
        averaged += 1
        run.average += (w - run.average) / averaged
    run.theta = w
    return run

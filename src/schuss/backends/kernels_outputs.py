"""The Numba loop skeletons for several outputs; ``kernels.py`` has those for one.

Executed once per table of formulas, like that module and after it, with ``KERNELS`` set to it for
the same formulas. theta is handed over flat and seen as (n_outputs, n_features + 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from schuss.backends.protocol import TILE_ROWS

# Set by the loader before this module runs; imported plainly, it takes the built-in tables.
KERNELS: Any = globals().get("KERNELS")
if KERNELS is None:
    from schuss.backends import kernels as KERNELS

FORMULAS = globals().get("FORMULAS") or KERNELS.FORMULAS
FAST = KERNELS.FAST
SCALAR_LOSSES = len(FORMULAS.values)

row_of, dot, soften = KERNELS.row_of, KERNELS.dot, KERNELS.soften
value_of, slope_of, update_all = KERNELS.value_of, KERNELS.slope_of, KERNELS.update_all
add_to_average = KERNELS.add_to_average
weigh_of = KERNELS.select(FORMULAS.vectors)


def _entry(build: Callable[[str], Callable[..., Any]]) -> Callable[..., Any]:
    return KERNELS.entry_of(FORMULAS, build)


# ---- Losses --------------------------------------------------------------------------------------


@njit(**FAST, forceinline=True)
def weigh(data, i, margins):  # type: ignore[no-untyped-def]
    """Turn one row's margins into its weighted slopes; return its weighted loss (float64).

    Losses are numbered through both tables: those of one margin, then those of several.
    """
    T = data.X.dtype.type
    k = margins.size
    weight = data.weight[i] if data.weight.size else T(1)
    value = 0.0
    if data.loss < SCALAR_LOSSES:
        for c in range(k):
            m, y = margins[c], data.y[i, c]
            value += float(value_of(data.loss, m, y, data.p))
            margins[c] = slope_of(data.loss, m, y, data.p)
    else:
        which = data.loss - SCALAR_LOSSES
        value = float(weigh_of(which, margins, data.y[i, 0], data.p, margins))
    if data.weight.size:
        for c in range(k):
            margins[c] *= weight
    return value * weight


# ---- Gradient ------------------------------------------------------------------------------------


@njit(**FAST, forceinline=True)
def row_margins(data, visit, s, w, margins):  # type: ignore[no-untyped-def]
    """Margins of one row."""
    d = data.X.shape[1]
    x = data.X[row_of(visit, s)]
    for c in range(w.shape[0]):
        margins[c] = dot(x, w[c], d) + w[c, d]


@njit(**FAST, forceinline=True)
def four_margins(data, visit, s, w, margins):  # type: ignore[no-untyped-def]
    """Margins of four rows; w passes once."""
    X = data.X
    d = X.shape[1]
    x0, x1 = X[row_of(visit, s)], X[row_of(visit, s + 1)]
    x2, x3 = X[row_of(visit, s + 2)], X[row_of(visit, s + 3)]
    for c in range(w.shape[0]):
        row = w[c]
        m0 = m1 = m2 = m3 = row[d]
        for j in range(d):
            m0 += x0[j] * row[j]
            m1 += x1[j] * row[j]
            m2 += x2[j] * row[j]
            m3 += x3[j] * row[j]
        margins[0, c] = m0
        margins[1, c] = m1
        margins[2, c] = m2
        margins[3, c] = m3


@njit(**FAST, forceinline=True)
def add_row(data, visit, s, slopes, gradient):  # type: ignore[no-untyped-def]
    """Add one row's gradient."""
    d = data.X.shape[1]
    x = data.X[row_of(visit, s)]
    for c in range(gradient.shape[0]):
        slope, g = slopes[c], gradient[c]
        for j in range(d):
            g[j] += slope * x[j]
        g[d] += slope


@njit(**FAST, forceinline=True)
def add_four_rows(data, visit, s, slopes, gradient):  # type: ignore[no-untyped-def]
    """Add four rows' gradients; the gradient passes once."""
    X = data.X
    d = X.shape[1]
    x0, x1 = X[row_of(visit, s)], X[row_of(visit, s + 1)]
    x2, x3 = X[row_of(visit, s + 2)], X[row_of(visit, s + 3)]
    for c in range(gradient.shape[0]):
        g = gradient[c]
        s0, s1, s2, s3 = slopes[0, c], slopes[1, c], slopes[2, c], slopes[3, c]
        for j in range(d):
            g[j] += (s0 * x0[j] + s1 * x1[j]) + (s2 * x2[j] + s3 * x3[j])
        g[d] += (s0 + s1) + (s2 + s3)


@njit(**FAST, forceinline=True)
def tile_gradient(data, visit, begin, end, w, margins, gradient):  # type: ignore[no-untyped-def]
    """Sum of the gradients of places begin <= s < end in X's dtype; return the summed loss."""
    total = 0.0
    gradient[:] = 0
    s = begin
    while s < end:
        count = 4 if s + 4 <= end else 1
        if count == 4:
            four_margins(data, visit, s, w, margins)
        else:
            row_margins(data, visit, s, w, margins[0])
        for r in range(count):  # the only place where losses are compiled in, twelve and more
            total += weigh(data, row_of(visit, s + r), margins[r])
        if count == 4:
            add_four_rows(data, visit, s, margins, gradient)
        else:
            add_row(data, visit, s, margins[0], gradient)
        s += count
    if not data.fit_intercept:
        gradient[:, -1] = 0
    return total


@njit(**FAST, forceinline=True)
def sum_gradient(data, visit, begin, end, w, margins, partial, total):  # type: ignore[no-untyped-def]
    """Add the gradient of begin <= s < end to ``total``, tile after tile; return the loss."""
    summed = 0.0
    flat = partial.reshape(-1)
    while begin < end:
        stop = min(begin + TILE_ROWS, end)
        summed += tile_gradient(data, visit, begin, stop, w, margins, partial)
        for j in range(total.size):
            total[j] += flat[j]
        begin = stop
    return summed


def _add_gradient(digest: str) -> Callable[..., Any]:
    def add_gradient(data, visit, theta, total):  # type: ignore[no-untyped-def]
        _ = digest
        w = theta.reshape(-1, data.X.shape[1] + 1)
        margins = np.empty((4, w.shape[0]), data.X.dtype)
        partial = np.empty(w.shape, data.X.dtype)
        return sum_gradient(data, visit, 0, visit.n_rows, w, margins, partial, total)

    return add_gradient


def _variance(digest: str) -> Callable[..., Any]:
    def variance(data, visit, theta, gradient):  # type: ignore[no-untyped-def]
        _ = digest
        d = data.X.shape[1]
        w = theta.reshape(-1, d + 1)
        margins = np.empty((4, w.shape[0]), data.X.dtype)
        partial = np.empty(w.shape, data.X.dtype)
        summed = sum_gradient(data, visit, 0, visit.n_rows, w, margins, partial, gradient)
        second = 0.0
        for s in range(visit.n_rows):
            i = row_of(visit, s)
            x = data.X[i]
            row_margins(data, visit, s, w, margins[0])
            weigh(data, i, margins[0])
            norm = 1.0 if data.fit_intercept else 0.0
            for j in range(d):
                norm += float(x[j]) * x[j]
            squares = 0.0
            for c in range(w.shape[0]):
                squares += float(margins[0, c]) * margins[0, c]
            second += squares * norm
        return summed, second

    return variance


# ---- Descent -------------------------------------------------------------------------------------


def _descend_samples(digest: str) -> Callable[..., Any]:
    def descend_samples(data, visit, updates, parameters):  # type: ignore[no-untyped-def]
        _ = digest
        X, average, averaged = data.X, parameters.average, parameters.averaged
        d = X.shape[1]
        T = X.dtype.type
        w = parameters.theta.reshape(-1, d + 1)
        k = w.shape[0]
        margins = np.empty(k, X.dtype)
        total = norm = 0.0
        for s in range(visit.n_rows):
            i = row_of(visit, s)
            x = X[i]
            row_margins(data, visit, s, w, margins)
            total += weigh(data, i, margins)
            if s == visit.n_rows - 1:
                for c in range(k):
                    for j in range(d):
                        g = float(margins[c] * x[j]) + updates.l2 * w[c, j]
                        norm += g * g
                    if data.fit_intercept:
                        norm += float(margins[c]) * margins[c]
            rate = updates.constants[s if updates.constants.shape[0] > 1 else 0, 0]
            keep = T(1.0 - rate * updates.l2)
            amount = T(rate * updates.l1)
            for c in range(k):
                row, step = w[c], T(rate) * margins[c]
                for j in range(d):
                    row[j] = keep * row[j] - step * x[j]
                if updates.l1 > 0:
                    for j in range(d):
                        row[j] = soften(row[j], amount)
                if data.fit_intercept:
                    row[d] -= step
            if average.size:
                averaged += 1
                add_to_average(average, averaged, parameters.theta)
        return total, np.sqrt(norm), averaged

    return descend_samples


@njit(**FAST, forceinline=True)
def finish(total, count, updates, step, fit_intercept, d, parameters, averaged):  # type: ignore[no-untyped-def]
    """Turn a summed gradient into one update; return its norm before clipping."""
    theta, slots = parameters.theta, parameters.slots
    first = slots[0] if slots.shape[0] > 0 else theta[:0]
    second = slots[1] if slots.shape[0] > 1 else theta[:0]
    T = theta.dtype.type
    mean = 1.0 / count
    norm = 0.0
    for begin in range(0, theta.size, d + 1):
        for j in range(begin, begin + d):
            g = total[j] * mean + updates.l2 * theta[j]
            norm += g * g
        norm += (total[begin + d] * mean) ** 2
    norm = np.sqrt(norm)
    factor = updates.clip_norm / norm if 0 < updates.clip_norm < norm else 1.0
    scale = mean * factor
    decay = T(updates.l2 * factor)
    constants = updates.constants[step if updates.constants.shape[0] > 1 else 0]
    c = constants.astype(theta.dtype)
    undecayed = constants.astype(theta.dtype)
    if c.size > 1:
        undecayed[1] = 1  # the intercepts do not decay
    amount = T(constants[0] * updates.l1)
    rule = updates.rule
    rows = theta.size // (d + 1)
    for piece in range(2 * rows if fit_intercept else rows):  # coefficients, then the intercepts
        begin = piece % rows * (d + 1)
        if piece < rows:
            end, l2, scalars = begin + d, decay, c
        else:
            begin, end, l2, scalars = begin + d, begin + d + 1, T(0), undecayed
        update_all(rule, theta, first, second, total, scale, l2, scalars, begin, end)
        if updates.l1 > 0 and piece < rows:
            for j in range(begin, end):
                theta[j] = soften(theta[j], amount)
    if parameters.average.size:
        add_to_average(parameters.average, averaged + 1, theta)
    return norm


def _finish_step(digest: str) -> Callable[..., Any]:
    def finish_step(total, count, updates, fit_intercept, d, parameters):  # type: ignore[no-untyped-def]
        _ = digest
        averaged = parameters.averaged
        norm = finish(total, count, updates, 0, fit_intercept, d, parameters, averaged)
        return norm, averaged + (1 if parameters.average.size else 0)

    return finish_step


def _descend_batches(digest: str) -> Callable[..., Any]:
    def descend_batches(data, visit, batch_size, updates, parameters):  # type: ignore[no-untyped-def]
        _ = digest
        d = data.X.shape[1]
        w = parameters.theta.reshape(-1, d + 1)
        averaged = parameters.averaged
        margins = np.empty((4, w.shape[0]), data.X.dtype)
        partial = np.empty(w.shape, data.X.dtype)
        total = np.empty(w.size, np.float64)
        summed = norm = 0.0
        step = begin = 0
        while begin < visit.n_rows:
            stop = min(begin + batch_size, visit.n_rows)
            total[:] = 0
            summed += sum_gradient(data, visit, begin, stop, w, margins, partial, total)
            count, fit_intercept = stop - begin, data.fit_intercept
            norm = finish(total, count, updates, step, fit_intercept, d, parameters, averaged)
            if parameters.average.size:
                averaged += 1
            begin = stop
            step += 1
        return summed, norm, averaged

    return descend_batches


def _margin(digest: str) -> Callable[..., Any]:
    def margin(X, visit, theta, out):  # type: ignore[no-untyped-def]
        _ = digest
        d = X.shape[1]
        w = theta.reshape(-1, d + 1)
        for s in range(visit.n_rows):
            x = X[row_of(visit, s)]
            for c in range(w.shape[0]):
                out[s, c] = dot(x, w[c], d) + w[c, d]

    return margin


descend_samples = _entry(_descend_samples)
descend_batches = _entry(_descend_batches)
add_gradient = _entry(_add_gradient)
finish_step = _entry(_finish_step)
variance = _entry(_variance)
margin = _entry(_margin)

"""The Numba loops of the classic step. They mirror ``csrc/cpu/classic.h``.

Executed once per table of formulas, after ``kernels_sparse.py`` and with ``KERNELS`` set to it.
Arrays that a run has no use for are empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

# Set by the loader before this module runs; imported plainly, it takes the built-in tables.
SPARSE: Any = globals().get("KERNELS")
if SPARSE is None:
    from schuss.backends import kernels_sparse as SPARSE

KERNELS = SPARSE.KERNELS
FORMULAS = globals().get("FORMULAS") or KERNELS.FORMULAS
FAST = KERNELS.FAST

row_of, CHUNK, column = KERNELS.row_of, KERNELS.CHUNK, SPARSE.column
value_of, slope_of = KERNELS.value_of, KERNELS.slope_of
add_to_average, look_ahead = KERNELS.add_to_average, KERNELS.look_ahead
look_ahead_sparse, dot_sparse, LEAST_SCALE = SPARSE.look_ahead, SPARSE.dot, SPARSE.LEAST_SCALE

LARGEST_SLOPE = 1e12


# Where intercepts come back to 0, what a fused product keeps of its tail would be a sign.
UNFUSED: dict[str, Any] = {**FAST, "fastmath": FAST["fastmath"] - {"contract"}}


def _entry(build: Callable[[str], Callable[..., Any]]) -> Callable[..., Any]:
    return KERNELS.entry_of(FORMULAS, build)


# ---- What dense and sparse rows share ------------------------------------------------------------


@njit(**FAST, forceinline=True)
def pay(w, owed, paid):  # type: ignore[no-untyped-def]
    """The weight moved towards zero by what it still owes of the L1 penalty; without branches."""
    zero = owed - owed
    down, up = max(owed + paid, zero), max(owed - paid, zero)
    return max(max(w, zero) - down, zero) + min(min(w, zero) + up, zero)


@njit(**FAST, forceinline=True)
def label_of(data, walk, i, k):  # type: ignore[no-untyped-def]
    """The label of a row for output ``k``."""
    T = walk.coef.dtype.type
    if not walk.own.size:
        return data.y[i]
    return T(1) if data.y[i] == k else T(-1)


@njit(**FAST, forceinline=True)
def weight_of(data, walk, i, k):  # type: ignore[no-untyped-def]
    """The weight of a row for output ``k``."""
    weight = float(data.weight[i]) if data.weight.size else 1.0
    if walk.own.size and data.y[i] == k:
        return weight * walk.own[k]
    return weight


@njit(**FAST, forceinline=True)
def length_of(step, rate, loss, norm):  # type: ignore[no-untyped-def]
    """How long a step is: the rate, or what the row asks for."""
    if step.passive == 1:
        return min(step.aggressiveness, loss / norm)
    if step.passive == 2:
        return loss / (norm + 0.5 / step.aggressiveness)
    return rate


@njit(**FAST)
def weigh(data, step, walk, i, k, margin):  # type: ignore[no-untyped-def]
    """The row's loss and its slope, cut off, for one output; the loss is added up."""
    y = label_of(data, walk, i, k)
    value = float(value_of(data.loss, margin, y, data.p))
    slope = float(slope_of(data.loss, margin, y, data.p))
    walk.loss[k] += value + step.drift * walk.intercept[k]
    return value, min(max(slope, -LARGEST_SLOPE), LARGEST_SLOPE)


@njit(**FAST, forceinline=True)
def rate_at(step, walk, s, k):  # type: ignore[no-untyped-def]
    """Learning rate of one output at place ``s``."""
    return step.rates[s if step.rates.size > 1 else 0] * walk.factor[k]


@njit(**UNFUSED, forceinline=True)
def move_intercept(data, step, walk, averaged, k, rate, change):  # type: ignore[no-untyped-def]
    """The intercept's part of a step, and of the mean."""
    if data.fit_intercept:
        walk.intercept[k] += (change - rate * step.drift) * step.intercept_decay
    if walk.average.size:
        walk.average[k, -1] += (walk.intercept[k] - walk.average[k, -1]) / averaged


@njit(**FAST, forceinline=True)
def squared_norm(x):  # type: ignore[no-untyped-def]
    """Of a row's numbers, in float64."""
    norm = 0.0
    for j in range(x.size):
        norm += float(x[j]) * x[j]
    return norm


# ---- Dense rows ----------------------------------------------------------------------------------


@njit(**FAST)
def advance(x, w, keep, change, owed, paid):  # type: ignore[no-untyped-def]
    """One update: keep w + change x, then L1."""
    if paid.size:
        for j in range(x.size):
            moved = keep * w[j] + change * x[j]
            w[j] = pay(moved, owed, paid[j])
            paid[j] += w[j] - moved
    elif change != 0 or keep != 1:
        for j in range(x.size):
            w[j] = keep * w[j] + change * x[j]


def _descend(digest: str) -> Callable[..., Any]:
    def descend(data, visit, step, walk, averaged):  # type: ignore[no-untyped-def]
        _ = digest
        X, coef, active = data.X, walk.coef, walk.active
        d, T = X.shape[1], coef.dtype.type
        for s in range(visit.n_rows):
            if s % CHUNK == 0:
                look_ahead(data, visit, s, min(s + CHUNK, visit.n_rows))
            i = row_of(visit, s)
            x = X[i]
            norm = squared_norm(x) if step.passive else 0.0
            averaged += int(walk.average.size > 0 and not (step.passive == 1 and norm == 0))
            for a in range(active.size):
                k = active[a]
                w = coef[k]
                margin = T(walk.intercept[k])
                for j in range(d):
                    margin += x[j] * w[j]
                value, slope = weigh(data, step, walk, i, k, margin)
                if step.passive == 1 and norm == 0:
                    continue
                rate = rate_at(step, walk, s, k)
                length = length_of(step, rate, value, norm)
                change = -length * slope * weight_of(data, walk, i, k)
                walk.owed[k] += rate * step.l1
                keep = T(max(1 - rate * step.l2, 0.0))
                advance(x, w, keep, T(change), T(walk.owed[k]), walk.paid[k])
                move_intercept(data, step, walk, averaged, k, rate, change)
                if walk.average.size:
                    add_to_average(walk.average[k], averaged, w)
        return averaged

    return descend


# ---- Sparse rows ---------------------------------------------------------------------------------
#
# Weight j is scale * v[j]; iterates are counted by the sum of their scales.


@njit(**FAST)
def add_entries(x, columns, v, scale, step, owed, paid, sums, counted, span):  # type: ignore[no-untyped-def]
    """Add ``step`` times the entries to their weights, which then pay what they owe."""
    T = v.dtype.type
    inverse = T(1 / scale)
    for q in range(x.size):
        j = column(columns, q)
        now = v[j] + step * x[q]
        if sums.size:
            sums[j] += v[j] * (span - counted[j])
            counted[j] = span
        if paid.size:
            real = T(scale) * now
            left = pay(real, owed, paid[j])
            paid[j] += left - real
            now = inverse * left
        v[j] = now


@njit(**FAST)
def fold(v, scale, sums, counted, span):  # type: ignore[no-untyped-def]
    """The scale into the weights: weight j is v[j] from here on."""
    T = v.dtype.type
    for j in range(v.size):
        if sums.size:
            sums[j] += v[j] * (span - counted[j])
            counted[j] = 0
        v[j] = T(scale * v[j])


def _descend_sparse(digest: str) -> Callable[..., Any]:
    def descend_sparse(rows, visit, step, walk, averaged):  # type: ignore[no-untyped-def]
        _ = digest
        data, indices, indptr = rows.data, rows.indices, rows.indptr
        coef, active = walk.coef, walk.active
        outputs, d, T = coef.shape[0], coef.shape[1], coef.dtype.type
        before = averaged
        scale, span = np.ones(outputs), np.zeros(outputs)
        sums = np.zeros((outputs, d if walk.average.size else 0))
        counted = np.zeros_like(sums)
        for s in range(visit.n_rows):
            look_ahead_sparse(rows, visit, s)
            i = row_of(visit, s)
            begin, end = indptr[i], indptr[i + 1]
            x, columns = data[begin:end], indices[begin:end]
            norm = squared_norm(x) if step.passive else 0.0
            averaged += int(walk.average.size > 0 and not (step.passive == 1 and norm == 0))
            for a in range(active.size):
                k = active[a]
                v = coef[k]
                margin = T(scale[k]) * dot_sparse(data, indices, begin, end, v)
                margin += T(walk.intercept[k])
                value, slope = weigh(rows, step, walk, i, k, margin)
                if step.passive == 1 and norm == 0:
                    continue
                rate = rate_at(step, walk, s, k)
                length = length_of(step, rate, value, norm)
                change = -length * slope * weight_of(rows, walk, i, k)
                walk.owed[k] += rate * step.l1
                keep = max(1 - rate * step.l2, 0.0)
                if scale[k] * keep < LEAST_SCALE:
                    fold(v, scale[k], sums[k], counted[k], span[k])
                    v *= T(keep)
                    scale[k], span[k] = 1.0, 0.0
                else:
                    scale[k] *= keep
                part, owed, paid = T(change / scale[k]), T(walk.owed[k]), walk.paid[k]
                if change != 0 or paid.size:
                    add_entries(
                        x, columns, v, scale[k], part, owed, paid, sums[k], counted[k], span[k]
                    )
                span[k] += scale[k]
                move_intercept(rows, step, walk, averaged, k, rate, change)
        for a in range(active.size):
            k = active[a]
            fold(coef[k], scale[k], sums[k], counted[k], span[k])
            if walk.average.size and averaged:
                for j in range(d):
                    walk.average[k, j] = (walk.average[k, j] * before + sums[k, j]) / averaged
        return averaged

    return descend_sparse


descend = _entry(_descend)
descend_sparse = _entry(_descend_sparse)

"""The Numba loop skeletons for sparse rows (CSR). They mirror ``csrc/cpu/sparse.h``.

Executed once per table of formulas, after ``kernels.py`` and with ``KERNELS`` set to it. What a
penalty does to all weights at every step is put off: weight j is ``scale * v[j]``, with an L1
penalty ``scale * soften(v[j], owed - paid[j])`` (docs/design/sparse.rst). Arrays that a run has no
use for are empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

# Set by the loader before this module runs; imported plainly, it takes the built-in tables.
KERNELS: Any = globals().get("KERNELS")
if KERNELS is None:
    from schuss.backends import kernels as KERNELS

FORMULAS = globals().get("FORMULAS") or KERNELS.FORMULAS
FAST = KERNELS.FAST

row_of, weigh, soften, finish = KERNELS.row_of, KERNELS.weigh, KERNELS.soften, KERNELS.finish
finish_step = KERNELS.finish_step

# The scale is folded into the weights below this; v stays far from overflow.
LEAST_SCALE = 1e-9


def _entry(build: Callable[[str], Callable[..., Any]]) -> Callable[..., Any]:
    return KERNELS.entry_of(FORMULAS, build)


# ---- What is asked for ahead of its use ----------------------------------------------------------

# Rows ahead: where a row begins, and its entries.
BEGINS_AHEAD, ENTRIES_AHEAD = 24, 8
LINE = KERNELS.LINE

prefetch = KERNELS.to_first_level


@njit(**FAST, forceinline=True)
def look_ahead(rows, visit, s):  # type: ignore[no-untyped-def]
    """Ask for what the rows after place ``s`` will need."""
    if s + BEGINS_AHEAD < visit.n_rows:
        i = row_of(visit, s + BEGINS_AHEAD)
        prefetch(rows.indptr, i)
        prefetch(rows.y, i)
    if s + ENTRIES_AHEAD < visit.n_rows:
        i = row_of(visit, s + ENTRIES_AHEAD)
        begin, end = rows.indptr[i], rows.indptr[i + 1]
        for k in range(begin, end, LINE // rows.indices.itemsize):
            prefetch(rows.indices, k)
        for k in range(begin, end, LINE // rows.data.itemsize):
            prefetch(rows.data, k)


# ---- Weights whose penalties are put off ---------------------------------------------------------


# Sums of products are written out: the gather instructions that a compiler would use are slow.
IN_ORDER: dict[str, Any] = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}


@njit(**IN_ORDER, forceinline=True)
def column(indices, k):  # type: ignore[no-untyped-def]
    """Column of an entry, as a number that needs no test for being negative."""
    return np.uint64(indices[k])


@njit(**IN_ORDER)
def dot(data, indices, begin, end, w):  # type: ignore[no-untyped-def]
    """Sum of the entries begin <= k < end times their weights."""
    x, columns = data[begin:end], indices[begin:end]
    whole = x.size // 4 * 4
    a = b = c = d = w.dtype.type(0)
    for k in range(0, whole, 4):
        a += x[k] * w[column(columns, k)]
        b += x[k + 1] * w[column(columns, k + 1)]
        c += x[k + 2] * w[column(columns, k + 2)]
        d += x[k + 3] * w[column(columns, k + 3)]
    for k in range(whole, x.size):
        a += x[k] * w[column(columns, k)]
    return (a + b) + (c + d)


@njit(**IN_ORDER)
def soft_dot(data, indices, begin, end, v, paid, owed):  # type: ignore[no-untyped-def]
    """The same over the scale, of weights that may owe a part of the L1 penalty."""
    if not paid.size:
        return dot(data, indices, begin, end, v)
    x, columns = data[begin:end], indices[begin:end]
    total = v.dtype.type(0)
    for k in range(x.size):
        j = column(columns, k)
        total += x[k] * soften(v[j], owed - paid[j])
    return total


@njit(**FAST, forceinline=True)
def add_entries(change, data, indices, begin, end, v, paid, owed, sums, counted, span):  # type: ignore[no-untyped-def]
    """Add ``change`` times the entries to their weights, which are brought to date."""
    x, columns = data[begin:end], indices[begin:end]
    if paid.size:
        for k in range(x.size):
            j = column(columns, k)
            v[j] = soften(v[j], owed - paid[j]) + change * x[k]
            paid[j] = owed
    elif sums.size:
        for k in range(x.size):
            j = column(columns, k)
            sums[j] += v[j] * (span - counted[j])
            counted[j] = span
            v[j] += change * x[k]
    else:
        for k in range(x.size):
            v[column(columns, k)] += change * x[k]


@njit(**FAST)
def settle(v, scale, factor, paid, owed, sums, counted, span):  # type: ignore[no-untyped-def]
    """Bring all weights to date, and multiply them by ``factor``."""
    T = v.dtype.type
    if scale == 1 and factor == 1 and not paid.size and not sums.size:
        return
    for j in range(v.size):
        if sums.size:
            sums[j] += v[j] * (span - counted[j])
            counted[j] = 0
        if paid.size:
            v[j] = soften(v[j], owed - paid[j])
            paid[j] = 0
        v[j] = T(factor * T(scale * v[j]))


@njit(**FAST)
def into_average(average, averaged, iterates, sums):  # type: ignore[no-untyped-def]
    """The mean of the last iterates into the average of those before them."""
    for j in range(sums.size):
        average[j] = (average[j] * (averaged - iterates) + sums[j]) / averaged


# ---- Per-sample descent --------------------------------------------------------------------------


def _descend_samples(digest: str) -> Callable[..., Any]:
    def descend_samples(rows, visit, updates, parameters):  # type: ignore[no-untyped-def]
        _ = digest
        data, indices, indptr = rows.data, rows.indices, rows.indptr
        theta, average, averaged = parameters.theta, parameters.average, parameters.averaged
        d, T = theta.size - 1, theta.dtype.type
        v, b = theta[:d], theta[d]
        paid = np.zeros(d if updates.l1 > 0 else 0, theta.dtype)
        sums = np.zeros(d if average.size else 0)
        counted = np.zeros(sums.size)
        total = norm = owed = span = 0.0
        scale = inverse = 1.0
        for s in range(visit.n_rows):
            look_ahead(rows, visit, s)
            i = row_of(visit, s)
            begin, end = indptr[i], indptr[i + 1]
            sum_ = soft_dot(data, indices, begin, end, v, paid, T(owed))
            value, slope = weigh(rows, i, T(scale) * sum_ + b)
            total += value
            if s == visit.n_rows - 1:
                settle(v, scale, 1.0, paid, T(owed), sums, counted, span)
                scale, inverse, owed, span = 1.0, 1.0, 0.0, 0.0
                for j in range(d):
                    norm += float(v[j]) * v[j]
                norm *= updates.l2 * updates.l2
                for k in range(begin, end):
                    g = float(slope * data[k])
                    norm += g * (g + 2 * updates.l2 * v[indices[k]])
                if rows.fit_intercept:
                    norm += float(slope) * slope
            rate = updates.constants[s if updates.constants.shape[0] > 1 else 0, 0]
            keep = 1.0 - rate * updates.l2
            if scale * keep < LEAST_SCALE:
                settle(v, scale, keep, paid, T(owed), sums, counted, span)
                scale, inverse, owed, span = 1.0, 1.0, 0.0, 0.0
            elif keep != 1:
                scale *= keep
                inverse = 1 / scale
            change = T(-rate * inverse) * slope
            add_entries(change, data, indices, begin, end, v, paid, T(owed), sums, counted, span)
            owed += rate * updates.l1 * inverse
            span += scale
            if rows.fit_intercept:
                b -= T(rate) * slope
            if average.size:
                averaged += 1
                average[d] += (b - average[d]) / averaged
        settle(v, scale, 1.0, paid, T(owed), sums, counted, span)
        if average.size and visit.n_rows:
            into_average(average, averaged, visit.n_rows, sums)
        theta[d] = b
        return total, np.sqrt(norm), averaged

    return descend_samples


# ---- Gradient ------------------------------------------------------------------------------------


@njit(**FAST, forceinline=True)
def sum_gradient(rows, visit, begin, end, theta, total):  # type: ignore[no-untyped-def]
    """Add the gradient of the places begin <= s < end to ``total``; return the loss."""
    data, indices, indptr = rows.data, rows.indices, rows.indptr
    d = theta.size - 1
    summed = 0.0
    for s in range(begin, end):
        look_ahead(rows, visit, s)
        i = row_of(visit, s)
        first, last = indptr[i], indptr[i + 1]
        value, slope = weigh(rows, i, dot(data, indices, first, last, theta) + theta[d])
        summed += value
        for k in range(first, last):
            total[indices[k]] += slope * data[k]
        if rows.fit_intercept:
            total[d] += slope
    return summed


def _add_gradient(digest: str) -> Callable[..., Any]:
    def add_gradient(rows, visit, theta, total):  # type: ignore[no-untyped-def]
        _ = digest
        return sum_gradient(rows, visit, 0, visit.n_rows, theta, total)

    return add_gradient


def _variance(digest: str) -> Callable[..., Any]:
    def variance(rows, visit, theta, gradient):  # type: ignore[no-untyped-def]
        _ = digest
        data, indices, indptr = rows.data, rows.indices, rows.indptr
        d = theta.size - 1
        summed = second = 0.0
        for s in range(visit.n_rows):
            i = row_of(visit, s)
            first, last = indptr[i], indptr[i + 1]
            value, narrow = weigh(rows, i, dot(data, indices, first, last, theta) + theta[d])
            slope = float(narrow)
            summed += value
            norm = 1.0 if rows.fit_intercept else 0.0
            for k in range(first, last):
                element = float(data[k])
                norm += element * element
                gradient[indices[k]] += slope * element
            if rows.fit_intercept:
                gradient[d] += slope
            second += slope * slope * norm
        return summed, second

    return variance


def _margin(digest: str) -> Callable[..., Any]:
    def margin(data, indices, indptr, visit, theta, out):  # type: ignore[no-untyped-def]
        _ = digest
        b = theta[theta.size - 1]
        for s in range(visit.n_rows):
            i = row_of(visit, s)
            out[s] = dot(data, indices, indptr[i], indptr[i + 1], theta) + b

    return margin


# ---- Mini-batch descent --------------------------------------------------------------------------


def _descend_batches(digest: str) -> Callable[..., Any]:
    def descend_batches(rows, visit, batch_size, updates, parameters):  # type: ignore[no-untyped-def]
        _ = digest
        data, indices, indptr = rows.data, rows.indices, rows.indptr
        theta, average, averaged = parameters.theta, parameters.average, parameters.averaged
        d, T = theta.size - 1, theta.dtype.type
        v, b = theta[:d], theta[d]
        paid = np.zeros(d if updates.l1 > 0 else 0, theta.dtype)
        sums = np.zeros(d if average.size else 0)
        counted = np.zeros(sums.size)
        slopes = np.empty(min(batch_size, visit.n_rows), theta.dtype)
        summed = norm = owed = span = 0.0
        scale = inverse = 1.0
        step = begin = 0
        while begin < visit.n_rows:
            count = min(batch_size, visit.n_rows - begin)
            bias = T(0)
            for s in range(count):
                look_ahead(rows, visit, begin + s)
                i = row_of(visit, begin + s)
                sum_ = soft_dot(data, indices, indptr[i], indptr[i + 1], v, paid, T(owed))
                value, slopes[s] = weigh(rows, i, T(scale) * sum_ + b)
                summed += value
                bias += slopes[s]
            if begin + count == visit.n_rows:
                settle(v, scale, 1.0, paid, T(owed), sums, counted, span)
                scale, inverse, owed, span = 1.0, 1.0, 0.0, 0.0
                total = (count * updates.l2) * v.astype(np.float64)
                for s in range(count):
                    i = row_of(visit, begin + s)
                    for k in range(indptr[i], indptr[i + 1]):
                        total[indices[k]] += slopes[s] * data[k]
                for j in range(d):
                    norm += total[j] * total[j]
                if rows.fit_intercept:
                    norm += float(bias) * bias
                norm = np.sqrt(norm) / count
            rate = updates.constants[step if updates.constants.shape[0] > 1 else 0, 0]
            keep = 1.0 - rate * updates.l2
            if scale * keep < LEAST_SCALE:
                settle(v, scale, keep, paid, T(owed), sums, counted, span)
                scale, inverse, owed, span = 1.0, 1.0, 0.0, 0.0
            elif keep != 1:
                scale *= keep
                inverse = 1 / scale
            change = T(-rate * inverse / count)
            for s in range(count):
                i = row_of(visit, begin + s)
                first, last, part = indptr[i], indptr[i + 1], change * slopes[s]
                add_entries(part, data, indices, first, last, v, paid, T(owed), sums, counted, span)
            owed += rate * updates.l1 * inverse
            span += scale
            if rows.fit_intercept:
                b -= T(rate / count) * bias
            if average.size:
                averaged += 1
                average[d] += (b - average[d]) / averaged
            begin += count
            step += 1
        settle(v, scale, 1.0, paid, T(owed), sums, counted, span)
        if average.size and step:
            into_average(average, averaged, step, sums)
        theta[d] = b
        return summed, norm, averaged

    return descend_batches


def _descend_all(digest: str) -> Callable[..., Any]:
    def descend_all(rows, visit, batch_size, updates, parameters):  # type: ignore[no-untyped-def]
        _ = digest
        theta, averaged = parameters.theta, parameters.averaged
        total = np.empty(theta.size, np.float64)
        c = np.empty(updates.constants.shape[1], theta.dtype)
        summed = norm = 0.0
        step = begin = 0
        while begin < visit.n_rows:
            stop = min(begin + batch_size, visit.n_rows)
            total[:] = 0
            summed += sum_gradient(rows, visit, begin, stop, theta, total)
            with_b, last, count = rows.fit_intercept, stop == visit.n_rows, stop - begin
            norm = finish(total, count, updates, step, with_b, parameters, averaged, c, last)
            if parameters.average.size:
                averaged += 1
            begin = stop
            step += 1
        return summed, norm, averaged

    return descend_all


# ---- Asynchronous descent ------------------------------------------------------------------------

# Rows that a thread works on before it leaves the next to others; updates between two looks.
ROWS_TAKEN = 64
LOOK_EVERY = 16


@njit(**FAST, forceinline=True)
def made_by_others(done, rank):  # type: ignore[no-untyped-def]
    """Updates that the other threads have made."""
    made = 0
    for r in range(done.shape[0]):
        if r != rank:
            made += done[r, 0]
    return made


def _descend_freely(digest: str) -> Callable[..., Any]:
    def descend_freely(rows, visit, updates, theta, scales, done, rank, met):  # type: ignore[no-untyped-def]
        _ = digest
        data, indices, indptr = rows.data, rows.indices, rows.indptr
        threads, d, T = done.shape[0], theta.size - 1, theta.dtype.type
        longest = 0
        for i in range(indptr.size - 1 if threads > 1 else 0):
            longest = max(longest, indptr[i + 1] - indptr[i])
        seen = np.empty(longest, theta.dtype)
        total = 0.0
        for first in range(rank * ROWS_TAKEN, visit.n_rows, threads * ROWS_TAKEN):
            for s in range(first, min(first + ROWS_TAKEN, visit.n_rows)):
                look_ahead(rows, visit, s)
                i = row_of(visit, s)
                begin, end = indptr[i], indptr[i + 1]
                look = threads > 1 and s % LOOK_EVERY == 0
                before = made_by_others(done, rank) if look else 0
                if look:
                    for k in range(begin, end):
                        seen[k - begin] = theta[indices[k]]
                sum_ = dot(data, indices, begin, end, theta)
                value, slope = weigh(rows, i, T(scales[s]) * sum_ + theta[d])
                total += value
                rate = updates.constants[s if updates.constants.shape[0] > 1 else 0, 0]
                change = T(-rate * (1 / scales[s + 1])) * slope
                if look:
                    conflict = False
                    for k in range(begin, end):
                        conflict |= theta[indices[k]] != seen[k - begin]
                        theta[indices[k]] += change * data[k]
                    delay = made_by_others(done, rank) - before
                    met[0] += 1
                    met[1] += conflict
                    met[2] += delay
                    met[3] = max(met[3], delay)
                else:
                    for k in range(begin, end):
                        theta[indices[k]] += change * data[k]
                if rows.fit_intercept:
                    theta[d] -= T(rate) * slope
                done[rank, 0] += 1
        return total

    return descend_freely


descend_samples = _entry(_descend_samples)
descend_freely = _entry(_descend_freely)
descend_batches = _entry(_descend_batches)
descend_all = _entry(_descend_all)
add_gradient = _entry(_add_gradient)
variance = _entry(_variance)
margin = _entry(_margin)

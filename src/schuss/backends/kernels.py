"""The Numba loop skeletons. They mirror ``csrc/cpu/kernels.h`` loop for loop.

This module is executed once per table of formulas (see ``jit.py``), with ``FORMULAS`` set to the
functions to compile and ``DIGEST`` to a digest of everything they were made from. Numba's on-disk
cache does not notice an edited formula in another file, and a kernel that takes functions as
arguments never hits it: so the formulas are folded into one selector by number, and every entry
point holds the digest in its closure, which is part of the cache's key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from schuss.backends.protocol import TILE_ROWS
from schuss.formulas.bijection import ROUNDS
from schuss.formulas.penalties import shrink_towards_zero as _shrink

FORMULAS: dict[str, Any]
DIGEST: str
CACHE: bool

# Sums may be reordered; NaN and infinity keep their meaning, and x / 0 is one of them.
FAST: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    "error_model": "numpy",
}

soften = njit(_shrink)


def _select(functions: list[Callable[..., Any]]) -> Callable[..., Any]:
    """One function of (which, a, b, c) that runs the chosen one."""
    head = njit(functions[0], **FAST)
    if len(functions) == 1:

        @njit(**FAST)
        def last(which, a, b, c):  # type: ignore[no-untyped-def]
            return head(a, b, c)

        return last
    tail = _select(functions[1:])

    @njit(**FAST)
    def chosen(which, a, b, c):  # type: ignore[no-untyped-def]
        if which == 0:
            return head(a, b, c)
        return tail(which - 1, a, b, c)

    return chosen


value_of = _select(FORMULAS["values"])
slope_of = _select(FORMULAS["slopes"])


def _select_rule(functions: list[Callable[..., Any]]) -> Callable[..., Any]:
    """One function of (which, w, g, a, b, c) that runs the chosen rule."""
    head = njit(functions[0], **FAST)
    if len(functions) == 1:

        @njit(**FAST)
        def last(which, w, g, a, b, c):  # type: ignore[no-untyped-def]
            return head(w, g, a, b, c)

        return last
    tail = _select_rule(functions[1:])

    @njit(**FAST)
    def chosen(which, w, g, a, b, c):  # type: ignore[no-untyped-def]
        if which == 0:
            return head(w, g, a, b, c)
        return tail(which - 1, w, g, a, b, c)

    return chosen


update_of = _select_rule(FORMULAS["rules"])


def _entry(build: Callable[[str], Callable[..., Any]]) -> Callable[..., Any]:
    """Compile an entry point, cached on disk where a place for the cache is writable."""
    function = build(DIGEST)
    if CACHE:
        try:
            return njit(function, nogil=True, **FAST, cache=True)
        except RuntimeError:  # no writable place: go on without a cache
            pass
    return njit(function, nogil=True, **FAST)


@njit(**FAST)
def dot(x, w, d):  # type: ignore[no-untyped-def]
    total = x.dtype.type(0)
    for j in range(d):
        total += x[j] * w[j]
    return total


@njit(**FAST)
def add_to_average(average, averaged, theta):  # type: ignore[no-untyped-def]
    part = 1.0 / averaged
    for j in range(theta.size):
        average[j] += (theta[j] - average[j]) * part


def _descend_samples(digest: str) -> Callable[..., Any]:
    def descend_samples(  # type: ignore[no-untyped-def]
        X, y, weight, loss, p, fit_intercept, rows, start, count, rates, l2, l1, theta, average, averaged
    ):
        _ = digest
        d = X.shape[1]
        T = X.dtype.type
        total = norm = 0.0
        w = theta[:d]
        b = theta[d]
        for s in range(count):
            i = rows[s] if rows.size else start + s
            x = X[i]
            margin = dot(x, w, d) + b
            scale = weight[i] if weight.size else T(1)
            slope = T(scale * slope_of(loss, margin, y[i], p))
            total += scale * value_of(loss, margin, y[i], p)
            if s == count - 1:
                for j in range(d):
                    g = float(slope * x[j]) + l2 * w[j]
                    norm += g * g
                if fit_intercept:
                    norm += float(slope) * slope
            rate = rates[s] if rates.size > 1 else rates[0]
            keep = T(1.0 - rate * l2)
            step = T(rate) * slope
            for j in range(d):
                w[j] = keep * w[j] - step * x[j]
            if l1 > 0:
                amount = T(rate * l1)
                for j in range(d):
                    w[j] = soften(w[j], amount)
            if fit_intercept:
                b -= step
            if average.size:
                theta[d] = b
                averaged += 1
                add_to_average(average, averaged, theta)
        theta[d] = b
        return total, np.sqrt(norm), averaged

    return descend_samples


@njit(**FAST)
def tile_gradient(  # type: ignore[no-untyped-def]
    X, y, weight, loss, p, fit_intercept, rows, begin, end, w, gradient
):
    """Sum of the gradients of rows begin <= s < end; four rows share a pass over the gradient."""
    d = X.shape[1]
    T = X.dtype.type
    total = 0.0
    bias = T(0)
    gradient[:] = 0
    slope = np.empty(4, X.dtype)
    s = begin
    while s < end:
        four = s + 4 <= end
        i0 = rows[s] if rows.size else s
        i1 = (rows[s + 1] if rows.size else s + 1) if four else i0
        i2 = (rows[s + 2] if rows.size else s + 2) if four else i0
        i3 = (rows[s + 3] if rows.size else s + 3) if four else i0
        x0, x1, x2, x3 = X[i0], X[i1], X[i2], X[i3]
        if four:
            m0, m1, m2, m3 = w[d], w[d], w[d], w[d]
            for j in range(d):
                m0 += x0[j] * w[j]
                m1 += x1[j] * w[j]
                m2 += x2[j] * w[j]
                m3 += x3[j] * w[j]
        else:
            m0 = m1 = m2 = m3 = dot(x0, w, d) + w[d]
        rows_here = 4 if four else 1
        for k in range(rows_here):
            i = (i0, i1, i2, i3)[k]
            margin = (m0, m1, m2, m3)[k]
            scale = weight[i] if weight.size else T(1)
            slope[k] = scale * slope_of(loss, margin, y[i], p)
            total += scale * value_of(loss, margin, y[i], p)
            bias += slope[k]
        if four:
            s0, s1, s2, s3 = slope[0], slope[1], slope[2], slope[3]
            for j in range(d):
                gradient[j] += (s0 * x0[j] + s1 * x1[j]) + (s2 * x2[j] + s3 * x3[j])
        else:
            s0 = slope[0]
            for j in range(d):
                gradient[j] += s0 * x0[j]
        s += rows_here
    gradient[d] = bias if fit_intercept else T(0)
    return total


@njit(**FAST)
def sum_gradient(  # type: ignore[no-untyped-def]
    X, y, weight, loss, p, fit_intercept, rows, begin, end, theta, partial, total
):
    """Add the summed gradient to ``total``, tile after tile; return the summed loss."""
    summed = 0.0
    while begin < end:
        stop = min(begin + TILE_ROWS, end)
        summed += tile_gradient(
            X, y, weight, loss, p, fit_intercept, rows, begin, stop, theta, partial
        )
        for j in range(theta.size):
            total[j] += partial[j]
        begin = stop
    return summed


def _add_gradient(digest: str) -> Callable[..., Any]:
    def add_gradient(  # type: ignore[no-untyped-def]
        X, y, weight, loss, p, fit_intercept, rows, start, count, theta, total
    ):
        _ = digest
        partial = np.empty(theta.size, X.dtype)
        return sum_gradient(
            X, y, weight, loss, p, fit_intercept, rows, start, start + count, theta, partial, total
        )

    return add_gradient


@njit(**FAST)
def finish(  # type: ignore[no-untyped-def]
    total, count, rule, constants, fit_intercept, l2, l1, clip_norm, theta, slots, average, averaged
):
    """Turn a summed gradient into one update; return its norm and the count of averaged iterates."""
    d = theta.size - 1
    T = theta.dtype.type
    mean = 1.0 / count
    norm = 0.0
    for j in range(d):
        g = total[j] * mean + l2 * theta[j]
        norm += g * g
    norm = np.sqrt(norm + (total[d] * mean) ** 2)
    factor = clip_norm / norm if clip_norm > 0 and norm > clip_norm else 1.0
    scale = mean * factor
    decay = T(l2 * factor)
    c = constants.astype(theta.dtype)
    n_slots = slots.shape[0]
    none = T(0)
    width = d + 1 if fit_intercept else d
    for j in range(width):
        g = T(total[j] * scale)
        if j < d:
            g += decay * theta[j]
        elif c.size > 1:
            c[1] = 1
        a = slots[0, j] if n_slots > 0 else none
        b = slots[1, j] if n_slots > 1 else none
        w, a_new, b_new = update_of(rule, theta[j], g, a, b, c)
        if l1 > 0 and j < d:
            w = soften(T(w), T(constants[0] * l1))
        theta[j] = w
        if n_slots > 0:
            slots[0, j] = a_new
        if n_slots > 1:
            slots[1, j] = b_new
    if average.size:
        averaged += 1
        add_to_average(average, averaged, theta)
    return norm, averaged


def _finish_step(digest: str) -> Callable[..., Any]:
    def finish_step(  # type: ignore[no-untyped-def]
        total, count, rule, constants, fit_intercept, l2, l1, clip_norm, theta, slots, average, averaged
    ):
        _ = digest
        return finish(
            total, count, rule, constants[0], fit_intercept, l2, l1, clip_norm, theta, slots,
            average, averaged,
        )

    return finish_step


def _descend_batches(digest: str) -> Callable[..., Any]:
    def descend_batches(  # type: ignore[no-untyped-def]
        X, y, weight, loss, p, fit_intercept, rows, start, count, batch_size,
        rule, constants, l2, l1, clip_norm, theta, slots, average, averaged,
    ):
        _ = digest
        summed = norm = 0.0
        partial = np.empty(theta.size, X.dtype)
        total = np.empty(theta.size, np.float64)
        step = 0
        end = start + count
        begin = start
        while begin < end:
            stop = min(begin + batch_size, end)
            total[:] = 0
            summed += sum_gradient(
                X, y, weight, loss, p, fit_intercept, rows, begin, stop, theta, partial, total
            )
            c = constants[step if constants.shape[0] > 1 else 0]
            norm, averaged = finish(
                total, stop - begin, rule, c, fit_intercept, l2, l1, clip_norm, theta, slots,
                average, averaged,
            )
            begin = stop
            step += 1
        return summed, norm, averaged

    return descend_batches


def _variance(digest: str) -> Callable[..., Any]:
    def variance(  # type: ignore[no-untyped-def]
        X, y, weight, loss, p, fit_intercept, rows, start, count, theta, gradient
    ):
        _ = digest
        d = X.shape[1]
        T = X.dtype.type
        summed = second = 0.0
        for s in range(count):
            i = rows[s] if rows.size else start + s
            x = X[i]
            margin = dot(x, theta, d) + theta[d]
            scale = weight[i] if weight.size else T(1)
            slope = float(T(scale * slope_of(loss, margin, y[i], p)))
            summed += scale * value_of(loss, margin, y[i], p)
            norm = 1.0 if fit_intercept else 0.0
            for j in range(d):
                norm += float(x[j]) * x[j]
                gradient[j] += slope * x[j]
            if fit_intercept:
                gradient[d] += slope
            second += slope * slope * norm
        return summed, second

    return variance


def _margin(digest: str) -> Callable[..., Any]:
    def margin(X, rows, start, count, theta, out):  # type: ignore[no-untyped-def]
        _ = digest
        d = X.shape[1]
        for s in range(count):
            out[s] = dot(X[rows[s] if rows.size else start + s], theta, d) + theta[d]

    return margin


def _apply(digest: str) -> Callable[..., Any]:
    def apply(param, gradient, first, second, rule, constants, decay):  # type: ignore[no-untyped-def]
        _ = digest
        T = param.dtype.type
        c = constants.astype(param.dtype)
        l2 = T(decay)
        none = T(0)
        for j in range(param.size):
            a = first[j] if first.size else none
            b = second[j] if second.size else none
            w, a_new, b_new = update_of(rule, param[j], gradient[j] + l2 * param[j], a, b, c)
            param[j] = w
            if first.size:
                first[j] = a_new
            if second.size:
                second[j] = b_new

    return apply


def _reduce(digest: str) -> Callable[..., Any]:
    def reduce(dst, source, scale):  # type: ignore[no-untyped-def]
        _ = digest
        factor = dst.dtype.type(scale)
        for j in range(dst.size):
            dst[j] = (dst[j] + source[j]) * factor

    return reduce


def _permute(digest: str) -> Callable[..., Any]:
    def permute(n, keys, left_bits, right_bits, start, out):  # type: ignore[no-untyped-def]
        _ = digest
        mask = np.uint32((np.uint64(1) << np.uint64(right_bits)) - np.uint64(1))
        first, second = np.uint32(0x9E3779B1), np.uint32(0x85EBCA77)
        for k in range(out.size):
            x = np.uint64(start + k)
            while True:
                left = np.uint32(x >> np.uint64(right_bits))
                right = np.uint32(x) & mask
                a, b = left_bits, right_bits
                for r in range(ROUNDS):
                    mixed = np.uint32((right ^ keys[r]) * first)
                    mixed = np.uint32((mixed ^ (mixed >> np.uint32(15))) * second)
                    left, right = right, np.uint32(left ^ (mixed >> np.uint32(32 - a)))
                    a, b = b, a
                x = (np.uint64(left) << np.uint64(right_bits)) | np.uint64(right)
                if x < np.uint64(n):
                    break
            out[k] = x

    return permute


descend_samples = _entry(_descend_samples)
descend_batches = _entry(_descend_batches)
add_gradient = _entry(_add_gradient)
finish_step = _entry(_finish_step)
variance = _entry(_variance)
margin = _entry(_margin)
apply = _entry(_apply)
reduce = _entry(_reduce)
permute = _entry(_permute)

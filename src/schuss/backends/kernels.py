"""The Numba loop skeletons. They mirror ``csrc/cpu/kernels.h`` loop for loop.

This module is executed once per table of formulas (see ``jit.py``), with ``FORMULAS`` set to the
functions to compile and to a digest of everything they were made from. Numba's on-disk
cache does not notice an edited formula in another file, and a kernel that takes functions as
arguments never hits it: so the formulas are folded into one selector by number, and every entry
point holds the digest in its closure, which is part of the cache's key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from schuss.backends.arguments import Formulas
from schuss.backends.protocol import TILE_ROWS
from schuss.formulas.bijection import ROUNDS
from schuss.formulas.penalties import shrink_towards_zero

# Set by the loader before this module runs; imported plainly, it takes the built-in tables.
FORMULAS: Formulas = globals().get("FORMULAS") or Formulas.builtin()

# Sums may be reordered; NaN and infinity keep their meaning, and x / 0 is one of them.
FAST: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    "error_model": "numpy",
}


def select(functions: tuple[Callable[..., Any], ...]) -> Callable[..., Any]:
    """One function of (which, *arguments) that runs the chosen one."""
    head = functions[0] if hasattr(functions[0], "py_func") else njit(functions[0], **FAST)
    if len(functions) == 1:

        @njit(**FAST)
        def last(which, *arguments):  # type: ignore[no-untyped-def]
            return head(*arguments)

        return last
    tail = select(functions[1:])

    @njit(**FAST)
    def chosen(which, *arguments):  # type: ignore[no-untyped-def]
        if which == 0:
            return head(*arguments)
        return tail(which - 1, *arguments)

    return chosen


value_of = select(FORMULAS.values)
slope_of = select(FORMULAS.slopes)
soften = njit(shrink_towards_zero, **FAST)


def _entry(build: Callable[[str], Callable[..., Any]]) -> Callable[..., Any]:
    return entry_of(FORMULAS, build)


def entry_of(formulas: Formulas, build: Callable[[str], Callable[..., Any]]) -> Callable[..., Any]:
    """Compile an entry point, cached on disk where a place for the cache is writable."""
    function = build(formulas.digest)
    # Numba names a kernel's files by this and numbers them. Without the digest, the index of one
    # version of the sources could name a file that another version has written.
    function.__qualname__ = f"{function.__name__}_{formulas.digest[:16]}"
    if formulas.cache:
        try:
            return njit(function, nogil=True, **FAST, cache=True)
        except RuntimeError:  # no writable place: go on without a cache
            pass
    return njit(function, nogil=True, **FAST)


# ---- 16-bit storage -----------------------------------------------------------------------------


def widen(x):  # type: ignore[no-untyped-def]
    """One stored number as it is computed with: 16 bits, in the form ``jit.py`` hands them over."""
    return x


@overload(widen, inline="always")
def _widen(x):  # type: ignore[no-untyped-def]
    if x == types.uint16:  # bfloat16: the upper half of a float32
        return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)
    if x == types.int16:  # float16, finite: sign, and exponent and fraction moved into place
        return _widen_half
    return lambda x: x


def _widen_half(x):  # type: ignore[no-untyped-def]
    bits = np.uint32(np.uint16(x))
    rest = np.uint32((bits & np.uint32(0x7FFF)) << np.uint32(13)).view(np.float32)
    sign = np.float32(1) - np.float32(2) * np.float32(bits >> np.uint32(15))
    return sign * (rest * np.float32(2.0**112))


# ---- Prefetching ---------------------------------------------------------------------------------

LINE, ALIGNED = 64, 16  # bytes of a line, and what most rows begin at a multiple of
CHUNK = 16  # rows that are asked for together
AHEAD_BYTES, MOST_AHEAD = 16384, 96  # how far ahead, the latter in rows
FETCHED_BYTES = 512  # rows up to this length are fetched into the first-level cache


def prefetch_into(level: int) -> Any:
    """Compile a prefetch of one element's cache line into the caches from a level on.

    Elements of a C-contiguous array are counted from its begin.
    """

    def prefetch(typingctx, array, place):  # type: ignore[no-untyped-def]
        def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            proxy = cgutils.create_struct_proxy(signature.args[0])
            address = builder.gep(proxy(context, builder, arguments[0]).data, [arguments[1]])
            byte, number = cgutils.ir.IntType(8).as_pointer(), cgutils.ir.IntType(32)
            kind = cgutils.ir.FunctionType(cgutils.ir.VoidType(), [byte, number, number, number])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
            # To be read; how close; data.
            hints = [cgutils.ir.Constant(number, n) for n in (0, 4 - level, 1)]
            builder.call(function, [builder.bitcast(address, byte), *hints])
            return context.get_dummy_value()

        return types.void(array, types.intp), emit

    return intrinsic(prefetch)


to_second_level, to_first_level = prefetch_into(2), prefetch_into(1)


@njit(**FAST, forceinline=True)
def row_of(visit, s):  # type: ignore[no-untyped-def]
    """Row at place ``s`` of a visit."""
    return visit.rows[s] if visit.rows.size else visit.start + s


@njit(**FAST)
def look_ahead(data, visit, begin, end):  # type: ignore[no-untyped-def]
    """While places begin <= s < end are worked on, ask for rows to come.

    Short rows that were asked for before and are worked on now are fetched into the first-level
    cache. Rows in the order of memory are left to the processor, which is quicker at it. A function
    of its own: within the loops over rows it would keep values from staying in registers.
    """
    X, rows = data.X, visit.rows
    d, line = X.shape[1], LINE // X.itemsize
    aligned = ALIGNED // X.itemsize  # what lies closer to the last number is on its line
    if rows.size == 0 or rows[-1] - rows[0] == visit.n_rows - 1:
        return
    ahead = min(max(CHUNK, AHEAD_BYTES // (d * X.itemsize + 1)), MOST_AHEAD)
    for s in range(begin + ahead, min(end + ahead, visit.n_rows)):
        i = np.int64(rows[s])
        place, last = i * d, (i + 1) * d - 1  # without a view, whose references would be counted
        while place <= last - aligned:  # a range with a step would divide
            to_second_level(X, place)
            place += line
        to_second_level(X, last)
        to_second_level(data.y, i)
    if d * X.itemsize <= FETCHED_BYTES:
        for s in range(begin, end):
            i = np.int64(rows[s])
            place, last = i * d, (i + 1) * d - 1
            while place <= last - aligned:
                to_first_level(X, place)
                place += line
            to_first_level(X, last)


# ---- Shared primitives ---------------------------------------------------------------------------


@njit(**FAST, forceinline=True)
def dot(x, w, d):  # type: ignore[no-untyped-def]
    """Sum of products over ``d`` elements."""
    total = w.dtype.type(0)
    for j in range(d):
        total += widen(x[j]) * w[j]
    return total


@njit(**FAST, forceinline=True)
def weigh(data, i, margin):  # type: ignore[no-untyped-def]
    """Weighted loss (float64) and weighted slope (X's dtype) of one sample."""
    T = data.y.dtype.type
    weight = data.weight[i] if data.weight.size else T(1)
    value = weight * value_of(data.loss, margin, data.y[i], data.p)
    return float(value), T(weight * slope_of(data.loss, margin, data.y[i], data.p))


@njit(**FAST, forceinline=True)
def add_to_average(average, averaged, theta):  # type: ignore[no-untyped-def]
    """One iterate into the running mean of ``averaged`` iterates, itself among them."""
    part = 1.0 / averaged
    for j in range(theta.size):
        average[j] += (theta[j] - average[j]) * part


# ---- Per-sample descent --------------------------------------------------------------------------


def _descend_samples(digest: str) -> Callable[..., Any]:
    def descend_samples(data, visit, updates, parameters):  # type: ignore[no-untyped-def]
        _ = digest
        X, theta, average = data.X, parameters.theta, parameters.average
        averaged = parameters.averaged
        d = X.shape[1]
        T = theta.dtype.type
        w, b = theta[:d], theta[d]
        total = norm = 0.0
        for s in range(visit.n_rows):
            if s % CHUNK == 0:
                look_ahead(data, visit, s, min(s + CHUNK, visit.n_rows))
            i = row_of(visit, s)
            x = X[i]
            value, slope = weigh(data, i, dot(x, w, d) + b)
            total += value
            if s == visit.n_rows - 1:
                for j in range(d):
                    g = float(slope * widen(x[j])) + updates.l2 * w[j]
                    norm += g * g
                if data.fit_intercept:
                    norm += float(slope) * slope
            rate = updates.constants[s if updates.constants.shape[0] > 1 else 0, 0]
            keep = T(1.0 - rate * updates.l2)
            step = T(rate) * slope
            for j in range(d):
                w[j] = keep * w[j] - step * widen(x[j])
            if updates.l1 > 0:
                amount = T(rate * updates.l1)
                for j in range(d):
                    w[j] = soften(w[j], amount)
            if data.fit_intercept:
                b -= step
            if average.size:
                theta[d] = b
                averaged += 1
                add_to_average(average, averaged, theta)
        theta[d] = b
        return total, np.sqrt(norm), averaged

    return descend_samples


# ---- Gradient ------------------------------------------------------------------------------------


@njit(**FAST, forceinline=True)
def add_row(data, visit, s, w, gradient):  # type: ignore[no-untyped-def]
    """Add one row's gradient; return its loss and slope."""
    d = data.X.shape[1]
    i = row_of(visit, s)
    x = data.X[i]
    value, slope = weigh(data, i, dot(x, w, d) + w[d])
    for j in range(d):
        gradient[j] += slope * widen(x[j])
    return value, slope


@njit(**FAST, forceinline=True)
def add_four_rows(data, visit, s, w, gradient):  # type: ignore[no-untyped-def]
    """Add four rows' gradients in one pass; return their summed loss and slope."""
    X = data.X
    d = X.shape[1]
    i0, i1 = row_of(visit, s), row_of(visit, s + 1)
    i2, i3 = row_of(visit, s + 2), row_of(visit, s + 3)
    x0, x1, x2, x3 = X[i0], X[i1], X[i2], X[i3]
    m0 = m1 = m2 = m3 = w[d]
    for j in range(d):
        m0 += widen(x0[j]) * w[j]
        m1 += widen(x1[j]) * w[j]
        m2 += widen(x2[j]) * w[j]
        m3 += widen(x3[j]) * w[j]
    v0, s0 = weigh(data, i0, m0)
    v1, s1 = weigh(data, i1, m1)
    v2, s2 = weigh(data, i2, m2)
    v3, s3 = weigh(data, i3, m3)
    for j in range(d):
        gradient[j] += (s0 * widen(x0[j]) + s1 * widen(x1[j])) + (
            s2 * widen(x2[j]) + s3 * widen(x3[j])
        )
    return v0 + v1 + v2 + v3, ((s0 + s1) + s2) + s3


@njit(**FAST, forceinline=True)
def tile_gradient(data, visit, begin, end, w, gradient):  # type: ignore[no-untyped-def]
    """Sum of the gradients of places begin <= s < end in X's dtype; return the summed loss."""
    total = 0.0
    bias = data.y.dtype.type(0)
    gradient[:] = 0
    s = begin
    while s < end:
        stop = min(s + CHUNK, end)
        look_ahead(data, visit, s, stop)
        while s + 4 <= stop:
            value, slope = add_four_rows(data, visit, s, w, gradient)
            total += value
            bias += slope
            s += 4
        while s < stop:
            value, slope = add_row(data, visit, s, w, gradient)
            total += value
            bias += slope
            s += 1
    if data.fit_intercept:
        gradient[-1] = bias
    return total


@njit(**FAST, forceinline=True)
def sum_gradient(data, visit, begin, end, theta, partial, total):  # type: ignore[no-untyped-def]
    """Add the gradient of begin <= s < end to ``total``, tile after tile; return the loss."""
    summed = 0.0
    while begin < end:
        stop = min(begin + TILE_ROWS, end)
        summed += tile_gradient(data, visit, begin, stop, theta, partial)
        for j in range(theta.size):
            total[j] += partial[j]
        begin = stop
    return summed


def _add_gradient(digest: str) -> Callable[..., Any]:
    def add_gradient(data, visit, theta, total):  # type: ignore[no-untyped-def]
        _ = digest
        partial = np.empty(theta.size, theta.dtype)
        return sum_gradient(data, visit, 0, visit.n_rows, theta, partial, total)

    return add_gradient


def _variance(digest: str) -> Callable[..., Any]:
    def variance(data, visit, theta, gradient):  # type: ignore[no-untyped-def]
        _ = digest
        d = data.X.shape[1]
        summed = second = 0.0
        for s in range(visit.n_rows):
            i = row_of(visit, s)
            x = data.X[i]
            value, narrow = weigh(data, i, dot(x, theta, d) + theta[d])
            slope = float(narrow)
            summed += value
            norm = 1.0 if data.fit_intercept else 0.0
            for j in range(d):
                element = float(widen(x[j]))
                norm += element * element
                gradient[j] += slope * element
            if data.fit_intercept:
                gradient[d] += slope
            second += slope * slope * norm
        return summed, second

    return variance


# ---- Mini-batch descent --------------------------------------------------------------------------


def _loop(formula: Callable[..., Any]) -> Callable[..., Any]:
    """The loop over the weights begin <= j < end for one rule; empty slots are not used."""
    rule = njit(formula, **FAST, forceinline=True)

    @njit(**FAST)
    def update(theta, first, second, total, scale, decay, c, begin, end):  # type: ignore[no-untyped-def]
        T = theta.dtype.type
        for j in range(begin, end):
            a = first[j] if first.size else T(0)
            b = second[j] if second.size else T(0)
            g = T(total[j] * scale) + decay * theta[j]
            theta[j], a, b = rule(theta[j], g, a, b, c)
            if first.size:
                first[j] = a
            if second.size:
                second[j] = b

    return update


update_all = select(tuple(_loop(rule) for rule in FORMULAS.rules))


@njit(**FAST, forceinline=True)
def finish(total, count, updates, step, fit_intercept, parameters, averaged, c, norm_wanted):  # type: ignore[no-untyped-def]
    """Turn a summed gradient into one update; return its norm before clipping, where wanted.

    ``c`` is memory for the rule's constants in theta's dtype.
    """
    theta, slots = parameters.theta, parameters.slots
    first = slots[0] if slots.shape[0] > 0 else theta[:0]
    second = slots[1] if slots.shape[0] > 1 else theta[:0]
    d = theta.size - 1
    T = theta.dtype.type
    mean = 1.0 / count
    norm = 0.0
    if norm_wanted or updates.clip_norm > 0:
        norm = (total[d] * mean) ** 2
        for j in range(d):
            g = total[j] * mean + updates.l2 * theta[j]
            norm += g * g
        norm = np.sqrt(norm)
    factor = updates.clip_norm / norm if 0 < updates.clip_norm < norm else 1.0
    scale = mean * factor
    decay = T(updates.l2 * factor)
    constants = updates.constants[step if updates.constants.shape[0] > 1 else 0]
    for k in range(c.size):
        c[k] = T(constants[k])
    update_all(updates.rule, theta, first, second, total, scale, decay, c, 0, d)
    if updates.l1 > 0:
        amount = T(constants[0] * updates.l1)
        for j in range(d):
            theta[j] = soften(theta[j], amount)
    if fit_intercept:
        if c.size > 1:
            c[1] = 1  # the intercept does not decay
        update_all(updates.rule, theta, first, second, total, scale, T(0), c, d, d + 1)
    if parameters.average.size:
        add_to_average(parameters.average, averaged + 1, theta)
    return norm


def _finish_step(digest: str) -> Callable[..., Any]:
    def finish_step(total, count, updates, fit_intercept, parameters):  # type: ignore[no-untyped-def]
        _ = digest
        averaged = parameters.averaged
        c = np.empty(updates.constants.shape[1], parameters.theta.dtype)
        norm = finish(total, count, updates, 0, fit_intercept, parameters, averaged, c, True)
        return norm, averaged + (1 if parameters.average.size else 0)

    return finish_step


def _descend_batches(digest: str) -> Callable[..., Any]:
    def descend_batches(data, visit, batch_size, updates, parameters):  # type: ignore[no-untyped-def]
        _ = digest
        theta = parameters.theta
        averaged = parameters.averaged
        partial = np.empty(theta.size, theta.dtype)
        total = np.empty(theta.size, np.float64)
        c = np.empty(updates.constants.shape[1], theta.dtype)
        summed = norm = 0.0
        step = begin = 0
        while begin < visit.n_rows:
            stop = min(begin + batch_size, visit.n_rows)
            total[:] = 0
            summed += sum_gradient(data, visit, begin, stop, theta, partial, total)
            with_b, last, count = data.fit_intercept, stop == visit.n_rows, stop - begin
            norm = finish(total, count, updates, step, with_b, parameters, averaged, c, last)
            if parameters.average.size:
                averaged += 1
            begin = stop
            step += 1
        return summed, norm, averaged

    return descend_batches


# ---- The other verbs -----------------------------------------------------------------------------


def _margin(digest: str) -> Callable[..., Any]:
    def margin(X, visit, theta, out):  # type: ignore[no-untyped-def]
        _ = digest
        d = X.shape[1]
        for s in range(visit.n_rows):
            out[s] = dot(X[row_of(visit, s)], theta, d) + theta[d]

    return margin


def _apply(digest: str) -> Callable[..., Any]:
    def apply(param, gradient, slots, rule, constants, decay):  # type: ignore[no-untyped-def]
        _ = digest
        T = param.dtype.type
        c = constants.astype(param.dtype)
        update_all(rule, param, slots[0], slots[1], gradient, T(1), T(decay), c, 0, param.size)

    return apply


def _reduce(digest: str) -> Callable[..., Any]:
    def reduce(dst, source, scale):  # type: ignore[no-untyped-def]
        _ = digest
        factor = dst.dtype.type(scale)
        for j in range(dst.size):
            dst[j] = (dst[j] + source[j]) * factor

    return reduce


PERMUTED = 1024  # positions that go through the network together


@njit(**FAST)
def scramble(half, other, count, key, bits):  # type: ignore[no-untyped-def]
    """One round of the network on ``count`` numbers, in place.

    The halves do not change places: an even number of rounds leaves them where they were.
    """
    shift = np.uint32(32 - bits)
    for k in range(count):
        mixed = np.uint32((other[k] ^ key) * np.uint32(0x9E3779B1))
        mixed = np.uint32((mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x85EBCA77))
        half[k] ^= mixed >> shift


def _permute(digest: str) -> Callable[..., Any]:
    def permute(n, keys, left_bits, right_bits, start, out):  # type: ignore[no-untyped-def]
        _ = digest
        shift = np.uint64(right_bits)
        mask = (np.uint64(1) << shift) - np.uint64(1)
        left, right = np.empty(PERMUTED, np.uint32), np.empty(PERMUTED, np.uint32)
        place = np.empty(PERMUTED, np.int64)
        for begin in range(0, out.size, PERMUTED):
            count = min(PERMUTED, out.size - begin)
            for k in range(count):
                x = np.uint64(start + begin + k)
                left[k], right[k] = x >> shift, x & mask
                place[k] = begin + k
            while count > 0:
                for r in range(0, ROUNDS, 2):
                    scramble(left, right, count, keys[r], left_bits)
                    scramble(right, left, count, keys[r + 1], right_bits)
                walking = 0  # those beyond n go again
                for k in range(count):
                    x = (np.uint64(left[k]) << shift) | np.uint64(right[k])
                    out[place[k]] = x
                    left[walking], right[walking] = left[k], right[k]
                    place[walking] = place[k]
                    walking += int(x >= np.uint64(n))
                count = walking

    return permute


def _mix(digest: str) -> Callable[..., Any]:
    def mix(block, row, starts, turned, start, out):  # type: ignore[no-untyped-def]
        _ = digest
        size = block.size // 2
        stop = start + out.size
        place = start
        while place < stop:
            b = place // size
            end = min(stop, (b + 1) * size)
            shift = turned[b] - b * size
            first = starts[b]
            for p in range(place, end):
                out[p - start] = first[block[p + shift]] + row[p + shift]
            place = end

    return mix


descend_samples = _entry(_descend_samples)
descend_batches = _entry(_descend_batches)
add_gradient = _entry(_add_gradient)
finish_step = _entry(_finish_step)
variance = _entry(_variance)
margin = _entry(_margin)
apply = _entry(_apply)
reduce = _entry(_reduce)
permute = _entry(_permute)
mix = _entry(_mix)

"""Every verb of every backend: against the textbook loops, against NumPy, and bit for bit."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pickle
import shutil
import sys
import textwrap
from pathlib import Path

import numpy as np
import oracle
import pytest
from support import (
    COMPILED,
    all_losses,
    assert_same_bits,
    backend_or_skip,
    descended,
    integer_problem,
    labels,
    row_forms,
    run_python,
    textbook,
)

import schuss
import schuss.backends
import schuss.losses
import schuss.rules
from schuss.backends import Problem, Segment, State, available, choose
from schuss.errors import BackendError, InvalidArgument, InvalidType
from schuss.formulas.losses import LOSSES
from schuss.formulas.penalties import Penalty

ODD = [1, 2, 3, 5, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97]

# ----------------------------------------------------------------------- against the textbook loops

RULES = [
    "sgd",
    "sgd(weight_decay=0.1)",
    "sgd(momentum=0.9)",
    "sgd(momentum=0.9, dampening=0.3)",
    "sgd(momentum=0.8, nesterov=True, weight_decay=0.1)",
    "adam(weight_decay=0.1)",
    "adamw(betas=(0.8, 0.95), weight_decay=0.3)",
    "adagrad(lr_decay=0.1, initial_accumulator_value=0.2)",
]
N, D = 37, 5
BATCH_SIZES = [1, 3, 32, N]
OPTIONS = {
    "plain": {},
    "one rate": {"one_rate": True},
    "no intercept": {"intercept": False},
    "l2": {"l2": 0.1},
    "l1": {"l1": 0.05},
    "elastic net": {"l2": 0.05, "l1": 0.1},
    "weights": {"weighted": True},
    "clipped": {"clip_norm": 0.4},
    "averaged": {"average": True},
    "all": {"l2": 0.1, "weighted": True, "clip_norm": 0.7, "average": True},
}


@functools.cache
def textbook_run(loss, rule, batch_size: int, option: str, n: int = N, d: int = D):
    """Data, the rows' order, the rates, the start, and what the textbook makes of them.

    No visited margin lies within a hair's breadth of a kink, where rounding would decide.
    """
    chosen = dict(OPTIONS[option])
    one_rate, weighted = chosen.pop("one_rate", False), chosen.pop("weighted", False)
    chosen.pop("average", None)
    for seed in itertools.count():
        rng = np.random.default_rng(seed)
        scale = 0.7 * min(1, D / d) ** 0.5  # rows no longer than those of D columns
        X = rng.normal(0, scale, (n, d)).astype(np.float32).astype(float)
        y = labels(rng, loss.domain, n)
        weight = rng.integers(0, 4, n) / 2
        theta = rng.normal(0, 0.5, d + 1).astype(np.float32).astype(float)
        rows = rng.permutation(n).astype(np.int32)
        steps = oracle.batches(rows, batch_size)
        rates = np.full(1, 0.03125) if one_rate else 0.05 / (1 + np.arange(len(steps)) / 8)
        run = oracle.descend(
            X,
            y,
            textbook(loss),
            rule.name,
            steps,
            np.broadcast_to(rates, len(steps)),
            theta,
            options={field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)},
            weight=weight if weighted else None,
            **chosen,
        )
        if run.kink < 1e-2:
            return X, y, weight if weighted else None, rows, rates, theta, run


def assert_descends_as_the_textbook(
    backend, dtype, loss, rule, batch_size, option, n=N, d=D
) -> None:
    X, y, weight, rows, rates, theta, run = textbook_run(loss, rule, batch_size, option, n, d)
    chosen = OPTIONS[option]
    problem = Problem(
        X.astype(dtype),
        y.astype(dtype),
        None if weight is None else weight.astype(dtype),
        loss,
        Penalty(chosen.get("l2", 0.0), chosen.get("l1", 0.0)),
        chosen.get("intercept", True),
    )
    state = State.start(theta.astype(dtype), rule, chosen.get("clip_norm", 0.0))
    if chosen.get("average"):
        state.average = np.zeros(d + 1)
    total, norm = backend.descend(problem, state, Segment(rows, rates, batch_size))

    tolerance = 1e-10 if dtype == np.float64 else 1e-4
    where = f"{loss}, {rule}, batch size {batch_size}, {option}, shape ({n}, {d})"
    size = tolerance * np.abs(run.theta).max()
    np.testing.assert_allclose(state.theta, run.theta, rtol=0, atol=size, err_msg=where)
    np.testing.assert_allclose(total, run.loss, rtol=tolerance, err_msg=where)
    np.testing.assert_allclose(norm, run.norm, rtol=10 * tolerance, atol=tolerance, err_msg=where)
    assert state.step == -(-n // batch_size)
    if chosen.get("average"):
        np.testing.assert_allclose(state.average, run.average, rtol=0, atol=size, err_msg=where)
        assert state.averaged == state.step
    if chosen.get("l1"):
        np.testing.assert_array_equal(state.theta == 0, run.theta == 0, err_msg=where)


def variants(rule):
    """The options that a rule can have."""
    return [name for name, option in OPTIONS.items() if rule.proximal or "l1" not in option]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("loss", [row() for row in LOSSES], ids=lambda loss: loss.name)
def test_descend_is_the_textbook_loop(backend, dtype, loss, rule):
    rule = schuss.rules.get(rule)
    for batch_size in BATCH_SIZES:
        for option in variants(rule):
            assert_descends_as_the_textbook(backend, dtype, loss, rule, batch_size, option)


@pytest.mark.parametrize("loss", all_losses(), ids=str)
def test_loss_parameters_reach_the_kernels(backend, dtype, loss):
    rule = schuss.rules.sgd()
    for batch_size in (1, 3):
        assert_descends_as_the_textbook(backend, dtype, loss, rule, batch_size, "plain")


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512", "neon"])
def test_native_instruction_sets_descend_as_the_textbook(native, instruction_set, name, dtype):
    instruction_set(name)
    for loss in (row() for row in LOSSES):
        for batch_size in BATCH_SIZES:
            for text, option in zip(RULES, ["plain", "l2", "weights", "all"] * 2, strict=True):
                rule = schuss.rules.get(text)
                assert_descends_as_the_textbook(native, dtype, loss, rule, batch_size, option)


@functools.cache
def odd_cases() -> list[tuple]:
    """Every odd shape, and every pair out of loss, option, number of rows, number of columns.

    Each shape takes the loss and the option that meet it or each other for the first time most.
    """
    choices = list(itertools.product([row() for row in LOSSES], OPTIONS))
    shapes = list(itertools.product(ODD, ODD))

    def pairs(choice, shape) -> set:
        return set(itertools.combinations(enumerate(choice + shape), 2))

    left = set().union(*(pairs(*case) for case in itertools.product(choices, shapes)))
    cases = []
    for k, shape in enumerate(itertools.cycle(shapes)):
        if k >= len(shapes) and not left:
            return cases
        choice = max(choices, key=lambda choice: len(left & pairs(choice, shape)))
        if k < len(shapes) or left & pairs(choice, shape):
            left -= pairs(choice, shape)
            loss, option = choice
            rules = [rule for rule in map(schuss.rules.get, RULES) if option in variants(rule)]
            batch_size = (1, 3, 32, shape[0])[k // 2 % 4]
            cases.append((loss, rules[k % len(rules)], batch_size, option, *shape))
    return cases


@pytest.mark.parametrize("name", ["reference", "jit"])
def test_descend_is_the_textbook_loop_on_odd_shapes(name, dtype):
    backend = backend_or_skip(name)
    for case in odd_cases():
        assert_descends_as_the_textbook(backend, dtype, *case)


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512", "neon"])
def test_native_instruction_sets_descend_on_odd_shapes(native, instruction_set, name, dtype):
    instruction_set(name)
    for case in odd_cases():
        assert_descends_as_the_textbook(native, dtype, *case)


# ----------------------------------------------------------------- small integers: equal, not close

# Polynomial in pieces: small integers in, small multiples of 1/4 out.
EXACT = [
    schuss.losses.get(form)
    for form in (
        "squared_error",
        "mse",
        "huber(epsilon=2)",
        "epsilon_insensitive(epsilon=1)",
        "squared_epsilon_insensitive(epsilon=1)",
        "hinge",
        "squared_hinge",
        "modified_huber",
        "perceptron",
        "quantile(q=0.25)",
    )
]


def assert_verbs_are_exact(backend, dtype, loss, n, d, weighted, intercept) -> None:
    """Gradient, variance and margin of rows drawn with repeats, and of a range."""
    problem, theta = integer_problem(dtype, n, d, loss, weighted, intercept)
    kept = pickle.dumps((problem.X, problem.y, problem.sample_weight, theta))
    rng = np.random.default_rng(n)
    for visited in (rng.integers(0, n, n), np.arange(n // 3, n)):
        X, y = problem.X[visited].astype(float), problem.y[visited].astype(float)
        w = 1.0 if problem.sample_weight is None else problem.sample_weight[visited].astype(float)
        margin = X @ theta[:-1].astype(float) + float(theta[-1])
        value, slope = w * loss(margin, y), w * loss.derivative(margin, y)
        expected = np.append(X.T @ slope, slope.sum() * intercept)
        second = (slope**2 * ((X**2).sum(axis=1) + intercept)).sum()
        for rows in row_forms(visited, backend, dtype):
            total, gradient = backend.gradient(problem, theta, rows)
            assert gradient.dtype == np.float64
            np.testing.assert_array_equal(gradient, expected)
            assert total == value.sum()
            total, gradient, norms = backend.variance(problem, theta, rows)
            np.testing.assert_array_equal(gradient, expected)
            assert (total, norms) == (value.sum(), second)
            computed = backend.margin(problem.X, theta, rows)
            assert computed.dtype == dtype
            np.testing.assert_array_equal(computed, margin)
    assert pickle.dumps((problem.X, problem.y, problem.sample_weight, theta)) == kept


@pytest.mark.parametrize("d", ODD)
def test_verbs_are_exact_on_odd_shapes(backend, dtype, d):
    for n in [*ODD, 255, 256, 257, 600]:
        loss = EXACT[(n + d) % len(EXACT)]
        assert_verbs_are_exact(backend, dtype, loss, n, d, n % 2 == 0, n % 3 > 0)


@pytest.mark.parametrize("loss", EXACT, ids=str)
def test_verbs_are_exact_for_every_loss(backend, dtype, loss):
    for n, d in ((1, 1), (4, 2), (33, 7), (300, 65), (257, 17)):
        for weighted, intercept in itertools.product((False, True), repeat=2):
            assert_verbs_are_exact(backend, dtype, loss, n, d, weighted, intercept)


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512", "neon"])
def test_native_instruction_sets_are_exact(native, instruction_set, name, dtype):
    instruction_set(name)
    for n, d in itertools.product([1, 3, 4, 5, 257], ODD):
        loss = EXACT[(n + d) % len(EXACT)]
        assert_verbs_are_exact(native, dtype, loss, n, d, n % 2 == 0, n % 3 > 0)


# Slopes of -1, 0, 1 (or quarters), batches of powers of two: every iterate is exact.
STEPPED = [
    schuss.losses.get(form)
    for form in ("hinge", "perceptron", "epsilon_insensitive(epsilon=1)", "quantile(q=0.25)")
]


@pytest.mark.parametrize("d", ODD)
def test_whole_descents_are_exact(backend, dtype, d):
    n, rate = 64, 1 / 8
    for loss, batch_size in itertools.product(STEPPED, (1, 2, 4, 16, 64)):
        problem, theta = integer_problem(dtype, n, d, loss)
        rows = np.random.default_rng(d).permutation(n)
        X, y = problem.X.astype(float), problem.y.astype(float)
        w, total = theta.astype(float), 0.0
        for batch in oracle.batches(rows, batch_size):
            margin = X[batch] @ w[:-1] + w[-1]
            total += loss(margin, y[batch]).sum()
            slope = loss.derivative(margin, y[batch])
            w -= rate * np.append(X[batch].T @ slope, slope.sum()) / batch_size
        for form in row_forms(rows, backend, dtype):
            state = State.start(theta, schuss.rules.sgd())
            computed, _ = backend.descend(
                problem, state, Segment(form, np.array([rate]), batch_size)
            )
            np.testing.assert_array_equal(state.theta, w)
            assert computed == total


@pytest.mark.parametrize("size", [0, *ODD, 1000, 1025])
def test_reduce_is_exact(backend, dtype, size):
    rng = np.random.default_rng(size)
    for count in (0, 1, 2, 5):
        dst = rng.integers(-8, 9, size).astype(dtype)
        sources = [rng.integers(-8, 9, size).astype(dtype) for _ in range(count)]
        expected = (dst + sum(sources, np.zeros(size))) / 4
        for source in sources:
            source.flags.writeable = False
        backend.reduce(dst, sources, 0.25)
        np.testing.assert_array_equal(dst, expected)


def test_reduce_adds_in_the_order_given(backend, dtype):
    """Rounding shows the order: big + small - big."""
    big = 2 / np.finfo(dtype).eps
    dst = np.full(5, big, dtype)
    backend.reduce(dst, [np.full(5, 0.5, dtype), np.full(5, -big, dtype)], 1.0)
    np.testing.assert_array_equal(dst, 0)


def test_reduce_keeps_shapes(backend, dtype):
    dst = np.ones((3, 4), dtype)
    backend.reduce(dst, [np.full((3, 4), 2, dtype)], 0.5)
    np.testing.assert_array_equal(dst, np.full((3, 4), 1.5))


# -------------------------------------------------------------------------------------- conventions


def small_problem(dtype, loss=None, n=70, d=6, seed=0, **options) -> tuple[Problem, np.ndarray]:
    loss = loss or schuss.losses.log_loss()
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(dtype)
    theta = rng.normal(size=d + 1).astype(dtype)
    return Problem(X, labels(rng, loss.domain, n).astype(dtype), None, loss, **options), theta


def test_rows_of_any_form_give_the_same_bits(backend, dtype):
    problem, theta = small_problem(dtype)
    rule = schuss.rules.sgd(momentum=0.5)
    for batch_size in (1, 7):
        segments = [
            Segment(form, np.array([0.1]), batch_size)
            for form in row_forms(np.arange(10, 60), backend, dtype)
        ]
        start = State.start(theta, rule)
        states = [descended(backend, problem, start, segment) for segment in segments]
        for other in states[1:]:
            assert_same_bits(states[0], other)


def test_no_rows_do_nothing(backend, dtype):
    problem, theta = small_problem(dtype)
    for rows in (*row_forms(np.empty(0), backend, dtype), (3, 0)):
        total, gradient = backend.gradient(problem, theta, rows)
        assert total == 0
        np.testing.assert_array_equal(gradient, np.zeros(theta.size))
        assert backend.margin(problem.X, theta, rows).size == 0
        assert backend.variance(problem, theta, rows)[2] == 0
        for rule, batch_size in itertools.product(("sgd", "adam"), (1, 4)):
            state = State.start(theta, schuss.rules.get(rule))
            before = state.copy()
            assert backend.descend(problem, state, Segment(rows, np.array([0.1]), batch_size)) == (
                0,
                0,
            )
            assert_same_bits(state, before)


@pytest.mark.parametrize("average", [False, True], ids=["", "averaged"])
@pytest.mark.parametrize("clip_norm", [0.0, 0.3])
@pytest.mark.parametrize("rule", RULES)
def test_splitting_a_segment_changes_no_bit(backend, dtype, rule, clip_norm, average):
    rule = schuss.rules.get(rule)
    problem, theta = small_problem(dtype, penalty=Penalty(l2=0.01))
    rows = np.random.default_rng(3).permutation(70).astype(np.int32)
    for batch_size in (1, 4, 32):
        steps = -(-rows.size // batch_size)
        rates = 0.1 / np.arange(1, steps + 1)
        start = State.start(theta, rule, clip_norm)
        if average:
            start.average = np.zeros(theta.size)
        whole = descended(backend, problem, start, Segment(rows, rates, batch_size))
        for cuts in ([0, 1, steps], [0, steps // 2, steps // 2, steps - 1, steps]):
            parts = [
                Segment(rows[a * batch_size : b * batch_size], rates[a:b], batch_size)
                for a, b in itertools.pairwise(cuts)
            ]
            assert_same_bits(descended(backend, problem, start, *parts), whole)


def test_one_rate_is_that_rate_at_every_step(backend, dtype):
    problem, theta = small_problem(dtype)
    for rule, batch_size in itertools.product(("sgd", "adam", "adagrad"), (1, 4, 70)):
        start = State.start(theta, schuss.rules.get(rule))
        one = descended(backend, problem, start, Segment((0, 70), np.array([0.1]), batch_size))
        steps = -(-70 // batch_size)
        each = descended(backend, problem, start, Segment((0, 70), np.full(steps, 0.1), batch_size))
        assert_same_bits(one, each)


def test_the_average_is_the_mean_of_the_iterates(backend, dtype):
    problem, theta = small_problem(dtype)
    for rule, batch_size in itertools.product(("sgd", "adam"), (1, 8)):
        state = State.start(theta, schuss.rules.get(rule))
        iterates = []
        for k in range(0, 64, batch_size):
            backend.descend(problem, state, Segment((k, batch_size), np.array([0.1]), batch_size))
            iterates.append(state.theta.astype(float))
        averaged = State.start(theta, schuss.rules.get(rule))
        averaged.average = np.zeros(theta.size)
        backend.descend(problem, averaged, Segment((0, 64), np.array([0.1]), batch_size))
        assert averaged.averaged == len(iterates)
        np.testing.assert_allclose(averaged.average, np.mean(iterates, axis=0), rtol=1e-12)
        np.testing.assert_array_equal(averaged.theta, state.theta)


def test_nothing_a_caller_passes_is_written(backend, dtype):
    problem, theta = small_problem(dtype)
    weight = np.linspace(0, 2, 70).astype(dtype)
    problem = Problem(problem.X, problem.y, weight, problem.loss)
    rows = np.random.default_rng(0).permutation(70).astype(np.int32)
    rates = np.full(70, 0.01)
    frozen = [problem.X, problem.y, weight, rows, rates, theta]
    before = [array.tobytes() for array in frozen]
    for array in frozen:
        array.flags.writeable = False
    for rule, batch_size in itertools.product(("sgd", "sgd(momentum=0.9)"), (1, 8)):
        state = State.start(theta, schuss.rules.get(rule))
        steps = -(-70 // batch_size)
        backend.descend(problem, state, Segment(rows, rates[:steps], batch_size))
        assert not np.array_equal(state.theta, theta)
    backend.gradient(problem, theta, rows)
    backend.variance(problem, theta, rows)
    backend.margin(problem.X, theta, rows)
    assert [array.tobytes() for array in frozen] == before


def test_divergence_shows_in_the_values_and_not_in_warnings(backend, dtype):
    problem, theta = small_problem(dtype, schuss.losses.squared_error())
    for rule, batch_size in itertools.product(("sgd", "sgd(momentum=0.9)", "adam"), (1, 8)):
        state = State.start(theta, schuss.rules.get(rule))
        total, _ = backend.descend(problem, state, Segment((0, 70), np.array([1e30]), batch_size))
        assert not np.isfinite(total) or not np.isfinite(state.theta).all() or rule == "adam"
    poisson, theta = small_problem(dtype, schuss.losses.poisson())
    total, gradient = backend.gradient(poisson, theta * 1000, (0, 70))
    assert total == np.inf
    assert not np.isfinite(gradient).all()


def test_non_finite_data_reach_the_result(backend, dtype):
    for value in (np.nan, np.inf):
        problem, theta = small_problem(dtype, schuss.losses.squared_error())
        problem.X[5, 2] = value
        total, gradient = backend.gradient(problem, theta, (0, 70))
        assert not np.isfinite(total)
        assert not np.isfinite(gradient[2])


def test_segments_are_a_pure_function_of_the_shape(backend):
    for d, batch_size in itertools.product((1, 20, 1000, 10**6), (1, 7, 4096, 10**7)):
        rows = backend.segment_rows(d, batch_size)
        assert rows == backend.segment_rows(d, batch_size)
        assert rows >= batch_size


def test_more_elements_than_32_bits_can_count(compiled):
    """Zeros that nobody touches cost no memory; the last row lies beyond 2**31 elements."""
    d, n = 1 << 16, (1 << 15) + 3
    try:
        X = np.zeros((n, d), np.float32)
    except MemoryError:
        pytest.skip("this machine does not lend 8 GiB of zeros")
    X[n - 1, :4] = [1, 2, 3, 4]
    y = np.zeros(n, np.float32)
    theta = np.ones(d + 1, np.float32)
    problem = Problem(X, y, None, schuss.losses.squared_error())
    for rows in (np.array([n - 1], np.int32), np.array([n - 1]), (n - 1, 1)):
        assert compiled.margin(X, theta, rows) == 11
        total, gradient = compiled.gradient(problem, theta, rows)
        assert total == 60.5
        np.testing.assert_array_equal(gradient[:5], [11, 22, 33, 44, 0])
        state = State.start(theta, schuss.rules.sgd())
        compiled.descend(problem, state, Segment(rows, np.array([0.5]), 1))
        np.testing.assert_array_equal(state.theta[:5], [-4.5, -10, -15.5, -21, 1])


# -------------------------------------------------------------------------------------- large steps


@pytest.mark.parametrize("rule", ["sgd", "sgd(momentum=0.9)", "adamw", "adagrad"])
def test_large_steps_have_the_bits_of_plain_ones(compiled, dtype, rule, monkeypatch):
    """Steps that Python drives piece by piece, so that signals are served, change nothing."""
    rule = schuss.rules.get(rule)
    problem, theta = small_problem(dtype, n=5000, d=5, penalty=Penalty(l2=0.01))
    rows = np.random.default_rng(0).permutation(5000).astype(np.int32)
    for batch_size, clip_norm in itertools.product((3, 100, 256, 257, 4000), (0.0, 0.01)):
        start = State.start(theta, rule, clip_norm)
        start.average = np.zeros(theta.size)
        visited = rows[: 2 * batch_size + 2]
        rates = 0.1 / np.arange(1, 1 - (-visited.size // batch_size))
        segment = Segment(visited, rates, batch_size)
        plain = descended(compiled, problem, start, segment)
        losses = [compiled.descend(problem, start.copy(), segment)]
        with monkeypatch.context() as patch:
            patch.setattr(compiled_module(), "LARGE_STEP_ELEMENTS", 0)
            patch.setattr(compiled_module(), "SEGMENT_ELEMENTS", 0)
            assert_same_bits(descended(compiled, problem, start, segment), plain)
            losses.append(compiled.descend(problem, start.copy(), segment))
        np.testing.assert_allclose(*losses, rtol=1e-12)


def compiled_module():
    """The module of what the compiled backends share (``compiled`` is a fixture here)."""
    return sys.modules["schuss.backends.compiled"]


# ------------------------------------------------------------------------------- choosing a backend


def test_available_says_why_not():
    reasons = available()
    assert set(reasons) == {"reference", "jit", "native", "cuda"}
    assert reasons["reference"] is None
    assert all(why is None or len(why) > 20 for why in reasons.values())


@pytest.mark.parametrize("name", ["reference", *COMPILED])
def test_choosing_by_name(name):
    assert backend_or_skip(name).name == name


def test_auto_takes_the_fastest_and_says_so(caplog):
    with caplog.at_level("INFO", logger="schuss"):
        chosen = choose("auto")
    fastest = "native" if available()["native"] is None else "jit"
    assert chosen.name == fastest
    assert f"backend: {fastest}" in caplog.text


def test_an_object_with_the_verbs_is_a_backend(backend):
    assert choose(backend) is backend


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"backend": "nativ"}, InvalidArgument, "backend='nativ'.*'native'"),
        ({"backend": ""}, InvalidArgument, "backend=''.*auto, cuda, jit, native, reference"),
        ({"backend": 3}, InvalidType, "backend=3"),
        ({"backend": None}, InvalidType, "backend=None"),
        ({"backend": "cuda"}, BackendError, "backend='cuda' cannot be used: "),
        ({"backend": "jit", "threads": 0}, InvalidArgument, "threads=0.*>= 1"),
        ({"backend": "jit", "threads": -1}, InvalidArgument, "threads=-1"),
        ({"backend": "jit", "threads": 1.5}, InvalidType, "threads=1.5"),
        ({"backend": "jit", "threads": "2"}, InvalidType, "threads='2'"),
        ({"backend": "jit", "threads": True}, InvalidType, "threads=True"),
    ],
)
def test_what_choose_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        choose(**arguments)


# ----------------------------------------------------------------------- the chosen instruction set


@pytest.mark.usefixtures("native")
def test_native_reads_the_instruction_set_from_the_environment():
    from schuss import _native

    code = "from schuss import _native; print(_native.instruction_set())"
    for name in _native.instruction_sets():
        assert run_python(code, SCHUSS_CPU=name) == name
    assert run_python(code, SCHUSS_CPU="") == _native.instruction_sets()[-1]


@pytest.mark.usefixtures("native")
def test_native_with_an_unknown_instruction_set_says_what_there_is():
    from schuss import _native

    with pytest.raises(ValueError, match=r"'sse9'.*" + ", ".join(_native.instruction_sets())):
        _native.use_instruction_set("sse9")
    code = """
        import schuss.backends
        from schuss.errors import BackendError
        try:
            schuss.backends.choose("native")
        except BackendError as error:
            print(error)
    """
    message = run_python(code, SCHUSS_CPU="sse9")
    assert "SCHUSS_CPU='sse9'" in message
    assert ", ".join(_native.instruction_sets()) in message


@pytest.mark.usefixtures("native")
def test_native_tells_how_it_was_built():
    from schuss import _native

    assert {"compiler", "flags"} <= set(_native.build_info())
    assert "-ffast-math" not in _native.build_info()["flags"]
    assert all(type(has) is bool for has in _native.cpu_features().values())
    assert _native.instruction_set() in _native.instruction_sets()


def test_native_does_not_turn_denormals_off(native):
    tiny = np.array([2.0**-1060, 0.0])
    native.margin(np.ones((1, 1)), tiny, (0, 1))
    assert native.margin(np.ones((1, 1)), tiny, (0, 1))[0] == 2.0**-1060
    assert tiny[0] / 2 > 0


# ------------------------------------------------------------------------------------ custom losses


def log_cosh(m, y):
    return np.log(np.cosh(m - y))


def tanh(m, y):
    return np.tanh(m - y)


@pytest.mark.parametrize("name", ["reference", "jit"])
@pytest.mark.parametrize(("dtype", "batch_size"), [("f4", 1), ("f8", 8)])
def test_custom_loss_descends(name, dtype, batch_size):
    backend, dtype = backend_or_skip(name), np.dtype(dtype)
    loss = schuss.losses.custom(log_cosh, tanh, name="log_cosh")
    assert choose(name, loss=loss).name == name
    problem, theta = small_problem(dtype, loss, penalty=Penalty(l2=0.1))
    run = oracle.descend(
        problem.X.astype(float),
        problem.y.astype(float),
        lambda m, y: (log_cosh(m, y), tanh(m, y)),
        "sgd",
        oracle.batches(range(70), batch_size),
        [0.1] * -(-70 // batch_size),
        theta.astype(float),
        l2=0.1,
    )
    state = State.start(theta, schuss.rules.sgd())
    total, _ = backend.descend(problem, state, Segment((0, 70), np.array([0.1]), batch_size))
    tolerance = 1e-10 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(state.theta, run.theta, rtol=tolerance)
    np.testing.assert_allclose(total, run.loss, rtol=tolerance)


def test_custom_loss_has_every_verb_on_jit(jit):
    """A loss of the user's that is squared_error by another name has its bits."""
    dtype = np.dtype(np.float32)
    loss = schuss.losses.custom(lambda m, y: 0.5 * (m - y) * (m - y), lambda m, y: m - y)
    ours, theta = integer_problem(dtype, 40, 5, schuss.losses.squared_error())
    theirs = dataclasses.replace(ours, loss=loss)
    for verb in (jit.gradient, jit.variance):
        for mine, builtin in zip(
            verb(theirs, theta, (0, 40)), verb(ours, theta, (0, 40)), strict=True
        ):
            np.testing.assert_array_equal(mine, builtin)


def test_custom_loss_may_be_compiled_already(jit):
    numba = pytest.importorskip("numba")

    @numba.njit
    def value(m, y):
        return 0.5 * (m - y) ** 2

    @numba.njit("float64(float64, float64)")
    def slope(m, y):
        return m - y

    problem, theta = integer_problem(np.dtype(np.float32), 9, 3, schuss.losses.custom(value, slope))
    builtin = dataclasses.replace(problem, loss=schuss.losses.squared_error())
    for mine, theirs in zip(
        jit.gradient(problem, theta, (0, 9)), jit.gradient(builtin, theta, (0, 9)), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_native_refuses_a_custom_loss(native):
    loss = schuss.losses.custom(log_cosh, tanh, name="log_cosh")
    assert "log_cosh" in native.supports(loss)
    with pytest.raises(BackendError, match=r"backend='native'.*'log_cosh'.*'jit'"):
        choose("native", loss=loss)
    assert choose("auto", loss=loss).name == "jit"


def test_native_is_not_fooled_by_a_custom_loss_of_a_known_name(native):
    loss = schuss.losses.custom(log_cosh, tanh, name="huber")
    with pytest.raises(BackendError, match="huber"):
        choose("native", loss=loss)
    assert native.supports(schuss.losses.huber()) is None


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda m, y: undefined_thing(m), "undefined_thing"),  # noqa: F821
        (lambda m: m, "too many positional arguments"),
        (lambda m, y: "text", "float64"),
        (lambda m, y: m + 1j, "complex128"),
        (functools.partial(max, 0), "not a function"),
        (np.subtract, "not a function"),
    ],
    ids=["name", "arguments", "text", "complex", "partial", "ufunc"],
)
def test_jit_says_why_it_cannot_compile_a_custom_loss(jit, function, reason):
    problem, theta = small_problem(np.float64, schuss.losses.custom(function, tanh))
    for verb in (jit.gradient, jit.variance):
        with pytest.raises(InvalidArgument, match=rf"Numba cannot compile.*{reason}.*reference"):
            verb(problem, theta, (0, 3))


def test_division_by_zero_in_a_custom_loss_is_infinite(backend):
    if backend.name == "native":
        pytest.skip("native: runs no custom losses")
    loss = schuss.losses.custom(lambda m, y: 1 / (m - y), lambda m, y: 1 / (m - y))
    problem = Problem(np.zeros((1, 1)), np.zeros(1), None, loss)
    total, gradient = backend.gradient(problem, np.zeros(2), (0, 1))
    assert total == np.inf
    assert gradient[1] == np.inf


# ---------------------------------------------------------------------------- Numba's cache on disk

CACHE_PROBE = """
    import numpy as np
    import schuss.rules
    from schuss.backends import choose

    backend = choose("jit")
    w = np.array([1.0])
    backend.apply(schuss.rules.sgd(), [w], [np.array([1.0])], [[]], 0, 0.25)
    stats = backend.kernels._kernels()[0].apply.stats
    print(w[0], sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


@pytest.fixture
def package_copy(tmp_path) -> Path:
    """A copy of the package's Python files that a test may edit; a place to import it from."""
    copy = tmp_path / "copy"
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(Path(schuss.__file__).parent, copy / "schuss", ignore=ignored)
    return copy


def append_comment(file: Path) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.write("\n# Another version.\n")


def probe_copy(copy: Path, probe: str = CACHE_PROBE, **environment: str) -> str:
    code = f"import sys; sys.path.insert(0, {str(copy)!r})\n" + textwrap.dedent(probe)
    return run_python(code, PYTHONPATH=str(copy), PYTHONDONTWRITEBYTECODE="1", **environment)


def test_jit_goes_on_without_a_cache_where_nothing_is_writable(package_copy):
    """Files stand where each of Numba's cache folders would be made."""
    (package_copy / "schuss" / "backends" / "__pycache__").touch()
    nowhere = str(package_copy / "schuss" / "py.typed")
    environment = {"HOME": nowhere, "XDG_CACHE_HOME": nowhere, "NUMBA_CACHE_DIR": nowhere}
    assert probe_copy(package_copy, **environment) == "0.75 0 1"
    assert not list(package_copy.rglob("*.nbi"))


def test_jit_compiles_again_after_an_edit_alone(package_copy, tmp_path):
    """Not in each process; Numba itself looks at the kernels' file alone, which stays as it is."""
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert probe_copy(package_copy, **cache) == "0.75 0 1"
    rules = package_copy / "schuss" / "formulas" / "rules.py"
    text = rules.read_text(encoding="utf-8")
    edited = text.replace("return w - c[0] * g, a, b", "return w - 2 * c[0] * g, a, b")
    assert edited != text
    rules.write_text(edited, encoding="utf-8")
    assert probe_copy(package_copy, **cache) == "0.5 0 1"
    rules.write_text(text, encoding="utf-8")
    assert probe_copy(package_copy, **cache) == "0.75 1 0"
    append_comment(package_copy / "schuss" / "backends" / "arguments.py")
    assert probe_copy(package_copy, **cache) == "0.75 0 1"


# Numba writes a kernel after the index that names its file; this process ends in between.
CUT_SHORT = """
    import os
    from numba.core.caching import IndexDataCacheFile

    IndexDataCacheFile._save_data = lambda *arguments: os._exit(0)
"""


def test_jit_never_takes_another_versions_kernel_from_the_cache(package_copy, tmp_path):
    """An index without its kernel, among those of the version before."""
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert probe_copy(package_copy, **cache) == "0.75 0 1"
    append_comment(package_copy / "schuss" / "backends" / "kernels.py")
    assert probe_copy(package_copy, CUT_SHORT + CACHE_PROBE, **cache) == ""
    assert probe_copy(package_copy, **cache) == "0.75 0 1"

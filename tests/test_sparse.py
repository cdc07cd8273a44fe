"""Sparse rows (CSR): every backend against the textbook on dense rows, and what bad input gets."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging

import numpy as np
import oracle
import pytest
from support import (
    all_losses,
    assert_same_bits,
    backend_or_skip,
    descended,
    labels,
    row_forms,
    textbook,
)

import schuss
import schuss.losses
import schuss.rules
from schuss.backends import Problem, Segment, State, choose
from schuss.data.sparse import CSR, as_csr
from schuss.errors import DataError, DataTypeError, DivergenceError, InvalidArgument
from schuss.formulas.penalties import Penalty

sp = pytest.importorskip("scipy.sparse")

SIZES = [1, 2, 3, 5, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97]
INDICES = [np.int32, np.int64]
RULES = {
    "sgd": "sgd",
    "momentum": "sgd(momentum=0.8, nesterov=True, weight_decay=0.1)",
    "adamw": "adamw(betas=(0.8, 0.95), weight_decay=0.3)",
    "adagrad": "adagrad(lr_decay=0.1, initial_accumulator_value=0.2)",
}
OPTIONS = {
    "plain": {},
    "no intercept": {"intercept": False},
    "l2": {"l2": 0.3},
    "strong l2": {"l2": 12.0},  # the first steps turn the weights' signs
    "l1": {"l1": 0.1},
    "elastic net": {"l2": 0.1, "l1": 0.05, "weighted": True},
    "average": {"l2": 0.1, "average": True},
    "average of l1": {"l1": 0.05, "average": True},
    "clipped": {"l2": 0.1, "weighted": True, "clip_norm": 0.7, "average": True},
}
N = 37
BATCHES = [1, 3, 32, N]


def csr(X: np.ndarray, index: type = np.int32, explicit_zeros: bool = True) -> CSR:
    """Dense rows as CSR; of the zeros, every fifth is stored."""
    stored = X != 0
    if explicit_zeros:
        stored |= (np.add.outer(np.arange(X.shape[0]), np.arange(X.shape[1])) % 5) == 0
        stored[1::4] = X[1::4] != 0
    rows, columns = np.nonzero(stored)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=X.shape[0]))])
    return CSR(X[stored], columns.astype(index), indptr.astype(index), X.shape)


def index_of(backend, dtype, wide: int) -> type:
    """The index type of a case; jit, which compiles for each pair of types, has one to a dtype."""
    return INDICES[dtype == np.float64 if backend.name == "jit" else wide]


def matrix(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Rows with about a third of their entries; some empty."""
    X = rng.normal(0, 0.7, (n, d)) * (rng.random((n, d)) < 0.35)
    X[2::5] = 0
    return X.astype(np.float32).astype(float)


# ------------------------------------------------------------------- against the textbook loops


@functools.cache
def textbook_run(loss, rule: str, batch_size: int, option: str, d: int):
    """Data, order, rates, start, and what the textbook makes of them; no margin at a kink."""
    chosen = dict(OPTIONS[option])
    weighted = chosen.pop("weighted", False)
    chosen.pop("average", None)
    for seed in itertools.count():
        rng = np.random.default_rng([seed, d])
        X = matrix(rng, N, d)
        y = labels(rng, loss.domain, N)
        weight = rng.integers(0, 4, N) / 2 if weighted else None
        theta = rng.normal(0, 0.5, d + 1).astype(np.float32).astype(float)
        rows = rng.permutation(N).astype(np.int32)
        steps = oracle.batches(rows, batch_size)
        rates = 0.1 / (1 + np.arange(len(steps)))
        the_rule = schuss.rules.get(rule)
        options = {f.name: getattr(the_rule, f.name) for f in dataclasses.fields(the_rule)}
        with np.errstate(all="ignore"):
            run = oracle.descend(
                X,
                y,
                textbook(loss),
                the_rule.name,
                steps,
                rates,
                theta,
                options=options,
                weight=weight,
                **chosen,
            )
        if run.kink < 1e-3:
            return X, y, weight, rows, rates, theta, run


def assert_is_textbook(backend, dtype, index, loss, rule, batch_size, option, d) -> None:
    X, y, weight, rows, rates, theta, expected = textbook_run(loss, rule, batch_size, option, d)
    chosen = OPTIONS[option]
    problem = Problem(
        csr(X.astype(dtype), index),
        y.astype(dtype),
        None if weight is None else weight.astype(dtype),
        loss,
        Penalty(chosen.get("l2", 0.0), chosen.get("l1", 0.0)),
        chosen.get("intercept", True),
    )
    state = State.start(theta.astype(dtype), schuss.rules.get(rule), chosen.get("clip_norm", 0.0))
    if chosen.get("average"):
        state.average = np.zeros(d + 1)
    total, norm = backend.descend(problem, state, Segment(rows, rates, batch_size))
    tolerance = 3e-4 if dtype == np.float32 else 1e-11
    scale = 1 + np.abs(expected.theta).max()
    np.testing.assert_allclose(state.theta, expected.theta, rtol=0, atol=tolerance * scale)
    np.testing.assert_allclose(total, expected.loss, rtol=tolerance)
    np.testing.assert_allclose(norm, expected.norm, rtol=tolerance, atol=tolerance)
    if chosen.get("average"):
        np.testing.assert_allclose(state.average, expected.average, atol=tolerance * scale)
        assert state.averaged == rates.size
    if chosen.get("l1") and rule == "sgd":  # exact zeros, in the same places but for a rounding
        assert np.mean((state.theta == 0) == (expected.theta == 0)) > 0.9
    assert state.step == rates.size


def cases() -> list:
    """Each option, rule, batch size, size and index in many a pair, not in every combination."""
    names = ["squared_error", "log_loss", "huber(epsilon=0.5)"]
    found = []
    for k, (option, batch_size) in enumerate(itertools.product(OPTIONS, BATCHES)):
        found.append((names[k % 3], "sgd", batch_size, option, SIZES[k % len(SIZES)], k % 2))
    others = ["plain", "elastic net", "average", "clipped"]
    for k, (rule, batch_size) in enumerate(itertools.product(list(RULES)[1:], BATCHES)):
        option = others[k % 4] if others[k % 4] != "elastic net" else "l2"
        found.append((names[k % 3], rule, batch_size, option, SIZES[(5 * k) % len(SIZES)], k % 2))
    for k, d in enumerate(SIZES):
        found.append((names[k % 3], "sgd", BATCHES[k % 4], "elastic net", d, k % 2))
    return found


@pytest.mark.parametrize("loss, rule, batch_size, option, d, wide", cases())
def test_descent_is_the_textbook(backend, dtype, loss, rule, batch_size, option, d, wide):
    the_loss, index = schuss.losses.get(loss), index_of(backend, dtype, wide)
    assert_is_textbook(backend, dtype, index, the_loss, RULES[rule], batch_size, option, d)


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512", "neon"])
def test_native_descent_is_the_textbook(native, instruction_set, name, dtype):
    instruction_set(name)
    for index, (loss, rule, batch_size, option, d, _) in zip(
        itertools.cycle(INDICES), cases(), strict=False
    ):
        the_loss = schuss.losses.get(loss)
        assert_is_textbook(native, dtype, index, the_loss, RULES[rule], batch_size, option, d)


@pytest.mark.parametrize("loss", all_losses(), ids=str)
def test_every_loss_is_the_textbook(backend, loss):
    dtype = np.dtype(float)
    for wide, batch_size in enumerate([1, 5]):
        index = index_of(backend, dtype, wide)
        assert_is_textbook(backend, dtype, index, loss, "sgd", batch_size, "elastic net", 7)


def integer_rows(rng, n: int, d: int, dtype) -> np.ndarray:
    return (rng.integers(-2, 3, (n, d)) * (rng.random((n, d)) < 0.4)).astype(dtype)


@pytest.mark.parametrize("d", SIZES)
def test_gradient_variance_and_margin_are_exact_in_integers(backend, dtype, d):
    rng = np.random.default_rng(d)
    n = 131
    X = integer_rows(rng, n, d, dtype)
    y, weight = rng.integers(0, 4, n).astype(dtype), rng.integers(0, 4, n).astype(dtype)
    theta = rng.integers(-2, 3, d + 1).astype(dtype)
    loss, reference = schuss.losses.squared_error(), choose("reference")
    dense = Problem(X, y, weight, loss)
    rows = rng.permutation(n)[:70]
    forms = [*row_forms(rows, backend, dtype), (3, 101)]
    indices = INDICES
    if backend.name == "jit":
        forms, indices = [forms[0], forms[-1]], [index_of(backend, dtype, 0)]
    for index, chosen in itertools.product(indices, forms):
        problem = Problem(csr(X, index), y, weight, loss)
        value, gradient = backend.gradient(problem, theta, chosen)
        expected = reference.gradient(dense, theta, chosen)
        assert value == expected[0]
        np.testing.assert_array_equal(gradient, expected[1])
        found, exact = (
            engine.variance(data, theta, chosen)
            for engine, data in ((backend, problem), (reference, dense))
        )
        assert (found[0], found[2]) == (exact[0], exact[2])
        np.testing.assert_array_equal(found[1], exact[1])
        margin = backend.margin(problem.X, theta, chosen)
        assert margin.dtype == dtype
        np.testing.assert_array_equal(margin, reference.margin(X, theta, chosen))


def test_no_rows_and_no_entries(backend, dtype):
    index = index_of(backend, dtype, 0)
    empty = csr(np.zeros((5, 3), dtype), index, explicit_zeros=False)
    assert empty.data.size == 0
    y = np.arange(5, dtype=dtype)
    problem = Problem(empty, y, None, schuss.losses.squared_error(), Penalty(0.1, 0.1))
    for batch_size in (1, 2):
        state = State.start(np.ones(4, dtype), schuss.rules.sgd())
        none = np.empty(0, np.int32)
        before = state.copy()
        assert backend.descend(problem, state, Segment(none, np.ones(1), batch_size)) == (0, 0)
        assert_same_bits(state, before)
        backend.descend(problem, state, Segment((0, 5), np.array([0.1]), batch_size))
        assert 0 < state.theta[0] < 1 and np.ptp(state.theta[:3]) == 0 and state.theta[3] != 1
    loss, gradient = backend.gradient(problem, np.ones(4, dtype), (0, 0))
    assert loss == 0 and not gradient.any()


# -------------------------------------------------------------------------------- equal to dense


def data(n=400, d=30, seed=0):
    rng = np.random.default_rng(seed)
    X = matrix(rng, n, d)
    return X, X @ rng.normal(size=d) + 0.5 + 0.1 * rng.normal(size=n)


FITS = {
    "plain": {},
    "elastic net": {"alpha": 0.02, "l1_ratio": 0.5},
    "average": {"alpha": 0.02, "average": 5},
    "adam": {"rule": "adam"},
    "everything": {
        "alpha": 0.1,
        "clip_norm": 1.0,
        "validation": 0.2,
        "evaluate": "both",
        "gtol": 1e-9,
        "tol": 0.0,
        "sample_weight": np.arange(400) % 3 + 1.0,
        "order": "weighted",
        "record_every": 7,
        "accumulate": 2,
        "drop_last": True,
    },
}


@pytest.mark.parametrize("batch_size", [1, 32, 300])
@pytest.mark.parametrize("option", FITS)
def test_fit_is_that_of_the_dense_rows(backend, option, batch_size):
    X, y = data()
    if batch_size > 200 and option == "everything":
        batch_size = 160
    settings = {"batch_size": batch_size, "epochs": 4, "backend": backend, **FITS[option]}
    sparse, dense = schuss.fit(sp.csr_array(X), y, **settings), schuss.fit(X, y, **settings)
    np.testing.assert_allclose(sparse.coef, dense.coef, rtol=0, atol=1e-10)
    for name in ("train_loss", "validation_loss", "grad_norm", "learning_rate"):
        column = sparse.history.to_dict()[name]
        np.testing.assert_allclose(column, dense.history.to_dict()[name], rtol=1e-8, err_msg=name)
    np.testing.assert_allclose(sparse.predict(sp.csr_array(X)), dense.predict(X), atol=1e-10)
    assert abs(sparse.score(sp.csr_matrix(X), y) - dense.score(X, y)) < 1e-9


def test_classes_weights_and_validation_data(backend):
    X, y = data()
    label = np.where(y > 0.5, "yes", "no")
    given = {"class_weight": "balanced", "loss": "log_loss", "backend": backend, "epochs": 3}
    sparse = schuss.fit(sp.csr_array(X), label, validation=(sp.coo_array(X), label), **given)
    dense = schuss.fit(X, label, validation=(sp.csc_array(X), label), **given)
    np.testing.assert_allclose(sparse.coef, dense.coef, atol=1e-10)
    np.testing.assert_allclose(
        sparse.history.validation_loss, dense.history.validation_loss, rtol=1e-10
    )
    np.testing.assert_allclose(
        sparse.predict_proba(sp.csr_array(X)), dense.predict_proba(X), atol=1e-10
    )


def test_gradient_is_that_of_the_dense_rows(backend):
    X, y = data()
    w = np.linspace(-1, 1, 30)
    for rows in (None, [3, 1, 4, 1, 5]):
        sparse = schuss.gradient(sp.csr_array(X), y, w, 0.5, rows=rows, backend=backend)
        dense = schuss.gradient(X, y, w, 0.5, rows=rows, backend=backend)
        for a, b in zip(sparse, dense, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_batches_are_rows_of_the_matrix():
    X, y = data(10, 4)
    pieces = list(schuss.batches(sp.coo_array(X), y, batch_size=4, seed=3))
    dense = list(schuss.batches(X, y, batch_size=4, seed=3))
    for (A, a), (B, b) in zip(pieces, dense, strict=True):
        np.testing.assert_array_equal(A.toarray(), B)
        np.testing.assert_array_equal(a, b)


def test_several_outputs_are_refused():
    X, y = data()
    refused = r"^X: sparse rows are trained with one output, and here are 2; pass X\.toarray\(\)"
    with pytest.raises(InvalidArgument, match=refused):
        schuss.fit(sp.csr_array(X), np.column_stack([y, y]))
    with pytest.raises(InvalidArgument, match="here are 3"):
        schuss.gradient(sp.csr_array(X), np.arange(400) % 3, np.zeros((3, 30)), loss="multinomial")
    many = schuss.fit(X, np.arange(400) % 3, loss="multinomial", epochs=1)
    np.testing.assert_allclose(many.margin(sp.csr_array(X)), many.margin(X), atol=1e-12)


def test_a_sparse_fit_diverges_like_a_dense_one(backend):
    X, y = data()
    for batch_size in (1, 32):
        with pytest.raises(DivergenceError, match="smaller learning_rate") as caught:
            schuss.fit(
                sp.csr_array(X), y, batch_size=batch_size, learning_rate=1e6, backend=backend
            )
        assert np.isfinite(caught.value.result.coef).all()


def test_scales_of_sparse_columns_are_those_of_their_entries():
    rng = np.random.default_rng(0)
    rare = matrix(rng, 2000, 6) * (rng.random((2000, 6)) < np.geomspace(1, 0.05, 6))
    schuss.fit(sp.csr_array(rare), rare[:, 0], epochs=1)  # rare is no other scale
    with pytest.warns(schuss.errors.ScalingWarning, match="scale by a factor"):
        schuss.fit(sp.csr_array(rare * [1, 1, 1, 1, 1, 1e4]), rare[:, 0], epochs=1)


# ------------------------------------------------------------------------- bits, threads, resume


def threaded_problem(dtype, n=1500, d=97, l1=0.01):
    rng = np.random.default_rng(1)
    X = matrix(rng, n, d).astype(dtype)
    loss = schuss.losses.log_loss()
    y = rng.choice([-1, 1], n).astype(dtype)
    return Problem(csr(X), y, None, loss, Penalty(0.1, l1))


@pytest.mark.threads
@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
@pytest.mark.parametrize("averaged", [False, True], ids=["last", "average"])
def test_native_threads_do_not_change_a_bit(native, monkeypatch, rule, averaged):
    import schuss.backends.compiled as compiled

    monkeypatch.setattr(compiled, "ELEMENTS_PER_THREAD", 1)
    problem = threaded_problem(np.float32, l1=0.0 if averaged or rule != "sgd" else 0.01)
    rows = np.random.default_rng(2).permutation(1500).astype(np.int32)
    segment = Segment(rows, np.array([0.1]), 700)
    start = State.start(np.linspace(-1, 1, 98, dtype=np.float32), schuss.rules.get(rule))
    if averaged:
        start.average = np.zeros(98)
    one = descended(choose("native", threads=1), problem, start, segment, segment)
    loss, gradient = choose("native", threads=1).gradient(problem, start.theta, rows)
    for threads in (2, 3, 5):
        engine = choose("native", threads=threads)
        assert engine.crew(700, 30) > 1
        assert_same_bits(descended(engine, problem, start, segment, segment), one)
        again = engine.gradient(problem, start.theta, rows)
        assert again[0] == loss and again[1].tobytes() == gradient.tobytes()


def test_index_types_make_no_difference(compiled, dtype):
    X, y = data()
    results = [schuss.fit(X.astype(dtype), y, alpha=0.1, l1_ratio=0.5, batch_size=1)]
    pairs = itertools.product(INDICES, INDICES)
    for indices, indptr in pairs if compiled.name == "native" else [(np.int64, np.int32)]:
        S = sp.csr_array(X.astype(dtype))
        S.indices, S.indptr = S.indices.astype(indices), S.indptr.astype(indptr)
        results.append(schuss.fit(S, y, alpha=0.1, l1_ratio=0.5, batch_size=1, backend=compiled))
    for other in results[1:]:
        np.testing.assert_allclose(other.coef, results[0].coef, atol=100 * np.finfo(dtype).eps)


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"rule": "adam"}], ids=["sgd", "adam"])
def test_resumed_runs_end_with_the_same_bits(compiled, tmp_path, settings):
    X, y = data(3000)
    S, options = sp.csr_array(X), {"alpha": 0.01, "average": True, "backend": compiled, **settings}
    whole = schuss.fit(S, y, epochs=6, **options)
    checkpoint = schuss.data.Checkpoint(tmp_path / "run.ckpt", every=500)
    stop = lambda moment: moment.epoch == 3  # noqa: E731
    schuss.fit(S, y, epochs=6, checkpoint=checkpoint, callbacks=stop, **options)
    resumed = schuss.fit(S, y, epochs=6, checkpoint=checkpoint, **options)
    assert resumed.coef.tobytes() == whole.coef.tobytes()
    np.testing.assert_array_equal(resumed.history.train_loss, whole.history.train_loss)
    with pytest.raises(schuss.errors.CheckpointError, match="data is 'csr"):
        schuss.fit(sp.csr_array(X * 2), y, epochs=6, checkpoint=checkpoint, **options)


# ----------------------------------------------------------------------------------------- input


def raw(**changes) -> sp.csr_array:
    """A small matrix, with arrays replaced behind scipy's back."""
    S = sp.csr_array(np.array([[1.0, 0, 2], [0, 0, 0], [0, 3, 4], [5, 0, 0]]))
    for name, value in changes.items():
        setattr(S, name, np.asarray(value))
    return S


Y = np.arange(4.0)
BAD = {
    r"^X\.indptr: row 1 begins at 2 and ends at 1; expected .* not decrease": {
        "indptr": [0, 2, 1, 4, 5]
    },
    r"^X\.indptr\[0\] is 1: expected 0": {"indptr": [1, 2, 2, 4, 5]},
    r"^X\.indptr\[0\] is -1: expected 0": {"indptr": [-1, 2, 2, 4, 5]},
    r"^X\.indptr: row 3 ends at 9, beyond the 5 entries": {"indptr": [0, 2, 2, 4, 9]},
    r"^X\.indptr: has 4 elements; expected 5": {"indptr": [0, 2, 2, 5]},
    r"^X: row 2 has column index -1; expected 0 \.\.\. 2": {"indices": [0, 2, -1, 2, 0]},
    r"^X: row 3 has column index 3; expected 0 \.\.\. 2": {"indices": [0, 2, 1, 2, 3]},
    r"^X\[2, 1\] is nan: NaN and infinity": {"data": [1, 2, np.nan, 4, 5]},
    r"^X\[3, 0\] is -inf: NaN and infinity": {"data": [1, 2, 3, 4, -np.inf]},
    r"^X\.indices: expected a vector of int32 or int64": {"indices": [0.0, 2, 1, 2, 0]},
    r"^X\.data: dtype complex128 is not accepted": {"data": [1j, 2, 3, 4, 5]},
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_wrong_with_a_matrix_is_named(message):
    with pytest.raises(DataError, match=message) as caught:
        schuss.fit(raw(**BAD[message]), Y)
    assert "\n" not in str(caught.value)
    model = schuss.fit(raw(), Y, epochs=1)
    with pytest.raises(DataError, match=message):
        model.predict(raw(**BAD[message]))
    message = message.replace("^X", "^validation X")
    with pytest.raises(DataError, match=message):
        schuss.fit(raw(), Y, validation=(raw(**BAD[message.replace("validation ", "")]), Y))


def test_shapes_that_do_not_fit():
    for shape, what in (((0, 3), "rows"), ((3, 0), "columns")):
        with pytest.raises(DataError, match=f"^X: has no {what}"):
            schuss.fit(sp.csr_array(shape), np.ones(3))
    with pytest.raises(DataError, match=r"^y: has 3 entries but X has 4 rows"):
        schuss.fit(raw(), Y[:3])
    with pytest.raises(DataError, match=r"^X: has 2 columns, the model was trained on 3"):
        schuss.fit(raw(), Y, epochs=1).predict(sp.csr_array(np.eye(2)))
    if hasattr(sp, "coo_array"):
        with pytest.raises(DataError, match=r"^X: expected two dimensions"):
            schuss.fit(sp.coo_array(np.ones(3)), np.ones(3))


def assert_same_matrix(S, X) -> None:
    found = as_csr(S)
    np.testing.assert_array_equal(
        sp.csr_array((found.data, found.indices, found.indptr), shape=found.shape).toarray(), X
    )
    assert found.data.dtype in (np.float32, np.float64)


def test_unsorted_and_duplicate_indices_are_put_in_order(caplog):
    rng = np.random.default_rng(0)
    n, d = 40, 11
    rows, columns = rng.integers(0, n, 300), rng.integers(0, d, 300)
    values = rng.integers(-3, 4, 300).astype(float)
    order = np.argsort(rows, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))])
    S = sp.csr_array((values[order], columns[order], indptr), shape=(n, d))
    before = S.data.copy(), S.indices.copy()
    with caplog.at_level(logging.DEBUG, "schuss"):
        assert_same_matrix(S, S.toarray())
    assert "X: copied once to sort the indices" in caplog.text
    np.testing.assert_array_equal(S.data, before[0])
    np.testing.assert_array_equal(S.indices, before[1])
    y = rng.normal(size=n)
    one, other = schuss.fit(S, y), schuss.fit(S.toarray(), y)
    np.testing.assert_allclose(one.coef, other.coef, atol=1e-12)
    S.data[:] = 1e308
    with pytest.raises(DataError, match=r"^X\[\d+, \d+\] is inf"):
        schuss.fit(S, y)


@pytest.mark.parametrize("kind", ["coo", "csc", "lil", "dok", "bsr", "dia"])
def test_other_formats_are_converted_once(kind, caplog):
    X, _ = data(20, 6)
    with caplog.at_level(logging.DEBUG, "schuss"):
        assert_same_matrix(sp.csr_array(X).asformat(kind), X)
    assert f"converted once from {kind} to CSR" in caplog.text


@pytest.mark.parametrize("kind", ["csc", "coo", "bsr"])
def test_other_formats_are_checked_before_they_are_converted(kind):
    """scipy would read and write beyond its arrays."""
    S = raw().asformat(kind)
    for name in ("indices", "col", "row"):
        if getattr(S, name, None) is not None and (kind == "coo") == (name != "indices"):
            bad, wrong = S.copy(), getattr(S, name).copy()
            wrong[-1] = 1_000_000
            if kind == "coo":
                wrong = tuple(wrong if n == name else getattr(S, n) for n in ("row", "col"))
                bad.coords = wrong
            else:
                bad.indices = wrong
            with pytest.raises(DataError, match=f"^X: cannot be converted from {kind} to CSR"):
                schuss.fit(bad, Y)


def test_matrices_that_are_ready_are_not_copied():
    for dtype, index in itertools.product([np.float32, np.float64], INDICES):
        S = sp.csr_array(data(50, 7)[0].astype(dtype))
        S.indices, S.indptr = S.indices.astype(index), S.indptr.astype(index)
        S.data.flags.writeable = False
        found = as_csr(S)
        for name in ("data", "indices", "indptr"):
            assert np.shares_memory(getattr(found, name), getattr(S, name)), name
    assert as_csr(S, np.dtype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64, np.bool_, ">f4", "<f8"])
def test_types_of_values(kind):
    X = np.array([[1, 0, 1], [0, 1, 0]])
    S = sp.csr_array(X)
    S.data = S.data.astype(kind)
    assert_same_matrix(S, X)
    S = sp.csr_array(X.astype(float))
    S.data = S.data.astype(np.float16)
    assert as_csr(S).dtype == np.float32


def test_slack_behind_the_last_row_is_not_looked_at():
    S = raw(data=[1, 2, 3, 4, 5, np.nan], indices=[0, 2, 1, 2, 0, 99])
    assert as_csr(S).data.size == 5
    strided = raw(indices=np.array([0, 9, 2, 9, 1, 9, 2, 9, 0], np.int64)[::2])
    assert_same_matrix(strided, raw().toarray())


def test_two_million_columns_take_no_time_per_step(compiled):
    """A step goes over its rows' entries: 4,000 of them over all columns would take minutes."""
    n, d = 4000, 2_000_000
    rng = np.random.default_rng(0)
    S = sp.csr_array(
        (np.ones(4 * n), (np.repeat(np.arange(n), 4), rng.integers(0, d, 4 * n))), shape=(n, d)
    )
    y = np.ones(n)
    for batch_size in (1, 2):
        for penalty in ({}, {"alpha": 1e-3}, {"alpha": 1e-3, "l1_ratio": 0.5}):
            result = schuss.fit(
                S,
                y,
                batch_size=batch_size,
                learning_rate=0.1,
                epochs=1,
                backend=compiled,
                **penalty,
            )
            assert result.history.seconds[-1] < 5
    assert isinstance(DataTypeError("x"), TypeError)


# ---------------------------------------------------------------------------------- asynchronous


def many_rows(n=4000, d=500, seed=3):
    rng = np.random.default_rng(seed)
    S = sp.random(n, d, density=0.02, format="csr", random_state=seed)
    return S, np.where(S @ rng.normal(size=d) + 0.1 * rng.normal(size=n) > 0, "yes", "no")


@pytest.mark.parametrize("alpha", [0.0, 1e-3, 1.0])
def test_one_asynchronous_thread_is_the_sequential_run(compiled, dtype, alpha):
    S, y = many_rows()
    options = {
        "loss": "log_loss",
        "alpha": alpha,
        "learning_rate": 0.5,
        "epochs": 2,
        "dtype": dtype.name,
        "backend": compiled.name,
        "threads": 1,
    }
    free = schuss.fit(S, y, asynchronous=True, **options)
    run = schuss.fit(S, y, batch_size=1, **options)
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(free.coef, run.coef, atol=tolerance)
    np.testing.assert_allclose(free.history.train_loss, run.history.train_loss, rtol=tolerance)
    assert free.config["asynchronous"] and "asynchronous" not in run.config
    assert free.asynchrony["observed"] == free.asynchrony["conflict_rate"] == 0


@pytest.mark.threads
@pytest.mark.parametrize("name", ["jit", "native"])
@pytest.mark.parametrize("alpha", [0.0, 1e-4])
def test_asynchronous_threads_reach_the_loss_of_the_sequential_run(name, alpha, tmp_path):
    backend_or_skip(name)
    S, y = many_rows()
    options = {"loss": "log_loss", "alpha": alpha, "epochs": 5, "evaluate": "full"}
    run = schuss.fit(S, y, batch_size=1, backend=name, **options)
    free = schuss.fit(S, y, asynchronous=True, threads=3, backend=name, **options)
    assert abs(free.history.train_loss[-1] / run.history.train_loss[-1] - 1) < 0.05
    report = free.asynchrony
    assert report["threads"] == 3 and report["observed"] == 5 * 4000 // 16
    assert 0 <= report["conflict_rate"] <= 1
    assert 0 <= report["mean_staleness"] <= report["max_staleness"] < 20_000
    free.save(tmp_path / "model.npz")
    assert schuss.load(tmp_path / "model.npz").asynchrony == report
    assert run.asynchrony is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"rule": "adam"}, r"rule='adam\(.*expected 'sgd' without momentum"),
        ({"rule": "sgd(momentum=0.9)"}, r"rule='sgd\(momentum=0\.9.*without momentum"),
        ({"batch_size": 32}, "batch_size=32; expected 1"),
        ({"accumulate": 2}, "accumulate=2; expected 1"),
        ({"alpha": 0.1, "l1_ratio": 0.5}, r"L1 penalty .*expected l1_ratio=0"),
        ({"clip_norm": 1.0}, r"clip_norm=1\.0; expected None"),
        ({"average": True}, "average=True; expected False"),
        ({"backend": "reference"}, r"backend='reference' runs on one thread; expected 'native'"),
        ({"alpha": 10.0, "learning_rate": 0.1}, r"learning_rate \* alpha is 1 at step 0"),
    ],
)
def test_what_cannot_be_asynchronous_is_named(arguments, message):
    S, y = many_rows(200)
    with pytest.raises(InvalidArgument, match=f"^asynchronous=True: .*{message}"):
        schuss.fit(S, y, **{"loss": "log_loss", "asynchronous": True, **arguments})

"""minimize: gradient functions of the user's own under the orders, rules and schedules of fit."""

from __future__ import annotations

import numba
import numpy as np
import oracle
import pytest
from test_fit import Listener, steps_of

import schuss
from schuss.errors import DataTypeError, DivergenceError, InterruptedWarning

N, D = 23, 4
RNG = np.random.default_rng(8)
X = RNG.integers(-40, 40, (N, D)) / 32.0
Y = X @ [1.0, -2.0, 0.5, 0.0] + RNG.normal(size=N) / 4
ONES = np.column_stack([X, np.ones(N)])


def gradient(w, A, b):
    return A.T @ (A @ w - b) / len(b)


def loss(w, A, b):
    return np.mean((A @ w - b) ** 2) / 2


jitted_gradient = numba.njit(gradient)


@numba.njit
def jitted_loss(w, A, b):
    return np.mean((A @ w - b) ** 2) / 2


FUNCTIONS = {"Python": (gradient, loss), "Numba": (jitted_gradient, jitted_loss)}
RULES = [
    "sgd",
    "sgd(momentum=0.9)",
    "sgd(momentum=0.9, nesterov=True)",
    "adam",
    "adamw(weight_decay=0.0)",
    "adagrad",
]
SCHEDULE = "inverse_time(0.1, decay=0.05)"


@pytest.mark.parametrize("functions", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("rule", RULES)
def test_a_linear_model_is_trained_as_fit_does(rule, functions, backend):
    common = {
        "rule": rule,
        "batch_size": 5,
        "epochs": 4,
        "learning_rate": SCHEDULE,
        "backend": backend,
        "seed": 3,
    }
    theta, history = schuss.minimize(
        functions[0], np.zeros(D + 1), (ONES, Y), loss_fn=functions[1], **common
    )
    result = schuss.fit(X, Y, **common)
    np.testing.assert_allclose(theta, np.append(result.coef, result.intercept), rtol=1e-11)
    for name in ("epoch", "updates", "samples", "learning_rate"):
        assert np.array_equal(history[name], result.history[name]), name
    for name in ("train_loss", "grad_norm"):
        np.testing.assert_allclose(history[name], result.history[name], rtol=1e-9)


@pytest.mark.parametrize(
    ("rule", "name", "options"),
    [
        ("sgd(weight_decay=0.2)", "sgd", {"weight_decay": 0.2}),
        ("adam(weight_decay=0.2)", "adam", {"weight_decay": 0.2}),
        ("adamw(weight_decay=0.2)", "adamw", {"weight_decay": 0.2}),
        ("adagrad(lr_decay=0.1, weight_decay=0.2)", "adagrad",
         {"lr_decay": 0.1, "weight_decay": 0.2}),
    ],
)  # fmt: skip
def test_weight_decay_falls_on_all_of_theta(rule, name, options, backend):
    theta, _ = schuss.minimize(
        gradient,
        np.ones(D),
        (X, Y),
        rule=rule,
        batch_size=5,
        epochs=2,
        learning_rate=0.05,
        backend=backend,
    )
    steps = steps_of(epochs=2)
    expected = oracle.descend(
        X,
        Y,
        oracle.squared_error,
        name,
        steps,
        [0.05] * len(steps),
        np.append(np.ones(D), 0.0),
        options=options,
        intercept=False,
    )
    np.testing.assert_allclose(theta, expected.theta[:-1], rtol=1e-10)


@pytest.mark.parametrize("text", ["shuffle", "sequential", "replacement", "blocks(rows=4)"])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_come_in_the_order_of_fit(text, drop_last):
    seen = []

    def look(theta, numbers):
        seen.append(numbers.tolist())
        return np.zeros(1)

    schuss.minimize(
        look,
        np.zeros(1),
        (np.arange(N),),
        batch_size=5,
        epochs=2,
        order=text,
        drop_last=drop_last,
        seed=4,
    )
    expected = steps_of(text, epochs=2, drop_last=drop_last, seed=4)
    assert seen == [rows.tolist() for rows in expected]


def test_stratified_batches_take_the_second_array_for_labels():
    labels = np.arange(20) % 4 // 3
    seen = []

    def look(theta, numbers, ys):
        seen.append(ys.sum())
        return np.zeros(1)

    schuss.minimize(
        look, np.zeros(1), (np.arange(20), labels), batch_size=4, epochs=2, order="stratified"
    )
    assert seen == [1] * 10


def test_clipping(backend):
    theta, history = schuss.minimize(
        gradient,
        np.zeros(D),
        (X, Y),
        batch_size=5,
        epochs=2,
        clip_norm=0.2,
        learning_rate=0.1,
        backend=backend,
    )
    steps = steps_of(epochs=2)
    expected = oracle.descend(
        X,
        Y,
        oracle.squared_error,
        "sgd",
        steps,
        [0.1] * len(steps),
        np.zeros(D + 1),
        clip_norm=0.2,
        intercept=False,
    )
    np.testing.assert_allclose(theta, expected.theta[:-1], rtol=1e-10)
    assert history["grad_norm"][-1] == pytest.approx(expected.norm)


# ---- Parameters and data of other shapes ---------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 1, 3)], ids=str)
def test_theta_of_any_shape(shape, backend, dtype):
    target = np.arange(1.0, 1 + np.prod(shape, dtype=int)).reshape(shape).astype(dtype)

    def towards(theta, rows):
        assert theta.shape == shape and theta.dtype == dtype
        return theta - target

    theta, _ = schuss.minimize(
        towards,
        np.zeros(shape, dtype),
        (np.arange(10),),
        batch_size=2,
        epochs=30,
        learning_rate=0.3,
        backend=backend,
    )
    assert theta.shape == shape and theta.dtype == dtype
    np.testing.assert_allclose(theta, target, rtol=1e-5)


def test_a_matrix_factorisation():
    """Something that is no linear model at all, through a Numba function."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 5))

    @numba.njit
    def slope(W, rows):
        projected = rows @ W
        residual = projected @ W.T - rows
        return 2 * (residual.T @ projected + rows.T @ (residual @ W)) / len(rows)

    start = rng.normal(size=(5, 2)) * 0.3
    kept = start.copy()
    W, _ = schuss.minimize(
        slope, start, (A,), epochs=200, learning_rate="cosine(0.02, steps=1200)", batch_size=10
    )
    assert np.array_equal(start, kept)
    assert np.linalg.norm(A @ W @ W.T - A) < 1e-3 * np.linalg.norm(A)


@pytest.mark.parametrize(
    "theta0",
    [[0.0] * D, np.zeros(2 * D)[::2], np.zeros(D, ">f8"), np.zeros(D, int), np.zeros(D, bool)],
    ids=["list", "strided", "big-endian", "int", "bool"],
)
def test_forms_of_theta0(theta0):
    expected, _ = schuss.minimize(gradient, np.zeros(D), (X, Y), epochs=2)
    theta, _ = schuss.minimize(gradient, theta0, (X, Y), epochs=2)
    assert theta.dtype == np.float64 and theta.tobytes() == expected.tobytes()


def test_a_gradient_may_be_of_another_dtype_or_layout(backend):
    expected, _ = schuss.minimize(gradient, np.zeros(D), (X, Y), backend=backend)
    for form in (
        lambda g: np.repeat(g, 2)[::2],
        lambda g: g.tolist(),
        lambda g: g.astype(np.longdouble),
        lambda g: g.astype(">f8"),
    ):
        theta, _ = schuss.minimize(
            lambda w, A, b, form=form: form(gradient(w, A, b)), np.zeros(D), (X, Y), backend=backend
        )
        assert theta.tobytes() == expected.tobytes()


def test_a_gradient_that_is_kept_by_its_function_is_not_written():
    buffer = np.zeros(D)

    def in_place(w, A, b):
        np.copyto(buffer, gradient(w, A, b))
        kept.append(buffer.copy())
        return buffer

    kept: list[np.ndarray] = []
    schuss.minimize(in_place, np.zeros(D), (X, Y), clip_norm=1e-3, batch_size=5, epochs=1)
    assert np.array_equal(buffer, kept[-1])


def test_any_number_of_arrays_of_any_kind():
    texts = np.array(["a", "b", "c", "d"])
    objects = np.array([{}, None, 3, "x"], dtype=object)

    def look(theta, words, things, cubes):
        assert words.dtype == texts.dtype and things.dtype == object and cubes.shape[1:] == (2, 2)
        return theta * 0

    schuss.minimize(look, [1.0], (texts, objects, np.zeros((4, 2, 2))), batch_size=2)


def test_objects_cannot_be_told_apart_by_a_checkpoint(tmp_path):
    with pytest.raises(DataTypeError, match=r"data\[1\]: a checkpoint cannot tell"):
        schuss.minimize(
            lambda theta, numbers, things: theta * 0,
            [1.0],
            (np.arange(2), np.array([{}, None], dtype=object)),
            checkpoint=schuss.data.Checkpoint(tmp_path / "run"),
        )


def test_data_frames_and_tensors():
    pandas = pytest.importorskip("pandas")
    expected, _ = schuss.minimize(gradient, np.zeros(D), (X, Y))
    theta, _ = schuss.minimize(gradient, np.zeros(D), (pandas.DataFrame(X), pandas.Series(Y)))
    assert theta.tobytes() == expected.tobytes()


# ---- History and stopping ------------------------------------------------------------------


def test_history_without_a_loss_is_nan_there():
    _, history = schuss.minimize(gradient, np.zeros(D), (X, Y), epochs=3)
    assert np.isnan(history["train_loss"]).all() and np.isnan(history["validation_loss"]).all()
    assert (history["grad_norm"] > 0).all()
    listener = Listener()
    schuss.minimize(gradient, np.zeros(D), (X, Y), epochs=3, progress=listener)
    assert all(np.isnan(call[3]) for call in listener.calls[1:-1])


def test_records_callbacks_and_updates():
    seen = []
    theta, history = schuss.minimize(
        gradient,
        np.zeros(D),
        (X, Y),
        loss_fn=loss,
        batch_size=5,
        updates=13,
        record_every=4,
        callbacks=seen.append,
    )
    assert history["updates"].tolist() == [4, 8, 12, 13]
    assert [moment.updates for moment in seen] == [4, 8, 12]
    again, _ = schuss.minimize(gradient, np.zeros(D), (X, Y), batch_size=5, updates=13)
    assert again.tobytes() == theta.tobytes()


def test_stops():
    common = {"loss_fn": loss, "batch_size": "full", "epochs": 3000, "learning_rate": 0.3}
    _, history = schuss.minimize(gradient, np.zeros(D), (X, Y), gtol=1e-6, **common)
    assert history["grad_norm"][-1] <= 1e-6 < history["grad_norm"][-2]
    _, history = schuss.minimize(gradient, np.zeros(D), (X, Y), tol=1e-3, patience=2, **common)
    assert len(history) < 100
    _, history = schuss.minimize(
        gradient, np.zeros(D), (X, Y), callbacks=lambda moment: moment.updates == 7, **common
    )
    assert history["updates"][-1] == 7


def test_a_time_limit_is_kept_by_slow_functions():
    """Which read much data per step; of fast ones, a hundred steps pass between two looks."""
    import time

    wide = np.zeros((40, 50_000))

    def slow(theta, rows):
        time.sleep(0.01)
        return np.zeros(1)

    begun = time.perf_counter()
    schuss.minimize(slow, np.zeros(1), (wide,), batch_size=20, epochs=10**6, time_limit=0.1)
    assert time.perf_counter() - begun < 2


def test_results_repeat_bit_for_bit(backend):
    runs = [
        schuss.minimize(
            gradient, np.zeros(D), (X, Y), loss_fn=loss, rule="adam", backend=backend, **more
        )
        for more in ({}, {}, {"progress": Listener()}, {"callbacks": lambda moment: None})
    ]
    assert len({theta.tobytes() for theta, _ in runs}) == 1
    assert len({history["train_loss"].tobytes() for _, history in runs}) == 1


def test_divergence_is_located():
    with pytest.raises(DivergenceError, match=r"learning rate 20.*clip_norm") as caught:
        schuss.minimize(gradient, np.ones(D), (X, Y), learning_rate=20.0, epochs=1000)
    error = caught.value
    theta, _ = error.result
    assert np.isfinite(theta).all() and np.abs(theta).max() > 1e200
    assert error.epoch == error.step > 100 and error.learning_rate == 20.0
    before, _ = schuss.minimize(
        gradient, np.ones(D), (X, Y), learning_rate=20.0, updates=error.step
    )
    assert before.tobytes() == theta.tobytes()


def test_nan_of_a_gradient_or_a_loss_is_divergence():
    def nan_at(step):
        calls = []

        def function(w, A, b):
            calls.append(1)
            return gradient(w, A, b) * (np.nan if len(calls) > step else 1.0)

        return function

    with pytest.raises(DivergenceError):
        schuss.minimize(nan_at(7), np.zeros(D), (X, Y), batch_size=5)
    with pytest.raises(DivergenceError) as caught:
        schuss.minimize(gradient, np.zeros(D), (X, Y), loss_fn=lambda w, A, b: np.nan)
    assert caught.value.step == 0


def test_errors_of_the_function_are_the_callers():
    def fail(w, A, b):
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        schuss.minimize(fail, np.zeros(D), (X, Y))


def test_an_interrupt_from_the_function_keeps_the_state_before():
    calls = []

    def interrupt(w, A, b):
        calls.append(1)
        if len(calls) > 30:
            raise KeyboardInterrupt
        return gradient(w, A, b)

    with pytest.warns(InterruptedWarning) as caught:
        theta, history = schuss.minimize(interrupt, np.zeros(D), (X, Y), batch_size=5)
    assert caught[0].filename == __file__
    assert history["updates"][-1] == 30
    expected, _ = schuss.minimize(gradient, np.zeros(D), (X, Y), batch_size=5, updates=30)
    assert theta.tobytes() == expected.tobytes()

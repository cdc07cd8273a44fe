"""Every argument of fit does what its docstring says, held to textbook loops."""

from __future__ import annotations

import logging
import threading
import time

import numpy as np
import oracle
import pytest
from support import run_python

import schuss
from schuss import orders
from schuss.errors import DivergenceError, InterruptedWarning, ScalingWarning, SchussError
from schuss.formulas.losses import LOSSES
from schuss.orders import Facts

N, D = 23, 4
RNG = np.random.default_rng(7)
X = RNG.integers(-40, 40, (N, D)) / 32.0
COEF = np.array([1.0, -2.0, 0.5, 0.0])
Y = X @ COEF + 0.5 + RNG.normal(size=N) / 4
SIGN = np.where(Y > 0.4, 1.0, -1.0)
WEIGHT = RNG.integers(0, 4, N) / 2.0
SCHEDULE = "inverse_time(0.1, decay=0.05)"


def rates(count: int) -> np.ndarray:
    return 0.1 / (1 + 0.05 * np.arange(count))


def steps_of(
    text: str = "shuffle",
    n: int = N,
    batch_size: int = 5,
    epochs: int = 3,
    drop_last: bool = False,
    accumulate: int = 1,
    seed: int = 0,
    labels: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> list[np.ndarray]:
    """The rows of every update: the batches of each epoch, as many together as accumulate."""
    visits = orders.get(text).bind(Facts(n, batch_size, seed, labels, weights))
    steps = []
    for epoch in range(epochs):
        batches = oracle.batches(visits.indices(epoch, 0, n), batch_size)
        if drop_last:
            batches = [batch for batch in batches if len(batch) == batch_size]
        for k in range(0, len(batches), accumulate):
            steps.append(np.concatenate(batches[k : k + accumulate]))
    return steps


def textbook(y=Y, loss="squared_error", rule="sgd", steps=None, start=None, **more) -> oracle.Run:
    steps = steps_of() if steps is None else steps
    return oracle.descend(
        X,
        y,
        oracle.LOSSES[loss],
        rule,
        steps,
        rates(len(steps)),
        np.zeros(D + 1) if start is None else start,
        **more,
    )


def fitted(backend, dtype=np.float64, y=Y, **arguments) -> schuss.Result:
    defaults = {"batch_size": 5, "epochs": 3, "learning_rate": SCHEDULE, "dtype": dtype}
    return schuss.fit(X, y, backend=backend, **(defaults | arguments))


def assert_close(result: schuss.Result, theta: np.ndarray) -> None:
    found = np.append(result.coef, result.intercept)
    rtol = 1e-10 if result.coef.dtype == np.float64 else 1e-4
    np.testing.assert_allclose(found, theta, rtol=rtol, atol=rtol * np.abs(theta).max())


def bits(result: schuss.Result) -> tuple:
    """All of a result that must be the same each time: not the clock."""
    columns = result.history.to_dict()
    clockless = {k: v for k, v in columns.items() if k not in ("seconds", "samples_per_second")}
    return result.coef.tobytes(), float(result.intercept).hex(), repr(clockless), result.stop_reason


# ---- The same steps as the textbook --------------------------------------------------------

ORDERS = [
    "shuffle",
    "sequential",
    "replacement",
    "weighted",
    "stratified",
    "stratified(balanced=True)",
    "blocks(rows=4, buffer=2)",
]


@pytest.mark.parametrize("text", ORDERS)
def test_orders_batches_and_accumulation(text, backend, dtype):
    """Every order, with the last short batch kept and dropped, and windows cut short."""
    weights = WEIGHT if text == "weighted" else None
    mean = None if weights is None else np.full(N, weights.mean())
    for batch_size in (1, 5, 23):
        for drop_last in (False, True):
            for accumulate in (1, 2, 3):
                steps = steps_of(
                    text, N, batch_size, 3, drop_last, accumulate, 2, labels=SIGN, weights=weights
                )
                result = fitted(
                    backend,
                    dtype,
                    SIGN,
                    loss="log_loss",
                    order=text,
                    batch_size=batch_size,
                    drop_last=drop_last,
                    accumulate=accumulate,
                    sample_weight=weights,
                    seed=2,
                )
                assert result.history["updates"][-1] == len(steps)
                assert result.history["samples"][-1] == sum(map(len, steps))
                assert_close(result, textbook(SIGN, "log_loss", steps=steps, weight=mean).theta)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ({"rule": "sgd(momentum=0.9)"}, {"rule": "sgd", "options": {"momentum": 0.9}}),
        (
            {"rule": "sgd(momentum=0.9, nesterov=True, weight_decay=0.1)"},
            {"options": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}},
        ),
        (
            {"rule": "sgd(momentum=0.5, dampening=0.5)"},
            {"options": {"momentum": 0.5, "dampening": 0.5}},
        ),
        ({"rule": "adam"}, {"rule": "adam"}),
        ({"rule": "adamw(weight_decay=0.1)"}, {"rule": "adamw", "options": {"weight_decay": 0.1}}),
        ({"rule": "adagrad(lr_decay=0.1)"}, {"rule": "adagrad", "options": {"lr_decay": 0.1}}),
        ({"alpha": 0.2}, {"l2": 0.2}),
        ({"alpha": 0.2, "l1_ratio": 1.0}, {"l1": 0.2}),
        ({"alpha": 0.2, "l1_ratio": 0.25}, {"l1": 0.05, "l2": 0.15}),
        ({"alpha": 0.5, "l1_ratio": 0.5, "rule": "sgd(momentum=0.5)"},
         {"l1": 0.25, "l2": 0.25, "options": {"momentum": 0.5}}),
        ({"sample_weight": WEIGHT}, {"weight": WEIGHT}),
        ({"fit_intercept": False}, {"intercept": False}),
        ({"clip_norm": 0.3}, {"clip_norm": 0.3}),
        ({"clip_norm": 0.3, "alpha": 1.0}, {"clip_norm": 0.3, "l2": 1.0}),
        ({"init": (COEF, -1.5)}, {"start": np.append(COEF, -1.5)}),
        ({"loss": "huber(epsilon=0.5)"}, {"loss": "huber"}),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("batch_size", [1, 5])
def test_rules_penalties_weights_clipping_and_start(arguments, options, batch_size, backend, dtype):
    options = {"steps": steps_of(batch_size=batch_size), **options}
    if options.get("loss") == "huber":
        expected = oracle.descend(
            X,
            Y,
            lambda m, y: oracle.huber(m, y, 0.5),
            "sgd",
            options["steps"],
            rates(len(options["steps"])),
            np.zeros(D + 1),
        )
    else:
        expected = textbook(**options)
    result = fitted(backend, dtype, batch_size=batch_size, **arguments)
    assert_close(result, expected.theta)
    if arguments.get("l1_ratio"):
        assert np.array_equal(result.coef == 0, expected.theta[:-1] == 0)
    if not arguments.get("fit_intercept", True):
        assert result.intercept == 0.0


def test_class_weights(backend):
    counts = {c: np.count_nonzero(c == SIGN) for c in (-1.0, 1.0)}
    balanced = np.array([N / (2 * counts[c]) for c in SIGN])
    labels = np.where(SIGN > 0, "up", "down")
    for given, weight in [
        ("balanced", balanced),
        ({"up": 3.0}, np.where(SIGN > 0, 3.0, 1.0)),
        ({"up": 0.5, "down": 2}, np.where(SIGN > 0, 0.5, 2.0)),
    ]:
        expected = textbook(SIGN, "log_loss", weight=weight).theta
        assert_close(fitted(backend, y=labels, loss="log_loss", class_weight=given), expected)
        both = fitted(backend, y=labels, loss="log_loss", class_weight=given, sample_weight=WEIGHT)
        assert_close(both, textbook(SIGN, "log_loss", weight=weight * WEIGHT).theta)


def test_balanced_class_weights_count_the_training_rows(backend):
    train = training_rows(0.4, 4)
    positive = np.count_nonzero(SIGN[train] > 0)
    pair = {1.0: train.size / (2 * positive), -1.0: train.size / (2 * (train.size - positive))}
    by_hand = fitted(backend, y=SIGN, loss="log_loss", validation=0.4, seed=4, class_weight=pair)
    balanced = fitted(
        backend, y=SIGN, loss="log_loss", validation=0.4, seed=4, class_weight="balanced"
    )
    assert pair[1.0] != N / (2 * np.count_nonzero(SIGN > 0))
    assert bits(balanced) == bits(by_hand)


def training_rows(fraction: float, seed: int) -> np.ndarray:
    """Rows a fit trains on, seen by the columns of the identity that get a coefficient."""
    result = schuss.fit(
        np.eye(N),
        np.ones(N),
        batch_size=1,
        learning_rate=0.5,
        epochs=1,
        fit_intercept=False,
        validation=fraction,
        seed=seed,
    )
    return np.flatnonzero(result.coef)


def test_a_warm_start_from_a_result(backend, dtype):
    first = fitted(backend, dtype, order="sequential", learning_rate=0.05)
    second = fitted(backend, dtype, order="sequential", learning_rate=0.05, init=first)
    together = fitted(backend, dtype, order="sequential", learning_rate=0.05, epochs=6)
    assert second.coef.tobytes() == together.coef.tobytes()
    assert second.intercept == together.intercept


def test_an_intercept_that_is_not_trained_stays(backend):
    result = fitted(backend, fit_intercept=False, init=(np.zeros(D), 0.25))
    assert result.intercept == 0.25
    expected = textbook(intercept=False, start=np.array([0, 0, 0, 0, 0.25]))
    assert_close(result, expected.theta)


@pytest.mark.parametrize("first", [True, 1, 4, 15])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_average_of_the_iterates(first, batch_size, backend, dtype):
    """From the given update on, counted from 1."""
    steps = steps_of(batch_size=batch_size)
    iterates = [textbook(steps=steps[: k + 1]).theta for k in range(len(steps))]
    begin = 0 if first is True else first - 1
    result = fitted(backend, dtype, batch_size=batch_size, average=first)
    assert_close(result, np.mean(iterates[begin:], axis=0))
    assert result.coef.dtype == dtype


def test_average_of_a_late_update_only(backend):
    steps = steps_of()
    with pytest.raises(SchussError, match="average=16"):
        fitted(backend, average=len(steps) + 1)
    assert_close(fitted(backend, average=len(steps)), textbook().theta)
    assert bits(fitted(backend, average=False)) == bits(fitted(backend))


@pytest.mark.parametrize("loss", LOSSES.rows)
def test_every_loss_by_name(loss, backend):
    y = {"binary": SIGN, "real": Y, "nonnegative": np.abs(Y)}[schuss.losses.get(loss).domain]
    parameters = schuss.losses.get(loss).parameters
    steps = steps_of()
    expected = oracle.descend(
        X,
        y,
        lambda m, t: oracle.LOSSES[loss](m, t, *parameters),
        "sgd",
        steps,
        rates(len(steps)),
        np.zeros(D + 1),
    )
    assert_close(fitted(backend, y=y, loss=loss), expected.theta)


def test_text_forms_objects_and_classes_are_the_same(backend):
    texts = {
        "loss": "huber(epsilon=0.5)",
        "rule": "sgd(momentum=0.5)",
        "order": "blocks(rows=4, buffer=2)",
        "learning_rate": "cosine(0.1, steps=15)",
    }
    objects = {
        "loss": schuss.losses.huber(epsilon=0.5),
        "rule": schuss.rules.sgd(momentum=0.5),
        "order": schuss.orders.blocks(rows=4, buffer=2),
        "learning_rate": schuss.schedules.cosine(0.1, steps=15),
    }
    a, b = fitted(backend, **texts), fitted(backend, **objects)
    assert bits(a) == bits(b) and a.config == b.config
    c = fitted(backend, order=schuss.orders.shuffle, rule=schuss.rules.sgd, loss="squared_error")
    assert bits(c) == bits(fitted(backend, order="shuffle", rule="sgd"))


def test_learning_rates_as_number_text_schedule_and_function(backend):
    number = fitted(backend, learning_rate=0.05)
    for same in ("0.05", schuss.schedules.constant(0.05), "constant(0.05)", lambda t: 0.05):
        assert bits(fitted(backend, learning_rate=same)) == bits(number)
    seen = []

    def decreasing(step):
        seen.append(np.array(step))
        return 0.1 / (1 + 0.05 * step)

    result = fitted(backend, learning_rate=decreasing)
    assert_close(result, textbook().theta)
    assert np.unique(np.concatenate(seen)).tolist() == list(range(15))
    assert "decreasing" in result.config["learning_rate"]


def test_schedules_per_epoch(backend):
    """Steps of an epoch share a rate; accumulated batches are one step."""
    schedule = schuss.schedules.per_epoch("step_decay(0.1, every=1, factor=0.5)")
    steps = steps_of(accumulate=2)
    result = fitted(backend, learning_rate=schedule, accumulate=2)
    expected = oracle.descend(
        X,
        Y,
        oracle.squared_error,
        "sgd",
        steps,
        np.repeat([0.1, 0.05, 0.025], 3),
        np.zeros(D + 1),
    )
    assert_close(result, expected.theta)
    assert result.history["learning_rate"].tolist() == [0.1, 0.05, 0.025]


def test_seeds_differ_and_repeat(backend):
    results = [fitted(backend, seed=seed) for seed in (0, 1, 2**64 - 1, 0)]
    assert bits(results[0]) == bits(results[3])
    assert len({bits(r) for r in results}) == 3


def test_the_backend_and_its_choice(caplog):
    with caplog.at_level(logging.INFO, logger="schuss"):
        result = schuss.fit(X, Y, batch_size=5)
    assert result.backend == schuss.backends.choose("auto").name
    assert f"backend: {result.backend}" in caplog.text
    assert "learning_rate: cosine" in caplog.text and "stability limit" in caplog.text
    assert fitted("reference").backend == "reference"
    assert bits(fitted(schuss.backends.choose("reference"))) == bits(fitted("reference"))


# ---- History, validation, evaluation -------------------------------------------------------


def moments_of(**arguments) -> tuple[schuss.Result, list]:
    moments = []
    result = schuss.fit(X, callbacks=moments.append, **arguments)
    return result, moments


def test_history_once_per_epoch(backend, dtype):
    result, moments = moments_of(
        y=Y, batch_size=5, epochs=3, learning_rate=SCHEDULE, backend=backend, dtype=dtype
    )
    history, steps = result.history, steps_of()
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history["updates"].tolist() == [5, 10, 15]
    assert history["samples"].tolist() == [23, 46, 69]
    assert history["learning_rate"] == pytest.approx([rates(15)[k] for k in (4, 9, 14)])
    running = [textbook(steps=steps[:k]).loss for k in (5, 10, 15)]
    rtol = 1e-10 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(
        history["train_loss"], np.diff(running, prepend=0) / N, rtol=rtol, atol=rtol
    )
    norms = [textbook(steps=steps[:k]).norm for k in (5, 10, 15)]
    np.testing.assert_allclose(history["grad_norm"], norms, rtol=100 * rtol)
    assert np.isnan(history["validation_loss"]).all()
    assert (np.diff(history["seconds"]) >= 0).all() and (history["samples_per_second"] > 0).all()
    assert [(m.epoch, m.updates) for m in moments] == [(1, 5), (2, 10), (3, 15)]
    for k, moment in zip((5, 10, 15), moments, strict=True):
        theta = textbook(steps=steps[:k]).theta
        np.testing.assert_allclose(np.append(moment.coef, moment.intercept), theta, rtol=10 * rtol)
    assert moments[-1].coef.tobytes() == result.coef.tobytes()


def test_history_every_few_updates(backend):
    """And a last row where the run ends between two."""
    result, moments = moments_of(
        y=Y, batch_size=5, epochs=3, learning_rate=SCHEDULE, record_every=4, backend=backend
    )
    history, steps = result.history, steps_of()
    assert history["updates"].tolist() == [4, 8, 12, 15]
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    assert history["samples"].tolist() == [20, 38, 56, 69]
    sums = [textbook(steps=steps[:k]).loss for k in (4, 8, 12, 15)]
    np.testing.assert_allclose(
        history["train_loss"], np.diff(sums, prepend=0) / [20, 18, 18, 13], rtol=1e-10
    )
    assert [m.updates for m in moments] == [4, 8, 12]
    assert bits(result)[:2] == bits(fitted(backend))[:2]


@pytest.mark.parametrize("kind", ["running", "full", "both"])
@pytest.mark.parametrize("penalty", [{}, {"alpha": 0.3}, {"alpha": 0.3, "l1_ratio": 0.5}])
def test_evaluation_of_the_training_loss(kind, penalty, backend):
    common = {
        "y": Y,
        "batch_size": 5,
        "epochs": 3,
        "learning_rate": SCHEDULE,
        "sample_weight": WEIGHT,
        "backend": backend,
        **penalty,
    }
    result, moments = moments_of(evaluate=kind, **common)
    running = schuss.fit(X, **common).history["train_loss"]
    full, norms = [], []
    alpha, ratio = penalty.get("alpha", 0.0), penalty.get("l1_ratio", 0.0)
    for moment in moments:
        residual = X @ moment.coef + moment.intercept - Y
        full.append(np.mean(WEIGHT * residual**2 / 2))
        slope = X.T @ (WEIGHT * residual) / N + alpha * (1 - ratio) * moment.coef
        l1 = alpha * ratio
        inside = np.sign(slope) * np.maximum(np.abs(slope) - l1, 0)  # the smallest subgradient
        slope = np.where(moment.coef == 0, inside, slope + l1 * np.sign(moment.coef))
        norms.append(np.linalg.norm([*slope, np.mean(WEIGHT * residual)]))
    history = result.history
    expected = running if kind == "running" else full
    np.testing.assert_allclose(history["train_loss"], expected, rtol=1e-10)
    assert ("running_loss" in history.columns) == (kind == "both")
    if kind == "both":
        assert np.array_equal(history["running_loss"], running)
    if kind != "running":
        np.testing.assert_allclose(history["grad_norm"], norms, rtol=1e-9)


def test_evaluation_of_a_weighted_order_is_of_the_weighted_objective(backend):
    result, moments = moments_of(
        y=Y,
        order="weighted",
        sample_weight=WEIGHT,
        evaluate="full",
        batch_size=5,
        epochs=2,
        learning_rate=0.05,
        backend=backend,
    )
    for moment, loss in zip(moments, result.history["train_loss"], strict=True):
        residual = X @ moment.coef + moment.intercept - Y
        assert loss == pytest.approx(np.mean(WEIGHT * residual**2 / 2), rel=1e-10)


def test_validation_data_of_its_own(backend):
    V, v, weight = X[::-1] * 0.5, Y[::-1] + 1, WEIGHT + 1
    for given, factor in [((V, v), np.ones(N)), ((V, v, weight), weight)]:
        result, moments = moments_of(
            y=Y, batch_size=5, epochs=3, validation=given, learning_rate=0.05, backend=backend
        )
        for moment, loss in zip(moments, result.history["validation_loss"], strict=True):
            residual = V @ moment.coef + moment.intercept - v
            assert loss == pytest.approx(np.mean(factor * residual**2 / 2), rel=1e-10)
        assert bits(result)[:2] == bits(fitted(backend, learning_rate=0.05))[:2]


def test_validation_by_a_fraction(backend):
    train = training_rows(0.3, 5)
    held = np.setdiff1d(np.arange(N), train)
    assert held.size == round(0.3 * N)
    result, moments = moments_of(
        y=Y,
        batch_size=5,
        epochs=3,
        validation=0.3,
        seed=5,
        learning_rate=SCHEDULE,
        evaluate="full",
        backend=backend,
    )
    for moment, row in zip(moments, result.history, strict=True):
        residual = X @ moment.coef + moment.intercept - Y
        assert row["validation_loss"] == pytest.approx(np.mean(residual[held] ** 2 / 2), rel=1e-10)
        assert row["train_loss"] == pytest.approx(np.mean(residual[train] ** 2 / 2), rel=1e-10)
    alone = schuss.fit(
        X[train], Y[train], batch_size=5, epochs=3, seed=5, learning_rate=SCHEDULE, backend=backend
    )
    assert alone.coef.tobytes() == result.coef.tobytes()


def test_class_weights_count_in_the_validation_loss(backend):
    common = {"loss": "log_loss", "class_weight": {1.0: 3.0}, "y": SIGN, "epochs": 1}
    result, moments = moments_of(validation=(X, SIGN), backend=backend, **common)
    margin = X @ moments[0].coef + moments[0].intercept
    factor = np.where(SIGN > 0, 3.0, 1.0)
    expected = np.mean(factor * np.log1p(np.exp(-SIGN * margin)))
    assert result.history["validation_loss"][0] == pytest.approx(expected, rel=1e-10)


# ---- Stopping ------------------------------------------------------------------------------


def test_stops_after_epochs_or_updates(backend):
    assert fitted(backend).stop_reason == "epochs"
    for updates in (1, 4, 5, 7, 15, 40):
        result = fitted(backend, updates=updates, epochs=1)
        assert result.stop_reason == "updates"
        assert result.history["updates"][-1] == updates
        epochs = -(-updates // 5)
        assert_close(result, textbook(steps=steps_of(epochs=epochs)[:updates]).theta)


def test_stops_at_the_time_limit():
    begun = time.perf_counter()
    result = schuss.fit(X, Y, epochs=10**9, learning_rate=0.01, time_limit=0.2)
    assert result.stop_reason == "time_limit"
    assert 0.1 < result.history["seconds"][-1] < 5 and time.perf_counter() - begun < 10
    assert len(result.history)


def test_a_time_limit_always_leaves_a_step():
    result = schuss.fit(X, Y, epochs=10, time_limit=1e-9)
    assert result.stop_reason == "time_limit" and result.history["updates"][-1] >= 1


@pytest.mark.parametrize("watched", ["train_loss", "validation_loss"])
def test_stops_when_patience_is_at_an_end(watched, backend):
    validation = (X, Y) if watched == "validation_loss" else None
    common = {"learning_rate": 0.05, "validation": validation, "backend": backend}
    for tol, patience in [(1e-3, 1), (1e-3, 4), (0.0, 2), (10.0, 3)]:
        result = fitted(epochs=150, tol=tol, patience=patience, **common)
        losses = result.history[watched]
        best, bad, expected = np.inf, 0, None
        for k, loss in enumerate(fitted(epochs=150, **common).history[watched]):
            best, bad = (loss, 0) if loss < best - tol else (best, bad + 1)
            if bad >= patience:
                expected = k + 1
                break
        assert losses.size == (expected or 150)
        assert result.stop_reason == ("tol" if expected else "epochs")


def test_stops_when_the_gradient_is_small(backend):
    result = fitted(
        backend, batch_size="full", epochs=5000, learning_rate=0.2, gtol=1e-6, alpha=0.1
    )
    assert result.stop_reason == "gtol"
    norms = result.history["grad_norm"]
    assert norms[-1] <= 1e-6 and (norms[:-1] > 1e-6).all()
    _, coef, intercept = schuss.gradient(X, Y, result.coef, result.intercept)
    assert np.linalg.norm([*(coef + 0.1 * result.coef), intercept]) <= 1e-6


def test_gtol_is_reached_under_an_l1_penalty(backend):
    result = fitted(
        backend,
        batch_size="full",
        learning_rate=0.2,
        epochs=5000,
        gtol=1e-8,
        alpha=0.5,
        l1_ratio=0.9,
    )
    assert result.stop_reason == "gtol" and (result.coef == 0).any()


def test_gtol_looks_at_the_weighted_objective_of_a_weighted_order(backend):
    """Without noise all rows agree on the optimum, and steps on single rows end there."""
    result = fitted(
        backend,
        y=X @ COEF + 0.5,
        learning_rate=0.2,
        batch_size=1,
        epochs=2000,
        gtol=1e-9,
        order="weighted",
        sample_weight=WEIGHT,
    )
    assert result.stop_reason == "gtol"
    np.testing.assert_allclose(result.coef, COEF, atol=1e-6)


def test_callbacks_stop_and_see_copies(backend):
    seen = []

    def spoil(moment):
        seen.append((moment.epoch, moment.updates, len(moment.history)))
        moment.coef[:] = np.nan
        return "not a wish to stop"

    untouched = fitted(backend)
    result = fitted(backend, callbacks=[spoil, lambda moment: None])
    assert seen == [(1, 5, 1), (2, 10, 2), (3, 15, 3)]
    assert bits(result) == bits(untouched)
    for wish in (True, np.True_):
        stopped = fitted(backend, callbacks=lambda moment, w=wish: w if moment.epoch == 2 else None)
        assert stopped.stop_reason == "callback"
        assert bits(stopped)[:2] == bits(fitted(backend, epochs=2))[:2]
    assert fitted(backend, callbacks=lambda m: np.float64(1) < 0).stop_reason == "epochs"


def test_a_callback_that_fails_is_not_hidden():
    def fail(moment):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        schuss.fit(X, Y, callbacks=fail)


def test_keyboard_interrupt_in_a_callback_keeps_the_result(backend):
    def interrupt(moment):
        if moment.epoch == 2:
            raise KeyboardInterrupt

    with pytest.warns(InterruptedWarning, match="interrupted after 10 updates") as caught:
        result = schuss.fit(
            X,
            Y,
            batch_size=5,
            epochs=3,
            learning_rate=SCHEDULE,
            callbacks=interrupt,
            backend=backend,
        )
    assert caught[0].filename == __file__
    assert result.stop_reason == "interrupted" and len(result.history) == 2
    assert bits(result)[:2] == bits(fitted(backend, epochs=2))[:2]


# ---- Progress ------------------------------------------------------------------------------


class Listener:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def start(self, total_updates):
        self.calls.append(("start", total_updates))

    def update(self, *values):
        self.calls.append(("update", *values))

    def stop(self):
        self.calls.append(("stop",))


def test_progress_is_told_to_an_object():
    listener = Listener()
    result = schuss.fit(
        X, Y, batch_size=5, epochs=4, learning_rate=0.01, validation=(X, Y), progress=listener
    )
    assert listener.calls[0] == ("start", 20) and listener.calls[-1] == ("stop",)
    told = [call[1:] for call in listener.calls[1:-1]]
    assert [row[0] for row in told] == [5, 10, 15, 20]
    assert [row[2] for row in told] == result.history["train_loss"].tolist()
    assert [row[3] for row in told] == result.history["validation_loss"].tolist()
    assert {row[4] for row in told} == {0.01}
    assert all(row[5] > 0 for row in told)


def test_progress_of_a_given_number_of_updates():
    listener = Listener()
    schuss.fit(X, Y, batch_size=5, updates=7, progress=listener)
    assert listener.calls[0] == ("start", 7) and listener.calls[-2][1] == 7
    assert listener.calls[1][4] is None  # no validation loss


def test_progress_stops_when_training_fails():
    listener = Listener()
    with pytest.raises(DivergenceError):
        schuss.fit(X, Y, learning_rate=1e40, progress=listener)
    assert listener.calls[-1] == ("stop",)


def test_progress_bar_of_its_own_writes_nothing_here(capsys):
    schuss.fit(X, Y, progress=True)
    assert capsys.readouterr() == ("", "")


# ---- The same bits, every time -------------------------------------------------------------

LARGE = np.random.default_rng(3).normal(size=(5000, 40)).astype(np.float32)
TARGET = (LARGE @ np.linspace(-1, 1, 40) + 0.3).astype(np.float32)
VARIANTS = [
    {"batch_size": 1, "epochs": 1},
    {"batch_size": 32, "rule": "adam"},
    {"batch_size": 4096, "rule": "sgd(momentum=0.9)", "average": True},
    {"batch_size": "full", "alpha": 0.1, "l1_ratio": 0.5, "evaluate": "both"},
]


def large(backend, **arguments) -> schuss.Result:
    return schuss.fit(
        LARGE,
        TARGET,
        **({"learning_rate": 0.01, "epochs": 2, "validation": 0.1, "backend": backend} | arguments),
    )


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_runs_threads_progress_callbacks_and_checkpoints_change_no_bit(variant, compiled, tmp_path):
    name = compiled.name
    expected = bits(large(name, **variant))
    assert bits(large(name, **variant)) == expected
    for threads in (1, 2, 5):
        assert bits(large(name, threads=threads, **variant)) == expected
    assert bits(large(name, progress=Listener(), **variant)) == expected
    assert bits(large(name, callbacks=lambda moment: None, **variant)) == expected
    for k, every in enumerate((1, "1h", "0.001s")):
        checkpoint = schuss.data.Checkpoint(tmp_path / f"run{k}", every=every)
        assert bits(large(name, checkpoint=checkpoint, **variant)) == expected


def test_what_is_recorded_changes_no_coefficient(backend):
    expected = bits(fitted(backend))[:2]
    for arguments in (
        {"record_every": 1},
        {"record_every": 7, "evaluate": "both"},
        {"validation": (X, Y)},
        {"tol": 0.0, "patience": 100},
        {"gtol": 0.0},
        {"time_limit": 1e9},
    ):
        assert bits(fitted(backend, **arguments))[:2] == expected, arguments


def test_fits_in_several_python_threads(compiled):
    """At once, of different kinds, and each as if alone."""
    alone = [bits(large(compiled.name, **variant)) for variant in VARIANTS]
    found: dict[int, tuple] = {}

    def work(k: int) -> None:
        found[k] = bits(large(compiled.name, threads=1 + k % 3, **VARIANTS[k % 4]))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found.get(k) for k in range(8)] == [alone[k % 4] for k in range(8)]


@pytest.mark.parametrize("name", ["reference", "jit", "native"])
def test_a_fit_in_a_forked_child(name):
    if schuss.backends.available()[name] is not None:
        pytest.skip(f"backend {name}: {schuss.backends.available()[name]}")
    code = f"""
        import os, sys, signal
        import numpy as np, schuss
        X = np.random.default_rng(0).normal(size=(5000, 40))
        y = X @ np.arange(40.0)

        def fit():
            result = schuss.fit(X, y, batch_size=4096, epochs=3, threads=2, backend={name!r})
            return result.coef.tobytes()

        before = fit()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(fit())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            inside = pipe.read()
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        print(inside == before == fit())
    """
    assert run_python(code, PYTHONWARNINGS="ignore") == "True"


# ---- Divergence ----------------------------------------------------------------------------


def diverging(rate: float, dtype, batch_size: int) -> tuple[int, int, np.ndarray]:
    """Steps of the textbook loop that first make the loss, and the parameters, non-finite.

    And the parameters before the first of them.
    """
    A = np.column_stack([X, np.ones(N)]).astype(dtype)
    y, theta, first, known = Y.astype(dtype), np.zeros(D + 1, dtype), None, None
    with np.errstate(all="ignore"):
        for t, batch in enumerate(steps_of(batch_size=batch_size, epochs=300)):
            residual = A[batch] @ theta - y[batch]
            if first is None and not np.isfinite((residual**2).sum()):
                first, known = t, theta
            theta = theta - (rate * (A[batch].T @ residual) / len(batch)).astype(dtype)
            if not np.isfinite(theta).all():
                return t if first is None else first, t, known
    raise AssertionError("does not diverge")


@pytest.mark.parametrize("batch_size", [1, 5, 23])
def test_divergence_is_located(batch_size, backend, dtype):
    """At the step whose loss or parameters overflow, in whatever type the backend sums losses."""
    rate = 20.0
    first, last, theta = diverging(rate, dtype, batch_size)
    per_epoch = -(-N // batch_size)
    with pytest.raises(DivergenceError, match="learning rate 20") as caught:
        schuss.fit(
            X,
            Y,
            batch_size=batch_size,
            epochs=300,
            learning_rate=rate,
            backend=backend,
            dtype=dtype,
        )
    error = caught.value
    assert first - 1 <= error.step <= last + 1  # sums are rounded in other ways
    assert error.epoch == error.step // per_epoch
    assert error.learning_rate == rate
    assert f"epoch {error.epoch}, step {error.step}" in str(error)
    assert isinstance(error, FloatingPointError)
    found = error.result
    assert np.isfinite(found.coef).all() and np.isfinite(found.intercept)
    assert found.stop_reason == "diverged" and found.coef.dtype == dtype
    assert 0 < error.limit < rate and f"{error.limit:.3g}" in str(error)
    if error.step == first:
        tolerance = 1e-6 if dtype == np.float64 else 0.05
        difference = np.abs(np.append(found.coef, found.intercept) - theta).max()
        assert difference < tolerance * np.abs(theta).max()
    before = fitted(backend, dtype, batch_size=batch_size, learning_rate=rate, updates=error.step)
    assert before.coef.tobytes() == found.coef.tobytes()


def test_divergence_under_a_schedule_tells_the_rate_of_its_step():
    with pytest.raises(DivergenceError) as caught:
        schuss.fit(X, Y, batch_size=5, epochs=1000, learning_rate=lambda t: 1.0 + t)
    assert caught.value.learning_rate == 1.0 + caught.value.step


def test_the_measured_limit_separates_stable_from_unstable():
    """For a full batch of a quadratic, exactly."""
    A = np.column_stack([X, np.ones(N)])
    exact = 2 / np.linalg.eigvalsh(A.T @ A / N)[-1]
    with pytest.raises(DivergenceError) as caught:
        schuss.fit(X, Y, batch_size="full", epochs=200_000, learning_rate=1.02 * exact)
    assert caught.value.limit == pytest.approx(exact, rel=0.01)
    result = schuss.fit(X, Y, batch_size="full", epochs=20_000, learning_rate=0.98 * exact)
    assert result.history["train_loss"][-1] < result.history["train_loss"][0]


def test_divergence_of_unscaled_columns_says_so():
    wide = X * [1.0, 1e3, 1.0, 1.0]
    with pytest.raises(DivergenceError, match=r"differ in scale by a factor of .*Standardize"):
        schuss.fit(wide, Y, learning_rate=0.1, epochs=1000)
    with pytest.raises(DivergenceError) as caught:
        schuss.fit(X, Y, learning_rate=100.0, epochs=1000)
    assert "scale" not in str(caught.value)


def test_unscaled_columns_warn_where_the_rate_is_measured():
    wide = X * [1.0, 1e3, 1.0, 1.0]
    with pytest.warns(ScalingWarning, match="columns of X differ in scale by a factor") as caught:
        schuss.fit(wide, Y, epochs=1)
    assert caught[0].filename == __file__
    schuss.fit(wide, Y, epochs=1, learning_rate=1e-9)
    # A constant column has no scale, whatever the rounding of its mean.
    schuss.fit(np.column_stack([X, np.full(N, 0.1), np.full(N, 1e6 / 3)]), Y, epochs=1)


# ---- Steps so large that Python drives them ------------------------------------------------


def test_large_steps_are_the_same_as_small_ones(compiled, monkeypatch):
    from schuss.backends import compiled as room

    expected = [bits(large(compiled.name, **variant)) for variant in VARIANTS]
    monkeypatch.setattr(room, "LARGE_STEP_ELEMENTS", 1000)
    slabbed = [large(compiled.name, **variant) for variant in VARIANTS]
    for result, same in zip(slabbed, expected, strict=True):
        known = np.frombuffer(same[0], np.float32)
        np.testing.assert_allclose(result.coef, known, rtol=1e-4, atol=1e-6)


# ---- gradient ------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [None, [0], [3, 3, 22, 0], list(range(5, 20))], ids=str)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_gradient_of_rows(rows, weight, backend):
    chosen = list(range(N)) if rows is None else rows
    start = np.append(COEF, 0.5)
    step = textbook(SIGN, "log_loss", steps=[chosen], start=start, weight=weight)
    loss, coef, intercept = schuss.gradient(
        X, SIGN, COEF, 0.5, "log_loss", rows=rows, sample_weight=weight, backend=backend
    )
    assert loss == pytest.approx(step.loss / len(chosen), rel=1e-12)
    np.testing.assert_allclose(
        np.append(coef, intercept), (start - step.theta) / 0.1, rtol=1e-9, atol=1e-12
    )
    assert coef.dtype == np.float64 and isinstance(loss, float) and isinstance(intercept, float)


def test_the_interpreter_may_end_while_a_thread_trains():
    code = """
        import threading, time
        import numpy as np, schuss

        X = np.random.default_rng(0).normal(size=(100000, 50))
        options = {"batch_size": 1, "epochs": 10000, "learning_rate": 1e-6}
        train = lambda: schuss.fit(X, X[:, 0], **options)
        threading.Thread(target=train, daemon=True).start()
        time.sleep(1)
        print("ended")
    """
    assert run_python(code) == "ended"

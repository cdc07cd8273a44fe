"""Calls of the estimators that end early, fail, meet in threads, or go on otherwise than before."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.8")
import sklearn.linear_model as theirs
from scipy import sparse
from sklearn.base import clone
from support import backend_or_skip

import schuss.sklearn as ours
from schuss.backends.compiled import CompiledBackend
from schuss.backends.reference import ReferenceBackend
from schuss.sklearn.plain import SHORT

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(160, 7))
OUTPUTS = X @ RNG.normal(size=(7, 3)) + 0.1 * RNG.normal(size=(160, 3))
SCORES = OUTPUTS[:, 0]
CLASSES = OUTPUTS.argmax(axis=1)
ROWS = {"dense": np.asarray, "csr": sparse.csr_array}

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def press(moment=None) -> None:
    os.kill(os.getpid(), signal.SIGINT)


# ------------------------------------------------------------------------------------ interrupts

WAYS = {
    "plain steps": (ours.SGDRegressor(), SCORES),
    "the mean": (ours.SGDRegressor(average=50), SCORES),
    "classic steps": (ours.SGDRegressor(penalty="l1"), SCORES),
    "batches": (ours.SGDRegressor(batch_size=8, rule="adam", average=9), SCORES),
    "outputs": (ours.SGDRegressor(batch_size=8), OUTPUTS),
    "two classes": (ours.SGDClassifier(), SCORES > 0),
    "classes": (ours.SGDClassifier(average=True), CLASSES),
    "multinomial": (ours.SGDClassifier("log_loss", multi_class="multinomial"), CLASSES),
    "one class": (ours.SGDOneClassSVM(), None),
}


@posix
@pytest.mark.parametrize(("model", "y"), WAYS.values(), ids=list(WAYS))
def test_ctrl_c_leaves_what_was_trained(model, y):
    def press_in_epoch_2(moment):
        if moment.epoch == 2:
            press()

    model = clone(model).set_params(random_state=0, tol=None, max_iter=2)
    two = clone(model).fit(X, y)
    model.set_params(max_iter=1000, callbacks=press_in_epoch_2)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    np.testing.assert_array_equal(model.coef_, two.coef_)
    assert (model.n_iter_, model.t_, len(model.history_)) == (2, two.t_, 2)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    for each in (model.set_params(callbacks=()), two):
        each.partial_fit(X, y)
    np.testing.assert_array_equal(model.coef_, two.coef_)
    assert list(model.history_.epoch) == [1, 2, 3] and not hasattr(model, "_asked")


MIDDLE = {
    "plain steps": ({}, "descend"),
    "classic steps": ({"penalty": "l1"}, "descend_classic"),
    "batches": ({"batch_size": 2, "average": True}, "descend"),
}


@posix
@pytest.mark.parametrize(("options", "verb"), MIDDLE.values(), ids=list(MIDDLE))
def test_ctrl_c_in_the_middle_of_an_epoch(options, verb, monkeypatch):
    """Segments of steps that may be large end at once, and have not been; others end first."""
    A = RNG.normal(size=(5000, 2))
    y = A @ [1.0, 2.0]
    options = {**options, "shuffle": False, "max_iter": 1, "backend": "reference"}
    part = ours.SGDRegressor(**options).fit(A[:4000], y[:4000])
    calls, run = [], getattr(ReferenceBackend, verb)

    def pressed(self, *given):
        calls.append(given)
        if len(calls) == 2:
            press()
        return run(self, *given)

    model = ours.SGDRegressor(**options)
    monkeypatch.setattr(ReferenceBackend, verb, pressed)
    with pytest.raises(KeyboardInterrupt):
        model.fit(A, y)
    assert (len(calls), model.n_iter_, model.t_, len(model.history_)) == (2, 0, part.t_, 0)
    np.testing.assert_array_equal(model.coef_, part.coef_)


@posix
def test_ctrl_c_ends_a_part_that_is_long(monkeypatch):
    backend_or_skip("native")
    A = RNG.normal(size=(SHORT + 1, 1))
    model = ours.SGDRegressor(backend="native").partial_fit(A[:10], A[:10, 0])
    run = CompiledBackend.descend

    def pressed(self, *given):
        press()
        return run(self, *given)

    monkeypatch.setattr(CompiledBackend, "descend", pressed)
    with pytest.raises(KeyboardInterrupt):
        model.partial_fit(A, A[:, 0])
    assert 11 < model.t_ < SHORT and model.n_iter_ == 0


@posix
def test_ctrl_c_before_the_first_update_leaves_the_model_as_it_was(monkeypatch):
    model = ours.SGDRegressor(batch_size=8, backend="reference").fit(X, SCORES)
    before = vars(model).copy()
    monkeypatch.setattr(ReferenceBackend, "descend", lambda *given: press())
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, SCORES)
    assert vars(model) == before


def quiet_after(calls: list) -> bool:
    """Whether nothing is added any more; threads get a second to see that they are to end."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        known = len(calls)
        time.sleep(1)
        if len(calls) == known:
            return True
    return False


@posix
@pytest.mark.parametrize("options", [{}, {"batch_size": 8}], ids=["classic", "batches"])
def test_ctrl_c_ends_classes_that_train_side_by_side(options):
    calls = []

    def press_once(moment):
        calls.append(moment.epoch)
        if len(calls) == 20:
            press()

    model = ours.SGDClassifier(n_jobs=2, max_iter=10**7, tol=None, callbacks=press_once, **options)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, CLASSES)
    assert quiet_after(calls)
    assert (
        model.coef_.any() and model.n_iter_ == max(calls) and model.history_.epoch[-1] == max(calls)
    )


def test_an_error_of_one_class_ends_the_others():
    calls = []

    def fail_once(moment):
        calls.append(moment.epoch)
        if len(calls) == 20:
            raise ZeroDivisionError

    model = ours.SGDClassifier(n_jobs=2, max_iter=10**7, tol=None, callbacks=fail_once)
    with pytest.raises(ZeroDivisionError):
        model.fit(X, CLASSES)
    assert quiet_after(calls) and not hasattr(model, "coef_")


@posix
def test_a_callback_that_is_interrupted():
    def interrupt(moment):
        raise KeyboardInterrupt

    model = ours.SGDRegressor(callbacks=interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, SCORES)
    assert model.n_iter_ == 1 and model.coef_.any()


# -------------------------------------------------------------------------------------- failures


def test_a_fit_that_fails_leaves_the_model_as_it_was():
    model, other = (room.SGDClassifier(random_state=0).fit(X, CLASSES) for room in (ours, theirs))
    coef, history = model.coef_.copy(), model.history_
    for each in (model, other):
        with pytest.raises(ValueError, match="under-/overflow"):
            each.set_params(learning_rate="constant", eta0=1e300).fit(X[:, :3] * 1e30, SCORES > 0)
    assert other.n_features_in_ == 3
    np.testing.assert_array_equal(model.coef_, coef)
    assert model.n_features_in_ == 7 and list(model.classes_) == [0, 1, 2]
    assert model.history_ is history and model.score(X, CLASSES) > 0.8


@pytest.mark.parametrize("options", [{}, {"batch_size": 8, "rule": "adam"}, {"average": True}])
def test_threads_that_fit_the_same_model(options):
    """It is what one of them has made."""
    data = [
        (X[:, :width], CLASSES % classes) for width, classes in ((3, 2), (4, 3), (5, 2), (7, 3))
    ]
    model = ours.SGDClassifier(random_state=0, max_iter=3, tol=None, **options)
    alone = [clone(model).fit(*each) for each in data]
    barrier, errors, seen = threading.Barrier(len(data)), [], set()

    def fit_often(A, y):
        try:
            for _ in range(10):
                barrier.wait()
                model.fit(A, y)
                if barrier.wait() == 0:
                    assert any(same(model, one) for one in alone)
                    seen.add(model.n_features_in_)
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=fit_often, args=each) for each in data]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and seen


def same(a, b) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("coef_", "intercept_", "classes_", "n_features_in_", "t_")
    )


# ---------------------------------------------------------------------------------- going on


def iterates(model, A, y, classes=None) -> list[np.ndarray]:
    """Coefficients and intercept after each row."""
    made = []
    more = {} if classes is None else {"classes": classes}
    for i in range(A.shape[0]):
        model.partial_fit(A[i : i + 1], y[i : i + 1], **more)
        made.append(np.column_stack([np.atleast_2d(model.coef_), model.intercept_]))
    return made


def parameters(model) -> np.ndarray:
    return np.column_stack([np.atleast_2d(model.coef_), model.intercept_])


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}], ids=["rows", "batches"])
@pytest.mark.parametrize("y", [SCORES, CLASSES, SCORES > 0], ids=["targets", "classes", "two"])
def test_a_mean_that_is_asked_for_later(y, options, kind):
    """Begins then; scikit-learn raises an AttributeError."""
    name = "SGDRegressor" if y is SCORES else "SGDClassifier"
    fixed = {"shuffle": False, "learning_rate": "constant", **options}
    model, plain = (getattr(ours, name)(**fixed) for _ in range(2))
    rows, classes = ROWS[kind](X), None if y is SCORES else np.unique(y)
    more = {} if classes is None else {"classes": classes}
    for each in (model, plain):
        each.partial_fit(rows[:80], y[:80], **more)
    if options == {}:
        other = getattr(theirs, name)(**fixed).partial_fit(rows[:80], y[:80], **more)
        with pytest.raises(AttributeError, match="_standard_coef"):
            other.set_params(average=True).partial_fit(rows[80:], y[80:])
    model.set_params(average=True).partial_fit(rows[80:120], y[80:120])
    path = iterates(plain, rows[80:120], y[80:120])
    np.testing.assert_allclose(parameters(model), np.mean(path, axis=0), rtol=1e-9)
    model.partial_fit(rows[120:], y[120:])
    path += iterates(plain, rows[120:], y[120:])
    np.testing.assert_allclose(parameters(model), np.mean(path, axis=0), rtol=1e-9)
    start = parameters(model)
    model.set_params(average=False).partial_fit(rows[:40], y[:40])
    assert not hasattr(model, "_standard_coef") and (parameters(model) != start).any()
    before = model.coef_.copy()
    model.set_params(average=True, eta0=1e-12).partial_fit(rows[:1], y[:1])
    np.testing.assert_allclose(model.coef_, before, rtol=1e-6)


def test_a_warm_start_begins_the_mean_anew():
    """scikit-learn's regressor adds the mean of the fit before to it, over the number of rows."""
    options = {"shuffle": False, "learning_rate": "constant", "max_iter": 1, "tol": None}
    warm = {"average": True, "warm_start": True, **options}
    made, other = (room.SGDRegressor(**warm).fit(X, SCORES) for room in (ours, theirs))
    first, path = made.coef_, ours.SGDRegressor(**options)
    iterates(path, X, SCORES)  # those of the first fit
    mean = np.mean(iterates(path, X, SCORES), axis=0)[0, :-1]
    np.testing.assert_allclose(made.fit(X, SCORES).coef_, mean, rtol=1e-9)
    np.testing.assert_allclose(other.fit(X, SCORES).coef_, mean + first / 160, rtol=1e-9)
    begun = ours.SGDRegressor(**options).fit(X, SCORES).set_params(average=True, warm_start=True)
    np.testing.assert_allclose(begun.fit(X, SCORES).coef_, mean, rtol=1e-9)
    for name, y in (
        ("SGDClassifier", CLASSES),
        ("SGDClassifier", SCORES > 0),
        ("SGDOneClassSVM", None),
    ):
        others = [getattr(room, name)(**warm).fit(X, y).fit(X, y).coef_ for room in (ours, theirs)]
        np.testing.assert_allclose(*others, rtol=1e-9)


PASSIVE = {"loss": "epsilon_insensitive", "learning_rate": "pa1", "penalty": None, "tol": None}


@pytest.mark.parametrize("kind", ROWS)
def test_the_mean_of_passive_steps(kind):
    """Begins at the row of that number; rows of zeros make no step, and no part of the mean."""
    A = X.copy()
    A[::3] = 0
    fixed = {"shuffle": False, "max_iter": 1, **PASSIVE}
    path = iterates(ours.SGDRegressor(**fixed), ROWS[kind](A), SCORES)
    mean = np.mean([path[i] for i in range(19, 160) if i % 3], axis=0)
    whole = ours.SGDRegressor(average=20, **fixed).fit(ROWS[kind](A), SCORES)
    np.testing.assert_allclose(parameters(whole), mean, rtol=1e-9)
    other = theirs.SGDRegressor(average=20, **fixed).fit(ROWS[kind](A), SCORES)
    later = np.mean([path[i] for i in range(29, 160) if i % 3], axis=0)
    np.testing.assert_allclose(other.coef_, later[0, :-1], rtol=1e-9)
    parts = ours.SGDRegressor(average=20, **fixed)
    for start in range(0, 160, 40):
        parts.partial_fit(ROWS[kind](A[start : start + 40]), SCORES[start : start + 40])
    np.testing.assert_allclose(parameters(parts), mean, rtol=1e-9)
    nothing = ours.SGDRegressor(average=True, **fixed).fit(X, SCORES)
    before = parameters(nothing)
    nothing.partial_fit(ROWS[kind](np.zeros_like(X)), SCORES)
    np.testing.assert_allclose(parameters(nothing), before, rtol=1e-12)


@pytest.mark.parametrize("name", ["SGDRegressor", "SGDClassifier", "SGDOneClassSVM"])
@pytest.mark.parametrize("options", [{}, {"average": True}, {"warm_start": True}])
def test_a_sparsified_model_goes_on(name, options):
    """scikit-learn's raises a TypeError, or an AttributeError, until densify is called."""
    y = {"SGDRegressor": SCORES, "SGDClassifier": CLASSES, "SGDOneClassSVM": None}[name]
    dense, thin = (getattr(ours, name)(random_state=0, **options).fit(X, y) for _ in range(2))
    assert sparse.issparse(thin.sparsify().coef_)
    again = "fit" if "warm_start" in options else "partial_fit"
    for model in (dense, thin):
        getattr(model, again)(X, y)
    assert thin.coef_.shape == dense.coef_.shape
    np.testing.assert_array_equal(thin.coef_, dense.coef_)
    other = getattr(theirs, name)(random_state=0, **options).fit(X, y).sparsify()
    if "average" not in options:
        with pytest.raises((TypeError, ValueError, AttributeError)):
            getattr(other, again)(X, y)


@pytest.mark.parametrize("y", [SCORES, CLASSES], ids=["targets", "classes"])
@pytest.mark.parametrize("options", [{}, {"batch_size": 8}])
def test_callbacks_and_histories_go_on_from_part_to_part(y, options):
    moments = []
    kind = ours.SGDRegressor if y is SCORES else ours.SGDClassifier
    model = kind(callbacks=moments.append, **options)
    more = {} if y is SCORES else {"classes": np.unique(y)}
    kept = []
    for part in range(3):
        model.partial_fit(X, y, **more)
        kept.append(model.history_)
        told = moments[-1 if y is SCORES else -3 :]
        assert {moment.epoch for moment in told} == {part + 1}
        assert {moment.history.epoch[-1] for moment in told} == {part + 1}
        assert {moment.history.samples[-1] for moment in told} == {160 * (part + 1)}
    assert [list(history.epoch) for history in kept] == [[1], [1, 2], [1, 2, 3]]
    assert [list(moment.history.epoch)[-1] for moment in moments][:: 1 if y is SCORES else 3] == [
        1,
        2,
        3,
    ]
    assert list(model.history_.samples) == [160, 320, 480]
    assert (np.diff(model.history_.seconds) > 0).all()
    model.set_params(callbacks=()).partial_fit(X, y)
    assert len(kept[-1]) == 3 and len(model.history_) == 4

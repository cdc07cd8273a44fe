"""What fit returns: predictions, scores, storage, several classes."""

from __future__ import annotations

import copy
import os
import pickle

import numpy as np
import pytest

import schuss
from schuss.data import container
from schuss.errors import DataError, InvalidArgument

RNG = np.random.default_rng(4)
X = RNG.normal(size=(200, 4))
MARGIN = X @ [1.0, -2.0, 0.5, 0.0] + 0.3
Y = MARGIN + 0.1 * RNG.normal(size=200)
LABELS = np.where(MARGIN > 0, "up", "down")


def fit(y=Y, **arguments) -> schuss.Result:
    return schuss.fit(X, y, **({"epochs": 20} | arguments))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.npz"


def same(a: schuss.Result, b: schuss.Result) -> None:
    """Every bit and every word of two results."""
    assert a.coef.tobytes() == b.coef.tobytes()
    assert a.coef.dtype == b.coef.dtype and a.coef.shape == b.coef.shape
    assert np.asarray(a.intercept).tobytes() == np.asarray(b.intercept).tobytes()
    assert (a.classes is None) == (b.classes is None)
    if a.classes is not None:
        assert a.classes.tolist() == b.classes.tolist()
    assert a.loss == b.loss and type(a.loss) is type(b.loss)
    assert repr(a.history.to_dict()) == repr(b.history.to_dict())
    for name in ("stop_reason", "backend", "config", "preprocessing", "n_features"):
        assert getattr(a, name) == getattr(b, name), name


# ---- Predictions and scores ----------------------------------------------------------------


def test_margin_is_x_times_coef_plus_intercept(dtype):
    result = fit(dtype=dtype)
    margin = result.margin(X)
    assert margin.dtype == dtype and margin.shape == (200,)
    expected = X.astype(dtype) @ result.coef + dtype.type(result.intercept)
    np.testing.assert_allclose(margin, expected, rtol=1e-6)
    assert np.array_equal(result.predict(X), margin)  # of a regression


def test_predict_gives_labels():
    result = fit(LABELS, loss="log_loss")
    assert result.classes.tolist() == ["down", "up"]
    margin = result.margin(X)
    assert np.array_equal(result.predict(X), np.where(margin > 0, "up", "down"))
    assert result.predict(X[:1]).shape == (1,)


@pytest.mark.parametrize("labels", [[-1, 1], [3, 7], [False, True], [0.5, 2.5]])
def test_predict_gives_labels_in_their_own_type(labels):
    y = np.array(labels)[(MARGIN > 0).astype(int)]
    result = fit(y, loss="hinge")
    assert result.predict(X).dtype == y.dtype
    assert result.score(X, y) > 0.9


def test_predict_of_poisson_is_the_expected_count():
    counts = RNG.poisson(np.exp(MARGIN / 2)).astype(float)
    result = fit(counts, loss="poisson", epochs=50)
    np.testing.assert_allclose(result.predict(X), np.exp(result.margin(X)), rtol=1e-12)
    assert result.predict(X).mean() == pytest.approx(counts.mean(), rel=0.1)
    assert result.score(X, counts) > 0.3


def test_score_of_a_regression_is_r2():
    metrics = pytest.importorskip("sklearn.metrics")
    for result in (fit(), fit(epochs=1, learning_rate=1e-4)):
        expected = metrics.r2_score(Y, result.predict(X))
        assert result.score(X, Y) == pytest.approx(expected, rel=1e-12)
    assert fit().score(X, Y) > 0.98


def test_score_of_constant_targets():
    still = fit(np.full(200, 2.0), epochs=1)
    assert still.score(X, np.full(200, 2.0)) == 0.0
    zero = fit(np.zeros(200), epochs=1)
    assert zero.score(X, np.zeros(200)) == 1.0


def test_score_of_a_classifier_is_the_accuracy():
    metrics = pytest.importorskip("sklearn.metrics")
    result = fit(LABELS, loss="log_loss", epochs=2)
    flipped = LABELS.copy()
    flipped[:40] = "up"
    assert result.score(X, flipped) == metrics.accuracy_score(flipped, result.predict(X)) < 1


def test_bad_input():
    result = fit(epochs=1)
    for call, message in [
        (lambda: result.predict(X[:, :3]), "X: has 3 columns, the model was trained on 4"),
        (lambda: result.predict(X[0]), "X: expected two dimensions"),
        (lambda: result.margin(X * np.nan), r"X\[0, 0\] is nan"),
        (lambda: result.score(X, Y[:5]), r"y: has shape \(5,\) but X has 200 rows"),
        (lambda: result.score(X, LABELS), "y: dtype <U4 is not accepted"),
        (lambda: result.score(X, Y * np.nan), r"y\[0\] is nan"),
        (
            lambda: fit(LABELS, loss="log_loss", epochs=1).score(X, ["left"] * 200),
            r"y: label 'left' is not among the classes \['down', 'up'\]",
        ),
    ]:
        with pytest.raises(DataError, match=message):
            call()


def test_repr_copies_and_pickles():
    result = fit(LABELS, loss="log_loss", epochs=1)
    text = repr(result)
    assert text.startswith("Result(log_loss, 4 features, 2 classes, backend=")
    assert "stop_reason='epochs'" in text and "1 rows" in text
    for again in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        same(again, result)
    assert result == result and result != copy.deepcopy(result)


# ---- Storage -------------------------------------------------------------------------------

STORED = [
    {},
    {"dtype": "float32", "loss": "huber(epsilon=0.5)", "validation": 0.2},
    {"y": LABELS, "loss": "log_loss"},
    {"y": LABELS.astype(object), "loss": "hinge"},
    {"y": MARGIN > 0, "loss": "squared_hinge"},
    {"y": np.where(MARGIN > 0, np.datetime64("2020"), np.datetime64("2021")), "loss": "hinge"},
    {"y": np.where(MARGIN > 0, "größer", "kleiner"), "loss": "perceptron", "average": True},
    {"fit_intercept": False, "rule": "adam(betas=(0.8, 0.99))", "evaluate": "both", "tol": 0.1},
    {"learning_rate": schuss.schedules.warmup(0.0, 5, then=0.01), "order": "blocks"},
]


@pytest.mark.parametrize("arguments", STORED, ids=range(len(STORED)))
def test_save_and_load_give_the_same_bits(arguments, path):
    result = fit(**{"epochs": 3} | arguments)
    result.save(path)
    again = schuss.load(path)
    same(again, result)
    assert np.array_equal(again.predict(X), result.predict(X))
    assert isinstance(again.intercept, float)
    before = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == before


def test_a_model_warm_starts_from_a_file(path):
    fit(epochs=2, learning_rate=0.01).save(path)
    again = fit(init=schuss.load(path), epochs=2, learning_rate=0.01)
    direct = fit(init=fit(epochs=2, learning_rate=0.01), epochs=2, learning_rate=0.01)
    assert again.coef.tobytes() == direct.coef.tobytes()


def test_no_pickle_is_needed(path):
    fit(LABELS.astype(object), loss="log_loss", epochs=1).save(path)
    with np.load(path, allow_pickle=False) as archive:
        assert archive["classes"].tolist() == ["down", "up"]
        assert archive["coef"].shape == (4,)


def test_a_flipped_bit_is_seen(path):
    fit(epochs=1).save(path)
    good = path.read_bytes()
    coef = good.index(fit(epochs=1).coef.tobytes())
    path.write_bytes(good[:coef] + bytes([good[coef] ^ 1]) + good[coef + 1 :])
    with pytest.raises(DataError, match="damaged"):
        schuss.load(path)
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match="was not written by schuss, or is damaged"):
        schuss.load(path)


def test_what_is_no_model_is_refused(path, tmp_path):
    with pytest.raises(DataError, match=r"model '.*' does not exist"):
        schuss.load(path)
    container.write(path, "checkpoint", {"theta": np.zeros(3)}, {})
    with pytest.raises(DataError, match="is a 'checkpoint' file, not a model"):
        schuss.load(path)
    with pytest.raises(DataError, match="is a folder"):
        schuss.load(tmp_path)


def test_a_failed_save_leaves_the_old_model(path, monkeypatch):
    first, second = fit(epochs=1), fit(epochs=2)
    first.save(path)

    def fail(*arguments, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(OSError, match="No space left"):
        second.save(path)
    monkeypatch.undo()
    same(schuss.load(path), first)
    assert os.listdir(path.parent) == ["model.npz"]


def test_paths_that_cannot_be_written(tmp_path):
    result = fit(epochs=1)
    (tmp_path / "folder.npz").mkdir()
    for path, error, message in [
        (tmp_path / "folder.npz", DataError, "is a folder"),
        (tmp_path / "no" / "model.npz", DataError, "does not exist"),
        (tmp_path / "model.zip", InvalidArgument, r"must end in \.npz"),
    ]:
        with pytest.raises(error, match=f"^path=.*{message}"):
            result.save(path)
    assert os.listdir(tmp_path) == ["folder.npz"]


def test_a_loss_of_the_users_own_cannot_be_stored(path):
    mine = schuss.losses.custom(
        lambda m, y: (m - y) ** 2, lambda m, y: 2 * (m - y), name="mine", curvature=2.0
    )
    result = fit(loss=mine, backend="reference", epochs=1)
    assert result.loss is mine and result.score(X, Y) > 0
    with pytest.raises(InvalidArgument, match="loss='mine' is a function of yours"):
        result.save(path)
    assert not path.exists()


def test_labels_that_need_pickle_cannot_be_stored(path):
    y = np.empty(200, object)
    y[:] = [(1,) if m > 0 else (2,) for m in MARGIN]
    result = fit(y, loss="log_loss", epochs=1)
    with pytest.raises(InvalidArgument, match="classes: labels of type tuple cannot be stored"):
        result.save(path)


def test_preprocessing_that_is_no_json_cannot_be_stored(path):
    result = fit(epochs=1)
    result.preprocessing = {"scaler": object()}
    with pytest.raises(InvalidArgument, match="preprocessing: cannot be stored as JSON"):
        result.save(path)
    assert not path.exists()


# ---- Several classes -----------------------------------------------------------------------


def one_against_rest() -> tuple[schuss.Result, np.ndarray]:
    centres = np.array([[3, 0, 0, 0], [-3, 1, 0, 0], [0, 3, 3, 0], [0, -3, 0, 3]])
    member = np.arange(200) % 4
    names = np.array(["a", "b", "c", "d"])
    points = X + centres[member]
    y = names[member]
    results = [
        schuss.fit(points, y == name, loss="log_loss", epochs=20, dtype="float32") for name in names
    ]
    return schuss.Result.one_against_rest(results, names), points


def test_one_against_rest(path):
    result, points = one_against_rest()
    y = np.array(["a", "b", "c", "d"])[np.arange(200) % 4]
    assert result.coef.shape == (4, 4) and result.intercept.shape == (4,)
    assert result.coef.dtype == result.intercept.dtype == np.float32
    margins = result.margin(points)
    assert margins.shape == (200, 4)
    assert np.array_equal(result.predict(points), result.classes[margins.argmax(axis=1)])
    assert result.score(points, y) > 0.95
    result.save(path)
    same(schuss.load(path), result)
    assert "4 features, 4 classes" in repr(result)


def test_one_against_rest_wants_results_that_fit_together():
    result = fit(LABELS, loss="log_loss", epochs=1)
    other = schuss.fit(X[:, :2], LABELS, loss="log_loss", epochs=1)
    for results, classes, message in [
        ([result], ["a", "b"], "2 classes for 1 results"),
        ([], [], "0 classes for 0 results"),
        ([result, other], ["a", "b"], r"different numbers of features, \[2, 4\]"),
    ]:
        with pytest.raises(InvalidArgument, match=message):
            schuss.Result.one_against_rest(results, classes)


def test_a_result_of_several_classes_is_no_start_for_one():
    result, points = one_against_rest()
    with pytest.raises(DataError, match=r"init: coef: has shape \(4, 4\)"):
        schuss.fit(points, LABELS, loss="log_loss", init=result)

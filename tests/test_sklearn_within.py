"""The estimators of schuss.sklearn within scikit-learn's tools, ONNX and skops."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import schuss

pytest.importorskip("sklearn", minversion="1.8")
import joblib
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingRegressor
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.linear_model import SGDClassifier as Theirs
from sklearn.model_selection import (
    GridSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
)
from sklearn.multiclass import OneVsOneClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import schuss.sklearn as ours
from schuss.backends.threads import usable_threads

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(240, 6))
OUTPUTS = X @ RNG.normal(size=(6, 3)) + 0.1 * RNG.normal(size=(240, 3))
SCORES = OUTPUTS[:, 0]
CLASSES = np.array(["a", "b", "c"])[OUTPUTS.argmax(axis=1)]
MODELS = {
    "regressor": (ours.SGDRegressor(random_state=0), SCORES),
    "batches": (ours.SGDRegressor(batch_size=8, rule="adam", random_state=0), SCORES),
    "outputs": (ours.SGDRegressor(batch_size=8, random_state=0), OUTPUTS),
    "binary": (ours.SGDClassifier("log_loss", random_state=0), SCORES > 0),
    "classes": (ours.SGDClassifier("log_loss", random_state=0), CLASSES),
    "multinomial": (
        ours.SGDClassifier("log_loss", multi_class="multinomial", batch_size=8, random_state=0),
        CLASSES,
    ),
}
ALL = pytest.mark.parametrize(("model", "y"), MODELS.values(), ids=list(MODELS))

# ---------------------------------------------------------------------------- scikit-learn's tools


@ALL
def test_in_a_pipeline_that_is_searched(model, y):
    pipeline = make_pipeline(StandardScaler(), clone(model))
    name = type(model).__name__.lower()
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.8
    grid = {f"{name}__alpha": [1e-4, 1e-2], f"{name}__batch_size": [1, 16]}
    found = [GridSearchCV(pipeline, grid, cv=3, n_jobs=jobs).fit(X, y) for jobs in (None, 2)]
    for search in found:
        assert search.best_score_ > 0.8
    np.testing.assert_array_equal(found[0].predict(X), found[1].predict(X))


@ALL
def test_copies(model, y):
    fitted = clone(model).fit(X, y)
    for same in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        np.testing.assert_array_equal(same.predict(X), fitted.predict(X))
        assert same.get_params() == fitted.get_params()
        assert same.history_.to_dict() == fitted.history_.to_dict() or model.early_stopping is False
        np.testing.assert_array_equal(
            same.partial_fit(X, y).coef_, copy.deepcopy(fitted).partial_fit(X, y).coef_
        )
    assert clone(fitted).get_params() == model.get_params()
    assert not hasattr(clone(fitted), "coef_")


def test_where_classifiers_are_put():
    model, y = ours.SGDClassifier("log_loss", random_state=0), CLASSES
    calibrated = CalibratedClassifierCV(ours.SGDClassifier(random_state=0), cv=3).fit(X, y)
    assert calibrated.predict_proba(X).shape == (240, 3)
    bags = [BaggingClassifier(model, 4, random_state=0, n_jobs=n).fit(X, y) for n in (1, 2)]
    np.testing.assert_allclose(bags[0].predict_proba(X), bags[1].predict_proba(X), rtol=1e-12)
    stack = StackingClassifier([("one", model), ("two", Theirs(random_state=0))], cv=3)
    pairs = OneVsOneClassifier(model)
    for made in (calibrated, bags[0], stack.fit(X, y), pairs.fit(X, y)):
        assert made.score(X, y) > 0.8
    assert cross_val_predict(model, X, y, method="predict_proba").shape == (240, 3)
    assert SelectFromModel(model).fit(X, y).transform(X).shape[1] < 6
    assert RFE(model, n_features_to_select=2).fit(X, y).support_.sum() == 2


def test_where_regressors_are_put():
    model = ours.SGDRegressor(batch_size=8, random_state=0)
    votes = VotingRegressor([("one", model), ("two", ours.SGDRegressor(random_state=0))])
    turned = TransformedTargetRegressor(model, func=np.negative, inverse_func=np.negative)
    for made in (votes, turned):
        assert made.fit(X, SCORES).score(X, SCORES) > 0.8
    each, joint = MultiOutputRegressor(model).fit(X, OUTPUTS), clone(model).fit(X, OUTPUTS)
    assert each.score(X, OUTPUTS) == pytest.approx(joint.score(X, OUTPUTS), abs=0.02)
    _, train, _ = learning_curve(model, X, SCORES, train_sizes=[0.3, 1.0], cv=3)
    assert train.mean() > 0.8


def test_frames_stay_frames_around_the_model():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": SCORES, "kind": CLASSES})
    text = OneHotEncoder(sparse_output=False)
    columns = ColumnTransformer([("number", StandardScaler(), ["x"]), ("text", text, ["kind"])])
    model = make_pipeline(columns, ours.SGDRegressor(random_state=0)).set_output(transform="pandas")
    model.fit(frame, SCORES)
    names = ["number__x", "text__kind_a", "text__kind_b", "text__kind_c"]
    assert list(model[-1].feature_names_in_) == names and model.score(frame, SCORES) > 0.9
    early = ours.SGDRegressor(early_stopping=True, batch_size=8).fit(frame[["x"]], SCORES)
    with pytest.raises(ValueError, match="feature names"):
        early.predict(frame[["x"]].rename(columns={"x": "z"}))


def test_weights_find_their_way():
    weight = RNG.uniform(size=240)
    with sklearn.config_context(enable_metadata_routing=True):
        model = ours.SGDRegressor(batch_size=8, random_state=0).set_fit_request(sample_weight=True)
        model.set_score_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, model)
        pipeline.fit(X, SCORES, sample_weight=weight)
        plain = make_pipeline(StandardScaler(), clone(model)).fit(X, SCORES)
        assert (pipeline[-1].coef_ != plain[-1].coef_).any()
        scores = cross_validate(model, X, SCORES, params={"sample_weight": weight}, cv=3)
        assert scores["test_score"].mean() > 0.8


def test_workers_share_the_processors():
    """joblib tells its workers how many threads are theirs, and the kernels keep to it."""
    jobs = 2
    each = joblib.Parallel(n_jobs=jobs)(joblib.delayed(usable_threads)(None) for _ in range(4))
    assert max(each) * jobs <= max(jobs, joblib.cpu_count())
    models = [ours.SGDRegressor(batch_size=64, random_state=seed) for seed in range(4)]
    together, one_by_one = (
        joblib.Parallel(n_jobs=n)(joblib.delayed(clone(m).fit)(X, SCORES) for m in models)
        for n in (jobs, 1)
    )
    for a, b in zip(together, one_by_one, strict=True):
        np.testing.assert_array_equal(a.coef_, b.coef_)


# ----------------------------------------------------------------------------------- ONNX and skops


@ALL
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_onnx_graph_predicts_the_same(model, y, dtype):
    skl2onnx = pytest.importorskip("skl2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    ours.register_onnx()
    rows = X.astype(dtype)
    pipeline = make_pipeline(StandardScaler(), clone(model)).fit(rows, y)
    classifies = hasattr(pipeline, "classes_")
    options = {id(pipeline): {"zipmap": False}} if classifies else None
    graph = skl2onnx.to_onnx(pipeline, rows[:1], options=options).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    made = session.run(None, {session.get_inputs()[0].name: rows})
    if classifies:
        np.testing.assert_array_equal(made[0], pipeline.predict(rows))
        np.testing.assert_allclose(made[1], pipeline.predict_proba(rows), atol=1e-5)
    else:
        expected = pipeline.predict(rows)
        np.testing.assert_allclose(made[0].reshape(expected.shape), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_onnx_graph_of_one_class_predicts_the_same(dtype):
    skl2onnx = pytest.importorskip("skl2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    ours.register_onnx()
    rows = X.astype(dtype)
    pipeline = make_pipeline(StandardScaler(), ours.SGDOneClassSVM(random_state=0)).fit(rows)
    graph = skl2onnx.to_onnx(pipeline, rows[:1]).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    labels, scores = session.run(None, {session.get_inputs()[0].name: rows})
    np.testing.assert_array_equal(labels, pipeline.predict(rows))
    np.testing.assert_allclose(scores, pipeline.decision_function(rows), rtol=1e-4, atol=1e-5)
    assert set(labels) == {-1, 1}


def test_onnx_that_is_not_there(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skl2onnx", None)
    with pytest.raises(schuss.errors.MissingPackage, match="pip install skl2onnx"):
        ours.register_onnx()


@ALL
def test_skops_keeps_a_model(model, y):
    skops = pytest.importorskip("skops.io")
    fitted = make_pipeline(StandardScaler(), clone(model)).fit(X, y)
    stored = skops.dumps(fitted)
    strangers = skops.get_untrusted_types(data=stored)
    assert all(name.startswith("schuss.") for name in strangers)
    loaded = skops.loads(stored, trusted=strangers)
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))
    assert loaded[-1].history_.to_dict().keys() == fitted[-1].history_.to_dict().keys()
    np.testing.assert_array_equal(
        loaded[-1].partial_fit(X, y).coef_, fitted[-1].partial_fit(X, y).coef_
    )

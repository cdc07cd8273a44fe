"""What the estimators of schuss.sklearn take, record and tell, beyond the training itself."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import schuss

pytest.importorskip("sklearn", minversion="1.8")
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import SGDClassifier as Theirs
from sklearn.preprocessing import StandardScaler

import schuss.sklearn as ours

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(160, 7))
OUTPUTS = X @ RNG.normal(size=(7, 3)) + 0.1 * RNG.normal(size=(160, 3))
SCORES = OUTPUTS[:, 0]
LABELS = SCORES > 0
CLASSES = OUTPUTS.argmax(axis=1)

# ------------------------------------------------------------------------------------- history

WAYS = [
    (ours.SGDRegressor(), SCORES),
    (ours.SGDRegressor(batch_size=8), OUTPUTS),
    (ours.SGDClassifier("log_loss"), LABELS),
    (ours.SGDClassifier("log_loss"), CLASSES),
    (ours.SGDClassifier("log_loss", batch_size=8), CLASSES),
    (ours.SGDClassifier("log_loss", multi_class="multinomial"), CLASSES),
]


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize(("model", "y"), WAYS)
def test_each_epoch_is_a_row_of_the_history(model, y, early_stopping):
    model = clone(model).set_params(early_stopping=early_stopping, random_state=0).fit(X, y)
    history, rows = model.history_, 144 if early_stopping else 160
    assert len(history) == model.n_iter_ and list(history.epoch) == list(range(1, len(history) + 1))
    assert history.updates[-1] == model.t_ - 1
    assert list(history.samples) == [rows * epoch for epoch in history.epoch]
    assert history.train_loss[-1] < history.train_loss[0]
    assert np.isfinite(history.validation_score).all() == early_stopping
    assert (np.diff(history.learning_rate) <= 0).all() and (np.diff(history.seconds) > 0).all()
    assert (history.samples_per_second > 0).all()
    assert model.fit(X, y).history_.epoch[0] == 1


def test_the_training_loss_is_the_mean_over_the_rows():
    steps = {"learning_rate": "constant", "eta0": 1e-12, "max_iter": 1}
    for model in (ours.SGDRegressor(**steps), ours.SGDRegressor(**steps, batch_size=8)):
        assert model.fit(X, SCORES).history_.train_loss[0] == pytest.approx((SCORES**2).mean() / 2)


def test_the_history_of_classes_is_their_mean():
    model = ours.SGDClassifier("log_loss", random_state=0, n_iter_no_change=1).fit(X, CLASSES)
    alone = [
        ours.SGDClassifier("log_loss", random_state=0, n_iter_no_change=1)
        .fit(X, k == CLASSES)
        .history_
        for k in range(3)
    ]
    assert len(model.history_) == max(map(len, alone))
    first = np.mean([one.train_loss[0] for one in alone])
    last = np.mean([one.train_loss[-1] for one in alone])
    assert model.history_.train_loss[0] == pytest.approx(first)
    assert model.history_.train_loss[-1] == pytest.approx(last)


def test_the_history_of_a_stream_stays_short(monkeypatch):
    monkeypatch.setattr("schuss.sklearn.journal.MOST_ROWS", 20)
    for y in (SCORES, LABELS, CLASSES):
        model = (ours.SGDRegressor if y is SCORES else ours.SGDClassifier)()
        for _ in range(50):
            model.partial_fit(X, y, **({} if y is SCORES else {"classes": np.unique(y)}))
            assert model.history_.epoch[-1] == (model.t_ - 1) / 160 and len(model.history_) <= 20
        assert model.history_.samples[-1] == 50 * 160 and (np.diff(model.history_.epoch) > 0).all()


@pytest.mark.parametrize(("model", "y"), WAYS)
def test_each_epoch_is_printed_where_that_is_asked_for(model, y, capsys):
    model = clone(model).set_params(max_iter=2, tol=None)
    assert model.fit(X, y) and capsys.readouterr().out == ""
    apart = y is CLASSES and model.multi_class == "ovr"
    model.set_params(verbose=1).fit(X, y)
    told = capsys.readouterr().out
    assert told.count("-- Epoch 2\nNorm: ") == (3 if apart else 1)
    assert f"T: {int(model.t_) - 1}, Avg. loss: " in told


def test_the_history_draws_itself():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    model = ours.SGDClassifier("log_loss", early_stopping=True, random_state=0).fit(X, LABELS)
    axes = model.history_.plot(smooth=2)
    assert axes.get_ylabel() == "mean loss" and axes.get_xlabel() == "epochs"
    assert [text.get_text() for text in axes.get_legend().texts] == ["training", "validation"]
    assert [other.get_ylabel() for other in axes.figure.axes] == ["mean loss", "validation score"]
    pyplot.close(axes.figure)


# ----------------------------------------------------------------------------------- callbacks


@pytest.mark.parametrize(("model", "y"), WAYS)
def test_callbacks_see_each_epoch_and_stop_it(model, y):
    seen = []

    def watch(moment):
        seen.append(moment)
        return moment.epoch == 3

    model = clone(model).set_params(callbacks=watch).fit(X, y)
    apart = isinstance(model, ours.SGDClassifier) and model.coef_.shape[0] > len(seen[0].coef)
    assert model.n_iter_ == 3 and max(moment.epoch for moment in seen) == 3
    assert len(seen) == (9 if y is CLASSES and seen[0].coef.ndim == 1 else 3), apart
    last = seen[-1]
    assert isinstance(last, schuss.plan.Moment) and last.updates == model.t_ - 1
    np.testing.assert_array_equal(np.atleast_2d(last.coef)[-1], np.atleast_2d(model.coef_)[-1])


def test_callbacks_see_the_mean_of_the_iterates():
    seen = []
    model = ours.SGDRegressor(average=True, max_iter=3, tol=None, callbacks=[seen.append])
    model.fit(X, SCORES)
    np.testing.assert_array_equal(seen[-1].coef, model.coef_)


def test_callbacks_that_cannot_be_called():
    with pytest.raises(TypeError, match="callbacks: 3 is not callable"):
        ours.SGDRegressor(callbacks=[3]).fit(X, SCORES)
    with pytest.raises(ValueError, match="The 'callbacks' parameter of SGDRegressor must be"):
        ours.SGDRegressor(callbacks=3).fit(X, SCORES)


class Log:
    """Follows scikit-learn's protocol of callbacks."""

    def __init__(self, stop_at=None):
        self.events, self.stop_at = [], stop_at

    def setup(self, estimator, context):
        self.events.append(("setup", context.task_name))

    def teardown(self, estimator, context):
        self.events.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator, context):
        self.events.append(("begin", context.task_name))

    def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator):
        score = None if fitted_estimator is None else fitted_estimator.score(X, y)
        self.events.append(("end", context.task_name, score))
        return context.task_name == "epoch" and context.task_id + 1 == self.stop_at


@pytest.mark.parametrize(("model", "y"), WAYS)
def test_callbacks_of_scikit_learn(model, y):
    pytest.importorskip("sklearn.callback")
    log = Log(stop_at=3)
    model = clone(model).set_params(n_iter_no_change=10).set_callbacks(log).fit(X, y)
    assert model.n_iter_ == 3
    apart = y is CLASSES and model.multi_class == "ovr"
    epochs = 9 if apart else 3
    names = [event[:2] for event in log.events]
    assert names.count(("begin", "epoch")) == names.count(("end", "epoch")) == epochs
    assert names.count(("end", "class")) == names.count(("begin", "class")) == (3 if apart else 0)
    assert names[:2] == [("setup", "fit"), ("begin", "fit")]
    assert names[-2:] == [("end", "fit"), ("teardown", "fit")]
    scores = [event[2] for event in log.events if event[:2] == ("end", "epoch")]
    if not apart:
        assert scores[-1] == pytest.approx(model.score(X, y))
    assert log.events[-2][2] == pytest.approx(model.score(X, y))
    assert not hasattr(model, "_watch")


def test_the_callbacks_that_scikit_learn_brings():
    callback = pytest.importorskip("sklearn.callback")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    monitor = callback.ScoringMonitor(scoring="accuracy")
    model = ours.SGDClassifier("log_loss", random_state=0, max_iter=4, tol=None)
    model.set_callbacks(monitor).fit(X, LABELS)
    scores = [row["accuracy"] for row in monitor.get_logs().data]
    assert len(scores) == 5 and scores[-1] == model.score(X, LABELS)
    pytest.importorskip("rich")
    pipeline = make_pipeline(StandardScaler(), ours.SGDRegressor(max_iter=3, tol=None))
    before = threading.active_count()
    pipeline.set_callbacks(callback.ProgressBar(max_propagation_depth=None)).fit(X, SCORES)
    deadline = time.monotonic() + 10
    while threading.active_count() > before + 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before + 1


# -------------------------------------------------------------------------------------- inputs


class OnlyDLPack:
    """Offers nothing but the protocol."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **given):
        return self.array.__dlpack__(**given)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def as_torch(array):
    return pytest.importorskip("torch").from_numpy(array)


def as_pandas(array):
    names = [f"column {k}" for k in range(array.shape[1])] if array.ndim == 2 else None
    pandas = pytest.importorskip("pandas")
    return pandas.Series(array) if names is None else pandas.DataFrame(array, columns=names)


def as_polars(array):
    polars = pytest.importorskip("polars")
    if array.ndim == 1:
        return polars.Series(array)
    return polars.DataFrame(array, schema=[f"column {k}" for k in range(array.shape[1])])


@pytest.mark.parametrize("kind", [OnlyDLPack, as_torch, as_pandas, as_polars])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_arrays_of_other_libraries(kind, batch_size):
    # scikit-learn reads the columns of polars as float64.
    dtype = np.dtype("f8" if kind is as_polars else "f4")
    rows, y = X.astype(dtype), SCORES.astype(dtype)
    model = ours.SGDRegressor(batch_size=batch_size, random_state=0, early_stopping=True)
    plain, other = clone(model).fit(rows, y), clone(model).fit(kind(rows), kind(y))
    np.testing.assert_array_equal(other.coef_, plain.coef_)
    np.testing.assert_allclose(other.predict(kind(rows)), plain.predict(rows), rtol=1e-5)
    assert other.coef_.dtype == dtype
    other.partial_fit(kind(rows), kind(y))
    frame = kind in (as_pandas, as_polars)
    if frame and hasattr(StandardScaler().fit(kind(rows)), "feature_names_in_"):
        assert list(other.feature_names_in_) == [f"column {k}" for k in range(7)]
    labels = CLASSES.astype("i8")
    made = ours.SGDClassifier("log_loss", random_state=0).fit(kind(rows), kind(labels))
    assert made.predict_proba(kind(rows)).shape == (160, 3)


@pytest.mark.parametrize("name", ["csr", "csc", "coo"])
def test_sparse_rows_with_indices_of_64_bits(name):
    rows = sparse.random_array((160, 30), density=0.2, format=name, rng=0)
    wide = rows.copy()
    if name == "coo":
        wide.coords = tuple(index.astype("i8") for index in wide.coords)
    else:
        wide.indices, wide.indptr = wide.indices.astype("i8"), wide.indptr.astype("i8")
    made = [ours.SGDClassifier(random_state=0).fit(each, LABELS) for each in (rows, wide)]
    np.testing.assert_array_equal(made[0].coef_, made[1].coef_)
    np.testing.assert_array_equal(made[0].predict(rows), made[1].predict(wide))
    if name != "coo":
        assert wide.indices.dtype == np.int64


def test_what_is_no_table_of_numbers():
    model = ours.SGDRegressor()
    with pytest.raises(TypeError, match="X: masked arrays are not accepted"):
        model.fit(np.ma.masked_array(X, X > 2), SCORES)
    with pytest.raises(TypeError, match="y: masked arrays are not accepted"):
        model.partial_fit(X, np.ma.masked_array(SCORES))
    days = np.arange(160 * 7).reshape(160, 7).astype("M8[D]")
    with pytest.raises(TypeError, match=r"X: dtype datetime64\[D\] is not accepted; turn dates"):
        model.fit(days, SCORES)
    with pytest.raises(TypeError, match="X: dtype timedelta64"):
        model.fit(days - days[0], SCORES)
    with pytest.raises(TypeError, match="y: dtype datetime64"):
        model.fit(X, days[:, 0])
    labels = np.where(LABELS, days[0, 0], days[1, 0])  # classes may be days
    assert ours.SGDClassifier().fit(X, labels).predict(X).dtype == labels.dtype
    fitted = ours.SGDRegressor().fit(X, SCORES)
    for array in (days, np.ma.masked_array(X)):
        with pytest.raises(TypeError, match="X: "):
            fitted.predict(array)
        with pytest.raises(TypeError, match="X: "):
            ours.SGDClassifier().fit(X, LABELS).decision_function(array)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_of_dates(library):
    frame = pytest.importorskip(library).DataFrame(
        {"a": SCORES, "day": np.arange(160).astype("M8[D]").astype("M8[ms]")}
    )
    with pytest.raises(TypeError, match=r"X: dtype .*is not accepted; turn dates"):
        ours.SGDRegressor().fit(frame, SCORES)


def broken(what):
    rows = sparse.csr_array(X)
    if what == "column index":
        rows.indices[3] = 1000
    elif what == "beyond":
        rows.indptr[-1] += 1000
    else:
        rows.indptr[2] = rows.indptr[1] - 3
    return rows


@pytest.mark.parametrize("what", ["column index", "beyond", "do not decrease"])
@pytest.mark.parametrize("parameters", [{}, {"penalty": "l1"}, {"batch_size": 8}])
def test_broken_sparse_rows(what, parameters):
    """On which scikit-learn's loop reads beyond the arrays."""
    model = ours.SGDRegressor(**parameters)
    with pytest.raises(ValueError, match=f"X.*{what}"):
        model.fit(broken(what), SCORES)
    with pytest.raises(ValueError, match=f"X.*{what}"):
        model.partial_fit(broken(what), SCORES)
    with pytest.raises(ValueError, match=f"X.*{what}"):
        model.fit(X, SCORES).predict(broken(what))


# --------------------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize("parameters", [{}, {"batch_size": 8}, {"penalty": "l1"}, {"average": 9}])
@pytest.mark.parametrize("y", [SCORES, LABELS, CLASSES, OUTPUTS], ids=["r", "b", "k", "o"])
def test_a_model_that_goes_on_keeps_its_dtype(parameters, y):
    kind = ours.SGDRegressor if y.dtype == np.float64 else ours.SGDClassifier
    if y is OUTPUTS and parameters == {"penalty": "l1"}:
        parameters = {}
    for first, second in (("f4", "f8"), ("f8", "f4")):
        model = kind(random_state=0, **parameters)
        classes = {} if kind is ours.SGDRegressor else {"classes": np.unique(y)}
        model.partial_fit(X[:80].astype(first), y[:80], **classes)
        model.partial_fit(X[80:].astype(second), y[80:])
        assert model.coef_.dtype == np.dtype(first)
        warm = kind(random_state=0, warm_start=True, **parameters)
        assert warm.fit(X.astype(first), y).fit(X.astype(second), y).score(X, y) > 0.5


@pytest.mark.parametrize("parameters", [{}, {"batch_size": 8}, {"penalty": "l1"}])
def test_the_dtype_that_is_asked_for(parameters):
    for y, kind in ((SCORES, ours.SGDRegressor), (CLASSES, ours.SGDClassifier)):
        for dtype, given in (("float32", "f8"), ("float64", "f4")):
            model = kind(dtype=dtype, **parameters).fit(X.astype(given), y)
            assert model.coef_.dtype == np.dtype(dtype)
            assert model.score(X, y) > 0.5
    with pytest.raises(ValueError, match="The 'dtype' parameter of SGDRegressor must be"):
        ours.SGDRegressor(dtype="float16").fit(X, SCORES)


@pytest.mark.parametrize("parameters", [{}, {"batch_size": 8}, {"penalty": "l1"}])
def test_the_start_is_only_read(parameters):
    start, intercept = np.ones(7), np.ones(1)
    ours.SGDRegressor(**parameters).fit(X, SCORES, coef_init=start, intercept_init=intercept)
    ours.SGDClassifier(**parameters).fit(X, LABELS, coef_init=start, intercept_init=intercept)
    many, intercepts = np.ones((3, 7)), np.ones(3)
    ours.SGDClassifier(**parameters).fit(X, CLASSES, coef_init=many, intercept_init=intercepts)
    for array in (start, intercept, many, intercepts):
        assert (array == 1).all()


# ----------------------------------------------------------------------------------- near names


def test_the_nearest_name_is_suggested():
    with pytest.raises(TypeError, match="SGDClassifier has no parameter 'learningrate'; did you m"):
        ours.SGDClassifier(learningrate=1)
    with pytest.raises(TypeError, match="SGDRegressor has no parameter 'xyzzy'; accepted: loss, "):
        ours.SGDRegressor(xyzzy=1)
    for name, value, near in (
        ("loss", "log_los", "log_loss"),
        ("penalty", "elasticnets", "elasticnet"),
        ("learning_rate", "optimum", "optimal"),
        ("multi_class", "multinomal", "multinomial"),
    ):
        message = f"The '{name}' parameter of SGDClassifier must be .* Did you mean '{near}'?"
        with pytest.raises(ValueError, match=message):
            ours.SGDClassifier(**{name: value}).fit(X, LABELS)
    with pytest.raises(ValueError, match=r"Got 'nothing like it' instead\.$"):
        ours.SGDClassifier(loss="nothing like it").fit(X, LABELS)
    with pytest.raises(ValueError, match="The 'alpha' parameter of SGDClassifier must be"):
        ours.SGDClassifier(alpha=-1).fit(X, LABELS)


def test_what_becomes_of_new_options_in_scikit_learn():
    model = ours.SGDClassifier("log_loss", batch_size=8, random_state=0).fit(X, CLASSES)
    theirs = ours.to_sklearn(model)
    assert type(theirs) is Theirs and not hasattr(theirs, "history_")
    np.testing.assert_array_equal(theirs.predict(X), model.predict(X))
    for model, y in WAYS[1], WAYS[-1]:
        with pytest.raises(ValueError, match="model: scikit-learn's classes have no multinomial"):
            ours.to_sklearn(clone(model).fit(X, y))


# ------------------------------------------------------------------------------------- notebook


def test_a_notebook_shows_what_the_training_came_to():
    model = ours.SGDClassifier("log_loss", early_stopping=True, random_state=0)
    assert "trained by" not in model._repr_html_()
    shown = model.fit(X, LABELS)._repr_html_()
    last = model.history_.last
    assert f"trained by <b>{model.backend_}</b> · {model.n_iter_} epochs" in shown
    assert f"loss {last['train_loss']:.4g} · validation score" in shown
    assert shown.count("<polyline") == 1 and "<polyline" in model._repr_mimebundle_()["text/html"]
    assert "1 epoch ·" in ours.SGDRegressor(batch_size=8).partial_fit(X, SCORES)._repr_html_()


# ---------------------------------------------------------------------------------------- page


def test_each_difference_on_the_page_names_a_test():
    page = Path(__file__).parents[1] / "docs" / "sklearn.rst"
    text = page.read_text(encoding="utf-8")
    listed = text.split("Where results differ\n")[1].split("\n\n", 2)[2]
    listed = listed.split("\n\nscikit-learn's own tests\n")[0]
    entries = re.split(r"^(?=\S)", listed, flags=re.M)[1:]
    sources = "".join(p.read_text(encoding="utf-8") for p in page.parents[1].glob("tests/test_sk*"))
    for entry in entries:
        names = re.findall(r"``(test_\w+)``", entry)
        assert any(f"def {name}(" in sources for name in names), entry


# ------------------------------------------------------------------------------------- repairs


def test_a_training_that_begins_anew_is_told_once():
    rows = X.copy()
    rows[80] *= 1e8  # whose slopes are cut off
    options = {"max_iter": 5, "tol": None, "eta0": 1e-6, "learning_rate": "constant"}
    seen = []
    model = ours.SGDRegressor(**options, shuffle=False, callbacks=[seen.append])
    model.partial_fit(X, SCORES)
    model = model.set_params(warm_start=True).fit(rows, SCORES)
    assert [moment.epoch for moment in seen] == [1, 1, 2, 3, 4, 5]
    assert list(model.history_.epoch) == [1, 2, 3, 4, 5]
    callback = pytest.importorskip("sklearn.callback")
    watched = ours.SGDRegressor(**options, shuffle=False)
    watched.set_callbacks(callback.ScoringMonitor(scoring="r2")).fit(rows, SCORES)
    alone = ours.SGDRegressor(**options, shuffle=False).fit(rows, SCORES)
    np.testing.assert_array_equal(watched.coef_, alone.coef_)


def test_short_cuts_of_parts_are_left_where_they_would_differ():
    options = {"shuffle": False, "learning_rate": "constant", "random_state": 0}
    made = []
    for weights in (None, np.ones(160)):
        model = ours.SGDRegressor(early_stopping=True, **options).fit(X, SCORES)
        before = model.t_
        model.partial_fit(X, SCORES, sample_weight=weights)
        made.append((model.t_ - before, *model.coef_))
    np.testing.assert_allclose(made[0], made[1], rtol=1e-12)
    narrow = X.astype(np.float32)
    model = ours.SGDRegressor(**options).partial_fit(narrow, SCORES)
    model.set_params(dtype="float64").partial_fit(narrow, SCORES)
    assert model.coef_.dtype == np.float64
    made = []
    for weights in (None, np.ones(160)):
        model = ours.SGDRegressor(rule="sgd(momentum=0.9)", batch_size=32, **options)
        model.partial_fit(X, SCORES)
        model.set_params(rule="sgd", batch_size=1).partial_fit(X, SCORES, sample_weight=weights)
        model.set_params(rule="sgd(momentum=0.9)", batch_size=32).partial_fit(X, SCORES)
        made.append(model.coef_)
    np.testing.assert_allclose(made[0], made[1], rtol=1e-12)
    with pytest.raises(ValueError, match=r"learning_rate='constnt'.*did you mean 'constant'"):
        ours.SGDRegressor(**options).partial_fit(X, SCORES).set_params(
            learning_rate="constnt"
        ).partial_fit(X, SCORES)


def test_seconds_of_classes_trained_together_are_those_of_the_pass():
    def slow(moment):
        time.sleep(0.02)

    began = time.perf_counter()
    model = ours.SGDClassifier(max_iter=2, tol=None, callbacks=slow).fit(X, CLASSES)
    assert model.history_.seconds[-1] < time.perf_counter() - began - 6 * 0.02


def test_targets_beyond_the_dtype():
    with pytest.raises(ValueError, match="beyond float32"):
        ours.SGDRegressor(dtype="float32").fit(X, SCORES * 1e300)


def test_one_class_reads_what_the_others_read():
    model = ours.SGDOneClassSVM(random_state=0).fit(X)
    rows = sparse.csr_matrix(X)
    rows.indptr = rows.indptr.copy()
    rows.indptr[3] = 5 * 10**8
    for broken in (rows, np.ma.masked_array(X, X > 1)):
        with pytest.raises((ValueError, TypeError)):
            model.predict(broken)
        with pytest.raises((ValueError, TypeError)):
            ours.SGDOneClassSVM().fit(broken)
    wide = sparse.csr_matrix(X)
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    np.testing.assert_allclose(ours.SGDOneClassSVM(random_state=0).fit(wide).n_features_in_, 7)
    narrow = ours.SGDOneClassSVM().partial_fit(X.astype(np.float32)).partial_fit(X)
    assert narrow.coef_.dtype == np.float32 and list(narrow.history_.epoch) == [1, 2]
    with pytest.raises(TypeError, match="did you mean 'learning_rate'"):
        ours.SGDOneClassSVM(learningrate="constant")


# ----------------------------------------------------------------------------------- one class


def test_one_class_tells_callbacks_of_its_epochs():
    seen = []

    def watch(moment):
        seen.append(moment)
        return moment.epoch == 3

    model = ours.SGDOneClassSVM(callbacks=watch, random_state=0, tol=None).fit(X)
    assert model.n_iter_ == 3 and [moment.epoch for moment in seen] == [1, 2, 3]
    np.testing.assert_array_equal(seen[-1].coef, model.coef_)
    assert 1 - seen[-1].intercept == model.offset_[0]
    with pytest.raises(TypeError, match="callbacks: 3 is not callable"):
        ours.SGDOneClassSVM(callbacks=[3]).fit(X)


def test_one_class_tells_scikit_learn_s_callbacks():
    pytest.importorskip("sklearn.callback")
    seen = []

    class Watcher(Log):
        def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator):
            seen.append((context.task_name, fitted_estimator.decision_function(X).mean()))
            return context.task_id == 2

    model = ours.SGDOneClassSVM(tol=None, random_state=0).set_callbacks(Watcher()).fit(X)
    assert [name for name, _ in seen] == ["epoch", "epoch", "epoch", "fit"] and model.n_iter_ == 3
    assert seen[0][1] != seen[2][1] == seen[3][1] == model.decision_function(X).mean()


def test_one_class_has_the_dtype_that_is_asked_for():
    for dtype, given in (("float32", "f8"), ("float64", "f4")):
        model = ours.SGDOneClassSVM(dtype=dtype).fit(X.astype(given))
        assert model.coef_.dtype == model.offset_.dtype == np.dtype(dtype)
    with pytest.raises(ValueError, match="The 'dtype' parameter of SGDOneClassSVM must be"):
        ours.SGDOneClassSVM(dtype="float16").fit(X)


def test_one_class_suggests_the_nearest_name_and_shows_itself():
    with pytest.raises(ValueError, match="Did you mean 'constant'"):
        ours.SGDOneClassSVM(learning_rate="constnt").fit(X)
    model = ours.SGDOneClassSVM().fit(X)
    assert f"trained by <b>{model.backend_}</b>" in model._repr_html_()

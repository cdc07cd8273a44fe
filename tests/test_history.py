"""The history of a run: columns, rows, exchange with pandas, curves."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import schuss
from schuss import History
from schuss.errors import InterruptedWarning, InvalidArgument, MissingPackage
from schuss.history import COLUMNS

X = np.random.default_rng(0).normal(size=(100, 3))
Y = X @ [1.0, 2.0, 3.0] + 1


@pytest.fixture(scope="module")
def history() -> History:
    return schuss.fit(X, Y, batch_size=10, epochs=4, validation=(X, Y)).history


def test_columns_as_items_attributes_and_lists(history):
    assert history.columns == list(COLUMNS) == list(history.to_dict())
    for name in COLUMNS:
        column = history[name]
        assert isinstance(column, np.ndarray) and column.shape == (4,)
        assert np.array_equal(column, getattr(history, name))
        assert history.to_dict()[name] == column.tolist()
    assert history["epoch"].dtype.kind == history["updates"].dtype.kind == "i"
    assert history["train_loss"].dtype == np.float64


def test_rows_and_the_last_row(history):
    rows = list(history)
    assert len(history) == len(rows) == 4
    assert rows[-1] == history.last and list(history.last) == list(COLUMNS)
    assert [row["updates"] for row in rows] == history["updates"].tolist()


def test_unknown_columns(history):
    with pytest.raises(KeyError, match=r"no column 'los'; it has epoch, updates"):
        history["los"]
    with pytest.raises(AttributeError, match="no attribute or column 'los'"):
        _ = history.los
    assert not hasattr(history, "_nothing")


def test_columns_are_copies(history):
    before = history.to_dict()
    history["updates"][:] = -1
    history.to_dict()["updates"].clear()
    history.last["updates"] = -1
    assert history.to_dict() == before


def test_dict_and_back(history):
    again = History.from_dict(history.to_dict())
    assert again.to_dict() == history.to_dict() and again.columns == history.columns
    given = {"a": [1.0, 2.0], "b": [3.0, 4.0]}
    other = History.from_dict(given)
    given["a"].append(5.0)
    assert other.columns == ["a", "b"] and other["a"].tolist() == [1, 2]


def test_copies_and_pickles(history):
    for again in (copy.copy(history), copy.deepcopy(history), pickle.loads(pickle.dumps(history))):
        assert again.to_dict() == history.to_dict()


def test_repr(history):
    assert repr(history).startswith("History(4 rows; last: epoch=4, updates=40, samples=400")
    assert repr(History()) == "History(empty)" and History().last == {} and len(History()) == 0


def test_append_wants_every_column():
    with pytest.raises(KeyError):
        History(("a", "b")).append(a=1.0)


def test_to_pandas(history):
    pandas = pytest.importorskip("pandas")
    frame = history.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(COLUMNS) and len(frame) == 4
    assert np.array_equal(frame["train_loss"], history["train_loss"])


# ---- Curves --------------------------------------------------------------------------------


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def curves(axes) -> dict[str, np.ndarray]:
    return {line.get_label(): np.column_stack(line.get_data()) for line in axes.lines}


def test_plot_draws_both_losses_against_epochs(history, pyplot):
    axes = history.plot()
    found = curves(axes)
    assert list(found) == ["training", "validation"]
    assert found["training"][:, 0].tolist() == [1, 2, 3, 4]
    assert np.array_equal(found["training"][:, 1], history["train_loss"])
    assert np.array_equal(found["validation"][:, 1], history["validation_loss"])
    assert axes.get_xlabel() == "epochs" and axes.get_ylabel() == "mean loss"
    axes.figure.canvas.draw()


def test_plot_on_given_axes(history, pyplot):
    _, axes = pyplot.subplots()
    assert history.plot(ax=axes) is axes


def test_plot_without_validation(pyplot):
    result = schuss.fit(X, Y, epochs=2)
    assert list(curves(result.history.plot())) == ["training"]


def test_plot_of_records_within_epochs_stands_at_fractions_of_them(pyplot):
    result = schuss.fit(X, Y, batch_size=10, epochs=3, record_every=7)
    found = curves(result.history.plot())["training"]
    assert found[:, 0] == pytest.approx([0.7, 1.4, 2.1, 2.8, 3.0])


def test_plot_within_the_first_epoch_counts_updates(pyplot):
    result = schuss.fit(X, Y, batch_size=10, updates=6, record_every=2)
    axes = result.history.plot()
    assert axes.get_xlabel() == "updates"
    assert curves(axes)["training"][:, 0].tolist() == [2, 4, 6]


def test_plot_smooths_by_a_moving_average(history, pyplot):
    loss = history["train_loss"]
    found = curves(history.plot(smooth=3))["training"][:, 1]
    expected = [loss[0], loss[:2].mean(), loss[:3].mean(), loss[1:4].mean()]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("smooth", [0, -1, 1.5, "3", None])
def test_plot_refuses_a_bad_width(smooth, history, pyplot):
    with pytest.raises(InvalidArgument, match=r"smooth=.*integer >= 1"):
        history.plot(smooth=smooth)


def test_plot_of_nothing(pyplot):
    axes = History().plot()
    assert not axes.lines


def test_a_fork_goes_on_by_itself():
    first = History(("epoch", "loss"))
    for epoch in (1, 2):
        first.append(epoch=epoch, loss=0.5)
    one, two = first.fork(), first.fork()
    one.append(epoch=3, loss=0.25)
    two.append(epoch=30, loss=0.0)
    first.append(epoch=4, loss=0.125)
    assert [list(each.epoch) for each in (first, one, two)] == [[1, 2, 4], [1, 2, 3], [1, 2, 30]]
    assert [each.last["loss"] for each in (first, one, two)] == [0.125, 0.25, 0.0]
    assert one.fork().to_dict() == {"epoch": [1, 2, 3], "loss": [0.5, 0.5, 0.25]}
    assert [row["epoch"] for row in one] == [1, 2, 3] and len(one) == 3


def test_plot_of_an_interrupted_run(pyplot):
    """Its last row has no validation loss."""

    def interrupt(moment):
        if moment.epoch == 2:
            raise KeyboardInterrupt

    with pytest.warns(InterruptedWarning):
        result = schuss.fit(X, Y, validation=(X, Y), callbacks=interrupt)
    result.history.plot(smooth=2).figure.canvas.draw()


@pytest.mark.parametrize(("method", "package"), [("to_pandas", "pandas"), ("plot", "matplotlib")])
def test_missing_packages_say_what_to_install(method, package, history, monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage, match=f"{method} needs {package}: pip install") as caught:
        getattr(history, method)()
    assert isinstance(caught.value, ImportError)

"""Models of the command line in Python: they take raw columns, as the data file had them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from click.testing import CliRunner

import schuss
from schuss.cli import cli
from schuss.data import examples
from schuss.errors import DataError, InvalidArgument, UnknownCategoryWarning

TRAIN = "train houses.csv --target price --standardize --impute mean --validation 0.2 -o m.npz -q"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def command(line: str) -> str:
    """What a command writes on standard output."""
    done = CliRunner().invoke(cli, line.split())
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def houses() -> dict[str, list]:
    """Columns of numbers, text, truth values and missing cells, and the file that holds them."""
    rng = np.random.default_rng(0)
    n = 120
    columns: dict[str, list] = {
        "area": rng.uniform(40, 200, n).round(1).tolist(),
        "rooms": rng.integers(1, 7, n).tolist(),
        "town": rng.choice(["Bern", "Chur", "Genf"], n).tolist(),
        "lift": rng.choice([True, False], n).tolist(),
    }
    columns["price"] = [3 * a + 20 * r for a, r in zip(*list(columns.values())[:2], strict=True)]
    columns["area"][3] = None
    columns["town"][5] = None
    lines = [",".join(columns)]
    for row in zip(*columns.values(), strict=True):
        lines.append(",".join("" if cell is None else str(cell).lower() for cell in row))
    text = "\n".join(lines)
    for town in ("Bern", "Chur", "Genf"):
        text = text.replace(town.lower(), town)
    with open("houses.csv", "w", encoding="utf-8") as file:
        file.write(text + "\n")
    return columns


@pytest.fixture
def told(houses) -> np.ndarray:
    """Predictions of the command line."""
    command(TRAIN)
    return np.array(command("predict m.npz houses.csv -q").split()[1:], dtype=float)


@pytest.mark.parametrize("name", ["breast-cancer", "diabetes", "digits"])
def test_a_loaded_model_scores_raw_columns_as_the_command_line_does(name):
    out = command(f"train --example {name} --validation 0 --epochs 5 -o m.npz")
    line = next(
        line for line in map(str.strip, out.splitlines()) if line.startswith(("accuracy", "R²"))
    )
    score = schuss.load("m.npz").score(*examples.load(name))
    assert float(line.split()[1]) == pytest.approx(
        score if line.startswith("R") else 100 * score, abs=0.005
    )


def test_dict_and_data_frames_in_any_order(houses, told):
    pandas = pytest.importorskip("pandas")
    pyarrow = pytest.importorskip("pyarrow")
    model = schuss.load("m.npz")
    frame = pandas.DataFrame(houses)
    turned = frame[["lift", "price", "town", "rooms", "area"]]
    for X in (
        houses,
        frame,
        turned,
        turned.convert_dtypes(),
        frame.astype({"town": "category"}),
        pandas.read_csv("houses.csv"),
        pyarrow.table(houses),
    ):
        np.testing.assert_allclose(model.predict(X), told)
    assert model.score(frame, frame["price"]) == pytest.approx(
        1 - np.sum((told - frame.price) ** 2) / np.sum((frame.price - frame.price.mean()) ** 2)
    )


def test_polars(houses, told):
    polars = pytest.importorskip("polars")
    np.testing.assert_allclose(schuss.load("m.npz").predict(polars.DataFrame(houses)), told)


def test_rows_of_numbers_and_text(houses, told):
    model = schuss.load("m.npz")
    rows = [list(row) for row in zip(*list(houses.values())[:4], strict=True)]
    np.testing.assert_allclose(model.predict(rows), told)
    np.testing.assert_allclose(model.predict(np.array(rows, dtype=object)), told)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"town": None}, ["X lacks the column 'town'"]),
        ({"rooms": ["two"] * 120}, ["row 1 of X, column 'rooms' is 'two'", "numbers"]),
        ({"rooms": [1] * 7}, ["columns differ in length", "'rooms' 7"]),
        ({"town": np.ones(120)}, ["column 'town' holds numbers", "text"]),
        ({"rooms": [*[1] * 119, "x"]}, ["row 120 of X, column 'rooms' is 'x'"]),
        ({"rooms": np.ones((120, 2))}, ["X['rooms']", "one dimension"]),
        ({"rooms": np.array(["2024-01-01"] * 120, "M8[D]")}, ["'rooms' holds", "datetime64"]),
        (
            {"rooms": np.array([*[1] * 119, "x"], dtype=object)},
            ["column 'rooms' holds values of type int and str"],
        ),
        ({"area": [np.inf] * 120}, ["infinite value in row 1 of X"]),
    ],
)
def test_columns_that_do_not_fit(houses, told, change, parts):
    columns = {k: v for k, v in (houses | change).items() if v is not None}
    with pytest.raises(DataError) as caught:
        schuss.load("m.npz").predict(columns)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("X", [np.ones((3, 8)), np.ones((3, 3))])
def test_another_number_of_columns_names_those_expected(told, X):
    with pytest.raises(DataError, match=r"has \d columns.*area, rooms, town, lift.*raw"):
        schuss.load("m.npz").predict(X)


@pytest.mark.parametrize("X", [5.0, [1, 2], np.ones(4), np.ones((0, 4))])
def test_no_table_at_all(told, X):
    with pytest.raises(DataError, match="X: "):
        schuss.load("m.npz").predict(X)


def test_an_unknown_category_is_told(houses, told):
    model = schuss.load("m.npz")
    with pytest.warns(UnknownCategoryWarning, match="'Rome' did not occur in the training rows"):
        model.predict(houses | {"town": ["Rome"] * 120})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(houses)


def test_a_file_without_column_names():
    rng = np.random.default_rng(0)
    X = rng.normal(5, 3, (200, 3))
    y = X @ [1.0, 2.0, 3.0]
    np.savez("d.npz", X=X, y=y)
    command("train d.npz --standardize --epochs 50 -o m.npz -q")
    assert schuss.load("m.npz").score(X, y) > 0.99


def test_without_preprocessing_X_is_the_matrix():
    X = np.random.default_rng(0).normal(size=(100, 2))
    result = schuss.fit(X, X[:, 0])
    result.save("m.npz")
    assert np.array_equal(schuss.load("m.npz").predict(X), result.predict(X))


def test_one_against_rest_keeps_the_preprocessing(told):
    model = schuss.load("m.npz")
    both = schuss.Result.one_against_rest([model, model], [0, 1])
    assert both.preprocessing == model.preprocessing
    plain = schuss.fit(np.eye(model.n_features), np.ones(model.n_features))
    with pytest.raises(InvalidArgument, match="different preprocessing"):
        schuss.Result.one_against_rest([model, plain], [0, 1])


def test_the_name_of_a_model_file_ends_in_npz():
    result = schuss.fit(np.eye(3), np.ones(3))
    with pytest.raises(InvalidArgument, match=r"path='model': the file's name must end in .npz"):
        result.save("model")

"""What becomes of the columns of a table, and what is refused."""

from __future__ import annotations

import json
import uuid

import numpy as np
import pytest

from schuss.data import examples, preprocess
from schuss.data.preprocess import Categories, Encoder, Number, split, target_values
from schuss.data.tables import Numbers, Other, Table, Text, read
from schuss.errors import DataError, InvalidArgument


@pytest.fixture
def table(tmp_path):
    """Read a CSV file of this text."""

    def make(content: str, **options) -> Table:
        path = tmp_path / "data.csv"
        path.write_text(content)
        return read(path, **options)

    return make


def column(values, name: str = "c") -> Table:
    """A table of one column beside the target."""
    values = list(values)
    if all(isinstance(value, str) for value in values):
        categories = list(dict.fromkeys(values))
        place = {value: code for code, value in enumerate(categories)}
        made = Text(name, np.array([place[v] for v in values], dtype=np.int32), categories)
    else:
        made = Numbers(name, np.array(values))
    target = Numbers("y", np.linspace(0, 1, len(values)) + 0.5)
    return Table("data.csv", len(values), {name: made, "y": target})


def fit(table: Table, rows=None, **options) -> Encoder:
    rows = np.arange(table.n_rows) if rows is None else np.asarray(rows)
    return Encoder.fit(table, rows, **{"target": "y", **options})


def refused(table: Table, **options) -> str:
    with pytest.raises(DataError) as caught:
        fit(table, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --------------------------------------------------------------------------------------- numbers


def test_numbers_are_kept_as_they_are(table):
    found = table("a,b,y\n1,2.5,0\n3,4.5,1\n")
    matrix = fit(found).encode(found)
    assert matrix.tolist() == [[1, 2.5], [3, 4.5]]
    assert matrix.flags.c_contiguous
    assert fit(found).encode(found, dtype=np.float32).dtype == np.float32


def test_standardizing_uses_the_training_rows_alone():
    rng = np.random.default_rng(0)
    values = rng.normal(50, 7, 10_000)
    found = column(values)
    training = np.arange(0, 10_000, 2)
    encoder = fit(found, training, standardize=True)
    matrix = encoder.encode(found, training)[:, 0]
    assert abs(matrix.mean()) < 1e-12
    assert matrix.std() == pytest.approx(1, rel=1e-12)
    changed = values.copy()
    changed[1::2] = 1e6
    assert fit(column(changed), training, standardize=True) == encoder
    np.testing.assert_array_equal(encoder.encode(found)[training, 0], matrix)


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, 1e9, -3e-9])
def test_a_constant_column_is_not_divided_by_its_spread(value):
    said = []
    found = column([value] * 1000 + [value + 1.0])
    encoder = fit(found, np.arange(1000), standardize=True, say=said.append)
    [feature] = encoder.features
    assert feature.scale == 1
    np.testing.assert_allclose(encoder.encode(found)[:-1], 0, atol=1e-6)
    assert said == ["column has the same value in every training row: 'c'"]


def test_imputing_numbers_with_the_mean_of_the_training_rows(table):
    found = table("a,y\n1,0\n,1\n3,2\nNaN,3\n100,4\n")
    said = []
    encoder = fit(found, [0, 1, 2], impute=True, say=said.append)
    assert encoder.encode(found)[:, 0].tolist() == [1, 2, 3, 2, 100]
    assert said == ["2 missing numbers filled with the mean of their column"]
    standardized = fit(found, [0, 1, 2], impute=True, standardize=True)
    assert standardized.encode(found)[1, 0] == 0
    assert standardized.encode(found, np.arange(3)).std() == pytest.approx(1)


def test_a_later_table_may_miss_values_if_the_training_imputed(table):
    encoder = fit(table("a,b,y\n1,u,0\n3,v,1\n"), impute=True)
    assert encoder.encode(table("a,b\n,\n")).tolist() == [[2, 0, 0]]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a,b,y\n1,2,0\n3,,1\n", ["row 2 (line 3)", "'b'", "--impute mean", "--drop b"]),
        (
            "a,b,y\n1,2,0\n,,1\nNA,1,2\n",
            ["row 2", "'a'", "3 missing values in 2 columns: 'a', 'b'"],
        ),
        ("a,my col,y\n1,x,0\n3,null,1\n4,,1\n", ["'my col'", "2 missing values in this column"]),
        ("a,my col,y\n1,x,0\n3,null,1\n4,,1\n", ["--drop 'my col'"]),
        ("a,b,y\n1,2,0\n3,inf,1\n", ["infinite", "row 2 (line 3)", "'b'"]),
        ("a,b,y\n1,,0\n3,,1\n", ["'b' has no values"]),
    ],
)
def test_missing_and_infinite_values(table, text, parts):
    message = refused(table(text))
    for part in parts:
        assert part in message


def test_infinity_is_refused_with_imputing_too(table):
    assert "infinite" in refused(table("a,y\n1,0\n-inf,1\n"), impute=True)


def test_no_value_among_the_training_rows():
    found = column([1.5, np.nan, np.nan])
    with pytest.raises(DataError, match="no values in the training rows"):
        fit(found, [1, 2], impute=True)


# ------------------------------------------------------------------------------------------ text


def test_one_hot_with_sorted_categories(table):
    found = table("town,a,y\nChur,1,0\nBern,2,1\nChur,3,2\n")
    said = []
    encoder = fit(found, say=said.append)
    assert encoder.names == ["town=Bern", "town=Chur", "a"]
    assert encoder.encode(found).tolist() == [[0, 1, 1], [1, 0, 2], [0, 1, 3]]
    assert encoder.width == 3
    assert said == ["column 'town' holds text: one-hot encoded as 2 columns"]


def test_many_rows_are_filled_block_by_block(monkeypatch):
    rng = np.random.default_rng(1)
    words = rng.choice(["a", "b", "c"], 1000)
    found = column(words.tolist())
    whole = fit(found).encode(found)
    np.testing.assert_array_equal(whole.argmax(1), np.searchsorted(["a", "b", "c"], words))
    assert (whole.sum(1) == 1).all()
    monkeypatch.setattr(preprocess, "_BLOCK_ROWS", 7)
    rows = rng.permutation(1000)[:300]
    np.testing.assert_array_equal(fit(found).encode(found, rows), whole[rows])


def test_unknown_categories_are_told_once_and_count_as_none(table):
    encoder = fit(table("town,y\nChur,0\nBern,1\n"))
    said = []
    matrix = encoder.encode(table("town\nGenf\nBern\nGenf\nZug\n"), say=said.append)
    assert matrix.tolist() == [[0, 0], [1, 0], [0, 0], [0, 0]]
    [message] = said
    assert "'town'" in message
    assert "'Genf'" in message
    assert "1 more value" in message
    assert "3 of 4 rows" in message


def test_missing_text_is_a_category_of_its_own_when_imputing(table):
    found = table("town,y\nChur,0\n,1\nBern,2\n")
    encoder = fit(found, impute=True)
    assert encoder.names == ["town=Bern", "town=Chur", "town is missing"]
    assert encoder.encode(found).tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    said = []
    only_missing = Table("x", 2, {"town": Numbers("town", np.array([np.nan, np.nan]))})
    assert encoder.encode(only_missing, say=said.append).tolist() == [[0, 0, 1]] * 2
    assert said == []


def test_more_than_a_hundred_categories_are_refused():
    words = [f"w{k % 101}" for k in range(1000)]
    message = refused(column(words))
    for part in ("101 distinct values", "--max-categories 101", "--drop c", "'c'"):
        assert part in message
    assert fit(column(words), max_categories=101).width == 101
    assert fit(column([f"w{k % 100}" for k in range(1000)])).width == 100


@pytest.mark.parametrize(
    "values",
    [
        ["2024-01-31", "2024-02-01"],
        ["2024-01-31T13:05:00Z", "2024-02-01T13:05:00.25+01:00"],
        ["2024-01-31 13:05", "2024-02-01 1:05 pm"],
        ["2024/1/31", "2024.02.01"],
        ["31.01.2024", "1.2.24"],
        ["1/31/2024", "02/01/24"],
        ["31 Jan 2024", "1-February-24"],
        ["January 31, 2024", "Feb. 1 2024"],
        ["2024-01", "2024-02"],
        ["13:05", "23:59:59.5"],
    ],
)
def test_dates_are_refused(values):
    message = refused(column(values, "when"))
    assert "holds dates" in message
    assert "--drop when" in message
    assert fit(column(values, "when"), keep=["when"]).width == 2


@pytest.mark.parametrize("values", [["1.2.3.4", "5.6.7.8"], ["mayor", "march on"], ["12", "2 May"]])
def test_words_that_are_no_dates(values):
    assert fit(column(values)).width == 2


def test_whole_numbers_that_are_dates():
    days = [20240101 + day for day in range(28)] + [20231231]
    assert "holds dates (20240101)" in refused(column(days, "day"))
    assert fit(column(days, "day"), keep=["day"]).width == 1
    assert fit(column([20240101, 20240199])).width == 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("c", range(50)),
        ("c", range(1, 51)),
        ("c", np.random.default_rng(0).permutation(50)),
        ("id", [7, 8, 9]),
        ("customer_id", [1017, 99, 23]),
        ("userId", [3, 1, 2]),
        ("id", ["a7", "a8", "a9"]),
        ("uuid", [str(uuid.UUID(int=k)) for k in range(10)]),
        ("c", [f"name {k}" for k in range(150)]),
    ],
)
def test_identifiers_are_refused(name, values):
    message = refused(column(values, name))
    assert "looks like an identifier" in message
    assert f"--drop {name}" in message


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("c", range(5)),
        ("year", range(1990, 2020)),
        ("c", [*range(50), 3]),
        ("id", [1, 1, 2]),
        ("id", [0.5, 1.5, 2.5]),
        ("idle", [3, 1, 2]),
        ("paid", [3, 1, 2]),
        ("c", np.array([True, False])),
        ("c", np.array([255, 0, 3], dtype=np.uint8)),
    ],
)
def test_numbers_that_are_no_identifiers(name, values):
    assert fit(column(values, name)).width == 1


def test_identifiers_can_be_kept():
    assert fit(column(range(50), "id"), keep=["id"]).width == 1
    message = refused(column(range(50), "id"), keep=["ids"])
    assert "did you mean 'id'?" in message


def test_damaged_numbers_are_not_taken_for_categories(table):
    rows = [f"{k % 30},{k}.5" for k in range(300)]
    rows[41] = "?,1"
    rows[50] = "x,1"
    found = table("a,y\n" + "\n".join(rows) + "\n")
    message = refused(found)
    for part in ("'a' holds numbers, but '?' in row 42 (line 43)", "1 more", "--missing '?'"):
        assert part in message
    assert fit(found, keep=["a"]).width == 32


def test_numbers_with_commas(table):
    assert "--decimal ," in refused(table('a,y\n"1,5",0\n"2,25",1\n'))
    assert "'1,234' in row 1 (line 2)), probably as thousands separators" in refused(
        table('a,y\n"1,234",0\n"12,234.5",1\n')
    )
    few = table("a,y\n" + "".join(f"{k}.5,{k % 2}\n" for k in range(900)) + '"1,200",1\n')
    assert "'1,200' in row 901 (line 902)), probably as thousands" in refused(few)


def test_every_refused_column_is_named_at_once(table):
    found = table("id,day,a,y\n1,2024-01-01,1,0\n2,2024-01-02,2,1\n")
    message = refused(found)
    assert message.endswith(
        "Leave them out with --drop id --drop day, or use them with --keep id --keep day."
    )
    message = refused(table("id,day,a,y\n1,x,1,0\n2,x,2,1\n"))
    assert message.endswith("Leave it out with --drop id, or use it with --keep id.")
    many = Table("x", 3, {f"id{k}": Other(f"id{k}", "lists") for k in range(8)})
    assert "and 3 more" in refused(many, target="z")


def test_other_types_are_refused_even_if_kept():
    found = Table("x", 2, {"c": Other("c", "dates or times (date32)"), "y": column([1, 2])})
    assert "holds dates or times (date32)" in refused(found, keep=["c"])


def test_nothing_but_the_target(table):
    assert "no column besides the target 'y'" in refused(table("y\n1\n2\n"))


# --------------------------------------------------------------------------------- later tables


def test_columns_in_any_order_and_further_ones(table):
    found = table("town,a,y\nChur,1,0\nBern,2,1\n")
    encoder = fit(found)
    again = table("new,a,town\n9,1,Chur\n8,2,Bern\n")
    np.testing.assert_array_equal(encoder.encode(again), encoder.encode(found))


def test_absent_columns_are_named(table):
    encoder = fit(table("town,a,b,y\nChur,1,1,0\nBern,2,1,1\n"))
    with pytest.raises(DataError, match="lacks the column 'a' that"):
        encoder.encode(table("town,b\nChur,1\n"))
    with pytest.raises(DataError, match="lacks the columns 'town', 'a' that"):
        encoder.encode(table("b\n1\n"))


def test_columns_of_another_type(table):
    encoder = fit(table("town,a,y\nChur,1,0\nBern,2,1\n"))
    with pytest.raises(DataError, match=r"row 2 \(line 3\) of .*'a' is 'x'; the model was .*numb"):
        encoder.encode(table("town,a\nChur,1\nBern,x\n"))
    with pytest.raises(DataError, match="'town' holds numbers; the model was trained with text"):
        encoder.encode(table("town,a\n1,1\n2,2\n"))
    assert encoder.text_columns == ["town"]
    said = []
    encoder.encode(table("town,a\n1,1\n2,2\n", text=["town"]), say=said.append)
    assert "'1'" in said[0]
    odd = Table("x", 1, {"town": Other("town", "lists"), "a": Numbers("a", np.ones(1))})
    with pytest.raises(DataError, match="'town' holds lists"):
        encoder.encode(odd)


def test_missing_and_infinite_values_in_a_later_table(table):
    encoder = fit(table("town,a,y\nChur,1,0\nBern,2,1\n"))
    with pytest.raises(DataError, match=r"row 2 \(line 3\).*'a'; the model was trained without"):
        encoder.encode(table("town,a\nBern,1\nChur,\n"))
    with pytest.raises(DataError, match=r"row 1 \(line 2\).*'town'"):
        encoder.encode(table("town,a\n,1\nChur,2\n"))
    with pytest.raises(DataError, match=r"infinite value in row 3 \(line 4\)"):
        encoder.encode(table("town,a\nBern,1\nBern,1\nBern,inf\n"), np.array([0, 2]))


def test_arrays_are_matched_by_position(tmp_path):
    def saved(array):
        np.save(tmp_path / "x.npy", array)
        return read(tmp_path / "x.npy")

    whole = np.array([[9.0, 1, 2, 3], [8, 4, 5, 6.5]])
    for target in ("3", "0"):
        features = np.delete(whole, int(target), axis=1)
        encoder = fit(saved(whole), target=target)
        np.testing.assert_array_equal(encoder.encode(saved(whole)), features)
        np.testing.assert_array_equal(encoder.encode(saved(features)), features)
        with pytest.raises(DataError, match="has 5 columns; the model was trained with 3"):
            encoder.encode(saved(np.ones((2, 5))))
    np.save(tmp_path / "x.npy", whole)
    encoder = fit(read(tmp_path / "x.npy", drop=["1"]), target="3")
    for array in (whole, whole[:, :3], whole[:, [0, 2]]):
        np.testing.assert_array_equal(encoder.encode(saved(array)), whole[:, [0, 2]])


def test_archives(tmp_path):
    np.savez(tmp_path / "x.npz", X=np.eye(3) / 2, y=np.arange(3), z=np.ones(3))
    found = read(tmp_path / "x.npz")
    encoder = fit(found, target="y")
    np.testing.assert_array_equal(encoder.encode(found), np.eye(3) / 2)
    np.savez(tmp_path / "later.npz", X=np.ones((2, 3)))
    assert encoder.encode(read(tmp_path / "later.npz")).tolist() == [[1, 1, 1]] * 2


def test_indices_that_do_not_occur_are_zeros(tmp_path):
    pytest.importorskip("sklearn")
    path = tmp_path / "x.svm"
    path.write_text("1 1:0.5 3:2\n2 2:7.5\n")
    encoder = fit(read(path), target="target")
    assert encoder.columns == ["1", "2", "3"]
    path.write_text("1 2:4 9:1\n")
    assert encoder.encode(read(path, columns=encoder.columns)).tolist() == [[0, 4, 0]]


def test_too_large_for_the_memory(monkeypatch):
    found = column(np.arange(10.0) / 3)
    encoder = fit(found)
    monkeypatch.setattr("schuss.data.tables._free_memory", lambda: 90)
    with pytest.raises(DataError, match="--dtype float32"):
        encoder.encode(found)
    assert encoder.encode(found, dtype=np.float32).shape == (10, 1)


# ---------------------------------------------------------------------------------------- stored


def test_json_round_trip(table):
    found = table("town,a,b,y\nChur,1,,x\nBern,2,0.1,y\n,4,0.7,y\n")
    encoder = fit(
        found, [0, 1, 2], standardize=True, impute=True, missing=["?"], decimal=",", target="y"
    )
    again = Encoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert again == encoder
    assert again.text_target
    assert again.text_columns == ["town", "y"]
    np.testing.assert_array_equal(again.encode(found), encoder.encode(found))


@pytest.mark.parametrize(
    "stored",
    [
        None,
        {},
        {"format": 99},
        {"format": 1, "features": [{"kind": "number", "colour": 1}]},
        {"format": 1, "features": []},
    ],
)
def test_foreign_and_damaged_preprocessing(stored):
    with pytest.raises(DataError, match="the model's preprocessing"):
        Encoder.from_dict(stored)


def test_an_encoder_is_a_value():
    assert Number("a") == Number("a", None, 0.0, 1.0)
    assert Categories("a", ("x",)).width == 1
    assert hash(Encoder((Number("a"),))) == hash(Encoder((Number("a"),)))


# --------------------------------------------------------------------------------- target, split


def test_target_values(table):
    found = table("a,t,u,v,w\n1,2,x,,inf\n2,3,y,1,1\n")
    assert target_values(found, "t").tolist() == [2, 3]
    assert target_values(found, "u").tolist() == ["x", "y"]
    with pytest.raises(DataError, match=r"row 1 \(line 2\).*'v'.*target must be there"):
        target_values(found, "v")
    with pytest.raises(DataError, match=r"infinite value in row 1"):
        target_values(found, "w")
    with pytest.raises(DataError, match=r"no target column 'z'\. It has: a, t, u, v, w"):
        target_values(found, "z")
    with pytest.raises(DataError, match="holds lists"):
        target_values(Table("x", 1, {"y": Other("y", "lists")}), "y")


def test_a_target_of_damaged_numbers(table):
    rows = "".join(f"1,{k % 40}\n" for k in range(400))
    with pytest.raises(DataError, match=r"'y' holds numbers, but 'n/k' in row 401 \(line 402\)"):
        target_values(table(f"a,y\n{rows}1,n/k\n"), "y")


def test_split_is_a_seeded_partition():
    training, validation = split(1000, 0.2, seed=3)
    assert len(validation) == 200
    np.testing.assert_array_equal(np.sort(np.r_[training, validation]), np.arange(1000))
    assert (np.diff(training) > 0).all()
    assert (np.diff(validation) > 0).all()
    np.testing.assert_array_equal(split(1000, 0.2, seed=3)[1], validation)
    assert not np.array_equal(split(1000, 0.2, seed=4)[1], validation)
    assert len(split(10, 0.0, seed=0)[1]) == 0


def test_split_keeps_the_shares_of_the_classes():
    classes = np.array(["a"] * 900 + ["b"] * 99 + ["c"])
    training, validation = split(1000, 0.2, seed=0, classes=classes)
    assert np.unique(classes[validation], return_counts=True)[1].tolist() == [180, 20]
    assert "c" in classes[training]
    np.testing.assert_array_equal(np.sort(np.r_[training, validation]), np.arange(1000))


# -------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize("name", list(examples.EXAMPLES))
def test_examples_are_the_tables_they_say_they_are(name):
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = examples.load(name)
    if name == "diabetes":
        original = datasets.load_diabetes(scaled=False)
    else:
        original = getattr(datasets, f"load_{name.replace('-', '_')}")()
    np.testing.assert_array_equal(X, original.data)
    known = original.target_names[original.target] if name == "breast-cancer" else original.target
    np.testing.assert_array_equal(y, known)


def test_an_unknown_example():
    with pytest.raises(InvalidArgument, match="did you mean 'diabetes'"):
        examples.load("diabetis")


def test_examples_state_source_and_licence():
    folder = examples.EXAMPLES["digits"].path.parent
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for example in examples.EXAMPLES.values():
        assert f"## {example.name}" in readme
        assert f"`{example.path.name}` | {len(examples.load(example.name)[1])} |" in readme
    assert readme.count("Licence:") == len(examples.EXAMPLES)
    assert {path.name for path in folder.glob("*.csv.gz")} == {
        example.path.name for example in examples.EXAMPLES.values()
    }

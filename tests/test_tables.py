"""Reading data files, and what damaged ones are answered with."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest

from schuss.data import tables
from schuss.data.tables import Numbers, Other, Text, read
from schuss.errors import DataError, MissingPackage


@pytest.fixture
def write(tmp_path):
    """Write a file and return its path."""

    def write(content: str | bytes, name: str = "data.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def refused(path, **options) -> str:
    """The one-line message with which a file is refused."""
    with pytest.raises(DataError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------------------ CSV


def test_numbers_text_and_missing_values(write):
    table = read(write("a,b,c\n1,x,\n2.5,,3\n-1e3,y,NA\nnan,x,4\n"))
    a, b, c = table.columns.values()
    np.testing.assert_array_equal(a.values, [1, 2.5, -1000, np.nan])
    assert b.categories == ["x", "y"]
    assert b.codes.tolist() == [0, -1, 1, 0]
    assert b.strings().tolist() == ["x", "", "y", "x"]
    np.testing.assert_array_equal(c.values, [np.nan, 3, np.nan, 4])
    assert c.missing.tolist() == [True, False, True, False]
    assert table.lines.tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("token", tables.MISSING)
def test_every_missing_token(write, token):
    table = read(write(f"a,b\n1,x\n {token} ,{token}\n3,y\n"))
    assert table.columns["a"].missing.tolist() == [False, True, False]
    assert table.columns["b"].missing.tolist() == [False, True, False]


def test_further_missing_tokens(write):
    path = write("a,b\n1,x\n?,?\n3,y\n")
    assert isinstance(read(path).columns["a"], Text)
    table = read(path, missing=["?"])
    np.testing.assert_array_equal(table.columns["a"].values, [1, np.nan, 3])
    assert table.columns["b"].codes.tolist() == [0, -1, 1]


@pytest.mark.parametrize("delimiter", list(tables.DELIMITERS))
def test_delimiters(write, delimiter):
    table = read(write("a,b,c\n1,x,2\n3,y,4\n".replace(",", delimiter)))
    assert list(table.columns) == ["a", "b", "c"]
    assert table.columns["c"].values.tolist() == [2, 4]


def test_one_column(write):
    table = read(write("price\n1\n2\n"))
    assert table.columns["price"].values.tolist() == [1, 2]


def test_delimiter_inside_quotes_is_not_counted(write):
    table = read(write('a;b\n"x, y, z";1\n"p, q, r";2\n'))
    assert list(table.columns) == ["a", "b"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_byte_order_mark_quotes_blanks_and_newlines(write, newline):
    text = '\ufeffname, "long, name",n\n"a ""b""", x,1\n\n"two\nlines",y,2\n   \n,z,3\n'
    table = read(write(text.replace("\n", newline).encode()))
    name, long, n = table.columns.values()
    assert (name.name, long.name) == ("name", "long, name")
    assert name.categories == ['a "b"', f"two{newline}lines"]
    assert name.codes.tolist() == [0, 1, -1]
    assert long.categories == ["x", "y", "z"]
    assert n.values.tolist() == [1, 2, 3]
    assert table.lines.tolist() == [2, 4, 7]


def test_names_that_python_would_read_as_numbers_stay_text(write):
    table = read(write("a,b\n1_2,1\n3_4,2\n"))
    assert table.columns["a"].categories == ["1_2", "3_4"]


def test_decimal_comma(write):
    path = write("a;b\n1,5;x\n-2,25;y\n")
    assert isinstance(read(path).columns["a"], Text)
    assert read(path, decimal=",").columns["a"].values.tolist() == [1.5, -2.25]
    assert isinstance(read(write("a;b\n1.234,5;x\n"), decimal=",").columns["a"], Text)


def test_text_on_request(write):
    table = read(write("zip,n\n01234,1\n98765,2\n"), text=["zip"])
    assert table.columns["zip"].categories == ["01234", "98765"]


def test_columns_and_drop(write):
    path = write("a,b,c\n1,2,3\n")
    assert list(read(path, columns=["c", "a", "z"]).columns) == ["a", "c"]
    assert list(read(path, drop=["b", "#3"]).columns) == ["a"]
    assert "no column 'bb' to drop; did you mean 'b'?" in refused(path, drop=["bb"])


def test_a_column_of_numbers_that_turns_into_text_late(write, monkeypatch):
    monkeypatch.setattr(tables, "_CELLS_PER_CHUNK", 6)
    rows = ["a,b,c"] + [f"{k},{k}.0,{k}" for k in range(10)] + ["x,11,y"]
    table = read(write("\n".join(rows) + "\n"))
    assert table.columns["a"].categories == [*map(str, range(10)), "x"]
    assert table.columns["b"].values.tolist() == [*range(10), 11]
    assert table.columns["c"].categories[-1] == "y"


def test_chunks_of_nothing_but_blank_lines(write, monkeypatch):
    monkeypatch.setattr(tables, "_CELLS_PER_CHUNK", 4)
    table = read(write("a,b\n1,2\n" + " \n" * 5 + "3,4\n"))
    assert table.columns["a"].values.tolist() == [1, 3]
    assert table.lines.tolist() == [2, 8]


def test_compressed(write, tmp_path):
    path = write(gzip.compress(b"a,b\n1,2\n"), "data.csv.gz")
    assert read(path).columns["b"].values.tolist() == [2]


def test_numeric_header_of_a_frame_without_names(write):
    assert list(read(write("0,1,2\n5,6,7\n")).columns) == ["0", "1", "2"]


def test_garbage_collection_is_on_again(write):
    import gc

    assert gc.isenabled()
    refused(write("a,b\n1\n"))
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["is empty"]),
        ("\n\n  \n", ["is empty"]),
        ("\ufeff", ["is empty"]),
        (",,\n1,2,3\n", ["is empty", "header"]),
        ("a,b,c\n", ["header line but no rows"]),
        ("a,b,c\n1,2,3\n4,5\n6,7,8\n", ["line 3", "2 fields", "has 3"]),
        ("a,b,c\n1,2,3\n4,5,6,7\n", ["line 3", "4 fields", "has 3"]),
        ('a,b\n"x\ny",1\n2\n', ["line 4", "1 field,"]),
        ("a,b,a\n1,2,3\n", ["line 1", "columns 1 and 3", "'a'", "--drop '#3'"]),
        (",a,b\n0,1,2\n", ["column 1 has no name", "pandas", "--drop '#1'"]),
        ("a,,b\n0,1,2\n", ["column 2 has no name", "--drop '#2'"]),
        ('a,b\n1,2\n3,"x\n4,5\n', ["line 3", "never closed"]),
        ('a,b\n1,"x"y\n', ["line 2", "closing quote"]),
        ("17.99,10.38,122.8\n20.57,17.77,132.9\n", ["line 1 holds numbers", "header"]),
        (b"a,b\n1,caf\xe9\n", ["line 2", "0xe9", "offset 9", "UTF-8", "iconv"]),
        ("a,b\n1,2\n".encode("utf-16"), ["UTF-16", "iconv"]),
        (b"PAR1\0\0\0", ["not a text file", "offset 4"]),
    ],
)
def test_damaged_csv(write, content, parts):
    message = refused(write(content))
    assert "data.csv" in message
    for part in parts:
        assert part in message


def test_unnamed_and_repeated_columns_can_be_dropped_by_position(write):
    path = write(",a,b,a\n0,1,2,3\n")
    table = read(path, drop=["#1", "#4"])
    assert list(table.columns) == ["a", "b"]
    assert table.columns["a"].values.tolist() == [1]
    assert list(read(path, columns=["b"]).columns) == ["b"]


def test_a_field_longer_than_any_field_is_an_open_quote(write):
    message = refused(write('a,b\n1,"' + "x,\n" * 60_000))
    assert "line 2" in message
    assert "never closed" in message


def test_bytes_that_are_not_utf8_far_into_the_file(write):
    content = b"a,b\n" + b"1,x\n" * 100_000 + b"1,\xff\n"
    message = refused(write(content))
    assert "line 100002" in message
    assert f"offset {len(content) - 2}" in message


def test_damaged_compression(write):
    whole = gzip.compress(b"a,b\n" + np.random.default_rng(0).bytes(3000).hex().encode())
    assert "not a gzip file" in refused(write(b"a,b\n1,2\n", "x.csv.gz"))
    assert "damaged" in refused(write(whole[:-200], "x.csv.gz"))
    flipped = bytearray(whole)
    flipped[100] ^= 255
    assert "x.csv.gz" in refused(write(bytes(flipped), "x.csv.gz"))


# ---------------------------------------------------------------------------------------- paths


def test_paths_that_are_no_data_file(write, tmp_path):
    write("a\n1\n", "prices.csv")
    assert "no such file; did you mean" in refused(tmp_path / "price.csv")
    assert "prices.csv" in refused(tmp_path / "price.csv")
    assert refused(tmp_path / "elsewhere" / "data.csv").endswith("no such file")
    assert "accepted" in refused(tmp_path / "data.xlsx").lower()
    assert "accepted" in refused(tmp_path / "data").lower()
    assert "compressed" in refused(tmp_path / "data.npy.gz")
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    assert "is a directory" in refused(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="no permission bits on Windows")
def test_a_file_that_may_not_be_read(write, monkeypatch):
    path = write("a\n1\n")

    def forbidden(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tables, "_open_binary", forbidden)
    assert "cannot be read: Permission denied" in refused(path)


@pytest.mark.parametrize("name", ["x.csv", "x.npy", "x.npz", "x.parquet", "x.svm"])
def test_empty_files(write, name):
    if name == "x.parquet":
        pytest.importorskip("pyarrow")
    if name == "x.svm":
        pytest.importorskip("sklearn")
    assert "is empty" in refused(write(b"", name))


# -------------------------------------------------------------------------------------- Parquet


@pytest.fixture
def parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")

    def write(columns) -> Path:
        path = tmp_path / "data.parquet"
        pq.write_table(pa.table(columns), path)
        return path

    return write


def test_parquet_types(parquet):
    import datetime
    import decimal

    import pyarrow as pa

    table = read(
        parquet(
            {
                "int": pa.array([1, None, 3]),
                "float": pa.array([1.5, np.nan, None], pa.float32()),
                "bool": pa.array([True, False, None]),
                "decimal": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("2.50")]),
                "text": pa.array(["x", None, " y "]),
                "dictionary": pa.array(["x", "y", "x"]).dictionary_encode(),
                "null": pa.nulls(3),
                "date": pa.array([datetime.date(2024, 1, 31)] * 3),
                "list": pa.array([[1], [2], [3]]),
            }
        )
    )
    columns = table.columns
    np.testing.assert_array_equal(columns["int"].values, [1, np.nan, 3])
    np.testing.assert_array_equal(columns["float"].values, [1.5, np.nan, np.nan])
    np.testing.assert_array_equal(columns["bool"].values, [1, 0, np.nan])
    np.testing.assert_array_equal(columns["decimal"].values, [1.25, np.nan, 2.5])
    assert columns["text"].strings().tolist() == ["x", "", "y"]
    assert columns["dictionary"].strings().tolist() == ["x", "y", "x"]
    assert columns["null"].missing.all()
    assert "dates" in columns["date"].description
    assert isinstance(columns["list"], Other)
    assert all(column.values.dtype == np.float64 for column in list(columns.values())[:4])


def test_parquet_columns(parquet):
    path = parquet({"a": [1, 2], "b": [3, 4], "c": ["x", "y"]})
    assert list(read(path, columns=["c"]).columns) == ["c"]
    assert list(read(path, drop=["#1", "c"]).columns) == ["b"]
    assert read(path).lines is None


def test_damaged_parquet(parquet, write):
    pytest.importorskip("pyarrow")
    path = parquet({"a": list(range(1000))})
    whole = path.read_bytes()
    assert "Parquet" in refused(write(whole[:-30], "cut.parquet"))
    assert "Parquet" in refused(write("a,b\n1,2\n", "text.parquet"))
    assert "no rows" in refused(parquet({"a": []}))


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("x.parquet", "pyarrow", "data"), ("x.svm", "sklearn.datasets", "sklearn")],
)
def test_packages_that_are_not_installed(write, monkeypatch, name, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage, match=rf"pip install '\.\[{extra}\]' from a clone"):
        read(write("x", name))


# ------------------------------------------------------------------------------- NumPy's formats


def test_npy(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(6, dtype=np.float32).reshape(2, 3))
    table = read(path)
    assert list(table.columns) == ["0", "1", "2"]
    assert table.target == "2"
    assert table.positional
    assert table.columns["1"].values.tolist() == [1, 4]
    assert list(read(path, drop=["0"]).columns) == ["1", "2"]


def test_npz(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(
        path,
        X=np.arange(6).reshape(3, 2),
        y=np.array(["a", "b", "a"]),
        sample_weight=np.array([[1.0], [2.0], [3.0]]),
        y_test=np.zeros(5),
    )
    table = read(path)
    assert list(table.columns) == ["0", "1", "y", "sample_weight", "y_test"]
    assert (table.target, table.weight) == ("y", "sample_weight")
    assert table.columns["y"].strings().tolist() == ["a", "b", "a"]
    assert table.columns["sample_weight"].values.tolist() == [1, 2, 3]
    assert isinstance(table.columns["y_test"], Other)
    assert isinstance(table.columns["0"], Numbers)


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.zeros(3), "two dimensions"),
        (np.zeros((2, 2), complex), "complex128"),
        (np.zeros((0, 2)), "nothing in it"),
        (np.zeros((2, 0)), "nothing in it"),
        (np.array([["a"]]), "<U1"),
        (np.zeros((2, 2), "datetime64[s]"), "datetime64"),
    ],
)
def test_arrays_that_are_no_matrix(tmp_path, array, part):
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", X=array)
    assert part in refused(tmp_path / "x.npy")
    assert part in refused(tmp_path / "x.npz")


def test_objects_are_never_loaded(tmp_path):
    objects = np.array([[1, None]], dtype=object)
    np.save(tmp_path / "x.npy", objects)
    np.savez(tmp_path / "x.npz", X=objects)
    assert "objects" in refused(tmp_path / "x.npy")
    assert "objects" in refused(tmp_path / "x.npz")


def test_damaged_arrays(tmp_path, write):
    np.save(tmp_path / "x.npy", np.zeros((50, 4)))
    np.savez(tmp_path / "x.npz", X=np.zeros((50, 4)))
    for name in ("x.npy", "x.npz"):
        whole = (tmp_path / name).read_bytes()
        for kept in (4, 90, len(whole) - 20):
            assert name in refused(write(whole[:kept], name))
        assert name in refused(write("a,b\n1,2\n", name))
    np.savez(tmp_path / "x.npz", A=np.zeros((50, 4)))
    assert "no array named 'X'; it has: A" in refused(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", X=np.zeros((50, 4)))
    (tmp_path / "y.npz").rename(tmp_path / "y.npy")
    assert ".npz archive" in refused(tmp_path / "y.npy")
    np.save(tmp_path / "z.npy", np.zeros((5, 4)))
    (tmp_path / "z.npy").rename(tmp_path / "z.npz")
    assert "no .npz archive" in refused(tmp_path / "z.npz")


# ------------------------------------------------------------------------------------- svmlight


@pytest.mark.parametrize("first", [0, 1])
def test_svmlight_columns_carry_their_index(write, first):
    pytest.importorskip("sklearn")
    text = "".join(f"{y} {first}:{y + 0.5} {first + 2}:3\n" for y in (1, -1))
    table = read(write(text + "1\n", "x.svm"))
    names = [str(first + k) for k in range(3)]
    assert list(table.columns) == [*names, "target"]
    assert table.columns[names[0]].values.tolist() == [1.5, -0.5, 0]
    assert table.columns[names[1]].values.tolist() == [0, 0, 0]
    assert table.columns["target"].values.tolist() == [1, -1, 1]
    assert table.sparse
    narrow = read(write(text, "x.svm"), columns=[names[2], "99", "target"])
    assert list(narrow.columns) == [names[2], "target"]


def test_damaged_svmlight(write):
    pytest.importorskip("sklearn")
    assert "svmlight" in refused(write("1 1:2 x:3\n", "x.svm"))
    assert "svmlight" in refused(write("1 3:2 1:3\n", "x.svm"))
    assert "no features" in refused(write("1\n2\n", "x.svm"))


def test_a_matrix_too_large_for_the_memory(write, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(tables, "_free_memory", lambda: 1000)
    message = refused(write("1 1:1 900:1\n" * 3, "x.svm"))
    assert "900 columns" in message
    assert "GiB" in message


def test_free_memory_is_known_here():
    assert tables._free_memory() > 2**20

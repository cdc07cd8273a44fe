"""Files of arrays: what is written comes back, damage is seen, nothing is half-written."""

from __future__ import annotations

import errno
import json
import os
import stat
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schuss.data import container
from schuss.errors import DataError

ARRAYS = {
    "theta": np.array([0.1, -np.inf, np.nan, 5e-324]),
    "wide": np.arange(12, dtype=np.float32).reshape(3, 4),
    "empty": np.empty((0, 5)),
    "scalar": np.array(2.5),
    "labels": np.array(["no", "yes", "größer"]),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(10)[::3],
    "big": np.arange(3, dtype=">i4"),
}
HEADER = {"note": "größer", "numbers": [1, 2.5, None, True], "nested": {"a": float("inf")}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.npz"


def test_what_is_written_comes_back(path):
    container.write(path, "model", ARRAYS, HEADER)
    arrays, header = container.read(path, "model")
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        found = arrays[name]
        assert found.dtype == array.dtype and found.shape == array.shape
        assert np.ascontiguousarray(found).tobytes() == np.ascontiguousarray(array).tobytes()
    assert header == {"kind": "model", "version": 1} | HEADER


def test_numpy_alone_can_read_it(path):
    container.write(path, "model", ARRAYS, HEADER)
    with np.load(path, allow_pickle=False) as archive:
        assert set(archive.files) == {"header", *ARRAYS}
        assert np.array_equal(archive["wide"], ARRAYS["wide"])
        assert json.loads(str(archive["header"]))["note"] == "größer"


def test_the_same_contents_are_the_same_bytes(path, tmp_path):
    container.write(path, "model", ARRAYS, HEADER)
    other = tmp_path / "other"
    container.write(other, "model", ARRAYS, HEADER)
    assert path.read_bytes() == other.read_bytes()


def test_objects_are_not_pickled(path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        container.write(path, "model", {"a": np.array([object()])}, {})
    assert os.listdir(path.parent) == []


@given(data=st.data())
def test_every_damage_is_seen(data, tmp_path_factory):
    """Any bit flipped, any length cut: the same contents or a DataError, nothing else."""
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    container.write(path, "model", {"coef": np.arange(3.0)}, {"loss": "log_loss"})
    good = path.read_bytes()
    if data.draw(st.booleans(), "cut"):
        bad = good[: data.draw(st.integers(0, len(good) - 1), "length")]
    else:
        place = data.draw(st.integers(0, len(good) - 1), "place")
        flipped = good[place] ^ (1 << data.draw(st.integers(0, 7), "bit"))
        bad = good[:place] + bytes([flipped]) + good[place + 1 :]
    assert_seen(path, bad)


def assert_seen(path, bad: bytes) -> None:
    path.write_bytes(bad)
    try:
        arrays, header = container.read(path, "model")
    except DataError as error:
        assert str(path) in str(error)
    else:  # the flip hit a time stamp, or the like
        assert np.array_equal(arrays["coef"], np.arange(3.0))
        assert header == {"kind": "model", "version": 1, "loss": "log_loss"}


def test_every_byte_inverted_is_seen(path):
    container.write(path, "model", {"coef": np.arange(3.0)}, {"loss": "log_loss"})
    good = path.read_bytes()
    for place in range(len(good)):
        assert_seen(path, good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])


def foreign(path, make) -> None:
    make(path)
    with pytest.raises(DataError, match="was not written by schuss, or is damaged") as caught:
        container.read(path, "model")
    assert str(path) in str(caught.value)


def save_npy(path):
    with open(path, "wb") as file:
        np.save(file, np.arange(3))


def save_npz(path):
    with open(path, "wb") as file:
        np.savez(file, coef=np.arange(3))


def save_header(text):
    def save(path):
        with open(path, "wb") as file:
            np.savez(file, header=np.array(text))

    return save


def save_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("price,rooms\n1,2\n"),
        lambda path: path.write_bytes(os.urandom(1000)),
        save_npy,
        save_npz,
        save_zip,
        save_header("no json"),
        save_header("[1, 2]"),
        save_header('{"kind": "model"}'),
    ],
    ids=["empty", "text", "noise", "npy", "npz", "zip", "no json", "json list", "no digest"],
)
def test_foreign_files_are_refused(path, make):
    foreign(path, make)


def test_kind_and_version(path):
    container.write(path, "model", {}, {})
    with pytest.raises(DataError, match="is a 'model' file, not a checkpoint"):
        container.read(path, "checkpoint")
    container.write(path, "model", {}, {"version": 99})
    with pytest.raises(DataError, match="written by a newer version of schuss"):
        container.read(path, "model")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        container.read(tmp_path / "nothing", "model")
    with pytest.raises(DataError, match="is a folder"):
        container.read(tmp_path, "model")


# ---- Never half-written --------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    container.write(path, "model", {"a": np.arange(3)}, {})
    old = path.read_bytes()
    calls = []

    def full_disk(file, array, allow_pickle):
        calls.append(file.write(b"half of it"))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full_disk)
    with pytest.raises(OSError, match="No space left"):
        container.write(path, "model", {"a": np.arange(9)}, {})
    assert calls
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_rename_leaves_the_old_file(failing, path, monkeypatch):
    container.write(path, "model", {"a": np.arange(3)}, {})
    old = path.read_bytes()

    def fail(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="Input/output"):
        container.write(path, "model", {"a": np.arange(9)}, {})
    monkeypatch.undo()
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == [path.name]


def test_an_interrupted_write_leaves_nothing(path):
    with pytest.raises(KeyboardInterrupt), container.atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert os.listdir(path.parent) == []


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_are_those_of_a_plain_open(path, tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    container.write(path, "model", {}, {})
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    container.check_writable("model.npz", "path")
    container.write("model.npz", "model", {"a": np.arange(3)}, {})
    assert os.listdir() == ["model.npz"]
    assert container.read("model.npz", "model")[0]["a"].tolist() == [0, 1, 2]


def test_unwritable_paths_are_refused(tmp_path):
    for path, message in [
        (tmp_path, "is a folder; give a file name"),
        (tmp_path / "no" / "file", "folder '.*no' does not exist"),
        (tmp_path / ("x" * 300), "cannot be written: File name too long"),
        ("a\0b", "NUL"),
    ]:
        with pytest.raises(DataError, match=f"^output=.*{message}"):
            container.check_writable(path, "output")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="cannot be written: Permission denied"):
        container.check_writable(tmp_path / "model.npz", "output")
    tmp_path.chmod(0o700)

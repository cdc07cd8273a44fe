"""Files of arrays with a JSON header: no pickle, checksummed, never half-written.

A container is an ``.npz`` archive whose entry ``header`` holds JSON text with the kind of file, the
format's version and a SHA-256 digest over everything else, so that ``numpy.load`` alone can read
what schuss wrote.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from schuss.errors import DataError

__all__ = ["atomic_write", "check_writable", "read", "write"]

VERSION = 1
# Read once: the system tells it only by setting another, for all threads.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes the final name when the block succeeds."""
    final = Path(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{final.name}.", dir=final.parent or ".")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp's files are private; the final one gets what a plain open would have given.
        os.chmod(temporary, 0o666 & ~_UMASK)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, final)
        sync_folder(final.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the system offers that."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_writable(path: str | os.PathLike[str], argument: str) -> Path:
    """Raise DataError now if a file at ``path`` could not be written later."""
    if "\0" in os.fspath(path):
        raise DataError(f"{argument}={str(path)!r}: a path cannot hold a NUL character.")
    final = Path(path)
    folder = final.parent
    try:
        if final.is_dir():
            raise DataError(f"{argument}={str(path)!r} is a folder; give a file name.")
        if not folder.is_dir():
            raise DataError(f"{argument}={str(path)!r}: folder {str(folder)!r} does not exist.")
        descriptor, name = tempfile.mkstemp(prefix=f".{final.name}.", dir=folder)
    except OSError as error:
        raise DataError(f"{argument}={str(path)!r} cannot be written: {error.strerror}.") from None
    os.close(descriptor)
    os.unlink(name)
    return final


def _digest(arrays: dict[str, np.ndarray], header: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write(
    path: str | os.PathLike[str], kind: str, arrays: dict[str, np.ndarray], header: dict[str, Any]
) -> None:
    """Write arrays and a JSON-able header to ``path``."""
    full = {"kind": kind, "version": VERSION, **header}
    sealed = {**full, "sha256": _digest(arrays, full)}
    # The archive is what np.savez writes, but the same bytes for the same contents.
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in {"header": np.array(json.dumps(sealed)), **arrays}.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def read(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what :func:`write` wrote; DataError if it is missing, foreign or corrupt."""
    label = f"{kind} {str(path)!r}"
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file):  # refuses what is no archive
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(str(arrays.pop("header")))
        digest = header.pop("sha256")
    except FileNotFoundError:
        raise DataError(f"{label} does not exist.") from None
    except IsADirectoryError:
        raise DataError(f"{label} is a folder.") from None
    except PermissionError:
        raise DataError(f"{label} cannot be read: permission denied.") from None
    except Exception as error:  # a damaged archive can fail anywhere in zipfile and NumPy
        raise DataError(f"{label} was not written by schuss, or is damaged ({error}).") from None
    if header.get("kind") != kind:
        raise DataError(f"{label} is a {header.get('kind')!r} file, not a {kind}.")
    if header.get("version", 0) > VERSION:
        raise DataError(f"{label} was written by a newer version of schuss; upgrade to read it.")
    if _digest(arrays, header) != digest:
        raise DataError(f"{label} is damaged: its checksum does not match.")
    return arrays, header

"""Checkpoints: a training run that was stopped goes on, bit for bit, where it left off."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import re
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from schuss.data import container
from schuss.data.sparse import CSR
from schuss.errors import (
    CheckpointError,
    CheckpointWarning,
    DataError,
    InvalidArgument,
    InvalidType,
)
from schuss.formulas.spec import check_number

__all__ = ["Checkpoint", "fingerprint"]

_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Where and how often ``fit`` writes its whole state, and from where it resumes.

    If ``path`` exists when ``fit`` starts, training resumes from it and ends bitwise as the
    uninterrupted run would have; a checkpoint of another run is an error that names the difference.
    Files are written beside their final name, synced and renamed; they hold no pickle and carry a
    checksum. A damaged file is passed over, with a warning, for the one before.

    Parameters
    ----------
    path : str or path
        The newest checkpoint; older ones have ``.1``, ``.2``, ... appended.
    every : int or str, default="5min"
        Updates between two checkpoints, or a time such as "30s", "5min", "2h". Either takes effect
        at the end of the segment at hand, some ten milliseconds.
    keep : int, default=2
        How many checkpoints are kept.

    Examples
    --------
    >>> import schuss
    >>> schuss.data.Checkpoint("run.ckpt", every="30s").seconds
    30.0
    """

    path: str | os.PathLike[str]
    every: int | str = "5min"
    keep: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.path, (str, os.PathLike)):
            raise InvalidType(f"Checkpoint(path={self.path!r}): expected a file name.")
        check_number("Checkpoint(keep=...): keep", self.keep, {">=": 1}, integer=True)
        if isinstance(self.every, str):
            _ = self.seconds
        else:
            check_number("Checkpoint(every=...): every", self.every, {">=": 1}, integer=True)

    @property
    def seconds(self) -> float | None:
        """Time between two checkpoints, or None where it is counted in updates."""
        if not isinstance(self.every, str):
            return None
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", self.every)
        if not found or found[2] not in _UNITS or float(found[1]) == 0:
            raise InvalidArgument(
                f"Checkpoint(every={self.every!r}): expected a number of updates, or a time such "
                "as '30s', '5min', '2h'."
            )
        return float(found[1]) * _UNITS[found[2]]

    @property
    def generations(self) -> list[Path]:
        """The files, newest first."""
        newest = Path(self.path)
        older = [newest.with_name(f"{newest.name}.{k}") for k in range(1, self.keep)]
        return [newest, *older]

    def due(self, updates: int, written_at: int, seconds: float) -> bool:
        """Whether to write now.

        Parameters
        ----------
        updates, written_at : int
            Updates made by now, and when the last checkpoint was written.
        seconds : float
            Time since then.
        """
        if self.seconds is not None:
            return seconds >= self.seconds
        return updates - written_at >= int(self.every)

    def write(self, arrays: dict[str, np.ndarray], header: dict[str, Any]) -> None:
        """Write a new checkpoint; the one before becomes ``.1``, and so on.

        Parameters
        ----------
        arrays : dict of str to ndarray
        header : dict
            JSON-able.
        """
        files = self.generations
        fresh = files[0].with_name(f".{files[0].name}.new")
        container.write(fresh, "checkpoint", arrays, header)
        # From here on every file that exists is whole: a kill loses at most the newest name.
        for older, newer in reversed(list(zip(files[1:], files[:-1], strict=True))):
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, older)
        os.replace(fresh, files[0])
        container.sync_folder(files[0].parent)
        self._tidy(fresh)

    @staticmethod
    def _tidy(fresh: Path) -> None:
        """Remove what processes that were killed while writing left behind."""
        for left in fresh.parent.glob(f"{glob.escape(f'.{fresh.name}.')}*"):
            left.unlink(missing_ok=True)

    def read(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """The newest whole checkpoint, or None if there is none yet.

        Raises
        ------
        schuss.errors.CheckpointError
            If files exist but none of them can be read.
        """
        files = self.generations
        candidates = [file for file in files if file.exists()]
        fresh = files[0].with_name(f".{files[0].name}.new")
        if candidates and files[0] not in candidates and fresh.exists():
            # A kill between the renames left the newest state under its temporary name.
            candidates.insert(0, fresh)
        reasons = []
        for file in candidates:
            try:
                found = container.read(file, "checkpoint")
            except DataError as error:
                reasons.append(str(error))
                continue
            for reason in reasons:
                warnings.warn(
                    f"{reason} Going on from {str(file)!r}.", CheckpointWarning, stacklevel=5
                )
            return found
        if reasons:
            raise CheckpointError(
                f"no readable checkpoint: {' '.join(reasons)} Remove the files to start anew."
            )
        return None


def fingerprint(*arrays: Any) -> str:
    """Shapes, dtypes and a CRC-32 of the contents of arrays and sparse rows."""
    parts = []
    for array in arrays:
        if isinstance(array, CSR):
            inside = fingerprint(array.data, array.indices, array.indptr)
            parts.append(f"csr{list(array.shape)} {inside}")
            continue
        if array is None:
            parts.append("none")
            continue
        crc = 0
        flat = array.reshape(-1).view(np.uint8)
        for start in range(0, flat.size, 1 << 24):
            crc = zlib.crc32(flat[start : start + (1 << 24)].data, crc)
        parts.append(f"{array.dtype.name}{list(array.shape)}:{crc:08x}")
    return " ".join(parts)


def same_run(found: dict[str, Any], expected: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Raise CheckpointError that names the first difference between two runs' configurations."""
    files = " and ".join(repr(str(file)) for file in checkpoint.generations if file.exists())
    for key, value in expected.items():
        if found.get(key) != value:
            raise CheckpointError(
                f"checkpoint {str(checkpoint.path)!r} belongs to another run: {key} is "
                f"{found.get(key)!r} there and {value!r} here. Give another path, or remove "
                f"{files} to start anew."
            )


class Clock:
    """When the last checkpoint was written."""

    def __init__(self, updates: int) -> None:
        self.updates = updates
        self.at = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.at

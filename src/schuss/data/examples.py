"""The small real tables that come with schuss.

Their sources and licences are in ``examples/README.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from schuss.data.preprocess import Encoder, target_values
from schuss.data.tables import Table, read
from schuss.errors import unknown_name

__all__ = ["EXAMPLES", "Example", "load", "table"]

_FOLDER = Path(__file__).with_name("examples")


@dataclass(frozen=True)
class Example:
    """One of the tables that come with schuss.

    Attributes
    ----------
    name : str
    target : str
        Name of the target column.
    classes : bool
        The target is a class, not a quantity.
    description : str
        One line.
    """

    name: str
    target: str
    classes: bool
    description: str

    @property
    def path(self) -> Path:
        """The compressed CSV file."""
        return _FOLDER / f"{self.name}.csv.gz"


EXAMPLES: Mapping[str, Example] = MappingProxyType(
    {
        example.name: example
        for example in (
            Example("breast-cancer", "diagnosis", True, "569 tumours, 30 measurements, 2 classes"),
            Example("diabetes", "progression", False, "442 patients, 10 measurements, a quantity"),
            Example("digits", "digit", True, "1797 images of 8x8 pixels, 10 classes"),
        )
    }
)


def table(name: str) -> Table:
    """The columns of an example, as read from its file.

    Parameters
    ----------
    name : {"breast-cancer", "diabetes", "digits"}

    Returns
    -------
    schuss.data.tables.Table
    """
    if name not in EXAMPLES:
        raise unknown_name("example", name, EXAMPLES)
    found = read(EXAMPLES[name].path)
    found.source = f"example {name}"
    return found


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """An example as a matrix and a target, neither scaled nor shuffled.

    Parameters
    ----------
    name : {"breast-cancer", "diabetes", "digits"}

    Returns
    -------
    X : ndarray of shape (n_samples, n_features), float64
    y : ndarray of shape (n_samples,)
        Strings for breast-cancer, integers for digits, float64 for diabetes.

    Examples
    --------
    >>> from schuss.data import examples
    >>> X, y = examples.load("breast-cancer")
    >>> X.shape, sorted(set(y.tolist()))
    ((569, 30), ['benign', 'malignant'])
    """
    found = table(name)
    example = EXAMPLES[name]
    y = target_values(found, example.target)
    if example.classes and y.dtype.kind == "f":
        y = y.astype(np.int64)
    encoder = Encoder.fit(found, np.arange(found.n_rows), target=example.target)
    return encoder.encode(found), y

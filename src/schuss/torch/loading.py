"""Mini-batches of tensors that lie in memory, gathered many at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch

from schuss.backends import choose
from schuss.checks import check_flags, check_seed, visits_of
from schuss.data import arrays
from schuss.data import order as orders
from schuss.errors import DataError, InvalidArgument, InvalidType
from schuss.formulas.spec import check_number

__all__ = ["Batches", "batches"]

# Rows are gathered for several batches at once: as many bytes of them, and so many rows at most,
# which is also how many indices are drawn at once.
CHUNK_BYTES, CHUNK_ROWS = 1 << 19, 1 << 13
# What numbers of so many bytes are to NumPy where it does not know their dtype.
AS_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Batches:
    """The mini-batches of tensors, epoch after epoch; made by :func:`batches`.

    Each ``iter()`` is the next epoch. ``len()`` is the number of batches of one.

    Attributes
    ----------
    epoch : int
        The epoch that the next ``iter()`` begins; set it to go on where another run ended.

    Examples
    --------
    >>> import torch
    >>> from schuss.torch import batches
    >>> made = batches(torch.arange(5), batch_size=2)
    >>> len(made), sorted(int(i) for (xb,) in made for i in xb), made.epoch
    (3, [0, 1, 2, 3, 4], 1)
    """

    def __init__(
        self, tensors: tuple[torch.Tensor, ...], visits: orders.Visits, size: int, stop: int
    ) -> None:
        self.tensors = tensors
        self._epoch = 0
        self._visits, self._size, self._stop = visits, size, stop
        longest = max(t[0].numel() * t.element_size() for t in tensors)
        rows = min(CHUNK_ROWS, CHUNK_BYTES // max(1, longest))
        self._together = max(1, rows // size) * size
        self._drawn = max(1, CHUNK_ROWS // self._together) * self._together

    @property
    def epoch(self) -> int:
        """The epoch that the next ``iter()`` begins."""
        return self._epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._epoch = check_number("epoch", number, {">=": 0}, integer=True)

    def __len__(self) -> int:
        return -(-self._stop // self._size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        return self._batches(epoch)

    def _batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, ...]]:
        for begin in range(0, self._stop, self._drawn):
            end = min(begin + self._drawn, self._stop)
            rows = self._visits.indices(epoch, begin, end)
            for first in range(0, end - begin, self._together):
                yield from self._chunk(rows[first : first + self._together])

    def _chunk(self, rows: np.ndarray) -> Iterator[tuple[torch.Tensor, ...]]:
        """The batches of these rows."""
        return zip(*(gathered(t, rows).split(self._size) for t in self.tensors), strict=True)


def gathered(tensor: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """A copy of those rows; on the CPU by NumPy, which is faster than torch on one thread."""
    if tensor.device.type != "cpu" or not lies_as_it_is(tensor):
        return tensor.index_select(0, torch.from_numpy(rows).to(tensor.device))
    numbers = tensor if is_known(tensor.dtype) else tensor.view(AS_BITS[tensor.element_size()])
    found = torch.from_numpy(numbers.numpy().take(rows, axis=0, mode="clip"))
    return found if numbers is tensor else found.view(tensor.dtype)


@cache
def is_known(dtype: torch.dtype) -> bool:
    """Whether NumPy has such numbers."""
    try:
        torch.empty(0, dtype=dtype, device="cpu").numpy()
    except TypeError:
        return False
    return True


def lies_as_it_is(tensor: torch.Tensor) -> bool:
    """Whether the tensor's numbers lie in memory, and nothing else makes up its class."""
    known = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    return known and not tensor._is_zerotensor()


def as_labels(tensor: torch.Tensor) -> np.ndarray | None:
    """Labels of rows, where they are numbers that NumPy knows."""
    labels = tensor.detach().cpu()
    if labels.is_floating_point() and labels.dtype not in (torch.float64, torch.float16):
        labels = labels.float()
    return None if labels.is_complex() else labels.numpy()


def batches(
    *tensors: torch.Tensor,
    batch_size: int | str = 32,
    order: Any = "shuffle",
    seed: int = 0,
    drop_last: bool = False,
    sample_weight: Any = None,
) -> Batches:
    """Mini-batches of tensors that lie in memory, on the CPU or a GPU.

    In place of ``DataLoader(TensorDataset(*tensors), batch_size, shuffle=True)``. Rows are gathered
    for many batches at once; a batch is a view of them, copied from the data.

    Parameters
    ----------
    *tensors : tensor of shape (n_samples, ...)
        Any dtype and device; at least one.
    batch_size : int or "full", default=32
        Rows of a batch; if there are fewer, one batch has them all.
    order : str or Order, default="shuffle"
        Any order of :func:`schuss.fit`. "stratified" looks at the last tensor, of one dimension.
    seed : int, default=0
        The order is a function of it and of the number of the epoch.
    drop_last : bool, default=False
        Leave out the last, shorter batch.
    sample_weight : array-like or tensor, shape (n_samples,), optional
        For order "weighted".

    Returns
    -------
    Batches
        To iterate over, once for each epoch; yields a tuple of tensors.

    Raises
    ------
    schuss.errors.SchussError
        For bad arguments.

    Examples
    --------
    >>> import torch
    >>> from schuss.torch import batches
    >>> X, y = torch.randn(100, 3), torch.randn(100)
    >>> loader = batches(X, y, batch_size=64)
    >>> for epoch in range(2):
    ...     for Xb, yb in loader:
    ...         pass
    >>> loader.epoch, Xb.shape
    (2, torch.Size([36, 3]))
    """
    check_flags(drop_last=drop_last)
    if not tensors:
        raise InvalidArgument("tensors: expected at least one.")
    for k, tensor in enumerate(tensors):
        name = f"tensors[{k}]"
        if not isinstance(tensor, torch.Tensor):
            raise InvalidType(f"{name}: expected a tensor, got {type(tensor).__name__}.")
        if tensor.layout != torch.strided or tensor.is_nested:
            raise DataError(f"{name}: has layout {tensor.layout}; expected a dense tensor.")
        if tensor.ndim == 0 or len(tensor) == 0:
            raise DataError(f"{name}: expected at least one row, got shape {tuple(tensor.shape)}.")
        if len(tensor) != len(tensors[0]):
            raise DataError(
                f"{name}: has {len(tensor)} rows, but tensors[0] has {len(tensors[0])}."
            )
    n = len(tensors[0])
    seed = check_seed(seed)
    size = (
        n
        if batch_size == "full"
        else check_number("batch_size", batch_size, {">=": 1}, integer=True)
    )
    labels = as_labels(tensors[-1]) if len(tensors) > 1 and tensors[-1].ndim == 1 else None
    if isinstance(sample_weight, torch.Tensor):
        sample_weight = as_labels(sample_weight)
    weights = arrays.as_weights(sample_weight, n, np.dtype(np.float64))
    engine = choose("auto")
    row_bytes = tensors[0].element_size() * tensors[0][0].numel()
    facts = orders.Facts(
        n, min(size, n), seed, labels, weights, engine.permute, engine.mix, row_bytes
    )
    visits = visits_of(orders.get(order), facts)
    stop = n // size * size if drop_last else n
    # Rows that do not lie side by side are copied once, not at each batch.
    lying = (t.detach().resolve_conj().resolve_neg().contiguous() for t in tensors)
    return Batches(tuple(lying), visits, size, stop)

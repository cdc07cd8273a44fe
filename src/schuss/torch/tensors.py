"""Tensors as kernels take them: side by side, as the addresses of their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from schuss import _native
from schuss.errors import InvalidType, TensorError

__all__ = ["Table", "describe", "plain", "survey", "tables", "write_back"]

# Numbers that kernels know, by the order of their types in the extension module.
TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
NAMES = tuple(str(dtype).partition(".")[2] for dtype in TYPES)
COMPLEX = {torch.complex64: torch.float32, torch.complex128: torch.float64}
CLASSES = (torch.Tensor, torch.nn.Parameter)
GRADIENTS = 1  # their column
EXCHANGE = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
# What a class has whose tensors are nothing but numbers in memory.
NO_DISPATCH = torch.Tensor.__torch_dispatch__

Column = list[torch.Tensor]


@dataclass
class Table:
    """Tensors of one dtype, each parameter with its gradient and slots.

    Attributes
    ----------
    lying : _native.TensorTable
        Where their numbers lie; the tensors live as long as it.
    places : ndarray of int64, shape (n_tensors,), or None
        Which of the tensors that the table was made of; None: all.
    copies : list of (tensor, tensor)
        Copies that kernels work on, and what they are to be written back to.
    """

    lying: Any
    places: np.ndarray | None = None
    copies: Sequence[tuple[torch.Tensor, torch.Tensor]] = ()


def survey(
    params: Column, states: Any, keys: tuple[str, ...], counts: bool
) -> tuple[Any, Any] | None:
    """The parameters with their gradients and what their states have by these keys.

    One look at each tensor, where all is as it is most often: plain tensors of one dtype without
    gaps, none of them missing.

    Parameters
    ----------
    params : list of tensors
    states : StateWalk
        Through the optimizer's ``state``, shared by its groups.
    keys : tuple of str
        Names of the slots; with ``counts`` and that of the counter of steps.

    Returns
    -------
    (TensorTable, StepCounters or None), or None where anything is otherwise
    """
    if EXCHANGE is None:
        return None
    found: tuple[Any, Any] | None = _native.survey(EXCHANGE, CLASSES, params, states, keys, counts)
    return found


def tables(columns: Sequence[Column], names: Sequence[str]) -> list[Table]:
    """Tensors in tables, one for each dtype.

    Parameters
    ----------
    columns : parameters, gradients, and each slot: lists of as many tensors
    names : what those are called in errors

    Raises
    ------
    schuss.errors.TensorError, schuss.errors.InvalidType
        For tensors that no kernel can take.
    """
    addresses, sizes, kinds, kind = describe(columns)
    for column in columns:
        negated = list(map(torch.Tensor.is_neg, column))
        if True in negated:  # their numbers lie there negated
            kinds[negated], kind = -1, -1
    if kind >= 0:
        return [Table(_native.TensorTable(NAMES[kind], addresses, sizes, columns))]
    made = []
    for own in np.unique(kinds[kinds >= 0]):
        places = np.flatnonzero(kinds == own)
        lying = _native.TensorTable(NAMES[own], addresses[places], sizes[places], columns)
        made.append(Table(lying, places))
    return [*made, *_one_by_one(columns, np.flatnonzero(kinds < 0), names)]


def describe(columns: Sequence[Column]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """What tensors that stand side by side are.

    Returns
    -------
    addresses : ndarray of int64, shape (n_tensors, n_columns)
    sizes : ndarray of int64, shape (n_tensors,)
    kinds : ndarray of int32, shape (n_tensors,)
        Types, as numbers; -1 where kernels cannot take the tensors as they lie, or where those of a
        row differ in shape or type.
    kind : int
        That of all of them, or -1.
    """
    found = None if EXCHANGE is None else _native.describe(EXCHANGE, columns, CLASSES)
    return found or _describe(columns)


def _describe(columns: Sequence[Column]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The same where torch has no table of C functions to ask."""
    rows = np.zeros((len(columns), len(columns[0]), 3), np.int64)
    for column, own in zip(columns, rows, strict=True):
        for t, first, row in zip(column, columns[0], own, strict=True):
            whole = type(t) in CLASSES and t.layout == torch.strided and t.device.type == "cpu"
            fits = whole and t.dtype in TYPES and t.is_contiguous() and t.shape == first.shape
            if fits and (t.data_ptr() or not t.numel()):
                row[:] = t.data_ptr(), t.numel(), TYPES.index(t.dtype)
            else:
                row[2] = -1
    alike = (rows[:, :, 1:] == rows[0, :, 1:]).all(axis=(0, 2))
    kinds = np.where(alike, rows[0, :, 2], -1).astype(np.int32)
    same = kinds.size > 0 and (kinds == kinds[0]).all()
    return rows[:, :, 0].T.copy(), rows[0, :, 1].copy(), kinds, int(kinds[0]) if same else -1


def _one_by_one(
    columns: Sequence[Column], places: np.ndarray, names: Sequence[str]
) -> Iterator[Table]:
    """A table for each tensor that has gaps, another order of its numbers, or is complex."""
    for place in places:
        row = [column[place] for column in columns]
        labels = [f"{name} of params[{place}]" for name in names]
        for column, (label, tensor) in enumerate(zip(labels, row, strict=True)):
            _check(label, tensor, row[0], written=column != GRADIENTS)
        lying = _side_by_side([_resolved(tensor) for tensor in row])
        copies = [
            (new, old)
            for column, (new, old) in enumerate(zip(lying, row, strict=True))
            if new is not old and column != GRADIENTS
        ]
        pairs = zip(labels, lying, strict=True)
        addresses = np.array([[_address(label, t) for label, t in pairs]], np.int64)
        dtype = row[0].dtype
        size = lying[0].numel() * (2 if dtype in COMPLEX else 1)
        name = NAMES[TYPES.index(COMPLEX.get(dtype, dtype))]
        table = _native.TensorTable(name, addresses, np.array([size]), lying)
        yield Table(table, np.array([place]), copies)


def _resolved(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or a copy where its numbers do not lie there as they are."""
    if tensor._is_zerotensor():
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")
    return tensor.resolve_conj().resolve_neg()


def _side_by_side(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors whose numbers lie in one order without gaps: themselves if they do, else copies."""
    strides = tensors[0].stride()
    order = sorted(range(len(strides)), key=lambda k: (-strides[k], k))
    if all(t.permute(order).is_contiguous() for t in tensors):
        return tensors
    return [t if t.is_contiguous() else t.contiguous() for t in tensors]


def _address(name: str, tensor: torch.Tensor) -> int:
    try:
        return tensor.data_ptr()
    except RuntimeError as error:  # within torch.func, for one
        raise TensorError(f"{name}: has no numbers in memory ({error}).") from None


def plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is of a class that does nothing but hold numbers in memory."""
    return type(tensor) in CLASSES or type(tensor).__torch_dispatch__ is NO_DISPATCH


def _check(name: str, tensor: torch.Tensor, param: torch.Tensor, written: bool) -> None:
    if not plain(tensor):
        raise InvalidType(f"{name}: expected a plain tensor, got {type(tensor).__name__}.")
    if tensor.device.type != "cpu":
        raise TensorError(f"{name}: lies on {tensor.device}; expected tensors on the CPU.")
    if tensor.layout != torch.strided:
        raise TensorError(f"{name}: has layout {tensor.layout}; expected a dense tensor.")
    if tensor.dtype not in TYPES and tensor.dtype not in COMPLEX:
        accepted = ", ".join(NAMES)
        raise TensorError(f"{name}: has dtype {tensor.dtype}; expected {accepted} or complex.")
    if tensor.dtype != param.dtype or tensor.shape != param.shape:
        raise TensorError(
            f"{name}: has dtype {tensor.dtype} and shape {tuple(tensor.shape)}; expected the "
            f"parameter's, {param.dtype} and {tuple(param.shape)}."
        )
    sides = zip(tensor.shape, tensor.stride(), strict=True)
    if written and any(size > 1 and stride == 0 for size, stride in sides):
        raise TensorError(
            f"{name}: several of its numbers lie in one place; expected a copy of it."
        )


def write_back(table: Table) -> None:
    """Bring what a kernel made in copies to where it belongs."""
    for new, old in table.copies:
        with torch.no_grad():
            old.copy_(new)

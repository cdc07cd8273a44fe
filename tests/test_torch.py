"""Loops over tensors."""

from __future__ import annotations

from itertools import chain

import pytest
from support import run_python

import schuss

pytest.importorskip("torch")
import torch

from schuss.torch import batches

X = torch.arange(60.0).reshape(20, 3)
Y = torch.arange(20)


def rows(made) -> list[list[int]]:
    return [yb.tolist() for _, yb in made]


def test_every_row_once_with_its_target():
    for Xb, yb in batches(X, Y, batch_size=6):
        assert torch.equal(Xb, X[yb])
    sizes = [len(batch) for batch in rows(batches(X, Y, batch_size=6))]
    assert sizes == [6, 6, 6, 2] and len(batches(X, Y, batch_size=6)) == 4
    assert sorted(chain(*rows(batches(X, Y, batch_size=6)))) == list(range(20))
    assert [len(b) for b in rows(batches(X, Y, batch_size=6, drop_last=True))] == [6, 6, 6]
    assert len(batches(X, Y, batch_size=6, drop_last=True)) == 3
    assert len(rows(batches(X, Y, batch_size="full"))) == 1
    assert [len(b) for b in rows(batches(X, Y))] == [20]
    assert rows(batches(X, Y, drop_last=True)) == []


@pytest.mark.parametrize("order", ["shuffle", "sequential", "replacement", "blocks(rows=2)"])
def test_the_order_of_schuss(order):
    made = batches(X, Y, batch_size=7, order=order, seed=3)
    for epoch in range(3):
        theirs = schuss.batches(X.numpy(), Y.numpy(), 7, order, 3, epoch)
        assert rows(made) == [yb.tolist() for _, yb in theirs]
    made.epoch = 1
    again = batches(X, Y, batch_size=7, order=order, seed=3)
    next(iter(again))
    assert rows(made) == rows(again) and made.epoch == 2


def test_orders_that_look_at_labels_and_weights():
    labels = torch.arange(20) % 2
    for _, yb in batches(X, labels, batch_size=4, order="stratified"):
        assert int(yb.sum()) == 2
    assert len(list(batches(X, labels.bfloat16(), batch_size=4, order="stratified"))) == 5
    weights = (Y < 5).double()
    for weight in (weights, weights.numpy()):
        made = batches(X, Y, batch_size=4, order="weighted", sample_weight=weight)
        assert max(chain(*rows(made))) < 5


def test_many_rows_together():
    """More than one gathering, with a short end."""
    n = 30_001
    numbers = torch.arange(n)
    wide = numbers[:, None] + torch.zeros(40)
    seen = 0
    for Xb, yb in batches(wide, numbers, batch_size=7):
        assert torch.equal(Xb[:, 0], yb.float())
        seen += len(yb)
    assert seen == n


@pytest.mark.parametrize(
    "dtype", ["float64", "float16", "bfloat16", "int8", "int32", "bool", "complex64"], ids=str
)
def test_dtypes(dtype):
    numbers = X.to(getattr(torch, dtype))
    for (Xb,), (yb,) in zip(batches(numbers, batch_size=8), batches(Y, batch_size=8), strict=True):
        assert Xb.dtype == numbers.dtype and torch.equal(Xb, numbers[yb])


def test_dtypes_that_numpy_does_not_know():
    numbers = X.to(torch.float8_e5m2)
    for (Xb,), (yb,) in zip(batches(numbers, batch_size=8), batches(Y, batch_size=8), strict=True):
        assert Xb.dtype == numbers.dtype and torch.equal(Xb.float(), numbers.float()[yb])


def test_batches_are_copies():
    for (Xb,) in batches(X, batch_size=8, order="sequential"):
        Xb.zero_()
    assert X.sum() == sum(range(60))
    wide = torch.randn(3, 20, requires_grad=True).T  # rows that do not lie side by side
    for Xb, yb in batches(wide, Y, batch_size=8):
        assert torch.equal(Xb, wide[yb]) and not Xb.requires_grad


@pytest.mark.parametrize(
    ("tensors", "changes", "error", "message"),
    [
        ((), {}, ValueError, "tensors: expected at least one"),
        ((X, [1]), {}, TypeError, r"tensors\[1\]: expected a tensor, got list"),
        ((X, Y[:4]), {}, ValueError, r"tensors\[1\]: has 4 rows, but tensors\[0\] has 20"),
        ((torch.tensor(1.0),), {}, ValueError, "expected at least one row"),
        ((X[:0],), {}, ValueError, "expected at least one row"),
        ((X.to_sparse(),), {}, ValueError, "layout torch.sparse_coo"),
        ((X,), {"batch_size": 0}, ValueError, "batch_size=0"),
        ((X,), {"order": "shufle"}, ValueError, "order='shufle'"),
        ((X,), {"drop_last": 1}, TypeError, "drop_last=1"),
        ((X,), {"seed": -1}, ValueError, "seed=-1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_arguments(tensors, changes, error, message):
    with pytest.raises(error, match=message):
        batches(*tensors, **changes)


def test_as_the_loader_of_torch():
    from torch.utils.data import DataLoader, TensorDataset

    theirs = DataLoader(TensorDataset(X, Y), 6)
    ours = batches(X, Y, batch_size=6, order="sequential")
    assert len(theirs) == len(ours)
    for a, b in zip(theirs, ours, strict=True):
        assert all(torch.equal(*pair) for pair in zip(a, b, strict=True))


def test_without_torch():
    code = """
        import sys
        sys.modules["torch"] = None
        try:
            import schuss.torch
        except ImportError as error:
            print(error)
    """
    assert "pip install '.[torch]'" in run_python(code)

"""For loops over tensors: torch.optim's optimizers in one pass, and mini-batches in memory.

>>> import torch
>>> from schuss.torch import SGD, batches
>>> X, y = torch.arange(10.0).reshape(5, 2), torch.arange(5.0)
>>> model = torch.nn.Linear(2, 1)
>>> optimizer = SGD(model.parameters(), lr=1e-3, momentum=0.9)
>>> for Xb, yb in batches(X, y, batch_size=2):
...     optimizer.zero_grad()
...     torch.nn.functional.mse_loss(model(Xb)[:, 0], yb).backward()
...     optimizer.step()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from schuss.backends import available, choose
from schuss.errors import MissingPackage

try:
    from schuss.torch.loading import Batches, batches
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingPackage(
        "schuss.torch needs torch: pip install '.[torch]' from a clone of schuss"
    ) from error

if TYPE_CHECKING or available()["native"] is None:
    from schuss.torch.optimizers import LAMB, LARS, SGD, Adagrad, Adam, AdamW
    from schuss.torch.wrappers import SAM, Accumulator, accumulate

__all__ = [
    "LAMB",
    "LARS",
    "SAM",
    "SGD",
    "Accumulator",
    "Adagrad",
    "Adam",
    "AdamW",
    "Batches",
    "accumulate",
    "batches",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        choose("native")  # says why there is none
    raise AttributeError(f"module 'schuss.torch' has no attribute {name!r}")

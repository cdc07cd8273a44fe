"""For loops over tensors: torch.optim's optimizers in one pass, and mini-batches in memory.

>>> import torch
>>> from schuss.torch import batches
>>> X, y = torch.arange(10.0).reshape(5, 2), torch.arange(5)
>>> [len(yb) for Xb, yb in batches(X, y, batch_size=2)]
[2, 2, 1]
"""

from __future__ import annotations

from schuss.errors import MissingPackage

try:
    from schuss.torch.loading import Batches, batches
    from schuss.torch.optimizers import LAMB, LARS, SGD, Adagrad, Adam, AdamW
    from schuss.torch.wrappers import SAM, Accumulator, accumulate
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingPackage(
        "schuss.torch needs torch: pip install '.[torch]' from a clone of schuss"
    ) from error

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

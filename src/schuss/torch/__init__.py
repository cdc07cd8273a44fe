"""For loops over tensors.

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
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingPackage(
        "schuss.torch needs torch: pip install '.[torch]' from a clone of schuss"
    ) from error

__all__ = ["LAMB", "LARS", "SGD", "Adagrad", "Adam", "AdamW", "Batches", "batches"]

"""Data: arrays and files in, orders of visit, checkpoints."""

from schuss.data.checkpoint import Checkpoint

__all__ = ["Checkpoint"]

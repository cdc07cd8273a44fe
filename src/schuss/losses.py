"""Losses by name: ``schuss.losses.huber(epsilon=1.35)``."""

from schuss.formulas.losses import *  # noqa: F403
from schuss.formulas.losses import __all__  # noqa: F401

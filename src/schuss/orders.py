"""Orders by name: ``schuss.orders.blocks(rows=4096, buffer=64)``."""

from schuss.data.order import *  # noqa: F403
from schuss.data.order import __all__  # noqa: F401

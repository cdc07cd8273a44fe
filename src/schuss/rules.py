"""Rules by name: ``schuss.rules.sgd(momentum=0.9)``."""

from schuss.formulas.rules import *  # noqa: F403
from schuss.formulas.rules import __all__  # noqa: F401

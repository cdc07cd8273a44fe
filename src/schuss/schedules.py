"""Learning-rate schedules by name: ``schuss.schedules.cosine(0.1, steps=1000)``."""

from schuss.formulas.schedules import *  # noqa: F403
from schuss.formulas.schedules import __all__  # noqa: F401

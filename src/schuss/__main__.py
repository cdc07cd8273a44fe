"""``python -m schuss`` is the command ``schuss``."""

from __future__ import annotations

from schuss.cli import main

main()

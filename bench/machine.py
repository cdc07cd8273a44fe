"""What every benchmark shares: data larger than the cache, the machine's ceilings and name."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ELEMENTS = 100_000_000
DISTANCES = (4, 8, 16, 32)  # rows ahead to prefetch, of which the best counts


def regression(d: int, elements: int = ELEMENTS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal X of n * d = ``elements``, y = X w + noise; float32."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((elements // d, d), dtype=np.float32)
    w = rng.standard_normal(d, dtype=np.float32)
    return X, X @ w + rng.standard_normal(elements // d, dtype=np.float32)


def seconds(job: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def ceilings(X: np.ndarray, repeats: int = 3) -> dict[str, float]:
    """Rows per second that one core reads and adds up, in order and at random.

    Random: the sum of the same rows by shuffled index, with the best prefetch distance.
    """
    from schuss import _native
    from schuss.formulas.bijection import round_keys

    n = X.shape[0]
    rows = np.empty(n, np.int32)
    _native.permute(n, round_keys(0, 0), 0, rows)
    total = _native.sum_rows_float32

    def best(which: Any) -> float:
        times = [seconds(lambda a=a: total(X, which, a)) for a in DISTANCES for _ in range(repeats)]
        return n / min(times)

    return {"sequential": best((0, n)), "random": best(rows)}


def describe() -> dict[str, Any]:
    """Hardware and versions, for the record."""
    import numba
    import sklearn

    import schuss

    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [s for s in cpuinfo.read_text().splitlines() if s.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    found = {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "scikit-learn": sklearn.__version__,
        "schuss": schuss.__version__,
    }
    if schuss.backends.available()["native"] is None:
        from schuss import _native

        found["instruction set"] = _native.instruction_set()
    return found

"""What only a process of its own can tell: the first fit's time, and the memory of a fit."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from typing import Any

__all__ = ["first_fit", "peak_memory"]

# NumPy is imported, and the data made, before the clock starts.
FIRST_FIT = """
import time
import numpy as np
rng = np.random.default_rng(0)
X = rng.standard_normal((1000, 20), dtype=np.float32)
y = X @ rng.standard_normal(20, dtype=np.float32)
start = time.perf_counter()
import schuss
schuss.fit(X, y, batch_size=32, epochs=1, learning_rate=0.01, backend=BACKEND)
print(time.perf_counter() - start)
"""

# The highest resident memory since it was reset, less what was resident before the fit. A small
# fit comes first: modules and compiled kernels are not the memory of a fit.
PEAK = """
import json, resource, sys
import numpy as np
import schuss

def resident(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

n, d, size, backend = json.loads(ARGUMENTS)
rng = np.random.default_rng(0)
X = np.empty((n, d), np.float32)
rng.standard_normal(out=X, dtype=np.float32)
y = X @ rng.standard_normal(d, dtype=np.float32)
options = dict(batch_size=size, epochs=1, learning_rate=0.01 / d, backend=backend)
schuss.fit(X[:1000].copy(), y[:1000].copy(), **options | {"batch_size": min(size, 1000)})
try:
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    before, peak = resident("VmRSS"), lambda: resident("VmHWM")
except OSError:  # the highest ever, which the making of X may have set
    unit = 1 if sys.platform == "darwin" else 1024
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    before = peak()
schuss.fit(X, y, **options)
print(peak() - before)
"""


def _output(code: str, **names: Any) -> float:
    header = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    done = subprocess.run(
        [sys.executable, "-c", header + code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    return float(done.stdout.split()[-1])


def first_fit(backend: str, repeats: int = 5) -> float:
    """Median seconds from ``import schuss`` to the end of a small fit, in a fresh process.

    Parameters
    ----------
    backend : str
    repeats : int
        After one that fills the caches.
    """
    _output(FIRST_FIT, BACKEND=backend)
    return statistics.median(_output(FIRST_FIT, BACKEND=backend) for _ in range(repeats))


def peak_memory(n: int, d: int, batch_size: int, backend: str = "auto") -> float:
    """Bytes of resident memory that a fit needs at most, beyond X and y.

    Parameters
    ----------
    n, d : int
        Shape of X, float32.
    batch_size : int
    backend : str
    """
    return max(0.0, _output(PEAK, ARGUMENTS=json.dumps([n, d, batch_size, backend])))

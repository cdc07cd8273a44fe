"""Fixtures of all tests, how long the property tests look, and a list of what was skipped."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from hypothesis import settings
from support import BACKENDS, COMPILED, backend_or_skip

# Shells start commands in the background with Ctrl-C ignored, and their children inherit that: the
# tests that press it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run; the nightly profile looks for new ones.
settings.register_profile("quick", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile("quick")

# A file for the names of the tests, and of whole files, that were skipped, to run them later with
# more packages.
SKIPPED = os.environ.get("SCHUSS_SKIPPED")


def note_skipped(report) -> None:
    if SKIPPED and report.skipped and not hasattr(report, "wasxfail"):
        with open(SKIPPED, "a", encoding="utf-8") as stream:
            stream.write(report.nodeid + "\n")


pytest_runtest_logreport = pytest_collectreport = note_skipped


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request):
    """Every backend by name."""
    return backend_or_skip(request.param)


@pytest.fixture(scope="session", params=COMPILED)
def compiled(request):
    """Every compiled backend by name."""
    return backend_or_skip(request.param)


@pytest.fixture(scope="session")
def native():
    """The native backend."""
    return backend_or_skip("native")


@pytest.fixture(scope="session")
def jit():
    """The jit backend."""
    return backend_or_skip("jit")


@pytest.fixture(scope="session", params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    """Both types of data."""
    return np.dtype(request.param)


@pytest.fixture
def instruction_set():
    """Make the native kernels those of one instruction set; what was chosen comes back after."""
    from schuss import _native

    def use(name: str) -> None:
        if name not in _native.instruction_sets():
            pytest.skip(f"this machine runs {', '.join(_native.instruction_sets())}, not {name}")
        _native.use_instruction_set(name)

    before = _native.instruction_set()
    yield use
    _native.use_instruction_set(before)

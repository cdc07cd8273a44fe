"""Clocks: the processor's, and CUDA events where the work is done on a GPU."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from schuss.errors import InvalidArgument, MissingPackage

__all__ = ["CLOCKS", "Clock", "choose", "cpu", "settle"]

CLOCKS = ("auto", "cpu", "cuda")

#: Runs a job and returns the seconds it took.
Clock = Callable[[Callable[[], Any]], float]


def settle(value: Any) -> None:
    """Wait for a result that is computed in the background, as JAX's are."""
    if "jax" in sys.modules:
        sys.modules["jax"].block_until_ready(value)
    elif hasattr(value, "block_until_ready"):
        value.block_until_ready()


def cpu(job: Callable[[], Any]) -> float:
    """Wall time until the job's result is there."""
    start = time.perf_counter()
    settle(job())
    return time.perf_counter() - start


def choose(clock: str, result: Any) -> tuple[str, Clock]:
    """Name and clock: events where asked for, or where a step's result lies on a GPU.

    Parameters
    ----------
    clock : {"auto", "cpu", "cuda"}
    result : object
        What a step returned.
    """
    if clock not in CLOCKS:
        raise InvalidArgument(f"clock={clock!r}: expected one of {', '.join(CLOCKS)}.")
    if clock == "cpu":
        return "cpu", cpu
    if clock == "auto":
        if getattr(result, "is_cuda", False):
            return "cuda", _torch_events
        if type(result).__module__.partition(".")[0] == "cupy":
            return "cuda", _cupy_events
        return "cpu", cpu
    return "cuda", _any_events()


def _any_events() -> Clock:
    """Events of torch or CuPy, whichever has a GPU here."""
    try:
        import torch

        if torch.cuda.is_available():
            return _torch_events
    except ImportError:
        pass
    try:
        import cupy

        if cupy.cuda.is_available():
            return _cupy_events
    except ImportError:
        pass
    raise MissingPackage(
        "clock='cuda' needs torch or cupy with a CUDA device; neither has one here."
    )


def _torch_events(job: Callable[[], Any]) -> float:
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    job()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def _cupy_events(job: Callable[[], Any]) -> float:
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    job()
    end.record()
    end.synchronize()
    return float(cupy.cuda.get_elapsed_time(start, end)) / 1e3

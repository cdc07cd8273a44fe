"""How many threads a call may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from schuss.errors import InvalidArgument
from schuss.formulas.spec import check_number

__all__ = ["limits", "usable_threads"]


def usable_threads(threads: int | None) -> int:
    """Return the number asked for, or the least of all limits that hold for this process."""
    if threads is not None:
        return int(check_number("threads", threads, {">=": 1}, integer=True))
    return min(limits().values())


def limits() -> dict[str, int]:
    """Return every limit that holds, by where it comes from."""
    found = {"cores": os.cpu_count() or 1}
    if hasattr(os, "sched_getaffinity"):
        found["affinity"] = len(os.sched_getaffinity(0))
    for source, number in (
        ("cgroup quota", _cgroup_quota()),
        ("SCHUSS_NUM_THREADS", _from_environment("SCHUSS_NUM_THREADS")),
        ("OMP_NUM_THREADS", _from_environment("OMP_NUM_THREADS")),
        ("threadpoolctl", _from_threadpoolctl()),
    ):
        if number is not None:
            found[source] = number
    return found


def _from_environment(name: str) -> int | None:
    text = os.environ.get(name, "").split(",")[0].strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InvalidArgument(f"{name}={text!r}: expected an integer >= 1.")
    return int(text)


def _cgroup_quota() -> int | None:
    """Whole CPUs of the cgroup's quota, rounded up (version 2, then version 1)."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            base = Path("/sys/fs/cgroup/cpu")
            quota = (base / "cpu.cfs_quota_us").read_text()
            period = (base / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        cpus = -(-int(quota) // int(period))
    except (ValueError, ZeroDivisionError):  # "max": no quota
        return None
    return cpus if cpus > 0 else None


def _from_threadpoolctl() -> int | None:
    """A limit set by threadpoolctl, seen through the pools it controls.

    Looked at only where the caller has loaded threadpoolctl: nobody else can have set a limit.
    """
    if "threadpoolctl" not in sys.modules:
        return None
    pools = sys.modules["threadpoolctl"].threadpool_info()
    numbers = [pool["num_threads"] for pool in pools if pool.get("user_api") in ("blas", "openmp")]
    return min(numbers, default=None)

"""The fixture ``throughput`` for pytest, on top of pytest-benchmark.

Loaded in every test run of an environment that has schuss, so it imports nothing but pytest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from schuss.lab.record import Ceilings

__all__ = ["throughput"]


@pytest.fixture
def throughput(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Time a function and record samples per second, and the fraction of a ceiling.

    ``throughput(function, *args, samples=..., ceilings=..., order="shuffle", cores=1,
    bytes_per_sample=..., rounds=5)`` calls the function once to warm up, then ``rounds`` times
    under pytest-benchmark, and puts ``samples_per_second``, ``gigabytes_per_second``,
    ``fraction_of_ceiling`` and ``ceiling`` into ``benchmark.extra_info``, which
    ``--benchmark-json`` writes. It returns what the function returned.
    """
    if not request.config.pluginmanager.hasplugin("benchmark"):
        pytest.fail(
            "the fixture 'throughput' needs pytest-benchmark: pip install pytest-benchmark",
            pytrace=False,
        )
    benchmark = request.getfixturevalue("benchmark")

    def measure(
        function: Callable[..., Any],
        *args: Any,
        samples: int,
        ceilings: Ceilings | None = None,
        order: str = "shuffle",
        cores: int = 1,
        bytes_per_sample: int | None = None,
        rounds: int = 5,
        **info: Any,
    ) -> Any:
        result = benchmark.pedantic(function, args, rounds=rounds, warmup_rounds=1)
        benchmark.extra_info.update(info, samples=samples, order=order, cores=cores)
        if benchmark.stats is None:  # --benchmark-disable: called once, not timed
            return result
        speed = samples / benchmark.stats.stats.median
        benchmark.extra_info["samples_per_second"] = speed
        if bytes_per_sample is not None:
            benchmark.extra_info["gigabytes_per_second"] = speed * bytes_per_sample / 1e9
        if ceilings is not None:
            label, limit = ceilings.of(order, cores)
            benchmark.extra_info.update(
                ceiling=label, ceiling_speed=limit, fraction_of_ceiling=speed / limit
            )
        return result

    return measure

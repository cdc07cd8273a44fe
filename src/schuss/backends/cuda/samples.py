"""Exact per-sample descent by blocks of samples (csrc/cuda/samples.cu)."""

from __future__ import annotations

from typing import Any

import numpy as np

from schuss.backends.cuda.data import DenseRows, Places
from schuss.backends.cuda.device import Device
from schuss.backends.cuda.shapes import BLOCK_THREADS, PACK_BYTES, TILE_SIDE

__all__ = ["BLOCK_SAMPLES", "SampleSteps", "factors"]

# Samples of a block: the chain has a thread for each.
BLOCK_SAMPLES = BLOCK_THREADS
# Blocks whose products are made in one launch: 64 MB of them in float32.
BLOCKS_TOGETHER = 256
# Packs of columns that a block takes to the end of a block of samples.
ADVANCE_PACKS = 8


class SampleSteps:
    """Steps of sgd, one for each row.

    Parameters
    ----------
    device : Device
    data : DenseRows
    rates : ndarray of float64, shape (n_steps,) or (1,)
    l2 : float
    walk : dict
        ``theta``, ``average`` and ``averaged``, as kernels take them.
    outcome : dict
        As kernels take it: the samples' summed loss is added to its first result.
    """

    def __init__(
        self,
        device: Device,
        data: DenseRows,
        rates: np.ndarray,
        l2: float,
        walk: dict[str, Any],
        outcome: dict[str, Any],
    ) -> None:
        self.device, self.data, self.rates, self.l2 = device, data, rates, l2
        self.outcome = outcome
        self.walk = walk | {
            "margins": device.empty(BLOCK_SAMPLES, data.problem.dtype),
            "steps": device.empty(BLOCK_SAMPLES, data.problem.dtype),
            "intercepts": device.zeros(1, np.float64),
        }

    @property
    def kernel(self) -> str:
        """What runs the blocks."""
        return f"descend_samples<{self.data.instance(self.data.problem.loss.name)}>"

    def compile(self) -> None:
        """Have the kernels compiled."""
        for expression in (f"gram<{self.data.stored}>", self.kernel):
            self.device.function("samples", expression)

    def run(self, places: Places) -> None:
        """Start them all: whole blocks together, then what is left."""
        whole, together = places.count // BLOCK_SAMPLES, BLOCKS_TOGETHER * BLOCK_SAMPLES
        whole *= BLOCK_SAMPLES
        same = self._chain(0, 0, BLOCK_SAMPLES) if whole and self.rates.size == 1 else None
        for begin in range(0, whole, together):
            count = min(together, whole - begin)
            self._blocks(places, begin, count, same or self._chain(begin, count, BLOCK_SAMPLES))
        if whole < places.count:
            left = places.count - whole
            self._blocks(places, whole, left, self._chain(whole, left, left))

    def _blocks(self, places: Places, begin: int, count: int, chain: dict[str, Any]) -> None:
        """Blocks of samples whose steps have these factors, ``count`` samples in all."""
        data, own = self.data, places.within(begin, count)
        n_blocks, sides = -(-count // BLOCK_SAMPLES), BLOCK_SAMPLES // TILE_SIDE
        shape = (n_blocks, BLOCK_SAMPLES, BLOCK_SAMPLES)
        products = self.device.empty(shape, data.problem.dtype)
        self.device.launch(
            "samples",
            f"gram<{data.stored}>",
            n_blocks * sides * (sides + 1) // 2,
            X=data.X,
            width=data.width,
            rows=own.arguments,
            products=products,
        )
        self.device.launch(
            "samples",
            self.kernel,
            min(self._useful_blocks(), self.device.resident_blocks("samples", self.kernel)),
            cooperative=True,
            problem=data.arguments,
            rows=own.arguments,
            products=products,
            chain=chain,
            walk=self.walk | {"averaged": self.walk["averaged"] + begin},
            outcome=self.outcome | {"arrived": self.device.zeros(1, np.uint32)},
        )

    def _useful_blocks(self) -> int:
        """Blocks of the launch that have something to do, for margins or for weights."""
        columns = ADVANCE_PACKS * PACK_BYTES // self.data.problem.X.itemsize
        return max(BLOCK_SAMPLES // self.data.shape.teams, -(-self.data.width // columns))

    def _chain(self, begin: int, count: int, size: int) -> dict[str, Any]:
        """The factors of these steps; of one block where all have one rate."""
        if self.rates.size == 1:
            return self._factors(np.broadcast_to(self.rates, size), size) | {"stride": 0}
        return self._factors(self.rates[begin : begin + count], size) | {"stride": size}

    def _factors(self, rates: np.ndarray, size: int) -> dict[str, Any]:
        """Those on the device."""
        names, dtype = ("rate", "keep", "tail", "reach"), self.data.problem.dtype
        made = zip(names, factors(rates, self.l2, size), strict=True)
        return {name: self.device.upload(values.astype(dtype)) for name, values in made}


def factors(rates: np.ndarray, l2: float, k: int) -> tuple[np.ndarray, ...]:
    """Factors of steps in blocks of k: functions of the learning rates and of L2 alone.

    Parameters
    ----------
    rates : ndarray of float64, shape (n,)
        n is a multiple of k.
    l2 : float
    k : int

    Returns
    -------
    rates : ndarray
    keep : ndarray
        What a step leaves of the weights: 1 - rate * l2.
    tail : ndarray
        Product of the keeps after the step, to the block's end.
    reach : ndarray
        Sum of such products up to each step from this one on.
    """
    keep = 1.0 - rates.reshape(-1, k) * l2
    tail, reach = np.ones_like(keep), np.ones_like(keep)
    for j in range(k - 2, -1, -1):
        tail[:, j] = tail[:, j + 1] * keep[:, j + 1]
        reach[:, j] = 1.0 + keep[:, j + 1] * reach[:, j + 1]
    return rates, keep.reshape(-1), tail.reshape(-1), reach.reshape(-1)

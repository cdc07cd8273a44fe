"""Exact per-sample descent by blocks of samples (csrc/cuda/samples.cu)."""

from __future__ import annotations

from typing import Any

import numpy as np

from schuss.backends.cuda.data import DenseRows, Places
from schuss.backends.cuda.device import Device
from schuss.backends.cuda.shapes import PACK_BYTES, TILE_SIDE, blocks_for
from schuss.backends.protocol import Segment, State

__all__ = ["BLOCK_SAMPLES", "descend_samples", "factors"]

# Samples of a block: threads of the chain, which has a thread for each.
BLOCK_SAMPLES = 256
# Blocks whose products are made in one launch: 64 MB of them in float32.
BLOCKS_TOGETHER = 256
# Packs of columns that a block of `advance` takes, in csrc/cuda/samples.cu.
ADVANCE_PACKS = 8


def descend_samples(
    device: Device,
    data: DenseRows,
    state: State,
    segment: Segment,
    there: dict[str, Any],
    places: Places,
    loss: Any,
) -> None:
    """One step of sgd for every place, in order.

    Parameters
    ----------
    device : Device
    data : DenseRows
    state : State
    segment : Segment
        For its learning rates.
    there : dict
        The parameters and their mean on the device, as kernels take them.
    places : Places
    loss : array of float64, shape (1,) or more
        The samples' summed loss is added to its first number.
    """
    whole = places.count // BLOCK_SAMPLES * BLOCK_SAMPLES
    together = BLOCKS_TOGETHER * BLOCK_SAMPLES
    begins = [*range(0, whole, together), whole]
    ends = [*begins[1:], places.count]
    for begin, end in zip(begins, ends, strict=True):
        if begin == end:
            continue
        _Group(device, data, state, segment, begin, places.within(begin, end - begin)).run(
            there, loss
        )


class _Group:
    """Whole blocks whose products are made together, or the shorter one at the end."""

    def __init__(
        self,
        device: Device,
        data: DenseRows,
        state: State,
        segment: Segment,
        begin: int,
        places: Places,
    ) -> None:
        self.device, self.data, self.begin, self.places = device, data, begin, places
        self.averaged = state.averaged + begin
        # A shorter block has no more threads than it needs, in whole tiles.
        self.k = min(BLOCK_SAMPLES, -(-places.count // TILE_SIDE) * TILE_SIDE)
        self.n_blocks = -(-places.count // self.k)
        l2 = data.problem.penalty.l2 + state.rule.coupled_decay
        rates = np.asarray(segment.learning_rate, np.float64)
        same = rates.size == 1
        own = np.broadcast_to(rates, min(self.k, places.count)) if same else None
        if own is None:
            own = rates[begin : begin + places.count]
        made = factors(own, l2, min(self.k, places.count))
        names = ("rate", "keep", "tail", "reach")
        dtype = data.problem.dtype
        self.chain = {
            name: device.upload(values.astype(dtype))
            for name, values in zip(names, made, strict=True)
        } | {"stride": 0 if same else self.k}
        self.block = {
            "margins": device.empty(self.k, dtype),
            "steps": device.empty(self.k, dtype),
            "intercepts": device.zeros(1, np.float64),
        }

    def run(self, there: dict[str, Any], loss: Any) -> None:
        """All blocks, one after the other."""
        data, sides = self.data, self.k // TILE_SIDE
        products = self.device.empty((self.n_blocks, self.k, self.k), data.problem.dtype)
        self.device.launch(
            "samples",
            f"gram<{data.stored}>",
            self.n_blocks * sides * (sides + 1) // 2,
            X=data.X,
            width=data.width,
            rows=self.places.arguments,
            k=self.k,
            products=products,
        )
        for number in range(self.n_blocks):
            self._margins(number, there["theta"])
            self._chain(number, there["theta"], products, loss)
            self._advance(number, there)

    def _margins(self, number: int, theta: Any) -> None:
        own = self.places.within(number * self.k, self.k)
        self.device.launch(
            "rows",
            f"margin<{self.data.instance()}>",
            blocks_for(own.count, self.data.shape.teams),
            X=self.data.X,
            width=self.data.width,
            rows=own.arguments,
            theta=theta,
            with_intercept=0,
            out=self.block["margins"],
        )

    def _chain(self, number: int, theta: Any, products: Any, loss: Any) -> None:
        data = self.data
        self.device.launch(
            "samples",
            f"recur<{data.computed}, {data.problem.loss.name}>",
            1,
            threads=self.k,
            products=products,
            y=data.y,
            weight=data.weight,
            loss_parameters=data.loss_parameters,
            rows=self.places.arguments,
            number=number,
            chain=self.chain,
            fit_intercept=int(data.problem.fit_intercept),
            theta=theta,
            width=data.width,
            block=self.block,
            loss_sum=loss,
        )

    def _advance(self, number: int, there: dict[str, Any]) -> None:
        data = self.data
        columns = ADVANCE_PACKS * PACK_BYTES // data.problem.X.itemsize
        self.device.launch(
            "samples",
            f"advance<{data.stored}>",
            -(-data.width // columns),
            X=data.X,
            width=data.width,
            rows=self.places.arguments,
            number=number,
            k=self.k,
            chain=self.chain,
            block=self.block,
            theta=there["theta"],
            average=there["average"],
            averaged=self.averaged + number * self.k,
        )


def factors(rates: np.ndarray, l2: float, k: int) -> tuple[np.ndarray, ...]:
    """Factors of steps in blocks of k, each of rates' shape: functions of the rates and L2 alone.

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

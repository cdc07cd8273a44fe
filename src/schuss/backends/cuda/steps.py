"""A segment's steps on the device: which kernels make one, and what goes there and comes back."""

from __future__ import annotations

from typing import Any

import numpy as np

from schuss.backends.compiled import Steps, plain_per_sample
from schuss.backends.cuda.data import DenseRows, Kind, Places, Sums
from schuss.backends.cuda.device import Device
from schuss.backends.cuda.samples import SampleSteps
from schuss.backends.cuda.shapes import BLOCK_THREADS, COLUMNS_OF_BLOCK
from schuss.backends.protocol import Segment, State

__all__ = ["Run", "no_update"]

# How a step of dense rows may be made: all of a segment's in one launch, whose blocks wait for each
# other; each in one; each in three, which take any shape.
WAYS = ("one launch", "one kernel", "three kernels")
# Up to so many sums (parts times columns), the block that comes last may finish a step alone.
SUMS_OF_ONE_BLOCK = 1 << 15


class Run:
    """A segment's steps.

    Parameters
    ----------
    device : Device
    data : Kind
        The problem there.
    state : State
        Changed by :meth:`give_back`.
    segment : Segment
    """

    def __init__(self, device: Device, data: Any, state: State, segment: Segment) -> None:
        self.device, self.data, self.state, self.segment = device, data, state, segment
        self.theta = device.upload(data.spread(state.theta))
        self.slots = [device.upload(data.spread(slot)) for slot in state.slots]
        self.average = None if state.average is None else device.upload(data.spread(state.average))
        self.sums = data.room(min(segment.batch_size, segment.n_rows))
        self.outcome = outcome(device, self.sums, data.columns)
        self.update = self._update()

    def _update(self) -> dict[str, Any]:
        """How gradients become updates, as kernels take it."""
        rates = np.asarray(self.segment.learning_rate, dtype=np.float64)
        steps = Steps(self.data.problem, self.state, rates, self.segment.n_steps)
        constants = np.ascontiguousarray(steps.constants)
        return {
            "constants": self.device.upload(constants),
            "stride": constants.shape[1] if len(constants) > 1 else 0,
            "l2": steps.l2,
            "l1": steps.l1,
            "clip_norm": steps.clip_norm,
        }

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters and what is remembered of them, as kernels take them."""
        first, second = [*self.slots, None, None][:2]
        return {
            "theta": self.theta,
            "slot0": first,
            "slot1": second,
            "average": self.average,
            "averaged": self.state.averaged,
        }

    def steps(self) -> tuple[float, float]:
        """Start all of them and wait; returns their summed loss and the last one's norm."""
        segment = self.segment
        if segment.n_steps == 0:
            self._compile()
            return 0.0, 0.0
        places, done = Places(self.device, segment.rows), 0
        if self._by_blocks():
            # The last step is one like those of batches, which tells the gradient's norm.
            done = segment.n_steps - 1
            self._sample_steps().run(places.within(0, done))
        way = self._way(segment.n_steps - done)
        if way == "one launch":
            self._all_steps(places)
            done = segment.n_steps
        for number in range(done, segment.n_steps):
            batch = places.within(number * segment.batch_size, segment.batch_size)
            if way == "one kernel":
                self._step(number, batch, last=number == segment.n_steps - 1)
            else:
                self._large_step(number, batch)
        loss, norm = self.device.download(self.outcome["results"])
        return float(loss), float(norm)

    def _by_blocks(self) -> bool:
        """Whether margins follow from products of rows; L1's step is not linear."""
        problem = self.data.problem
        dense = isinstance(self.data, DenseRows) and not problem.penalty.l1
        return dense and plain_per_sample(problem, self.state, self.segment)

    def _sample_steps(self) -> SampleSteps:
        walk = {name: self.parameters[name] for name in ("theta", "average", "averaged")}
        rates = np.asarray(self.segment.learning_rate, np.float64)
        l2 = self.update["l2"]
        return SampleSteps(self.device, self.data, rates, l2, walk, self.outcome)

    def _way(self, n_steps: int) -> str:
        """The way of so many steps."""
        if not isinstance(self.data, DenseRows):
            return WAYS[2]
        if n_steps > 1:
            return WAYS[0]
        alone = self.sums.partials["parts"] * self.data.columns <= SUMS_OF_ONE_BLOCK
        return WAYS[1] if alone else WAYS[2]

    def _compile(self) -> None:
        """Have the usual kernels of such steps compiled before there are any."""
        if not isinstance(self.data, DenseRows):
            return
        if self._by_blocks():
            self._sample_steps().compile()
        self.device.function("rows", self._kernel("step" if self._by_blocks() else "descend"))

    def _kernel(self, name: str) -> str:
        """The instance of a kernel of whole steps."""
        data, rule = self.data, self.state.rule.formula
        return f"{name}<{data.instance(data.problem.loss.name, rule)}>"

    def _all_steps(self, places: Places) -> None:
        """One kernel, as many blocks as there is work for and the device runs at once."""
        data, kernel = self.data, self._kernel("descend")
        resident = self.device.resident_blocks("rows", kernel, data.bytes_shared)
        useful = max(self.sums.partials["parts"], data.columns // BLOCK_THREADS)
        self.device.launch(
            "rows",
            kernel,
            min(resident, useful),
            shared=data.bytes_shared,
            cooperative=True,
            problem=data.arguments,
            rows=places.arguments,
            batch_size=self.segment.batch_size,
            partials=self.sums.partials,
            update=self.update,
            state=self.parameters,
            outcome=self.outcome | {"arrived": self.device.zeros(1, np.uint32)},
        )

    def _step(self, number: int, batch: Places, last: bool) -> None:
        """One kernel: the block that comes last updates the parameters."""
        data = self.data
        part = data.parts_of(self.sums, batch.count)
        self.device.launch(
            "rows",
            self._kernel("step"),
            part["parts"],
            shared=data.bytes_shared,
            problem=data.arguments,
            rows=batch.arguments,
            partials=part,
            update=self.update,
            number=number,
            norm_wanted=int(last or self.state.clip_norm > 0),
            state=self.parameters,
            outcome=self.outcome,
        )

    def _large_step(self, number: int, batch: Places) -> None:
        """The sums, each column's sum, the update: each over as many blocks as it has work for."""
        data = self.data
        data.add_up(batch, self.theta, self.sums, norms=False)
        combine(self.device, data, self.sums, self.theta, self.outcome, self.update, batch.count)
        self.device.launch(
            "steps",
            f"finish<{data.computed}, {self.state.rule.formula}>",
            -(-data.columns // COLUMNS_OF_BLOCK),
            model=data.model,
            update=self.update,
            number=number,
            count=batch.count,
            state=self.parameters,
            outcome=self.outcome,
        )

    def give_back(self) -> None:
        """Bring what the steps made to the state."""
        state, read = self.state, self.device.download
        state.theta[:] = self.data.gathered(read(self.theta))
        for slot, there in zip(state.slots, self.slots, strict=True):
            slot[:] = self.data.gathered(read(there))
        if state.average is not None:
            state.average[:] = self.data.gathered(read(self.average))
            state.averaged += self.segment.n_steps
        state.step += self.segment.n_steps


def outcome(device: Device, sums: Sums, columns: int) -> dict[str, Any]:
    """What steps leave behind, as kernels take it."""
    return {
        "results": device.zeros(2, np.float64),
        "squares": device.zeros(-(-columns // COLUMNS_OF_BLOCK), np.float64),
        "total": sums.total,
        "arrived": device.zeros(1, np.uint32),
    }


def no_update(device: Device) -> dict[str, Any]:
    """Where sums are wanted and nothing is updated."""
    nothing = device.zeros(1, np.float64)
    return {"constants": nothing, "stride": 0, "l2": 0.0, "l1": 0.0, "clip_norm": 0.0}


def combine(
    device: Device,
    data: Kind,
    sums: Sums,
    theta: Any,
    results: dict[str, Any],
    update: dict[str, Any],
    count: int,
) -> None:
    """Each column's sum over the tiles, to ``sums.total``."""
    device.launch(
        "steps",
        f"combine<{data.computed}>",
        -(-data.columns // COLUMNS_OF_BLOCK),
        partials=sums.partials,
        model=data.model,
        update=update,
        count=count,
        theta=theta,
        outcome=results,
    )

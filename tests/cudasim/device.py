"""A device as the cuda backend asks for it, whose kernels the simulator runs on NumPy arrays."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cudasim.simulator import SimulatedFunction, SimulatedModule, SimulatorError, build
from schuss.backends.cuda.device import Device
from schuss.backends.cuda.signatures import Packed, signature
from schuss.backends.cuda.sources import source

__all__ = ["SimulatedDevice"]

# Blocks that run at once: each is a thread of the operating system.
RESIDENT_BLOCKS = 4


class Kernel:
    """A kernel of the simulator, launched as one of CuPy's is."""

    def __init__(self, function: SimulatedFunction, sizes: tuple[int, ...]) -> None:
        if function.sizes != sizes:
            raise SimulatorError(f"{function.name}: parameters of {function.sizes}, not {sizes}")
        self.function = function

    def launch(
        self, blocks: int, threads: int, shared: int, packed: Packed, *, cooperative: bool
    ) -> None:
        self.function.launch(
            (blocks,), (threads,), shared, packed.pointers, cooperative=cooperative
        )

    def resident_blocks(self, threads: int, shared: int) -> int:
        return RESIDENT_BLOCKS


class SimulatedDevice(Device):
    """The CPU as a GPU. What is uploaded is copied, as a GPU would; memory begins as NaN."""

    name = "simulated"

    def __init__(self) -> None:
        self.functions: dict[tuple[str, str], Kernel] = {}

    def function(self, unit: str, expression: str) -> Kernel:
        key = unit, expression
        if key not in self.functions:
            self.prepare(unit, [expression])
        return self.functions[key]

    def prepare(self, unit: str, expressions: list[str]) -> None:
        """Compile several kernels together, which takes less time than one after the other."""
        names = {re.sub(r"\W+", "_", one).strip("_"): one for one in expressions}
        module = SimulatedModule(build(source(unit), names))
        for name, expression in names.items():
            sizes = tuple(p.dtype.itemsize for p in signature(unit, expression).parameters)
            self.functions[unit, expression] = Kernel(module.function(name), sizes)

    def empty(self, shape: Any, dtype: Any) -> np.ndarray:
        made = np.empty(shape, dtype)
        made.view(np.uint8).fill(0xFF)
        return made

    def zeros(self, shape: Any, dtype: Any) -> np.ndarray:
        return np.zeros(shape, dtype)

    def upload(self, array: np.ndarray) -> np.ndarray:
        return np.array(array, order="C", copy=True)

    def download(self, array: np.ndarray) -> np.ndarray:
        return array.copy()

    def seconds(self, work: Callable[[], None]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def address(self, array: np.ndarray) -> int:
        return int(array.ctypes.data)

"""What the backend asks of a GPU, and the GPU behind CuPy.

The tests have another device of the same kind, which runs the kernels' sources on the CPU.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import numpy as np

from schuss.backends.cuda.shapes import BLOCK_THREADS
from schuss.backends.cuda.signatures import Packed, signature
from schuss.backends.cuda.sources import source

__all__ = ["CupyDevice", "Device", "Function", "why_not"]


class Function(Protocol):
    """A compiled kernel."""

    def launch(
        self, blocks: int, threads: int, shared: int, packed: Packed, *, cooperative: bool
    ) -> None:
        """Start it; ``shared`` is the dynamic shared memory of a block, in bytes."""

    def resident_blocks(self, threads: int, shared: int) -> int:
        """Blocks that the whole device runs at once."""


class Device(ABC):
    """A device's memory and kernels. Arrays are its own; they have ``dtype`` and ``shape``."""

    name: str

    @abstractmethod
    def function(self, unit: str, expression: str) -> Function:
        """The kernel of a unit of the sources, compiled."""

    @abstractmethod
    def empty(self, shape: Any, dtype: Any) -> Any:
        """Memory of the device."""

    @abstractmethod
    def zeros(self, shape: Any, dtype: Any) -> Any:
        """The same, set to 0."""

    @abstractmethod
    def upload(self, array: np.ndarray) -> Any:
        """A copy on the device."""

    @abstractmethod
    def download(self, array: Any) -> np.ndarray:
        """A copy in the host's memory, once all that was started is done."""

    @abstractmethod
    def address(self, array: Any) -> int:
        """Where the array's numbers begin."""

    @abstractmethod
    def seconds(self, work: Callable[[], None]) -> float:
        """How long the device takes for all that ``work`` starts."""

    def resident_blocks(self, unit: str, expression: str, shared: int = 0) -> int:
        """Blocks of the kernel that the whole device runs at once."""
        return self.function(unit, expression).resident_blocks(BLOCK_THREADS, shared)

    def launch(
        self,
        unit: str,
        expression: str,
        blocks: int,
        shared: int = 0,
        cooperative: bool = False,
        **arguments: Any,
    ) -> None:
        """Start a kernel, each argument turned into what its source declares.

        Parameters
        ----------
        unit, expression : str
            Such as ``"rows", "margin<float, 32, 2>"``.
        blocks : int
        shared : int
            Dynamic shared memory of a block, in bytes.
        cooperative : bool
            Whether the blocks wait for each other.
        **arguments
            By the names of the kernel's parameters; structs as mappings, null pointers as None.
        """
        packed = signature(unit, expression).pack(arguments, self.address)
        function = self.function(unit, expression)
        function.launch(blocks, BLOCK_THREADS, shared, packed, cooperative=cooperative)


@cache
def why_not() -> str | None:
    """None if a GPU can be used here, else what is missing and how to get it."""
    try:
        import cupy
    except Exception as error:  # also what a broken installation raises
        return f"CuPy is not installed ({error}): pip install 'schuss[cuda13]'"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # a CuPy for another CUDA raises errors of its own
        return f"there is no usable CUDA driver or GPU: {error}"
    if count == 0:
        return "there is no CUDA device"
    capability = cupy.cuda.Device().compute_capability
    if int(capability) < 70:
        return f"the GPU has compute capability {int(capability) / 10}; expected 7.0 or more"
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # a loader's own, of a package that is not ours
        kind = type(error).__name__
        return f"NVRTC was not found ({kind}): pip install nvidia-cuda-nvrtc (CUDA 12: -cu12)"
    return None


class CupyFunction:
    """A kernel that CuPy has compiled."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def launch(
        self, blocks: int, threads: int, shared: int, packed: Packed, *, cooperative: bool
    ) -> None:
        """Start it on CuPy's current stream."""
        import cupy

        driver = cupy.cuda.driver
        start = driver.launchCooperativeKernel if cooperative else driver.launchKernel
        stream, pointers = cupy.cuda.get_current_stream().ptr, ctypes.addressof(packed.pointers)
        sizes = (blocks, 1, 1, threads, 1, 1, shared, stream, pointers)
        start(int(self.kernel.kernel.ptr), *(sizes if cooperative else (*sizes, 0)))

    def resident_blocks(self, threads: int, shared: int) -> int:
        """Blocks that the whole device runs at once."""
        import cupy

        each = cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(
            int(self.kernel.kernel.ptr), threads, shared
        )
        return int(each) * _multiprocessors(cupy.cuda.Device().id)


@cache
def _multiprocessors(device: int) -> int:
    """Of the device of that number; to ask for it takes its time."""
    import cupy

    return int(cupy.cuda.Device(device).attributes["MultiProcessorCount"])


class CupyDevice(Device):
    """The current GPU of CuPy."""

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        self.name = properties["name"].decode()
        self._functions: dict[tuple[str, str], CupyFunction] = {}

    def function(self, unit: str, expression: str) -> CupyFunction:
        """The kernel, compiled when it is first asked for; CuPy keeps it on disk."""
        key = unit, expression
        if key not in self._functions:
            module = self._cupy.RawModule(
                code=source(unit), options=("-std=c++17",), name_expressions=(expression,)
            )
            self._functions[key] = CupyFunction(module.get_function(expression))
        return self._functions[key]

    def empty(self, shape: Any, dtype: Any) -> Any:
        """Memory of the device."""
        return self._cupy.empty(shape, dtype)

    def zeros(self, shape: Any, dtype: Any) -> Any:
        """The same, set to 0."""
        return self._cupy.zeros(shape, dtype)

    def upload(self, array: np.ndarray) -> Any:
        """A copy on the device."""
        return self._cupy.asarray(array)

    def download(self, array: Any) -> np.ndarray:
        """A copy in the host's memory, once all that was started is done."""
        copy: np.ndarray = self._cupy.asnumpy(array)
        return copy

    def address(self, array: Any) -> int:
        """Where the array's numbers begin."""
        return int(array.data.ptr)

    def seconds(self, work: Callable[[], None]) -> float:
        """How long the GPU takes, between two events on its stream."""
        start, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        start.record()
        work()
        end.record()
        end.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(start, end)) / 1e3

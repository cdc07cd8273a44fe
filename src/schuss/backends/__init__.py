"""Which backends this machine has, and which one a run uses.

``auto`` picks native, else jit; the choice is logged. A backend asked for by name that cannot be
used is an error that says why and what to install: there is no silent fallback.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib import resources, util
from typing import Any

from schuss.backends.protocol import Backend, Problem, Rows, Segment, State
from schuss.backends.threads import usable_threads
from schuss.errors import BackendError, InvalidArgument, InvalidType, unknown_name
from schuss.formulas.losses import Loss

__all__ = ["Backend", "Problem", "Rows", "Segment", "State", "available", "choose"]

log = logging.getLogger("schuss")


def _why_not_native() -> str | None:
    if util.find_spec("schuss._native") is None:
        note = resources.files("schuss") / "_native_missing.txt"
        reason = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
        return reason or "the C++ extension is not built; install schuss with a C++ compiler"
    try:
        from schuss import _native  # noqa: F401
    except ImportError as error:
        return f"the C++ extension does not load: {error}"
    return None


def _why_not_jit() -> str | None:
    if util.find_spec("numba") is None:
        return "numba is not installed: pip install numba"
    return None


def _why_not_cuda() -> str | None:
    from schuss.backends.cuda.device import why_not

    return why_not()


_WHY_NOT: dict[str, Callable[[], str | None]] = {
    "reference": lambda: None,
    "jit": _why_not_jit,
    "native": _why_not_native,
    "cuda": _why_not_cuda,
}


def available() -> dict[str, str | None]:
    """Return every backend's name with None, or with why it cannot be used here.

    Returns
    -------
    dict of str to (str or None)

    Examples
    --------
    >>> import schuss
    >>> schuss.backends.available()["reference"] is None
    True
    """
    return {name: why() for name, why in _WHY_NOT.items()}


@cache
def _kernels(name: str) -> Any:
    if name == "native":
        from schuss.backends.native import NativeKernels

        return NativeKernels()
    from schuss.backends.jit import JitKernels

    return JitKernels()


@cache
def _gpu() -> Any:
    from schuss.backends.cuda.device import CupyDevice

    return CupyDevice()


def _make(name: str, threads: int | None) -> Backend:
    if name == "reference":
        from schuss.backends.reference import ReferenceBackend

        return ReferenceBackend()
    if name == "cuda":
        from schuss.backends.cuda.backend import CudaBackend

        return CudaBackend(_gpu())
    from schuss.backends.compiled import CompiledBackend

    return CompiledBackend(name, _kernels(name), usable_threads(threads))


def choose(
    backend: str | Backend = "auto", loss: Loss | None = None, threads: int | None = None
) -> Backend:
    """Return the backend that a name stands for.

    Parameters
    ----------
    backend : {"auto", "reference", "jit", "native", "cuda"} or Backend, default="auto"
    loss : Loss, optional
        The loss it has to support.
    threads : int, optional
        Most threads it may use; None honours affinity, cgroup quota and environment.

    Raises
    ------
    schuss.errors.BackendError
        If the backend asked for by name cannot be used here, or not with this loss.
    schuss.errors.InvalidArgument
        If the name is unknown or ``threads`` is not a positive integer.

    Examples
    --------
    >>> import schuss
    >>> schuss.backends.choose("reference").name
    'reference'
    >>> schuss.backends.choose("cuda")
    Traceback (most recent call last):
        ...
    schuss.errors.BackendError: backend='cuda' cannot be used: ...
    """
    if not isinstance(backend, str):
        if not hasattr(backend, "descend"):
            raise InvalidType(
                f"backend={backend!r}: expected a name or an object with the verbs of "
                "schuss.backends.Backend."
            )
        return backend
    if backend == "auto":
        return _automatic(loss, threads)
    if backend not in _WHY_NOT:
        raise unknown_name("backend", backend, ["auto", *_WHY_NOT])
    why = _WHY_NOT[backend]()
    if why is None:
        made = _make(backend, threads)
        why = made.supports(loss) if loss is not None else None
        if why is None:
            return made
    raise BackendError(f"backend={backend!r} cannot be used: {why}")


def asynchronously(engine: Backend) -> Any:
    """Return the backend with threads that train the same weights at once.

    Parameters
    ----------
    engine : Backend

    Returns
    -------
    AsynchronousBackend

    Raises
    ------
    schuss.errors.InvalidArgument
        If the backend is not a compiled one.

    Examples
    --------
    >>> import schuss
    >>> schuss.backends.asynchronously(schuss.backends.choose("reference"))
    Traceback (most recent call last):
        ...
    schuss.errors.InvalidArgument: asynchronous=True: backend='reference' runs on one thread; ...
    """
    from schuss.backends.asynchronous import AsynchronousBackend
    from schuss.backends.compiled import CompiledBackend

    if not isinstance(engine, CompiledBackend):
        raise InvalidArgument(
            f"asynchronous=True: backend={engine.name!r} runs on one thread; expected 'native' or "
            "'jit'."
        )
    return AsynchronousBackend(engine)


def _automatic(loss: Loss | None, threads: int | None) -> Backend:
    reasons: list[str] = []
    for name in ("native", "jit"):
        why = _WHY_NOT[name]()
        if why is None:
            made = _make(name, threads)
            why = made.supports(loss) if loss is not None else None
            if why is None:
                log.info("backend: %s%s", name, "".join(f" ({r})" for r in reasons))
                return made
        elif name == "native" and util.find_spec("schuss._native") is not None:
            # Built, so meant to be used: what keeps it from loading is not passed over.
            raise BackendError(f"backend='auto': {why}; mend that, or ask for backend='jit'.")
        reasons.append(f"{name}: {why}")
    raise BackendError("backend='auto': none can be used: " + "; ".join(reasons))

"""What a bug report needs: versions, processor, threads, backends.

``schuss info``, ``python -m schuss.info [--json]`` and :func:`schuss.show_versions` print the same
facts. Nothing here fails because something is missing: a part that cannot be found out says so.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from importlib import metadata, util
from typing import Any

__all__ = ["collect", "render", "show_versions"]

#: Packages that schuss needs, then the optional ones with the extra that installs each.
REQUIRED = ("numpy", "numba", "click", "rich")
OPTIONAL = {
    "scikit-learn": "sklearn",
    "pyarrow": "data",
    "matplotlib": "plot",
    "pandas": "plot",
    "plotly": "lab",
    "torch": "torch",
}
ENVIRONMENT = ("SCHUSS_CPU", "SCHUSS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_CACHE_DIR")

_LINUX_FLAGS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl")
_ARM_FLAGS = ("asimd", "sve", "sve2", "bf16")


def collect() -> dict[str, Any]:
    """Everything `schuss info` shows, as JSON can hold it.

    Returns
    -------
    dict
        With the keys schuss, python, platform, packages, processor, threads, backends, native and
        environment. A part that could not be found out is ``{"error": why}``.

    Examples
    --------
    >>> from schuss.info import collect
    >>> collect()["backends"]["reference"]["available"]
    True
    """
    from schuss._version import __version__

    return {
        "schuss": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "packages": _known(_packages),
        "processor": _known(_processor),
        "threads": _known(_threads),
        "backends": _known(_backends),
        "native": _known(_native),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def _known(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return part()
    except Exception as error:  # a report about a broken installation must not break too
        return {"error": f"{type(error).__name__}: {error}"}


def _packages() -> dict[str, Any]:
    extras = {**dict.fromkeys(REQUIRED, None), **OPTIONAL}
    return {
        name: {"version": _version(name), "required": extra is None, "extra": extra}
        for name, extra in extras.items()
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> dict[str, Any]:
    model, flags = _from_cpuinfo()
    features = {name: name in flags for name in (*_LINUX_FLAGS, *_ARM_FLAGS) if name in flags}
    if util.find_spec("schuss._native") is not None:
        from schuss import _native

        features = _native.cpu_features()
    return {
        "model": model or platform.processor() or "unknown",
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "features": [name for name, present in features.items() if present],
    }


def _from_cpuinfo() -> tuple[str, set[str]]:
    """Model and feature flags of the processor, as far as the system tells."""
    if sys.platform == "darwin":
        import subprocess

        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip(), set()
    model, flags = "", set()
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip().lower() in ("model name", "cpu model", "hardware"):
                    model = value.strip()
                elif key.strip().lower() in ("flags", "features"):
                    flags = set(value.split())
                if model and flags:
                    break
    except OSError:
        pass
    return model, flags


def _threads() -> dict[str, Any]:
    from schuss.backends.threads import limits

    found = limits()
    used = min(found.values())
    return {
        "used": used,
        "because": next(source for source, number in found.items() if number == used),
        "limits": found,
    }


def _backends() -> dict[str, Any]:
    from schuss import backends

    why_not = backends.available()
    automatic = next((name for name in ("native", "jit") if why_not.get(name) is None), None)
    return {
        name: {"available": why is None, "automatic": name == automatic, "reason": why}
        for name, why in why_not.items()
    }


def _native() -> dict[str, Any]:
    if util.find_spec("schuss._native") is None:
        return {}
    from schuss import _native

    return {
        "instruction_set": _native.instruction_set(),
        "instruction_sets": _native.instruction_sets(),
        **_native.build_info(),
    }


# ---------------------------------------------------------------------------------------- shown


def render(facts: dict[str, Any], emphasis: Callable[[str], str] = lambda heading: heading) -> str:
    """The facts as lines of text.

    Parameters
    ----------
    facts : dict
        From :func:`collect`.
    emphasis : callable
        Applied to each heading, to print it bold for example.
    """
    rows: dict[str, list[tuple[str, str]]] = {
        "versions": _version_rows(facts),
        "processor": _part(facts, "processor", _processor_rows),
        "threads": _part(facts, "threads", _thread_rows),
        "backends": _part(facts, "backends", _backend_rows),
        "environment": sorted(facts["environment"].items()),
    }
    width = max(len(name) for lines in rows.values() for name, _ in lines)
    text = []
    for heading, lines in rows.items():
        if lines:
            text += [emphasis(heading), *(f"  {name:<{width}}  {value}" for name, value in lines)]
            text.append("")
    return "\n".join(text).rstrip()


def _part(
    facts: dict[str, Any], name: str, rows: Callable[[dict[str, Any]], list[tuple[str, str]]]
) -> list[tuple[str, str]]:
    if "error" in facts[name]:
        return [("unknown", facts[name]["error"])]
    return rows(facts)


def _version_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [(name, facts[name]) for name in ("schuss", "python", "platform")]
    return rows + _part(facts, "packages", _package_rows)


def _package_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, package in facts["packages"].items():
        if package["version"] is not None:
            rows.append((name, package["version"]))
        elif package["required"]:
            rows.append((name, f"missing: pip install {name}"))
        else:
            rows.append((name, f"not installed: pip install '.[{package['extra']}]' from a clone"))
    return rows


def _processor_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    found = facts["processor"]
    rows = [
        ("model", f"{found['model']}, {found['architecture']}"),
        ("features", " ".join(found["features"]) or "none that schuss looks for"),
    ]
    native = facts["native"]
    if "instruction_set" in native:
        others = [name for name in native["instruction_sets"] if name != native["instruction_set"]]
        note = f" (SCHUSS_CPU can choose: {', '.join(others)})" if others else ""
        rows.append(("instruction set", native["instruction_set"] + note))
    elif "error" in native:
        rows.append(("instruction set", f"unknown: {native['error']}"))
    return rows


def _thread_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    found = facts["threads"]
    limits = ", ".join(f"{source} {number}" for source, number in found["limits"].items())
    return [("used", f"{found['used']} (limit: {found['because']})"), ("limits", limits)]


def _backend_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, backend in facts["backends"].items():
        text = "available" if backend["available"] else f"missing: {backend['reason']}"
        if backend["automatic"]:
            text += ", chosen by backend='auto'"
        if name == "native" and backend["available"] and "compiler" in facts["native"]:
            text += f"; compiler {facts['native']['compiler']}"
        rows.append((name, text))
    return rows


def show_versions() -> None:
    """Print versions, processor, threads and backends, as a bug report needs them."""
    print(render(collect()))


def main(arguments: list[str] | None = None) -> int:
    """``python -m schuss.info [--json]``."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments not in ([], ["--json"]):
        print("usage: python -m schuss.info [--json]", file=sys.stderr)
        return 2
    facts = collect()
    print(json.dumps(facts, indent=2) if arguments else render(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())

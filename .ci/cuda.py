"""Compile every CUDA kernel, without a GPU, and hold it to its budget: cuda.py [--update] [ARCH]...

Of each instance of each kernel, for each architecture: registers; bytes of registers that did not
fit; instructions on a thread's own memory, which costs as much as that of the device; loads of 16
bytes, which fewer must not become. A kernel that reads what other blocks write during its launch
must not load anything through the read-only cache. Budgets stand in cuda_budgets.json, which
--update writes anew; they hold for the compiler that they were taken with: where it is another one,
nothing is compared, and the output says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cudasim import instances, nvrtc

from schuss.backends.cuda.sources import UNITS, source

BUDGETS = Path(__file__).with_name("cuda_budgets.json")
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
# Of a budget, in the order in which the file has them; and whether more is worse, or less.
FIELDS = {"registers": 1, "spilled": 1, "local": 1, "wide_loads": -1}

Table = dict[str, dict[str, list[int]]]


def measure(task: tuple[str, str]) -> tuple[dict[str, list[int]], list[str]]:
    """Figures of each kernel of a unit on an architecture, and what no budget can allow."""
    architecture, unit = task
    kernels = nvrtc.compiled(source(unit), instances.expressions(unit), architecture)
    figures = {name: [getattr(one, field) for field in FIELDS] for name, one in kernels.items()}
    stale = [
        f"{architecture} {unit}: {name} loads what other blocks write through the read-only cache"
        for name, one in kernels.items()
        if one.shares and one.read_only_loads
    ]
    return figures, stale


def measured(architectures: list[str]) -> tuple[Table, list[str]]:
    """Figures by "architecture unit" and kernel, and what no budget can allow."""
    tasks = list(product(architectures, UNITS))
    table, faults = {}, []
    with ProcessPoolExecutor() as pool:
        for task, (figures, stale) in zip(tasks, pool.map(measure, tasks), strict=True):
            table[" ".join(task)] = figures
            faults += stale
    return table, faults


def compare(table: Table, budgets: Table) -> list[str]:
    """One line for each figure beyond its budget, and for each kernel without one."""
    faults = []
    for place, kernels in table.items():
        allowed = budgets.get(place, {})
        gone = [f"{place}: {name} is not compiled any more" for name in allowed.keys() - kernels]
        faults += sorted(gone)
        for name, figures in kernels.items():
            if name not in allowed:
                faults.append(f"{place}: {name} has no budget")
                continue
            for (field, sign), now, before in zip(
                FIELDS.items(), figures, allowed[name], strict=True
            ):
                if sign * (now - before) > 0:
                    faults.append(f"{place}: {name}: {field} {now}, the budget is {before}")
    return faults


def summary(table: Table) -> None:
    """Print the extremes of each unit, and every kernel that uses local memory."""
    for place, kernels in table.items():
        most = max(figures[0] for figures in kernels.values())
        wide = sum(figures[3] > 0 for figures in kernels.values())
        print(f"{place}: {len(kernels)} kernels, up to {most} registers, {wide} load 16 bytes")
        for name, (_, spilled, local, _) in kernels.items():
            if spilled or local:
                print(f"  {name}: {spilled} bytes spilled, {local} local instructions")


def written(table: Table) -> str:
    """The file of budgets: a line for each kernel."""
    places = ",\n".join(
        f'  "{place}": {{\n'
        + ",\n".join(f"    {json.dumps(name)}: {figures}" for name, figures in kernels.items())
        + "\n  }"
        for place, kernels in table.items()
    )
    head = {"taken with": nvrtc.version(), "fields": list(FIELDS)}
    return json.dumps(head)[:-1] + f', "budgets": {{\n{places}\n}}}}\n'


def main() -> int:
    """Compile and compare, or rewrite the budgets; the exit status is 1 if there are faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("architectures", nargs="*", default=list(ARCHITECTURES))
    parser.add_argument("--update", action="store_true", help="write the budgets anew")
    asked = parser.parse_args()
    if why := nvrtc.missing():
        raise SystemExit(why)
    table, faults = measured(asked.architectures)
    summary(table)
    recorded = json.loads(BUDGETS.read_text()) if BUDGETS.is_file() else {}
    if asked.update:
        kept = recorded["budgets"] if recorded.get("taken with") == nvrtc.version() else {}
        BUDGETS.write_text(written(kept | table))
    elif recorded.get("taken with") != nvrtc.version():
        print(f"NOT COMPARED: budgets of {recorded.get('taken with')}, this is {nvrtc.version()}")
    else:
        faults += compare(table, recorded["budgets"])
    print("\n".join(faults) or "no faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

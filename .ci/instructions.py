"""Count the instructions per sample of the native kernels: instructions.py [--update].

Times differ from run to run; the counts of valgrind's callgrind repeat exactly. Only the kernels'
own instructions are counted, on one thread. Each case is held to its budget in instructions.json,
which --update writes anew. Budgets hold for the compiler that they were taken with: where it is
another one, nothing is compared, and the output says so. valgrind runs no AVX-512.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np

import schuss.losses
import schuss.rules
from schuss import _native
from schuss.backends import Problem, Segment, State, choose
from schuss.backends.classic import ClassicState, ClassicStep
from schuss.data.sparse import CSR
from schuss.formulas import bijection
from schuss.formulas.penalties import Penalty

BUDGETS = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.03
ROWS = 2048

# callgrind begins a new profile at each call of this function, which nothing else here calls.
MARK = "getsid"


# ---- What is counted -----------------------------------------------------------------------------


def dense(dtype: str, d: int, loss: str) -> tuple[Problem, State]:
    """Data of ROWS rows and parameters to begin with."""
    rng = np.random.default_rng(d)
    X = rng.normal(0, 1 / np.sqrt(d), (ROWS, d)).astype(dtype)
    y = np.where(X[:, 0] > 0, 1, -1).astype(dtype)
    problem = Problem(X, y, None, schuss.losses.get(loss))
    return problem, State.start(np.zeros(d + 1, dtype), schuss.rules.sgd())


def sparse(dtype: str, index: str, nonzeros: int, penalty: Penalty) -> tuple[Problem, State]:
    """Rows of so many entries each, among 4096 columns."""
    rng = np.random.default_rng(nonzeros)
    d = 4096
    columns = np.sort(rng.random((ROWS, d)).argpartition(nonzeros)[:, :nonzeros], axis=1)
    values = rng.normal(0, 1 / np.sqrt(nonzeros), ROWS * nonzeros).astype(dtype)
    begins = np.arange(0, ROWS * nonzeros + 1, nonzeros).astype(index)
    X = CSR(values, columns.ravel().astype(index), begins, (ROWS, d))
    y = rng.choice([-1, 1], ROWS).astype(dtype)
    problem = Problem(X, y, None, schuss.losses.get("squared_error"), penalty)
    return problem, State.start(np.zeros(d + 1, dtype), schuss.rules.sgd())


def cases() -> Iterator[tuple[str, int, Callable[[], object]]]:
    """Name, number of samples, and the call that is counted; a new kernel is one more row."""
    native = choose("native", threads=1)
    rate = np.array([0.01])
    in_order = (0, ROWS)
    shuffled = np.random.default_rng(0).permutation(ROWS).astype(np.int32)

    def descend(data: tuple[Problem, State], batch_size: int, rows=in_order):
        problem, state = data
        return lambda: native.descend(problem, state, Segment(rows, rate, batch_size))

    def gradient(data: tuple[Problem, State]):
        problem, state = data
        return lambda: native.gradient(problem, state.theta, in_order)

    def classic(data: tuple[Problem, State], penalty: Penalty, classes: int):
        problem, state = data
        dtype = state.theta.dtype
        own = np.ones(classes, dtype) if classes > 1 else None
        y = (np.arange(ROWS) % classes).astype(dtype) if classes > 1 else problem.y
        problem = dataclasses.replace(problem, y=y, penalty=penalty)
        theta = np.zeros((classes, state.theta.size), dtype)
        walk = ClassicState.start(theta, own, soft=penalty.l1 > 0)
        segment = Segment(shuffled, rate, 1)
        return lambda: native.descend_classic(problem, ClassicStep(), walk, segment)

    def permute(n: int, count: int):
        keys = bijection.round_keys(0)
        return lambda: native.permute(n, keys, 0, count)

    for dtype, d in product(("float32", "float64"), (5, 20, 100, 1000)):
        data = dense(dtype, d, "squared_error")
        yield f"{dtype} d={d} per sample", ROWS, descend(data, 1)
        for batch_size in (32, 256):
            yield f"{dtype} d={d} batches of {batch_size}", ROWS, descend(data, batch_size)
        yield f"{dtype} d={d} gradient", ROWS, gradient(data)
    for d in (20, 100):
        for how, batch_size in (("per sample", 1), ("batches of 32", 32)):
            data = dense("float32", d, "squared_error")
            yield f"float32 d={d} shuffled {how}", ROWS, descend(data, batch_size, shuffled)
            data = dense("float32", d, "log_loss")
            yield f"float32 d={d} log_loss {how}", ROWS, descend(data, batch_size)
    for dtype, index in (("float32", "int32"), ("float64", "int64")):
        for name, penalty in (("", Penalty()), (" elastic net", Penalty(1e-3, 1e-3))):
            data = sparse(dtype, index, 80, penalty)
            for how, batch_size in (("per sample", 1), ("batches of 32", 32)):
                what = f"{dtype} {index} 80 nonzeros{name} {how}"
                yield what, ROWS, descend(data, batch_size, shuffled)
        yield f"{dtype} {index} 80 nonzeros gradient", ROWS, gradient(data)
    for what, penalty, classes in (
        ("l1", Penalty(0, 1e-3), 1),
        ("10 classes", Penalty(1e-3, 0), 10),
        ("10 classes, l1", Penalty(0, 1e-3), 10),
    ):
        for dtype in ("float32", "float64"):
            data = dense(dtype, 100, "squared_error")
            yield f"{dtype} d=100 classic {what}", ROWS, classic(data, penalty, classes)
        data = sparse("float32", "int32", 80, Penalty())
        yield f"float32 80 nonzeros classic {what}", ROWS, classic(data, penalty, classes)
    yield "permute 10 million", 1 << 16, permute(10**7, 1 << 16)
    yield "permute 10 billion", 1 << 16, permute(10**10, 1 << 16)


def run_cases() -> None:
    """Under callgrind: name each case, run it once, and end its profile."""
    for name in _native.instruction_sets():
        _native.use_instruction_set(name)
        for case, samples, call in cases():
            print(json.dumps([name, case, samples]))
            os.getsid(0)
            call()
            os.getsid(0)


# ---- Counting ------------------------------------------------------------------------------------


def kernel_instructions(profile: str, instruction_set: str) -> int:
    """Instructions of one kernel file's functions; what they call outside it is left out."""
    found, inside = 0, False
    names: dict[str, str] = {}  # a name is written out where it first stands
    lines = iter(profile.splitlines())
    for line in lines:
        if named := re.match(r"c?fn=(\(\d+\))(?: (.*))?", line):
            number, name = named.groups()
            name = names.setdefault(number, name or "")
            if line.startswith("fn="):
                inside = f"schuss::{instruction_set}::" in name
        elif line.startswith("calls="):
            next(lines)  # the cost of a call, which stands with the function called too
        elif inside and re.match(r"[-+*\d]", line):
            found += int(line.split()[-1])
    return found


def measured() -> dict[str, dict[str, float]]:
    """Instructions per sample of each case, by instruction set."""
    if shutil.which("valgrind") is None:
        raise SystemExit("instructions.py needs valgrind: apt-get install valgrind")
    table: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--dump-before={MARK}"]
        command += [f"--callgrind-out-file={folder}/profile", sys.executable, __file__, "--run"]
        # The order of sets moves what lies in memory.
        environment = os.environ | {"PYTHONHASHSEED": "0", "SCHUSS_CPU": ""}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        for k, line in enumerate(done.stdout.splitlines()):
            instruction_set, case, samples = json.loads(line)
            # Profile 1 is that of the start; then those of the cases and of what lies between.
            profile = Path(folder, f"profile.{2 * k + 2}").read_text(encoding="utf-8")
            count = kernel_instructions(profile, instruction_set)
            if count == 0:
                raise SystemExit(f"{instruction_set}, {case}: no instruction of a kernel was seen")
            table.setdefault(instruction_set, {})[case] = round(count / samples, 2)
    return table


def compiler() -> dict[str, str]:
    """What the counts depend on beside the sources."""
    flags = [
        flag
        for flag in (sysconfig.get_config_var("CFLAGS") or "").split()
        if re.match("-[Ofm]", flag) and "prefix-map" not in flag
    ]
    return {
        "machine": platform.machine(),
        "compiler": _native.build_info()["compiler"],
        "flags of Python's own": " ".join(flags),
    }


# ---- Comparing -----------------------------------------------------------------------------------


def report(table: dict[str, dict[str, float]], budgets: dict[str, dict[str, float]]) -> int:
    """Print each case beside its budget; returns how many have none, or exceed it."""
    faults = 0
    for instruction_set in sorted(table | budgets):
        now, before = table.get(instruction_set, {}), budgets.get(instruction_set, {})
        print(f"{instruction_set}: instructions per sample, budget, change")
        for case in now | before:
            if case not in now or case not in before:
                text = "has no budget" if case in now else "is not measured any more"
                faults += 1
                print(f"  {case:44}{text}: run instructions.py --update")
                continue
            change = now[case] / before[case] - 1
            over = change > TOLERANCE
            faults += over
            note = "  TOO MANY" if over else "  --update records it" if change < -TOLERANCE else ""
            print(f"  {case:44}{now[case]:10.2f}{before[case]:10.2f}{change:+9.1%}{note}")
    return faults


def main() -> int:
    """Count and compare, or rewrite the budgets; the exit status is 1 if a budget is exceeded."""
    if "--run" in sys.argv:
        run_cases()
        return 0
    table, here = measured(), compiler()
    if "--update" in sys.argv:
        text = json.dumps({"taken with": here, "instructions per sample": table}, indent=2)
        BUDGETS.write_text(text + "\n", encoding="utf-8")
        print(f"{sum(map(len, table.values()))} budgets written to {BUDGETS}")
        return 0
    recorded = json.loads(BUDGETS.read_text(encoding="utf-8"))
    if recorded["taken with"] != here:
        print(f"NOT COMPARED: budgets are those of {recorded['taken with']}, this build is {here}")
        report(table, table)
        return 0
    faults = report(table, recorded["instructions per sample"])
    print(f"{faults} of {sum(map(len, table.values()))} cases beyond {TOLERANCE:.0%} or unknown")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

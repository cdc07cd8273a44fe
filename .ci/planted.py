"""Prove that a build with sanitizers looks at every kernel file: planted.py {memory|races}.

Kernels trust what they are handed. Handed a row that is not there, they read beyond X; a row number
that no product can hold overflows; two threads that share their parameters race. Each must end the
process with a report that names the fault and the kernel.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading

import numpy as np

import schuss.losses
import schuss.rules
from schuss import _native
from schuss.backends import Problem, Segment, State, choose

# Of the report that must appear; {} is the instruction set.
EXPECTED = {
    "overrun": r"heap-buffer-overflow[^#]*#0 .*\bschuss::{}::",
    "overflow": r"signed integer overflow[^#]*#0 .*\bschuss::{}::",
    "race": r"data race[^#]*#0 .*\bschuss::{}::",
}


def overrun() -> None:
    """Read the row after the last."""
    X = np.ones((100, 8), np.float32)
    choose("native").margin(X, np.ones(9, np.float32), (0, 101))


def overflow() -> None:
    """Visit a row whose place no 64-bit number can hold."""
    X = np.ones((100, 8), np.float32)
    choose("native").margin(X, np.ones(9, np.float32), (2**62, 1))


def race() -> None:
    """Train the same parameters in two threads at once."""
    X = np.ones((1000, 8), np.float32)
    problem = Problem(X, X[:, 0].copy(), None, schuss.losses.squared_error())
    state = State.start(np.zeros(9, np.float32), schuss.rules.sgd())
    segment = Segment(np.tile(np.arange(1000, dtype=np.int32), 200), np.array([1e-3]), 1)
    native = choose("native", threads=1)
    gate = threading.Barrier(2)

    def train() -> None:
        gate.wait()
        for _ in range(5):
            native.descend(problem, state, segment)

    pair = [threading.Thread(target=train) for _ in range(2)]
    for thread in pair:
        thread.start()
    for thread in pair:
        thread.join()


FAULTS = {"memory": (overrun, overflow), "races": (race,)}


def main() -> int:
    """Plant each fault in a process of its own; the exit status is 1 if one goes unseen."""
    if len(sys.argv) == 3:
        _native.use_instruction_set(sys.argv[2])
        globals()[sys.argv[1]]()
        return 0
    unseen = 0
    for fault in FAULTS[sys.argv[1]]:
        for name in _native.instruction_sets():
            done = subprocess.run(
                [sys.executable, __file__, fault.__name__, name],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            seen = re.search(EXPECTED[fault.__name__].format(name), done.stderr)
            found = bool(seen and done.returncode)
            unseen += not found
            print(f"planted {fault.__name__}, {name}: {'reported' if found else 'NOT REPORTED'}")
            if not found:
                print(f"exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return 1 if unseen else 0


if __name__ == "__main__":
    sys.exit(main())

"""A run that is killed, at any moment, ends with the bits of the run that was not.

Real processes and a real SIGKILL. The runs write a checkpoint every few milliseconds, so that most
kills fall into writing, renaming and tidying up.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

PROGRAM = textwrap.dedent(
    """
    import sys
    import numpy as np, schuss

    path, variant = sys.argv[1], int(sys.argv[2])
    rng = np.random.default_rng(5)
    X = rng.normal(size=(640, 5))
    y = X @ [1.0, -1.0, 2.0, 0.0, 0.5] + rng.normal(size=640)
    arguments = [
        {"rule": "sgd(momentum=0.9)", "validation": 0.2, "tol": 0.0, "patience": 1000},
        {"rule": "adam", "average": 500, "evaluate": "both"},
        {"batch_size": 1, "alpha": 0.01, "l1_ratio": 0.5, "order": "blocks(rows=16, buffer=4)"},
        {"order": "stratified(balanced=True)", "loss": "log_loss", "rule": "adagrad"},
    ][variant]
    if arguments.get("loss"):
        y = y > 0
    result = schuss.fit(
        X,
        y,
        **({"batch_size": 8} | arguments),
        learning_rate="power(0.05, exponent=0.6)",
        updates=4500,
        record_every=15,
        backend="reference",
        checkpoint=schuss.data.Checkpoint(path, every=1) if path else None,
        callbacks=lambda moment: print("at", moment.updates, flush=True),
    )
    result.save(sys.argv[3])
    """
)


def start(path, variant: int, output) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), str(variant), str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert not err, err  # no checkpoint was found damaged
    return out


def outcome(output) -> tuple:
    """What must be the same: all but the clock."""
    import schuss

    result = schuss.load(output)
    columns = result.history.to_dict()
    for name in ("seconds", "samples_per_second"):
        del columns[name]
    return result.coef.tobytes(), float(result.intercept).hex(), repr(columns), result.stop_reason


def killed_until_done(folder, variant: int, kills: int, rng: random.Random) -> tuple[int, int]:
    """Kill the run at random moments until it has been killed often enough, then let it end.

    Returns how often it was killed, and at how many different points of the run.
    """
    path, points = folder / "run.ckpt", []
    for _ in range(kills):
        process = start(path, variant, folder / "killed.npz")
        assert process.stdout is not None
        first = process.stdout.readline()  # training is under way
        assert first.startswith("at "), process.stderr and process.stderr.read()
        time.sleep(rng.uniform(0, 0.75 / kills))  # in all, less than the run takes
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, err
        assert not err, err
        points.append(int((first + out).split("\n")[-2].split()[1]))
    finish(start(path, variant, folder / "killed.npz"))
    left = {name for name in os.listdir(folder) if "ckpt" in name}
    assert left == {"run.ckpt", "run.ckpt.1"}, left
    return len(points), len(set(points))


def sweep(tmp_path, variant: int, kills: int, seed: int) -> None:
    finish(start("", variant, tmp_path / "whole.npz"))
    killed, different = killed_until_done(tmp_path, variant, kills, random.Random(seed))
    assert killed == kills and different > kills // 2
    assert outcome(tmp_path / "killed.npz") == outcome(tmp_path / "whole.npz")


@pytest.mark.parametrize("variant", range(4))
def test_killed_at_random_moments(variant, tmp_path):
    """Twenty in all."""
    sweep(tmp_path, variant, kills=5, seed=variant)


@pytest.mark.nightly
@pytest.mark.parametrize("variant", range(4))
def test_killed_at_many_random_moments(variant, tmp_path):
    for seed in range(10):
        folder = tmp_path / str(seed)
        folder.mkdir()
        sweep(folder, variant, kills=10, seed=1000 + 10 * variant + seed)


def test_termination_writes_a_checkpoint_first(tmp_path):
    """SIGTERM ends the process as it would have, after the state is safe."""
    finish(start("", 0, tmp_path / "whole.npz"))
    path = tmp_path / "run.ckpt"
    program = PROGRAM.replace("every=1)", "every='1h')")
    for wait in (0.0, 0.1):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(path), "0", str(tmp_path / "killed.npz")],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGTERM
        assert path.exists() and not (tmp_path / "killed.npz").exists()
    finish(start(path, 0, tmp_path / "killed.npz"))
    assert outcome(tmp_path / "killed.npz") == outcome(tmp_path / "whole.npz")

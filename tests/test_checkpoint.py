"""Checkpoints: a run that was stopped ends with the bits of the run that was not."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import time

import numpy as np
import pytest
from test_fit import Listener, bits

import schuss
from schuss.data import Checkpoint, container
from schuss.errors import (
    CheckpointError,
    CheckpointWarning,
    DataError,
    InterruptedWarning,
    InvalidArgument,
    InvalidType,
)

N = 2500
UPDATES = 79  # of an epoch with batches of 32
RNG = np.random.default_rng(11)
X = RNG.normal(size=(N, 6))
Y = X @ [1.0, -1.0, 0.5, 0.0, 2.0, -0.25] + 1 + RNG.normal(size=N)
LABELS = np.where(Y > 1, "up", "down")
WEIGHT = RNG.integers(1, 5, N) / 2.0

# Runs that differ in what they remember. On the reference backend an epoch of steps of one row is
# two segments, the first of 2000 steps, so these can be stopped within an epoch.
RUNS = [
    {},
    {"batch_size": 1, "learning_rate": "inverse_time(0.01, decay=0.001)"},
    {"batch_size": 1, "rule": "sgd(momentum=0.9)", "learning_rate": 1e-3, "record_every": 700},
    {"rule": "adam", "learning_rate": 0.01, "average": 75, "validation": 0.2, "seed": 9},
    {"rule": "adagrad", "learning_rate": 0.1, "alpha": 0.01, "evaluate": "both", "accumulate": 3},
    {"alpha": 0.05, "l1_ratio": 0.5, "order": "blocks(rows=64, buffer=4)", "average": True},
    {"order": "weighted", "sample_weight": WEIGHT, "validation": (X[:99], Y[:99]), "drop_last": 1},
    {"loss": "log_loss", "order": "stratified(balanced=True)", "class_weight": {"up": 2.0}},
    {"learning_rate": "auto", "tol": 1e-4, "patience": 3, "validation": 0.3, "clip_norm": 0.5},
]
IDS = [", ".join(f"{k}={v}" for k, v in run.items() if np.isscalar(v)) for run in RUNS]


def fit(**arguments) -> schuss.Result:
    defaults = {"epochs": 4, "learning_rate": 0.01, "backend": "reference"}
    given = defaults | arguments
    given["drop_last"] = bool(given.get("drop_last", False))
    return schuss.fit(X, LABELS if given.get("loss") == "log_loss" else Y, **given)


class Interrupter(Listener):
    """Presses Ctrl-C after so many updates."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def update(self, updates, *values):
        super().update(updates, *values)
        if updates >= self.after:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0)  # a bytecode boundary, where Python runs the handler


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.ckpt"


# ---- Exact resume --------------------------------------------------------------------------


@pytest.mark.parametrize("run", RUNS, ids=IDS)
def test_a_run_that_is_interrupted_again_and_again(run, path, backend):
    """Within epochs, at their ends, before the first record, in several pieces."""
    expected = fit(**run, backend=backend)
    total = int(expected.history["updates"][-1])
    every = Checkpoint(path, every="1h")
    for part in (0.05, 0.3, 0.31, 0.7, 0.98):
        listener = Interrupter(int(part * total))
        with pytest.warns(InterruptedWarning):
            stopped = fit(**run, backend=backend, checkpoint=every, progress=listener)
        assert stopped.stop_reason == "interrupted"
        assert path.exists()
        if listener.calls[-2][1] >= total:
            break
    result = fit(**run, backend=backend, checkpoint=every)
    assert bits(result) == bits(expected)


@pytest.mark.parametrize("run", RUNS, ids=IDS)
def test_a_run_that_is_interrupted_by_a_callback(run, path, backend):
    def interrupt(moment):
        raise KeyboardInterrupt

    expected = fit(**run, backend=backend)
    for _ in range(2):
        with pytest.warns(InterruptedWarning):
            fit(**run, backend=backend, checkpoint=Checkpoint(path), callbacks=interrupt)
    assert bits(fit(**run, backend=backend, checkpoint=Checkpoint(path))) == bits(expected)


@pytest.mark.parametrize("cut", [1, 50, 79, 100, 237])
@pytest.mark.parametrize("run", [RUNS[0], RUNS[3], RUNS[5]], ids=[IDS[0], IDS[3], IDS[5]])
def test_a_run_that_gets_more_updates(run, cut, path, backend):
    run = {"learning_rate": 0.01} | run
    first = fit(**run, backend=backend, updates=cut + 75, checkpoint=Checkpoint(path))
    assert first.stop_reason == "updates"
    result = fit(**run, backend=backend, updates=4 * UPDATES, checkpoint=Checkpoint(path))
    expected = fit(**run, backend=backend, updates=4 * UPDATES)
    assert bits(result)[:2] == bits(expected)[:2]
    for name in ("epoch", "updates", "samples", "learning_rate", "validation_loss"):
        assert np.array_equal(result.history[name], expected.history[name], equal_nan=True)
    # Sums of losses that were cut in two may round differently.
    np.testing.assert_allclose(
        result.history["train_loss"], expected.history["train_loss"], rtol=1e-13
    )


@pytest.mark.parametrize("run", RUNS[:-1], ids=IDS[:-1])
def test_a_run_that_gets_more_epochs(run, path, backend):
    first = fit(**run, backend=backend, epochs=2, checkpoint=Checkpoint(path))
    assert bits(first) == bits(fit(**run, backend=backend, epochs=2))
    result = fit(**run, backend=backend, checkpoint=Checkpoint(path))
    expected = fit(**run, backend=backend)
    assert bits(result)[:2] == bits(expected)[:2]
    if "record_every" not in run:
        assert bits(result) == bits(expected)


@pytest.mark.parametrize("run", RUNS, ids=IDS)
def test_a_run_that_had_too_little_time(run, path):
    expected = fit(**run)
    limit = 0.0
    for _ in range(100):
        limit += 0.03
        result = fit(**run, time_limit=limit, checkpoint=Checkpoint(path))
        if result.stop_reason != "time_limit":
            break
    assert bits(result) == bits(expected)


def test_a_finished_run_is_read_back(path, backend):
    for run in (RUNS[0], RUNS[2], RUNS[8]):
        checkpoint = Checkpoint(path, every=500)
        first = fit(**run, backend=backend, checkpoint=checkpoint)
        again = fit(**run, backend=backend, checkpoint=checkpoint)
        assert bits(again) == bits(first)
        if "record_every" not in run:
            assert np.array_equal(again.history["seconds"], first.history["seconds"])
        path.unlink()
        path.with_name("run.ckpt.1").unlink()


def test_a_finished_run_asks_its_schedule_for_nothing_more(path):
    table = np.linspace(0.01, 0.001, 2 * UPDATES)
    common = {"epochs": 2, "learning_rate": lambda t: table[t.astype(int)]}
    first = fit(**common, checkpoint=Checkpoint(path))
    assert bits(fit(**common, checkpoint=Checkpoint(path))) == bits(first)


def test_a_run_that_patience_ended_stays_ended(path):
    common = {"tol": 100.0, "patience": 2, "checkpoint": Checkpoint(path)}
    first = fit(**common, epochs=5)
    assert first.stop_reason == "tol" and len(first.history) == 3
    again = fit(**common, epochs=50)
    assert bits(again) == bits(first)


def test_a_run_that_a_callback_ended_goes_on(path):
    expected = fit()
    first = fit(checkpoint=Checkpoint(path), callbacks=lambda moment: moment.epoch == 2)
    assert first.stop_reason == "callback"
    assert bits(fit(checkpoint=Checkpoint(path))) == bits(expected)


def test_patience_is_remembered(path):
    """Two bad records before the interruption and two after it are four."""
    common = {"tol": 100.0, "patience": 4, "epochs": 50}
    expected = fit(**common)
    with pytest.warns(InterruptedWarning):
        fit(**common, checkpoint=Checkpoint(path), progress=Interrupter(3 * UPDATES))
    assert bits(fit(**common, checkpoint=Checkpoint(path))) == bits(expected)


def test_a_fresh_run_is_what_it_is_without_a_checkpoint(path, backend):
    for every in (1, 33, "1h", "0.001s"):
        result = fit(backend=backend, checkpoint=Checkpoint(path, every=every))
        assert bits(result) == bits(fit(backend=backend))
        for file in os.listdir(path.parent):
            path.with_name(file).unlink()


def test_seconds_go_on_counting(path):
    def slow(moment):
        time.sleep(0.05)

    first = fit(epochs=2, checkpoint=Checkpoint(path), callbacks=slow)
    second = fit(epochs=3, checkpoint=Checkpoint(path))
    seconds = second.history["seconds"]
    assert np.array_equal(seconds[:2], first.history["seconds"])
    assert seconds[2] > seconds[1] > 0.05


def test_minimize_resumes(path, backend):
    def gradient(w, A, b):
        return A.T @ (A @ w - b) / len(b)

    def loss(w, A, b):
        return np.mean((A @ w - b) ** 2) / 2

    def run(**more):
        return schuss.minimize(
            gradient,
            np.zeros(6),
            (X, Y),
            loss_fn=loss,
            rule="adam",
            epochs=4,
            backend=backend,
            **more,
        )

    theta, history = run()
    for updates in (50, 200):
        with pytest.warns(InterruptedWarning):
            run(checkpoint=Checkpoint(path), progress=Interrupter(updates))
    again, story = run(checkpoint=Checkpoint(path))
    assert again.tobytes() == theta.tobytes()
    assert np.array_equal(story["train_loss"], history["train_loss"])
    with pytest.raises(CheckpointError, match="belongs to another run: seed is 0 there and 1"):
        run(checkpoint=Checkpoint(path), seed=1)
    with pytest.raises(CheckpointError, match="belongs to another run"):
        fit(checkpoint=Checkpoint(path), backend=backend)


# ---- Another run's checkpoint --------------------------------------------------------------

CHANGES = [
    ({"loss": "huber"}, "loss"),
    ({"rule": "sgd(momentum=0.5)"}, "rule"),
    ({"learning_rate": 0.02}, "learning_rate"),
    ({"order": "sequential"}, "order"),
    ({"batch_size": 16}, "batch_size"),
    ({"accumulate": 2}, "accumulate"),
    ({"drop_last": True}, "drop_last"),
    ({"alpha": 0.1}, "alpha"),
    ({"l1_ratio": 0.1}, "l1_ratio"),
    ({"fit_intercept": False}, "fit_intercept"),
    ({"clip_norm": 1.0}, "clip_norm"),
    ({"average": True}, "average"),
    ({"evaluate": "full"}, "evaluate"),
    ({"record_every": 10}, "record_every"),
    ({"tol": 0.0}, "tol"),
    ({"tol": 1e-3, "patience": 7}, "tol"),
    ({"gtol": 1e-9}, "gtol"),
    ({"seed": 1}, "seed"),
    ({"dtype": "float32"}, "dtype"),
    ({"backend": "jit"}, "backend"),
    ({"validation": 0.1}, "validation"),
    ({"validation": (X, Y)}, "validation"),
    ({"init": (np.ones(6), 0.0)}, "start"),
    ({"sample_weight": WEIGHT}, "data"),
]


@pytest.mark.parametrize(("change", "key"), CHANGES, ids=[k for _, k in CHANGES])
def test_another_run_is_refused_and_the_difference_named(change, key, path):
    fit(epochs=1, checkpoint=Checkpoint(path))
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=f"belongs to another run: {key} is .* there and"):
        fit(**change, checkpoint=Checkpoint(path))
    assert path.read_bytes() == before


def test_every_key_of_the_configuration_is_tested():
    config = fit(epochs=1).config
    tested = {key for _, key in CHANGES} | {name for change, _ in CHANGES for name in change}
    assert set(config) - {"format"} <= tested


def test_other_data_are_refused(path):
    common = {"batch_size": 32, "epochs": 1, "checkpoint": Checkpoint(path), "learning_rate": 0.1}
    schuss.fit(X, Y, validation=(X[:50], Y[:50]), **common)
    one_bit = Y.copy()
    one_bit[77] = np.nextafter(one_bit[77], 10)
    for given, validation, key in [
        ((X, one_bit), (X[:50], Y[:50]), "data"),
        ((X[:-1], Y[:-1]), (X[:50], Y[:50]), "data"),
        ((X, Y), (X[:50], Y[1:51]), "validation_data"),
        ((X, Y), (X[:50], Y[:50], np.full(50, 2.0)), "validation_data"),
    ]:
        with pytest.raises(CheckpointError, match=f": {key} is"):
            schuss.fit(*given, validation=validation, **common)


def test_weights_of_the_order_belong_to_the_data(path):
    """Other weights with the same mean visit other rows."""
    fit(order="weighted", sample_weight=WEIGHT, epochs=1, checkpoint=Checkpoint(path))
    with pytest.raises(CheckpointError, match=": data is"):
        fit(order="weighted", sample_weight=WEIGHT[::-1], checkpoint=Checkpoint(path))


def test_labels_may_have_other_names_but_not_other_places(path):
    common = {"loss": "log_loss", "learning_rate": 0.1, "checkpoint": Checkpoint(path)}
    schuss.fit(X, LABELS, epochs=1, **common)
    result = schuss.fit(X, (LABELS == "up").astype(int), epochs=2, **common)
    assert result.classes.tolist() == [0, 1]
    with pytest.raises(CheckpointError, match=": data is"):
        schuss.fit(X, np.roll(LABELS, 1), epochs=2, **common)


def test_another_function_for_the_learning_rate_is_another_run(path):
    def decay(step):
        return 0.1 / (1 + step)

    def slower(step):
        return 0.1 / (2 + step)

    slower.__qualname__ = decay.__qualname__
    first = fit(epochs=1, learning_rate=decay, checkpoint=Checkpoint(path))
    fit(epochs=1, learning_rate=decay, checkpoint=Checkpoint(path))
    with pytest.raises(CheckpointError, match="learning_rate is"):
        fit(epochs=2, learning_rate=slower, checkpoint=Checkpoint(path))
    assert "decay" in first.config["learning_rate"]


def test_the_auto_rate_of_a_longer_run_is_another(path):
    fit(epochs=1, learning_rate="auto", checkpoint=Checkpoint(path))
    with pytest.raises(CheckpointError, match=r"learning_rate is 'cosine.*there and 'cosine"):
        fit(epochs=2, learning_rate="auto", checkpoint=Checkpoint(path))


def test_a_checkpoint_beyond_the_end_is_refused(path):
    fit(epochs=3, checkpoint=Checkpoint(path))
    with pytest.raises(CheckpointError, match="has 3 epochs behind it, epochs=2 asks for fewer"):
        fit(epochs=2, checkpoint=Checkpoint(path))
    with pytest.raises(CheckpointError, match="updates behind it, updates=10 asks for fewer"):
        fit(updates=10, checkpoint=Checkpoint(path))


# ---- Damage --------------------------------------------------------------------------------


def damaged(data: bytes) -> dict[str, bytes]:
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    return {"empty": b"", "cut": data[:middle], "flipped": flipped, "foreign": b"no checkpoint"}


@pytest.mark.parametrize("kind", ["empty", "cut", "flipped", "foreign"])
def test_the_previous_checkpoint_is_used_where_the_newest_is_damaged(kind, path):
    expected = fit()
    fit(epochs=2, checkpoint=Checkpoint(path, every=50))
    path.write_bytes(damaged(path.read_bytes())[kind])
    with pytest.warns(CheckpointWarning, match=r"run\.ckpt'.*Going on from '.*\.1'") as caught:
        result = fit(checkpoint=Checkpoint(path))
    assert caught[0].filename == fit.__code__.co_filename
    assert bits(result) == bits(expected)


def test_all_damaged_is_an_error_that_says_what_to_do(path):
    fit(epochs=2, checkpoint=Checkpoint(path, every=50, keep=3))
    for file in Checkpoint(path, keep=3).generations:
        assert file.exists()
        file.write_bytes(b"gone")
    with pytest.raises(CheckpointError, match=r"no readable checkpoint: .*Remove the files"):
        fit(checkpoint=Checkpoint(path, keep=3))
    for file in Checkpoint(path, keep=3).generations:
        file.unlink()
    assert bits(fit(checkpoint=Checkpoint(path, keep=3))) == bits(fit())


def test_a_model_is_no_checkpoint(path):
    fit(epochs=1).save(path.with_suffix(".npz"))
    path.with_suffix(".npz").rename(path)
    with pytest.raises(CheckpointError, match="is a 'model' file, not a checkpoint"):
        fit(checkpoint=Checkpoint(path))


def test_a_kill_between_the_renames_loses_nothing(path):
    """The newest state then stands under its temporary name alone."""
    expected = fit()
    fit(epochs=2, checkpoint=Checkpoint(path, every=50))
    path.rename(path.with_name(".run.ckpt.new"))
    assert path.with_name("run.ckpt.1").exists()
    assert bits(fit(checkpoint=Checkpoint(path))) == bits(expected)
    assert sorted(os.listdir(path.parent)) == ["run.ckpt", "run.ckpt.1"]


def test_removing_the_files_starts_anew(path):
    """Whatever a killed process may have left under a hidden name."""
    fit(epochs=2, seed=1, checkpoint=Checkpoint(path, every=50))
    shutil.move(path, path.with_name(".run.ckpt.new"))
    path.with_name("run.ckpt.1").unlink()
    assert bits(fit(checkpoint=Checkpoint(path))) == bits(fit())


def test_what_killed_writers_left_is_tidied_up(path):
    writers = [container.atomic_write(path.with_name(f".{name}.new")) for name in ("run.ckpt", "b")]
    left, other = (writer.__enter__() for writer in writers)
    fit(epochs=1, checkpoint=Checkpoint(path))
    assert not left.exists() and other.exists()


# ---- When and where ------------------------------------------------------------------------


class Writes(Checkpoint):
    """Counts what is written, and at which update."""

    def write(self, arrays, header):
        super().write(arrays, header)
        self.log.append(header["updates"])


def written(path, **arguments) -> list[int]:
    checkpoint = Writes(path, **arguments)
    object.__setattr__(checkpoint, "log", [])
    fit(batch_size=1, epochs=2, checkpoint=checkpoint, learning_rate=1e-3)
    return checkpoint.log


def test_every_so_many_updates(path):
    """At the end of the segment in which they were reached, and at the end of the run."""
    assert written(path, every=1) == [2000, 2500, 4500, 5000, 5000]
    path.unlink()
    path.with_name("run.ckpt.1").unlink()
    assert written(path, every=2100) == [2500, 5000, 5000]


def test_every_so_much_time(path):
    assert written(path, every="1h") == [5000]
    path.unlink()
    assert written(path, every="0.000001s")[0] == 2000


def test_the_last_few_are_kept(path):
    for keep in (1, 2, 4):
        fit(checkpoint=Checkpoint(path, every=1, keep=keep))
        files = sorted(os.listdir(path.parent))
        assert files == ["run.ckpt", *(f"run.ckpt.{k}" for k in range(1, keep))]
        updates = [
            container.read(file, "checkpoint")[1]["updates"]
            for file in Checkpoint(path, keep=keep).generations
        ]
        assert updates == sorted(updates, reverse=True) and updates[0] == 4 * UPDATES
        for file in files:
            path.with_name(file).unlink()


@pytest.mark.parametrize(
    ("every", "seconds"),
    [("30s", 30), ("5min", 300), ("2h", 7200), (" 1.5 min ", 90), ("10 sec", 10), (7, None)],
)
def test_time_between_two(every, seconds):
    assert Checkpoint("x", every=every).seconds == seconds


BAD = [
    ({"every": 0}, InvalidArgument, "every=0: .*>= 1"),
    ({"every": -3}, InvalidArgument, "every=-3: .*>= 1"),
    ({"every": 1.5}, InvalidType, r"every=1\.5: expected an integer"),
    ({"every": None}, InvalidType, "every=None: expected an integer"),
    ({"every": True}, InvalidType, "every=True: expected an integer"),
    ({"every": "often"}, InvalidArgument, "every='often'.*'30s', '5min', '2h'"),
    ({"every": "5 weeks"}, InvalidArgument, "every='5 weeks'.*'30s'"),
    ({"every": "0s"}, InvalidArgument, "every='0s'"),
    ({"every": "-5s"}, InvalidArgument, "every='-5s'"),
    ({"every": "10"}, InvalidArgument, "every='10'"),
    ({"keep": 0}, InvalidArgument, "keep=0: .*>= 1"),
    ({"keep": "all"}, InvalidType, "keep='all': expected an integer"),
    ({"path": None}, InvalidType, "path=None.*expected a file name"),
    ({"path": 3}, InvalidType, "path=3.*expected a file name"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=rf"Checkpoint\(.*{message}"):
        Checkpoint(**({"path": "run.ckpt"} | arguments))


def test_a_checkpoint_is_a_value():
    checkpoint = Checkpoint("a", every=3)
    assert checkpoint == Checkpoint("a", every=3) != Checkpoint("b", every=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        checkpoint.keep = 5


def test_an_unwritable_path_is_refused_before_training(tmp_path):
    trained = []
    for path, message in [
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "run.ckpt", "does not exist"),
        ("run\0.ckpt", "NUL"),
    ]:
        with pytest.raises(DataError, match=f"^checkpoint=.*{message}"):
            fit(checkpoint=Checkpoint(path), callbacks=trained.append)
        with pytest.raises(DataError, match=f"^checkpoint=.*{message}"):
            schuss.minimize(
                lambda w, A, b: w, np.zeros(6), (X, Y), checkpoint=Checkpoint(path),
                callbacks=trained.append,
            )  # fmt: skip
    assert not trained and os.listdir(tmp_path) == []


def test_a_disk_that_fills_up_costs_no_training(path, monkeypatch):
    expected = fit()

    def full(*arguments, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(container, "write", full)
    with pytest.warns(CheckpointWarning, match="could not be written .No space left") as caught:
        result = fit(checkpoint=Checkpoint(path, every=50))
    assert bits(result) == bits(expected)
    assert caught[0].filename == fit.__code__.co_filename


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(epochs=2, checkpoint=Checkpoint("run.ckpt", every=50))
    assert sorted(os.listdir()) == ["run.ckpt", "run.ckpt.1"]
    assert bits(fit(checkpoint=Checkpoint("./run.ckpt"))) == bits(fit())

"""Ctrl-C and SIGTERM: what a fit, and the program around it, make of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import numpy as np
import pytest
from support import run_python
from test_checkpoint import Interrupter
from test_fit import Listener, bits

import schuss
from schuss.backends.reference import ReferenceBackend
from schuss.errors import InterruptedWarning

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

RNG = np.random.default_rng(2)
X = RNG.normal(size=(3000, 5))
Y = X @ [1.0, 2.0, 3.0, 4.0, 5.0]


class Presser(Listener):
    """Presses Ctrl-C as soon as it is told of progress."""

    def update(self, *values):
        super().update(*values)
        os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_fit_returns_what_it_had(backend):
    whole = schuss.fit(X, Y, epochs=5, learning_rate=0.01, backend=backend)
    with pytest.warns(InterruptedWarning, match="interrupted after 188 updates") as caught:
        result = schuss.fit(
            X, Y, epochs=5, learning_rate=0.01, backend=backend, progress=Interrupter(150)
        )
    assert caught[0].filename == __file__
    assert result.stop_reason == "interrupted" and len(result.history) == 2
    assert np.array_equal(result.history["train_loss"], whole.history["train_loss"][:2])
    two = schuss.fit(X, Y, epochs=2, learning_rate=0.01, backend=backend)
    assert result.coef.tobytes() == two.coef.tobytes()


def test_an_interrupted_fit_records_where_it_stopped():
    """Without an evaluation, for which there is no time."""
    with pytest.warns(InterruptedWarning):
        result = schuss.fit(
            X,
            Y,
            batch_size=1,
            learning_rate=1e-3,
            backend="reference",
            validation=(X, Y),
            evaluate="full",
            progress=Presser(),
        )
    assert result.history["updates"].tolist() == [2000]
    assert np.isfinite(result.history["train_loss"]).all()
    assert np.isnan(result.history["validation_loss"]).all()


def test_an_interrupted_minimize_returns_what_it_had():
    def gradient(w, A, b):
        return A.T @ (A @ w - b) / len(b)

    with pytest.warns(InterruptedWarning):
        theta, history = schuss.minimize(gradient, np.zeros(5), (X, Y), progress=Interrupter(94))
    assert 94 <= history["updates"][-1] < 940
    assert np.isfinite(theta).all() and theta.any()


def test_ctrl_c_within_a_gradient_function_is_served_at_once():
    """The state before its segment is kept."""
    calls = []

    def slow(w, A, b):
        calls.append(1)
        if len(calls) == 250:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        return A.T @ (A @ w - b) / len(b)

    begun = time.perf_counter()
    with pytest.warns(InterruptedWarning):
        _, history = schuss.minimize(slow, np.zeros(5), (X, Y), record_every=50)
    assert time.perf_counter() - begun < 5
    assert len(calls) == 250 and history["updates"][-1] in (200, 249)


class Impatient(Listener):
    """Presses Ctrl-C twice."""

    def update(self, *values):
        super().update(*values)
        press_twice()


def press_twice(moment=None) -> None:
    os.kill(os.getpid(), signal.SIGINT)  # taken as a request
    os.kill(os.getpid(), signal.SIGINT)  # raises
    raise AssertionError("the second is not served")


def test_a_second_ctrl_c_ends_whatever_runs():
    listener = Impatient()
    with pytest.raises(KeyboardInterrupt):
        schuss.fit(X, Y, progress=listener)
    assert listener.calls[-1] == ("stop",)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_ends_a_callback_that_hangs():
    with pytest.warns(InterruptedWarning):
        result = schuss.fit(X, Y, callbacks=press_twice)
    assert result.stop_reason == "interrupted" and len(result.history) == 1


def test_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    seen = []

    def look(moment):
        seen.append((signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))

    schuss.fit(X, Y, epochs=1, callbacks=look)
    assert seen[0][0] is not before[0] and seen[0][1] is before[1]
    schuss.fit(X, Y, epochs=1, callbacks=look, checkpoint=schuss.data.Checkpoint(tmp_path / "run"))
    assert seen[1][1] is not before[1]
    with pytest.raises(FloatingPointError):
        schuss.fit(X, Y, learning_rate=1e30)
    with pytest.raises(ZeroDivisionError):
        schuss.fit(X, Y, callbacks=lambda moment: 1 / 0)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_handlers_of_the_users_own_are_left_alone(tmp_path):
    heard = []
    expected = bits(schuss.fit(X, Y, epochs=3, learning_rate=0.01))
    before = [
        signal.signal(number, lambda number, frame: heard.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    ]
    try:

        def press(moment):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)

        result = schuss.fit(
            X,
            Y,
            epochs=3,
            learning_rate=0.01,
            callbacks=press,
            checkpoint=schuss.data.Checkpoint(tmp_path / "run"),
        )
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert heard.count(signal.SIGINT) == heard.count(signal.SIGTERM) == 3
    assert bits(result) == expected and result.stop_reason == "epochs"


def test_in_another_thread_signals_are_not_touched():
    seen = []

    def work():
        schuss.fit(X, Y, epochs=1, callbacks=lambda m: seen.append(signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert seen == [signal.default_int_handler]


class Evaluating(ReferenceBackend):
    """Presses Ctrl-C in the k-th pass over all the data."""

    def __init__(self, k: int) -> None:
        self.left = k

    def gradient(self, problem, theta, rows):
        if isinstance(rows, tuple):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGINT)
        return super().gradient(problem, theta, rows)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_ctrl_c_within_an_evaluation(k, tmp_path):
    """The record is left out; a resumed run makes it."""
    common = {
        "learning_rate": 0.01,
        "epochs": 3,
        "evaluate": "full",
        "validation": (X, Y),
        "checkpoint": schuss.data.Checkpoint(tmp_path / "run"),
    }
    with pytest.warns(InterruptedWarning):
        result = schuss.fit(X, Y, backend=Evaluating(k), **common)
    assert result.stop_reason == "interrupted"
    assert result.history["updates"].tolist() == [94, 188][: (k + 1) // 2]
    assert np.isnan(result.history["validation_loss"][-1])
    resumed = schuss.fit(X, Y, backend="reference", **common)
    del common["checkpoint"]
    assert bits(resumed) == bits(schuss.fit(X, Y, backend="reference", **common))


def test_ctrl_c_within_the_last_evaluation_keeps_the_result():
    """The run is over: its last row goes without."""
    common = {"learning_rate": 0.01, "updates": 10, "evaluate": "full"}
    result = schuss.fit(X, Y, backend=Evaluating(1), **common)
    expected = schuss.fit(X, Y, backend="reference", **common)
    assert result.stop_reason == "updates" and result.history["updates"].tolist() == [10]
    assert result.coef.tobytes() == expected.coef.tobytes()


# ---- Whole processes -----------------------------------------------------------------------

LONG = """
    import time, warnings
    import numpy as np, schuss

    rng = np.random.default_rng(0)
    X = rng.normal(size=({rows}, {columns})).astype("f4")
    y = X[:, 0]

    class Speaking:
        begun = False

        def start(self, total):
            pass

        def update(self, *values):
            if not self.begun:
                print("training", flush=True)
            self.begun = True

        def stop(self):
            pass

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = schuss.fit(
            X, y, epochs=10**9, learning_rate=1e-6, progress=Speaking(), **{arguments}
        )
    served = time.time()
    print(served, result.stop_reason, np.isfinite(result.coef).all(), len(caught))
    """


@pytest.mark.parametrize(
    ("rows", "columns", "arguments"),
    [
        (20_000, 10, {"batch_size": 1, "backend": "native"}),
        (20_000, 10, {"batch_size": 1, "backend": "jit"}),
        (20_000, 10, {"batch_size": 32, "backend": "reference"}),
        (300_000, 50, {"batch_size": "full", "evaluate": "both"}),
        (20_000, 10, {"batch_size": 32, "rule": "adam", "validation": 0.5, "record_every": 1}),
    ],
    ids=["native, one row", "jit, one row", "reference", "full", "many records"],
)
def test_ctrl_c_is_served_soon(rows, columns, arguments):
    backend = arguments.get("backend", "reference")
    if schuss.backends.available()[backend] is not None:
        pytest.skip(f"backend {backend}: {schuss.backends.available()[backend]}")
    code = textwrap.dedent(LONG.format(rows=rows, columns=columns, arguments=arguments))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "training\n"
        time.sleep(0.3)
        pressed = time.time()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    served, reason, finite, warned = out.split()
    assert reason == "interrupted" and finite == "True" and warned == "1"
    assert float(served) - pressed < 2  # a tenth of a second, on a machine that does nothing else


def test_ctrl_c_before_training_raises():
    """There is no result yet: a plain KeyboardInterrupt."""
    code = """
        import os, signal
        import numpy as np, schuss

        class Pressing:
            def __array__(self, dtype=None, copy=None):
                os.kill(os.getpid(), signal.SIGINT)
                return np.eye(3)

        try:
            schuss.fit(Pressing(), [1.0, 2.0, 3.0])
        except KeyboardInterrupt:
            print("raised")
    """
    assert run_python(code) == "raised"


def test_an_ignored_ctrl_c_stays_ignored():
    code = """
        import os, signal
        import numpy as np, schuss
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        press = lambda moment: os.kill(os.getpid(), signal.SIGINT)
        print(schuss.fit(np.eye(3), [1.0, 2.0, 3.0], epochs=3, callbacks=press).stop_reason)
    """
    assert run_python(code) == "epochs"


def test_the_warning_can_be_made_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error", InterruptedWarning)
        with pytest.raises(InterruptedWarning):
            schuss.fit(X, Y, progress=Presser())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

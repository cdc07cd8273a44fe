"""Other libraries at the same task: same data, same rows in the same order, as many updates.

Each peer is written in its own best idiom for the order at hand, and one row of a table. It is
handed the row numbers ready-made, which we have to compute while we are timed. What it reaches in
the run that is timed is compared with what we reach on the same rows.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schuss.backends import choose
from schuss.lab.contest import Pass
from schuss.lab.descent import Task, close, descend_rows, objective

__all__ = ["PEERS", "Peer", "absent", "names", "peers_for"]

TRIAL_ROWS = 64
WORSE = 1.02  # objective of a peer with rows of its own, relative to ours


@dataclass(frozen=True)
class Method:
    """How a peer does a task; ``train`` alone is timed.

    Attributes
    ----------
    train : callable
        From zero, batch after batch of the prepared rows, to whatever holds the parameters.
    prepare : callable
        Row numbers, in the form it likes best.
    read : callable
        Coefficients, the intercept last, from what ``train`` returned.
    visited : callable
        The rows it really takes, given those it should.
    """

    train: Callable[[Any], Any]
    prepare: Callable[[np.ndarray], Any] = lambda rows: rows
    read: Callable[[Any], np.ndarray] = lambda parts: np.append(*map(np.asarray, parts))
    visited: Callable[[np.ndarray], np.ndarray] = lambda rows: rows


def _no(_: Task) -> str | None:
    return None


def _squared_error_only(task: Task) -> str | None:
    return None if task.loss.name == "squared_error" else "written for squared_error"


def _two_losses(task: Task) -> str | None:
    known = task.loss.name in ("squared_error", "log_loss")
    return None if known else "written for squared_error and log_loss"


def _one_row(task: Task) -> str | None:
    return "makes one update for each row" if task.batch_size != 1 else _two_losses(task)


def _slices(task: Task) -> str | None:
    in_order = task.order.partition("(")[0] in ("sequential", "blocks")
    return _two_losses(task) if in_order else "reads in order"


@dataclass(frozen=True)
class Peer:
    """A row of the table.

    Attributes
    ----------
    name : str
    package : str
        What has to be importable.
    make : callable
        Makes a ``Method`` for a task; conversions of the data happen here, untimed.
    refuses : callable
        Why a task is none of its, or None.
    same_rows : bool
        Whether it is known which rows it takes in which order. Else only the objective is
        compared, which must not be worse.
    cores : int
        1, or 0 for as many as the task allows.
    whole : bool
        Whether it can only make whole epochs.
    most : int
        Numbers of X that it can take in one turn; 0 for no limit.
    """

    name: str
    package: str
    make: Callable[[Task], Method]
    refuses: Callable[[Task], str | None] = _two_losses
    same_rows: bool = True
    cores: int = 0
    whole: bool = False
    most: int = 0

    @property
    def why_absent(self) -> str | None:
        """None if it can run here, else why not."""
        if importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed"
        if self.package == "cuml" and importlib.util.find_spec("cupy") is None:
            return "cuml has no GPU here"
        return None


# ---- NumPy ---------------------------------------------------------------------------------------


def _slope(task: Task) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Derivative of the loss with respect to the margin, as one would write it."""
    if task.loss.name == "log_loss":
        return lambda margin, y: -y / (1 + np.exp(y * margin))
    return lambda margin, y: margin - y


def _numpy_step(task: Task) -> Callable[[np.ndarray, Any, np.ndarray, np.ndarray], Any]:
    slope, rate = _slope(task), task.learning_rate

    def step(w: np.ndarray, b: Any, x: np.ndarray, y: np.ndarray) -> Any:
        s = slope(x @ w + b, y)
        w -= (rate / y.size) * (s @ x)
        return b - rate * s.mean()

    return step


def _numpy_gather(task: Task) -> Method:
    X, y, size, step = task.X, task.y, task.batch_size, _numpy_step(task)

    def train(rows: np.ndarray) -> tuple[np.ndarray, Any]:
        w, b = np.zeros(task.d, X.dtype), X.dtype.type(0)
        for k in range(0, rows.size, size):
            batch = rows[k : k + size]
            b = step(w, b, X[batch], y[batch])
        return w, b

    return Method(train)


def _numpy_slices(task: Task) -> Method:
    """As many batches as they lie in memory, without copying any."""
    X, y, size, step = task.X, task.y, task.batch_size, _numpy_step(task)

    def starts(rows: np.ndarray) -> list[int]:
        first = int(rows[0]) // size * size
        return [k % (task.n - size + 1) for k in range(first, first + rows.size, size)]

    def train(begins: list[int]) -> tuple[np.ndarray, Any]:
        w, b = np.zeros(task.d, X.dtype), X.dtype.type(0)
        for k in begins:
            b = step(w, b, X[k : k + size], y[k : k + size])
        return w, b

    def visited(rows: np.ndarray) -> np.ndarray:
        return np.add.outer(starts(rows), np.arange(size)).ravel().astype(rows.dtype)

    return Method(train, starts, visited=visited)


# ---- scikit-learn --------------------------------------------------------------------------------


def _sklearn(task: Task) -> Method:
    model = sklearn_model(task, epochs=1)

    def train(_: np.ndarray) -> tuple[Any, Any]:  # it draws an order of its own
        model.fit(task.X, task.y)
        return model.coef_.ravel(), model.intercept_

    return Method(train)


def sklearn_model(task: Task, epochs: int) -> Any:
    """The estimator that makes the task's updates."""
    from sklearn.linear_model import SGDClassifier, SGDRegressor

    options = {
        "penalty": None,
        "learning_rate": "constant",
        "eta0": task.learning_rate,
        "max_iter": epochs,
        "tol": None,
        "random_state": task.seed,
        "shuffle": task.order != "sequential",
    }
    if task.loss.name == "log_loss":
        return SGDClassifier(loss="log_loss", **options)
    return SGDRegressor(loss="squared_error", **options)


# ---- PyTorch -------------------------------------------------------------------------------------


def _torch_parts(task: Task) -> tuple[Any, Any, Any]:
    """Data as tensors (the same memory), and a maker of (model, optimizer, loss function)."""
    import torch

    X, y = torch.from_numpy(task.X), torch.from_numpy(task.y)

    def half_square(margin: Any, target: Any) -> Any:
        return 0.5 * torch.nn.functional.mse_loss(margin, target)

    def logistic(margin: Any, target: Any) -> Any:
        return torch.nn.functional.soft_margin_loss(margin, target)

    def fresh() -> tuple[Any, Any, Any]:
        model = torch.nn.Linear(task.d, 1, dtype=X.dtype)
        torch.nn.init.zeros_(model.weight)
        torch.nn.init.zeros_(model.bias)
        optimizer = torch.optim.SGD(model.parameters(), lr=task.learning_rate)
        return model, optimizer, logistic if task.loss.name == "log_loss" else half_square

    return X, y, fresh


def _torch_method(
    task: Task,
    batches: Callable[[Any, Any, Any], Iterator[Any]],
    prepare: Callable[[np.ndarray], Any],
) -> Method:
    X, y, fresh = _torch_parts(task)

    def train(rows: Any) -> Any:
        model, optimizer, loss = fresh()
        for xb, yb in batches(X, y, rows):
            optimizer.zero_grad()
            loss(model(xb).squeeze(1), yb).backward()
            optimizer.step()
        return model

    def read(model: Any) -> np.ndarray:
        return np.append(model.weight.detach().numpy(), model.bias.detach().numpy())

    return Method(train, prepare, read)


def _torch_loop(task: Task) -> Method:
    import torch

    def batches(X: Any, y: Any, rows: Any) -> Iterator[Any]:
        for batch in rows.split(task.batch_size):
            yield X[batch], y[batch]

    return _torch_method(task, batches, torch.from_numpy)


def _torch_loader(task: Task) -> Method:
    from torch.utils.data import DataLoader, TensorDataset

    def batches(X: Any, y: Any, rows: list[int]) -> Iterator[Any]:
        yield from DataLoader(TensorDataset(X, y), batch_size=task.batch_size, sampler=rows)

    return _torch_method(task, batches, np.ndarray.tolist)


def _torch_batch_sampler(task: Task) -> Method:
    """The loader's fastest way with data in memory: one indexing operation for each batch."""
    from torch.utils.data import BatchSampler, DataLoader, TensorDataset

    def batches(X: Any, y: Any, rows: list[int]) -> Iterator[Any]:
        sampler = BatchSampler(rows, task.batch_size, drop_last=False)
        yield from DataLoader(TensorDataset(X, y), sampler=sampler, batch_size=None)

    return _torch_method(task, batches, np.ndarray.tolist)


def _torch_compile(task: Task) -> Method:
    """A compiled function of parameters and batch, without autograd: the least it can do."""
    import torch

    X, y = torch.from_numpy(task.X), torch.from_numpy(task.y)
    rate, logistic = task.learning_rate, task.loss.name == "log_loss"

    def step(w: Any, b: Any, xb: Any, yb: Any) -> tuple[Any, Any]:
        margin = torch.mv(xb, w) + b
        s = -yb * torch.sigmoid(-yb * margin) if logistic else margin - yb
        return w - rate / xb.shape[0] * torch.mv(xb.t(), s), b - rate * s.mean()

    torch.compiler.reset()  # after some shapes in one process it would compile no more
    compiled = torch.compile(step, dynamic=False)

    def train(rows: Any) -> tuple[Any, Any]:
        w, b = torch.zeros(task.d, dtype=X.dtype), torch.zeros((), dtype=X.dtype)
        for batch in rows.split(task.batch_size):
            w, b = compiled(w, b, X[batch], y[batch])
        return w, b

    return Method(train, torch.from_numpy)


# ---- JAX -----------------------------------------------------------------------------------------


def _jax_scan(task: Task) -> Method:
    import jax
    import jax.numpy as jnp

    X, y, rate = jnp.asarray(task.X), jnp.asarray(task.y), task.learning_rate
    logistic = task.loss.name == "log_loss"

    def mean_loss(theta: Any, xb: Any, yb: Any) -> Any:
        margin = xb @ theta[0] + theta[1]
        if logistic:
            return jnp.mean(jax.nn.softplus(-yb * margin))
        return 0.5 * jnp.mean((margin - yb) ** 2)

    @jax.jit
    def epoch(X: Any, y: Any, rows: Any) -> Any:
        def step(theta: Any, batch: Any) -> Any:
            slope = jax.grad(mean_loss)(theta, X[batch], y[batch])
            return jax.tree.map(lambda p, g: p - rate * g, theta, slope), None

        zero = (jnp.zeros(task.d, X.dtype), jnp.zeros((), X.dtype))
        return jax.lax.scan(step, zero, rows.reshape(-1, task.batch_size))[0]

    return Method(lambda rows: jax.block_until_ready(epoch(X, y, rows)), jnp.asarray)


def _jax_task(task: Task) -> str | None:
    if task.X.dtype == np.float64:
        return "its float64 is a setting of the whole process"
    return _two_losses(task)


# ---- Vowpal Wabbit -------------------------------------------------------------------------------


def _vowpal(task: Task) -> Method:
    """Its plain sgd over examples that are parsed already."""
    from vowpalwabbit import Workspace

    logistic = task.loss.name == "log_loss"
    options = (
        f"--sgd --power_t 0 --quiet --no_stdin -b {task.d.bit_length() + 2} "
        f"--loss_function {'logistic' if logistic else 'squared'} "
        # Its squared loss has no half.
        f"-l {task.learning_rate / (1 if logistic else 2):.17g}"
    )
    if not logistic:  # else it clips predictions to the range of the labels
        options += " --min_prediction -1e6 --max_prediction 1e6"

    def prepare(rows: np.ndarray) -> tuple[Any, list[Any]]:
        model = Workspace(options)
        lines = (_vowpal_line(task.X[row], float(task.y[row])) for row in rows)
        return model, [model.parse(line) for line in lines]

    def train(parts: tuple[Any, list[Any]]) -> tuple[Any, list[Any]]:
        model, examples = parts
        for example in examples:
            model.learn(example)
        return parts

    def read(parts: tuple[Any, list[Any]]) -> np.ndarray:
        """By way of predictions: of zero, then of each unit vector."""
        model, examples = parts
        for example in examples:
            model.finish_example(example)
        bias = _vowpal_margin(model, "| ")
        w = [_vowpal_margin(model, f"| {j}:1") - bias for j in range(task.d)]
        model.finish()
        return np.array([*w, bias])

    return Method(train, prepare, read)


def _vowpal_line(x: np.ndarray, y: float) -> str:
    return f"{y:.9g} | " + " ".join(f"{j}:{value:.9g}" for j, value in enumerate(x.tolist()))


def _vowpal_margin(model: Any, line: str) -> float:
    example = model.parse(line)
    model.predict(example)
    margin = float(example.get_partial_prediction())
    model.finish_example(example)
    return margin


# ---- cuML ----------------------------------------------------------------------------------------


def _cuml(task: Task) -> Method:
    import cupy
    from cuml.linear_model import MBSGDRegressor

    X, y = cupy.asarray(task.X, order="F"), cupy.asarray(task.y)

    def train(_: np.ndarray) -> Any:  # it draws an order of its own
        model = MBSGDRegressor(
            loss="squared_loss",
            penalty="none",
            learning_rate="constant",
            eta0=task.learning_rate / 2,  # its gradient is twice ours
            epochs=1,
            tol=0.0,
            batch_size=task.batch_size,
        )
        model.fit(X, y)
        cupy.cuda.Device().synchronize()
        return model

    def read(model: Any) -> np.ndarray:
        return np.append(cupy.asnumpy(model.coef_), float(model.intercept_))

    return Method(train, read=read)


# ---- The table -----------------------------------------------------------------------------------

PEERS = (
    Peer("scikit-learn", "sklearn", _sklearn, _one_row, same_rows=False, cores=1, whole=True),
    Peer("NumPy, gathered", "numpy", _numpy_gather),
    Peer("NumPy, slices", "numpy", _numpy_slices, _slices),
    Peer("PyTorch loop", "torch", _torch_loop),
    Peer("PyTorch DataLoader", "torch", _torch_loader),
    Peer("PyTorch BatchSampler", "torch", _torch_batch_sampler),
    Peer("torch.compile", "torch", _torch_compile),
    Peer("JAX lax.scan", "jax", _jax_scan, _jax_task),
    Peer("Vowpal Wabbit", "vowpalwabbit", _vowpal, _one_row, cores=1, most=2_000_000),
    Peer("cuML", "cuml", _cuml, _squared_error_only, same_rows=False, whole=True),
)


def names() -> list[str]:
    """Every peer there is."""
    return [peer.name for peer in PEERS]


def absent() -> dict[str, str]:
    """Peers that cannot run here, and why."""
    return {peer.name: peer.why_absent for peer in PEERS if peer.why_absent}


def versions() -> tuple[str, ...]:
    """Packages whose versions belong to a record with peers."""
    return ("scikit-learn", "torch", "jax", "vowpalwabbit", "cuml")


def peers_for(task: Task, wanted: Sequence[str] | None = None) -> list[Rival]:
    """The peers that can do the task here."""
    chosen = [peer for peer in PEERS if wanted is None or peer.name in wanted]
    return [Rival(p, task) for p in chosen if p.why_absent is None and p.refuses(task) is None]


class Rival:
    """A peer in a contest: turns of as many rows as it can do in the time.

    Parameters
    ----------
    peer : Peer
    task : Task
    """

    kind = "peer"

    def __init__(self, peer: Peer, task: Task) -> None:
        self.peer = peer
        self.name = peer.name
        self.task = task
        self.cores = peer.cores or task.threads
        self.visits = task.visits(choose())
        self.count = 0
        self.turn = 0
        self.verified: bool | None = None
        self.objective: float | None = None

    def warm_up(self, seconds: float = 0.1) -> None:
        """Compile, and find how many rows fill a turn; each length is compiled for anew."""
        self.method = self.peer.make(self.task)
        if self.peer.whole:
            self.count = self.task.n
            return
        size = self.task.batch_size
        most = self.peer.most // self.task.d if self.peer.most else self.task.n
        most = max(1, min(most, self.task.n) // size) * size
        self.count = min(most, max(1, TRIAL_ROWS // size) * size)
        for target in (seconds / 10, seconds):
            self.run(0)
            speed = self.run(0).speed
            self.count = min(most, max(1, int(speed * target) // size) * size)
        self.run(0)
        self.verified, self.turn = None, 0

    def run(self, seconds: float) -> Pass:
        """One turn over the next rows of the order."""
        del seconds  # the length of a turn is fixed: compilers want shapes
        rows = self._rows()
        prepared = self.method.prepare(rows)
        start = time.perf_counter()
        reached = self.method.train(prepared)
        elapsed = time.perf_counter() - start
        self._verify(self.method.read(reached), rows)
        return Pass(rows.size, -(-rows.size // self.task.batch_size), elapsed)

    def _rows(self) -> np.ndarray:
        """Rows that were not read in the turn before, so that no cache holds them."""
        turns = max(1, self.visits.length // self.count)
        epoch, place = divmod(self.turn, turns)
        self.turn += 1
        return self.visits.indices(epoch, place * self.count, (place + 1) * self.count)

    def _verify(self, theta: np.ndarray, rows: np.ndarray) -> None:
        """Compare with what we reach on the same rows; once wrong is wrong."""
        if self.verified is False:
            return
        taken = self.method.visited(rows)
        ours = descend_rows(choose(loss=self.task.loss), self.task, taken)
        self.objective = objective(self.task, theta)
        if self.peer.same_rows:
            self.verified = close(theta, ours)
        else:
            self.verified = self.objective <= WORSE * objective(self.task, ours)

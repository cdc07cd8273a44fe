"""The cuda backend: its kernels' sources run on the CPU (tests/cudasim), against the reference.

The float64 reference is what results are held to; the order of a sum is not the reference's, so
errors may grow with its length.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from cudasim import simulator
from cudasim.device import SimulatedDevice
from support import LABELS, all_losses, labels

import schuss
from schuss.backends import Problem, Segment, State, choose
from schuss.backends.cuda import shapes
from schuss.backends.cuda.backend import CudaBackend
from schuss.backends.cuda.data import DenseRows, Places, on_device
from schuss.backends.cuda.device import why_not
from schuss.backends.cuda.signatures import signature
from schuss.backends.cuda.steps import WAYS, Run, outcome
from schuss.formulas import bijection, losses, rules
from schuss.formulas.losses import LOSSES
from schuss.formulas.penalties import Penalty

pytestmark = [
    pytest.mark.simulated,
    pytest.mark.skipif(
        simulator.missing("plain") is not None, reason=str(simulator.missing("plain"))
    ),
]

TOLERANCE = {"float32": 2e-5, "float64": 1e-13}
ROW_TYPES = ("float32", "float64", "bfloat16", "float16")
RULES = (
    rules.sgd(),
    rules.sgd(momentum=0.9, nesterov=True, weight_decay=0.01),
    rules.adamw(weight_decay=0.1),
    rules.adagrad(),
)


@cache
def device() -> SimulatedDevice:
    """One for all tests: kernels stay loaded."""
    return SimulatedDevice()


@pytest.fixture(scope="module")
def cuda() -> CudaBackend:
    return CudaBackend(device())


def stored(X: np.ndarray, name: str) -> np.ndarray:
    """The matrix in a type of numbers by its name."""
    if name == "bfloat16":
        return X.astype(pytest.importorskip("ml_dtypes").bfloat16)
    return X.astype(name)


def problem(name: str, n: int, d: int, loss=None, weighted=True, **options) -> Problem:
    """Numbers that float16 holds exactly, so that all types see the same data."""
    rng = np.random.default_rng([n, d])
    loss = loss or losses.log_loss()
    computed = "float64" if name == "float64" else "float32"
    X = stored(rng.integers(-64, 64, (n, d)) / 32.0, name)
    y = np.clip(labels(rng, loss.domain, n), -8, 8).astype(computed)
    weight = (rng.integers(1, 5, n) / 2.0).astype(computed) if weighted else None
    return Problem(X, y, weight, loss, options.pop("penalty", Penalty()), **options)


def start(of: Problem, size: int | None = None) -> np.ndarray:
    rng = np.random.default_rng(1)
    size = of.n_outputs * (of.n_features + 1) if size is None else size
    return (rng.integers(-8, 9, size) / (8.0 * np.sqrt(of.n_features))).astype(of.dtype)


def wide(of: Problem) -> Problem:
    """The same data in float64."""
    weight = None if of.sample_weight is None else of.sample_weight.astype(float)
    X = of.X.astype(float) if isinstance(of.X, np.ndarray) else of.X
    return Problem(
        X, of.y.astype(float), weight, of.loss, of.penalty, of.fit_intercept, of.n_outputs
    )


def close(found, expected, name: str) -> None:
    """Within the type's tolerance of the largest number."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    assert found.shape == expected.shape
    scale = np.abs(expected).max(initial=1e-300)
    limit = TOLERANCE["float64" if name == "float64" else "float32"]
    assert np.abs(found - expected).max(initial=0) <= limit * scale


def rows_of(n: int, count: int) -> np.ndarray:
    return np.random.default_rng(2).permutation(n)[:count].astype(np.int32)


# ---- Sums ----------------------------------------------------------------------------------------


def sums_agree(cuda: CudaBackend, of: Problem, theta: np.ndarray, rows, name: str) -> None:
    reference, exact = choose("reference"), wide(of)
    for found, expected in zip(
        cuda.variance(of, theta, rows),
        reference.variance(exact, theta.astype(float), rows),
        strict=True,
    ):
        close(found, expected, name)
    loss, gradient = cuda.gradient(of, theta, rows)
    expected_loss, expected = reference.gradient(exact, theta.astype(float), rows)
    close(loss, expected_loss, name)
    close(gradient, expected, name)


@pytest.fixture(scope="module")
def all_gradients():
    """The kernels of all losses and types, compiled together."""
    for norms in ("true", "false"):
        names = [f"{name}, {loss.__name__}" for name in ("float", "double") for loss in LOSSES]
        names += ["bfloat16, log_loss", "float16, huber"]
        device().prepare("rows", [f"gradient<{name}, 8, 1, {norms}>" for name in names])


@pytest.mark.usefixtures("all_gradients")
@pytest.mark.parametrize("loss", all_losses(), ids=str)
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_sums_of_every_loss(cuda, loss, name):
    of = problem(name, 150, 13, loss)
    sums_agree(cuda, of, start(of), rows_of(150, 100), name)


@pytest.mark.usefixtures("all_gradients")
@pytest.mark.parametrize(
    ("name", "loss"), [("bfloat16", losses.log_loss()), ("float16", losses.huber())]
)
def test_rows_of_16_bits(cuda, name, loss):
    of = problem(name, 150, 13, loss)
    sums_agree(cuda, of, start(of), rows_of(150, 100), name)


def widths(itemsize: int):
    """Widths that each shape is taken for, the largest it holds and one of a ragged end."""
    per, found = shapes.PACK_BYTES // itemsize, {}
    for packs in (1, 5, 8, 9, 16, 30, 64, 100, 128, 200, 256, 300, 512, 1000, 1024, 2048, 2049):
        found[shapes.held(packs * per, itemsize, max(4, itemsize))] = packs * per
    return sorted(found.items(), key=lambda pair: pair[1])


@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("ragged", [0, 1])
def test_sums_of_every_shape(cuda, name, ragged):
    itemsize = np.dtype(name).itemsize
    chosen = widths(itemsize)
    stored_as = {"float32": "float", "float64": "double"}[name]
    device().prepare(
        "rows",
        [
            f"gradient<{stored_as}, log_loss, {shape.lanes}, {shape.packs}, {norms}>"
            for shape, _ in chosen
            for norms in ("true", "false")
        ],
    )
    for _, width in chosen:
        of = problem(name, 40, width - ragged)
        sums_agree(cuda, of, start(of), rows_of(40, 33), name)


@pytest.mark.parametrize("name", ROW_TYPES)
def test_margins(cuda, name):
    for d in (1, 7, 40, 129):
        of = problem(name, 50, d)
        for rows in (rows_of(50, 37), rows_of(50, 37).astype(np.int64), (3, 20), (0, 0)):
            found = cuda.margin(of.X, start(of), rows)
            expected = choose("reference").margin(wide(of).X, start(of).astype(float), rows)
            close(found, expected, name)


@pytest.mark.parametrize("rows", [(0, 0), (5, 1), (0, 700)], ids=str)
def test_rows_in_a_range(cuda, rows):
    of = problem("float32", 700, 13)
    sums_agree(cuda, of, start(of), rows, "float32")


# ---- Steps ---------------------------------------------------------------------------------------


def descents_agree(cuda, of, rule, segment, clip=0.0, averaged=False, name="float64") -> None:
    """Both backends' state and what they return after a segment and a second one."""
    found, expected = (State.start(start(p), rule, clip) for p in (of, wide(of)))
    if averaged:
        found.average, expected.average = (np.zeros(s.theta.size) for s in (found, expected))
    for _ in range(2):
        close(
            cuda.descend(of, found, segment),
            choose("reference").descend(wide(of), expected, segment),
            name,
        )
    close(found.theta, expected.theta, name)
    for mine, theirs in zip(found.slots, expected.slots, strict=True):
        close(mine, theirs, name)
    if averaged:
        close(found.average, expected.average, name)
    assert (found.step, found.averaged) == (expected.step, expected.averaged)


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Every way in which steps of dense rows are made."""
    monkeypatch.setattr("schuss.backends.cuda.steps.Run._way", lambda self, n_steps: request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_steps_of_every_rule(cuda, rule, clip):
    of = problem("float64", 150, 13, penalty=Penalty(0.1, 0.0))
    rates = np.linspace(0.1, 0.05, 5)
    segment = Segment(rows_of(150, 150), rates, 32)
    descents_agree(cuda, of, rule, segment, clip, averaged=True)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_l1_and_intercept(cuda, fit_intercept):
    of = problem("float64", 150, 13, penalty=Penalty(0.1, 0.7), fit_intercept=fit_intercept)
    segment = Segment((0, 150), np.array([0.1]), 64)
    descents_agree(cuda, of, rules.sgd(), segment)


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("n", [1, 2, 65, 256, 257, 600])
def test_samples_by_blocks(cuda, n, constant, averaged, monkeypatch):
    monkeypatch.setattr("schuss.backends.cuda.samples.BLOCKS_TOGETHER", 1 + n % 2)
    of = problem("float64", 600, 13, penalty=Penalty(0.1, 0.0))
    rates = np.array([0.05]) if constant else np.linspace(0.05, 0.01, n)
    segment = Segment(rows_of(600, n), rates, 1)
    descents_agree(cuda, of, rules.sgd(), segment, averaged=averaged)


def test_samples_by_blocks_in_float32(cuda):
    of = problem("float32", 600, 40, losses.hinge(), weighted=False)
    segment = Segment(rows_of(600, 600), np.array([0.01]), 1)
    descents_agree(cuda, of, rules.sgd(), segment, name="float32")


@pytest.mark.parametrize("d", [13, 2000])
def test_samples_one_after_the_other(d):
    """The kernel that bench/gpu.py holds the blocks against."""
    of = problem("float64", 60, d, penalty=Penalty(0.1, 0.0))
    there, data = device(), DenseRows(device(), of)
    theta, rates = there.upload(data.spread(start(of))), np.linspace(0.01, 0.002, 50)
    factors = {"rate": rates, "keep": 1 - rates * 0.1, "tail": rates, "reach": rates}
    sums = outcome(there, data.room(1), data.columns)
    there.launch(
        "samples",
        f"descend_serially<double, log_loss, 256, {1 if d < 512 else 4}>",
        1,
        problem=data.arguments,
        rows=Places(there, rows_of(60, 50)).arguments,
        chain=factors | {"stride": 1},
        theta=theta,
        outcome=sums,
    )
    expected = State.start(start(of), rules.sgd())
    loss, _ = choose("reference").descend(of, expected, Segment(rows_of(60, 50), rates, 1))
    close(data.gathered(theta), expected.theta, "float64")
    close(sums["results"][0], loss, "float64")


def test_samples_with_l1(cuda):
    of = problem("float64", 60, 13, penalty=Penalty(0.1, 0.5))
    descents_agree(cuda, of, rules.sgd(), Segment(rows_of(60, 60), np.array([0.05]), 1))


# ---- Several outputs, sparse rows ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["float32", "float64", "float16"])
@pytest.mark.parametrize("k", [2, 70])
@pytest.mark.parametrize("loss", [losses.huber(), losses.multinomial(0.1)], ids=str)
def test_several_outputs(cuda, name, k, loss):
    scalar = problem(name, 1100, 19, losses.huber())
    rng = np.random.default_rng(3)
    together = loss.name == "multinomial"
    y = rng.integers(0, k, 1100) if together else rng.integers(-8, 9, (1100, k)) / 4.0
    of = Problem(
        scalar.X, y.astype(scalar.dtype), scalar.sample_weight, loss, Penalty(0.1, 0.0), True, k
    )
    rows = rows_of(1100, 1060)
    sums_agree(cuda, of, start(of), rows, name)
    expected = choose("reference").margin(wide(of).X, start(of).astype(float), rows)
    close(cuda.margin(of.X, start(of), rows), expected, name)
    segment = Segment(rows, np.array([0.1]), 500)
    descents_agree(cuda, of, rules.sgd(momentum=0.9), segment, averaged=True, name=name)


@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("loss", [losses.log_loss(), losses.squared_error()], ids=str)
def test_sparse_rows(cuda, name, loss):
    sparse = pytest.importorskip("scipy.sparse")
    from schuss.data.sparse import as_csr

    dense = problem(name, 200, 50, loss)
    kept = np.random.default_rng(4).random(dense.X.shape) < 0.1
    X = as_csr(sparse.csr_matrix(dense.X * kept))
    of = Problem(X, dense.y, dense.sample_weight, loss, Penalty(0.1, 0.0))
    rows = rows_of(200, 150)
    sums_agree(cuda, of, start(of), rows, name)
    expected = choose("reference").margin(X, start(of).astype(float), rows)
    close(cuda.margin(X, start(of), rows), expected, name)
    for rule in (rules.sgd(), rules.adam()):
        descents_agree(cuda, of, rule, Segment(rows, np.array([0.1]), 32), 0.05, name=name)


# ---- Vectors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_apply(cuda, rule, name):
    rng = np.random.default_rng(5)
    sizes = (5, 2 * shapes.CHUNK_NUMBERS + 3, 0, 16)
    params, grads = ([rng.standard_normal(s).astype(name) for s in sizes] for _ in range(2))
    memory = [[np.full(s, start, name) for start in rule.slots] for s in sizes]
    expected = [[p.astype(float) for p in params], [[m.astype(float) for m in r] for r in memory]]
    cuda.apply(rule, params, grads, memory, 3, 0.1)
    wide_grads = [g.astype(float) for g in grads]
    choose("reference").apply(rule, expected[0], wide_grads, expected[1], 3, 0.1)
    for found, theirs in zip(params, expected[0], strict=True):
        close(found, theirs, name)
    for found, theirs in zip(memory, expected[1], strict=True):
        for mine, other in zip(found, theirs, strict=True):
            close(mine, other, name)


def test_arrays_of_another_kind_are_refused(cuda):
    params = [np.ones(4, np.float32), np.ones(3, np.float32)]
    for grads in (
        [np.ones(4, np.float32), np.ones(3)],
        [np.ones(4, np.float32), np.ones(2, np.float32)],
    ):
        with pytest.raises(schuss.errors.InvalidArgument, match=r"params\[1\]: expected 3 numbers"):
            cuda.apply(rules.sgd(), params, grads, [(), ()], 0, 0.1)
        with pytest.raises(schuss.errors.InvalidArgument, match="sources: expected 3 numbers"):
            cuda.reduce(params[1], grads[1:], 1.0)
    assert all((p == 1).all() for p in params)


def test_apply_without_arrays(cuda):
    cuda.apply(rules.sgd(), [], [], [], 0, 0.1)


@pytest.mark.parametrize("size", [0, 1, 1003, 300_000])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_reduce_is_exact(cuda, size, count, dtype):
    rng = np.random.default_rng(6)
    found, *sources = rng.integers(-99, 99, (count + 1, size)).astype(dtype)
    expected = (found + sum(sources)) * 0.25
    cuda.reduce(found, sources, 0.25)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n", [1, 7, 1000, 2**31 + 11])
def test_bijection(cuda, n):
    keys, stop = bijection.round_keys(7, 3), min(n, 3000)
    found = cuda.permute(n, keys, 0, stop)
    np.testing.assert_array_equal(found, bijection.permute(n, keys, 0, stop))
    assert found.dtype == bijection.index_dtype(n)


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_mixed_blocks(cuda, index):
    rng = np.random.default_rng(8)
    blocks, rows, buffers = 4, 5, 3
    size = blocks * rows
    order = rng.permutation(size)
    block, row = (np.tile(part, 2).astype(index) for part in (order // rows, order % rows))
    starts = (rng.permutation(buffers * blocks) * rows).reshape(buffers, blocks).astype(index)
    turned = rng.integers(0, size, buffers)
    for begin, end in ((0, buffers * size), (7, 31), (3, 3)):
        found = cuda.mix(block, row, starts, turned, begin, end)
        expected = bijection.mix(block, row, starts, turned, begin, end)
        np.testing.assert_array_equal(found, expected)


# ---- Whole fits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "log_loss", "batch_size": 64, "rule": "adam", "average": True, "alpha": 0.01},
        {"batch_size": 1, "alpha": 0.01, "evaluate": "both", "validation": 0.2},
        {"batch_size": "full", "clip_norm": 0.1, "drop_last": False, "epochs": 5},
        {"accumulate": 3, "batch_size": 16, "order": "blocks"},
        {"loss": "multinomial", "classes": 4, "batch_size": 50},
    ],
    ids=str,
)
def test_fits_are_those_of_the_reference(cuda, options):
    rng = np.random.default_rng(9)
    options = dict(options)
    X = rng.standard_normal((300, 9))
    y = X @ rng.standard_normal(9) + 0.1 * rng.standard_normal(300)
    if "classes" in options:
        y = np.digitize(y, np.quantile(y, np.linspace(0, 1, options.pop("classes") + 1)[1:-1]))
    elif "loss" in options:
        y = y > 0
    found, expected = (
        schuss.fit(X, y, **{"epochs": 2, "seed": 3} | options, backend=backend)
        for backend in (cuda, "reference")
    )
    np.testing.assert_allclose(found.coef, expected.coef, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        found.history.to_dict()["train_loss"], expected.history.to_dict()["train_loss"], rtol=1e-9
    )
    assert found.backend == "cuda"


def test_what_a_batch_needs_is_its_own(cuda):
    """Steps of a problem go on where its gradient is asked for meanwhile, of another size."""
    of = problem("float64", 20_000, 5)
    data, state = on_device(device(), of), State.start(start(of), rules.sgd())
    run = Run(device(), data, state, Segment((0, 20_000), np.array([0.1]), 20_000))
    data.room(8)
    run.steps()
    run.give_back()
    expected = State.start(start(of), rules.sgd())
    choose("reference").descend(of, expected, Segment((0, 20_000), np.array([0.1]), 20_000))
    close(state.theta, expected.theta, "float64")


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_results_do_not_depend_on_how_many_blocks_a_gpu_runs(cuda, clip, monkeypatch):
    of, found = problem("float64", 300, 150, penalty=Penalty(0.1, 0.0)), set()
    for blocks in (1, 2, 4, 7):
        monkeypatch.setattr("cudasim.device.RESIDENT_BLOCKS", blocks)
        state = State.start(start(of), rules.adam(), clip)
        result = cuda.descend(of, state, Segment(rows_of(300, 300), np.array([0.1]), 64))
        found.add((result, state.theta.tobytes()))
    assert len(found) == 1


def test_data_leaves_the_device_with_its_problem(cuda):
    of = problem("float32", 50, 5)
    cuda.gradient(of, start(of), (0, 50))
    kept = len(cuda._kept)
    del of
    assert len(cuda._kept) == kept - 1


# ---- What is asked of a device -------------------------------------------------------------------


def test_a_launch_is_held_to_the_declarations():
    numbers = device().zeros(4, np.float32)
    arguments = {"from": numbers, "to": numbers, "size": 4}
    device().launch("probe", "probe_copy<0>", 1, **arguments)
    for changes, message in [
        ({"size": 4, "count": 3}, r"takes \['from', 'to', 'size'\]"),
        ({"to": device().zeros(4, np.float64)}, r"probe_copy<0>.to: declared float32, got float64"),
    ]:
        with pytest.raises(TypeError, match=message):
            device().launch("probe", "probe_copy<0>", 1, **arguments | changes)


def test_structs_lie_as_the_compiler_lays_them():
    """The simulator compares sizes at every launch; here are the places within one."""
    found = signature("rows", "gradient<float16, huber, 8, 1, false>").parameters[0].dtype
    assert found.fields is not None
    assert [found.fields[name][1] for name in found.names] == [0, 8, 16, 24, 32, 40]
    assert found.itemsize == 48


def test_a_gpu_that_is_not_there_is_told():
    cupy = pytest.importorskip("cupy")
    if cupy.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "no usable CUDA driver or GPU" in why_not()
    with pytest.raises(schuss.errors.BackendError, match="no usable CUDA driver or GPU"):
        schuss.fit(np.eye(3), np.ones(3), backend="cuda")


def test_the_gpu_script_runs_to_its_end():
    script = Path(__file__).parents[1] / "bench" / "gpu.py"
    done = subprocess.run(
        [sys.executable, str(script), "--simulate"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none of which is a figure" in done.stdout


# ---- Every order of the threads ------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["reverse", "random-1", "random-2", "uniform-3"])
def test_every_schedule_gives_the_same_bits(cuda, schedule):
    of = problem("float32", 300, 13, penalty=Penalty(0.1, 0.0))
    results = []
    for name in ("forward", schedule):
        with simulator.options(schedule=name):
            state = State.start(start(of), rules.adam(), 0.05)
            found = cuda.descend(of, state, Segment(rows_of(300, 300), np.array([0.1]), 128))
            sums = cuda.variance(of, start(of), (0, 300))
            samples = State.start(start(of), rules.sgd())
            cuda.descend(of, samples, Segment((0, 300), np.array([0.01]), 1))
        results.append((found, state.theta.tobytes(), samples.theta.tobytes(), sums[1].tobytes()))
    assert results[0] == results[1]


def test_every_label_is_held():
    assert {loss.domain for loss in all_losses()} <= set(LABELS)

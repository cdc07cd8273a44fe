"""The lab: structure, arithmetic of records, comparison, peers; never a timed assertion."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from click.testing import CliRunner
from support import run_python

import schuss
from schuss.cli import cli
from schuss.errors import DataError, InvalidArgument, InvalidType
from schuss.formulas import losses
from schuss.lab import Cell, Outcome, Record, bars, clock, compare, load, pages, peers, table
from schuss.lab.descent import Task
from schuss.lab.machine import Probe, lengthened
from schuss.lab.synthetic import make

QUICK = {"elements": 20_000, "repeats": 2, "seconds": 0.001}
# Compiles nothing, wherever it runs.
ENGINE = "native" if schuss.backends.available()["native"] is None else "reference"


def cell(batch_size: int, speed: float, fraction: float | None = 0.5, **changes) -> Cell:
    """A constructed cell."""
    fields = {
        "name": "native",
        "kind": "backend",
        "n": 1000,
        "d": 20,
        "dtype": "float32",
        "loss": "squared_error",
        "order": "shuffle",
        "cores": 1,
        "spread": (speed, speed),
        "repeats": 1,
        "seconds_per_update": batch_size / speed,
        "fraction": fraction,
    }
    return Cell(batch_size=batch_size, samples_per_second=speed, **fields | changes)


def record(*cells: Cell, **parts) -> Record:
    """A constructed record."""
    return Record(machine={"cpu": "constructed"}, settings={}, cells=cells, **parts)


@pytest.fixture(scope="module")
def measured() -> Record:
    """A small record with everything in it."""
    return schuss.lab.throughput(
        d=[4, 20],
        batch_sizes=[1, 32, 500],
        order=["shuffle", "blocks"],
        backends=[ENGINE],
        peers=["NumPy, gathered", "NumPy, slices"],
        **QUICK,
    )


# ---- Records -------------------------------------------------------------------------------------


def test_a_record_comes_back_from_json(measured, tmp_path):
    measured.write(tmp_path / "record.json")
    assert load(tmp_path / "record.json") == measured


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 0}', '{"format": 1}'])
def test_a_file_that_is_no_record_is_refused(tmp_path, text):
    (tmp_path / "no.json").write_text(text)
    with pytest.raises(DataError, match=r"no\.json"):
        load(tmp_path / "no.json")


def test_the_knee_is_the_smallest_batch_at_90_percent():
    [curve] = record(cell(64, 95.0), cell(1, 10.0), cell(8, 89.0), cell(512, 100.0)).curves()
    assert [c.batch_size for c in curve.cells] == [1, 8, 64, 512]
    assert (curve.knee.batch_size, curve.best.batch_size, curve.decline) == (64, 512, None)


def test_the_decline_is_what_the_largest_batch_loses():
    [curve] = record(cell(1, 50.0), cell(8, 100.0), cell(64, 75.0)).curves()
    assert curve.decline == pytest.approx(0.25)


def test_curves_are_kept_apart():
    cells = [
        cell(1, 1.0),
        cell(1, 1.0, name="jit"),
        cell(1, 1.0, d=5),
        cell(1, 1.0, order="blocks"),
    ]
    assert len(record(*cells).curves()) == 4


@pytest.mark.parametrize(
    ("measured", "at_least", "verdict"),
    [
        (None, True, "not measured"),
        (0.6, True, "missed"),
        (0.7, True, "bar"),
        (0.9, True, "moonshot"),
        (0.95, False, "missed"),
        (0.9, False, "moonshot"),
    ],
)
def test_what_an_outcome_meets(measured, at_least, verdict):
    limits = (0.7, 0.9) if at_least else (0.92, 0.9)
    assert Outcome("k", "w", "", "ratio", at_least, *limits, measured, "").verdict == verdict


# ---- Ceilings ------------------------------------------------------------------------------------


def test_ceilings_have_every_figure():
    found = schuss.lab.ceilings(d=7, elements=10_000, repeats=1)
    figures = [found.sequential_one, found.sequential_all, found.random_one, found.random_all]
    assert all(figure > 0 for figure in figures)
    assert found.n == 10_000 // 7
    native = schuss.backends.available()["native"] is None
    assert found.measured_by == ("native" if native else "numpy")
    assert (found.flops_one is not None) == native
    assert found.call_overhead["reference"] > 0


def test_the_ceiling_that_binds():
    found = dataclasses.replace(
        schuss.lab.ceilings(d=10, elements=1000, repeats=1),
        sequential_one=100.0,
        sequential_all=200.0,
        random_one=10.0,
        random_all=20.0,
        flops_one=1e9,
        flops_all=600.0,
    )
    assert found.of("shuffle", 1) == ("random-row, one core", 10.0)
    assert found.of("blocks(rows=7, buffer=2)", 1) == ("sequential, one core", 100.0)
    assert found.of("shuffle", 2) == ("arithmetic, all cores", 15.0)


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_native_ceilings_sum_every_row(dtype, cores):
    native = pytest.importorskip("schuss._native", reason="the native extension is not built")
    X = np.random.default_rng(0).integers(-8, 8, (1001, 7)).astype(dtype)
    total = getattr(native, f"sum_rows_with_{dtype}")
    rows = np.random.default_rng(1).permutation(1001)
    for which in ((0, 1001), rows.astype(np.int32), rows.astype(np.int64)):
        for near in (0, 3):
            assert total(X, which, 8, near, cores) == X.sum()
    assert total(lengthened(X), (0, lengthened(X).shape[0]), 2, 0, cores) <= np.abs(X).sum()
    assert native.multiply_add(dtype, 10, cores) > 0
    native.fork_join(cores, 2)
    native.meet(cores, 2)
    with pytest.raises(ValueError, match="threads"):
        total(X, rows, 8, 0, 0)


def test_ceilings_without_the_extension(monkeypatch):
    monkeypatch.setattr("schuss.backends._why_not_native", lambda: "not built")
    monkeypatch.setitem(schuss.backends._WHY_NOT, "native", lambda: "not built")
    X = np.ones((500, 3), np.float32)
    probe = Probe(X, 2, 1)
    assert probe.measured_by == "numpy"
    assert sorted(probe.shuffled.tolist()) == list(range(500))
    assert all(probe.ceiling(how, k) > 0 for how in ("sequential", "random") for k in (1, 2))
    result = schuss.lab.throughput(X, X[:, 0], batch_sizes=[8], backends="reference", **QUICK)
    assert "NumPy" in result.notes[0] and result.ceilings[0].flops_one is None


# ---- Throughput ----------------------------------------------------------------------------------


def test_every_cell_was_measured_and_verified(measured):
    assert {c.d for c in measured.ceilings} == {4, 20}
    ours = [c for c in measured.cells if c.kind == "backend"]
    wanted = {(d, o, b) for d in (4, 20) for o in ("shuffle", "blocks") for b in (1, 32, 500)}
    assert {(c.d, c.order.partition("(")[0], c.batch_size) for c in ours} == wanted
    for c in measured.cells:
        assert c.verified is True, c
        assert c.spread[0] <= c.samples_per_second <= c.spread[1]
        assert c.repeats == 2 and c.fraction > 0 and c.ceiling
    assert not measured.notes


@pytest.mark.parametrize("loss", ["squared_error", "log_loss", "poisson", "huber(epsilon=1.0)"])
def test_losses_and_dtypes(loss):
    made = schuss.lab.throughput(
        d=3, batch_sizes=[4], loss=loss, dtype="float64", backends=ENGINE, **QUICK
    )
    assert all(c.verified and c.dtype == "float64" for c in made.cells)


def test_the_users_own_data_and_every_batch_size():
    X, y = make(3, 300, "float64", losses.log_loss())
    labels = np.where(y > 0, "yes", "no")
    made = schuss.lab.throughput(
        X, labels, loss="log_loss", dtype="float64", backends="reference", **QUICK
    )
    assert [c.batch_size for c in made.cells] == [1, 4, 16, 64, 100]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"batch_sizes": []}, InvalidArgument, "batch_sizes"),
        ({"batch_sizes": [0]}, InvalidArgument, "batch_sizes=0"),
        ({"batch_sizes": [10**9]}, InvalidArgument, r"expected some of 1 \.\.\."),
        ({"dtype": "float16"}, InvalidArgument, "dtype='float16'.*accepted: float32, float64"),
        ({"loss": "multinomial"}, InvalidArgument, "loss='multinomial.*one output"),
        ({"backends": "nativ"}, InvalidArgument, "backends='nativ'.*'native'"),
        ({"repeats": 0}, InvalidArgument, "repeats"),
        ({"seconds": 0.0}, InvalidArgument, "seconds"),
        ({"peers": ["NumPi"]}, InvalidArgument, "NumPi"),
        ({"X": [[1.0]]}, InvalidType, "y=None"),
        ({"backends": "cuda"}, schuss.errors.BackendError, "cuda"),
    ],
)
def test_bad_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        schuss.lab.throughput(**{"d": 3, **QUICK, **changes})


# ---- Any step ------------------------------------------------------------------------------------


def test_sweep_of_steps_by_name():
    calls = []
    steps = {"one": calls.append, "two": lambda size: None}
    made = schuss.lab.sweep(steps, [1, 3], repeats=2, seconds=1e-4)
    assert [(c.name, c.batch_size) for c in made.cells] == [
        ("one", 1),
        ("one", 3),
        ("two", 1),
        ("two", 3),
    ]
    assert set(calls) == {1, 3} and made.settings["clock"] == "cpu"


def test_sweep_beside_ceilings():
    found = schuss.lab.ceilings(d=5, elements=5000, repeats=1)
    made = schuss.lab.sweep(lambda size: None, [8], 1, 1e-4, ceilings=found, cores=1)
    assert made.cells[0].ceiling == "random-row, one core"
    assert made.cells[0].fraction == pytest.approx(
        made.cells[0].samples_per_second / found.random_one
    )


def test_more_cores_than_the_ceilings_know():
    found = schuss.lab.ceilings(d=5, elements=5000, threads=1, repeats=1)
    with pytest.raises(InvalidArgument, match="cores=2"):
        schuss.lab.sweep(str, [8], 1, 1e-4, ceilings=found, cores=2)


def test_the_ceiling_of_small_data_is_read_long_enough():
    probe, reads = Probe(np.ones((100, 4), np.float32), 1, 1), []
    assert probe.ceiling("random", 1) > 0
    probe._jobs["random", 1] = lambda: reads.append(1)
    probe.again("shuffle", 1)
    assert len(reads) > 100


def test_sweep_waits_for_what_is_computed_in_the_background():
    waited = []

    class Later:
        def block_until_ready(self):
            waited.append(self)

    assert clock.cpu(Later) >= 0
    assert waited or "jax" in __import__("sys").modules


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((3, [1]), InvalidType),
        ((print, []), InvalidArgument),
        ((len, [0]), InvalidArgument),
        ((str, 4, 1, 0.001, "cpu", 3), InvalidType),
        ((str, [4], 1, 0.001, "cpu", None, "shufle"), InvalidArgument),
        ((str, [4], 1, 0.001, "cpu", None, "shuffle", 0), InvalidArgument),
    ],
)
def test_bad_sweeps(arguments, error):
    with pytest.raises(error):
        schuss.lab.sweep(*arguments)


def test_clocks_by_name():
    with pytest.raises(InvalidArgument, match="clock='sun'"):
        schuss.lab.sweep(lambda size: None, [1], clock="sun")
    torch = importlib.util.find_spec("torch") and importlib.import_module("torch")
    if not torch or not torch.cuda.is_available():
        with pytest.raises(schuss.errors.MissingPackage, match="CUDA"):
            schuss.lab.sweep(lambda size: None, [1], clock="cuda")


# ---- Peers ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loss", ["squared_error", "log_loss"])
@pytest.mark.parametrize("peer", peers.PEERS, ids=lambda peer: peer.name)
def test_a_peer_reaches_what_we_reach(peer, loss):
    if peer.why_absent:
        pytest.skip(peer.why_absent)
    if peer.name == "torch.compile" and (shutil.which("g++") is None or loss == "log_loss"):
        pytest.skip("torch.compile needs g++, and seconds: one loss is enough")
    X, y = make(4, 8000, "float32", losses.get(loss))
    size = 1 if peer.name in ("scikit-learn", "Vowpal Wabbit") else 8
    task = Task(X, y, losses.get(loss), "blocks" if "slices" in peer.name else "shuffle", size, 1)
    if why := peer.refuses(task):
        pytest.skip(why)
    rival = peers.Rival(peer, task)
    rival.warm_up(0.001)
    turn = rival.run(0)
    assert rival.verified is True
    assert turn.updates == -(-turn.rows // size) and turn.seconds > 0


def test_a_peer_that_goes_elsewhere_is_found_out():
    X, y = make(4, 8000, "float32", losses.squared_error())
    task = Task(X, y, losses.squared_error(), "shuffle", 8, 1)
    wrong = dataclasses.replace(
        peers.PEERS[1], make=lambda task: peers.Method(lambda rows: (np.ones(4), 0.0))
    )
    rival = peers.Rival(wrong, task)
    rival.warm_up(0.001)
    rival.run(0)
    assert rival.verified is False


def test_tasks_that_are_none_of_a_peers():
    X, y = make(4, 400, "float64", losses.squared_error())
    task = Task(X, y, losses.huber(), "shuffle", 8, 1)
    assert peers.peers_for(task) == []


# ---- Comparison ----------------------------------------------------------------------------------


def test_comparison_is_by_fraction_of_the_ceiling():
    old = record(cell(1, 100.0, 0.8), cell(8, 100.0, 0.5), cell(64, 1.0, 0.5), cell(9, 1.0, None))
    new = record(cell(1, 1.0, 0.79), cell(8, 900.0, 0.4), cell(64, 1.0, 0.9), cell(9, 1.0, 0.5))
    changes = compare(old, new, 0.15)
    assert [(c.batch_size, c.regressed) for c in changes] == [(8, True), (1, False), (64, False)]
    assert not any(c.regressed for c in compare(old, new, 0.25))


def test_peers_are_not_compared():
    old = record(cell(1, 1.0, 0.8, kind="peer"))
    assert compare(old, record(cell(1, 1.0, 0.1, kind="peer"))) == []


# ---- The command ---------------------------------------------------------------------------------


def run(*arguments: str, code: int = 0):
    done = CliRunner().invoke(cli, ["bench", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def test_bench_measures_and_writes(tmp_path):
    small = ["--d", "5", "--batch-sizes", "1,8", "--elements", "2000", "--seconds", "0.001"]
    files = ["--json", tmp_path / "a.json", "--png", tmp_path / "a.png"]
    done = run("throughput", "--repeats", "1", *small, *files)
    assert "samples/s" in done.output
    assert len(load(tmp_path / "a.json").curves()) >= 1
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_bench_data_file(tmp_path):
    X, y = make(3, 300, "float64", losses.squared_error())
    np.savez(tmp_path / "a.npz", X=X, y=y)
    np.save(tmp_path / "a.npy", np.column_stack([X, y]))
    np.savetxt(
        tmp_path / "a.csv", np.column_stack([X, y]), delimiter=",", header="a,b,c,y", comments=""
    )
    for name in ("a.npz", "a.npy", "a.csv"):
        options = ["--quick", "--repeats", "1", "--seconds", "0.001", "--batch-sizes", "2"]
        options += ["--backends", ENGINE]
        done = run(*options, "--data", tmp_path / name)
        assert "d = 3" in done.output


def test_compare_exits_with_a_code_of_its_own(tmp_path):
    record(cell(1, 1.0, 0.8)).write(tmp_path / "old.json")
    record(cell(1, 1.0, 0.6)).write(tmp_path / "new.json")
    both = ["--load", tmp_path / "new.json", "--compare", tmp_path / "old.json"]
    assert "regressed" in run(*both, code=3).output
    run(*both, "--threshold", "0.3")


def test_bench_refuses_what_does_not_go_together(tmp_path):
    record(cell(1, 1.0, d=4)).write(tmp_path / "a.json")
    record(cell(1, 1.0)).write(tmp_path / "b.json")
    for arguments in (
        ["--report"],
        ["--data", "a.npz", "--d", "3"],
        ["--batch-sizes", "x"],
        ["--load", tmp_path / "a.json", "--compare", tmp_path / "b.json"],
        ["--json", tmp_path / "a.txt"],
    ):
        run(*arguments, code=2)


def test_the_table_of_bars(tmp_path, monkeypatch):
    """Every row is there; on tiny data its figures mean nothing."""
    monkeypatch.setattr(schuss.lab.fresh, "first_fit", lambda name, repeats=5: 0.1)
    made = bars.measure(
        elements=40_000,
        d=(20,),
        repeats=1,
        seconds=0.001,
        peers=["scikit-learn", "NumPy, gathered", "PyTorch DataLoader"],
    )
    keys = [outcome.key for outcome in made.outcomes]
    assert list(dict.fromkeys(keys)) == [bar.key for bar in bars.BARS]
    by_key = {(o.key, o.column): o for o in made.outcomes}
    assert by_key["regressor shuffle", "d = 20"].measured > 0
    assert by_key["memory", "d = 20"].measured is not None
    assert by_key["best peer", "least"].measured > 0
    made.write(tmp_path / "bars.json")
    blank_pages(tmp_path, made, "README.md", "docs/lab.rst")
    monkeypatch.chdir(tmp_path)
    run("--load", "bars.json", "--report")
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| 20 | 32 |" in text and "fastest other" in text
    assert "best CPU peer" in (tmp_path / "docs/lab.rst").read_text()


def blank_pages(folder, record, *names):
    """Pages with nothing but the marks between which the record is to be written."""
    for name in names:
        page = folder / name
        page.parent.mkdir(exist_ok=True)
        begin, end = pages.marks(page.suffix, type(record))
        page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")


def test_bench_optim(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    small = ["--quick", "--numbers", "5000", "--tensors", "1,7", "--threads", "1"]
    done = run("optim", *small, "--repeats", "1", "--json", "optim.json")
    assert "of torch's default" in done.output and "The speed to reach" not in done.output
    made = schuss.lab.optim.load("optim.json")
    names = ["SGD", "SGD, momentum", "Adam", "AdamW"]
    assert [cell.optimizer for cell in made.cells] == 2 * names
    assert [cell.numbers for cell in made.cells] == 4 * [5000] + 4 * [4998]
    for cell in made.cells:
        assert min(cell.seconds.values()) > 0
        assert set(cell.ratios) == {"default", "fused", "triad"}
    blank_pages(tmp_path, made, "README.md", "docs/torch.rst")
    run("optim", "--load", "optim.json", "--report")
    assert "| AdamW | 7 | 1 |" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "docs/torch.rst").read_text().count("* - AdamW\n") == 2
    bars = made.outcomes()
    assert len(bars) == 24 and {bar.bar for bar in bars} == {0.25, 0.7, 0.9, 1.0}


def test_bench_optim_refuses(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    assert "--report needs --load" in run("optim", "--report", code=2).output
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match=r"other.json.*optimizers"):
        schuss.lab.optim.load("other.json")
    with pytest.raises(InvalidArgument, match="tensors=11"):
        schuss.lab.optimizers(numbers=10, tensors=[11])


def test_first_fit_in_a_process_of_its_own():
    assert schuss.lab.fresh.first_fit("reference", 1) > 0


# ---- The page ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def html(measured, tmp_path_factory):
    pytest.importorskip("plotly")
    path = tmp_path_factory.mktemp("page") / "page.html"
    bound = Outcome("k", "<what>", "d = 20", "fraction", True, 0.7, 0.9, 0.8, "")
    dataclasses.replace(measured, outcomes=(bound,), absent={"cuML": "no"}).to_html(path)
    return path


def test_a_record_prints_its_tables(measured):
    assert "samples/s" in str(measured) and len(repr(measured)) < 200
    assert repr(measured).startswith("<schuss.lab.Record")


def test_the_page_of_a_record_without_cells(measured, tmp_path):
    path = tmp_path / "empty.html"
    dataclasses.replace(measured, cells=[]).to_html(path)
    assert "<h1>" in path.read_text(encoding="utf-8")


def test_the_page_needs_no_network(html):
    text = html.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)\s*=", text)
    assert "&lt;what&gt;" in text and "knee" in text
    figures = json.loads(re.search(r"const FIGURES = (.*?);\nconst shown", text, re.S)[1])
    assert len(figures) == 4
    names = {trace["name"] for trace in figures[0]["speed"]["data"]}
    assert "NumPy, gathered" in names
    assert figures[0]["speed"]["layout"]["shapes"], "ceiling lines"


def test_the_page_in_a_browser(html, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here")
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--virtual-time-budget=5000",
            f"--user-data-dir={tmp_path}",
            "--dump-dom",
            html.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    drawn = done.stdout.partition("<main>")[2]
    assert 'class="main-svg"' in drawn and "Samples per second" in drawn


def test_the_figure_has_two_charts_for_each_setting(measured, tmp_path):
    figure = measured.plot(tmp_path / "a.svg")
    assert len(figure.axes) == 8 and (tmp_path / "a.svg").exists()
    with pytest.raises(InvalidArgument, match="no cells"):
        record().plot()


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "–"), (0, "0 s"), (1234.0, "1.23 ks"), (2.5e-7, "250 ns"), (999_999, "1 Ms")],
)
def test_numbers_in_three_digits(number, text):
    assert table.short(number, "s") == text


# ---- The plugin ----------------------------------------------------------------------------------

SUITE = """
def test_it(throughput):
    assert throughput(sum, [1, 2], samples=2, bytes_per_sample=8, rounds=2, note="mine") == 3
"""


def pytest_in(folder, *options: str) -> subprocess.CompletedProcess:
    (folder / "test_it.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", *options]
    if "schuss" not in metadata.entry_points(group="pytest11").names:  # an older installation
        command += ["-p", "schuss.lab.pytest_plugin"]
    # What a run of these tests asks for (several workers, say) is not asked of that one.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    return subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_the_fixture_records_samples_per_second(tmp_path):
    done = pytest_in(tmp_path, "--benchmark-json=out.json")
    assert done.returncode == 0, done.stdout
    info = json.loads((tmp_path / "out.json").read_text())["benchmarks"][0]["extra_info"]
    assert info["samples_per_second"] > 0 and info["note"] == "mine" and info["samples"] == 2


def test_the_fixture_without_timing_or_without_the_plugin_below_it(tmp_path):
    assert pytest_in(tmp_path, "--benchmark-disable").returncode == 0
    done = pytest_in(tmp_path, "-p", "no:benchmark")
    assert done.returncode == 1 and "needs pytest-benchmark" in done.stdout


def test_the_plugin_loads_nothing_heavy():
    heavy = ["numpy", "numba", "matplotlib", "plotly", "torch"]
    code = f"""
        import sys
        import schuss.lab.pytest_plugin
        print(*[name for name in {heavy} if name in sys.modules])
    """
    assert run_python(code) == ""

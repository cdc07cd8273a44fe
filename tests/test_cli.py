"""The command line: what it trains, says, writes and refuses."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import schuss
from schuss.cli import cli, console, outputs, report, task
from schuss.cli.train import train as train_command
from schuss.data import examples
from schuss.errors import DataError
from schuss.history import History
from schuss.progress import Bar, rate

# ------------------------------------------------------------------------------------- the tools


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCHUSS_DEBUG", raising=False)


def words(command: str, *more: object) -> list[str]:
    """A command line as its arguments."""
    return [*command.split(), *map(str, more)]


def run(command: str, *more: object, code: int = 0) -> SimpleNamespace:
    """Run a command in this process."""
    done = CliRunner().invoke(cli, words(command, *more))
    assert done.exit_code == code, done.output
    return SimpleNamespace(out=done.stdout, err=done.stderr)


def refused(command: str, *more: object) -> str:
    """The one line with which a command is refused."""
    done = run(command, *more, code=2)
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    others = [line for line in done.err.splitlines() if not re.match(r"(note|warning): ", line)]
    assert others == errors
    assert len(errors) == 1
    assert done.out == ""
    return errors[0]


# The commands run in an empty folder, where a relative PYTHONPATH leads nowhere.
HOME = str(Path(schuss.__file__).parents[1])
ENVIRONMENT = os.environ | {"PYTHONPATH": HOME}


def start(command: str) -> subprocess.Popen[str]:
    """Start a command as a program of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "schuss", *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def program(command: str) -> SimpleNamespace:
    """Run a command as a program of its own."""
    running = start(command)
    out, err = running.communicate(timeout=120)
    return SimpleNamespace(out=out, err=err, code=running.returncode)


def houses(n: int = 300, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    area = rng.uniform(40, 200, n).round(1)
    rooms = rng.integers(1, 7, n)
    town = rng.choice(["Bern", "Chur", "Genf"], n)
    price = 3 * area + 20 * rooms + 90 * (town == "Genf") + rng.normal(0, 5, n)
    return {"area": area, "rooms": rooms, "town": town, "price": price.round(2)}


def write(columns: dict[str, np.ndarray], path: str = "houses.csv") -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(np.asarray(c).tolist() for c in columns.values()), strict=True))
    return Path(path)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# --------------------------------------------------------------------------------- schuss train


@pytest.mark.parametrize(
    ("name", "score", "at_least"),
    [("breast-cancer", "accuracy", 97), ("diabetes", "R²", 0.45), ("digits", "accuracy", 94)],
)
def test_the_first_command(name, score, at_least):
    done = run("train", "--example", name, "--output", "model.npz", "--plot", "curves.png")
    line = next(line for line in done.out.splitlines() if line.split()[:1] == [score])
    training, validation = (float(text) for text in re.findall(r"\d+\.\d+", line))
    assert min(training, validation) >= at_least
    for word in ("epochs", "updates", "samples/s", "backend", "validation"):
        assert word in done.out
    assert "note: model saved in model.npz" in done.err
    assert Path("curves.png").read_bytes().startswith(b"\x89PNG")
    assert schuss.load("model.npz").preprocessing["target"] == examples.EXAMPLES[name].target


def test_the_table_shows_what_the_model_achieves():
    done = run("train --example diabetes --output model.npz")
    result = schuss.load("model.npz")
    losses = re.search(r"squared_error +([\d.]+) +([\d.]+)", done.out)
    last = result.history.last
    assert float(losses[2]) == pytest.approx(last["validation_loss"], rel=1e-4)
    assert float(losses[1]) == pytest.approx(last["train_loss"], rel=0.02)
    assert re.search(r"rows +354 +88", done.out)
    assert "updates        240, of 32 rows each" in done.out


def test_a_table_as_in_the_readme():
    write(houses())
    done = run(
        "train houses.csv --target price --loss squared_error --batch-size 256 --epochs 20",
        *words("--validation 0.1 --standardize --output model.npz --plot curves.svg"),
    )
    assert "note: column 'town' holds text: one-hot encoded as 3 columns" in done.err
    assert "features       5" in done.out
    assert "<svg" in Path("curves.svg").read_text()
    stored = schuss.load("model.npz").preprocessing
    area = next(feature for feature in stored["features"] if feature["name"] == "area")
    assert area["mean"] != 0
    assert area["scale"] != 1


def test_statistics_come_from_the_training_rows_alone():
    columns = houses()
    write(columns)
    run("train houses.csv --target price --validation 0.25 --standardize -o a.npz")
    from schuss.data.preprocess import split

    training, validation = split(300, 0.25, seed=0)
    stored = schuss.load("a.npz").preprocessing["features"]
    area = next(feature for feature in stored if feature["name"] == "area")
    assert area["mean"] == pytest.approx(columns["area"][training].mean(), rel=1e-12)
    columns["area"][validation] += 1000
    write(columns)
    run("train houses.csv --target price --validation 0.25 --standardize -o b.npz")
    np.testing.assert_array_equal(schuss.load("a.npz").coef, schuss.load("b.npz").coef)


def test_the_same_command_gives_the_same_model():
    write(houses())
    arguments = "train houses.csv --target price --standardize --validation 0.2"
    run(arguments, "-o", "a.npz", "--plot", "a.pdf")
    run(arguments, "-o", "b.npz", "--quiet", "--threads", "1")
    run(arguments, "-o", "c.npz", "--seed", "1")
    a, b, c = (schuss.load(f"{name}.npz").coef for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_every_argument_of_fit_has_its_option(monkeypatch):
    seen = {}

    def fit(X, y, **arguments):
        seen.update(arguments)
        raise DataError("far enough")

    monkeypatch.setattr(schuss, "fit", fit)
    columns = houses() | {"w": np.ones(300)}
    write(columns)
    refused(
        "train houses.csv --target price --weight w --loss huber(epsilon=2.0)",
        *words("--batch-size full --learning-rate constant(0.1) --epochs 3 --rule adam"),
        *words("--alpha 0.1 --l1-ratio 0.5 --no-intercept --order sequential --drop-last"),
        *words("--accumulate 2 --clip-norm 3 --average --validation 0.1 --evaluate full"),
        *words("--record-every 4 --updates 9 --time-limit 2min --tol 0.1 --patience 7 --gtol 0.2"),
        *words("--seed 5 --backend reference --threads 1 --dtype float32"),
        *words("--checkpoint run.ckpt --checkpoint-every 100"),
    )
    assert seen["loss"] == schuss.losses.huber(epsilon=2.0)
    assert seen["learning_rate"] == schuss.schedules.constant(0.1)
    assert seen["sample_weight"].tolist() == [1.0] * 270
    assert len(seen["validation"]) == 3
    assert seen["checkpoint"] == schuss.data.Checkpoint(Path("run.ckpt"), every=100)
    plain = dict(
        batch_size="full", epochs=3, rule="adam", alpha=0.1, l1_ratio=0.5, fit_intercept=False,
        order="sequential", drop_last=True, accumulate=2, clip_norm=3.0, average=True,
        evaluate="full", record_every=4, updates=9, time_limit=120.0, tol=0.1, patience=7,
        gtol=0.2, seed=5, backend="reference", threads=1,
    )  # fmt: skip
    assert {name: seen[name] for name in plain} == plain


@pytest.mark.parametrize("text", ["0.05", "auto", "cosine(0.1, steps=50)"])
def test_learning_rates(text):
    run("train", "--example", "diabetes", "--learning-rate", text, "--epochs", "2")


def test_text_and_numbers_as_classes():
    columns = houses()
    write(columns)
    done = run("train houses.csv --target town --standardize -o model.npz")
    assert "3 classes (Bern, Chur, Genf); loss multinomial" in done.err
    assert "one against the rest" not in done.out
    result = schuss.load("model.npz")
    assert result.classes.tolist() == ["Bern", "Chur", "Genf"]
    assert result.coef.shape == (3, 3) and result.loss.name == "multinomial"
    final = result.history.train_loss[-1]
    shown = float(re.search(r"multinomial\S* +(\S+)", done.out)[1])
    assert shown == pytest.approx(final, rel=0.1)
    done = run("train houses.csv --target town --loss log_loss --standardize -o model.npz")
    assert "20 for each of 3 models, one against the rest" in done.out
    assert schuss.load("model.npz").coef.shape == (3, 3)
    write(columns | {"rooms": columns["rooms"] % 2})
    done = run("train houses.csv --target rooms --standardize -o model.npz")
    assert "2 classes (0, 1); loss log_loss; --loss squared_error takes it" in done.err
    assert schuss.load("model.npz").classes.tolist() == [0, 1]


def test_class_weights():
    arguments = "train --example breast-cancer --quiet -o"
    run(arguments, "a.npz")
    run(arguments, "b.npz", "--class-weight", "malignant=20")
    run(arguments, "c.npz", "--class-weight", "balanced")
    models = [schuss.load(f"{name}.npz") for name in "abc"]
    assert models[1].intercept > models[0].intercept
    assert not np.array_equal(models[2].coef, models[0].coef)
    run("train --example digits --epochs 1 --class-weight 3=5")
    message = refused("train --example breast-cancer --class-weight malignent=2")
    assert "no class 'malignent'; did you mean 'malignant'?" in message
    assert "LABEL=WEIGHT" in refused("train --example diabetes --class-weight x")
    assert "no class '1'" in refused("train --example diabetes --class-weight 1=2")


def test_missing_values():
    columns = houses()
    area = columns["area"].astype(object)
    area[[3, 9]] = ""
    town = columns["town"].astype(object)
    town[5] = "NA"
    write(columns | {"area": area, "town": town})
    message = refused("train houses.csv --target price")
    assert "missing value in row 4 (line 5) of houses.csv, column 'area'" in message
    assert "3 missing values in 2 columns: 'area', 'town'" in message
    assert "--drop area --drop town" in message
    assert "--impute mean" in message
    done = run("train houses.csv --target price --impute mean --standardize -o model.npz")
    assert "2 missing numbers filled" in done.err
    assert "one of them for missing values" in done.err
    run("predict model.npz houses.csv")
    write({"area": [""], "rooms": ["2"], "town": ["NA"]}, "new.csv")
    assert len(rows_of(run("predict model.npz new.csv").out)) == 1


def test_columns_that_differ_in_scale_are_told_once():
    columns = houses()
    write(columns | {"area": columns["area"] * 1e5})
    done = run("train houses.csv --target price")
    [line] = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert line.endswith("Pass --standardize.")


@pytest.mark.parametrize("ending", ["npy", "npz", "parquet", "svm"])
def test_formats(ending):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3)).round(3)
    y = (X @ [1.0, 2.0, 3.0]).round(3)
    name = f"data.{ending}"
    target = []
    if ending == "npy":
        np.save(name, np.column_stack([X, y]))
    elif ending == "npz":
        np.savez(name, X=X, y=y, sample_weight=np.ones(200))
    elif ending == "parquet":
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": y}), name)
        target = ["--target", "y"]
    else:
        datasets = pytest.importorskip("sklearn.datasets")
        datasets.dump_svmlight_file(X, y, name, zero_based=False)
    done = run("train", name, *target, "--validation", "0.2", "-o", "model.npz")
    assert ("weights the samples" in done.err) == (ending == "npz")
    assert re.search(r"R² +1\.0000 +1\.0000", done.out)
    np.testing.assert_allclose(schuss.load("model.npz").coef, [1, 2, 3], atol=0.01)
    predicted = rows_of(run("predict", "model.npz", name).out)
    np.testing.assert_allclose([float(row["prediction"]) for row in predicted], y, atol=0.02)


def test_the_target_of_an_array_by_position():
    X = np.random.default_rng(0).normal(size=(100, 3))
    np.save("x.npy", np.column_stack([X @ [1.0, 2.0, 3.0], X]))
    run("train x.npy --target 0 -o a.npz")
    run("train x.npy --target -4 -o b.npz")
    np.testing.assert_array_equal(schuss.load("a.npz").coef, schuss.load("b.npz").coef)


def test_checkpoint_goes_on():
    arguments = "train --example diabetes --checkpoint run.ckpt --checkpoint-every 7"
    run(arguments, "--quiet", "-o", "a.npz")
    done = run(arguments, "-o", "b.npz")
    assert "note: going on from checkpoint run.ckpt" in done.err
    np.testing.assert_array_equal(schuss.load("a.npz").coef, schuss.load("b.npz").coef)
    message = refused(arguments, "--seed", "1")
    assert "belongs to another run" in message
    run("train --example digits --loss hinge --epochs 1 --checkpoint digits.ckpt")
    assert Path("digits.class9.ckpt").exists()


def test_quiet():
    done = run("train --example diabetes --quiet")
    assert (done.out, done.err) == ("", "")


@pytest.mark.parametrize("extra", [["--loss", "huber"], ["--rule", "adagrad"], ["--average"]])
def test_plot_of_few_records_and_without_validation(extra):
    run(
        "train",
        "--example",
        "diabetes",
        "--validation",
        "0",
        "--epochs",
        "1",
        "--plot",
        "c.png",
        *extra,
    )
    assert Path("c.png").stat().st_size > 10_000


def test_the_table_compares_with_the_simplest_model():
    out = run("train --example breast-cancer --validation 0").out
    y = examples.load("breast-cancer")[1]
    share = 100 * max(np.mean(y == label) for label in np.unique(y))
    assert f"most frequent class   {share:.2f} %" in re.sub(" {4,}", "   ", out)
    assert "RMSE" not in out
    out = run("train --example diabetes --validation 0 -o m.npz").out
    X, y = examples.load("diabetes")
    error = np.sqrt(np.mean((schuss.load("m.npz").predict(X) - y) ** 2))
    assert float(re.search(r"RMSE +([\d.]+)", out)[1]) == pytest.approx(error, rel=1e-5)
    assert "most frequent" not in out


def history(losses: list[float]) -> History:
    """A history of one row for each loss."""
    return History.from_dict(
        {
            "samples": [10 * (k + 1) for k in range(len(losses))],
            "train_loss": losses,
            "validation_loss": [math.nan] * len(losses),
            "learning_rate": [0.1] * len(losses),
        }
    )


def drawn(losses: list[float], monkeypatch) -> Any:
    """The axes that the loss curve of a run is drawn in."""
    figures = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda figure, *a, **k: figures.append(figure)
    )
    result = SimpleNamespace(history=history(losses), loss="squared_error")
    report.plot(Path("c.png"), [result], 10, "title")
    return figures[0].axes[0]


def test_the_plot_leaves_out_rows_without_a_loss(monkeypatch):
    axes = drawn([3.0, 2.5, math.nan], monkeypatch)
    assert axes.lines[0].get_ydata().tolist() == [3.0, 2.5]
    assert "2.5" in axes.texts[0].get_text()


@pytest.mark.parametrize(
    ("losses", "scale"), [([100.0, 99.0, 98.0], "linear"), ([100.0, 20.0, 9.0], "log")]
)
def test_the_scale_of_the_plot_is_that_of_the_losses(losses, scale, monkeypatch):
    axes = drawn(losses, monkeypatch)
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert 0.5 * min(losses) < low < min(losses)
    assert max(losses) < high < 2 * max(losses)
    assert not axes.lines[0].get_clip_on()


def test_stopping_rules_are_named():
    done = run("train --example diabetes --tol 1e9 --patience 2")
    assert "stopped by     --tol: no further improvement" in done.out
    done = run("train --example diabetes --updates 3")
    assert "updates        3, of 32 rows each" in done.out


# ------------------------------------------------------------------------------- schuss predict


@pytest.fixture
def model():
    write(houses())
    run("train houses.csv --target price --standardize --quiet -o model.npz")
    return "model.npz"


def test_predictions_do_not_depend_on_the_order_of_columns(model):
    columns = houses(seed=1)
    del columns["price"]
    write(columns, "a.csv")
    write({"note": ["x"] * 300} | dict(reversed(columns.items())), "b.csv")
    a, b = (run("predict", model, f"{name}.csv").out for name in "ab")
    assert a == b
    assert len(rows_of(a)) == 300


def test_predictions_are_the_models(model):
    done = run("predict", model, "houses.csv", "--output", "out.csv")
    assert "note: 300 predictions written to out.csv" in done.err
    score = float(re.search(r"R² ([\d.]+) on the target column", done.err)[1])
    predicted = [float(row["prediction"]) for row in rows_of(Path("out.csv").read_text())]
    price = houses()["price"]
    assert score > 0.9
    assert 1 - np.mean((price - predicted) ** 2) / price.var() == pytest.approx(score, abs=1e-4)


def test_single_precision():
    write(houses())
    run("train houses.csv --target price --standardize --quiet --dtype float32 -o model.npz")
    assert schuss.load("model.npz").coef.dtype == np.float32
    cells = [row["prediction"] for row in rows_of(run("predict model.npz houses.csv").out)]
    assert max(map(len, cells)) <= 12
    run("predict model.npz houses.csv -o out.npy")
    np.testing.assert_array_equal(np.array(cells, dtype=np.float32), np.load("out.npy"))


def test_a_missing_column_is_named(model):
    columns = houses()
    del columns["rooms"]
    write(columns, "new.csv")
    assert "new.csv lacks the column 'rooms'" in refused("predict", model, "new.csv")


def test_unknown_categories_are_told(model):
    write(houses() | {"town": np.array(["Basel"] * 300)}, "new.csv")
    done = run("predict", model, "new.csv", "--quiet")
    assert done.err == ""
    done = run("predict", model, "new.csv")
    assert done.err.count("column 'town': 'Basel' did not occur in the training rows") == 1
    write(houses() | {"town": np.arange(300) % 7}, "new.csv")
    assert "'0' and 6 more values" in run("predict", model, "new.csv").err


def test_a_target_column_that_is_no_use_is_no_error(model):
    write(houses() | {"price": np.array([""] * 300)}, "new.csv")
    assert "R²" not in run("predict", model, "new.csv").err
    write(houses() | {"price": np.array(["?"] * 300)}, "new.csv")
    assert "R²" not in run("predict", model, "new.csv").err


def test_output_formats(model):
    run("predict", model, "houses.csv", "-o", "out.npy")
    expected = [
        float(row["prediction"]) for row in rows_of(run("predict", model, "houses.csv").out)
    ]
    np.testing.assert_array_equal(np.load("out.npy"), expected)
    parquet = pytest.importorskip("pyarrow.parquet")
    run("predict", model, "houses.csv", "-o", "out.parquet")
    assert parquet.read_table("out.parquet")["prediction"].to_pylist() == expected


def test_probabilities():
    run("train --example breast-cancer --quiet -o two.npz")
    run("train --example digits --quiet -o ten.npz")
    for name, count in (("breast-cancer", 2), ("digits", 10)):
        path = examples.EXAMPLES[name].path
        model = "two.npz" if count == 2 else "ten.npz"
        done = run("predict", model, path, "--probabilities")
        assert "note: accuracy" in done.err
        rows = rows_of(done.out)
        assert next(iter(rows[0])) == "prediction"
        shares = np.array([[float(v) for v in list(row.values())[1:]] for row in rows])
        assert shares.shape[1] == count
        np.testing.assert_allclose(shares.sum(1), 1)
        labels = [name.removeprefix("probability_") for name in list(rows[0])[1:]]
        assert [labels[k] for k in shares.argmax(1)] == [row["prediction"] for row in rows]
        run("predict", model, path, "--probabilities", "-o", "p.npy")
        np.testing.assert_array_equal(np.load("p.npy"), shares)


def test_probabilities_of_extreme_margins():
    from schuss.cli.predict import _probabilities

    result = schuss.load(_saved_classifier([[1.0], [1.0], [1.0]], ["a", "b", "c"]))
    shares = np.column_stack(list(_probabilities(result, np.array([[-1e5], [1e5]])).values()))
    np.testing.assert_allclose(shares, 1 / 3)


def _saved_classifier(coef: list[list[float]], classes: list[str]) -> str:
    X = np.array([[-1.0], [1.0]])
    one = schuss.fit(X, [0, 1], loss="log_loss", epochs=1)
    parts = []
    for row in coef:
        one.coef = np.array(row)
        one.intercept = 0.0
        parts.append(schuss.Result(**(vars(one) | {"coef": np.array(row)})))
    schuss.Result.one_against_rest(parts, classes).save("c.npz")
    return "c.npz"


def test_probabilities_of_what_has_none(model):
    message = refused("predict", model, "houses.csv", "--probabilities")
    expected = "needs a model of log_loss or multinomial; model.npz was trained with squared_error"
    assert expected in message


def test_a_model_without_names():
    X = np.random.default_rng(0).normal(size=(50, 2))
    schuss.fit(X, X @ [1.0, 2.0]).save("plain.npz")
    np.savetxt("new.csv", X, delimiter=",", header="p,q", comments="")
    predicted = rows_of(run("predict plain.npz new.csv").out)
    result = schuss.load("plain.npz")
    np.testing.assert_array_equal([float(r["prediction"]) for r in predicted], result.predict(X))
    np.save("new.npy", np.column_stack([X, X]))
    assert "has 4 columns; the model has 2 coefficients" in refused("predict plain.npz new.npy")


# ---------------------------------------------------------------------------------- schuss info


def test_info():
    done = run("info")
    assert "backends" in done.out
    assert schuss.__version__ in done.out
    facts = json.loads(run("info --json").out)
    assert facts["backends"]["reference"]["available"]


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("trian", ["did you mean 'train'"]),
        ("train --exampel x", ["--exampel"]),
        ("train", ["--example"]),
        ("train houses.csv --example diabetes", ["not both"]),
        ("train --example diabetis", ["did you mean 'diabetes'"]),
        ("train house.csv --target price", ["house.csv: no such file", "houses.csv"]),
        ("train . --target price", ["."]),
        ("train houses.csv", ["--target", "area, rooms, town, price"]),
        ("train houses.csv --target prize", ["'prize'", "did you mean 'price'"]),
        ("train houses.csv --target price --drop rums", ["'rums'", "did you mean 'rooms'"]),
        ("train houses.csv --target price --drop price", ["no target column 'price'"]),
        ("train houses.csv --target price --keep rums", ["'rums'"]),
        ("train houses.csv --target price --weight wait", ["'wait'"]),
        ("train houses.csv --target price --weight town", ["'town'", "text"]),
        ("train houses.csv --target price --loss huberr", ["--loss", "did you mean 'huber'"]),
        ("train houses.csv --target price --loss huber(delta=1)", ["huber", "epsilon"]),
        ("train houses.csv --target town --loss mse", ["'town' is text", "log_loss"]),
        ("train houses.csv --target price --loss hinge", ["distinct values", "at most 100"]),
        ("train houses.csv --target price --rule adm", ["--rule", "did you mean 'adam'"]),
        ("train houses.csv --target price --order shufle", ["--order", "did you mean 'shuffle'"]),
        ("train houses.csv --target price --backend tpu", ["--backend", "native"]),
        ("train houses.csv --target price --threads 0", ["--threads=0"]),
        ("train houses.csv --target price --batch-size 0", ["--batch-size=0"]),
        ("train houses.csv --target price --batch-size -4", ["--batch-size=-4"]),
        ("train houses.csv --target price --batch-size 301", ["--batch-size=301", "300"]),
        ("train houses.csv --target price --batch-size x", ["'x'", "'full'"]),
        ("train houses.csv --target price --learning-rate 0", ["--learning-rate=0"]),
        ("train houses.csv --target price --learning-rate -1", ["--learning-rate=-1"]),
        ("train houses.csv --target price --learning-rate nan", ["--learning-rate=nan"]),
        ("train houses.csv --target price --learning-rate fast", ["learning-rate", "fast"]),
        ("train houses.csv --target price --learning-rate cosin(1)", ["did you mean 'cosine'"]),
        ("train houses.csv --target price --epochs 0", ["--epochs=0"]),
        ("train houses.csv --target price --alpha -1", ["--alpha=-1"]),
        ("train houses.csv --target price --validation 1", ["--validation"]),
        ("train houses.csv --target price --validation 0.001", ["0.001 of 300 rows is no row"]),
        ("train houses.csv --target price --time-limit soon", ["'soon'", "5min"]),
        ("train houses.csv --target price --seed -1", ["--seed"]),
        ("train houses.csv --target price --checkpoint-every x --checkpoint a", ["'x'"]),
        ("train houses.csv --target price --output model.pkl", ["--output", ".npz"]),
        ("train houses.csv --target price --output no/model.npz", ["--output", "'no'"]),
        ("train houses.csv --target price --plot curves.gif", ["--plot", ".png"]),
        ("train houses.csv --target price --checkpoint no/run.ckpt", ["--checkpoint", "'no'"]),
        ("train houses.csv --target price -o a.npz --checkpoint a.npz", ["same file"]),
        ("predict", ["MODEL"]),
        ("predict none.npz houses.csv", ["none.npz", "does not exist"]),
        ("predict houses.csv houses.csv", ["same file"]),
        ("predict foreign.npz houses.csv", ["foreign.npz"]),
        ("predict foreign.npz houses.csv --output out.xls", ["--output", ".csv"]),
        ("predict foreign.npz houses.csv --output houses.csv", ["same file"]),
        ("info more", ["more"]),
    ],
)
def test_one_line_and_exit_code_2(arguments, parts):
    write(houses())
    np.savez("foreign.npz", X=np.eye(2))
    before = {path: path.stat().st_mtime_ns for path in Path().iterdir()}
    message = refused(arguments)
    for part in parts:
        assert part.lower() in message.lower()
    assert {path: path.stat().st_mtime_ns for path in Path().iterdir()} == before


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["is empty"]),
        ("a,y\n", ["no rows"]),
        ("a,b,y\n1,2,3\n4,5\n", ["line 3", "2 fields"]),
        ("a,a,y\n1,2,3\n", ["both named 'a'"]),
        (",a,y\n1,2,3\n", ["no name"]),
        ('a,y\n1,"2\n', ["never closed"]),
        (b"a,y\n\xff,2\n", ["UTF-8", "line 2"]),
        ("y\n1\n2\n", ["no column besides the target"]),
        ("a,y\n1,2\ninf,3\n", ["infinite", "row 2 (line 3)"]),
        ("a,y\n1,2\n2,inf\n", ["infinite", "'y'"]),
        ("a,y\n1,2\n2,\n", ["missing", "'y'"]),
        ("a,y\n1,7\n2,7\n", ["'y' is 7 in every row"]),
        ("a,y\n1,x\n2,x\n", ["one value only (x)"]),
        ("day,y\n2024-01-31,7\n2024-02-01,8.5\n", ["holds dates", "--drop day"]),
        ("id,a,y\n7,1,7\n8,1,8.5\n9,1,3\n", ["identifier", "--drop id"]),
    ],
)
def test_data_that_cannot_be_trained_on(content, parts):
    Path("data.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refused("train data.csv --target y --output model.npz")
    for part in parts:
        assert part in message
    assert not Path("model.npz").exists()


def test_damaged_models(model):
    whole = Path(model).read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:100], whole[:-50], whole[:middle] + b"x" + whole[middle + 1 :], b""):
        Path("damaged.npz").write_bytes(damaged)
        assert "damaged.npz" in refused("predict damaged.npz houses.csv")


def test_paths_are_looked_at_before_the_data(monkeypatch):
    write(houses())

    def never(*_, **__):
        raise AssertionError("the data were read")

    monkeypatch.setattr("schuss.data.tables.read", never)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tempfile.mkstemp", full)
        message = refused("train houses.csv --target price -o model.npz")
        assert "--output='model.npz' cannot be written: No space left on device" in message
    Path("folder.npz").mkdir()
    assert "folder" in refused("train houses.csv --target price -o folder.npz")
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe.npz")
        assert "regular" in refused("train houses.csv --target price -o pipe.npz")


def test_divergence_is_one_line():
    message = refused("train --example diabetes --learning-rate 50 -o model.npz")
    for part in ("diverged", "epoch", "step", "learning rate 50", "limit"):
        assert part in message
    assert not Path("model.npz").exists()


@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [
        ("matplotlib", "plot", "train --example diabetes --plot c.png"),
        ("plotly", "lab", "bench --load x.json --html c.html"),
        ("pyarrow", "data", "train x.parquet --target y"),
        ("sklearn.datasets", "sklearn", "train x.svm"),
    ],
)
def test_packages_that_are_not_installed(monkeypatch, package, extra, arguments):
    Path("x.parquet").write_text("x")
    Path("x.svm").write_text("x")
    monkeypatch.setitem(sys.modules, package, None)
    assert f"pip install '.[{extra}]' from a clone" in refused(arguments)


def test_no_file_is_left_half_written(monkeypatch, model):
    Path("out.csv").write_text("old\n")
    Path("c.png").write_text("old\n")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    before = set(Path().iterdir())
    monkeypatch.setattr("schuss.cli.outputs._write_csv", fail)
    assert "No space left" in refused("predict", model, "houses.csv", "-o", "out.csv")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    assert "No space left" in refused("train --example diabetes --plot c.png")
    assert Path("out.csv").read_text() == Path("c.png").read_text() == "old\n"
    assert set(Path().iterdir()) == before


def test_a_bug_is_one_line_too(monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("schuss.info.collect", broken)
    done = run("info", code=1)
    assert done.err.startswith("error: unexpected ZeroDivisionError: oh. This is a bug in schuss")
    assert len(done.err.splitlines()) == 1
    monkeypatch.setenv("SCHUSS_DEBUG", "1")
    assert "Traceback" in run("info", code=1).err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "out of memory"),
        (PermissionError(13, "Permission denied", "x.csv"), 2, "x.csv: Permission denied"),
        (SystemExit(3), 3, ""),
    ],
)
def test_exit_codes(monkeypatch, error, code, text):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr("schuss.info.collect", broken)
    assert text in run("info", code=code).err


# ------------------------------------------------------------------------------------ interrupts


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for child processes on Windows")
@pytest.mark.parametrize("classes", [2, 3])
def test_ctrl_c_saves_the_last_state(classes):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 20))
    y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5) * (classes - 2)
    np.savez("x.npz", X=X, y=y)
    running = start(
        "train x.npz --loss log_loss --epochs 100000 --output model.npz --checkpoint a.ckpt "
        "--plot c.png"
    )
    time.sleep(3)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted" in err
    if classes == 2:
        assert "the model so far is in model.npz" in err
        assert "the same command goes on from checkpoint a.ckpt" in err
        assert re.search("stopped by +Ctrl-C", out)
        assert schuss.load("model.npz").stop_reason == "interrupted"
    else:
        assert "no model was saved" in err
        assert "the same command goes on from checkpoint a.class0.ckpt" in err
        assert not Path("model.npz").exists()


# ----------------------------------------------------------------------- what is often mistaken


def test_the_nearest_option_is_suggested():
    message = refused("train --example diabetes --epoch 3")
    assert "--epochs" in message
    assert "--keep" not in message
    assert "?." not in message


def test_model_and_data_in_the_wrong_order(model):
    message = refused("predict houses.csv model.npz")
    assert message.endswith("the model comes first: schuss predict model.npz houses.csv")


@pytest.mark.parametrize("share", ["nan", "inf", "-0.1", "1"])
@pytest.mark.parametrize("data", ["--example breast-cancer", "--example diabetes", "none.csv"])
def test_a_share_that_is_none(data, share):
    assert "--validation" in refused(f"train {data} --validation {share}")


def test_divergence_speaks_of_options():
    message = refused("train --example diabetes --learning-rate 1e9")
    assert "a smaller --learning-rate, or --learning-rate='auto'" in message


# ----------------------------------------------------------------------------- as a program


def test_help_is_quick_and_loads_nothing_heavy():
    for command in ("", "--help", "train --help", "predict -h", "--version"):
        assert program(command).code == 0
    code = (
        "import sys; from schuss.cli import cli; cli.main(['--help'], standalone_mode=False); "
        "sys.stderr.write(str([m for m in ('numpy', 'numba', 'rich') if m in sys.modules]))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stderr == "[]"
    assert "train" in done.stdout


def test_help_groups_the_options():
    text = run("train --help").out
    for heading in ("Data:", "Model:", "Descent:", "Stopping:", "Output:", "Examples:"):
        assert f"\n{heading}" in text or f"\n  {heading}" in text
    for parameter in train_command.params:
        if parameter.name != "data":
            assert parameter.opts[-1] in text


def test_as_a_program(model):
    done = program("predict model.npz houses.csv")
    assert done.code == 0
    assert len(done.out.splitlines()) == 301
    done = program("predict model.npz none.csv")
    assert done.code == 2
    assert done.err == "error: none.csv: no such file\n"
    assert program("info").code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_reader_that_goes_away(model):
    write({name: np.tile(column, 200) for name, column in houses().items()}, "many.csv")
    command = f"'{sys.executable}' -m schuss predict {model} many.csv -q | head -1"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    assert done.stdout == "prediction\n"
    assert done.stderr == ""


def test_training_from_two_copies_of_the_program_at_once(model):
    running = [start("train houses.csv --target price -q -o m.npz") for _ in range(2)]
    for one in running:
        one.communicate(timeout=60)
    assert [one.returncode for one in running] == [0, 0]
    schuss.load("m.npz")


# ---------------------------------------------------------------------------------------- pieces


@pytest.mark.parametrize(
    ("y", "loss", "classes"),
    [
        (["a", "b"], "log_loss", ["a", "b"]),
        ([0.0, 1.0], "log_loss", [0, 1]),
        ([2.5, 7.0], "log_loss", [2.5, 7.0]),
        (["a", "b", "c"], "multinomial", ["a", "b", "c"]),
        ([0.0, 1.0, 2.0], "multinomial", [0, 1, 2]),
        ([1.0, 2.0, 3.0, 4.0], "multinomial", [1, 2, 3, 4]),
        ([1.0, 2.0, 4.0], "squared_error", None),
        ([3.0, 4.0, 5.0], "squared_error", None),
        ([0.5, 1.5, 2.5], "squared_error", None),
        (list(map(float, range(21))), "squared_error", None),
    ],
)
def test_what_is_learned_from_a_target(y, loss, classes):
    found, told = task.choose("y", np.array(y * 50), None)
    assert found.loss.name == loss
    assert (None if found.classes is None else found.classes.tolist()) == classes
    assert loss in told
    assert not found.one_against_rest
    if classes is not None and len(classes) > 2:
        assert task.choose("y", np.array(y * 50), "hinge")[0].one_against_rest


def test_few_rows_of_whole_numbers_are_a_quantity():
    assert task.choose("y", np.array([0.0, 1.0, 2.0]), None)[0].classes is None


def test_a_loss_that_is_given_is_taken():
    y = np.array([0.0, 1.0, 2.0] * 50)
    assert task.choose("y", y, "huber")[0].classes is None
    assert task.choose("y", y + 3, "hinge")[0].classes.tolist() == [3, 4, 5]
    assert task.choose("y", y, "squared_error")[1] is None


def test_options_in_the_words_of_the_command_line():
    assert console.as_options("batch_size=0: expected 1.") == "--batch-size=0: expected 1."
    assert console.as_options("loss='x' is not known") == "--loss='x' is not known"
    assert console.as_options("use learning_rate='auto'") == "use --learning-rate='auto'"
    assert console.as_options("houses.csv: no such file") == "houses.csv: no such file"


def test_distinct_paths():
    outputs.check_distinct([("a", None), ("b", None), ("c", "x"), ("d", "y")])
    with pytest.raises(DataError, match="c and d are the same file"):
        outputs.check_distinct([("c", "x"), ("d", "./x")])


@pytest.mark.parametrize(
    ("value", "text"),
    [(12.3, "12.3"), (870.4, "870"), (1250.0, "1.25 k"), (1e6, "1 M"), (4.2e9, "4.2 G")],
)
def test_rates(value, text):
    assert rate(value) == f"{text} samples/s"


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("label", ["", "class 3 of 10"])
def test_the_bar_shows_where_training_stands(width, label):
    from rich.console import Console

    screen = io.StringIO()
    bar = Bar(label, epochs=20, console=Console(file=screen, force_terminal=True, width=width))
    bar.update(1, 0, 1.0, None, 0.1, 1.0)  # before start: nothing happens
    bar.start(1000)
    bar.update(500, 9, 0.123456, 0.234567, 0.0123, 12_345_678.0)
    bar._progress.refresh()
    bar.update(1000, 20, 0.1, float("nan"), 0.0, 1e6)
    bar.stop()
    bar.stop()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert label in text
    if width >= 80:
        for part in ("loss 0.123", "lr 0.0123", "12.3", "0.235" if width < 110 else "0.2346"):
            assert part in text
        assert label or "epoch 10/20" in text
    assert max(map(len, re.split(r"[\r\n]", text))) <= width


def test_no_bar_where_nobody_watches(capsys):
    bar = Bar()
    bar.start(10)
    bar.update(5, 0, 1.0, None, 0.1, 1.0)
    bar.stop()
    assert capsys.readouterr() == ("", "")


def test_durations():
    from schuss.cli.report import _duration

    assert [_duration(t) for t in (0.0123, 1.234, 75, 125, 7384)] == [
        "12.3 ms",
        "1.23 s",
        "75 s",
        "2 min 5 s",
        "2 h 3 min",
    ]


def test_the_manual_has_every_option():
    page = Path(__file__).parents[1] / "docs" / "cli.rst"
    text = page.read_text(encoding="utf-8")
    for command in cli.commands.values():
        for parameter in command.params:
            for option in parameter.opts + parameter.secondary_opts:
                assert not option.startswith("--") or f"`{option}" in text or f" {option}`" in text

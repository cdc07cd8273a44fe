"""schuss beside scikit-learn's SGDRegressor, interleaved in one process; prints a table.

    python bench/peers.py            measure, print, write bench/results/peers.json
    python bench/peers.py --readme   rewrite the README's numbers from that file

Both train the same model on the same float32 data of n * d = 10^8 from the same start with the same
constant learning rate, one update per row, all rows shuffled every epoch. Times are those of a
whole ``fit``, checks and set-up included, divided by its epochs. The table gives the median over
the rounds and the range; "of ceiling" is the epoch's speed inside the loop over that of summing the
same rows by shuffled index, measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from machine import ELEMENTS, ceilings, describe, regression, seconds

import schuss

RESULTS = Path(__file__).parent / "results" / "peers.json"
README = Path(__file__).parent.parent / "README.md"
MARKS = ("<!-- numbers:begin -->", "<!-- numbers:end -->")
EPOCHS = 3


def half_mean_square(X: np.ndarray, y: np.ndarray, coef: np.ndarray, intercept: float) -> float:
    """The objective both minimise."""
    residual = X @ coef.astype(np.float32) + np.float32(intercept) - y
    return float(np.mean(residual.astype(np.float64) ** 2) / 2)


def measure(d: int, rounds: int, elements: int) -> dict[str, Any]:
    """All rivals on data of ``d`` columns."""
    from sklearn.linear_model import SGDRegressor

    X, y = regression(d, elements)
    n, lr = X.shape[0], 0.1 / d
    found: dict[str, Any] = {}
    losses: dict[str, float] = {}
    inside: dict[str, list[float]] = {}

    def sklearn_fit() -> None:
        model = SGDRegressor(
            penalty=None,
            learning_rate="constant",
            eta0=lr,
            max_iter=EPOCHS,
            tol=None,
            random_state=0,
        ).fit(X, y)
        found["scikit-learn"] = (model.coef_, model.intercept_[0])

    def schuss_fit(name: str, **settings: Any) -> None:
        result = schuss.fit(X, y, learning_rate=lr, epochs=EPOCHS, **settings)
        found[name] = (result.coef, result.intercept)
        inside.setdefault(name, []).append(statistics.median(result.history.samples_per_second))

    jobs = {
        "scikit-learn": sklearn_fit,
        "native": lambda: schuss_fit("native", batch_size=1, backend="native"),
        "jit": lambda: schuss_fit("jit", batch_size=1, backend="jit"),
    }
    times: dict[str, list[float]] = {name: [] for name in jobs}
    schuss.fit(X[:1000], y[:1000], batch_size=1, learning_rate=lr, backend="jit")  # compiles
    for _ in range(rounds):
        for name, job in jobs.items():
            times[name].append(seconds(job) / EPOCHS)
    bound = ceilings(X)
    for name, (coef, intercept) in found.items():
        losses[name] = half_mean_square(X, y, np.asarray(coef), intercept)
    ratios = {
        name: [a / b for a, b in zip(times["scikit-learn"], times[name], strict=True)]
        for name in jobs
    }
    return {
        "n": n,
        "d": d,
        "rounds": rounds,
        "ceilings": bound,
        "rivals": {
            name: {
                "samples_per_second": n / statistics.median(times[name]),
                "ratio": statistics.median(ratios[name]),
                "ratio_range": [min(ratios[name]), max(ratios[name])],
                "of_random_ceiling": statistics.median(inside[name]) / bound["random"]
                if name in inside
                else None,
                "objective": losses[name],
            }
            for name in jobs
        },
    }


def table(record: dict[str, Any]) -> str:
    """The record as a Markdown table."""
    lines = [
        "| per-sample SGD, shuffled, float32 | d | M samples/s | against scikit-learn | of ceiling "
        "| objective reached |",
        "|---|---|---|---|---|---|",
    ]
    for case in record["cases"]:
        for name, row in case["rivals"].items():
            label = "scikit-learn `SGDRegressor`" if name == "scikit-learn" else f"schuss `{name}`"
            low, high = row["ratio_range"]
            ratio = "1" if name == "scikit-learn" else f"{row['ratio']:.1f}x ({low:.1f}-{high:.1f})"
            part = row["of_random_ceiling"]
            lines.append(
                f"| {label} | {case['d']} | {row['samples_per_second'] / 1e6:.2f} | {ratio} | "
                f"{'' if part is None else f'{100 * part:.0f} %'} | {row['objective']:.4f} |"
            )
    machine = record["machine"]
    set_name = machine.get("instruction set", "")
    lines += [
        "",
        f"n d = {record['elements']:.0e} elements, medians of {record['cases'][0]['rounds']} "
        f"interleaved rounds (range in brackets), whole `fit` over {record['epochs']} epochs, one "
        f"thread; {machine['cpu']}, {machine['cores']} cores, {set_name}; scikit-learn "
        f"{machine['scikit-learn']}, NumPy {machine['numpy']}, Python {machine['python']}. "
        "`python bench/peers.py` measures it anew.",
    ]
    return "\n".join(lines)


def rewrite_readme(record: dict[str, Any]) -> None:
    """Put the table between the README's marks."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    README.write_text(f"{before}{MARKS[0]}\n{table(record)}\n{MARKS[1]}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--elements", type=int, default=ELEMENTS, help="n * d")
    parser.add_argument("--d", type=int, nargs="+", default=[20, 100, 1000])
    parser.add_argument("--readme", action="store_true", help="only rewrite the README")
    options = parser.parse_args()
    if not options.readme:
        cases = [measure(d, options.rounds, options.elements) for d in options.d]
        record = {
            "machine": describe(),
            "elements": options.elements,
            "epochs": EPOCHS,
            "cases": cases,
        }
        if options.elements == ELEMENTS:
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(table(record))
        return
    rewrite_readme(json.loads(RESULTS.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()

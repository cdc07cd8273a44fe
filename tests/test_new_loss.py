"""Adding a loss: one Python row and, for the native backend, one C++ struct; nothing else."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import numpy as np
import oracle
import pytest
from support import backend_or_skip, run_python

import schuss
import schuss.losses
import schuss.rules
from schuss.backends import Problem, Segment, State, choose
from schuss.errors import BackendError, InvalidArgument
from schuss.formulas.losses import LOSSES, VECTOR_LOSSES

ROW = '''
from __future__ import annotations

import numpy as np
from schuss.formulas.losses import Loss, VectorLoss, row, vector_row
from schuss.formulas.spec import parameter


@row
class cauchy(Loss):
    """Cauchy's loss, c^2/2 log(1 + (r/c)^2): outliers weigh less the farther out they lie."""

    c: float = parameter(default=2.0, over=0)

    @staticmethod
    def value(margin, y, p):
        residual = (margin - y) / p[0]
        return 0.5 * p[0] * p[0] * np.log1p(residual * residual)

    @staticmethod
    def slope(margin, y, p):
        residual = (margin - y) / p[0]
        return p[0] * residual / (1 + residual * residual)


@vector_row
class squares(VectorLoss):
    """Half the squared distance of the margins from scale times the label's unit vector."""

    scale: float = parameter(default=1.0, over=0)
    curvature = 1.0

    @staticmethod
    def weigh(margins, y, p, slopes):
        value = 0 * margins[0]
        for c in range(len(margins)):
            residual = margins[c] - p[0] * (y == c)
            value = value + 0.5 * residual * residual
            slopes[c] = residual
        return value
'''

STRUCT = """
SCHUSS_LOSS(cauchy) {
  T c;
  SCHUSS_FN explicit cauchy(const double* p) : c(T(p[0])) {}
  SCHUSS_FN T value(T margin, T y) const {
    const T r = (margin - y) / c;
    return T(0.5) * c * c * log_one_plus(r * r);
  }
  SCHUSS_FN T slope(T margin, T y) const {
    const T r = (margin - y) / c;
    return c * r / (T(1) + r * r);
  }
};

"""
PLACE = "// New losses go above this line."

VECTOR_STRUCT = """
SCHUSS_VECTOR_LOSS(squares) {
  T scale;
  SCHUSS_FN explicit squares(const double* p) : scale(T(p[0])) {}
  template <int R>
  SCHUSS_FN void weigh(T* m, long long k, const T* y, T* value) const {
    for (int r = 0; r < R; ++r) value[r] = 0;
    for (long long c = 0; c < k; ++c)
      for (int r = 0; r < R; ++r) {
        m[c * R + r] -= y[r] == T(c) ? scale : T(0);
        value[r] += T(0.5) * m[c * R + r] * m[c * R + r];
      }
  }
};

"""
VECTOR_PLACE = "// New losses of several margins go above this line."


def textbook(m: float, y: float) -> tuple[float, float]:
    """The loss with c = 3, in the oracle's form."""
    r = m - y
    return 4.5 * np.log(1 + r**2 / 9), r / (1 + r**2 / 9)


@pytest.fixture
def cauchy(tmp_path, monkeypatch):
    """The row, from a module of its own, in the table for the time of a test."""
    (tmp_path / "cauchy_loss.py").write_text(ROW, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("cauchy_loss").cauchy
    del sys.modules["cauchy_loss"], LOSSES.rows["cauchy"], VECTOR_LOSSES.rows["squares"]


def data(dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 5)).astype(np.float32).astype(dtype)
    return X, rng.integers(-8, 8, 40).astype(dtype), rng.normal(size=6).astype(dtype)


#: One type on jit: Numba compiles for many seconds.
EACH = [("reference", np.float64), ("reference", np.float32), ("jit", np.float32)]


@pytest.mark.parametrize(("name", "dtype"), EACH)
def test_one_row_runs_on_reference_and_jit(cauchy, name, dtype):
    loss = schuss.losses.get("cauchy(c=3)")
    assert loss == cauchy(c=3.0)
    backend = choose(name, loss=loss)
    X, y, theta = data(dtype)
    tolerance = 1e-10 if dtype == np.float64 else 1e-4
    for batch_size in (1, 8):
        run = oracle.descend(
            X.astype(float),
            y.astype(float),
            textbook,
            "sgd",
            oracle.batches(range(40), batch_size),
            [0.1] * (40 // batch_size),
            theta.astype(float),
        )
        state = State.start(theta, schuss.rules.sgd())
        segment = Segment((0, 40), np.array([0.1]), batch_size)
        total, norm = backend.descend(Problem(X, y, None, loss), state, segment)
        np.testing.assert_allclose(state.theta, run.theta, rtol=tolerance)
        np.testing.assert_allclose([total, norm], [run.loss, run.norm], rtol=tolerance)


@pytest.mark.usefixtures("cauchy")
@pytest.mark.parametrize(("name", "dtype"), EACH)
def test_one_row_of_several_margins_runs_on_reference_and_jit(name, dtype):
    loss = schuss.losses.get("squares(scale=3)")
    backend = choose(name, loss=loss)
    X, y, theta = data(dtype)
    label, k = np.abs(y) % 3, 3
    theta = np.tile(theta, k)
    problem = Problem(X, label, None, loss, n_outputs=k)
    # The same as k outputs whose targets are 0 and 3.
    targets = (3 * (label[:, None] == np.arange(k))).astype(dtype)
    twin = Problem(X, targets, None, schuss.losses.squared_error(), n_outputs=k)
    sums = [backend.gradient(one, theta, (0, 40)) for one in (problem, twin)]
    tolerance = 1e-10 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(sums[0][0], sums[1][0], rtol=tolerance)
    np.testing.assert_allclose(sums[0][1], sums[1][1], rtol=0, atol=tolerance * 100)


def test_one_row_has_a_name_checks_and_forms(cauchy):
    assert "cauchy" in schuss.losses.names()
    assert schuss.losses.get(str(cauchy(c=0.5))) == cauchy(c=0.5)
    with pytest.raises(InvalidArgument, match=r"cauchy.*c=-1"):
        cauchy(c=-1)
    with pytest.raises(InvalidArgument, match=r"loss='cauchi'.*'cauchy'"):
        schuss.losses.get("cauchi")


def test_the_other_losses_keep_their_results(cauchy):
    jit = backend_or_skip("jit")
    X, y, theta = data(np.float64)
    problem = Problem(X, y, None, schuss.losses.huber())
    with_row = jit.gradient(problem, theta, (0, 40))
    kept = LOSSES.rows.pop("cauchy")
    without = jit.gradient(problem, theta, (0, 40))
    LOSSES.rows["cauchy"] = kept
    assert with_row[0] == without[0]
    np.testing.assert_array_equal(with_row[1], without[1])


@pytest.mark.usefixtures("cauchy")
def test_native_asks_for_the_struct():
    backend_or_skip("native")
    with pytest.raises(BackendError, match=r"formulas\.h has no struct for loss 'cauchy'"):
        choose("native", loss=schuss.losses.get("cauchy"))
    assert choose("auto", loss=schuss.losses.get("cauchy")).name == "jit"


# ------------------------------------------------------------------------------------- native

PROBE = """
    import sys
    sys.path[:0] = {path!r}
    import numpy as np
    import cauchy_loss
    from schuss import _native
    import schuss.losses, schuss.rules
    from schuss.backends import Problem, Segment, State, choose
    from test_new_loss import data

    assert _native.losses()[-1] == "cauchy"
    assert _native.vector_losses()[-1] == "squares"
    loss = schuss.losses.get("cauchy(c=3)")
    native, reference = choose("native", loss=loss), choose("reference")
    for instructions in _native.instruction_sets():
        _native.use_instruction_set(instructions)
        for dtype, tolerance in ((np.float32, 1e-4), (np.float64, 1e-10)):
            X, y, theta = data(dtype)
            problem = Problem(X, y, None, loss)
            for batch_size in (1, 8):
                made = []
                for backend in (native, reference):
                    state = State.start(theta, schuss.rules.sgd())
                    segment = Segment((0, 40), np.array([0.1]), batch_size)
                    total, norm = backend.descend(problem, state, segment)
                    made.append([*state.theta, total, norm])
                np.testing.assert_allclose(*made, rtol=tolerance)
            several = schuss.losses.get("squares(scale=3)"), schuss.losses.multinomial()
            for loss_of_three in several:
                problem = Problem(X, abs(y) % 3, None, loss_of_three, n_outputs=3)
                wide = np.tile(theta, 3)
                pair = [b.gradient(problem, wide, (0, 40))[1] for b in (native, reference)]
                np.testing.assert_allclose(*pair, rtol=0, atol=tolerance * abs(pair[1]).max())
            # The other losses are still themselves.
            for other in ("squared_error", "poisson"):
                problem = Problem(X, abs(y), None, schuss.losses.get(other))
                pair = [b.gradient(problem, theta, (0, 40))[1] for b in (native, reference)]
                np.testing.assert_allclose(*pair, rtol=0, atol=tolerance * abs(pair[1]).max())
        print(instructions)
"""


def source_tree() -> Path:
    """The checkout these tests lie in."""
    root = Path(__file__).parent.parent
    for name in ("setup.py", "pyproject.toml", "csrc/formulas.h"):
        if not (root / name).is_file():
            pytest.skip(f"native: built from a checkout, and there is no {name} here")
    return root


def compiler_or_skip() -> None:
    """A C++ compiler, and what setup.py needs."""
    for module in ("setuptools", "pybind11"):
        pytest.importorskip(module, reason=f"native: {module} builds the extension")
    if sys.platform == "win32":
        pytest.skip("native: not built on Windows")
    compiler = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    if shutil.which(compiler.split()[0]) is None:
        pytest.skip(f"native: no C++ compiler {compiler!r}")


def test_one_struct_runs_on_native(tmp_path):
    """The package, copied and built with one row and one struct more."""
    compiler_or_skip()
    root, tree = source_tree(), tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "_native_missing.txt")
    for name in ("src/schuss", "csrc"):
        shutil.copytree(root / name, tree / name, ignore=ignored)
    shutil.copy(root / "pyproject.toml", tree / "pyproject.toml")
    script = (root / "setup.py").read_text(encoding="utf-8")
    assert script.count('"-O3"') == 2  # which takes minutes, and is not what is looked at here
    (tree / "setup.py").write_text(script.replace('"-O3"', '"-O0"'), encoding="utf-8")
    formulas = tree / "csrc" / "formulas.h"
    text = formulas.read_text(encoding="utf-8")
    # Without the losses that are not looked at, the compiler is done in a fraction of the time.
    text = re.sub(r"SCHUSS_LOSS\((?!squared_error|poisson)\w+\) \{.*?\n\};\n", "", text, flags=re.S)
    for place, struct in ((PLACE, STRUCT), (VECTOR_PLACE, VECTOR_STRUCT)):
        assert text.count(place) == 1
        text = text.replace(place, struct.lstrip() + place)
    formulas.write_text(text, encoding="utf-8")
    (tree / "src" / "cauchy_loss.py").write_text(ROW, encoding="utf-8")

    build = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=tree,
        env=os.environ | {"SCHUSS_REQUIRE_NATIVE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert build.returncode == 0, build.stderr[-3000:]
    path = [str(tree / "src"), str(Path(__file__).parent)]
    output = run_python(textwrap.dedent(PROBE).format(path=path), PYTHONPATH=path[0])
    assert output.split()

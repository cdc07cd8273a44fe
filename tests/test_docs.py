"""The pages, the README and the docstrings: every example runs, every public name is described."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import schuss
from schuss.data import examples
from schuss.formulas.losses import LOSSES
from schuss.formulas.rules import RULES
from schuss.formulas.schedules import SCHEDULES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(p for p in DOCS.rglob("*.rst") if "_build" not in p.parts)]
ROOMS = ("losses", "rules", "schedules", "orders", "errors", "backends", "data", "lab")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# Modules that cannot be imported, or not everywhere, by themselves.
NOT_IMPORTED = {"schuss.__main__", "schuss._native"}


# ---- Code on the pages ---------------------------------------------------------------------------


@dataclasses.dataclass
class Block:
    """A piece of code on a page."""

    page: Path
    line: int
    language: str
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    return (fenced if page.suffix == ".md" else indented)(page)


def fenced(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, m.start()) + 1, m[1], "", m[2])
        for m in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    ]


def indented(page: Path) -> list[Block]:
    found = []
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        opening = re.fullmatch(r"( *)\.\. code-block:: (\S+)", line)
        if not opening:
            continue
        body = []
        for following in lines[number + 1 :]:
            if following.strip() and not following.startswith(opening[1] + "   "):
                break
            body.append(following)
        text = inspect.cleandoc("\n".join(body)) + "\n"
        name = re.match(r":name: (\S+)\n", text)
        text = re.sub(r"\A(:\w+:.*\n)+\n*", "", text)
        found.append(Block(page, number + 1, opening[2], name[1] if name else "", text))
    return found


BLOCKS = [block for page in PAGES for block in blocks(page)]
NAMED = {block.name: block.text for block in BLOCKS if block.name}


def run_examples(text: str, name: str) -> None:
    """Run the examples in a text, as one session."""
    parsed = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    report: list[str] = []
    outcome = doctest.DocTestRunner(optionflags=FLAGS).run(parsed, out=report.append)
    assert outcome.failed == 0, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_on_the_page_run(page, tmp_path, monkeypatch):
    if page == DOCS / "torch.rst":
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    session = [b.text for b in blocks(page) if b.language in ("python", "pycon") and not b.name]
    run_examples("\n\n".join(text for text in session if ">>>" in text), str(page))


@pytest.mark.parametrize(
    "block",
    [b for b in BLOCKS if b.language == "python" and ">>>" not in b.text and not b.name],
    ids=str,
)
def test_script_on_the_page_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, str(block), "exec"), {"__name__": "example"})


def test_named_blocks_are_those_tested_below():
    assert set(NAMED) == {"toy-loss-python", "toy-loss-c", "toy-rule-python", "toy-rule-c"}


def commands(block: Block) -> list[str]:
    """The block's calls of schuss, one line each."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("schuss ")]


@pytest.mark.parametrize(
    "page",
    sorted({b.page for b in BLOCKS if b.language == "sh" and commands(b)}),
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_commands_on_the_page_run(page, tmp_path):
    X, y = examples.load("diabetes")
    names = [f"room{k}" for k in range(X.shape[1])] + ["price"]
    table = np.column_stack([X, y])
    np.savetxt(tmp_path / "houses.csv", table, delimiter=",", header=",".join(names), comments="")
    for block in blocks(page):
        for line in commands(block) if block.language == "sh" else []:
            call = f'"{sys.executable}" -m {line}'
            done = subprocess.run(call, shell=True, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, f"{block}: {line}\n{done.stderr}"


# ---- The example of a new loss and a new rule ----------------------------------------------------

# Runs in a process of its own, as the rows it adds would stay in the tables.
USE_ROWS = """
import doctest, json, sys
import numpy as np, schuss
from schuss.formulas import losses, rules

exec(compile(sys.argv[1], "<page>", "exec"), vars(losses))
exec(compile(sys.argv[2], "<page>", "exec"), vars(rules))
runner = doctest.DocTestRunner()
for thing in (losses.log_cosh, rules.rmsprop):
    for test in doctest.DocTestFinder().find(thing, thing.__name__, module=False):
        assert runner.run(test).failed == 0

loss = schuss.losses.get("log_cosh(scale=0.5)")
margin, y, step = np.linspace(-40, 40, 321), 0.25, 1e-6
slope = loss.derivative(margin, y)
assert np.allclose((loss(margin + step, y) - loss(margin - step, y)) / (2 * step), slope, atol=1e-8)

X = np.random.default_rng(0).normal(size=(300, 3))
options = {"loss": loss, "rule": "rmsprop(decay=0.9)", "batch_size": 7, "epochs": 50}
coef = [
    schuss.fit(X, X @ [1.0, 2.0, 3.0], backend=backend, **options).coef
    for backend in ("reference", "jit")
]
assert np.allclose(coef[0], coef[1], rtol=1e-10), coef
assert np.allclose(coef[0], [1.0, 2.0, 3.0], atol=0.05), coef

rule = schuss.rules.get("rmsprop(decay=0.9)")
constants = rule.constants(np.arange(1), np.array([0.1]))[0]
w, s, _ = rule.update(1.0, np.linspace(-2, 2, 9), 0.5, 0.0, constants)
computed = {"value": loss(margin, y), "slope": slope, "constants": constants, "w": w, "s": s}
print(json.dumps({name: array.tolist() for name, array in computed.items()}))
"""

MAIN = r"""
#include <cstdio>
#include "formulas.h"
using namespace schuss::portable;
int main() {
  const double p[] = {0.5}, c[] = {%(constants)s};
  for (int k = 0; k <= 320; ++k) {
    const double m = -40 + 0.25 * k;
    const log_cosh<double> wide(p);
    const log_cosh<float> narrow(p);
    std::printf("%%.17g %%.17g %%.17g\n", wide.value(m, 0.25), wide.slope(m, 0.25),
                double(narrow.slope(float(m), 0.25f)));
  }
  for (int k = 0; k < 9; ++k) {
    double w = 1, s = 0.5, none = 0;
    rmsprop<double>(c).update(w, -2 + 0.5 * k, s, none);
    std::printf("%%.17g %%.17g 0\n", w, s);
  }
}
"""


@pytest.mark.filterwarnings("default")
def test_the_new_loss_and_rule_of_the_page_work(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", USE_ROWS, NAMED["toy-loss-python"], NAMED["toy-rule-python"]],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    python = json.loads(done.stdout.splitlines()[-1])
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler: the structs of the page are not compiled")

    header = (ROOT / "csrc" / "formulas.h").read_text(encoding="utf-8")
    for name, kind in (("toy-loss-c", "losses"), ("toy-rule-c", "rules")):
        place = f"// New {kind} go above this line."
        assert header.count(place) == 1
        header = header.replace(place, f"{NAMED[name]}\n{place}")
    (tmp_path / "formulas.h").write_text(header, encoding="utf-8")
    constants = ", ".join(map(repr, python["constants"]))
    (tmp_path / "main.cpp").write_text(MAIN % {"constants": constants}, encoding="utf-8")
    program = tmp_path / "main"
    build = [
        compiler,
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-O1",
        "main.cpp",
        "-o",
        program,
    ]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = np.loadtxt(
        subprocess.run([program], capture_output=True, text=True).stdout.split("\n")
    )
    value, slope, narrow = printed[:321].T
    np.testing.assert_allclose(value, python["value"], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(slope, python["slope"], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(narrow, python["slope"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(printed[321:, 0], python["w"], rtol=1e-14)
    np.testing.assert_allclose(printed[321:, 1], python["s"], rtol=1e-14)


# ---- The API reference ---------------------------------------------------------------------------


def public() -> dict[str, object]:
    """Every public name and what it stands for; modules and the version aside."""
    found = {f"schuss.{name}": getattr(schuss, name) for name in schuss.__all__}
    for room in ROOMS:
        module = importlib.import_module(f"schuss.{room}")
        found |= {f"schuss.{room}.{name}": getattr(module, name) for name in module.__all__}
    return {
        name: thing
        for name, thing in found.items()
        if not inspect.ismodule(thing) and name != "schuss.__version__"
    }


PUBLIC = public()
API = {page: page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.rst")}


def documented() -> set[str]:
    """Names that the pages of the API reference describe."""
    text = "\n".join(API.values())
    names = set(re.findall(r"^\.\. auto(?:class|function|data|exception):: (\S+)$", text, re.M))
    names |= {
        f"{module}.{name}"
        for name, module in re.findall(r"^\.\. py:data:: (\S+)\n   :module: (\S+)$", text, re.M)
    }
    for module in re.findall(r"^\.\. automodule:: (\S+)$", text, re.M):
        names |= {f"{module}.{name}" for name in importlib.import_module(module).__all__}
    return names


def test_every_public_name_is_in_the_reference():
    assert set(PUBLIC) - documented() == set()


def test_every_row_of_a_table_is_a_public_name():
    for room, table in (("losses", LOSSES), ("rules", RULES), ("schedules", SCHEDULES)):
        assert set(table.names()) <= set(importlib.import_module(f"schuss.{room}").__all__)


def sections(docstring: str) -> dict[str, list[str]]:
    """The lines of each section of a numpydoc docstring."""
    lines = inspect.cleandoc(docstring).splitlines()
    found: dict[str, list[str]] = {"Summary": []}
    heading = "Summary"
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if re.fullmatch(r"-{3,}", following):
            heading = line
            found[heading] = []
        elif not re.fullmatch(r"-{3,}", line):
            found[heading].append(line)
    return found


def described(docstring: str) -> set[str]:
    """Names that the Parameters and Attributes sections describe."""
    found = sections(docstring)
    lines = found.get("Parameters", []) + found.get("Attributes", [])
    entries = [line.split(" : ")[0] for line in lines if line and not line.startswith(" ")]
    return {name.strip() for entry in entries for name in entry.split(",")}


def taken(function: object) -> set[str]:
    """Names of the parameters that a function or a class takes."""
    if isinstance(function, type) and issubclass(function, Exception):
        return set()
    parameters = inspect.signature(function).parameters.values()
    named = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    return named - {"self", "cls"}


@pytest.mark.parametrize("name", sorted(n for n in PUBLIC if n != "schuss.backends.Rows"))
def test_public_docstring_is_complete(name):
    thing = PUBLIC[name]
    docstring = vars(thing).get("__doc__") if isinstance(thing, type) else inspect.getdoc(thing)
    assert docstring, f"{name} has no docstring of its own"
    protocol = getattr(thing, "_is_protocol", False)
    missing = set() if protocol else taken(thing) - described(docstring)
    assert not missing, f"{name} does not describe {sorted(missing)}"
    last = name.rpartition(".")[2]
    on_its_page = any(
        re.search(rf"^ *(>>>|\.\.\.) .*\b{last}\b", text, re.M) for text in API.values()
    )
    assert ">>>" in docstring or on_its_page, f"{name} has no example"


def own_methods(cls: type) -> list[tuple[str, object]]:
    """Methods and properties with a docstring, which the reference shows."""
    found = []
    for name, member in vars(cls).items():
        function = member.fget if isinstance(member, property) else member
        function = getattr(function, "__func__", function)
        shown = not name.startswith("_") or name == "__call__"
        if shown and inspect.isfunction(function) and function.__doc__:
            found.append((name, function))
    return found


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name, thing in PUBLIC.items()
        # Those of the backends are for who writes one; a line and the names say enough.
        if isinstance(thing, type) and not name.startswith("schuss.backends.")
    ),
)
def test_public_methods_describe_their_parameters(name):
    for method, function in own_methods(PUBLIC[name]):
        inherited = [
            vars(base)[method] for base in PUBLIC[name].__mro__[1:] if method in vars(base)
        ]
        if not inherited:
            missing = taken(function) - described(function.__doc__)
            assert not missing, f"{name}.{method} does not describe {sorted(missing)}"


def modules() -> list[str]:
    found = pkgutil.walk_packages(schuss.__path__, "schuss.")
    return sorted({"schuss", *(module.name for module in found)} - NOT_IMPORTED)


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_run(name, tmp_path, monkeypatch):
    if name.startswith("schuss.backends.native"):
        pytest.importorskip("schuss._native", reason="the native extension is not built")
    if name.startswith(("schuss.torch", "schuss.lab.optim")):
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder().find(module):
        if test.examples:
            report: list[str] = []
            outcome = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
            assert outcome.failed == 0, "".join(report)


# ---- The README ----------------------------------------------------------------------------------


def test_the_readme_has_its_marks():
    lines = README.read_text(encoding="utf-8").splitlines()
    for mark in ("<!-- example-command -->", "<!-- test-command -->"):
        assert lines.count(mark) == 1
        assert lines[lines.index(mark) + 1].startswith("```")
    begin, end = (lines.index(f"<!-- numbers:{edge} -->") for edge in ("begin", "end"))
    assert begin < end


def test_links_of_the_readme_exist():
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (ROOT / target).exists(), target

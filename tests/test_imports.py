"""The walls: what importing schuss loads, and which room may import which."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import run_python

import schuss

PACKAGE = Path(schuss.__file__).parent

# ------------------------------------------------------------------------------- what is loaded

LAZY = [
    "numba",
    "cupy",
    "sklearn",
    "torch",
    "mpi4py",
    "pyarrow",
    "matplotlib",
    "pandas",
    "rich",
    "click",
]


def test_importing_schuss_loads_nothing_heavy():
    code = f"import schuss, sys; print(*[name for name in {LAZY} if name in sys.modules])"
    assert run_python(code) == ""


def test_describing_a_run_loads_nothing_heavy():
    """Every public name but the commands can be looked up without compiling or drawing."""
    code = f"""
        import schuss, sys
        for name in schuss.__all__:
            getattr(schuss, name)
        schuss.losses.get("huber(epsilon=2)"), schuss.rules.get("adam"), schuss.backends.available()
        print(*[name for name in {LAZY} if name in sys.modules])
    """
    assert run_python(code) == ""


# --------------------------------------------------------------------------- who imports whom

# Rooms in the order in which imports may point: to the same floor or one below.
FLOORS = [
    ["errors", "_version", "_native"],
    ["formulas", "losses", "rules", "schedules"],
    ["backends", "data", "comm", "orders"],
    ["train"],
    ["sklearn", "torch", "lab"],
    ["diagnostics"],
    ["cli"],
]
# data and comm stand beside backends.
BESIDE = {"data": {"backends"}, "comm": {"backends", "data"}, "backends": {"comm"}}
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
TRAIN = FLOOR["train"]

# An optional package is imported inside functions alone, so that nothing needs it to be there.
OPTIONAL = {"cupy", "sklearn", "torch", "mpi4py", "pyarrow", "matplotlib", "pandas", "scipy"}
OPTIONAL |= {"joblib", "skl2onnx", "threadpoolctl", "plotly", "jax", "vowpalwabbit", "cuml"}
# The plugin is loaded by pytest, so pytest is there.
# The faces are imported by themselves, by those who have the library.
ALLOWED = {
    "schuss.lab.pytest_plugin": "pytest",
    "schuss.sklearn.attributes": "sklearn",
    "schuss.sklearn.calls": "sklearn",
    "schuss.sklearn.conversion": "sklearn",
    "schuss.sklearn.estimators": "sklearn",
    "schuss.sklearn.rowwise": "sklearn",
    "schuss.sklearn.onnx": "sklearn",
    "schuss.sklearn.outputs": "sklearn",
    "schuss.sklearn.options": "sklearn",
    "schuss.sklearn.surface": "sklearn",
    "schuss.sklearn.watching": "sklearn",
    "schuss.sklearn.oneclass": "sklearn",
    "schuss.sklearn.parts": "sklearn",
    "schuss.torch.loading": "torch",
    "schuss.torch.optimizers": "torch",
    "schuss.torch.tensors": "torch",
    "schuss.torch.wrappers": "torch",
}
REQUIRED = {"numpy", "numba", "click", "rich"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(module: str) -> str | None:
    """The room of a module ``schuss.room...``; None for the package itself and its entry point."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else None


def floor(name: str) -> int:
    """The other modules beside ``train.py`` make up the trainer with it."""
    return FLOOR.get(name, TRAIN)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(path: Path) -> Iterator[tuple[str, bool, int]]:
    """Each imported module, whether it is imported inside a function, and the line."""

    def visit(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool, int]]:
        for child in ast.iter_child_nodes(node):
            if is_type_checking(child):
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield alias.name, inside, child.lineno
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno}: a relative import"
                if child.module == "schuss":  # from schuss import rooms
                    for alias in child.names:
                        yield f"schuss.{alias.name}", inside, child.lineno
                else:
                    yield str(child.module), inside, child.lineno
            else:
                function = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
                yield from visit(child, inside or isinstance(child, function))

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False)


def test_imports_are_found():
    """The reader of imports itself."""
    found = {name for name, _, _ in imports(PACKAGE / "backends" / "compiled.py")}
    assert {"numpy", "schuss.backends.protocol", "schuss.formulas"} <= found
    nested = list(imports(PACKAGE / "backends" / "__init__.py"))
    assert any(inside for name, inside, _ in nested if name == "schuss.backends.jit")


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_imports_point_one_way(path):
    own = room(module_name(path))
    if own is None:
        return
    for module, _, line in imports(path):
        other = room(module) if module.split(".")[0] == "schuss" else None
        if other is None or other == own:
            continue
        where = f"{path.name}:{line}: {own} imports {module}"
        assert floor(other) <= floor(own), where
        assert other not in BESIDE.get(own, ()), where


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_optional_packages_are_imported_inside_functions(path):
    for module, inside, line in imports(path):
        package = module.split(".")[0]
        where = f"{path.name}:{line}: {module}"
        if package == ALLOWED.get(module_name(path)):
            continue
        if package in OPTIONAL:
            assert inside, where
        elif package not in REQUIRED | {"schuss", "__future__"}:
            assert package in sys.stdlib_module_names, f"{where} is no dependency"


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_lazy_packages_stay_where_they_are_used(path):
    """Numba's decorators stand at the top of the kernels' files, which are loaded on first use."""
    own = module_name(path)
    for module, inside, line in imports(path):
        if module.split(".")[0] == "numba" and not inside:
            assert own.startswith("schuss.backends.kernels"), f"{path.name}:{line}"
        if module.split(".")[0] in ("click", "rich") and not inside:
            assert room(own) == "cli", f"{path.name}:{line}"

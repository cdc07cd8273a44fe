"""Tables and curves of the formulas, made from the tables in the code.

.. formula-table:: losses      one line per row: name, docstring, parameters, facts
.. formula-curves:: losses     one small drawing per row
.. name-table:: schuss.losses  the names of a module with the first sentences about them

Nothing is listed here by hand: a row that is added to a table of the package appears on the pages.
"""

from __future__ import annotations

import dataclasses
import html
import inspect
import re
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import numpy as np
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from schuss.data.order import ORDERS
from schuss.formulas.losses import DOMAINS, LOSSES, VECTOR_LOSSES, Loss
from schuss.formulas.rules import RULES, Rule
from schuss.formulas.schedules import SCHEDULES, Schedule
from schuss.formulas.spec import Spec

TABLES = {
    "losses": LOSSES,
    "vector_losses": VECTOR_LOSSES,
    "rules": RULES,
    "schedules": SCHEDULES,
    "orders": ORDERS,
}


# ---- Text of a row -------------------------------------------------------------------------------


def summary(described: Any) -> str:
    """First sentence of a docstring, and the displayed equation where one follows it.

    Equations that stand side by side in the docstring stand below each other in a table.
    """
    text = inspect.cleandoc(described.__doc__ or "")
    prose = text.split("\nParameters\n")[0].split("\nReferences\n")[0].split("\nExamples\n")[0]
    paragraphs = prose.split("\n\n")
    shown = [paragraphs[0]]
    if len(paragraphs) > 1 and paragraphs[1].startswith(".. math::"):
        equations = re.split(r",?\s*\\q?quad\s*", paragraphs[1].removeprefix(".. math::"))
        shown += [f":math:`{' '.join(equation.split())}`" for equation in equations]
    return "\n\n".join(shown)


def parameters(row: type[Spec]) -> str:
    """The parameters with their defaults, as they are written in a text form."""
    parts = []
    for field in dataclasses.fields(row):
        default = "" if field.default is dataclasses.MISSING else f"={field.default!s}"
        parts.append(f"``{field.name}{default}``")
    return " ".join(parts)


def heading(family: str, row: type[Spec]) -> str:
    """Name, linked to its reference, and the parameters below it."""
    return f":class:`~schuss.{family}.{row.__name__}`\n\n{parameters(row)}".rstrip()


def loss_cells(row: type[Loss]) -> list[str]:
    domain = DOMAINS[row.domain]
    by_label = row.curvature_bound is not Loss.curvature_bound
    bound = "by label" if by_label else f"{row.curvature:g}"
    return [heading("losses", row), summary(row), domain, bound]


def rule_cells(row: type[Rule]) -> list[str]:
    rule = row()
    rate = rule.default_learning_rate
    return [
        heading("rules", row),
        summary(row),
        str(len(rule.slots)) if row.__name__ != "sgd" else "0; 1 with momentum",
        "yes" if rule.proximal else "no",
        "measured" if rate is None else f"{rate:g}",
    ]


def plain_cells(family: str) -> Callable[[type[Spec]], list[str]]:
    return lambda row: [heading(family, row), summary(row)]


COLUMNS: dict[str, tuple[list[str], list[int], Callable[[Any], list[str]]]] = {
    "losses": (
        ["Loss", "Value at margin :math:`m`", "Labels", ":math:`c`"],
        [29, 45, 18, 8],
        loss_cells,
    ),
    "vector_losses": (
        ["Loss", "Value at margins :math:`m_1 \\ldots m_k`", "Labels", ":math:`c`"],
        [29, 45, 18, 8],
        loss_cells,
    ),
    "rules": (
        ["Rule", "Update", "Memory", "L1", '"auto"'],
        [27, 41, 13, 6, 13],
        rule_cells,
    ),
    "schedules": (["Schedule", "Rate at step :math:`t`"], [34, 66], plain_cells("schedules")),
    "orders": (["Order", "Rows of an epoch"], [34, 66], plain_cells("orders")),
}


# ---- Tables --------------------------------------------------------------------------------------


class Tabular(SphinxDirective):
    """A directive whose result is a table with parsed cells."""

    required_arguments = 1

    def table(
        self, head: list[str], widths: list[int], body: Iterable[list[str]], kind: str
    ) -> nodes.table:
        table = nodes.table(classes=["formula-table", "colwidths-given", kind])
        group = nodes.tgroup(cols=len(head))
        table += group
        group.extend(nodes.colspec(colwidth=width) for width in widths)
        group += nodes.thead("", self.line(head))
        rows = nodes.tbody()
        group += rows
        for cells in body:
            rows += self.line(cells)
        return table

    def line(self, cells: list[str]) -> nodes.row:
        row = nodes.row()
        for text in cells:
            entry = nodes.entry()
            self.state.nested_parse(StringList(text.splitlines(), ""), 0, entry)
            row += entry
        return row


class FormulaTable(Tabular):
    """One line per row of a table of formulas."""

    def run(self) -> list[nodes.Node]:
        family = self.arguments[0]
        head, widths, cells = COLUMNS[family]
        return [self.table(head, widths, map(cells, TABLES[family]), family)]


class NameTable(Tabular):
    """The public names of a module, each with its first sentence.

    Names without a docstring get theirs from the directive's lines, ``name: sentence``.
    """

    has_content = True

    def run(self) -> list[nodes.Node]:
        module = import_module(self.arguments[0])
        said = dict(line.split(": ", 1) for line in self.content if line)
        body = [
            [
                f":py:obj:`~{module.__name__}.{name}`",
                said.get(name) or first_sentence(getattr(module, name)),
            ]
            for name in module.__all__
        ]
        return [self.table(["Name", "What it is"], [30, 70], body, "names")]


def first_sentence(described: Any) -> str:
    text = inspect.cleandoc(described.__doc__ or "").split("\n\n")[0]
    return re.sub(r"\s+", " ", text)


# ---- Curves --------------------------------------------------------------------------------------

WIDTH, HEIGHT, PAD = 220, 120, 10
LABELS_DRAWN = {"real": 0.0, "binary": 1.0, "nonnegative": 2.0}
# Parameters that schedules ask for, by name; enough to draw each of them.
DRAWN: dict[str, Any] = {
    "lr": 1.0,
    "peak": 1.0,
    "eta0": 1.0,
    "low": 0.1,
    "high": 1.0,
    "start": 0.0,
    "every": 25,
    "steps": 25,
    "decay": 0.05,
    "factor": 0.5,
    "alpha": 0.05,
}
DRAWN_ROWS: dict[str, dict[str, Any]] = {
    "cosine": {"steps": 80},
    "cosine_restarts": {"steps": 14, "factor": 2.0},
    "one_cycle": {"steps": 100},
    "warmup": {"then": "cosine(1.0, steps=75)"},
    "cyclic": {"steps": 12, "mode": "triangular2"},
    "inverse_sqrt": {"timescale": 10.0},
    "per_epoch": {"schedule": "exponential(1.0, factor=0.6)", "steps_per_epoch": 20},
}


@dataclasses.dataclass
class Line:
    """One curve: points, and the CSS class that colours it."""

    x: np.ndarray
    y: np.ndarray
    kind: str


def drawing(title: str, link: str, lines: list[Line], bottom: str) -> str:
    """A small SVG drawing with a title, axes at zero and the given lines."""
    low = min(0.0, *(float(line.y.min()) for line in lines))
    high = max(float(line.y.max()) for line in lines)
    left, right = float(lines[0].x[0]), float(lines[0].x[-1])

    def across(x: Any) -> Any:
        return PAD + (x - left) / (right - left) * (WIDTH - 2 * PAD)

    def up(y: Any) -> Any:
        return HEIGHT - PAD - (y - low) / (high - low) * (HEIGHT - 2 * PAD)

    parts = [f'<line class="axis" x1="0" x2="{WIDTH}" y1="{up(0):.1f}" y2="{up(0):.1f}"/>']
    if left < 0 < right:
        zero = across(0)
        parts.append(f'<line class="axis" x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="{HEIGHT}"/>')
    for line in lines:
        points = " ".join(
            f"{across(a):.1f},{up(b):.1f}" for a, b in zip(line.x, line.y, strict=True)
        )
        parts.append(f'<polyline class="{line.kind}" points="{points}"/>')
    label = html.escape(f"{title}, {bottom}")
    return (
        f'<a class="curve" href="{link}"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg><span class="name">{html.escape(title)}</span>'
        f'<span class="below">{html.escape(bottom)}</span></a>'
    )


def loss_lines(row: type[Loss]) -> tuple[list[Line], str]:
    loss, y = row(), LABELS_DRAWN[row.domain]
    margin = np.linspace(-3.0, 3.0, 241)
    value, slope = loss(margin, y), loss.derivative(margin, y)
    bottom = {
        "real": "m \N{MINUS SIGN} y",
        "binary": "m, for y = +1",
        "nonnegative": "m, for y = 2",
    }
    return [Line(margin, slope, "slope"), Line(margin, value, "value")], bottom[row.domain]


def schedule_lines(row: type[Schedule]) -> tuple[list[Line], str]:
    chosen = DRAWN_ROWS.get(row.__name__, {})
    for field in dataclasses.fields(row):
        needed = field.default is dataclasses.MISSING
        if needed and field.name not in chosen:
            chosen = {**chosen, field.name: DRAWN[field.name]}
    schedule = row(**chosen)
    step = np.arange(101)
    values = ", ".join(str(v) if isinstance(v, Spec) else f"{k}={v}" for k, v in chosen.items())
    return [Line(step.astype(float), schedule(step), "value")], values


DRAW: dict[str, Callable[[Any], tuple[list[Line], str]]] = {
    "losses": loss_lines,
    "schedules": schedule_lines,
}


class FormulaCurves(SphinxDirective):
    """One drawing per row of a table of formulas."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        family = self.arguments[0]
        drawn = []
        for row in TABLES[family]:
            lines, bottom = DRAW[family](row)
            link = f"api/{family}.html#schuss.{family}.{row.__name__}"
            drawn.append(drawing(row.__name__, link, lines, bottom))
        text = f'<div class="curves">{"".join(drawn)}</div>'
        return [nodes.raw("", text, format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("formula-table", FormulaTable)
    app.add_directive("formula-curves", FormulaCurves)
    app.add_directive("name-table", NameTable)
    # The pages depend on the package, which Sphinx does not see: read them anew each time.
    return {"version": "1", "parallel_read_safe": True, "env_version": 1}

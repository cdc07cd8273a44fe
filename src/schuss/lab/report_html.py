"""One interactive page: charts, knees, ceilings and tables; needs no network to be read."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable
from typing import Any

from schuss.errors import MissingPackage
from schuss.lab.record import Curve, Outcome, Record, settings_of
from schuss.lab.table import figure, machine_line, millions, percent, setting_label, short, spread

__all__ = ["page"]

COLOURS = (
    "#d1495b",
    "#00798c",
    "#edae49",
    "#66a182",
    "#5b4b8a",
    "#8d6a4f",
    "#3d5a80",
    "#c06e9c",
    "#6b7a8f",
    "#9aa02b",
)
OURS = {"native": "#d1495b", "jit": "#00798c", "reference": "#7f7f7f"}

STYLE = """
:root { --ink: #1d2433; --soft: #667085; --line: #e4e7ec; --back: #f7f8fa; --card: #fff;
        --accent: #d1495b; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
       font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 26px; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 0 0 4px; }
.sub { color: var(--soft); margin: 4px 0 22px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px;
         margin-bottom: 18px; }
.card, section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.card { padding: 12px 16px; }
.card b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: 13px; }
section { padding: 18px 20px; margin-bottom: 18px; }
.tabs { display: flex; flex-wrap: wrap; gap: 6px; margin-bottom: 14px; }
.tabs button { font: inherit; font-size: 13px; padding: 5px 12px; border-radius: 999px;
               border: 1px solid var(--line); background: var(--card); color: var(--ink);
               cursor: pointer; }
.tabs button[aria-selected=true] { background: var(--ink); color: #fff; border-color: var(--ink); }
.charts { display: grid; grid-template-columns: 3fr 2fr; gap: 16px; }
.chart { height: 500px; min-width: 0; }
@media (max-width: 900px) { .charts { grid-template-columns: 1fr; } }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px;
        font-variant-numeric: tabular-nums; }
th { text-align: right; color: var(--soft); font-weight: 600; white-space: nowrap; }
td { text-align: right; white-space: nowrap; }
th, td { padding: 5px 10px; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
td.text, th.text { text-align: left; white-space: normal; }
tr:last-child td { border-bottom: 0; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 8px; }
.moonshot, .bar { color: #16794c; font-weight: 600; } .missed { color: #b42318; font-weight: 600; }
details { margin-top: 14px; } summary { cursor: pointer; color: var(--soft); }
.note { color: var(--soft); font-size: 13px; margin: 8px 0 0; }
"""

SCRIPT = """
const shown = {};
function show(k) {
  if (!FIGURES.length) return;
  document.querySelectorAll('.panel').forEach((p, j) => { p.hidden = j !== k; });
  document.querySelectorAll('.tabs button').forEach(
    (b, j) => b.setAttribute('aria-selected', j === k));
  if (shown[k] || !FIGURES[k]) return;
  shown[k] = true;
  for (const name of ['speed', 'time'])
    Plotly.newPlot(name + k, FIGURES[k][name].data, FIGURES[k][name].layout,
                   {responsive: true, displayModeBar: false});
}
"""


def page(record: Record) -> str:
    """The page as text."""
    settings = settings_of(record.cells)
    panels = [[c for c in record.curves() if c.cells[0].setting == setting] for setting in settings]
    fullest = max(range(len(panels)), key=lambda k: sum(len(c.cells) for c in panels[k]), default=0)
    colours = _colours(record)
    figures = [
        {"speed": speed_figure(record, curves, colours), "time": time_figure(curves, colours)}
        for curves in panels
    ]
    tabs = "".join(
        f'<button onclick="show({k})">{html.escape(_tab(setting))}</button>'
        for k, setting in enumerate(settings)
    )
    body = "".join(_panel(k, record, curves, colours) for k, curves in enumerate(panels))
    data = json.dumps(figures).replace("</", "<\\/")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>schuss: throughput against batch size</title>
<style>{STYLE}</style>
<script>{_plotly()}</script>
</head>
<body>
<main>
<h1>Throughput against batch size</h1>
<p class="sub">{html.escape(machine_line(record.machine))}</p>
{_cards(record)}
<nav class="tabs">{tabs}</nav>
{body}
{_outcomes(record.outcomes)}
{_ceilings(record)}
{_machine(record)}
</main>
<script>const FIGURES = {data};{SCRIPT}show({fullest});</script>
</body>
</html>
"""


def _tab(setting: tuple[int, str, str, str]) -> str:
    """A setting without the parameters of its order."""
    return re.sub(r"\(.*?\)", "", setting_label(setting)) or "steps"


def _plotly() -> str:
    """The library itself, so that the page needs no network."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingPackage("Record.to_html needs plotly: pip install plotly") from None
    script: str = get_plotlyjs()
    return script


def _colours(record: Record) -> dict[str, str]:
    """One colour for each name, the same in every chart."""
    free = [colour for colour in COLOURS if colour not in OURS.values()]
    others = [n for n in dict.fromkeys(cell.name for cell in record.cells) if n not in OURS]
    return OURS | {name: free[k % len(free)] for k, name in enumerate(others)}


# ---- Charts --------------------------------------------------------------------------------------


def _layout(title: str, unit: str) -> dict[str, Any]:
    axis = {"type": "log", "gridcolor": "#eceef2", "zeroline": False, "linecolor": "#c9ced6"}
    return {
        "title": {"text": title, "font": {"size": 15}, "x": 0.01, "xanchor": "left"},
        "font": {"family": "system-ui, 'DejaVu Sans', sans-serif", "color": "#1d2433", "size": 12},
        "margin": {"l": 62, "r": 14, "t": 42, "b": 96},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": -0.2, "x": 0, "yanchor": "top"},
        "xaxis": {**axis, "title": {"text": "batch size", "standoff": 6}, "dtick": 1},
        "yaxis": {**axis, "title": {"text": unit}, "dtick": 1, "exponentformat": "SI"},
    }


def _line(curve: Curve, colour: str, y: list[float], text: list[str]) -> dict[str, Any]:
    peer = curve.cells[0].kind == "peer"
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": curve.name,
        "x": [cell.batch_size for cell in curve.cells],
        "y": y,
        "text": text,
        "hovertemplate": "%{text}<extra>" + html.escape(curve.name) + "</extra>",
        "line": {"color": colour, "width": 1.6 if peer else 3, "dash": "dot" if peer else "solid"},
        "marker": {"size": 6 if peer else 8, "color": colour},
    }


def speed_figure(record: Record, curves: list[Curve], colours: dict[str, str]) -> dict[str, Any]:
    """Samples per second, with knees (rings) and ceilings (lines)."""
    data = []
    for curve in curves:
        text = [
            f"batch {cell.batch_size:,}<br>{short(cell.samples_per_second)} samples/s"
            f" ({spread(cell)})<br>{percent(cell.fraction)} of {cell.ceiling or 'no ceiling'}"
            for cell in curve.cells
        ]
        y = [cell.samples_per_second for cell in curve.cells]
        data.append(_line(curve, colours[curve.name], y, text))
    data.append(_knees(curves, colours))
    layout = _layout("Samples per second", "samples / s")
    layout["shapes"], layout["annotations"] = _ceiling_lines(record, curves)
    return {"data": data, "layout": layout}


def _knees(curves: list[Curve], colours: dict[str, str]) -> dict[str, Any]:
    several = [curve for curve in curves if len(curve.cells) > 1]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "knee: smallest batch at 90 % of the best",
        "x": [curve.knee.batch_size for curve in several],
        "y": [curve.knee.samples_per_second for curve in several],
        "hoverinfo": "skip",
        "marker": {
            "size": 17,
            "symbol": "circle-open",
            "line": {"width": 2.5},
            "color": [colours[curve.name] for curve in several],
        },
    }


def _ceiling_lines(record: Record, curves: list[Curve]) -> tuple[list[Any], list[Any]]:
    bound: dict[str, float] = {}
    for curve in curves:
        for cell in curve.cells:
            ceilings = record.ceilings_for(cell)
            if ceilings is not None:
                for cores in {1, ceilings.cores}:
                    label, speed = ceilings.of(cell.order, cores)
                    bound[label] = speed
    shapes = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": speed,
            "y1": speed,
            "line": {"color": "#98a2b3", "width": 1.5, "dash": "dash"},
        }
        for speed in bound.values()
    ]
    ranked = sorted(bound.items(), key=lambda item: item[1])
    notes = [
        {
            "xref": "paper",
            "x": 0.99 if k % 2 else 0.01,
            "xanchor": "right" if k % 2 else "left",
            "y": math.log10(speed),
            "yanchor": "bottom",
            "showarrow": False,
            "text": f"ceiling: {label} ({short(speed)})",
            "font": {"size": 11, "color": "#667085"},
        }
        for k, (label, speed) in enumerate(ranked)
    ]
    return shapes, notes


def time_figure(curves: list[Curve], colours: dict[str, str]) -> dict[str, Any]:
    """Seconds per update."""
    data = []
    for curve in curves:
        y = [cell.seconds_per_update for cell in curve.cells]
        text = [
            f"batch {cell.batch_size:,}<br>{short(cell.seconds_per_update, 's')} per update"
            for cell in curve.cells
        ]
        data.append(_line(curve, colours[curve.name], y, text) | {"showlegend": False})
    return {"data": data, "layout": _layout("Time per update", "seconds")}


# ---- Tables --------------------------------------------------------------------------------------


def _table(
    headings: Iterable[str], rows: Iterable[Iterable[str]], text: tuple[int, ...] = ()
) -> str:
    def row(cells: Iterable[str], tag: str) -> str:
        return (
            "<tr>"
            + "".join(
                f"<{tag}{' class=text' if k in text else ''}>{cell}</{tag}>"
                for k, cell in enumerate(cells)
            )
            + "</tr>"
        )

    head = row((html.escape(h) for h in headings), "th")
    return f'<div class="scroll"><table>{head}{"".join(row(r, "td") for r in rows)}</table></div>'


def _name(name: str, colours: dict[str, str]) -> str:
    dot = f'<span class="dot" style="background:{colours[name]}"></span>'
    return dot + html.escape(name)


def _panel(k: int, record: Record, curves: list[Curve], colours: dict[str, str]) -> str:
    summary = _table(
        ("", "best samples/s", "at batch", "of ceiling", "GB/s", "knee", "largest batch loses"),
        (
            (
                _name(curve.name, colours),
                short(curve.best.samples_per_second),
                f"{curve.best.batch_size:,}",
                percent(curve.best.fraction),
                "–"
                if curve.best.gigabytes_per_second is None
                else f"{curve.best.gigabytes_per_second:.2f}",
                f"{curve.knee.batch_size:,}" if len(curve.cells) > 1 else "–",
                percent(curve.decline),
            )
            for curve in sorted(curves, key=lambda c: -c.best.samples_per_second)
        ),
    )
    every = _table(
        ("", "batch", "samples/s", "spread", "per update", "cores", "of ceiling", "which"),
        (
            (
                _name(cell.name, colours) + (" (wrong result)" if cell.verified is False else ""),
                f"{cell.batch_size:,}",
                short(cell.samples_per_second),
                spread(cell),
                short(cell.seconds_per_update, "s"),
                f"{cell.cores or '–'}",
                percent(cell.fraction),
                html.escape(cell.ceiling or "–"),
            )
            for curve in curves
            for cell in curve.cells
        ),
    )
    return (
        f'<div class="panel" hidden><section><div class="charts"><div id="speed{k}" class="chart">'
        f'</div><div id="time{k}" class="chart"></div></div></section><section><h2>Best, knee, '
        f"decline</h2>{summary}<details><summary>All {sum(len(c.cells) for c in curves)} cells"
        f"</summary>{every}</details></section></div>"
    )


def _cards(record: Record) -> str:
    ours = [cell for cell in record.cells if cell.kind != "peer"] or list(record.cells)
    if not ours:
        return ""
    fast = max(ours, key=lambda cell: cell.samples_per_second)
    cards = [(short(fast.samples_per_second), f"samples/s at most: {fast.name}, d = {fast.d}")]
    fractions = [cell for cell in ours if cell.fraction is not None]
    if fractions:
        near = max(fractions, key=lambda cell: cell.fraction or 0)
        cards.append((percent(near.fraction), f"of the ceiling at most: {near.name}, d = {near.d}"))
    curves = [curve for curve in record.curves() if curve.name == fast.name]
    knees = sorted({curve.knee.batch_size for curve in curves if len(curve.cells) > 1})
    if knees:
        span = f"{knees[0]:,}" if len(knees) == 1 else f"{knees[0]:,} – {knees[-1]:,}"
        cards.append((span, f"rows at the knee: {fast.name}"))
    met = [made for made in record.outcomes if made.measured is not None]
    if met:
        reached = sum(made.verdict in ("bar", "moonshot") for made in met)
        cards.append((f"{reached} of {len(met)}", "bars met"))
    inside = "".join(
        f'<div class="card"><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>'
        for value, label in cards
    )
    return f'<div class="cards">{inside}</div>'


def _outcomes(outcomes: tuple[Outcome, ...]) -> str:
    if not outcomes:
        return ""
    rows = [
        (
            html.escape(made.what),
            html.escape(made.column),
            figure(made.bar, made.unit),
            figure(made.moonshot, made.unit),
            figure(made.measured, made.unit),
            f'<span class="{made.verdict.split()[0]}">{made.verdict}</span>',
            html.escape(made.note),
        )
        for made in outcomes
    ]
    headings = ("what", "data", "bar", "moonshot", "measured", "met", "note")
    return f"<section><h2>The speed to reach</h2>{_table(headings, rows, (0, 1, 6))}</section>"


def _ceilings(record: Record) -> str:
    if not record.ceilings:
        return ""
    rows = [
        (
            f"d = {c.d}, {c.dtype}",
            f"{c.n:,}",
            millions(c.sequential_one),
            millions(c.sequential_all),
            millions(c.random_one),
            millions(c.random_all),
            "–" if c.flops_one is None else f"{c.flops_one / 1e9:.0f}",
            "–" if c.flops_all is None else f"{c.flops_all / 1e9:.0f}",
            short(c.fork_join, "s"),
            c.measured_by,
        )
        for c in record.ceilings
    ]
    headings = (
        "data",
        "rows",
        "in order, one core",
        "all cores",
        "random, one core",
        "all cores",
        "GFLOP/s, one core",
        "all cores",
        "fork-join",
        "measured by",
    )
    return (
        f"<section><h2>The machine's ceilings</h2>{_table(headings, rows)}"
        '<p class="note">Millions of rows per second that are read and added up, and nothing '
        "else.</p></section>"
    )


def _machine(record: Record) -> str:
    facts = {**record.machine, **record.settings}
    rows = [(html.escape(str(k)), html.escape(str(v))) for k, v in facts.items() if v is not None]
    gone = [f"not run: {name} ({why})" for name, why in record.absent.items()]
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in (*gone, *record.notes))
    return f"<section><h2>Machine and settings</h2>{_table(('', ''), rows, (1,))}{notes}</section>"

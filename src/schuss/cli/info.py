"""``schuss info``: what a bug report needs."""

from __future__ import annotations

import json

import click

__all__ = ["info"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(as_json: bool) -> None:
    """Show versions, processor, threads and backends.

    For a backend that is missing it says why, and what to install.
    """
    from schuss.info import collect, render

    facts = collect()
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        click.echo(render(facts, emphasis=lambda heading: click.style(heading, bold=True)))

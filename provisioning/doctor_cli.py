"""``icecap doctor``: the findings of ``doctor`` as a table or JSON. Exit code 1 when something is bad."""

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from provisioning.doctor import Finding, Verdict, examine

__all__ = ["app"]

MARKS = {Verdict.GOOD: "[green]good[/]", Verdict.NOTE: "[yellow]note[/]", Verdict.BAD: "[red]bad[/]"}

app = typer.Typer(help="What is installed, reachable, behind; and what to do about it.")


@app.callback(invoke_without_command=True)
def doctor(
    *,
    config: Annotated[list[Path] | None, typer.Option("--config", "-c", help="A gateway's or ingest's TOML file; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document; secrets are never in it.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Show the good findings too.")] = False,
) -> None:
    """Look at this machine, the given configurations, and the services named by DATABASE_URL, INFLUX_URL and GRAFANA_URL."""
    now_ms = time.time_ns() // 1_000_000  # an entry point may read the machine's clock
    findings = list(examine(tuple(config or ()), environment=dict(os.environ), now_ms=now_ms))
    bad = sum(one.verdict is Verdict.BAD for one in findings)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(one) for one in findings], indent=2))
    else:
        _print(findings, everything=everything)
    raise typer.Exit(1 if bad else 0)


def _print(findings: list[Finding], *, everything: bool) -> None:
    table = Table("", "part", "subject", "what was found", "next step", box=None, padding=(0, 2, 0, 0))
    for one in findings:
        if everything or one.verdict is not Verdict.GOOD:
            table.add_row(MARKS[one.verdict], one.part, one.subject, one.detail, one.step)
    console = Console()
    if table.row_count:
        console.print(table)
    counts = {verdict: sum(one.verdict is verdict for one in findings) for verdict in Verdict}
    hint = "" if everything else " (--all shows the good ones too)"
    console.print(f"{counts[Verdict.GOOD]} good, {counts[Verdict.NOTE]} to note, {counts[Verdict.BAD]} bad{hint}")
